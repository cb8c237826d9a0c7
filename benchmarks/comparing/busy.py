"""Beside a CPU-bound Python thread: what a client still does when the program has work of its own.

Two questions. Pace: how fast do records that were accepted already reach the broker's log, relative to a program that
does nothing else? And share: what does `send()` in a loop keep of its unloaded rate, when it has to share the
interpreter? On few cores the busy thread also takes CPU from the broker; the pace beside a busy *process* shows how
much of a loss is that, and not the client's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from comparing.bench import Bench, Run
from comparing.contenders import PLAIN
from comparing.job import Case
from comparing.report import aligned
from comparing.rounds import most_queued
from comparing.summary import Round, Spread, figures, ratios, voids

GOAL_PACE = 0.90
GOAL_SHARE = 0.40
ALONE, THREAD, PROCESS = "alone", "busy thread", "busy process"


@dataclass
class Beside:
    """Rounds of both measurements, by client: pace (alone, busy thread, busy process) and share (the first two)."""

    pace: dict[str, list[Round]] = field(default_factory=dict)
    share: dict[str, list[Round]] = field(default_factory=dict)

    def voids(self) -> list[Run]:
        """The runs that do not count."""
        return [run for rounds in (*self.pace.values(), *self.share.values()) for run in voids(rounds)]

    def void_lines(self) -> list[str]:
        """One line for each of them."""
        return [f"VOID {run.contender} (CPU-bound): {run.void}" for run in self.voids()]

    def as_json(self) -> dict[str, Any]:
        """Every run."""
        return {
            what: {
                name: [{case: asdict(run) for case, run in one.items()} for one in rounds]
                for name, rounds in measured.items()
            }
            for what, measured in (("pace", self.pace), ("share", self.share))
        }


def run(
    bench: Bench, case: Case, rates: dict[str, float], seconds: float, count: int, say: Callable[[str], None]
) -> Beside:
    """Measure both, `count` interleaved rounds, of those in `rates` that need no callback."""
    names = [name for name in PLAIN if name in rates]
    found = Beside({name: [] for name in names}, {name: [] for name in names})
    beside = case._replace(busy=1)
    for number in range(count):
        for name in names:
            sent = max(int(rates[name] * seconds), 1)
            accepted = min(most_queued(case), sent)
            found.pace[name].append(
                {
                    ALONE: bench.drain(case, name, accepted),
                    THREAD: bench.drain(beside, name, accepted),
                    PROCESS: bench.drain(case, name, accepted, neighbour=True),
                }
            )
            found.share[name].append(
                {ALONE: bench.measure(case, name, sent), THREAD: bench.measure(beside, name, sent // 2 or 1)}
            )
        say(f"CPU-bound: round {number + 1} done")
    return found


def report(beside: Beside) -> str:
    """Both tables, with what is asked of fastprod."""
    return "\n\n".join(
        (
            f"Pace of accepted records to the broker's log (asked: beside a busy thread {GOAL_PACE:.0%})\n"
            + _table(beside.pace, (THREAD, PROCESS)),
            f"Rate of send() in a loop (asked: beside a busy thread {GOAL_SHARE:.0%})\n"
            + _table(beside.share, (THREAD,)),
        )
    )


def _table(measured: dict[str, list[Round]], cases: tuple[str, ...]) -> str:
    rows = [("", "alone, 1,000/s", *(f"{case}, % of alone" for case in cases))]
    for name, rounds in measured.items():
        alone = figures(rounds, ALONE, lambda run: run.rate / 1e3)
        shares = (ratios(rounds, case, ALONE, lambda run: run.rate) for case in cases)
        rows.append((name, _shown(alone, 1), *(_shown(share, 100) for share in shares)))
    return aligned(rows)


def _shown(figure: Spread | None, factor: float) -> str:
    return "void" if figure is None else f"{Spread(*(part * factor for part in figure)):,.0f}"
