"""What a run has found: as text, as JSON and as a picture."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass

from comparing import arrival, busy, plot, report
from comparing.bench import Run
from comparing.contenders import CONTENDERS
from comparing.goals import Judged, growth, judged
from comparing.job import LATENCY, MEMORY, QUEUE_BYTES, THROUGHPUT
from comparing.rounds import Measured
from comparing.summary import figures


@dataclass(frozen=True)
class Results:
    """Everything that was measured, and what on."""

    options: Namespace
    machine: dict[str, str]
    kind: str
    found: list[Measured]
    beside: busy.Beside | None
    arrivals: arrival.Arrivals | None
    notes: list[str]


def text(results: Results) -> str:
    """A table a case, what is asked and whether it is met, and what does not count."""
    options = results.options
    lines = [
        f"\nacks=all, {QUEUE_BYTES >> 20} MiB of queue for each, {options.rounds} round(s): median (smallest-largest)"
    ]
    for measured in results.found:
        lines += [f"\n{measured.case}", report.table(measured, results.kind, options.sink)]
        lines += [] if options.quick else map(str, judged(measured.case, measured.rounds, results.kind, options.sink))
    lines += ["", *map(str, _grown(results)), *results.notes]
    if options.quick:
        lines.append("--quick: everything works; the figures mean nothing.")
    if results.beside is not None:
        lines += ["", busy.report(results.beside)]
    if results.arrivals is not None:
        lines += ["", arrival.report(results.arrivals)]
    return "\n".join([*lines, *void_lines(results)])


def void_lines(results: Results) -> list[str]:
    """One line for each run that does not count."""
    others = [] if results.beside is None else results.beside.void_lines()
    others += [] if results.arrivals is None else results.arrivals.void_lines()
    return [line for measured in results.found for line in report.void_lines(measured)] + others


def json_text(results: Results) -> str:
    """Every single run."""
    options = {key: value for key, value in vars(results.options).items() if key not in ("json", "plot", "measure")}
    everything = {
        "machine": results.machine,
        "options": options,
        "kind": results.kind,
        "cases": [
            {
                "case": measured.case._asdict(),
                "failed_check": measured.failed,
                "rounds": [{name: asdict(run) for name, run in one.items()} for one in measured.rounds],
                "goals": [
                    one._asdict() for one in judged(measured.case, measured.rounds, results.kind, results.options.sink)
                ],
            }
            for measured in results.found
        ],
        "growth": [one._asdict() for one in _grown(results)],
        "notes": results.notes,
        "cpu_bound": None if results.beside is None else results.beside.as_json(),
        "arrival": None if results.arrivals is None else results.arrivals.as_json(),
    }
    return json.dumps(everything, indent=1) + "\n"


def picture(results: Results) -> str:
    """An SVG of the main figure of each contender in each case."""
    title, unit, legend, wanted = _PICTURES[results.kind]
    groups = []
    for measured in results.found:
        rows = []
        for name in report.names(measured.rounds):
            spreads = [figures(measured.rounds, name, figure) for figure in wanted]
            known = [spread for spread in spreads if spread is not None]
            rows.append(plot.Dots(name, known, name.startswith("fastprod")))
        groups.append((str(measured.case), [row for row in rows if row.figures]))
    rounds = (
        f"{results.options.rounds} interleaved round(s): a dot is the median, its line goes from smallest to largest."
    )
    machine = results.machine
    named = ", ".join(f"{what} {value}" for what, value in machine.items() if what not in ("CPU", "cores", "memory"))
    footer = [rounds, f"{machine['CPU']}, {machine['cores']} cores, {machine['memory']}", *_wrapped(named, 150)]
    return plot.svg(f"{title}: {machine['server']}", unit, [group for group in groups if group[1]], legend, footer)


def _rate(run: Run) -> float:
    return run.rate


def _queued(run: Run) -> float:
    return max(run.queued_bytes, 1.0)


Figure = Callable[[Run], float]
_PERCENTILES: tuple[Figure, ...] = (
    lambda run: run.latency_ms[0],
    lambda run: run.latency_ms[1],
    lambda run: run.latency_ms[2],
)
_PICTURES: dict[str, tuple[str, str, list[str], tuple[Figure, ...]]] = {
    THROUGHPUT: ("Acknowledged records a second", "/s", [], (_rate,)),
    LATENCY: ("One record at a time, until it is acknowledged", "ms", ["p50", "p99", "p99.9"], _PERCENTILES),
    MEMORY: ("Memory a queued record", "bytes", [], (_queued,)),
}


def _grown(results: Results) -> list[Judged]:
    """From the first case to each other, where there are several."""
    if results.kind != THROUGHPUT or results.options.quick:
        return []
    first, *others = [(measured.case, measured.rounds) for measured in results.found]
    found = []
    for case, rounds in others:
        for name in CONTENDERS:
            grown = growth(first, (case, rounds), name)
            if grown is not None:
                found.append(grown._replace(words=f"{case}: {grown.words}"))
    return found


def _wrapped(words: str, width: int) -> list[str]:
    lines = [""]
    for part in words.split(", "):
        if len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += (", " if lines[-1] else "") + part
    return lines
