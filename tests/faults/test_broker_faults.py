"""Real brokers and networks that fail under load: nothing lost, nothing twice, nothing out of order, by default."""

from __future__ import annotations

import random
import threading
import time
from typing import Literal

import pytest
from patience import eventually

from fastprod.testing import Api, FaultProxy, KafkaBroker

from .conftest import MakeProducer, MakeTopic
from .ledger import Load, read_log

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
PARTITIONS = 3
# A way, and how far to look for a byte: down, from before the first byte of an answer to the middle of a later one.
REQUESTS: tuple[Literal["requests"], int] = ("requests", 4000)
RESPONSES: tuple[Literal["responses"], int] = ("responses", 120)
# Longer than any fault here lasts, so that an expired record is a bug. A broker that was restarted is found soon.
PATIENT = {
    "max_block_ms": 60_000,
    "delivery_timeout_ms": 90_000,
    "request_timeout_ms": 5_000,
    "reconnect_backoff_max_ms": 500,
}


def wait_for_progress(load: Load, records: int = 200) -> None:
    """Wait until that many more records are acknowledged."""
    goal = load.acknowledged + records
    eventually(lambda: load.acknowledged >= goal, f"the acknowledgement of {records} more records", 40)


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_killed_and_restarted_under_load(
    own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, codec: str | None
) -> None:
    name = topic(PARTITIONS)
    made = producer(compression_type=codec, **PATIENT)
    load = Load(made, name)
    wait_for_progress(load)
    own_broker.kill()
    accepted = load.sent
    eventually(lambda: load.sent > accepted + 200, what="sending while the broker is gone")
    own_broker.start()
    wait_for_progress(load)
    load.stop()
    made.close(60)
    load.check(own_broker, PARTITIONS)


@pytest.mark.parametrize("codec", CODECS)
def test_connections_cut_under_load(
    own_broker: KafkaBroker, proxy: FaultProxy, producer: MakeProducer, topic: MakeTopic, codec: str | None
) -> None:
    name = topic(PARTITIONS)
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    made = producer(compression_type=codec, **PATIENT)
    load = Load(made, name)
    happened = 0
    for _ in range(25):
        way, most = chance.choice([REQUESTS, RESPONSES])
        fault = proxy.cut_at(chance.randrange(most), way, api_key=Api.PRODUCE)
        assert fault.wait(20)
        happened += 1
        time.sleep(chance.random() * 0.05)
        if chance.random() < 0.2:
            happened += proxy.cut()
    wait_for_progress(load)
    load.stop()
    made.close(60)
    assert happened >= 25
    load.check(own_broker, PARTITIONS)


@pytest.mark.parametrize("codec", [None, "lz4"])
def test_a_leader_without_an_answer(
    own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, codec: str | None
) -> None:
    name = topic(PARTITIONS)
    made = producer(compression_type=codec, **{**PATIENT, "request_timeout_ms": 700})
    load = Load(made, name)
    for _ in range(2):
        wait_for_progress(load)
        own_broker.pause()
        # Long enough for two request timeouts: what was in flight is sent again while the broker still holds the
        # first copy, and it gets both when it goes on.
        time.sleep(1.8)
        own_broker.resume()
    wait_for_progress(load)
    load.stop()
    made.close(60)
    load.check(own_broker, PARTITIONS)


def test_a_network_that_stalls_and_goes_on(
    own_broker: KafkaBroker, proxy: FaultProxy, producer: MakeProducer, topic: MakeTopic
) -> None:
    name = topic(PARTITIONS)
    made = producer(**{**PATIENT, "request_timeout_ms": 600})
    load = Load(made, name)
    for way, _ in (RESPONSES, REQUESTS):
        wait_for_progress(load)
        fault = proxy.stall_at(30, way, api_key=Api.PRODUCE)  # half a frame, then silence on an open connection
        assert fault.wait(20)
        wait_for_progress(load)
        proxy.hold()  # everything is held back, then all of it arrives after all
        time.sleep(1.3)
        proxy.release()
    wait_for_progress(load)
    load.stop()
    made.close(60)
    load.check(own_broker, PARTITIONS)


def test_a_slow_network_in_small_pieces(
    own_broker: KafkaBroker, proxy: FaultProxy, producer: MakeProducer, topic: MakeTopic
) -> None:
    name = topic(PARTITIONS)
    proxy.pieces(3, "responses")
    proxy.slow(3000, "responses")
    made = producer(**PATIENT)
    load = Load(made, name)
    wait_for_progress(load, 1000)
    proxy.heal()
    load.stop()
    made.close(60)
    load.check(own_broker, PARTITIONS)


@pytest.mark.parametrize(
    ("way", "positions"),
    [
        # Before the first byte, in the size, in the headers, in the batch; an uncompressed record's request has about
        # 170 bytes, its answer about 80.
        ("requests", [0, 1, 3, 4, 9, 20, 45, 60, 100, 121, 150, 160]),
        ("responses", [0, 1, 3, 4, 7, 8, 12, 20, 35, 50, 60]),
    ],
)
def test_a_connection_cut_at_every_kind_of_byte(
    own_broker: KafkaBroker,
    proxy: FaultProxy,
    producer: MakeProducer,
    topic: MakeTopic,
    way: Literal["requests", "responses"],
    positions: list[int],
) -> None:
    name = topic()
    made = producer(retry_backoff_ms=5, **PATIENT)
    made.send(name, b"first").get(10)
    for number, position in enumerate(positions, 1):
        fault = proxy.cut_at(position, way, api_key=Api.PRODUCE)
        assert made.send(name, b"%d" % number + bytes(60)).get(20).offset == number
        assert fault.done
    written = [each.value.rstrip(b"\0") for each in read_log(own_broker.direct_servers, name, 1)]
    assert written == [b"first", *(b"%d" % number for number in range(1, len(positions) + 1))]


def test_a_killed_broker_keeps_nothing_from_being_accepted(
    own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic
) -> None:
    """Sending to a known topic needs no broker: records wait and go when it is back, in order."""
    name = topic()
    made = producer(**PATIENT)
    made.send(name, b"0").get(10)
    own_broker.kill()
    futures = [made.send(name, b"%d" % number) for number in range(1, 500)]
    assert not any(each.failed() for each in futures)
    restarting = threading.Thread(target=own_broker.start)
    restarting.start()
    assert [each.get(100).offset for each in futures] == list(range(1, 500))
    restarting.join()
    written = [each.value for each in read_log(own_broker.bootstrap_servers, name, 1)]
    assert written == [b"%d" % number for number in range(500)]
