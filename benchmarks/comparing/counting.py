"""Counts what was acknowledged, in the cheapest way Python has, and times how long things take."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any

# Records that are sent now and then: seconds between two of them. Each is long acknowledged when the next one comes,
# and none is in step with whatever else wakes up.
_PAUSE_S = (0.002, 0.005)
_STAMP_BYTES = 8
_PERCENTILES = (0.5, 0.99, 0.999)


def waits(send: Callable[[str, bytes, bytes], Any], records: Iterable[tuple[str, bytes, bytes]]) -> list[float]:
    """`send().get()` for one (topic, value, key) after the other; seconds of each."""
    clock, taken = time.perf_counter, []
    for topic, value, key in records:
        began = clock()
        send(topic, value, key).get()
        taken.append(clock() - began)
    return taken


def now_and_then(
    send: Callable[[str, bytes, bytes], Any],
    records: Iterable[tuple[str, bytes, bytes]],
    served: Callable[[], Any] = lambda: None,
) -> list[Any]:
    """Send the records with pauses between them, each with its time where its value begins; what the calls returned.

    Beside threads that compute a pause ends when the interpreter is had again. The time is taken only then, and from
    there to the client's own code there are a few steps: what is measured is the client's. `served`: called behind
    each.
    """
    clock, pause, chance = time.time_ns, time.sleep, random.Random(1)
    returned = []
    for topic, value, key in records:
        rest = value[_STAMP_BYTES:]
        pause(chance.uniform(*_PAUSE_S))
        returned.append(send(topic, clock().to_bytes(_STAMP_BYTES, "big") + rest, key))
        served()
    return returned


def percentiles_ms(seconds: Iterable[float]) -> tuple[float, ...]:
    """p50, p99 and p99.9."""
    ordered = sorted(seconds)
    return tuple(1e3 * ordered[int(part * (len(ordered) - 1))] for part in _PERCENTILES)


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
