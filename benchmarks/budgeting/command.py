"""The command: measure and print, or hold against the budgets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from budgeting import callgrind
from budgeting.budgets import FILE, SLACK, budgets_of, is_over, pair
from budgeting.workloads import WORKLOADS

_OVER = 1
_NOT_COUNTED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Count and print. Return 0, 1 where `check` finds a count over its budget, or 2 where nothing was counted."""
    args = _parser().parse_args(argv)
    if not callgrind.is_there():
        print("instruction budgets: NOT CHECKED, because valgrind is not installed (apt-get install valgrind)")
        return 0 if args.where_possible else _NOT_COUNTED
    try:
        counts = {name: callgrind.instructions(name) for name in args.workloads or WORKLOADS}
    except callgrind.NotCounted as error:
        print(error, file=sys.stderr)
        return _NOT_COUNTED
    budgets = budgets_of(pair(), FILE.read_text(encoding="utf-8"))
    print("\n".join(_lines(counts, budgets)))
    over = [name for name, count in counts.items() if budgets and name in budgets and is_over(count, budgets[name])]
    return _OVER if over and args.action == "check" else 0


def _lines(counts: dict[str, float], budgets: dict[str, int] | None) -> list[str]:
    lines = [f"instructions a record, {pair()}"]
    for name, count in counts.items():
        budget = (budgets or {}).get(name)
        against = "no budget" if budget is None else f"budget {budget:,}, {count / budget - 1:+.1%}"
        over = f"  OVER by more than {SLACK:.0%}" if budget is not None and is_over(count, budget) else ""
        lines.append(f"{name:>12} {count:10,.1f}  {against}{over}")
    if budgets is None:
        figures = "\n".join(f"{name} = {round(count)}" for name, count in counts.items())
        lines.append(f'NOT CHECKED: {FILE.name} has no budgets for this pair; to have it checked, add\n\n["{pair()}"]')
        lines.append(figures)
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/budgets",
        description="Count instructions a record with callgrind, on the installed native package. "
        "Exit status: 0 well, 1 something is over its budget, 2 not counted.",
    )
    parser.add_argument("action", choices=("measure", "check"), help="print only, or fail over budget as well")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--where-possible", action="store_true", help="succeed, and say so, where valgrind is missing")
    return parser
