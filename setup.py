"""Builds the compiled data plane. Everything else about the package is in pyproject.toml.

A machine that cannot build extensions (no C++ compiler, no Python.h) gets the pure-Python twin, with a warning. A
compiler that works and rejects the code is an error: a broken build must not pass for a slow machine. With
FASTPROD_REQUIRE_NATIVE=1 it is an error not to build it.

For finding bugs: FASTPROD_DEBUG=1 counts live objects, FASTPROD_SANITIZE=address,undefined (or thread) builds with
these sanitizers, whose library must then be loaded before Python starts; tests/native/sanitize.py does all of it.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CompileError

REQUIRED = os.environ.get("FASTPROD_REQUIRE_NATIVE") == "1"
DEBUG = os.environ.get("FASTPROD_DEBUG") == "1"
SANITIZE = os.environ.get("FASTPROD_SANITIZE", "")
WINDOWS = sys.platform == "win32"


def compile_flags() -> list[str]:
    if WINDOWS:
        return ["/std:c++17", "/O2"]
    if SANITIZE:
        # -O1: reports name the right line, and a race or an overflow is not optimised away. CPython's own flags bring
        # -fwrapv along, under which no signed overflow is reported.
        return ["-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv", f"-fsanitize={SANITIZE}"]
    return ["-std=c++17", "-O0" if DEBUG else "-O3", "-g"]


class BuildCore(build_ext):
    def build_extensions(self) -> None:
        obstacle = self.obstacle()
        if obstacle is None:
            super().build_extensions()
        elif REQUIRED:
            raise SystemExit(f"FASTPROD_REQUIRE_NATIVE=1, but extensions cannot be built here: {obstacle}")
        else:
            self.warn(
                f"extensions cannot be built here ({obstacle}): fastprod will run on its pure-Python twin, which is "
                "many times slower. Install a C++ compiler and Python's headers to have the native one."
            )
            self.extensions = []

    def obstacle(self) -> str | None:
        """What keeps any C++ extension from being compiled here, if something does."""
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.cpp")
            probe.write_text("#include <Python.h>\n#include <atomic>\n", encoding="ascii")
            try:
                self.compiler.compile([str(probe)], output_dir=folder, include_dirs=[sysconfig.get_path("include")])
            except (BaseError, CompileError, OSError) as error:
                return str(error)
        return None


core = Extension(
    "fastprod._core",
    ["fastprod/_core.pyx"],
    language="c++",
    include_dirs=["fastprod/_native"],
    extra_compile_args=compile_flags(),
    extra_link_args=[f"-fsanitize={SANITIZE}"] if SANITIZE and not WINDOWS else [],
    libraries=["ws2_32"] if WINDOWS else [],
    define_macros=[("FASTPROD_DEBUG", "1")] if DEBUG else [],
)

setup(ext_modules=[core], cmdclass={"build_ext": BuildCore})
