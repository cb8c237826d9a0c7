"""The ratios as a table, for a terminal and for a comment; both are Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from regressing.verdict import Ratio


def table(ratios: Sequence[Ratio], limit: float) -> list[str]:
    """Return the lines of the table; the verdict stands in the last column."""
    width = max(len(each.benchmark) for each in ratios)
    lines = [
        f"| {'benchmark':<{width}} | HEAD / BASE | smallest | largest | past {limit:g} in | |",
        f"|{'-' * (width + 2)}|---|---|---|---|---|",
    ]
    for each in ratios:
        agreeing = sum(ratio > limit for ratio in each.rounds)
        lines.append(
            f"| {each.benchmark:<{width}} | {each.median:.3f} | {min(each.rounds):.3f} | {max(each.rounds):.3f} "
            f"| {agreeing} of {len(each.rounds)} | {'SLOWER' if each.is_past(limit) else ''} |"
        )
    return lines


def sentence(ratios: Sequence[Ratio], limit: float) -> str:
    """Return what it comes to."""
    slower = [each.benchmark for each in ratios if each.is_past(limit)]
    if not slower:
        return f"None of {len(ratios)} benchmarks is slower than {limit:g} times BASE."
    return f"{len(slower)} of {len(ratios)} benchmarks slower than {limit:g} times BASE: {', '.join(slower)}."
