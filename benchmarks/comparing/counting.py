"""Counts what was acknowledged, in the cheapest way Python has, and times how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any


def waits(send: Callable[[str, bytes, bytes], Any], records: Iterable[tuple[str, bytes, bytes]]) -> list[float]:
    """`send().get()` for one (topic, value, key) after the other; seconds of each."""
    clock, taken = time.perf_counter, []
    for topic, value, key in records:
        began = clock()
        send(topic, value, key).get()
        taken.append(clock() - began)
    return taken


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
