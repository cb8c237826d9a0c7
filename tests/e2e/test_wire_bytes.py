"""The bytes of a batch on the wire are the bytes in the broker's log.

The broker writes two fields of a batch, its base offset and its leader epoch. All else it keeps as it came, or it would
have to compress and checksum every batch anew. The requests are recorded by a relay and taken apart by kio, and the log
is the segment file itself.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from recording import PRODUCE, Relay, Request

from fastprod import KafkaProducer
from fastprod.testing import KafkaBroker

from .conftest import MakeTopic
from .reading import Batch, log_batches, read_back
from .requests import Produced, produced

CODECS = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
PARTITIONS = 3
RECORDS = 20_000
CLIENT = "wire"

pytestmark = pytest.mark.parametrize("idempotent", [True, False], ids=["idempotent", "plain"])


def send_mixed(producer: KafkaProducer, topic: str, count: int) -> list[Any]:
    """Send records of all sizes, keyed and not, with headers and timestamps that go back."""
    chance = random.Random(topic)
    futures = []
    for number in range(count):
        value = b"value %d " % number * chance.choice([0, 1, 5, 50])
        key = b"%d" % chance.randrange(50) if number % 3 else None
        headers = [("h\u00e9", chance.randbytes(3))] if number % 5 == 0 else []
        futures.append(producer.send(topic, value, key, headers, timestamp_ms=1_790_000_000_000 - number))
    return futures


def of(partition: int, sent: list[Produced]) -> list[Batch]:
    return [each.batch for each in sent if each.partition == partition]


@pytest.mark.parametrize("codec", CODECS)
def test_the_log_holds_the_bytes_that_were_sent(
    own_broker: KafkaBroker, relay: Relay, topic: MakeTopic, codec: str | None, idempotent: bool
) -> None:
    name = topic(own_broker, PARTITIONS)
    with KafkaProducer(
        bootstrap_servers=relay.address, client_id=CLIENT, compression_type=codec, enable_idempotence=idempotent,
        linger_ms=5, batch_size=50_000,
    ) as producer:
        futures = send_mixed(producer, name, RECORDS)
    sent = produced(relay.requests(PRODUCE, CLIENT))
    total = 0
    for partition in range(PARTITIONS):
        on_wire, in_log = of(partition, sent), log_batches(own_broker, name, partition)
        assert [batch.lasting for batch in in_log] == [batch.lasting for batch in on_wire]
        assert len(on_wire) > 1
        assert sum(batch.codec == CODECS[codec] for batch in on_wire) > 1
        offset = 0
        for wire, log in zip(on_wire, in_log, strict=True):
            assert wire.data[:8] == bytes(8)
            assert wire.data[12:16] == b"\xff\xff\xff\xff"
            assert log.data[:8] == offset.to_bytes(8, "big")
            # What compression makes no smaller, a few records perhaps, is sent as it is.
            assert wire.codec == CODECS[codec] or (wire.codec == 0 and wire.count < 10)
            assert (wire.producer_id >= 0, wire.epoch >= 0, wire.sequence >= 0) == (idempotent,) * 3
            assert wire.sequence == (offset if idempotent else -1)
            offset += wire.count
        total += offset
    assert total == len(futures)
    assert all(future.succeeded() for future in futures)


class CutFirst:
    """Passes none of the first `count` responses to Produce requests of `CLIENT`, and resets the connection at the last
    of them. So the broker has written all that was in flight, and the client knows of nothing."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.connection: int | None = None

    def __call__(self, request: Request, response: bytes) -> bytes | None:
        if request.api_key != PRODUCE or request.client_id != CLIENT or not self._left:
            return response
        self._left -= 1
        self.connection = request.connection
        if not self._left:
            raise ConnectionResetError
        return None


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_sent_again_is_the_same_bytes(
    own_broker: KafkaBroker, relay: Relay, topic: MakeTopic, codec: str | None, idempotent: bool
) -> None:
    name = topic(own_broker)
    relay.change = cut = CutFirst(1)
    with KafkaProducer(
        bootstrap_servers=relay.address, client_id=CLIENT, compression_type=codec, enable_idempotence=idempotent,
        linger_ms=60_000,
    ) as producer:
        futures = send_mixed(producer, name, 100)
        producer.flush()
    first, again = produced(relay.requests(PRODUCE, CLIENT))
    assert first.request.connection == cut.connection != again.request.connection
    assert first.batch.data == again.batch.data
    assert (first.batch.codec, first.batch.count) == (CODECS[codec], 100)
    in_log = [batch.lasting for batch in log_batches(own_broker, name)]
    # Without idempotence nothing tells the broker that it has the batch already.
    assert in_log == [first.batch.lasting] * (1 if idempotent else 2)
    assert [future.get().offset for future in futures] == [*range(100)] if idempotent else [*range(100, 200)]
    assert len(read_back(relay.address, name)[0]) == 100 * len(in_log)


def test_all_that_was_in_flight_is_sent_again_as_it_was(
    own_broker: KafkaBroker, relay: Relay, topic: MakeTopic, idempotent: bool
) -> None:
    name = topic(own_broker)
    with KafkaProducer(
        bootstrap_servers=relay.address, client_id=CLIENT, enable_idempotence=idempotent, batch_size=10_000,
        compression_type="zstd", linger_ms=1000,
    ) as producer:
        # The first batch of a producer id travels alone.
        producer.send(name, b"ahead", timestamp_ms=0)
        producer.flush()
        relay.reset()
        relay.change = cut = CutFirst(5)
        futures = [producer.send(name, b"%d" % number * 100) for number in range(1000)]
        producer.flush()
    sent = produced(relay.requests(PRODUCE, CLIENT))
    before = [each.batch for each in sent if each.request.connection == cut.connection]
    after = [each.batch for each in sent if each.request.connection != cut.connection]
    assert len(before) == 5
    assert [batch.data for batch in after[:5]] == [batch.data for batch in before]
    in_log = [batch.lasting for batch in log_batches(own_broker, name)][1:]
    if idempotent:
        assert in_log == [batch.lasting for batch in after]
        assert [future.get().offset for future in futures] == [*range(1, 1001)]
    else:
        assert in_log == [batch.lasting for batch in [*before, *after]]
    values = [message.value() for message in read_back(relay.address, name)[0]]
    assert values[-len(futures) :] == [b"%d" % number * 100 for number in range(1000)]
