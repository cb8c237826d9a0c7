"""Warm-up, and the interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable

from comparing.bench import Bench
from comparing.contenders import CONTENDERS
from comparing.summary import Round

Say = Callable[[str], None]

_PASS_S = 1.0


def warmed_rates(bench: Bench, names: list[str], seconds: float, say: Say) -> dict[str, float]:
    """Let every contender send in turn until `seconds` of sending are over, each at least once.

    The broker's code is compiled while it works, and for what it meets: batches of every kind and size. Returns what
    each contender reached in the last pass, records/s.
    """
    rates = {name: float(CONTENDERS[name].rate) for name in names}
    each = min(_PASS_S, seconds)
    spent = 0.0
    while spent < seconds:
        for name in names:
            run = bench.measure(name, max(int(rates[name] * each), 1))
            spent += max(run.seconds, each)
            if run.void:
                say(f"warm-up: VOID {name}: {run.void}")
            else:
                rates[name] = run.rate
    say("warm-up: " + ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items()))
    return rates


def run_rounds(bench: Bench, records: dict[str, int], count: int, say: Say) -> list[Round]:
    """`count` rounds of every contender, each round starting with another one."""
    names = list(records)
    rounds: list[Round] = []
    for number in range(count):
        shift = number % len(names)
        found: Round = {}
        for name in names[shift:] + names[:shift]:
            run = found[name] = bench.measure(name, records[name])
            say(
                f"round {number + 1}: {name}: "
                + (f"VOID: {run.void}" if run.void else f"{run.rate:,.0f} records/s, {run.cpu_us:.3f} us CPU a record")
            )
        rounds.append(found)
    return rounds
