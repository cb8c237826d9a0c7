"""Have setuptools compile with zig, whose C and C++ compilers come from PyPI and bring the headers and C libraries of
every platform along: for an older glibc than this machine's, or for another machine.

    python .ci/zig.py TARGET COMMAND...
    python .ci/zig.py x86_64-linux-gnu.2.17 python -m pip wheel --no-deps .

runs the command with the compilers for TARGET, a target of zig's. From another script: `compilers`. Needs the package
`ziglang`, which the extra `wheels` brings. The first use of a target takes a minute: its C++ library is compiled, and
kept in zig's cache.

What this makes is for proofs, that a wheel can be built and runs there. What is published is made by cibuildwheel.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ziglang

FLAGS = "-O3 -DNDEBUG -fwrapv -Wall"   # what CPython's own build has extensions compiled with


def compilers(
    target: str, folder: Path, *, headers: Sequence[Path] = (), suffix: str = "", platform: str = ""
) -> dict[str, str]:
    """Write compilers for `target` into `folder`, and return the environment variables that have setuptools use them.

    For a machine other than this one's also `headers`: the folders of that machine's Python.h and pyconfig.h, which
    come before those of the Python that builds; `suffix`: what its Python has extensions end in, such as
    `.cpython-313-aarch64-linux-gnu.so`; and `platform`: what it calls itself, such as `linux-aarch64`, from which a
    wheel's tag is made. The Python that builds has to be of the same version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Without optimization zig adds traps for undefined behaviour, which no other compiler does.
    always = ["-target", target, "-fno-sanitize=undefined", *(f"-I{path}" for path in headers)]
    cc, cxx = (wrapper(folder / f"zig-{name}", [name, *always]) for name in ("cc", "c++"))
    variables = {
        "CC": cc, "CXX": cxx, "LDSHARED": f"{cc} -shared", "LDCXXSHARED": f"{cxx} -shared",
        "AR": wrapper(folder / "zig-ar", ["ar"]), "RANLIB": wrapper(folder / "zig-ranlib", ["ranlib"]),
        # In place of what this machine's compiler is meant to get.
        "CFLAGS": FLAGS, "CXXFLAGS": FLAGS, "CPPFLAGS": "", "LDFLAGS": "", "ARCHFLAGS": "",
    }
    if suffix:
        variables["SETUPTOOLS_EXT_SUFFIX"] = suffix
    if platform:
        variables["_PYTHON_HOST_PLATFORM"] = platform
    return variables


def wrapper(path: Path, arguments: list[str]) -> str:
    """Write a program that runs zig with these arguments before its own, and return its path."""
    zig = Path(ziglang.__file__).with_name("zig")
    path.write_text(f'#!/bin/sh\nexec {shlex.join([str(zig), *arguments])} "$@"\n')
    path.chmod(0o755)
    return str(path)


def main() -> int:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        variables = compilers(sys.argv[1], Path(folder))
        return subprocess.run(sys.argv[2:], env={**os.environ, **variables}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
