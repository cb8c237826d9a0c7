"""What each codec makes of batches of every shape: a broker takes it, confluent-kafka and the other twin read it.

That holds for linked codecs and for packages. What only linked ones can do, and is shown here as well, is to compress
and deliver while some Python code does not let the interpreter go. (Without a codec records leave then in any case.)
"""

from __future__ import annotations

import ctypes
import random
import sys
import time
from itertools import chain
from typing import Any

import pytest
from confluent_kafka import Producer

from fastprod import KafkaProducer, _backend, compression
from fastprod._pure import decode_records
from fastprod.testing import KafkaBroker

from .conftest import MakeTopic
from .reading import Batch, log_batches, read_back

CODECS = {"gzip": 1, "lz4": 3, "zstd": 4}
LEVELS = {"gzip": [None, 1, 9], "lz4": [None, 1, 9, 17], "zstd": [None, -5, 1, 19]}
CHANCE = random.Random(5)
# 700 kB that compress about as application data does, and as much that does not at all.
ROWS = [b'{"order":%d,"note":"%s"}' % (n, CHANCE.randbytes(12).hex().encode()) for n in range(14_000)]
SHAPES: dict[str, list[bytes]] = {
    "one": [b"a word, " * 40],
    "nothing": [b""],
    "many": ROWS,
    "large": [b"".join(ROWS)],
    "random": [CHANCE.randbytes(700_000)],
    "random and one": [CHANCE.randbytes(20)],
}
INCOMPRESSIBLE = ("nothing", "random", "random and one")
ROOM = 10_000_000
# The interpreter is held for so long at a time, and in all until all is delivered, if it ever is.
HOLD_S = 1.0
MOST_S = 30.0
# Within it the last of 14,000 records is sent.
LINGER_MS = 2000


def body_of(batch: Batch) -> bytes:
    return compression.decompress(batch.codec, batch.data[61:], ROOM)


def values_of(batch: Batch) -> list[bytes | None]:
    base = int.from_bytes(batch.data[27:35], "big")
    return [value for _, _, value, _ in decode_records(body_of(batch), base, batch.count)]


@pytest.mark.parametrize(("codec", "level"), [(codec, level) for codec in LEVELS for level in LEVELS[codec]])
def test_batches_of_every_shape(
    kafka_broker: KafkaBroker, topic: MakeTopic, codec: str, level: int | None
) -> None:
    name = topic(kafka_broker, len(SHAPES))
    with KafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap_servers, compression_type=codec, compression_level=level,
        linger_ms=60_000, acks="all",
    ) as producer:
        for partition, values in enumerate(SHAPES.values()):
            for value in values:
                producer.send(name, value, partition=partition)
        producer.flush()
    found = read_back(kafka_broker.bootstrap_servers, name, len(SHAPES))
    for partition, (shape, values) in enumerate(SHAPES.items()):
        assert [message.value() for message in found[partition]] == values, shape
        batches = log_batches(kafka_broker, name, partition)
        # What would not become smaller is left as it is.
        assert {batch.codec for batch in batches} == {0 if shape in INCOMPRESSIBLE else CODECS[codec]}, shape
        assert list(chain.from_iterable(map(values_of, batches))) == values, shape


def stored(broker: KafkaBroker, topic: str) -> int:
    return sum(batch.size for batch in log_batches(broker, topic))


@pytest.mark.parametrize("codec", CODECS)
def test_it_is_stored_as_small_as_confluent_s(kafka_broker: KafkaBroker, topic: MakeTopic, codec: str) -> None:
    ours, theirs = topic(kafka_broker), topic(kafka_broker)
    with KafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap_servers, compression_type=codec, linger_ms=60_000
    ) as producer:
        for row in ROWS:
            producer.send(ours, row)
        producer.flush()
    peer = Producer({
        "bootstrap.servers": kafka_broker.bootstrap_servers, "compression.type": codec, "linger.ms": 60_000,
        "batch.size": 1_000_000, "batch.num.messages": 1_000_000, "enable.idempotence": True,
    })
    for row in ROWS:
        peer.produce(theirs, row)
    peer.flush()
    assert stored(kafka_broker, ours) <= 1.03 * stored(kafka_broker, theirs)


def hold_the_interpreter(seconds: float) -> None:
    """A C function that keeps the interpreter, as a careless extension does."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


@pytest.mark.native_only
@pytest.mark.parametrize("codec", [None, *CODECS])
def test_delivery_goes_on_while_the_interpreter_is_held(
    kafka_broker: KafkaBroker, topic: MakeTopic, codec: str | None
) -> None:
    if codec and codec not in _backend.linked_codecs():
        pytest.skip(f"{codec} is not linked")
    name = topic(kafka_broker, 2, {"message.timestamp.type": "LogAppendTime"})
    interval = sys.getswitchinterval()
    with KafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap_servers, compression_type=codec, linger_ms=LINGER_MS
    ) as producer:
        producer.send(name, b"proof", partition=0).get()
        producer.send(name, b"proof", partition=1).get()
        sys.setswitchinterval(MOST_S * 2)   # nor does this thread let it go between the lines that follow
        try:
            # One batch that other threads compress, one that is small enough for the I/O thread.
            futures: list[Any] = [producer.send(name, row, partition=0) for row in ROWS]
            futures.append(producer.send(name, b"a small one, a small one, a small one", partition=1))
            before = [future.is_done for future in futures]
            enough = time.monotonic() + MOST_S
            while not all(after := [future.is_done for future in futures]) and time.monotonic() < enough:
                hold_the_interpreter(HOLD_S)
            ended = time.time() * 1000
        finally:
            sys.setswitchinterval(interval)
        appended = {future.get().timestamp for future in futures}
    assert not any(before)
    assert all(after)
    assert max(appended) < ended
    assert [batch.codec for batch in log_batches(kafka_broker, name)] == [0, CODECS.get(codec or "", 0)]
