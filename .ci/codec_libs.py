"""Make static libraries of liblz4 and libzstd, with their headers, from nothing but `pip`.

    python .ci/codec_libs.py FOLDER
    FASTPROD_CODEC_LIBS=FOLDER FASTPROD_LZ4=require FASTPROD_ZSTD=require pip install .

The sources are those that the packages `lz4` and `zstandard` carry in their source distributions, pinned by version and
hash in codec_libs.txt, so what is linked is what these packages would have done. pip is the one package manager that
every platform has with every version ever published: what Linux distributions, Homebrew and vcpkg have differs from one
another, is replaced by newer builds, and often lacks static libraries for the oldest system that a wheel is for.

Needs setuptools and a C compiler, no headers. Libraries that are there already, made from the same sources by the same
compiler, stay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from setuptools._distutils.ccompiler import new_compiler
from setuptools._distutils.sysconfig import customize_compiler

HERE = Path(__file__).resolve().parent
PINS = HERE / "codec_libs.txt"
# What the source distributions need to say what they are; pure Python.
TOOLS = ("setuptools>=77", "setuptools_scm>=6.2")
LICENSES = HERE.parent / "fastprod" / "_native" / "licenses"


class Library(NamedTuple):
    """A library's name, the package whose source distribution has it, and its files there."""

    name: str
    package: str
    folder: str
    sources: tuple[str, ...]
    headers: tuple[str, ...]
    license: str


LIBRARIES = (
    Library("lz4", "lz4", "lz4libs", ("lz4.c", "lz4hc.c", "lz4frame.c", "xxhash.c"), ("lz4.h", "lz4frame.h"), "lz4.h"),
    Library("zstd", "zstandard", "zstd", ("zstd.c",), ("zstd.h", "zstd_errors.h"), "LICENSE"),
)
MACROS = [
    # xxhash's names are many libraries' names; liblz4's own build gives them a prefix as well.
    ("XXH_NAMESPACE", "LZ4_"),
    # Nothing is exported by what it is linked into.
    ("LZ4LIB_VISIBILITY", ""), ("LZ4FLIB_VISIBILITY", ""), ("ZSTDLIB_VISIBLE", ""), ("ZSTDERRORLIB_VISIBLE", ""),
]


def download(folder: Path) -> None:
    """Download the source distributions and unpack them.

    pip asks each what it is, for which it would install all that they are built with: cffi, which has no wheels for
    some machines and is not wanted for that.
    """
    pip = [sys.executable, "-m", "pip"]
    tools = folder / "tools"
    subprocess.run([*pip, "install", "--quiet", "--target", str(tools), *TOOLS], check=True)
    command = [*pip, "download", "--quiet", "--no-deps", "--no-build-isolation", "--require-hashes", "-r", str(PINS)]
    for library in LIBRARIES:
        command += ["--no-binary", library.package]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(tools)}, check=True)
    for path in folder.glob("*.tar.gz"):
        with tarfile.open(path) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not in 3.11.0 to 3.11.3
            archive.extractall(folder)


def check_license(library: Library, home: Path) -> None:
    """End everything if what a wheel brings along is not the licence that the sources have."""
    name = f"lib{library.name}.txt"
    ours, theirs = (
        " ".join(path.read_text(encoding="utf-8").replace("*", " ").split())
        for path in (LICENSES / name, home / library.license)
    )
    if ours not in theirs:
        sys.exit(f"{LICENSES / name} is not what stands in {library.license} of the package {library.package}")


def make(library: Library, sources: Path, target: Path) -> None:
    """Put lib/ and include/ of a library into `target`."""
    compiler = new_compiler()
    customize_compiler(compiler)
    home = next(path for path in sources.glob(f"{library.package}-*") if path.is_dir()) / library.folder
    check_license(library, home)
    before, after = ["-O3", "-g0", "-fPIC", "-fvisibility=hidden"], list[str]()
    if compiler.compiler_type == "msvc":
        before, after = ["/O2"], ["/MT"]   # as in setup.py
    objects = compiler.compile([str(home / name) for name in library.sources], output_dir=str(sources),
                               macros=MACROS, extra_preargs=before, extra_postargs=after)
    compiler.create_static_lib(objects, library.name, output_dir=str(target / "lib"))
    for name in library.headers:
        shutil.copy(home / name, target / "include")


def origin() -> str:
    """What the libraries depend on: these sources, this script, and what they are compiled for and with."""
    variables = ("CC", "CFLAGS", "ARCHFLAGS", "MACOSX_DEPLOYMENT_TARGET")
    parts = [sysconfig.get_platform(), str(sysconfig.get_config_var("MULTIARCH")),
             *(f"{name}={os.environ.get(name, '')}" for name in variables)]
    return "\n".join([*parts, PINS.read_text(encoding="ascii"), Path(__file__).read_text(encoding="ascii")])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1]).resolve()
    mark = target / "made-from"
    if not mark.exists() or mark.read_text(encoding="ascii") != origin():
        for name in ("include", "lib"):
            (target / name).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            download(Path(folder))
            for library in LIBRARIES:
                make(library, Path(folder), target)
        mark.write_text(origin(), encoding="ascii")
    print(f"FASTPROD_CODEC_LIBS={target}")


if __name__ == "__main__":
    main()
