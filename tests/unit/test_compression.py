"""fastprod.compression: what other programs make of our bytes, with every package and without."""

from __future__ import annotations

import contextlib
import json
import random
import struct
import sys
import threading
import zlib
from collections.abc import Callable

import cramjam
import kafka.codec  # type: ignore[import-untyped]
import lz4.block  # type: ignore[import-untyped]
import lz4.frame  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from xxh32 import xxh32

from fastprod import codecs, compression, errors

NUMBERS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
ROOM = 10_000_000


def sample(size: int) -> bytes:
    """Return JSON-like bytes that compress to about a third."""
    rng = random.Random(7)
    rows = bytearray()
    while len(rows) < size:
        row = {
            "id": rng.randrange(10**6),
            "city": rng.choice(["Berlin", "Paris"]),
            "v": rng.random(),
        }
        rows += json.dumps(row).encode()
    return bytes(rows[:size])


BODY = sample(300_000)
BODIES = [
    b"",
    b"x",
    b"abc" * 20,
    sample(32_768),
    sample(32_769),
    BODY,
    random.Random(1).randbytes(70_000),
]


@pytest.fixture(params=["packages", "cramjam alone"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With lz4 and zstandard installed, and without: then cramjam has to do."""
    if request.param == "cramjam alone":
        for name in ("lz4", "lz4.frame", "zstandard"):
            monkeypatch.setitem(sys.modules, name, None)
    return str(request.param)


def read_by_kafka_python(name: str, data: bytes) -> bytes:
    if name == "snappy":
        return read_xerial(data)
    decode = getattr(kafka.codec, f"{name}_decode")
    return bytes(decode(data))


def read_xerial(data: bytes) -> bytes:
    """A reader of the xerial stream format of its own; kafka-python's needs python-snappy."""
    assert data[:16] == bytes.fromhex("82534e41505059000000000100000001")
    plain, position = b"", 16
    while position < len(data):
        (size,) = struct.unpack_from(">i", data, position)
        block = bytes(cramjam.snappy.decompress_raw(data[position + 4 : position + 4 + size]))
        assert 0 < len(block) <= 32_768
        plain += block
        position += 4 + size
    assert position == len(data)
    return plain


READERS: dict[str, list[Callable[[bytes], bytes]]] = {
    "gzip": [
        lambda data: zlib.decompress(data, 31),
        lambda data: bytes(cramjam.gzip.decompress(data)),
    ],
    "snappy": [read_xerial],
    "lz4": [
        lambda data: lz4.frame.decompress(data),
        lambda data: bytes(cramjam.lz4.decompress(data)),
    ],
    "zstd": [
        lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
        lambda data: bytes(cramjam.zstd.decompress(data)),
    ],
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("body", BODIES, ids=len)
def test_others_can_read_it(name: str, body: bytes, installed: str) -> None:
    packed = compression.compressor(name)(body)
    assert type(packed) is bytes
    for read in READERS[name]:
        assert read(packed) == body
    assert read_by_kafka_python(name, packed) == body
    assert compression.decompress(NUMBERS[name], packed, len(body)) == body


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))]
)
def test_takes_anything_bytes_like(name: str, kind: type, installed: str) -> None:
    packed = compression.compressor(name)(kind(BODY))
    assert compression.decompress(NUMBERS[name], packed, ROOM) == BODY


@settings(max_examples=60)
@given(st.binary(max_size=3000), st.sampled_from(sorted(NUMBERS)))
def test_round_trip(body: bytes, name: str) -> None:
    packed = compression.compressor(name)(body)
    assert compression.decompress(NUMBERS[name], packed, len(body)) == body


@pytest.mark.parametrize("body", BODIES, ids=len)
@pytest.mark.parametrize("level", [None, 1, 9, 12])
def test_lz4_is_one_frame_that_brokers_take(body: bytes, level: int | None, installed: str) -> None:
    frame = compression.compressor("lz4", level)(body)
    assert frame[:4] == bytes.fromhex("04224d18")
    flags, descriptor = frame[4], frame[5]
    assert flags >> 6 == 1, "version 01"
    assert flags & 0x20, "blocks are independent"
    assert not flags & 0x02, "reserved bit"
    assert not flags & 0x01, "no dictionary"
    assert not descriptor & 0x8F, "reserved bits"
    assert 4 <= descriptor >> 4 <= 7
    end = 6 + (8 if flags & 0x08 else 0)
    assert frame[end] == xxh32(frame[4:end]) >> 8 & 0xFF, "header checksum"
    position = end + 1
    limit = 1 << (8 + 2 * (descriptor >> 4))
    while (size := struct.unpack_from("<I", frame, position)[0]) != 0:
        size &= 0x7FFFFFFF
        assert size <= limit
        position += 4 + size + (4 if flags & 0x10 else 0)
    position += 4 + (4 if flags & 0x04 else 0)
    assert position == len(frame), "one frame and nothing behind it"


@pytest.mark.parametrize(("level", "largest"), [(None, 1 << 16), (1, 1 << 16), (9, 1 << 20)])
def test_lz4_blocks_are_as_large_as_pays(level: int | None, largest: int) -> None:
    """The fast compressor finds most in blocks of 64 kB, as those of other clients; the other one in larger ones."""
    frame = compression.compressor("lz4", level)(BODY)
    assert 1 << (8 + 2 * (frame[5] >> 4)) == largest


def test_lz4_blocks_really_are_independent(installed: str) -> None:
    """The flag alone is no proof: every block is decoded by itself."""
    body = sample(200_000)
    frame = compression.compressor("lz4")(body)
    flags = frame[4]
    position, plain = 7, b""
    while (size := struct.unpack_from("<I", frame, position)[0]) != 0:
        raw, size = size >> 31, size & 0x7FFFFFFF
        block = frame[position + 4 : position + 4 + size]
        room = 1 << (8 + 2 * (frame[5] >> 4))
        plain += block if raw else lz4.block.decompress(block, uncompressed_size=room)
        position += 4 + size + (4 if flags & 0x10 else 0)
    assert plain == body


def test_gzip_is_one_member() -> None:
    packed = compression.compressor("gzip")(BODY)
    assert packed[:3] == b"\x1f\x8b\x08"
    stream = zlib.decompressobj(31)
    assert stream.decompress(packed) == BODY
    assert stream.eof
    assert stream.unused_data == b""


def test_zstd_is_one_frame_with_a_window_that_java_takes(installed: str) -> None:
    for level in (-5, 3, 19, 22):
        packed = compression.compressor("zstd", level)(BODY)
        stream = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
        assert stream.decompress(packed) == BODY
        assert stream.unused_data == b""


@pytest.mark.parametrize(
    ("name", "weak", "strong"), [("gzip", 1, 9), ("lz4", 1, 9), ("zstd", -50, 9), ("lz4", None, 3)]
)
def test_levels_have_an_effect(name: str, weak: int | None, strong: int, installed: str) -> None:
    small = compression.compressor(name, strong)(BODY)
    large = compression.compressor(name, weak)(BODY)
    assert len(small) < len(large) < len(BODY)


@pytest.mark.parametrize(
    ("name", "level"),
    [("gzip", -1), ("gzip", 9), ("lz4", 1), ("lz4", 17), ("zstd", -131072), ("zstd", 22)],
)
def test_every_bound_of_the_levels_works(name: str, level: int, installed: str) -> None:
    packed = compression.compressor(name, level)(BODY)
    assert compression.decompress(NUMBERS[name], packed, len(BODY)) == BODY


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("gzip", 0), ("gzip", 10), ("gzip", -2), ("lz4", 0), ("lz4", 18), ("zstd", 23),
        ("zstd", -131073), ("snappy", 1), ("gzip", "6"), ("gzip", 6.0), ("gzip", True), (None, 3),
    ],
)  # fmt: skip
def test_levels_outside_are_refused(name: str | None, level: object) -> None:
    with pytest.raises(errors.KafkaConfigurationError, match="compression_level") as caught:
        compression.check_level(name, level)
    assert isinstance(caught.value, ValueError)


def test_zstd_default_is_java_s_3() -> None:
    assert compression.compressor("zstd")(BODY) == compression.compressor("zstd", 3)(BODY)


@pytest.mark.parametrize("name", ["none", "GZIP", "brotli", "", 5])
def test_unknown_codecs_are_refused(name: str) -> None:
    for call in (compression.compressor, compression.codec_number):
        with pytest.raises(ValueError, match="compression_type"):
            call(name)


def test_codec_numbers() -> None:
    assert {name: compression.codec_number(name) for name in NUMBERS} == NUMBERS
    assert compression.codec_number(None) == 0


@pytest.mark.parametrize(
    ("name", "pip"), [("lz4", "lz4"), ("zstd", "zstandard"), ("snappy", "cramjam")]
)
def test_nothing_installed_names_the_pip_command(
    name: str, pip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("lz4", "lz4.frame", "zstandard", "cramjam"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RuntimeError, match=f"pip install {pip}"):
        compression.compressor(name)
    assert compression.versions()[name] == "not installed"


def test_versions_name_the_package_that_works(installed: str) -> None:
    found = compression.versions()
    assert set(found) == set(NUMBERS)
    alone = installed == "cramjam alone"
    assert found["snappy"] == f"cramjam {cramjam.__version__}"
    assert found["lz4"] == (f"cramjam {cramjam.__version__}" if alone else f"lz4 {lz4.__version__}")
    assert found["zstd"].split()[0] == ("cramjam" if alone else "zstandard")


@pytest.mark.parametrize("name", NUMBERS)
def test_max_size_is_a_limit(name: str, installed: str) -> None:
    packed = compression.compressor(name)(BODY)
    assert compression.decompress(NUMBERS[name], packed, len(BODY)) == BODY
    for limit in (len(BODY) - 1, 1000, 0):
        with pytest.raises(ValueError, match=r"allowed|broken"):
            compression.decompress(NUMBERS[name], packed, limit)


@pytest.mark.parametrize("name", NUMBERS)
def test_bombs_are_not_unpacked(name: str, installed: str) -> None:
    bomb = compression.compressor(name)(bytes(50_000_000))
    with pytest.raises(ValueError, match=r"allowed|broken"):
        compression.decompress(NUMBERS[name], bomb, 1000)


@pytest.mark.parametrize("name", NUMBERS)
def test_broken_bytes_are_value_errors(name: str, installed: str) -> None:
    packed = compression.compressor(name)(BODY)
    rng = random.Random(3)
    for cut in [0, 1, 5, len(packed) // 2, len(packed) - 1]:
        check_only_value_errors(NUMBERS[name], packed[:cut])
    for _ in range(50):
        damaged = bytearray(packed)
        damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        check_only_value_errors(NUMBERS[name], bytes(damaged))
    for garbage in (b"garbage of some length, no codec's bytes", bytes(100)):
        with pytest.raises(ValueError, match=name):
            compression.decompress(NUMBERS[name], garbage, ROOM)


def check_only_value_errors(codec: int, data: bytes) -> None:
    with contextlib.suppress(ValueError):
        compression.decompress(codec, data, ROOM)


def test_cut_short_is_noticed(installed: str) -> None:
    for name in ("gzip", "lz4", "zstd"):
        packed = compression.compressor(name)(BODY)
        with pytest.raises(ValueError, match="broken"):
            compression.decompress(NUMBERS[name], packed[:-1], ROOM)


def test_what_other_writers_send_is_read_too() -> None:
    """Raw snappy as librdkafka writes it, a zstd frame without its size, linked lz4 blocks."""
    raw = bytes(cramjam.snappy.compress_raw(BODY))
    assert compression.decompress(codecs.SNAPPY, raw, ROOM) == BODY
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(BODY)
    assert compression.decompress(codecs.ZSTD, unsized, ROOM) == BODY
    assert compression.decompress(codecs.LZ4, lz4.frame.compress(BODY), ROOM) == BODY


def test_uncompressed_and_unknown_codecs() -> None:
    assert compression.decompress(0, b"abc", 3) == b"abc"
    with pytest.raises(ValueError, match="allowed"):
        compression.decompress(0, b"abc", 2)
    with pytest.raises(ValueError, match="no codec 9"):
        compression.decompress(9, b"abc", 3)


@pytest.mark.parametrize("name", NUMBERS)
def test_one_compressor_in_many_threads(name: str) -> None:
    compress = compression.compressor(name)
    wrong: list[int] = []

    def work(seed: int) -> None:
        body = random.Random(seed).randbytes(200) * 200
        for _ in range(30):
            if compression.decompress(NUMBERS[name], compress(body), ROOM) != body:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
