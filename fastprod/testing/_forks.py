"""Keeping a forked child from holding open what its parent closes."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod

_FREEZE_S = 1.0


class Forgotten(ABC):
    """Owns descriptors that a forked child must not keep: while it does, nothing the parent closes is closed.

    `working` is held by the thread that opens and closes them, so that a fork comes between two of its steps and a
    descriptor that is just being made is not missed.
    """

    def __init__(self) -> None:
        self.working = threading.RLock()
        _ALL.add(self)

    @abstractmethod
    def forget(self) -> None:
        """Close all copies; called in the child, where no other thread is."""


_ALL: weakref.WeakSet[Forgotten] = weakref.WeakSet()
_frozen: list[Forgotten] = []


def _before() -> None:
    # Not for ever: what the thread is in the middle of may be waiting for the one that forks.
    _frozen.extend(each for each in list(_ALL) if each.working.acquire(timeout=_FREEZE_S))


def _after_in_parent() -> None:
    while _frozen:
        _frozen.pop().working.release()


def _after_in_child() -> None:
    _frozen.clear()
    for each in list(_ALL):
        each.working = threading.RLock()
        each.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
