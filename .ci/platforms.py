"""Compile the generated C++ for the platforms that wheels are made for and that are not here: musl, macOS, Windows.

    python .ci/platforms.py [--source CORE.cpp] [--codecs FOLDER] [PLATFORM...]

An object file each, not linked, without optimization: what is looked for is code that another platform's compiler, C
library or system headers reject. `--source` is what Cython made of `fastprod/_core.pyx`, where that is already there;
`--codecs` is a folder as `codec_libs.py` makes it, and has the code that calls liblz4 and libzstd compiled as well.

The compiler and the systems' headers are zig's, of the package `ziglang`. Python's own headers, with that platform's
pyconfig.h, are those of a CPython that was built there: the `cpython` jars of JavaCPP have them. One pyconfig.h is for
Windows on both processors. No CPython built on musl is to be had, so there it is the headers of the Python that runs
this, which must be one for Linux.

Not seen by this: what is only for Microsoft's own compiler. zig is clang with the headers of MinGW.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ziglang

ROOT = Path(__file__).resolve().parent.parent
ZIG = Path(ziglang.__file__).with_name("zig")
JARS = ("org.bytedeco", "cpython", "3.14.3-1.5.13")


class Platform(NamedTuple):
    """A platform, zig's target for it, and whose Python headers: the jar's classifier, or this Python's."""

    name: str
    target: str
    headers: str = ""
    macros: tuple[str, ...] = ()


PLATFORMS = (
    Platform("musllinux-x86_64", "x86_64-linux-musl"),
    Platform("musllinux-aarch64", "aarch64-linux-musl"),
    Platform("macos-x86_64", "x86_64-macos.11.0", "macosx-x86_64"),
    Platform("macos-arm64", "aarch64-macos.11.0", "macosx-arm64"),
    Platform("windows-x64", "x86_64-windows-gnu", "windows-x86_64"),
    Platform("windows-arm64", "aarch64-windows-gnu", "windows-x86_64"),
    # Of the free-threaded ones, one that is far from what is tested.
    Platform("windows-x64-free-threaded", "x86_64-windows-gnu", "windows-x86_64", ("Py_GIL_DISABLED=1",)),
)


def jar(classifier: str) -> Path:
    """Fetch the jar that has a CPython built on that platform; it is kept where Maven keeps its own."""
    import jgo.maven

    context: Any = jgo.maven.MavenContext()
    group, name, version = JARS
    return Path(context.project(group, name).at_version(version).artifact(classifier, "jar").resolve())


def python_headers(platform: Platform, folder: Path) -> list[Path]:
    """The folders of Python.h and pyconfig.h."""
    if not platform.headers:
        return [Path(sysconfig.get_path("include")), Path(sysconfig.get_config_h_filename()).parent]
    home = folder / platform.headers
    if not home.exists():
        with zipfile.ZipFile(jar(platform.headers)) as archive:
            for name in archive.namelist():
                if "/include/" in name and name.endswith(".h"):
                    archive.extract(name, home)
    return [next(home.rglob("Python.h")).parent]


def generated(folder: Path) -> Path:
    source = folder / "_core.cpp"
    command = [sys.executable, "-m", "cython", "--cplus", "-3", "-o", str(source), "fastprod/_core.pyx"]
    subprocess.run(command, cwd=ROOT, check=True)
    return source


def compile_for(platform: Platform, source: Path, codecs: Path | None, folder: Path) -> bool:
    """Compile for a platform; what the compiler says is shown. Return whether it did."""
    macros = list(platform.macros)
    includes = [ROOT / "fastprod" / "_native", *python_headers(platform, folder)]
    if codecs:
        macros += ["FASTPROD_LZ4=1", "FASTPROD_ZSTD=1"]
        includes.append(codecs / "include")
    begun = time.monotonic()
    done = subprocess.run(
        [ZIG, "c++", "-target", platform.target, "-std=c++17", "-O0", "-g0", "-c", source, "-o", folder / "core.o",
         *(f"-I{path}" for path in includes), *(f"-D{macro}" for macro in macros)], check=False,
    )
    words = "compiled" if done.returncode == 0 else "FAILED"
    print(f"{platform.name:<26} {words} in {time.monotonic() - begun:.0f} s", flush=True)
    return done.returncode == 0


def main() -> None:
    names = [platform.name for platform in PLATFORMS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--source", type=Path, metavar="CORE.cpp")
    parser.add_argument("--codecs", type=Path, metavar="FOLDER")
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help=", ".join(names))
    arguments = parser.parse_args()
    unknown = set(arguments.platforms) - set(names)
    if unknown:
        parser.error(f"there is no platform {', '.join(unknown)}")
    wanted = [platform for platform in PLATFORMS if platform.name in (arguments.platforms or names)]
    with tempfile.TemporaryDirectory() as away:
        folder = Path(away)
        source = arguments.source or generated(folder)
        failed = [platform.name for platform in wanted if not compile_for(platform, source, arguments.codecs, folder)]
    if failed:
        sys.exit(f"not compiled for {', '.join(failed)}")


if __name__ == "__main__":
    main()
