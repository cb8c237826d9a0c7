"""C files beside this one, compiled by Python's own compiler when they are first used and called without a wrapper."""

from __future__ import annotations

import ctypes
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O3", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


def library(name: str) -> ctypes.CDLL:
    """`name`.c as a library. Its functions run without the interpreter's lock."""
    source = Path(__file__).with_name(f"{name}.c")
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, f"{name}.so")
        subprocess.run([compiler, *_FLAGS, "-o", str(built), str(source)], check=True)
        return ctypes.CDLL(str(built))
