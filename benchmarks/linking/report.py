"""What was found, as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from comparing.report import aligned
from comparing.summary import Spread

from linking.job import Link, Run


@dataclass
class Case:
    """A link and a pace, `rate` in records/s or None for as many as they can; what each round found."""

    link: Link
    rate: float | None
    rounds: list[dict[str, Run]] = field(default_factory=list)

    def __str__(self) -> str:
        pace = "as fast as they can" if self.rate is None else f"{self.rate:,.0f} records/s"
        return f"{self.link}, {pace}"


_Figure = Callable[[Run], float]
_RATE: tuple[str, _Figure, str] = ("1,000/s", lambda run: run.outcome.rate / 1000, ",.1f")
_LATENCIES: tuple[tuple[str, _Figure, str], ...] = (
    ("average ms", lambda run: run.outcome.average_ms, ".2f"),
    ("p50 ms", lambda run: run.outcome.p50_ms, ".1f"),
    ("p99 ms", lambda run: run.outcome.p99_ms, ".1f"),
)
_BESIDE: tuple[tuple[str, _Figure, str], ...] = (
    ("records/request", lambda run: run.in_request, ",.0f"),
    ("proxy's core %", lambda run: 100 * run.proxy_share, ".0f"),
)


def table(case: Case) -> str:
    """One row a contender: medians, smallest and largest of the rounds.

    How long a record takes that comes as fast as it can says how much a producer queues, and so is not shown.
    """
    columns = (_RATE, *(() if case.rate is None else _LATENCIES), *_BESIDE)
    rows: list[tuple[str, ...]] = [(str(case), *(head for head, _, _ in columns))]
    for name in case.rounds[0]:
        runs = [run for one in case.rounds if not (run := one[name]).void]
        rows.append((name, *(_cell(runs, figure, form) for _, figure, form in columns)))
    return aligned(rows)


def void_lines(cases: list[Case]) -> list[str]:
    """One line for each run that does not count."""
    return [
        f"VOID {case}: {run.contender}: {run.void}"
        for case in cases
        for one in case.rounds
        for run in one.values()
        if run.void
    ]


def json_text(machine: dict[str, str], cases: list[Case]) -> str:
    """Every single run."""
    found = [
        {
            "delay_ms": case.link.delay_ms,
            "rate": case.rate,
            "rounds": [{name: asdict(run) for name, run in one.items()} for one in case.rounds],
        }
        for case in cases
    ]
    return json.dumps({"machine": machine, "cases": found}, indent=1) + "\n"


def _cell(runs: list[Run], figure: _Figure, form: str) -> str:
    found = Spread.of(map(figure, runs))
    return "void" if found is None else format(found, form)
