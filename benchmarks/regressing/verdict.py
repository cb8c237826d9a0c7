"""Ratios of two sides, and which of them are regressions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

# Past the limit in the middle may be chance; past it in so many of the rounds is not.
AGREEING = 2 / 3


class Ratio(NamedTuple):
    """How many times as long HEAD takes as BASE in one benchmark, round by round."""

    benchmark: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.rounds)

    def is_past(self, limit: float) -> bool:
        """Whether it is a regression: the median and at least two thirds of the rounds are past the limit."""
        agreeing = sum(ratio > limit for ratio in self.rounds)
        return self.median > limit and agreeing >= AGREEING * len(self.rounds)


def ratios(rounds: Sequence[tuple[dict[str, float], dict[str, float]]]) -> list[Ratio]:
    """Return the ratio of each benchmark that both sides had in every round, in BASE's order.

    They are formed inside a round, so that a machine that is slower for a while is so for both.
    """
    both = [name for name in rounds[0][0] if all(name in base and name in head for base, head in rounds)]
    return [Ratio(name, tuple(head[name] / base[name] for base, head in rounds)) for name in both]


def only_one_has(rounds: Sequence[tuple[dict[str, float], dict[str, float]]]) -> list[str]:
    """Return the benchmarks that cannot be compared."""
    base, head = rounds[0]
    return sorted(base.keys() ^ head.keys())
