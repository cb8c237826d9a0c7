"""The figures as text."""

from __future__ import annotations

from comparing.contenders import CEILING, CONFLUENT, CONTENDERS
from comparing.summary import Round, Spread, figures, ratios, voids

# What is asked of fastprod with a callback a record: one of the first two, and the third.
GOAL_OF_CEILING = 0.80
GOAL_TIMES_CONFLUENT = 3.0
GOAL_CPU_OF_CONFLUENT = 1 / 3
_HEAD = ("", "records", "1,000/s", "MB/s", "CPU us/record", "x confluent", "% ceiling", "% CPU confl.", "MB RSS")
_NONE = "-"


def table(rounds: list[Round], record_bytes: int) -> str:
    """One row a contender: medians, smallest and largest of the rounds."""
    rows = [_HEAD, *(_row(rounds, name, record_bytes) for name in _names(rounds))]
    return aligned(rows)


def verdict(rounds: list[Round], contender: str) -> str:
    """How one contender stands to confluent-kafka and to the ceiling, and what is asked of fastprod."""
    of_ceiling = ratios(rounds, contender, CEILING, lambda run: run.rate)
    of_confluent = ratios(rounds, contender, CONFLUENT, lambda run: run.rate)
    cpu = ratios(rounds, contender, CONFLUENT, lambda run: run.cpu_us)
    if of_ceiling is None or of_confluent is None or cpu is None:
        return f"{CONTENDERS[contender].title}: not compared"
    return (
        f"{CONTENDERS[contender].title}: {of_ceiling.median:.0%} of the ceiling (goal {GOAL_OF_CEILING:.0%}) or "
        f"{of_confluent.median:.2f} times confluent-kafka (goal {GOAL_TIMES_CONFLUENT:.0f}), at {cpu.median:.2f} of "
        f"its CPU a record (goal {GOAL_CPU_OF_CONFLUENT:.2f}): "
        + _met(
            (of_ceiling.median >= GOAL_OF_CEILING or of_confluent.median >= GOAL_TIMES_CONFLUENT)
            and cpu.median <= GOAL_CPU_OF_CONFLUENT
        )
    )


def void_lines(rounds: list[Round]) -> list[str]:
    """One line for each run that does not count."""
    return [f"VOID {run.contender}: {run.void}" for run in voids(rounds)]


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


def _met(met: bool) -> str:
    return "met" if met else "missed"


def _names(rounds: list[Round]) -> list[str]:
    return [name for name in CONTENDERS if any(name in one for one in rounds)]


def _row(rounds: list[Round], name: str, record_bytes: int) -> tuple[str, ...]:
    rate = figures(rounds, name, lambda run: run.rate)
    if rate is None:
        return (name, *("void" for _ in _HEAD[1:]))
    records = max(one[name].records for one in rounds if name in one)
    rss = figures(rounds, name, lambda run: run.peak_rss / 1e6)
    return (
        name,
        f"{records:,}",
        f"{Spread(*(figure / 1e3 for figure in rate)):,.0f}",
        f"{rate.median * record_bytes / 1e6:,.1f}",
        _shown(figures(rounds, name, lambda run: run.cpu_us), ".3f"),
        _shown(ratios(rounds, name, CONFLUENT, lambda run: run.rate), ".2f"),
        _percent(ratios(rounds, name, CEILING, lambda run: run.rate)),
        _percent(ratios(rounds, name, CONFLUENT, lambda run: run.cpu_us)),
        f"{rss.median:,.0f}" if rss else _NONE,
    )


def _shown(figure: Spread | None, form: str) -> str:
    return _NONE if figure is None else format(figure, form)


def _percent(figure: Spread | None) -> str:
    return _NONE if figure is None else f"{Spread(*(100 * part for part in figure)):.0f}"
