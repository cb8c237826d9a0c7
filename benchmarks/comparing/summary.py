"""From runs to figures: medians with spread, and ratios formed inside a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import NamedTuple

from comparing.bench import Run

Round = dict[str, Run]


class Spread(NamedTuple):
    """The median of a figure over the rounds, with the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread | None:
        """None without figures."""
        found = list(figures)
        return cls(median(found), min(found), max(found)) if found else None

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.low:{form}}-{self.high:{form}})"


def figures(rounds: list[Round], contender: str, figure: Callable[[Run], float]) -> Spread | None:
    """A figure of one contender over its runs that count."""
    return Spread.of(figure(run) for run in _runs(rounds, contender))


def ratios(rounds: list[Round], contender: str, base: str, figure: Callable[[Run], float]) -> Spread | None:
    """A figure of one contender relative to that of another in the same round.

    The machine and the broker change speed from round to round, for all contenders alike: that is why the ratios are
    formed first and the median is taken of them.
    """
    pairs = [
        (one[contender], one[base])
        for one in rounds
        if contender in one and base in one and not one[contender].void and not one[base].void
    ]
    return Spread.of(figure(run) / figure(other) for run, other in pairs if figure(other))


def voids(rounds: list[Round]) -> list[Run]:
    """The runs that do not count."""
    return [run for one in rounds for run in one.values() if run.void]


def _runs(rounds: list[Round], contender: str) -> list[Run]:
    return [one[contender] for one in rounds if contender in one and not one[contender].void]
