"""An unscripted ScriptedBroker judged by Apache Kafka itself: the same requests, byte for byte, are answered alike."""

from __future__ import annotations

import gzip
import itertools
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import lz4.frame
import pytest
import zstandard
from cramjam import snappy
from kafka.protocol.broker_version_data import BROKER_API_VERSIONS
from raw_client import RawClient, batch, client, record

from fastprod.testing import Api, KafkaBroker, ScriptedBroker

pytestmark = pytest.mark.native_only

Rows = Callable[[RawClient, str], list[Any]]
_numbers = itertools.count(1)
HOUR_MS = 3_600_000
PLAIN = record(0, b"v") + record(1, b"v")
MANY = b"".join(record(place, b"%070d" % (place * 7919)) for place in range(3000))


class Answer(NamedTuple):
    code: int
    offset: int
    log_append_time: Any
    log_start_offset: int | None
    record_errors: tuple[int, ...]


def answer(said: Any) -> Answer:
    """What of an answer must be equal: everything but the wording."""
    return Answer(
        said.error_code.value,
        said.base_offset,
        said.log_append_time,
        getattr(said, "log_start_offset", None),
        tuple(each.batch_index for each in getattr(said, "record_errors", ())),
    )


@pytest.fixture
def both(kafka_broker: KafkaBroker) -> Callable[..., tuple[list[Any], list[Any]]]:
    """Do something with a fresh topic of a real broker and of a double: what each of them said."""

    def run(rows: Rows, **settings: Any) -> tuple[list[Any], list[Any]]:
        topic = f"honesty-{next(_numbers)}"
        kafka_broker.create_topic(topic, 1, {"cleanup.policy": "compact"} if settings.get("compacted") else {})
        with client(kafka_broker.bootstrap_servers) as real:
            expected = rows(real, topic)
        with ScriptedBroker(auto_create=0) as double:
            double.create_topic(topic, **settings)
            with client(double.bootstrap_servers) as raw:
                return expected, rows(raw, topic)

    return run


BATCHES = {
    "empty": b"",
    "16 bytes": b"\1" * 16,
    "17 bytes": b"\0" * 17,
    "30 bytes": b"x" * 30,
    "sound": batch(b"a", b"b"),
    "two": batch(b"a") + batch(b"b"),
    "cut short": batch(b"a")[:-1],
    "a byte behind it": batch(b"a") + b"x",
    "wrong CRC": batch(b"a", crc=1),
    "base offset": batch(b"a", base=5),
    "format 1": batch(b"a", magic=1),
    "format 3": batch(b"a", magic=3),
    "length 10": batch(b"a", length=10),
    "length 20": batch(b"a", length=20),
    "more counted": batch(b"a", count=2, last_delta=0),
    "wrong last delta": batch(b"a", last_delta=3),
    "none": batch(body=b"", count=0, last_delta=-1),
    "control": batch(b"a", attributes=0x20),
    "transactional": batch(b"a", attributes=0x10, stamp=(5, 0, 0)),
    "append time": batch(b"a", attributes=0x08),
    "id without sequence": batch(b"a", stamp=(5, 0, -1)),
    "bytes behind the records": batch(b"a", body=record(0, b"a") + b"zz"),
    "no record": batch(b"a", body=b"\xff\xff\xff"),
    "gzip": batch(b"v", b"v", body=gzip.compress(PLAIN), attributes=1),
    "broken gzip": batch(b"v", b"v", body=b"no gzip at all", attributes=1),
    "snappy block": batch(b"v", b"v", body=bytes(snappy.compress_raw(PLAIN)), attributes=2),
    "lz4": batch(b"v", b"v", body=lz4.frame.compress(PLAIN, block_linked=False), attributes=3),
    "linked lz4": batch(*[b""] * 3000, body=lz4.frame.compress(MANY, block_size=4, block_linked=True), attributes=3),
    "large lz4": batch(*[b""] * 3000, body=lz4.frame.compress(MANY, block_size=4, block_linked=False), attributes=3),
    "zstd": batch(b"v", b"v", body=zstandard.ZstdCompressor().compress(PLAIN), attributes=4),
    "broken zstd": batch(b"v", b"v", body=b"12345678", attributes=4),
    "unknown codec": batch(b"v", attributes=6),
    "too large": batch(b"x" * 1_048_600),
    "just fits": batch(b"x" * (1_048_588 - 61 - 14)),
}


@pytest.mark.parametrize("version", [3, 6, 7, 8, 9, 12, 13])
def test_every_kind_of_batch_is_judged_alike(both: Any, version: int) -> None:
    def rows(raw: RawClient, topic: str) -> list[Any]:
        late = batch(b"a", at_ms=int(time.time() * 1000) + 2 * HOUR_MS)
        cases = {**BATCHES, "from the future": late}
        return [(name, answer(raw.produce(topic, 0, data, version))) for name, data in cases.items()]

    expected, told = both(rows)
    assert told == expected
    # They are not all refused, nor all accepted.
    assert {0, 2, 10, 87} <= {each.code for _, each in told}


def test_records_without_key_in_a_compacted_topic(both: Any) -> None:
    def rows(raw: RawClient, topic: str) -> list[Any]:
        return [answer(raw.produce(topic, 0, batch(b"a", b"b", key=key))) for key in (None, b"k")]

    expected, told = both(rows, compacted=True)
    assert told == expected
    assert told[0].record_errors == (0, 1)


def test_wrong_places_and_acks(both: Any) -> None:
    def rows(raw: RawClient, topic: str) -> list[Any]:
        return [
            answer(raw.produce("nowhere", 0, batch(b"a"))),
            answer(raw.produce(topic, 1, batch(b"a"))),
            answer(raw.produce(topic, -1, batch(b"a"))),
            answer(raw.produce(topic, 0, batch(b"a"), acks=2)),
            answer(raw.produce(topic, 0, batch(b"a"), acks=1)),
        ]

    expected, told = both(rows)
    assert told == expected
    assert [each.code for each in told] == [3, 3, 3, 21, 0]


def test_sequences_by_the_book(both: Any) -> None:
    """Each line is a rule: what is remembered, how far back, and what an epoch changes."""
    last = 2**31 - 1
    steps = [
        ((71, 0, 5), 2, "no state: any sequence"), ((71, 0, 5), 2, "again"), ((71, 0, 5), 1, "another range"),
        ((71, 0, 8), 1, "a gap"), ((71, 0, 6), 1, "behind"), ((71, 0, 7), 1, "next"), ((71, 0, 7), 1, "again"),
        *[((71, 0, 8 + number), 1, "next") for number in range(4)],
        ((71, 0, 7), 1, "the fifth last"), ((71, 0, 5), 2, "the sixth last is forgotten"),
        ((71, 2, 3), 1, "a newer epoch not from 0"), ((71, 2, 0), 3, "a newer epoch from 0"),
        ((71, 2, 0), 3, "again"), ((71, 1, 0), 1, "an older epoch"), ((71, 0, 11), 1, "an older epoch's last"),
        ((71, 2, 3), 1, "next"), ((72, 5, 0), 1, "another producer"),
        ((73, 0, last), 2, "across the end"), ((73, 0, last), 2, "again"), ((73, 0, 1), 1, "next"),
        ((74, 0, last), 1, "up to the end"), ((74, 0, 0), 1, "0 behind it"),
        ((75, 0, 0), 1, "from 0"), ((75, 0, 0), 1, "again"),
    ]  # fmt: skip

    def rows(raw: RawClient, topic: str) -> list[Any]:
        return [
            (what, answer(raw.produce(topic, 0, batch(*[b"v"] * count, stamp=stamp)))) for stamp, count, what in steps
        ]

    expected, told = both(rows)
    assert told == expected
    assert {each.code for _, each in told} == {0, 45, 47}


@pytest.mark.parametrize("seed", range(5))
def test_sequences_by_chance(both: Any, seed: int) -> None:
    """Three producers, each mostly in order, with repetitions, gaps and new epochs."""
    chance = random.Random(seed)
    steps: list[tuple[tuple[int, int, int], int]] = []
    ahead = dict.fromkeys(range(90, 93), (0, 0))
    for _ in range(250):
        producer = chance.choice(list(ahead))
        epoch, sequence = ahead[producer]
        count = chance.randrange(1, 4)
        kind = chance.random()
        if kind < 0.2 and steps:
            steps.append(steps[max(0, len(steps) - chance.randrange(1, 20))])
            continue
        if kind < 0.3:
            sequence = max(0, sequence + chance.randrange(-3, 4))
        elif kind < 0.36:
            epoch, sequence = epoch + chance.choice([1, 1, 2, -1]), chance.choice([0, 0, 1])
        epoch = max(0, epoch)
        steps.append(((producer, epoch, sequence), count))
        if kind >= 0.3 or chance.random() < 0.5:
            ahead[producer] = (epoch, sequence + count)

    def rows(raw: RawClient, topic: str) -> list[Any]:
        return [(step, answer(raw.produce(topic, 0, batch(*[b"v"] * step[1], stamp=step[0])))) for step in steps]

    expected, told = both(rows)
    assert told == expected
    assert {each.code for _, each in told} >= {0, 45}


@pytest.mark.parametrize("version", range(5))
def test_api_versions_of_the_newest_release(kafka_broker: KafkaBroker, version: int) -> None:
    told = []
    with ScriptedBroker(version="4.3") as double:
        for address in (kafka_broker.bootstrap_servers, double.bootstrap_servers):
            with client(address) as raw:
                names = {"client_software_name": "raw", "client_software_version": "1.0"} if version >= 3 else {}
                said = raw.ask(Api.API_VERSIONS, version, **names)
            ranges = {each.api_key: (each.min_version, each.max_version) for each in said.api_keys}
            told.append((said.error_code, ranges))
    assert told[0] == told[1]


@pytest.mark.parametrize("name", ["", "-x", "a b", "x-", "ok-1.2"])
def test_the_client_s_software_name(kafka_broker: KafkaBroker, name: str) -> None:
    codes = []
    with ScriptedBroker() as double:
        for address in (kafka_broker.bootstrap_servers, double.bootstrap_servers):
            with client(address) as raw:
                said = raw.ask(Api.API_VERSIONS, 3, client_software_name=name, client_software_version="1")
                codes.append(said.error_code.value)
    assert codes[0] == codes[1]


@pytest.mark.parametrize("release", ["2.1", "2.4", "3.3", "4.0"])
def test_api_versions_of_older_releases(release: str) -> None:
    """As kafka-python has them on record."""
    recorded = BROKER_API_VERSIONS[tuple(map(int, release.split(".")))]
    with ScriptedBroker(version=release) as double:
        assert double.offered == recorded


def test_an_api_versions_request_that_is_too_new(kafka_broker: KafkaBroker) -> None:
    told = []
    with ScriptedBroker() as double:
        for address in (kafka_broker.bootstrap_servers, double.bootstrap_servers):
            with client(address) as raw:
                raw.socket.sendall(bytes.fromhex("0000000b 0012 0063 00000007 ffff 00"))
                told.append(raw.receive_frame())
    assert told[0] == told[1]
    with ScriptedBroker(version="2.1") as double, client(double.bootstrap_servers) as raw:
        raw.socket.sendall(bytes.fromhex("0000000b 0012 0003 00000007 ffff 00"))
        assert raw.receive_frame() == bytes.fromhex("00000007 0023 00000000")


@pytest.mark.parametrize("version", range(14))
def test_metadata(kafka_broker: KafkaBroker, version: int) -> None:
    """A topic that is there and one that is not; what a cluster is free to choose is left out."""
    topic = f"honesty-{next(_numbers)}"
    kafka_broker.create_topic(topic, 2)
    told = []
    with ScriptedBroker({topic: 2}, auto_create=0) as double:
        for address in (kafka_broker.bootstrap_servers, double.bootstrap_servers):
            with client(address) as raw:
                # Before version 4 a client cannot say that nothing is to be created.
                asked = (topic, "nowhere") if version >= 4 else (topic,)
                said = raw.metadata(*asked, version=version)
            assert [f"{each.host}:{each.port}" for each in said.brokers] == [address]
            told.append([
                (each.error_code, each.name, getattr(each, "topic_id", None) is None, getattr(each, "is_internal", 0),
                 sorted((part.partition_index, part.error_code, part.leader_id, getattr(part, "leader_epoch", 0),
                         part.replica_nodes, part.isr_nodes) for part in each.partitions))
                for each in sorted(said.topics, key=lambda each: each.name)
            ])  # fmt: skip
    assert told[0] == told[1]


@pytest.mark.parametrize("version", range(6))
def test_init_producer_id(kafka_broker: KafkaBroker, version: int) -> None:
    known = {"producer_id": -1, "producer_epoch": -1} if version >= 3 else {}
    told = []
    with ScriptedBroker() as double:
        for address in (kafka_broker.bootstrap_servers, double.bootstrap_servers):
            with client(address) as raw:
                ask = {"transactional_id": None, "transaction_timeout": timedelta(seconds=60), **known}
                # A broker that has just started may still be fetching a block of ids.
                while raw.ask(Api.INIT_PRODUCER_ID, version, **ask).error_code.value == 14:
                    time.sleep(0.05)
                said = [raw.ask(Api.INIT_PRODUCER_ID, version, **ask) for _ in range(2)]
            assert said[0].producer_id != said[1].producer_id
            told.append([(each.error_code, each.producer_epoch) for each in said])
    assert told[0] == told[1]


def test_what_it_cannot_answer_ends_the_connection_as_a_wrong_version_does(kafka_broker: KafkaBroker) -> None:
    """Produce 2 is listed by 4.3 and served by nobody; 14 is not even listed."""
    with ScriptedBroker() as double:
        for address in (kafka_broker.bootstrap_servers, double.bootstrap_servers):
            for version in (2, 14):
                with client(address) as raw:
                    raw.socket.sendall(bytes.fromhex(f"0000000a 0000 {version:04x} 00000007 ffff"))
                    assert raw.ended()
        assert len(double.complaints) == 2
        assert double.count(Api.PRODUCE) == 2
