"""A broker whose Produce answers are broken: the connection ends and says why, and no record is lost or doubled."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from patience import eventually, in_time

from fastprod import errors
from fastprod.testing import Api, FaultProxy, ScriptedBroker

from .conftest import MakeProducer
from .mangling import HALF, MANGLERS, Mangler, cut

FAST = {"batch_size": 0, "retry_backoff_ms": 5, "reconnect_backoff_ms": 5, "reconnect_backoff_max_ms": 20}
# Without flexible fields, with record errors, the last with names of topics, and the newest.
VERSIONS = [3, 8, 12, 13]


def losses(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "was lost" in each.getMessage()]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mangler", [*MANGLERS, HALF], ids=lambda mangler: mangler.name)
def test_one_broken_answer(
    scripted: ScriptedBroker,
    scripted_producer: MakeProducer,
    caplog: pytest.LogCaptureFixture,
    mangler: Mangler,
    version: int,
) -> None:
    scripted.offered[Api.PRODUCE] = (3, version)
    in_flight = 1 if mangler is HALF else 5
    made = scripted_producer(**FAST, request_timeout_ms=400, max_in_flight_requests_per_connection=in_flight)
    assert made.send("t", b"0", partition=0).get(20).offset == 0
    with caplog.at_level(logging.INFO, "fastprod"):
        broken = scripted.on_produce(times=1).answer(mangle=mangler.mangle)
        futures = [made.send("t", b"%d" % number, partition=0) for number in range(1, 8)]
        assert [each.get(20).offset for each in futures] == list(range(1, 8))
        assert broken.used == 1
        told = eventually(lambda: losses(caplog), what="a word in the log")
    assert len(told) == 1
    assert "broker 1" in told[0]
    assert scripted.values("t", 0) == [b"%d" % number for number in range(8)]


@pytest.mark.parametrize("version", VERSIONS)
def test_cut_at_every_byte(scripted: ScriptedBroker, scripted_producer: MakeProducer, version: int) -> None:
    scripted.offered[Api.PRODUCE] = (3, version)
    made = scripted_producer(**FAST)
    lengths = []

    def measure(frame: bytes) -> bytes:
        lengths.append(len(frame) - 4)
        return frame

    scripted.on_produce(times=1).answer(mangle=measure)
    made.send("t", b"0", partition=0).get(20)
    for length in range(lengths[0]):
        broken = scripted.on_produce(times=1).answer(mangle=lambda frame: cut(frame, length))  # noqa: B023
        assert made.send("t", b"%d" % (length + 1), partition=0).get(20).offset == length + 1
        assert broken.used == 1
    assert scripted.values("t", 0) == [b"%d" % number for number in range(lengths[0] + 1)]


Spoil = Callable[[Any, ScriptedBroker], Any]


def of_topic(**changes: Any) -> Spoil:
    """Change the answer about the topic."""

    def spoil(response: Any, _: ScriptedBroker) -> Any:
        (topic,) = response.responses
        return dataclasses.replace(response, responses=(dataclasses.replace(topic, **changes),))

    return spoil


def another_topic(response: Any, broker: ScriptedBroker) -> Any:
    return of_topic(topic_id=broker.topic_id("other"))(response, broker)


def of_partition(*numbers: int) -> Spoil:
    """Say the same of these partitions instead."""

    def spoil(response: Any, broker: ScriptedBroker) -> Any:
        (said,) = response.responses[0].partition_responses
        parts = tuple(dataclasses.replace(said, index=number) for number in numbers)
        return of_topic(partition_responses=parts)(response, broker)

    return spoil


def forget(response: Any, _: ScriptedBroker) -> Any:
    return dataclasses.replace(response, responses=())


@pytest.mark.parametrize(
    "spoil",
    [of_partition(1), of_partition(7), of_partition(-1), another_topic, forget, of_partition(), of_partition(0, 0),
     of_partition(0, 1)],
    ids=["partition 1", "partition 7", "partition -1", "another topic", "nothing", "no partition", "twice", "one more"],
)
def test_an_answer_about_something_else(
    scripted: ScriptedBroker, scripted_producer: MakeProducer, caplog: pytest.LogCaptureFixture, spoil: Spoil
) -> None:
    """Well formed, and not what was asked about."""
    made = scripted_producer(**FAST)
    for partition in range(2):
        made.send("t", b"0", partition=partition).get(20)
    with caplog.at_level(logging.INFO, "fastprod"):
        scripted.on_produce(times=3).answer(edit=lambda response: spoil(response, scripted))
        assert made.send("t", b"1", partition=0).get(20).offset == 1
        eventually(lambda: len(losses(caplog)) >= 3, what="three words in the log")
    assert [scripted.values("t", number) for number in (0, 1)] == [[b"0", b"1"], [b"0"]]
    assert scripted.values("other") == []


@pytest.fixture
def proxy(scripted: ScriptedBroker) -> Iterator[FaultProxy]:
    """A proxy that `scripted` calls its own address, so that every connection leads through it."""

    def through(response: Any) -> Any:
        (node,) = response.brokers
        return dataclasses.replace(response, brokers=(dataclasses.replace(node, port=made.port),))

    with FaultProxy(scripted.bootstrap_servers) as made:
        scripted.on(Api.METADATA).answer(edit=through)
        yield made


def test_one_byte_at_a_time(scripted: ScriptedBroker, proxy: FaultProxy, scripted_producer: MakeProducer) -> None:
    """Nothing is wrong with that."""
    proxy.one_byte_at_a_time("responses")
    scripted.by_hand = True
    made = scripted_producer(**FAST, bootstrap_servers=proxy.address)
    future = made.send("t", b"v", partition=0)
    request = scripted.next_produce()
    request.accept()
    assert future.get(20).offset == 0
    assert not request.abandoned
    assert proxy.requests(Api.PRODUCE) == 1


@pytest.mark.parametrize("piece", [0, 5, 64])
def test_several_answers_cut_anywhere(
    scripted: ScriptedBroker, proxy: FaultProxy, scripted_producer: MakeProducer, piece: int
) -> None:
    """They come as one, in pieces of that size (0: as they are)."""
    made = scripted_producer(**FAST, bootstrap_servers=proxy.address)
    made.send("t", b"0", partition=0).get(20)
    scripted.by_hand = True
    futures = [made.send("t", b"v", partition=0) for _ in range(5)]
    requests = [scripted.next_produce() for _ in range(5)]
    proxy.pieces(piece, "responses")
    requests[0].send_raw(b"".join(each.frame() for each in requests))
    # `frame` says offset 0 to all of them.
    assert [each.get(20).offset for each in futures] == [0] * 5
    assert not requests[0].abandoned
    assert proxy.requests(Api.PRODUCE) == 6


@pytest.mark.parametrize("data", [b"\x00", bytes(100), b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\x00\x00\x04\x00\x00\x00\x09"])
def test_an_answer_that_nobody_asked_for(
    scripted: ScriptedBroker, scripted_producer: MakeProducer, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    made = scripted_producer(**FAST, request_timeout_ms=400)
    scripted.by_hand = True
    future = made.send("t", b"0", partition=0)
    request = scripted.next_produce()
    scripted.by_hand = False
    with caplog.at_level(logging.INFO, "fastprod"):
        request.send_raw(request.frame() + data)
        assert future.get(20).offset == 0
        values = [b"%d" % number for number in range(1, 4)]
        for value in values:
            made.send("t", value, partition=0).get(20)
        eventually(lambda: losses(caplog), what="a word in the log")
    # What the broker said by hand it has not written, and what was answered is not sent again.
    assert scripted.values("t", 0) == values


@pytest.mark.parametrize("mangler", [*MANGLERS, HALF], ids=lambda mangler: mangler.name)
def test_one_that_never_behaves(scripted: ScriptedBroker, scripted_producer: MakeProducer, mangler: Mangler) -> None:
    """Then delivery_timeout_ms ends it, and it may have been written: it was."""
    made = scripted_producer(**FAST, request_timeout_ms=300, delivery_timeout_ms=1000)
    made.send("t", b"before", partition=0).get(20)
    mangled = scripted.on_produce().answer(mangle=mangler.mangle)
    with in_time("delivery_timeout_ms=1000", 1.0, at_least_s=1.0):
        future = made.send("t", b"v", partition=0)
        with pytest.raises(errors.KafkaTimeoutError, match="delivery_timeout_ms=1000") as caught:
            future.get(20)
    assert caught.value.maybe_written is True
    mangled.remove()
    made.send("t", b"after", partition=0).get(20)
    with in_time("close()", 0):
        made.close()
    assert scripted.values("t", 0) == [b"before", b"v", b"after"]
