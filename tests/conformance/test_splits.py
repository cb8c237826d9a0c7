"""Items 6 to 9: a batch that the broker finds too large (MESSAGE_TOO_LARGE, 10) is sent in parts."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from fastprod import errors
from fastprod.testing import Api, ScriptedBroker

from .conftest import Make
from .story import ID, offsets, send

LONG: dict[str, Any] = {"linger_ms": 60_000, "delivery_timeout_ms": 120_000}


@pytest.mark.parametrize("idempotent", [True, False])
def test_split_and_reenqueue(broker: ScriptedBroker, make: Make, idempotent: bool) -> None:
    """In order, in front of what was queued later, with the parent's sequences, and without using up a retry: there
    is none. Transactions are not built yet."""
    options: dict[str, Any] = {} if idempotent else {"max_in_flight_requests_per_connection": 1}
    made = make(**LONG, **options, batch_size=1500, retries=0 if not idempotent else 1, enable_idempotence=idempotent)
    broker.by_hand = True
    values = [b"%02d" % number * 50 for number in range(16)]
    futures = send(made, *values)
    # The first batch is full; the second one waits behind it.
    whole = broker.next_produce()
    count = whole.batch.count
    assert 2 <= count < len(values)
    if idempotent:
        # Its only retry is used up before.
        whole.refuse(19)
        whole = broker.next_produce()
    whole.refuse(10)
    flushing = threading.Thread(target=made.flush)
    flushing.start()
    seen: list[bytes | None] = []
    while len(seen) < len(values):
        part = broker.next_produce()
        assert part.batch.stamp == ((ID, 0, len(seen)) if idempotent else (-1, -1, -1))
        if len(seen) < count:
            assert part.batch.count < count
            assert len(seen) + part.batch.count <= count, "a part holds later records"
        seen += part.batch.values
        part.accept()
    flushing.join(20)
    assert seen == values
    assert offsets(futures) == list(range(len(values)))
    assert broker.values("t") == values


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("in_flight", [1, 2])
def test_split_and_reenqueue_after_a_lost_answer(
    broker: ScriptedBroker, make: Make, written: bool, in_flight: int
) -> None:
    """The topic's limit was lowered between the attempt whose answer was lost and the next one. A broker recognizes
    the whole, but not its parts: where it has the whole they are refused, and may not be written under a new epoch."""
    made = make(**LONG, batch_size=1500)
    send(made, b"first")
    made.flush(20)
    broker.by_hand = True
    values = [b"%02d" % number * 50 for number in range(16)]
    futures = send(made, *values)
    lost = broker.next_produce()
    count = lost.batch.count
    flushing = threading.Thread(target=made.flush)
    if in_flight == 2:
        flushing.start()
        assert broker.next_produce().batch.sequence == 1 + count
    lost.lose() if written else lost.drop()
    again = broker.next_produce()
    assert again.batch.stamp == lost.batch.stamp
    again.refuse(10)
    broker.by_hand = False
    futures += send(made, b"last")
    made.flush(60)
    if in_flight == 2:
        flushing.join(20)
    failed = [each for each in futures if each.failed()]
    assert failed == (futures[:count] if written else [])
    for each in failed:
        assert each.exception.maybe_written
    assert broker.values("t") == [b"first", *values, b"last"]


def test_parts_that_never_left_may_be_written(broker: ScriptedBroker, make: Make) -> None:
    """Parts that never left may be in the log if their whole may."""
    options: dict[str, Any] = {"request_timeout_ms": 1500, "delivery_timeout_ms": 3000, "linger_ms": 1500}
    made = make(**options, max_in_flight_requests_per_connection=1, batch_size=1500)
    send(made, b"first")
    made.flush(20)
    broker.by_hand = True
    futures = send(made, *[b"%02d" % number * 50 for number in range(16)])
    broker.next_produce().lose()
    whole = broker.next_produce()
    whole.refuse(10)
    part = broker.next_produce()
    for each in futures[part.batch.count : whole.batch.count]:
        with pytest.raises(errors.KafkaTimeoutError, match="Never sent") as caught:
            each.get(20)
        assert caught.value.maybe_written  # type: ignore[attr-defined]


def test_split_of_split_terminates(broker: ScriptedBroker, make: Make) -> None:
    """Refused again and again it is halved until its records are alone, and they fail. There is no recursion that
    could overflow."""
    made = make(**LONG, batch_size=200_000)
    refusing = broker.on_produce("t", 0).refuse(10)
    futures = send(made, *[b"%04d" % number for number in range(2000)])
    made.flush(60)
    for future in futures:
        assert isinstance(future.exception, errors.MessageSizeTooLargeError)
        assert future.exception.maybe_written is False
    # A tree of halves has fewer than twice as many nodes as leaves; every record went alone at last.
    assert [each.values for each in broker.batches if each.count == 1] == [[b"%04d" % number] for number in range(2000)]
    assert len(broker.batches) < 2 * len(futures)
    refusing.remove()
    (later,) = send(made, b"later")
    made.flush(20)
    assert later.get(20).offset == 0


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_split_frequency_bounded(broker: ScriptedBroker, make: Make, compression: str | None) -> None:
    """The topic's limit is remembered: after a few refusals batches fit. There is no estimate of a compression ratio
    that could be reset (design.md); the limit is about bytes on the wire."""
    chance = random.Random(8)
    broker.change_topic("t", max_message_bytes=3000)
    made = make(**LONG, batch_size=20_000, compression_type=compression)

    def refused() -> int:
        return sum(len(each.data) > 3000 for each in broker.batches)

    values = [chance.randbytes(700) + bytes(300) for _ in range(500)]
    futures = send(made, *values[:19])
    made.flush(20)
    # Halves: of one batch of 19, two of 9 or 10, four of 5; the next ones fit.
    assert 1 <= refused() <= 8
    before = refused()
    futures += send(made, *values[19:])
    made.flush(20)
    assert offsets(futures) == list(range(500))
    assert broker.values("t") == values
    assert refused() - before <= 2


def test_flush_waits_split_children(broker: ScriptedBroker, make: Make) -> None:
    """It returns when the last part has ended, not before."""
    made = make(**LONG)
    broker.by_hand = True
    futures = send(made, *[b"%d" % number for number in range(4)])
    flushed = threading.Event()

    def flush() -> None:
        made.flush()
        flushed.set()

    flushing = threading.Thread(target=flush)
    flushing.start()
    broker.next_produce().refuse(10)
    done = 0
    while done < 4:
        part = broker.next_produce()
        with pytest.raises(errors.KafkaTimeoutError):
            made.flush(0.2)  # one that begins when the batch has been split waits as well
        assert not flushed.is_set()
        assert [each.is_done for each in futures] == [True] * done + [False] * (4 - done)
        done += part.batch.count
        part.accept()
    assert flushed.wait(20)
    flushing.join()
    assert broker.count(Api.PRODUCE) >= 3
    assert offsets(futures) == [0, 1, 2, 3]
