"""A broker whose Produce answers are broken: the connection ends and says why, and no record is lost or doubled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from fastprod import errors

from .conftest import MakeProducer
from .fake_broker import PRODUCE, FakeBroker, Produced
from .honest_log import HonestLog
from .mangling import HALF, MANGLERS, Mangler, cut
from .patience import eventually, in_time

FAST = {"batch_size": 0, "retry_backoff_ms": 5, "reconnect_backoff_ms": 5, "reconnect_backoff_max_ms": 20}
# Without flexible fields, with record errors, and the newest.
VERSIONS = [3, 8, 12]


def broken_once(fake: FakeBroker, mangle: Callable[[bytes], bytes]) -> Callable[[], bool]:
    """Mangle the next Produce answer, and no other. Return whether that has happened."""

    def once(frame: bytes) -> bytes:
        del fake.mangle[PRODUCE]
        return mangle(frame)

    fake.mangle[PRODUCE] = once
    return lambda: PRODUCE not in fake.mangle


def losses(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "was lost" in each.getMessage()]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mangler", [*MANGLERS, HALF], ids=lambda mangler: mangler.name)
def test_one_broken_answer(
    fake: FakeBroker,
    fake_producer: MakeProducer,
    caplog: pytest.LogCaptureFixture,
    mangler: Mangler,
    version: int,
) -> None:
    fake.offered[PRODUCE] = (3, version)
    fake.judge = HonestLog(fake).answer
    in_flight = 1 if mangler is HALF else 5
    made = fake_producer(**FAST, request_timeout_ms=400, max_in_flight_requests_per_connection=in_flight)
    assert made.send("t", b"0", partition=0).get(20).offset == 0
    with caplog.at_level(logging.INFO, "fastprod"):
        happened = broken_once(fake, mangler.mangle)
        futures = [made.send("t", b"%d" % number, partition=0) for number in range(1, 8)]
        assert [each.get(20).offset for each in futures] == list(range(1, 8))
        assert happened()
        told = eventually(lambda: losses(caplog), what="a word in the log")
    assert len(told) == 1
    assert "broker 1" in told[0]
    assert fake.log["t", 0] == [b"%d" % number for number in range(8)]


@pytest.mark.parametrize("version", VERSIONS)
def test_cut_at_every_byte(fake: FakeBroker, fake_producer: MakeProducer, version: int) -> None:
    fake.offered[PRODUCE] = (3, version)
    fake.judge = HonestLog(fake).answer
    made = fake_producer(**FAST)
    lengths = []
    fake.mangle[PRODUCE] = lambda frame: lengths.append(len(frame) - 4) or frame  # type: ignore[func-returns-value]
    made.send("t", b"0", partition=0).get(20)
    for length in range(lengths[0]):
        happened = broken_once(fake, lambda frame: cut(frame, length))  # noqa: B023
        assert made.send("t", b"%d" % (length + 1), partition=0).get(20).offset == length + 1
        assert happened()
    assert fake.log["t", 0] == [b"%d" % number for number in range(lengths[0] + 1)]


def rename(**changes: Any) -> Callable[[Produced], None]:
    def spoil(produced: Produced) -> None:
        produced.batches = [batch._replace(**changes) for batch in produced.batches]

    return spoil


def forget(produced: Produced) -> None:
    produced.batches = []


def repeat(produced: Produced) -> None:
    produced.batches = produced.batches * 2


def add(produced: Produced) -> None:
    produced.batches = [*produced.batches, produced.batch._replace(partition=1)]


@pytest.mark.parametrize(
    "spoil",
    [rename(partition=1), rename(partition=7), rename(partition=-1), rename(topic="other"), forget, repeat, add],
    ids=["partition 1", "partition 7", "partition -1", "another topic", "nothing", "twice", "one more"],
)
def test_an_answer_about_something_else(
    fake: FakeBroker, fake_producer: MakeProducer, caplog: pytest.LogCaptureFixture, spoil: Callable[[Produced], None]
) -> None:
    """Well formed, and not what was asked about."""
    log = HonestLog(fake)
    fake.judge = log.answer
    made = fake_producer(**FAST)
    for partition in range(2):
        made.send("t", b"0", partition=partition).get(20)
    broken = 0

    def judge(produced: Produced) -> None:
        nonlocal broken
        broken += 1
        if broken > 3:
            log.answer(produced)
            return
        outcome = log.judge(produced.batch)
        spoil(produced)
        produced.answer(lambda _: outcome)

    with caplog.at_level(logging.INFO, "fastprod"):
        fake.judge = judge
        assert made.send("t", b"1", partition=0).get(20).offset == 1
        eventually(lambda: len(losses(caplog)) >= 3, what="three words in the log")
    assert fake.log == {("t", 0): [b"0", b"1"], ("t", 1): [b"0"]}


def test_one_byte_at_a_time(fake: FakeBroker, fake_producer: MakeProducer) -> None:
    """Nothing is wrong with that."""
    fake.by_hand = True
    made = fake_producer(**FAST)
    future = made.send("t", b"v", partition=0)
    request = fake.next()
    request.send_raw(request.frame(), piece=1)
    assert future.get(20).offset == 0
    assert not request.abandoned


@pytest.mark.parametrize("piece", [0, 5, 64])
def test_several_answers_cut_anywhere(fake: FakeBroker, fake_producer: MakeProducer, piece: int) -> None:
    made = fake_producer(**FAST)
    made.send("t", b"0", partition=0).get(20)
    fake.by_hand = True
    futures = [made.send("t", b"v", partition=0) for _ in range(5)]
    requests = [fake.next() for _ in range(5)]
    requests[0].send_raw(b"".join(each.frame() for each in requests), piece=piece)
    # `frame` says offset 0 to all of them.
    assert [each.get(20).offset for each in futures] == [0] * 5
    assert not requests[0].abandoned


@pytest.mark.parametrize("data", [b"\x00", bytes(100), b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\x00\x00\x04\x00\x00\x00\x09"])
def test_an_answer_that_nobody_asked_for(
    fake: FakeBroker, fake_producer: MakeProducer, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    fake.judge = HonestLog(fake).answer
    made = fake_producer(**FAST, request_timeout_ms=400)
    fake.by_hand = True
    future = made.send("t", b"0", partition=0)
    request = fake.next()
    fake.by_hand = False
    with caplog.at_level(logging.INFO, "fastprod"):
        request.send_raw(request.frame() + data)
        assert future.get(20).offset == 0
        values = [b"%d" % number for number in range(1, 4)]
        for value in values:
            made.send("t", value, partition=0).get(20)
        eventually(lambda: losses(caplog), what="a word in the log")
    # What the broker said by hand it has not written, and what was answered is not sent again.
    assert fake.log["t", 0] == values


@pytest.mark.parametrize("mangler", [*MANGLERS, HALF], ids=lambda mangler: mangler.name)
def test_one_that_never_behaves(fake: FakeBroker, fake_producer: MakeProducer, mangler: Mangler) -> None:
    """Then delivery_timeout_ms ends it, and it may have been written: it was."""
    fake.judge = HonestLog(fake).answer
    made = fake_producer(**FAST, request_timeout_ms=300, delivery_timeout_ms=1000)
    made.send("t", b"before", partition=0).get(20)
    fake.mangle[PRODUCE] = mangler.mangle
    with in_time("delivery_timeout_ms=1000", 1.0, at_least_s=1.0):
        future = made.send("t", b"v", partition=0)
        with pytest.raises(errors.KafkaTimeoutError, match="delivery_timeout_ms=1000") as caught:
            future.get(20)
    assert caught.value.maybe_written is True
    del fake.mangle[PRODUCE]
    made.send("t", b"after", partition=0).get(20)
    with in_time("close()", 0):
        made.close()
    assert fake.log["t", 0] == [b"before", b"v", b"after"]
