"""`send_arrow` on a real Kafka, read back with another client."""

from __future__ import annotations

import polars
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from conftest import MakeProducer, MakeTopic
from reading import Read, read_topic

from fastprod import errors
from fastprod.testing import KafkaBroker

COUNT = 5000
BEGAN = 1_700_000_000_000


def table_of(count: int) -> pa.Table:
    numbers = range(count)
    return pa.table({
        "key": pa.array([None if n % 7 == 0 else f"key-{n % 100}" for n in numbers]).dictionary_encode(),
        "value": pa.array([None if n % 11 == 1 and n % 7 else b"%d:" % n + b"v" * (n % 50) for n in numbers],
                          pa.binary_view()),
        "partition": pa.array([n % 3 if n % 2 else None for n in numbers], pa.int8()),
        "time": pa.array([(BEGAN + n) * 1000 + n % 1000 for n in numbers], pa.timestamp("us", "UTC")),
        "headers": pa.array([[("n", b"%d" % n), ("empty", b"")] if n % 5 else None for n in numbers],
                            pa.map_(pa.string(), pa.binary())),
    })  # fmt: skip


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_everything_arrives_as_it_was(own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic,
                                      codec: str | None) -> None:
    name = topic(3)
    whole = table_of(COUNT)
    table = pa.concat_tables([whole[:17], whole[17:3000], whole[3000:]])
    future = producer(compression_type=codec, batch_size=20_000).send_arrow(
        name, table, key="key", value="value", headers="headers", partition="partition", timestamp="time"
    )
    outcome = future.get(60)
    found = {(read.partition, read.offset): read for read in read_topic(own_broker, name, COUNT, 3)}
    for n, row in enumerate(whole.to_pylist()):
        where = outcome.partitions[n], outcome.offsets[n]
        expected = Read(
            *where,
            None if row["key"] is None else row["key"].encode(),
            row["value"],
            list(row["headers"] or []),
            BEGAN + n,
        )
        assert found.pop(where) == expected
        assert row["partition"] in (None, where[0])
        assert outcome.timestamps[n] == BEGAN + n
    assert found == {}
    assert future[8].serialized_key_size == len("key-8")


def test_keys_go_where_send_puts_them(own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic) -> None:
    name = topic(3)
    made = producer()
    keys = [f"k{n}" for n in range(50)]
    one_by_one = [made.send(name, b"v", key=key.encode()).get(30).partition for key in keys]
    frame = polars.DataFrame({"key": keys, "value": ["v"] * 50, "shop": ["a", None] * 25})
    outcome = made.send_arrow(name, frame, key="key", value="value", headers=["shop"]).get(30)
    assert list(outcome.partitions) == one_by_one
    last = {(read.partition, read.offset): read.headers for read in read_topic(own_broker, name, 100, 3)}
    headers = [last[where] for where in zip(outcome.partitions, outcome.offsets, strict=True)]
    assert headers == [[("shop", b"a")], [("shop", None)]] * 25


def test_one_bad_row_and_nothing_is_sent(own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic) -> None:
    name = topic()
    made = producer(max_request_size=10_000)
    table = pa.table({"value": [b"a", b"b" * 20_000, b"c"]})
    with pytest.raises(errors.MessageSizeTooLargeError, match="Record 1: "):
        made.send_arrow(name, table, value="value")
    assert made.send(name, b"first").get(30).offset == 0
