"""Make static libraries of liblz4 and libzstd, with their headers, from nothing but `pip`.

    python .ci/codec_libs.py FOLDER
    FASTPROD_CODEC_LIBS=FOLDER FASTPROD_LZ4=require FASTPROD_ZSTD=require pip install .

The sources are those that the packages `lz4` and `zstandard` carry in their source distributions, so what is linked is
what these packages would have done. Needs a C compiler, no headers.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from setuptools._distutils.ccompiler import new_compiler
from setuptools._distutils.sysconfig import customize_compiler


class Library(NamedTuple):
    """A library's name, the package whose source distribution has it, and its files there."""

    name: str
    package: str
    folder: str
    sources: tuple[str, ...]
    headers: tuple[str, ...]


LIBRARIES = (
    Library("lz4", "lz4", "lz4libs", ("lz4.c", "lz4hc.c", "lz4frame.c", "xxhash.c"), ("lz4.h", "lz4frame.h")),
    Library("zstd", "zstandard", "zstd", ("zstd.c",), ("zstd.h", "zstd_errors.h")),
)
# xxhash's names are many libraries' names; liblz4's own build gives them a prefix as well.
MACROS = [("XXH_NAMESPACE", "LZ4_")]


def sources_of(package: str, folder: Path) -> Path:
    """Download the source distribution of a package and unpack it; return its root."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package, package]
    subprocess.run(command, cwd=folder, check=True)
    with tarfile.open(next(folder.glob(f"{package}-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.glob(f"{package}-*") if path.is_dir())


def make(library: Library, target: Path) -> None:
    """Put lib/ and include/ of a library into `target`."""
    compiler = new_compiler()
    customize_compiler(compiler)
    with tempfile.TemporaryDirectory() as scratch:
        home = sources_of(library.package, Path(scratch)) / library.folder
        optimized = ["/O2"] if compiler.compiler_type == "msvc" else ["-O3", "-fPIC"]
        objects = compiler.compile([str(home / name) for name in library.sources], output_dir=scratch,
                                   macros=MACROS, extra_preargs=optimized)
        compiler.create_static_lib(objects, library.name, output_dir=str(target / "lib"))
        for name in library.headers:
            shutil.copy(home / name, target / "include")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1]).resolve()
    for name in ("include", "lib"):
        (target / name).mkdir(parents=True, exist_ok=True)
    for library in LIBRARIES:
        make(library, target)
    print(f"FASTPROD_CODEC_LIBS={target}")


if __name__ == "__main__":
    main()
