"""Builds the compiled data plane. Everything else about the package is in pyproject.toml.

A machine that cannot build extensions (no C++ compiler, no Python.h) gets the pure-Python twin, with a warning. A
compiler that works and rejects the code is an error: a broken build must not pass for a slow machine. With
FASTPROD_REQUIRE_NATIVE=1 it is an error not to build it. With FASTPROD_PURE=1, and on other Pythons than CPython, it is
not tried: the wheel is then the `py3-none-any` one, for every Python.

What is built in place or for an editable install has debug symbols; a wheel is stripped.

Codecs: zlib, liblz4 and libzstd are linked where the compiler finds them, headers included; without them the Python
packages compress. FASTPROD_ZLIB, FASTPROD_LZ4 and FASTPROD_ZSTD say for each what to do: `auto` (that), `0` (leave it
out) or `require` (an error where it is missing). FASTPROD_CODEC_LIBS=FOLDER looks in FOLDER/include and FOLDER/lib
first, for static libraries as .ci/codec_libs.py makes them.

For finding bugs: FASTPROD_DEBUG=1 counts live objects, FASTPROD_SANITIZE=address,undefined (or thread) builds with
these sanitizers, whose library must then be loaded before Python starts; tests/native/sanitize.py does all of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CompileError, LinkError

REQUIRED = os.environ.get("FASTPROD_REQUIRE_NATIVE") == "1"
PURE = os.environ.get("FASTPROD_PURE") == "1" or sys.implementation.name != "cpython"
DEBUG = os.environ.get("FASTPROD_DEBUG") == "1"
SANITIZE = os.environ.get("FASTPROD_SANITIZE", "")
CODEC_LIBS = os.environ.get("FASTPROD_CODEC_LIBS", "")
WINDOWS = sys.platform == "win32"
LINUX = sys.platform == "linux"


class Codec(NamedTuple):
    """A codec's library: `macro` is both what `_native/codec.h` looks at and the variable that says what to do.
    `probe`: headers and an expression that only links where the library has all that is used."""

    macro: str
    library: str
    headers: tuple[str, ...]
    probe: str


CODECS = (
    Codec("FASTPROD_ZLIB", "zlib" if WINDOWS else "z", ("zlib.h",), "deflateInit2(0, -1, Z_DEFLATED, 31, 8, 0)"),
    Codec("FASTPROD_LZ4", "lz4", ("lz4.h", "lz4frame.h"), "LZ4F_compressFrame(0, 0, 0, 0, 0) + LZ4_versionNumber()"),
    Codec("FASTPROD_ZSTD", "zstd", ("zstd.h",), "ZSTD_compressCCtx(ZSTD_createCCtx(), 0, 0, 0, 0, 3)"),
)


def compile_flags() -> list[str]:
    if WINDOWS:
        return ["/std:c++17", "/O2", "/MT"]
    if SANITIZE:
        # -O1: reports name the right line, and a race or an overflow is not optimised away. CPython's own flags bring
        # -fwrapv along, under which no signed overflow is reported.
        return ["-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv", f"-fsanitize={SANITIZE}"]
    return ["-std=c++17", "-O0" if DEBUG else "-O3"]


def link_flags() -> list[str]:
    if WINDOWS:
        # With /MT above: the C++ library is linked statically, for Python brings none, and a wheel must not either. The
        # C library is Windows' own.
        return ["/NODEFAULTLIB:libucrt.lib", "/DEFAULTLIB:ucrt.lib"]
    if SANITIZE:
        return [f"-fsanitize={SANITIZE}"]
    return ["-Wl,--version-script=fastprod/_native/exports.map"] if LINUX else []


def symbol_flags(wanted: bool) -> tuple[list[str], list[str]]:
    """Flags for the compiler and the linker: with symbols for debuggers and profilers, or without any."""
    if WINDOWS:
        return [], []   # they would be in a file of their own
    if wanted:
        return ["-g"], []
    # -g0: Python's own flags have -g.
    return ["-g0"], ["-Wl,-S", "-Wl,-x"] if sys.platform == "darwin" else ["-s"]


@contextlib.contextmanager
def stderr_to(path: Path) -> Iterator[None]:
    """Let what compilers say of a library that is not there go to a file: it is no error."""
    kept = os.dup(2)
    try:
        with path.open("w") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class BuildCore(build_ext):
    symbols = bool(DEBUG or SANITIZE)

    def run(self) -> None:
        # setuptools builds elsewhere in any case, and takes `inplace` back while it does.
        self.symbols = bool(self.symbols or self.inplace or self.editable_mode)
        super().run()

    def build_extensions(self) -> None:
        obstacle = self.obstacle()
        if obstacle is None:
            for codec in CODECS:
                self.link(codec)
            compiling, linking = symbol_flags(self.symbols)
            core.extra_compile_args += compiling
            core.extra_link_args += linking
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

    def link(self, codec: Codec) -> None:
        """Have the extension compress with this library, if it is there and wanted."""
        wanted = os.environ.get(codec.macro, "auto")
        if wanted not in ("auto", "0", "require"):
            raise SystemExit(f"{codec.macro}={wanted!r} must be auto, 0 or require")
        if wanted == "0":
            return
        missing = self.missing(codec)
        if missing is None:
            core.define_macros.append((codec.macro, "1"))
            core.libraries.append(codec.library)
        elif wanted == "require":
            raise SystemExit(f"{codec.macro}=require, but {codec.library} cannot be linked: {missing}")

    def missing(self, codec: Codec) -> str | None:
        """What keeps a program that uses the library from being compiled and linked, if something does."""
        includes = "".join(f"#include <{header}>\n" for header in codec.headers)
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.cpp")
            probe.write_text(f"{includes}int main() {{ return (int)({codec.probe}); }}\n", encoding="ascii")
            try:
                with stderr_to(Path(folder, "said")):
                    objects = self.compiler.compile([str(probe)], output_dir=folder, include_dirs=core.include_dirs)
                    self.compiler.link_executable(objects, "probe", output_dir=folder, libraries=[codec.library],
                                                  library_dirs=core.library_dirs, target_lang="c++")
            except (BaseError, CompileError, LinkError, OSError) as error:
                return str(error)
        return None


core = Extension(
    "fastprod._core",
    ["fastprod/_core.pyx"],
    language="c++",
    depends=sorted([*glob("fastprod/_native/*.h"), "fastprod/_native/exports.map"]),
    include_dirs=["fastprod/_native", *([os.path.join(CODEC_LIBS, "include")] if CODEC_LIBS else [])],
    library_dirs=[os.path.join(CODEC_LIBS, "lib")] if CODEC_LIBS else [],
    extra_compile_args=compile_flags(),
    extra_link_args=link_flags(),
    libraries=["ws2_32"] if WINDOWS else [],
    define_macros=[("FASTPROD_DEBUG", "1")] if DEBUG else [],
)

if PURE and REQUIRED:
    raise SystemExit("FASTPROD_REQUIRE_NATIVE=1, but this Python, or FASTPROD_PURE=1, takes the pure-Python twin")
setup(ext_modules=[] if PURE else [core], cmdclass={"build_ext": BuildCore})
