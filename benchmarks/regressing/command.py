"""The command: arguments, the order of things, the exit status."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from regressing.build import NotMeasured, Side, built, commit_of
from regressing.report import sentence, table
from regressing.rounds import measured
from regressing.verdict import only_one_has, ratios

_SLOWER = 1
_NOT_MEASURED = 2
# Runs are short and many, as what changes on the machine changes from one to the next. The clock is the process's CPU
# time, which stands still while others have the processor.
_SUITE = [
    "--benchmark-max-time=0.2",
    "--benchmark-min-rounds=5",
    "--benchmark-warmup=on",
    "--benchmark-timer=time.process_time",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and return 0, 1 where something is slower, or 2 where it could not be measured."""
    args = _parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="regress-") as folder:
            return _compare(args, Path(folder))
    except NotMeasured as error:
        _tell(str(error))
        return _NOT_MEASURED


def _compare(args: argparse.Namespace, folder: Path) -> int:
    commits = commit_of(args.base), commit_of(args.head)
    _tell(f"BASE is {args.base} ({commits[0][:12]}), HEAD is {args.head} ({commits[1][:12]}); building both")
    with ThreadPoolExecutor() as pool:
        base, head = pool.map(lambda name, commit: built(name, commit, folder), ("base", "head"), commits)
    return compare((base, head), args, folder)


def compare(sides: tuple[Side, Side], args: argparse.Namespace, folder: Path) -> int:
    """Measure two sides that are built, and print what came of it."""
    options = [*_SUITE, *(["-k", args.select] if args.select else [])]
    rounds = measured(sides, args.rounds, options, folder, _tell)
    found = ratios(rounds)
    if not found:
        raise NotMeasured("the two have no benchmark in common")
    lines = [*table(found, args.limit), "", sentence(found, args.limit)]
    if alone := only_one_has(rounds):
        lines.append(f"Not compared, because only one side has them: {', '.join(alone)}.")
    print("\n".join(lines), flush=True)
    if args.markdown is not None:
        args.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if args.json is not None:
        args.json.write_text(json.dumps({each.benchmark: each.rounds for each in found}), encoding="utf-8")
    return _SLOWER if any(each.is_past(args.limit) for each in found) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/regress",
        description="Build BASE and HEAD into two environments, run the benchmarks of both in turn, print the ratios. "
        "What is not committed is not measured. Exit status: 0 nothing is slower, 1 something is, 2 not measured.",
    )
    parser.add_argument("base", metavar="BASE", help="revision to compare with, such as main")
    parser.add_argument("--head", default="HEAD", metavar="REV", help="revision to compare (default: %(default)s)")
    parser.add_argument(
        "--limit", type=float, default=1.05, metavar="RATIO", help="slower than that is a regression (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="runs of each side (%(default)s)")
    parser.add_argument("--select", metavar="EXPRESSION", help="only these benchmarks, as pytest's -k has it")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's ratios there")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
