"""One connection without any cost, to tell rules for partial batches apart where a machine's noise would hide it.

Records come at random, everything that waits leaves in one request, and each answer comes one round trip after its
request, which is the unit of time here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from comparing.report import aligned

MOST_IN_FLIGHT = 5
_RATES = (0.5, 5, 30, 100, 1000)
_ROUND_TRIPS = 400
_LEAST_RECORDS = 20_000


class State(NamedTuple):
    """What a rule sees: when the last request left, when the oldest waiting record came, how many are in flight."""

    last_write: float
    created: float
    in_flight: int


Rule = Callable[[State], float]


def waiting(part: float) -> Rule:
    """A part of a round trip from the first record on, whatever is in flight."""
    return lambda state: state.created + part


def evenly(state: State) -> float:
    """As far from the last request as makes all of them last for a round trip."""
    return state.last_write + 1 / MOST_IN_FLIGHT


def spread(part: float) -> Rule:
    """`waiting` while half of the requests are left, `evenly` as well from there on."""

    def due(state: State) -> float:
        leaves = waiting(part)(state)
        return leaves if 2 * state.in_flight <= MOST_IN_FLIGHT else max(leaves, evenly(state))

    return due


RULES: dict[str, Rule] = {
    "1/16 of the round trip": waiting(1 / 16),
    "1/8": waiting(1 / 8),
    "1/4": waiting(1 / 4),
    "1/2": waiting(1 / 2),
    "1/8, at most 0.5 of 10 ms": waiting(0.05),
    "1/8, at most 0.5 of 100 ms": waiting(0.005),
    "always 1/5 after the last one": evenly,
    "1/16, the last ones spread": spread(1 / 16),
    "1/8, the last ones spread": spread(1 / 8),
    "1/4, the last ones spread": spread(1 / 4),
    "1/2, the last ones spread": spread(1 / 2),
    "at most 0.25 of 10 ms, spread": spread(0.025),
    "at most 0.5 of 10 ms, spread": spread(0.05),
    "at most 1 of 10 ms, spread": spread(0.1),
    "at most 0.5 of 100 ms, spread": spread(0.005),
}


def table() -> str:
    """How long records wait before they leave, average / p99, by how many come in a round trip."""
    rows = [("waiting, in round trips", *(f"{rate:,g} a round trip" for rate in _RATES))]
    for name, rule in RULES.items():
        rows.append((name, *("{:.2f} / {:.2f}".format(*waits(rule, rate)) for rate in _RATES)))
    return aligned(rows)


def waits(rule: Rule, rate: float, seed: int = 1) -> tuple[float, float]:
    """Average and p99 of the time that records wait, with `rate` of them in a round trip."""
    chance = random.Random(seed)
    left = max(_LEAST_RECORDS, round(rate * _ROUND_TRIPS))
    coming = chance.expovariate(rate)
    queue: list[float] = []
    in_flight: deque[float] = deque()
    taken: list[float] = []
    last_write = now = float("-inf")
    while left or queue:
        answer = in_flight[0] + 1 if in_flight else float("inf")
        leaves = float("inf")
        if queue and len(in_flight) < MOST_IN_FLIGHT:
            leaves = max(now, rule(State(last_write, queue[0], len(in_flight)))) if in_flight else now
        arrival = coming if left else float("inf")
        now = min(answer, arrival, leaves)
        if now == answer:
            in_flight.popleft()
        elif now == arrival:
            queue.append(now)
            left -= 1
            coming = now + chance.expovariate(rate)
        else:
            taken += [now - each for each in queue]
            queue.clear()
            in_flight.append(now)
            last_write = now
    taken.sort()
    return sum(taken) / len(taken), taken[len(taken) * 99 // 100]
