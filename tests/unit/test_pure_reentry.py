"""A signal's handler, or a finalizer, sends in the middle of a call of the same producer on the same thread, which
holds locks there. It waits for none of them: what it sends is placed a moment later. (The compiled twin runs no Python
while it holds one.)"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from patience import eventually
from pure_rig import TOPIC, Rig, rigs, running_broker
from strikes import Strike

from fastprod import _pure, errors

broker = pytest.fixture(name="broker")(running_broker)
rig = pytest.fixture(name="rig")(rigs)

FOLDER = str(Path(_pure.__file__).parent)
CALLS = ["send", "add_callback", "get", "flush", "stats"]


class Call(Strike):
    """Calls a function where `Strike` would raise."""

    def __init__(self, number: int, function: Callable[[], object]) -> None:
        super().__init__(number, FOLDER)
        self._function = function

    def _come_by(self, frame: FrameType) -> None:
        try:
            super()._come_by(frame)
        except KeyboardInterrupt:
            sys.settrace(None)
            self._function()


def act(made: Rig, what: str, value: bytes) -> None:
    """A call that the other one comes in the middle of."""
    future = made.send(value)
    if what == "add_callback":
        future.add_callback(lambda _: None)
    elif what == "get":
        future.get(20)
    elif what == "flush":
        assert made.plane.flush(20)
    elif what == "stats":
        made.plane.stats()


@pytest.mark.parametrize("what", CALLS)
def test_it_sends_wherever_it_may_run(rig: Callable[..., Rig], what: str) -> None:
    """Everything is delivered once, and told of."""
    made = rig(leaders=[1, 1], batch_size=150)
    told: list[Any] = []
    inner: list[Any] = []
    for number in itertools.count(1):
        call = Call(number, lambda: inner.append(made.send(b"inner %d" % len(inner)).add_callback(told.append)))
        with call:
            act(made, what, b"outer %d" % number)
        if call.place is None:
            break
        assert inner[-1].get(20).topic_partition.topic == TOPIC, call.place
    assert len(inner) == number - 1 > 30
    assert made.plane.flush(20)
    written = [value for sent in made.broker.sent for value in sent.values]
    assert len(written) == len(set(written)) == 2 * len(inner) + 1
    assert told == [each.get(1) for each in inner]
    eventually(lambda: made.plane.counters()["memory_used"] == 0)


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("waits", ["get", "flush"])
def test_it_waits(rig: Callable[..., Rig], what: str, waits: str) -> None:
    """Where that would be for ever it is told so."""
    made = rig(batch_size=150)
    before = made.send(b"before")
    refused: list[str] = []

    def wait() -> None:
        try:
            if waits == "flush":
                assert made.plane.flush(20)
            else:
                made.send(b"inner").get(20)
        except errors.IllegalStateError as error:
            refused.append(error.args[0])

    for number in itertools.count(1):
        call = Call(number, wait)
        with call:
            act(made, what, b"outer")
        if call.place is None:
            break
    assert 0 < len(refused) < number - 1
    told = f"{waits}() was called by a signal handler"
    assert [each for each in refused if not each.startswith(told)] == []
    assert before.get(20).offset == 0


def locked(made: Rig, lock: Any) -> Any:
    """What a send under that lock returns, as that of a finalizer which runs there would."""
    with lock:
        return made.send(b"late").add_callback(lambda _: None)


@pytest.mark.parametrize("which", ["core", "registry", "pool"])
def test_it_runs_on_a_thread_that_ends_batches(rig: Callable[..., Rig], which: str) -> None:
    """What is sent next comes behind it."""
    made = rig()
    core = made.plane.core
    lock = {"core": core.lock, "registry": core.registry, "pool": core.pool.lock}[which]
    future = locked(made, lock)
    behind = made.send(b"behind")
    assert (future.get(20).offset, behind.get(20).offset) == (0, 1)
    assert not core.late


def test_it_runs_on_the_io_thread(rig: Callable[..., Rig]) -> None:
    """There it waits for nothing at all, memory least: that comes back by this very thread."""
    found: list[Any] = []

    taken = SimpleNamespace(charge=0)

    def compress(body: bytes) -> bytes:
        if not found:
            assert pool.try_take(pool.budget - pool.charged, taken)
            found.append(made.send(bytes(2_000)))  # more than what is in this batch, which ends soon
        return bytes(body)

    made = rig(codec=1, compress=compress)
    pool = made.plane.core.pool
    assert made.send(bytes(200), partition=0).get(20).offset == 0
    with pytest.raises(errors.KafkaTimeoutError, match="No room"):
        found[0].get(20)
    pool.give(taken.charge, taken)


def test_it_is_closed_before_it_is_placed(rig: Callable[..., Rig]) -> None:
    made = rig()
    told: list[Any] = []
    with made.plane.core.lock:
        future = made.send(b"late").add_errback(told.append)
        made.plane.close_appends()
    with pytest.raises(errors.IllegalStateError, match="closed"):
        future.get(20)
    eventually(lambda: len(told) == 1)
    assert not made.broker.sent


@pytest.mark.parametrize("how", [{"partition": 1}, {"key": b"k"}, {}])
def test_where_it_goes(rig: Callable[..., Rig], how: dict[str, Any]) -> None:
    """To the partition that it would have gone to, the caller's partitioner is asked at once."""
    asked: list[int] = []

    def choose(*_: Any) -> int:
        asked.append(threading.get_ident())
        return 2

    made = rig(leaders=[1, 1, 1], mode=_pure.PARTITION_CUSTOM, partitioner=choose)
    with made.plane.core.lock:
        future = made.send(b"late", **how)
        called = list(asked)
    assert called == ([] if "partition" in how else [threading.get_ident()])
    assert asked == called
    assert future.get(20).partition == how.get("partition", 2)


def test_a_partition_that_is_not_there(rig: Callable[..., Rig]) -> None:
    made = rig()
    with made.plane.core.lock, pytest.raises(ValueError, match="Unrecognized partition 5"):
        made.send(b"late", partition=5)


def test_many_at_once(rig: Callable[..., Rig]) -> None:
    made = rig()
    with made.plane.core.lock:
        future = made.producer.send_many(TOPIC, [b"1", b"2", b"3"])
    assert list(future.get(20).offsets) == [0, 1, 2]
