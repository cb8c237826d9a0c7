"""Items 30 and 31: what `close` promises."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest
from patience import check_time, in_time

from fastprod.errors import IllegalStateError, KafkaTimeoutError
from fastprod.testing import ScriptedBroker

from .conftest import Make
from .story import SINGLE, offsets, send


@pytest.mark.parametrize("number", range(5))
def test_abort_incomplete_races_append(broker: ScriptedBroker, make: Make, number: int) -> None:
    """A forced close while others send: whatever was accepted ends, and is handed back if it was not delivered.

    Error classes are named at the top of this file: the first use imports kafka-python, which takes seconds beside four
    threads that never pause, and these would send millions of records meanwhile.
    """
    broker.on_produce().answer(delay_s=0.005)
    made = make(batch_size=500)
    made.partitions_for("t")
    accepted: list[list[Any]] = [[] for _ in range(4)]
    going = threading.Barrier(5)
    refused = []

    def run(mine: list[Any], partition: int) -> None:
        going.wait()
        try:
            while True:
                mine.append(made.send("t", b"%d" % len(mine), partition=partition))
        except IllegalStateError:
            refused.append(partition)

    threads = [threading.Thread(target=run, args=(mine, place % 2)) for place, mine in enumerate(accepted)]
    for thread in threads:
        thread.start()
    going.wait()
    time.sleep(0.02 * number)
    with contextlib.suppress(KafkaTimeoutError):
        made.close(0)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(refused) == 4
    futures = [future for mine in accepted for future in mine]
    assert all(each.is_done for each in futures)
    failed = [each for each in futures if each.failed()]
    assert all(isinstance(each.exception, IllegalStateError) for each in failed)
    assert len(made.undelivered()) == len(failed)
    written = sum(batch.count for partition in (0, 1) for batch in broker.log("t", partition))
    unclear = sum(each.exception.maybe_written for each in failed)
    assert len(futures) - len(failed) <= written <= len(futures) - len(failed) + unclear


def test_close_semantics_it_drains(broker: ScriptedBroker, make: Make) -> None:
    broker.on_produce().answer(delay_s=0.05)
    broker.on_produce(times=1).refuse(19)
    made = make(**SINGLE, linger_ms=60_000, delivery_timeout_ms=120_000)
    futures = send(made, *[b"%d" % number for number in range(20)])
    made.close()
    assert all(each.is_done for each in futures)
    assert offsets(futures) == list(range(20))
    assert made.undelivered() == []


def test_close_semantics_timeout_forces(broker: ScriptedBroker, make: Make) -> None:
    made = make(**SINGLE)
    made.send("t", b"first", partition=0).get(20)
    broker.on_produce().ignore()
    futures = send(made, *[b"%d" % number for number in range(8)])
    broker.wait_for(0, 6)
    with in_time("close(0.5)", 0.5, at_least_s=0.5), pytest.raises(KafkaTimeoutError, match=r"8 record\(s\)"):
        made.close(0.5)
    assert all(isinstance(each.exception, IllegalStateError) for each in futures)
    left = made.undelivered()
    assert [each.value for each in left] == [b"%d" % number for number in range(8)]
    assert [each.maybe_written for each in left] == [True] * 5 + [False] * 3


def test_close_semantics_in_a_callback(broker: ScriptedBroker, make: Make) -> None:
    """It acts as close(0): it would wait for itself."""
    made = make(**SINGLE)
    broker.by_hand = True
    took: list[float] = []
    raised: list[Exception] = []
    over = threading.Event()

    def close(_: object) -> None:
        began = time.monotonic()
        try:
            made.close(60)
        except KafkaTimeoutError as error:
            raised.append(error)
        took.append(time.monotonic() - began)
        over.set()

    first, second = send(made, b"1", b"2")
    first.add_callback(close)
    broker.next_produce().accept()
    assert over.wait(20)
    check_time("close(60) in a callback", took[0], 0)
    assert first.get(20).offset == 0
    assert isinstance(second.exception, IllegalStateError)
    assert len(raised) == 1


def test_close_semantics_sends_afterwards(broker: ScriptedBroker, make: Make) -> None:
    made = make()
    made.send("t", b"v").get(20)
    made.close()
    with pytest.raises(IllegalStateError):
        made.send("t", b"late")
    made.close()
    assert sum(len(broker.values("t", partition)) for partition in (0, 1)) == 1
