"""Builds the compiled data plane. Everything else about the package is in pyproject.toml.

A machine without a C++ compiler gets the pure-Python twin (the extension is skipped with a warning). A compiler
that is there and rejects the code is an error: a broken build must not pass for a slow machine. With
FASTPROD_REQUIRE_NATIVE=1 a missing compiler is an error too.

For finding bugs: FASTPROD_DEBUG=1 counts live objects, FASTPROD_SANITIZE=address,undefined (or thread) builds with
these sanitizers, whose library must then be loaded before Python starts; tests/native/sanitize.py does all of it.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

REQUIRED = os.environ.get("FASTPROD_REQUIRE_NATIVE") == "1"
DEBUG = os.environ.get("FASTPROD_DEBUG") == "1"
SANITIZE = os.environ.get("FASTPROD_SANITIZE", "")
WINDOWS = sys.platform == "win32"


def has_compiler() -> bool:
    """Whether the C++ compiler that setuptools would run can be found."""
    if WINDOWS:
        return True
    for variable in (os.environ.get("CXX"), sysconfig.get_config_var("CXX"), "c++", "g++", "clang++"):
        if variable and shutil.which(variable.split()[0]):
            return True
    return False


def compile_flags() -> list[str]:
    if WINDOWS:
        return ["/std:c++17", "/O2"]
    if SANITIZE:
        # -O1: reports name the right line, and a race or an overflow is not optimised away.
        return ["-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={SANITIZE}"]
    return ["-std=c++17", "-O0" if DEBUG else "-O3", "-g"]


class BuildCore(build_ext):
    def run(self) -> None:
        if not has_compiler():
            if REQUIRED:
                raise SystemExit("FASTPROD_REQUIRE_NATIVE=1, but there is no C++ compiler (set CXX or install one).")
            self.warn("no C++ compiler found: fastprod will run on its pure-Python twin, which is many times slower")
            self.extensions = []
            return
        super().run()


def extensions() -> list[Extension]:
    from Cython.Build import cythonize

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
    return cythonize([core], compiler_directives={"language_level": "3"}, annotate=False)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildCore})
