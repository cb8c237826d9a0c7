"""The figures as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from comparing.bench import Run
from comparing.contenders import C_LIMIT, CEILING, CONFLUENT, CONTENDERS
from comparing.job import LATENCY, MEMORY
from comparing.rounds import Measured
from comparing.summary import Round, Spread, figures, ratios, voids
from comparing.workload import key_size

_NONE = "-"


class Column(NamedTuple):
    """A figure, relative to that of `base` in the same round where there is one, and how it is written."""

    head: str
    figure: Callable[[Run], float]
    form: str
    base: str | None = None
    spread: bool = True


def table(measured: Measured, kind: str, sink: bool) -> str:
    """One row a contender: medians, smallest and largest of the rounds."""
    columns = _columns(kind, sink, measured.case.value_size + key_size())
    rows = [("", *(column.head for column in columns))]
    rows += [_row(measured.rounds, name, columns) for name in names(measured.rounds)]
    rows += [(name, *(["void"] * len(columns))) for name in measured.failed]
    return aligned(rows)


def names(rounds: list[Round]) -> list[str]:
    """Who took part, in the order of the list of all."""
    return [name for name in CONTENDERS if any(name in one for one in rounds)]


def void_lines(measured: Measured) -> list[str]:
    """One line for each run that does not count."""
    return [f"VOID {name} (checking mode): {wrong}" for name, wrong in measured.failed.items()] + [
        f"VOID {run.contender}: {run.void}" for run in voids(measured.rounds)
    ]


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Columns under each other, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _columns(kind: str, sink: bool, record_bytes: int) -> tuple[Column, ...]:
    rss = Column("MB RSS", lambda run: run.peak_rss / 1e6, ",.0f", spread=False)
    records = Column("records", lambda run: run.records, ",.0f", spread=False)
    if kind == LATENCY:
        return (
            records,
            Column("p50 ms", lambda run: run.latency_ms[0], ".3f"),
            Column("p99 ms", lambda run: run.latency_ms[1], ".3f"),
            Column("p99.9 ms", lambda run: run.latency_ms[2], ".3f"),
            Column("p50 x confluent", lambda run: run.latency_ms[0], ".2f", CONFLUENT),
            Column("p99 x confluent", lambda run: run.latency_ms[1], ".2f", CONFLUENT),
        )
    if kind == MEMORY:
        return (
            records,
            Column("bytes/record", lambda run: run.queued_bytes, ".0f"),
            Column("x confluent", lambda run: run.queued_bytes, ".2f", CONFLUENT),
            rss,
        )
    limit, words = (C_LIMIT, "% C limit") if sink else (CEILING, "% ceiling")
    return (
        records,
        Column("1,000/s", lambda run: run.rate / 1e3, ",.0f"),
        Column("MB/s", lambda run: run.rate * record_bytes / 1e6, ",.1f", spread=False),
        Column("CPU us/record", lambda run: run.cpu_us, ".3f"),
        Column("x confluent", lambda run: run.rate, ".2f", CONFLUENT),
        Column(words, lambda run: run.rate, ".0f", limit),
        Column("% CPU confl.", lambda run: run.cpu_us, ".0f", CONFLUENT),
        Column("stored bytes", lambda run: run.stored, ".1f", spread=False),
        rss,
    )


def _row(rounds: list[Round], name: str, columns: tuple[Column, ...]) -> tuple[str, ...]:
    if figures(rounds, name, lambda run: run.records) is None:
        return (name, *(["void"] * len(columns)))
    return (name, *(_cell(rounds, name, column) for column in columns))


def _cell(rounds: list[Round], name: str, column: Column) -> str:
    if column.base is None:
        found = figures(rounds, name, column.figure)
    else:
        found = ratios(rounds, name, column.base, column.figure)
        if found is not None and column.head.startswith("%"):
            found = Spread(*(100 * part for part in found))
    if found is None:
        return _NONE
    return format(found, column.form) if column.spread else format(found.median, column.form)
