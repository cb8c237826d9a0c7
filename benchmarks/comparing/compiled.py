"""C files beside this one, compiled by the machine's own compiler when they are first used, and kept for the next time.

What was compiled stands in a folder of temporary files, under a name made of everything it depends on: the sources, the
flags, the compiler's own words about itself.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# -march=native: what is compiled here runs here, and CRC-32C needs the CPU's instruction.
_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O3", "-march=native", "-Wall", "-Wextra", "-Werror", "-pthread")
_LIBRARY = ("-shared", "-fPIC")


def library(name: str) -> ctypes.CDLL:
    """`name`.c as a library. Its functions run without the interpreter's lock."""
    return ctypes.CDLL(str(_built(name, _LIBRARY)))


def program(name: str) -> Path:
    """`name`.c as a program. RuntimeError, which says what to install, where there is no compiler."""
    return _built(name, ())


def _built(name: str, kind: tuple[str, ...]) -> Path:
    compiler, version = _compiler()
    sources = [_HERE / f"{name}.c", *sorted(_HERE.glob("*.h"))]
    told = hashlib.sha256(repr((version, _FLAGS, kind)).encode())
    for source in sources:
        told.update(source.read_bytes())
    folder = Path(tempfile.gettempdir(), f"fastprod-benchmarks-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to somebody else, and what is compiled there would be run.")
    built = folder / f"{name}-{told.hexdigest()[:16]}"
    if not built.exists():
        # Under another name first: two runs may build it at once, and neither may see half of it.
        unfinished = folder / f"{built.name}.{os.getpid()}"
        subprocess.run([compiler, *_FLAGS, *kind, "-o", str(unfinished), str(sources[0])], check=True)
        unfinished.replace(built)
    return built


@functools.cache
def _compiler() -> tuple[str, str]:
    """The C compiler, and what it says of itself: the one Python was built with, or the machine's `cc`."""
    wanted = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    found = shutil.which(wanted) or shutil.which("cc")
    if found is None:
        raise RuntimeError(
            f"The benchmarks need a C compiler, and there is neither {wanted} nor cc. Install one (Debian: apt install "
            "gcc), or name it in the environment variable CC."
        )
    version = subprocess.run([found, "-v"], capture_output=True, text=True, check=True).stderr
    return found, version
