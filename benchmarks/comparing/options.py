"""The command line of `compare.py`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from itertools import product

from comparing.contenders import CONTENDERS
from comparing.job import LATENCY, MEMORY, THROUGHPUT, Case
from fastprod.codecs import CODECS

_ROUNDS = 7


def parse(about: str) -> argparse.Namespace:
    """What was asked for; ends the program, with words, where it cannot be."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0] if about else "")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--latency", action="store_true", help="one record at a time, alone and beside a busy thread")
    what.add_argument("--memory", action="store_true", help="memory a queued record while the server stands still")
    what.add_argument("--cpu-bound", action="store_true", help="also beside a busy Python thread (real broker only)")
    parser.add_argument("--sink", action="store_true", help="send to a server that acknowledges everything")
    parser.add_argument("--value-size", "--values", type=_numbers(1, 1_000_000), default=[100], metavar="BYTES,...")
    parser.add_argument("--partitions", type=_numbers(1, 1_000), default=[6], metavar="N,...", help="of each topic")
    parser.add_argument("--topics", type=_numbers(1, 200), default=[1], metavar="N,...")
    parser.add_argument("--threads", type=_numbers(1, 8), default=[1], metavar="N,...", help="sending on one producer")
    parser.add_argument("--compression", type=_codecs, default=[(None, None)], metavar="CODEC[:LEVEL],...")
    parser.add_argument(
        "--records", type=_numbers(1, 10**9), default=[None], metavar="N,...", help="fixed numbers of them"
    )
    parser.add_argument("--scale", type=float, default=1.0, metavar="FACTOR", help="times as many records as usual")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--only", type=names_in(CONTENDERS), metavar="NAME,...", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--pure", action="store_true", help="fastprod's pure-Python twin as well")
    parser.add_argument("--quick", action="store_true", help="one short round; the figures mean nothing")
    parser.add_argument("--json", metavar="FILE", help="write every run there")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the figures there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cpu_bound and options.sink:
        parser.error("--cpu-bound takes the time from the log of a real broker; leave out --sink, or use --latency")
    if options.quick:
        options.rounds = 1
    return options


def kind_of(options: argparse.Namespace) -> str:
    """What is measured."""
    return LATENCY if options.latency else MEMORY if options.memory else THROUGHPUT


def cases_of(options: argparse.Namespace) -> list[Case]:
    """Every combination of what the lists hold."""
    busy = (0, 1) if options.latency else (0,)
    return [
        Case(size, partitions, topics, threads, codec, level, beside, records)
        for size, partitions, topics, threads, (codec, level), beside, records in product(
            options.value_size,
            options.partitions,
            options.topics,
            options.threads,
            options.compression,
            busy,
            options.records,
        )
    ]


def _numbers(low: int, high: int) -> Callable[[str], list[int]]:
    def numbers(text: str) -> list[int]:
        found = [int(part) for part in text.split(",")]
        if not all(low <= number <= high for number in found):
            raise argparse.ArgumentTypeError(f"from {low:,} to {high:,}, with commas between them")
        return found

    return numbers


def _codecs(text: str) -> list[tuple[str | None, int | None]]:
    found: list[tuple[str | None, int | None]] = []
    for part in text.split(","):
        name, _, level = part.partition(":")
        if name not in (*CODECS, "none"):
            raise argparse.ArgumentTypeError(f"{name} is no codec; there are none, {', '.join(CODECS)}")
        found.append((None if name == "none" else name, int(level) if level else None))
    return found


def names_in(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return what reads a list of such names."""

    def names(text: str) -> list[str]:
        given = text.split(",")
        unknown = [name for name in given if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} not known; there are {', '.join(known)}")
        return given

    return names
