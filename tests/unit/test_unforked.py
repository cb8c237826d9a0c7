"""Forks, and steps that they must not come into the middle of."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from patience import eventually, in_time

from fastprod import unforked
from fastprod.unforked import Unforked

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()"),
    pytest.mark.native_only,   # concerns neither twin
]

# kafka-python takes its time, in a thread that needs an error; then a child needs one, which may not find it half read.
IMPORTS = """
import importlib.abc, importlib.util, os, sys, threading, time

class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name in ("kafka", "kafka.errors"):
            return importlib.util.spec_from_loader(name, self, is_package=name == "kafka")

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        began.set()
        time.sleep(0.3)
        logging.getLogger(module.__name__)   # takes a lock that is held during a fork

began = threading.Event()
sys.meta_path.insert(0, Slow())
from fastprod import errors
import logging   # its hooks are behind those of fastprod, if that has not seen to it

def beside(work, *given):
    thread = threading.Thread(target=work, args=given, daemon=True)
    thread.start()
    return thread

parents = beside(errors.for_code, 14)
assert began.wait(20)
child = os.fork()
if child == 0:
    for _ in range(3):
        beside(time.sleep, 60)   # one of these has the memory, and so the ident, of the parent's
    mine = beside(errors.for_code, 14)
    mine.join(10)
    os._exit(mine.is_alive())
parents.join(20)
print(parents.is_alive(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_kafka_python_is_imported_in_one_piece() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "False 0\n", done.stderr


def beside(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def fork() -> int:
    """Fork, and return how many steps the child thinks are under way."""
    child = os.fork()
    if child == 0:
        os._exit(99 if unforked._forking else len(unforked._busy))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_fork_waits_for_all_of_a_step() -> None:
    """And what is within a step, and begins when the fork is waiting, does not wait for that."""
    began = threading.Event()
    told: list[str] = []

    def step() -> None:
        with Unforked(30):
            began.set()
            eventually(lambda: unforked._forking)
            with Unforked(0):
                told.append("inner")
            time.sleep(0.1)
            told.append("outer")

    thread = beside(step)
    assert began.wait(20)
    assert fork() == 0
    told.append("forked")
    thread.join(20)
    assert told == ["inner", "outer", "forked"]


def test_a_step_waits_for_a_fork() -> None:
    holds, began = threading.Event(), threading.Event()
    told: list[str] = []

    def first() -> None:
        with Unforked(30):
            holds.set()
            assert began.wait(20)
            time.sleep(0.1)
            told.append("first")

    def second() -> None:
        eventually(lambda: unforked._forking)
        began.set()
        with Unforked(30):
            told.append("second")

    threads = [beside(first), beside(second)]
    assert holds.wait(20)
    assert fork() == 0
    for each in threads:
        each.join(20)
    assert told == ["first", "second"]


def test_a_step_that_takes_too_long_is_not_waited_for() -> None:
    began, end = threading.Event(), threading.Event()

    def step() -> None:
        with Unforked(0.1):
            began.set()
            end.wait(60)

    thread = beside(step)
    assert began.wait(20)
    assert fork() == 0
    assert thread.is_alive()
    end.set()
    thread.join(20)


def test_a_step_may_fork() -> None:
    with Unforked(30):
        assert fork() == 1, "the child is in it as well"
    assert fork() == 0


def test_a_step_that_raises_has_ended() -> None:
    with pytest.raises(KeyError), Unforked(30), Unforked(30):
        raise KeyError
    assert threading.get_ident() not in unforked._busy


@pytest.mark.parametrize("left", [None, -1.0], ids=["nothing", "what is left of a step that a signal interrupted"])
def test_a_fork_does_not_end_that_of_another_thread(monkeypatch: pytest.MonkeyPatch, left: float | None) -> None:
    now = time.monotonic()
    monkeypatch.setitem(unforked._forking, -1, now + 0.3)   # no thread has this ident
    assert fork() == 0
    if left is not None:
        monkeypatch.setitem(unforked._busy, threading.get_ident(), now + left)
    with Unforked(30):
        assert time.monotonic() >= now + 0.3


def test_a_step_waits_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(unforked._forking, -1, time.monotonic() + 60)
    with in_time("a fork under way", 1.0, at_least_s=1.0), Unforked(30):
        pass
