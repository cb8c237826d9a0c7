"""Single steps of a producer, native beside pure beside kafka-python, in one process.

    pytest benchmarks/test_micro.py --benchmark-group-by=group     the figures
    pytest benchmarks --benchmark-disable                          each once, as CI does

Every benchmark asserts its result, so that what is compared is the same work. Compare rows of one group in one run;
absolute times depend on the machine and its load.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from kafka.partitioner.default import murmur2 as kafka_python_murmur2
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c as kafka_python_crc32c
from kafka.record.util import encode_varint as kafka_python_encode_varint

from fastprod.config import PlaneOptions

RECORDS = 1_000
SENDS = 10_000
TIMESTAMP_MS = 1_700_000_000_000
VALUE = bytes(range(100))
KEYS = [b"key-%05d" % number for number in range(RECORDS)]
# Lengths, deltas and the negative one: one to five bytes each.
NUMBERS = [(-1) ** number * (7**number % (1 << 31)) for number in range(RECORDS)]
BLOB = bytes(range(256)) * 256
BLOB_CRC32C = 0xA224AF3D
TOPIC = "measured"
PARTITIONS = 6
# The fields that follow the leader epoch, which kafka-python leaves 0 for the broker to set: magic, CRC and records.
AFTER_LEADER_EPOCH = slice(16, None)


@pytest.mark.benchmark(group="murmur2 of 1,000 short keys")
def test_murmur2(benchmark: Any, twin: ModuleType) -> None:
    murmur2 = twin.murmur2
    found = benchmark(lambda: [murmur2(key) for key in KEYS])
    assert found[:3] == [_signed(kafka_python_murmur2(key)) for key in KEYS[:3]]


@pytest.mark.benchmark(group="murmur2 of 1,000 short keys")
def test_murmur2_of_kafka_python(benchmark: Any) -> None:
    assert len(benchmark(lambda: [kafka_python_murmur2(key) for key in KEYS])) == RECORDS


@pytest.mark.benchmark(group="varint: encode 1,000 numbers")
def test_encode_varint(benchmark: Any, twin: ModuleType) -> None:
    encode_varint = twin.encode_varint
    assert b"".join(benchmark(lambda: [encode_varint(number) for number in NUMBERS])) == _kafka_python_varints()


@pytest.mark.benchmark(group="varint: encode 1,000 numbers")
def test_encode_varint_of_kafka_python(benchmark: Any) -> None:
    assert len(benchmark(_kafka_python_varints)) > RECORDS


@pytest.mark.benchmark(group="varint: decode 1,000 numbers")
def test_decode_varint(benchmark: Any, twin: ModuleType) -> None:
    decode_varint, data = twin.decode_varint, _kafka_python_varints()

    def decode() -> list[int]:
        found, position = [], 0
        while position < len(data):
            number, position = decode_varint(data, position)
            found.append(number)
        return found

    assert benchmark(decode) == NUMBERS


@pytest.mark.benchmark(group="crc32c of 64 KiB")
def test_crc32c(benchmark: Any, twin: ModuleType) -> None:
    assert benchmark(twin.crc32c, BLOB) == BLOB_CRC32C


@pytest.mark.benchmark(group="crc32c of 64 KiB")
def test_crc32c_of_kafka_python(benchmark: Any) -> None:
    """With the `crc32c` package where that is installed, as kafka-python itself does it."""
    assert benchmark(kafka_python_crc32c, BLOB) == BLOB_CRC32C


@pytest.mark.benchmark(group="batch of 1,000 records of 100 bytes: append and build")
def test_batch(benchmark: Any, twin: ModuleType) -> None:
    batch = benchmark(_batch_of, twin)
    assert batch[AFTER_LEADER_EPOCH] == _kafka_python_batch()[AFTER_LEADER_EPOCH]


@pytest.mark.benchmark(group="batch of 1,000 records of 100 bytes: append and build")
def test_batch_of_kafka_python(benchmark: Any) -> None:
    assert len(benchmark(_kafka_python_batch)) > RECORDS * len(VALUE)


@pytest.mark.benchmark(group="send() of 10,000 records of 100 bytes, append only")
def test_send(benchmark: Any, twin: ModuleType, appenders: Appenders) -> None:
    """What a call costs the program: no broker, no I/O thread; the futures are dropped at once."""
    benchmark.pedantic(_send_all, setup=lambda: ((appenders.fresh(twin),), {}), rounds=20, warmup_rounds=2)
    assert appenders.appended() == SENDS


class Appenders:
    """Producers whose batches stay where they are: their topic has no leader and their I/O thread never starts."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._plane: Any = None

    def fresh(self, twin: ModuleType) -> Any:
        """A producer with empty batches; the one before it is ended, since unfinished batches keep a plane alive."""
        self.end()
        self._plane = twin.DataPlane(_options(), self._writer.fileno())
        self._plane.set_topic(TOPIC, None, [-1] * PARTITIONS)
        producer = twin.ProducerBase()
        producer._bind(self._plane, None, None, None, twin.PARTITION_DEFAULT, None, None)
        return producer

    def appended(self) -> int:
        """How many records the last producer holds."""
        return int(self._plane.counters()["records_appended"])

    def end(self) -> None:
        """End the last producer's batches."""
        if self._plane is not None:
            self._plane.abort(lambda: RuntimeError("measured"))
            self._plane = None

    def close(self) -> None:
        """End the last producer and close the sockets."""
        self.end()
        self._reader.close()
        self._writer.close()


@pytest.fixture
def appenders() -> Iterator[Appenders]:
    made = Appenders()
    yield made
    made.close()


def _options() -> PlaneOptions:
    return PlaneOptions(
        client_id="micro",
        acks=-1,
        idempotent=True,
        strict_order=False,
        batch_size=1_000_000,
        buffer_memory=64 << 20,
        max_request_size=1 << 20,
        receive_message_max_bytes=100_000_000,
        linger_ms=0,
        max_block_ms=60_000,
        request_timeout_ms=30_000,
        delivery_timeout_ms=120_000,
        retries=(1 << 31) - 1,
        max_in_flight=5,
        connections_max_idle_ms=540_000,
        codec=0,
        compress=None,
    )


def _send_all(producer: Any) -> None:
    send = producer.send
    for _ in range(SENDS // RECORDS):
        for key in KEYS:
            send(TOPIC, VALUE, key)


def _batch_of(twin: ModuleType) -> bytes:
    builder = twin.RecordBatchBuilder(1_000_000)
    append = builder.append
    for key in KEYS:
        append(TIMESTAMP_MS, key, VALUE, [])
    built: bytes = builder.build()
    return built


def _kafka_python_batch() -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1_000_000)
    append = builder.append
    for offset, key in enumerate(KEYS):
        append(offset, TIMESTAMP_MS, key, VALUE, [])
    return bytes(builder.build())


def _kafka_python_varints() -> bytes:
    encoded = bytearray()
    for number in NUMBERS:
        kafka_python_encode_varint(number, encoded.append)
    return bytes(encoded)


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number
