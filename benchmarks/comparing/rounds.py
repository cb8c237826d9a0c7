"""Warm-up, and the interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from comparing.bench import Bench, Run
from comparing.checking import check
from comparing.contenders import CONTENDERS
from comparing.job import DRAIN_QUEUE_BYTES, LATENCY, MEMORY, THROUGHPUT, Case
from comparing.summary import Round
from comparing.workload import key_size

Say = Callable[[str], None]

_PASS_S = 1.0
# A first guess is for records of about a hundred bytes; larger ones take longer.
_GUESSED_BYTES = 1_000
# A client charges whole buffers, and a record has up to about 20 bytes around it: this share of the memory always fits.
_FILL = 0.5
_RECORD_OVERHEAD = 20
# Enough for the percentiles to mean something, and not more: beside a busy thread each takes some clients 20 ms.
_LATENCIES = 2_000
_LATENCIES_BESIDE = 300
# Lists of pointers are made before; more than this would be a measurement of the machine's memory.
_MOST_RECORDS = 40_000_000


@dataclass
class Measured:
    """The rounds of one case; who takes part, and who was left out because of what the checking mode found."""

    case: Case
    names: list[str]
    rounds: list[Round] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def checked(cases: list[Case], names: list[str], kind: str, say: Say) -> list[Measured]:
    """Who takes part in each case: everybody who can, and whose batches the checking mode finds right."""
    found = []
    for case in cases:
        measured = Measured(case, [])
        for name in names:
            if not CONTENDERS[name].takes(case, kind):
                continue
            wrong = check(case, name)
            if wrong:
                measured.failed[name] = wrong
                say(f"checking mode: VOID {name}: {wrong}")
            else:
                measured.names.append(name)
        say(f"checking mode: {case}: passed: {', '.join(measured.names)}")
        found.append(measured)
    return found


def warmed_rates(bench: Bench, case: Case, names: list[str], seconds: float, say: Say) -> dict[str, float]:
    """Let every contender send in turn until `seconds` of sending are over, each at least once unless they are none.

    The broker's code is compiled while it works, and for what it meets: batches of every kind and size. Returns what
    each contender reached in the last pass, records/s.
    """
    case = case._replace(busy=0)
    rates = {name: CONTENDERS[name].rate / max(case.value_size / _GUESSED_BYTES, 1) for name in names}
    each = min(_PASS_S, seconds)
    spent = 0.0
    while spent < seconds and names:
        for name in names:
            run = bench.measure(case, name, max(min(int(rates[name] * each), _MOST_RECORDS), 1))
            spent += max(run.seconds, each)
            if run.void:
                say(f"warm-up: VOID {name}: {run.void}")
            else:
                rates[name] = run.rate
    say(("warm-up: " if seconds else "guessed: ") + ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items()))
    return rates


def planned(kind: str, case: Case, rate: float, seconds: float, scale: float) -> int:
    """How many records a run gets."""
    if case.records is not None:
        return case.records
    if kind == LATENCY:
        return max(int((_LATENCIES_BESIDE if case.busy else _LATENCIES) * min(seconds, 1.0) * scale), 10)
    most = most_queued(case) if kind == MEMORY else _MOST_RECORDS
    return max(min(_rounded(rate * seconds * scale), most), 1)


def most_queued(case: Case) -> int:
    """How many records every client has room for while the server stands still."""
    return int(DRAIN_QUEUE_BYTES * _FILL / (case.value_size + key_size() + _RECORD_OVERHEAD))


def run_rounds(
    bench: Bench, cases: list[Measured], records: list[dict[str, int]], kind: str, count: int, say: Say
) -> None:
    """`count` rounds of every case and contender, each round starting with another contender."""
    for number in range(count):
        for measured, counts in zip(cases, records, strict=True):
            shift = number % max(len(measured.names), 1)
            found: Round = {}
            for name in measured.names[shift:] + measured.names[:shift]:
                run = found[name] = bench.measure(measured.case, name, counts[name], kind)
                say(f"round {number + 1}: {name}: " + (f"VOID: {run.void}" if run.void else _told(run, kind)))
            measured.rounds.append(found)


def _told(run: Run, kind: str) -> str:
    if kind == LATENCY:
        return "p50 {:.3f}, p99 {:.3f}, p99.9 {:.3f} ms".format(*run.latency_ms)
    if kind == MEMORY:
        return f"{run.queued_bytes:.0f} bytes of memory a queued record"
    assert kind == THROUGHPUT
    return f"{run.rate:,.0f} records/s, {run.cpu_us:.3f} us CPU a record"


def _rounded(records: float) -> int:
    """Two digits that mean something."""
    digits = len(str(int(records))) - 2
    return max(int(round(records, -digits)) if digits > 0 else int(records), 1)
