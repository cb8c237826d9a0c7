"""Counts what was acknowledged, in the cheapest way Python has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def counter() -> tuple[Callable[[Any], None], Callable[[], int]]:
    """A callback for one argument, and a function that says how often it was called."""
    count = 0

    def called(_result: Any) -> None:
        nonlocal count
        count += 1

    return called, lambda: count


def delivery_counter() -> tuple[Callable[[Any, Any], None], Callable[[], int]]:
    """The same for confluent-kafka's callback of (error, message); errors are not counted."""
    count = 0

    def called(error: Any, _message: Any) -> None:
        nonlocal count
        if error is None:
            count += 1

    return called, lambda: count
