"""Two threads at the same thing in the Python twin, the second between any two instructions of the first."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import interleaved
import pytest
from interleaved import Case

from fastprod import _pure, config, errors
from fastprod._pure.core import Core

# It does not depend on the twin that the tests run on.
pytestmark = pytest.mark.pure_only

TOPIC = "topic"
everywhere = functools.partial(interleaved.everywhere, str(Path(_pure.__file__).parent))


class Rig:
    """A plane whose I/O thread was never started, with a topic, and a producer on it."""

    def __init__(self, event_fd: int) -> None:
        self.plane = _pure.DataPlane(config.load({"linger_ms": 60_000}).plane_options(), event_fd)
        self.core: Core = self.plane.core
        self.route = self.plane.set_topic(TOPIC, None, [0, 0])
        self.producer = _pure.ProducerBase()
        engine: Any = None
        self.producer._bind(self.plane, engine, None, None, _pure.PARTITION_DEFAULT, None, None)

    def pending(self) -> Any:
        return self.producer.send(TOPIC, b"value", b"key")

    def end(self) -> None:
        """All that was sent fails."""
        self.plane.fail_queued(errors.KafkaTimeoutError("the end"))
        while self.plane.run_callbacks():
            pass


@pytest.fixture
def rig() -> Iterator[Rig]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    made = Rig(ours.fileno())
    yield made
    made.plane.close_appends()
    made.plane.abort(lambda: errors.IllegalStateError("the end"))
    while made.plane.run_callbacks():
        pass
    ours.close()
    theirs.close()


def test_only_one_ends_a_future_by_hand(rig: Rig) -> None:
    def case() -> Case:
        future = rig.pending()
        won: list[int] = []

        def end(number: int) -> None:
            try:
                future.success(number)
            except errors.IllegalStateError:
                return
            won.append(number)

        def check() -> None:
            assert won == [future.value]

        return lambda: end(1), lambda: end(2), check

    everywhere(case)


def test_a_callback_is_told_how_it_ended_by_hand(rig: Rig) -> None:
    def case() -> Case:
        future = rig.pending()
        called: list[object] = []

        def check() -> None:
            rig.end()
            assert called == [2]

        return lambda: future.add_both(called.append), lambda: future.success(2), check

    everywhere(case)


def test_a_failure_is_one_object_and_read_once(rig: Rig) -> None:
    def case() -> Case:
        future, unseen = rig.pending(), rig.pending()
        rig.end()
        seen: list[Any] = []

        def check() -> None:
            assert seen == [future.exception] * 2
            assert rig.plane.stats()[0]["unread_failures"] == 1
            assert unseen.failed()

        look = lambda: seen.append(future.exception)   # noqa: E731
        return look, look, check

    everywhere(case)


def test_a_future_that_is_ended_by_hand_does_not_fail_as_well(rig: Rig) -> None:
    """It is looked at, and ended by hand just before its batch fails."""
    def case() -> Case:
        future = rig.pending()

        def other() -> None:
            future.success(2)
            rig.end()

        def check() -> None:
            assert (future.value, future.exception, future.succeeded()) == (2, None, True)

        return lambda: future.exception, other, check

    everywhere(case)


def test_who_was_told_of_failures_is_counted(rig: Rig) -> None:
    def case() -> Case:
        failed = rig.pending(), rig.pending()
        rig.end()

        def check() -> None:
            assert rig.plane.stats()[0]["unread_failures"] == 0

        return lambda: failed[0].exception, lambda: failed[1].exception, check

    everywhere(case)


def test_a_topic_that_is_sent_to_is_in_use(rig: Rig) -> None:
    def case() -> Case:
        rig.route.take_used()
        told: list[bool] = []

        def check() -> None:
            assert told[0] or rig.route.take_used()

        return lambda: told.append(rig.route.take_used()), rig.route.mark_used, check

    everywhere(case)


def test_keyless_records_have_a_partition_while_leaders_change(rig: Rig) -> None:
    def case() -> Case:
        rig.plane.set_topic(TOPIC, None, [0, 0])
        slot = rig.route.sticky_slot()
        others = [0, 0]
        others[slot.partition.index] = -1
        chosen: list[Any] = []

        def check() -> None:
            assert chosen[0] is not None
            assert rig.route.sticky_slot().partition.leader == 0

        return (lambda: chosen.append(rig.route.move_sticky(None)),
                lambda: rig.plane.set_topic(TOPIC, None, others), check)

    everywhere(case)


def test_no_flush_is_forgotten(rig: Rig) -> None:
    """The later of two does not become the earlier one, or what it waits for would linger."""
    def case() -> Case:
        began: list[float] = []

        def flush() -> None:
            began.append(time.monotonic())
            rig.plane.flush(0)

        def check() -> None:
            assert rig.core.flush_until >= max(began)

        return flush, flush, check

    everywhere(case)


def test_no_urge_is_lost(rig: Rig) -> None:
    def case() -> Case:
        rig.core.take_urge()
        told: list[bool] = []

        def check() -> None:
            assert told[0] or rig.core.take_urge()

        return lambda: told.append(rig.core.take_urge()), rig.core.urge, check

    everywhere(case)
