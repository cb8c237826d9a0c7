"""A signal's handler that raises leaves nothing half done, wherever it strikes.

Each place in `_pure/` where one can run, and that a call comes by, gets a KeyboardInterrupt, one after the other.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from patience import eventually
from pure_rig import Answer, Rig, Sent, rigs, running_broker
from strikes import Strike

from fastprod import _pure, waiting

broker = pytest.fixture(name="broker")(running_broker)
rig = pytest.fixture(name="rig")(rigs)

FOLDER = str(Path(_pure.__file__).parent)
def nothing(*_: object) -> None: ...


def struck_everywhere(
    rig: Rig,
    prepare: Callable[[bytes], object] = nothing,
    act: Callable[[bytes], object] | None = None,
    settle: Callable[[], object] = nothing,
) -> None:
    """Strike `act`, which is `send` if not said, at each place it comes by. What was accepted by then, and what is sent
    before and behind it, is delivered once, and all memory comes back.

    `prepare` comes before it, and `settle` when all is to leave that would wait."""
    act = act or rig.send
    sure: set[bytes] = set()
    for number in itertools.count(1):
        value = b"%d" % number
        prepare(value)
        strike = Strike(number, FOLDER)
        try:
            with strike:
                act(value)
        except KeyboardInterrupt:
            assert strike.place is not None
        else:
            sure.add(value)
        settle()
        eventually(lambda: rig.plane.incomplete() == 0 == rig.plane.counters()["memory_used"], str(strike.place))
        written = [value for sent in rig.broker.sent for value in sent.values]
        assert rig.plane.counters()["records_appended"] == len(written) == len(set(written)), strike.place
        behind = rig.send(b"behind " + value)
        settle()
        assert behind.get(20).offset >= 0, strike.place
        sure.add(b"behind " + value)
        if strike.place is None:
            break
    assert number > 4   # CPython 3.14 shows a third of the places that 3.11 does
    assert sure <= {value for sent in rig.broker.sent for value in sent.values}


def test_in_a_new_batch(rig: Callable[..., Rig]) -> None:
    """Nobody calls again: what was accepted leaves by itself."""
    struck_everywhere(rig())


def test_in_an_open_batch_that_grows(rig: Callable[..., Rig]) -> None:
    made = rig(linger_ms=60_000)
    struck_everywhere(
        made,
        lambda value: made.send(b"before " + value),
        lambda value: made.send(value, headers=[("h", bytes(3000))]),
        lambda: made.plane.flush(20),
    )


def test_in_a_full_batch_and_a_sticky_slot_that_moves(rig: Callable[..., Rig]) -> None:
    made = rig(leaders=[1, 1, 1], batch_size=100, linger_ms=60_000)
    struck_everywhere(
        made,
        lambda value: made.send(b"before " + value),
        lambda value: made.send(value, headers=[("h", bytes(100))]),
        lambda: made.plane.flush(20),
    )


def test_while_it_waits_for_memory(rig: Callable[..., Rig]) -> None:
    made = rig()
    pool = made.plane.core.pool

    def take_all(_: bytes) -> None:
        taken = SimpleNamespace(charge=0)
        # Whoever waits for a batch is told before its memory is back.
        eventually(lambda: pool.try_take(pool.budget, taken))
        threading.Timer(0.002, pool.give, (pool.budget, taken)).start()

    struck_everywhere(made, take_all)


@pytest.mark.parametrize("by_hand", [False, True])
def test_while_a_callback_is_registered(rig: Callable[..., Rig], by_hand: bool) -> None:
    """What it takes is owed exactly as long as it is kept."""
    made = rig(linger_ms=60_000)
    futures: list[Any] = []
    pool = made.plane.core.pool

    def settle() -> None:
        assert made.plane.flush(20)
        eventually(lambda: pool.owed == 0, f"{pool.owed} bytes are owed")

    def act(_: bytes) -> None:
        futures[-1].add_callback(nothing)
        if by_hand:
            futures[-1].success("mine")

    def prepare(value: bytes) -> None:
        futures.append(made.send(value).add_callback(nothing))

    struck_everywhere(made, prepare, act, settle)


@pytest.mark.parametrize("what", ["get", "flush"])
def test_while_it_waits_for_the_answer(rig: Callable[..., Rig], what: str) -> None:
    """Those who end the wait do not find a lock that nobody opens any more."""
    made = rig()
    futures: list[Any] = []

    def answer_late(_: Sent) -> Answer:
        time.sleep(0.002)
        return Answer()

    made.broker.script = answer_late
    struck_everywhere(
        made,
        lambda value: futures.append(made.send(value)),
        lambda _: futures[-1].get(20) if what == "get" else made.plane.flush(20),
    )


@pytest.mark.parametrize("twin", ["fastprod._pure", pytest.param("fastprod._core", marks=pytest.mark.native_only)])
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that sends a signal here")
def test_a_storm_of_signals(rig: Callable[..., Rig], twin: str) -> None:
    """Real ones, at any time, and either twin."""
    made = rig(twin=importlib.import_module(twin), batch_size=2000, buffer_memory=20_000)
    chance = random.Random(7)
    sure: set[bytes] = set()
    sending = False
    struck = 0

    def handle(*_: object) -> None:
        if sending:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handle)
    try:
        for number in range(200_000):
            if struck == 200:
                break
            value = b"%d" % number
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 4e-5))
                sending = True
                made.send(value)
                sending = False
                sure.add(value)
            except KeyboardInterrupt:
                sending = False
                struck += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert made.plane.flush(20)
    assert struck == 200
    written = [value for sent in made.broker.sent for value in sent.values]
    assert made.plane.counters()["records_appended"] == len(written) == len(set(written))
    assert sure <= set(written)


def is_free(lock: Any) -> bool:
    """Whether another thread could take it."""
    free: list[bool] = []

    def look() -> None:
        free.append(lock.acquire(blocking=False))
        if free[0]:
            lock.release()

    other = threading.Thread(target=look)
    other.start()
    other.join()
    return free[0]


@pytest.mark.parametrize("kind", [waiting.Lock, waiting.RLock])
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that sends a signal here")
def test_a_lock_is_given_back_wherever_a_signal_strikes(kind: Callable[[], Any]) -> None:
    lock = kind()
    chance = random.Random(7)
    inside = False

    def handle(*_: object) -> None:
        if inside:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(300):
            with contextlib.suppress(KeyboardInterrupt):
                inside = True
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 4e-5))
                while True:
                    with lock:
                        pass
            inside = False
            assert is_free(lock)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("is_open", [False, True])
def test_a_gate_that_was_struck_lets_others_pass(is_open: bool) -> None:
    for number in itertools.count(1):
        gate = waiting.Gate()
        if is_open:
            gate.open()
        strike = Strike(number, waiting.__file__, rehearse=functools.partial(waiting.Gate().wait, 0))
        with contextlib.suppress(KeyboardInterrupt), strike:
            gate.wait(0.001)
        if not is_open:
            gate.open()
        passed = threading.Thread(target=gate.wait, args=(60,))
        passed.start()
        passed.join(30)
        assert not passed.is_alive(), strike.place
        if strike.place is None:
            break
    assert number > 2
