"""What is asked of fastprod, and of the C limit that it is held against: ratios within one run, and a few figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from comparing.bench import Run
from comparing.contenders import (
    ARROW,
    C_LIMIT,
    CALLBACK,
    CEILING,
    CONFLUENT,
    CONFLUENT_BATCH,
    CONTENDERS,
    FUTURES,
    MANY,
    MEMORY_LIMIT,
    SEND,
)
from comparing.job import LATENCY, MEMORY, Case
from comparing.summary import Round, Spread, figures, ratios


class Goal(NamedTuple):
    """`figure` of the contender, relative to that of `base` where there is one, is at least `limit`, or at most."""

    what: str
    figure: Callable[[Run], float]
    base: str | None
    limit: float
    at_most: bool = False


class Judged(NamedTuple):
    """How a contender stands to what is asked of it. `met` is None where it cannot be told."""

    contender: str
    words: str
    met: bool | None

    def __str__(self) -> str:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        return f"{verdict:12}  {CONTENDERS[self.contender].title}: {self.words}"


def _rate(base: str, limit: float) -> Goal:
    return Goal("rate", lambda run: run.rate, base, limit)


def _cpu(base: str | None, limit: float) -> Goal:
    return Goal("CPU us a record" if base is None else "CPU", lambda run: run.cpu_us, base, limit, at_most=True)


def _percentile(place: int, name: str) -> Goal:
    return Goal(name, lambda run: run.latency_ms[place], CONFLUENT, 1.0, at_most=True)


def _queued(limit: float) -> Goal:
    return Goal("bytes of memory a queued record", lambda run: run.queued_bytes, None, limit, at_most=True)


# All groups of a contender must be met; a group is met by one of its goals.
Groups = tuple[tuple[Goal, ...], ...]

_BROKER: dict[str, Groups] = {
    FUTURES: ((_rate(CEILING, 0.90), _rate(CONFLUENT, 3.5)), (_cpu(CONFLUENT, 1 / 5),)),
    CALLBACK: ((_rate(CEILING, 0.85), _rate(CONFLUENT, 3.0)), (_cpu(CONFLUENT, 1 / 4),)),
    MANY: ((_rate(CEILING, 0.92), _rate(CONFLUENT_BATCH, 2.0)),),
}
_SINK: dict[str, Groups] = {
    C_LIMIT: ((_rate(MEMORY_LIMIT, 0.70),),),
    FUTURES: ((_rate(CONFLUENT, 4.5),), (_cpu(None, 0.30),)),
    CALLBACK: ((_rate(CONFLUENT, 2.7),), (_cpu(None, 0.50),)),
    MANY: ((_rate(CONFLUENT_BATCH, 10.0),), (_cpu(None, 0.10),)),
    ARROW: ((_rate(MANY, 1.0),), (_rate(C_LIMIT, 0.60),)),
}
_COMPRESSED: Groups = (
    (_rate(CONFLUENT, 2.5),),
    (Goal("stored bytes", lambda run: run.stored, CONFLUENT, 1.03, at_most=True),),
)
_LATENCY: dict[str, Groups] = {FUTURES: ((_percentile(0, "p50"),), (_percentile(1, "p99"),))}
_MEMORY: dict[str, Groups] = {SEND: ((_queued(125),),), FUTURES: ((_queued(125 + 65),),)}

# CPU a record may grow by this much from the first case to another one.
_GROWTH_OF_RECORDS = 1.20
_GROWTH_OF_PARTS = 1.50

# Beside threads that compute a record may take so many times what it takes alone, and so many ms more.
_ARRIVAL_FACTOR, _ARRIVAL_MS = 2, 1.0


def judged(case: Case, rounds: list[Round], kind: str, sink: bool) -> list[Judged]:
    """How each contender stands that something is asked of in this case."""
    return [_judged(rounds, name, groups) for name, groups in _asked(case, kind, sink).items() if name in CONTENDERS]


def growth(first: tuple[Case, list[Round]], other: tuple[Case, list[Round]], name: str) -> Judged | None:
    """How CPU a record grew from one case to another; rounds are paired, as in all ratios."""
    pairs = [
        {"first": before[name], "other": after[name]}
        for before, after in zip(first[1], other[1], strict=True)
        if name in before and name in after
    ]
    grown = ratios(pairs, "other", "first", lambda run: run.cpu_us)
    if grown is None:
        return None
    limit = _limit(first[0], other[0]) if name.startswith("fastprod") else None
    asked = "" if limit is None else f" (asked: at most {limit:.2f})"
    words = f"CPU a record {grown:.2f} of that of the first case{asked}"
    return Judged(name, words, None if limit is None else grown.median <= limit)


def judged_arrival(alone: list[Round], beside: list[Round]) -> list[Judged]:
    """How long records take to the server beside threads that compute, relative to what they may take; of fastprod."""
    pairs = [
        {"alone": one[FUTURES], "beside": other[FUTURES]}
        for one, other in zip(alone, beside, strict=True)
        if FUTURES in one and FUTURES in other and not one[FUTURES].void and not other[FUTURES].void
    ]
    if not any(FUTURES in one for one in alone):
        return []
    share = Spread.of(
        pair["beside"].latency_ms[1] / (_ARRIVAL_FACTOR * pair["alone"].latency_ms[1] + _ARRIVAL_MS) for pair in pairs
    )
    shown = "-" if share is None else f"{share:.2f}"
    most = f"{_ARRIVAL_FACTOR} x alone + {_ARRIVAL_MS:g} ms"
    words = f"p99 of arrival beside threads {shown} of {most} (asked: at most 1.00)"
    return [Judged(FUTURES, words, None if share is None else share.median <= 1)]


def _limit(first: Case, other: Case) -> float | None:
    same = other._replace(partitions=first.partitions, topics=first.topics)
    if same == first:
        return _GROWTH_OF_PARTS
    return _GROWTH_OF_RECORDS if other._replace(records=first.records) == first else None


def _asked(case: Case, kind: str, sink: bool) -> dict[str, Groups]:
    usual = Case(busy=case.busy, compression=case.compression, level=case.level, records=case.records)
    if case != usual:
        return {}
    if kind == LATENCY:
        return _LATENCY
    if kind == MEMORY:
        return _MEMORY
    if case.compression is not None:
        named = case.compression in ("lz4", "zstd") and not sink
        return {FUTURES: _COMPRESSED, CALLBACK: _COMPRESSED} if named else {}
    return _SINK if sink else _BROKER


def _judged(rounds: list[Round], name: str, groups: Groups) -> Judged:
    told, met = [], []
    for group in groups:
        found = [(goal, _figure(rounds, name, goal)) for goal in group]
        told.append(" or ".join(_words(goal, figure) for goal, figure in found))
        known = [_reached(goal, figure) for goal, figure in found if figure is not None]
        # One that was reached is enough; one that was missed is not enough to tell where others are unknown.
        met.append(True if any(known) else False if len(known) == len(group) else None)
    verdict = False if False in met else None if None in met else True
    return Judged(name, "; ".join(told), verdict)


def _figure(rounds: list[Round], name: str, goal: Goal) -> Spread | None:
    if goal.base is None:
        return figures(rounds, name, goal.figure)
    return ratios(rounds, name, goal.base, goal.figure)


def _reached(goal: Goal, figure: Spread) -> bool:
    return figure.median <= goal.limit if goal.at_most else figure.median >= goal.limit


def _words(goal: Goal, figure: Spread | None) -> str:
    of = "" if goal.base is None else f" of {goal.base}"
    shown = "-" if figure is None else f"{figure:.2f}"
    return f"{goal.what} {shown}{of} (asked: at {'most' if goal.at_most else 'least'} {goal.limit:.2f})"
