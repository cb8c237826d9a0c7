"""Tells engines, in a forked child, that this is one.

A fork copies the memory of the whole process and one of its threads. What the other threads were
in the middle of stays there for good, locks included, so an engine is not mended in the child: it
is left alone, and whoever uses its producer next gets a new one.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inheritable(Protocol):
    """What can find itself in a forked child."""

    def inherited(self) -> None:
        """Called in the child, before the fork returns there. Must take no lock."""


_watched: dict[int, weakref.ref[Inheritable]] = {}


def watch(each: Inheritable) -> None:
    """Have `each.inherited()` called in every child that is forked while `each` exists."""
    number = id(each)
    _watched[number] = weakref.ref(each, lambda _: _watched.pop(number, None))


def forget(each: Inheritable) -> None:
    """It has ended: there is nothing to inherit."""
    _watched.pop(id(each), None)


def _in_child() -> None:
    inherited = [each() for each in list(_watched.values())]
    _watched.clear()
    for each in inherited:
        if each is not None:
            each.inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
