"""What cibuildwheel is to build, and what must not be in a wheel."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
# It does not depend on the twin that the tests run on.
pytestmark = pytest.mark.native_only

LISTED: dict[tuple[str, str], list[str]] = {}
for line in (ROOT / ".ci" / "build_identifiers.txt").read_text(encoding="ascii").splitlines():
    if not line.startswith("#"):
        system, architecture, identifier = line.split()
        LISTED.setdefault((system, architecture), []).append(identifier)


def identifiers(system: str, architecture: str, **variables: str) -> list[str]:
    """What cibuildwheel says that it would build."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CIBW_")}
    command = [sys.executable, "-m", "cibuildwheel", "--platform", system, "--archs", architecture,
               "--print-build-identifiers", str(ROOT)]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(("system", "architecture"), LISTED)
def test_cibuildwheel_builds_what_is_listed(system: str, architecture: str) -> None:
    assert identifiers(system, architecture) == LISTED[system, architecture]


@pytest.mark.parametrize("system", ["linux", "macos", "windows"])
@pytest.mark.parametrize("variables", [{}, {"CIBW_BUILD": "cp*"}], ids=["as configured", "every CPython"])
def test_neither_a_machine_nor_a_cpython_is_forgotten(system: str, variables: dict[str, str]) -> None:
    """On all machines nothing but what is listed; and no CPython that has been released is left out."""
    listed = {name for (where, _), names in LISTED.items() if where == system for name in names}
    assert set(identifiers(system, "all", **variables)) == listed


@pytest.mark.parametrize("system", ["linux", "macos", "windows"])
def test_no_wheel_is_built_without_the_codecs_or_tested_on_the_other_twin(system: str) -> None:
    """A table of one platform may hide that of all."""
    options = importlib.import_module("cibuildwheel.options")
    arguments = options.CommandLineArguments.defaults()
    arguments.platform, arguments.package_dir, arguments.archs = system, ROOT, "all"
    configured = options.compute_options(platform=system, command_line_arguments=arguments, env={})
    for name in [name for (where, _), names in LISTED.items() if where == system for name in names]:
        one = configured.build_options(name)
        building, testing = (each.as_dictionary({}) for each in (one.environment, one.test_environment))
        assert building["FASTPROD_REQUIRE_NATIVE"] == "1", name
        assert building["FASTPROD_LZ4"] == building["FASTPROD_ZSTD"] == "require", name
        assert building["FASTPROD_CODEC_LIBS"] in one.before_build, name
        assert building["FASTPROD_ZLIB"] == ("0" if system == "windows" else "require"), name
        assert ("-static-libstdc++" in building.get("LDFLAGS", "")) == ("musllinux" in name), name
        assert ("MACOSX_DEPLOYMENT_TARGET" in building) == (system == "macos"), name
        assert testing["FASTPROD_BACKEND"] == "native", name
        assert testing["FASTPROD_TEST_LINKED"] == "lz4,zstd", name
        assert one.test_selector(name) != name.endswith(("-musllinux_ppc64le", "-musllinux_s390x")), name
        assert "{project}/tests/parity {project}/tests/unit/test_held_interpreter.py" in one.test_command, name
        assert one.audit_command == ["python {project}/.ci/check_wheel.py --published {wheel}"], name
        assert " repair" in one.repair_command or "delocate-wheel" in one.repair_command, name
        # cramjam's newest wheels are for a newer glibc than that of manylinux2014, older ones are not.
        assert testing["PIP_PREFER_BINARY"] == "1", name
        if system == "linux":
            machine = name.rpartition("linux_")[2]
            assert f"manylinux2014_{machine}@sha256:" in one.manylinux_images[machine], name


def test_the_page_on_installing_names_them() -> None:
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    tags = {name.partition("-")[0].removeprefix("cp3") for names in LISTED.values() for name in names}
    minors = sorted(int(tag) for tag in tags if tag.isdigit())
    free_threaded = sorted(tag.removesuffix("t") for tag in tags if tag.endswith("t"))
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert f"CPython 3.{minors[0]} to 3.{minors[-1]}" in page
    assert f"free-threaded builds of {' and '.join('3.' + minor for minor in free_threaded)}" in " ".join(page.split())


def test_the_page_on_installing_names_the_scripts() -> None:
    """Those that prove something of a wheel, and none that is not there."""
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `\.ci/(\w+\.py)` \|", page, re.MULTILINE))
    assert named == {"zig_wheel.py", "pythons.py", "check_wheel.py", "import_time.py", "platforms.py"}
    assert [name for name in named if not (ROOT / ".ci" / name).is_file()] == []


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def check_wheel() -> ModuleType:
    return script("check_wheel")


def test_sources_of_the_codecs_need_nothing_that_is_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What their own build would install, cffi, has no wheels for musl on ppc64le, s390x."""
    told: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: told.append(command))
    script("codec_libs").download(tmp_path)
    install, download = told
    assert {re.split("[>=]", word)[0] for word in install[install.index("--target") + 2 :]} == {
        "setuptools", "setuptools_scm",
    }  # fmt: skip
    assert {"download", "--no-deps", "--no-build-isolation", "--require-hashes"} <= set(download)


def compiled(folder: Path, *flags: str) -> bytes:
    """An extension module of a line."""
    source = folder / "module.c"
    source.write_text("__attribute__((visibility(\"default\"))) int PyInit__core(void) { return 0; }\n"
                      "#ifdef EXPORTS\nint other(void) { return 0; }\n#endif\n", encoding="ascii")
    command = ["cc", "-shared", "-fPIC", "-o", str(folder / "module.so"), str(source), *flags]
    subprocess.run(command, check=True)
    return (folder / "module.so").read_bytes()


def wheel(folder: Path, check_wheel: ModuleType, extension: bytes, changes: dict[str, bytes | None],
          tag: str = "cp311-cp311-manylinux2014_x86_64") -> Path:
    """A wheel with all that belongs into one, but for `changes`: None is left out."""
    info = "fastprod-1.0.dist-info/"
    files: dict[str, bytes | None] = dict.fromkeys(check_wheel.expected_files(), b"")
    files |= dict.fromkeys([*(info + name for name in check_wheel.METADATA),
                            *(f"{info}licenses/{name}" for name in check_wheel.LICENSES)], b"")
    files["fastprod/_core.cpython-311-x86_64-linux-gnu.so"] = extension
    path = folder / f"fastprod-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, **changes}.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def macho(library: str, kind: int) -> bytes:
    """A Mach-O file that needs a library and has one symbol of a kind."""
    name = library.encode().ljust(64, b"\0")
    needs = struct.pack("<6I", 0xC, 24 + len(name), 24, 0, 0, 0) + name
    symbols = struct.pack("<6I", 2, 24, 32 + len(needs) + 24, 1, 0, 0)
    head = struct.pack("<8I", 0xFEEDFACF, 0x100000C, 0, 8, 2, len(needs) + len(symbols), 0, 0)
    return head + needs + symbols + struct.pack("<IBBHQ", 0, kind, 1, 0, 0)


@pytest.mark.parametrize(("data", "faults"), [
    (macho("/usr/lib/libz.1.dylib", 0x0F), []),
    (macho("/opt/homebrew/lib/liblz4.1.dylib", 0x0F), ["needs /opt/homebrew/lib/liblz4.1.dylib"]),
    (macho("/usr/lib/libz.1.dylib", 0x24), ["is not stripped of debug symbols"]),
    (b"MZ VCRUNTIME140.dll KERNEL32.dll api-ms-win-crt-heap-l1-1-0.dll", []),
    (b"MZ MSVCP140.dll", ["needs MSVCP140.dll"]),
])
def test_what_is_wrong_with_an_extension_for_macos_or_windows(
    check_wheel: ModuleType, data: bytes, faults: list[str]
) -> None:
    assert list(check_wheel.faults_of_extension(data)) == faults


@pytest.mark.skipif(not os.environ.get("FASTPROD_TEST_INSTALLED"), reason="an extension built in place has symbols")
def test_the_installed_extension_is_stripped_and_small(check_wheel: ModuleType, tmp_path: Path) -> None:
    data = Path(importlib.import_module("fastprod._core").__file__ or "").read_bytes()
    # A Python of its own kind has what it builds look for libraries where it lies itself.
    assert [fault for fault in check_wheel.faults_of_extension(data) if not fault.startswith("looks for")] == []
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("extension", data)
    # liblz4 and libzstd, which are in a wheel, are that much again.
    assert (tmp_path / "wheel.zip").stat().st_size < check_wheel.SIZE_MAX / 2


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="makes ELF files")
class TestFaults:
    @pytest.fixture
    def good(self, tmp_path: Path) -> bytes:
        return compiled(tmp_path, "-s")

    def test_none(self, tmp_path: Path, check_wheel: ModuleType, good: bytes) -> None:
        assert list(check_wheel.faults(wheel(tmp_path, check_wheel, good, {}), published=True)) == []

    @pytest.mark.parametrize(("name", "data", "fault"), [
        ("fastprod/_core.cpp", b"", "fastprod/_core.cpp should not be there"),
        ("fastprod.libs/liblz4-12345678.so.1", b"", "fastprod.libs/liblz4-12345678.so.1 should not be there"),
        ("fastprod/_native/codec.h", b"", "fastprod/_native/codec.h should not be there"),
        ("fastprod/py.typed", None, "fastprod/py.typed is missing"),
        ("fastprod-1.0.dist-info/licenses/fastprod/_native/licenses/liblz4.txt", None,
         "fastprod-1.0.dist-info/licenses/fastprod/_native/licenses/liblz4.txt is missing"),
        ("fastprod/_core.cpython-311-x86_64-linux-gnu.so", None, "0 extension modules"),
        ("fastprod/_core.cpython-312-x86_64-linux-gnu.so", b"?",
         "fastprod/_core.cpython-312-x86_64-linux-gnu.so is for no system that is known"),
    ])
    def test_files(self, tmp_path: Path, check_wheel: ModuleType, good: bytes, name: str, data: bytes | None,
                   fault: str) -> None:
        assert fault in list(check_wheel.faults(wheel(tmp_path, check_wheel, good, {name: data})))

    @pytest.mark.parametrize(("flags", "fault"), [
        (["-g"], "is not stripped of .symtab"),
        (["-g"], "is not stripped of .debug_info"),
        (["-s", "-DEXPORTS"], "exports other"),
        (["-s", "-Wl,-rpath,/opt/lib"], "looks for libraries in /opt/lib"),
        (["-s", "-Wl,--no-as-needed", "-lcrypt"], "needs libcrypt.so.1"),
    ])
    def test_extension(self, tmp_path: Path, check_wheel: ModuleType, flags: list[str], fault: str) -> None:
        found = list(check_wheel.faults(wheel(tmp_path, check_wheel, compiled(tmp_path, *flags), {})))
        assert f"fastprod/_core.cpython-311-x86_64-linux-gnu.so {fault}" in found

    def test_size(self, tmp_path: Path, check_wheel: ModuleType, good: bytes) -> None:
        path = wheel(tmp_path, check_wheel, good + bytes(check_wheel.SIZE_MAX), {})
        assert f"{path.stat().st_size} bytes, more than 1500000" in list(check_wheel.faults(path))

    @pytest.mark.parametrize(("tag", "published"), [
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp314-cp314t-musllinux_1_2_s390x", True), ("cp315-cp315-macosx_11_0_arm64", True),
        ("cp315-cp315t-win_arm64", True), ("cp311-cp311-linux_x86_64", False), ("cp311-cp312-win_amd64", False),
        ("cp311-cp311-manylinux_2_28_x86_64", False), ("cp311-cp311-manylinux2014_x86_64.manylinux1_x86_64", False),
    ])
    def test_name(self, tmp_path: Path, check_wheel: ModuleType, good: bytes, tag: str, published: bool) -> None:
        found = list(check_wheel.faults(wheel(tmp_path, check_wheel, good, {}, tag), published=True))
        assert (f"{tag} is no tag that is published" not in found) == published


# What .ci/build_identifiers.txt has but for the machines that are optional, by the names that wheels have.
PLATFORMS = ("manylinux_2_17_{}.manylinux2014_{}", "musllinux_1_2_{}", "macosx_11_0_{}", "win_{}")


def names_of(identifiers: list[str]) -> list[Path]:
    """The wheels that cibuildwheel calls so."""
    named = [Path("fastprod-1.0-py3-none-any.whl")]
    for name in identifiers:
        abi, _, platform = name.partition("-")
        system, _, machine = platform.partition("_")
        (form,) = [each for each in PLATFORMS if each.startswith(system)]
        named.append(Path(f"fastprod-1.0-{abi.rstrip('t')}-{abi}-{form.replace('{}', machine)}.whl"))
    return named


class TestAllThatArePublished:
    ALWAYS = names_of([name for (_, machine), names in LISTED.items() for name in names
                       if machine not in ("ppc64le", "s390x")])

    def test_with_or_without_the_optional_machines(self, check_wheel: ModuleType) -> None:
        assert list(check_wheel.absent(self.ALWAYS)) == []
        assert list(check_wheel.absent(self.ALWAYS + names_of(LISTED["linux", "s390x"]))) == []

    def test_one_that_is_missing(self, check_wheel: ModuleType) -> None:
        """The pure one as well, and one of a machine of which there are others."""
        every = self.ALWAYS + names_of(LISTED["linux", "s390x"])
        missing = {
            wheel.name: list(check_wheel.absent([each for each in every if each.name != wheel.name])) for wheel in every
        }
        assert all(len(names) == 1 for names in missing.values()), missing
        assert missing["fastprod-1.0-py3-none-any.whl"] == ["there is no py3-none-any"]
        assert missing["fastprod-1.0-cp315-cp315t-win_arm64.whl"] == ["there is no cp315t-win_arm64"]
        assert missing["fastprod-1.0-cp314-cp314t-musllinux_1_2_s390x.whl"] == ["there is no cp314t-musllinux_s390x"]

    def test_the_command_fails(self, check_wheel: ModuleType, tmp_path: Path) -> None:
        pure = wheel(tmp_path, check_wheel, b"", {"fastprod/_core.cpython-311-x86_64-linux-gnu.so": None},
                     "py3-none-any")
        for flag, status in (("--published", 0), ("--complete", 1)):
            command = [sys.executable, str(ROOT / ".ci" / "check_wheel.py"), flag, str(pure)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == status, done.stdout
            assert ("there is no cp311-manylinux_x86_64\n" in done.stdout) == bool(status)


@pytest.mark.skipif(sys.platform == "win32", reason="its compiler keeps symbols in a file of their own")
@pytest.mark.parametrize(("command", "symbols"), [
    (["build_ext", "--inplace"], True), (["build_ext", "--build-lib", "lib"], False),
], ids=["in place", "for a wheel"])
def test_debug_symbols_stay_where_they_are_built(tmp_path: Path, command: list[str], symbols: bool) -> None:
    """With a compiler that writes down what it is told, and an extension of nothing."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "fastprod" / "_native", tmp_path / "fastprod" / "_native")
    shutil.copy(ROOT / "fastprod" / "_version.py", tmp_path / "fastprod")
    for name in ("__init__.py", "_core.pyx"):
        (tmp_path / "fastprod" / name).touch()
    compiler = tmp_path / "compiler"
    compiler.write_text(
        '#!/bin/sh\necho "$@" >> told\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done\n',
        encoding="ascii",
    )
    compiler.chmod(0o755)
    tools = dict.fromkeys(("CC", "CXX", "LDSHARED", "LDCXXSHARED"), str(compiler))
    subprocess.run([sys.executable, "setup.py", "-q", *command], cwd=tmp_path, env={**os.environ, **tools}, check=True)
    compiling, linking = [
        line.split() for line in (tmp_path / "told").read_text().splitlines() if "_core" in line
    ]
    assert ("-g0" in compiling) != symbols
    assert [flag for flag in compiling if flag.startswith("-g")][-1] == ("-g" if symbols else "-g0")
    assert bool({"-s", "-Wl,-S"} & set(linking)) != symbols
