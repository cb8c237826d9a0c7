"""Look into wheels, and fail if one holds anything but what it should.

    python .ci/check_wheel.py WHEEL...
    python .ci/check_wheel.py --published WHEEL...     also by its name one that may be published
    python .ci/check_wheel.py --complete WHEEL...      and there are all of them

A wheel has the package's Python files, with `py.typed`, its metadata and licences; a native one the extension besides,
which is stripped, exports nothing but its module, and needs no library but those that every system has. No other
shared library, no sources of the extension, and 1.5 MB at most.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("build_identifiers.txt")
# A release may come without them, or with all of a machine's.
OPTIONAL = {"ppc64le", "s390x"}
SIZE_MAX = 1_500_000
PACKAGE_FILES = ("*.py", "*.pyi", "py.typed", "DESIGN.md")
LICENSES = ("LICENSE", "fastprod/_native/licenses/liblz4.txt", "fastprod/_native/licenses/libzstd.txt")
METADATA = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")
EXTENSION = re.compile(r"fastprod/_core\.[\w.-]+\.(so|pyd)")
PURE_TAG = "py3-none-any"
PUBLISHED_PYTHON = re.compile(r"(cp3\d+)-\1t?")
PUBLISHED_PLATFORM = re.compile(
    r"(manylinux2014|manylinux_2_17|musllinux_1_2)_(x86_64|aarch64|ppc64le|s390x)"
    r"|macosx_11_0_(x86_64|arm64)|win_(amd64|arm64)"
)
# In manylinux2014's own list and in musllinux', or of the C library.
LINUX_LIBRARIES = re.compile(
    r"lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|z)\.so\.\d|ld-linux-[\w-]+\.so\.\d|ld64\.so\.\d|libc\.musl-\w+\.so\.1|libc\.so"
)
# The C++ library of Visual C++, which Windows does not have.
NOT_OF_WINDOWS = re.compile(rb"(?i)(msvcp\d+|vcruntime\d+_threads|lib(stdc)?\+\+[\w-]*|(lib)?(lz4|zstd|zlib1?))\.dll")


def expected_files() -> set[str]:
    """The package's files, as a checkout has them."""
    return {
        path.relative_to(ROOT).as_posix()
        for pattern in PACKAGE_FILES
        for path in (ROOT / "fastprod").rglob(pattern)
        if "__pycache__" not in path.parts
    }


def faults(wheel: Path, published: bool = False) -> Iterator[str]:
    """What is wrong with a wheel, in words."""
    name, version, tag = wheel.name.removesuffix(".whl").split("-", 2)
    pure = tag == PURE_TAG
    if published and not pure and not is_published(tag):
        yield f"{tag} is no tag that is published"
    size = wheel.stat().st_size
    if size > SIZE_MAX:
        yield f"{size} bytes, more than {SIZE_MAX}"
    info = f"{name}-{version}.dist-info/"
    expected = expected_files() | {info + each for each in METADATA} | {f"{info}licenses/{each}" for each in LICENSES}
    with zipfile.ZipFile(wheel) as archive:
        inside = {each for each in archive.namelist() if not each.endswith("/")}
        extensions = {each for each in inside if EXTENSION.fullmatch(each)}
        if len(extensions) != (0 if pure else 1):
            yield f"{len(extensions)} extension modules"
        for each in sorted(inside - expected - extensions):
            yield f"{each} should not be there"
        for each in sorted(expected - inside):
            yield f"{each} is missing"
        for each in sorted(extensions):
            for fault in faults_of_extension(archive.read(each)):
                yield f"{each} {fault}"


def is_published(tag: str) -> bool:
    python, _, platforms = tag.rpartition("-")
    return bool(PUBLISHED_PYTHON.fullmatch(python)) and all(map(PUBLISHED_PLATFORM.fullmatch, platforms.split(".")))


def identifier(tag: str) -> str:
    """cibuildwheel's name for what made a wheel with that tag."""
    _, abi, platforms = tag.split("-")
    platform = re.sub(r"(?<=[a-z])[0-9_]*_(?=[a-z])", "_", platforms.partition(".")[0], count=1)
    return f"{abi}-{platform}"


def absent(wheels: Iterable[Path]) -> Iterator[str]:
    """What is missing among wheels that are to be published together."""
    tags = [wheel.name.removesuffix(".whl").split("-", 2)[2] for wheel in wheels]
    if PURE_TAG not in tags:
        yield f"there is no {PURE_TAG}"
    there = {identifier(tag) for tag in tags}
    lines = [line.split() for line in LIST.read_text(encoding="ascii").splitlines() if not line.startswith("#")]
    for _, machine, name in lines:
        others = {each for _, where, each in lines if where == machine}
        if name not in there and (machine not in OPTIONAL or others & there):
            yield f"there is no {name}"


def faults_of_extension(data: bytes) -> Iterator[str]:
    if data.startswith(b"\x7fELF"):
        yield from faults_of_elf(data)
    elif data[:4] == struct.pack("<I", 0xFEEDFACF):
        yield from faults_of_macho(data)
    elif data.startswith(b"MZ"):
        yield from (f"needs {found.group().decode()}" for found in NOT_OF_WINDOWS.finditer(data))
    else:
        yield "is for no system that is known"


def faults_of_elf(data: bytes) -> Iterator[str]:
    sections = elf_sections(data)
    for name in sorted(sections):
        if name == ".symtab" or name.startswith((".debug", ".zdebug")):
            yield f"is not stripped of {name}"
    order = ">" if data[5] == 2 else "<"
    strings = sections[".dynstr"]

    def text(at: int) -> str:
        return strings[at : strings.index(b"\0", at)].decode()

    for tag, value in struct.iter_unpack(f"{order}qQ", sections[".dynamic"]):
        if tag == 0:
            break
        if tag == 1 and not LINUX_LIBRARIES.fullmatch(text(value)):
            yield f"needs {text(value)}"
        elif tag in (15, 29):
            yield f"looks for libraries in {text(value)}"
    for at, _, _, section, _, _ in struct.iter_unpack(f"{order}IBBHQQ", sections[".dynsym"]):
        if section and not text(at).startswith(("PyInit_", "PyModExport_")):
            yield f"exports {text(at)}"


def elf_sections(data: bytes) -> dict[str, bytes]:
    """The sections of a 64-bit ELF file, by name."""
    order = ">" if data[5] == 2 else "<"
    (table,) = struct.unpack_from(f"{order}Q", data, 40)
    entry_size, count, names = struct.unpack_from(f"{order}HHH", data, 58)
    entries = [struct.unpack_from(f"{order}IIQQQQ", data, table + number * entry_size) for number in range(count)]
    text = data[entries[names][4] :]
    return {
        text[at : text.index(b"\0", at)].decode(): data[offset : offset + size] if kind != 8 else b""
        for at, kind, _, _, offset, size in entries
    }


def faults_of_macho(data: bytes) -> Iterator[str]:
    """Of a 64-bit Mach-O file. What it needs is in its load commands, its symbols in a table that one of them names."""
    at = 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if command in (0xC, 0x80000018):
            start = at + struct.unpack_from("<I", data, at + 8)[0]
            needed = data[start : data.index(b"\0", start)].decode()
            if not needed.startswith(("/usr/lib/", "/System/")):
                yield f"needs {needed}"
        elif command == 2:
            table, count = struct.unpack_from("<II", data, at + 8)
            kinds = [data[table + 16 * number + 4] for number in range(count)]
            if any(kind & 0xE0 for kind in kinds):
                yield "is not stripped of debug symbols"
        at += size


def main() -> int:
    parser = argparse.ArgumentParser(description="Look into wheels, and fail if one holds anything but what it should.")
    parser.add_argument("--published", action="store_true", help="demand a name that may be published")
    parser.add_argument("--complete", action="store_true", help="demand all that are published, and such names")
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    arguments = parser.parse_args()
    status = 0
    for wheel in arguments.wheels:
        found = list(faults(wheel, arguments.published or arguments.complete))
        print(f"{wheel.name}: {wheel.stat().st_size} bytes" + "".join(f"\n  {fault}" for fault in found))
        status |= bool(found)
    for each in absent(arguments.wheels) if arguments.complete else ():
        print(each)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
