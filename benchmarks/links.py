"""fastprod beside Apache Kafka's own Java producer on links of different length: what waiting for more records brings.

    python benchmarks/links.py                    no delay, and 1, 10 and 100 ms to a round trip
    python benchmarks/links.py --links 100        that one alone
    python benchmarks/links.py --model            rules for partial batches, on a model of a connection
    python benchmarks/links.py --quick            one short round: does everything work?

README.md in this directory says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from comparing.machine import describe
from comparing.options import names_in
from comparing.servers import BROKER_PROPERTIES
from linking import model, ours, report
from linking.bench import Bench
from linking.job import CONTENDERS, Job, Link, Run

from fastprod.testing import KafkaBroker

_HEAP = "3g"
_NO_PROXY = "none"
# Before it is known how fast anybody is: a pass that also has the broker's code compiled.
_PILOT_RECORDS = 300_000
_QUICK_RECORDS = 500
# A JVM compiles what it runs for some seconds, and the tool makes up for what it was late with.
_WARM_UP_S = 3.0
_MEASURED_S = 4.0
_RATES = (1_000.0, 20_000.0)
# ProducerPerformance sleeps no less than this, and then sends what is due at once.
_BURST_MS = 2.0


def main() -> int:
    """Measure and print; 1 if any run was void."""
    options = _parsed()
    if options.measure:
        ours.measure(Job(**json.loads(options.measure)))
        return 0
    if options.model:
        _say(model.table())
        return 0
    cases: list[report.Case] = []
    with KafkaBroker(proxied=True, in_memory=True, heap=_HEAP, properties=BROKER_PROPERTIES) as broker:
        machine = describe(f"Apache Kafka {broker.version}, one node, log in memory")
        for what, value in machine.items():
            _say(f"{what}: {value}")
        bench = Bench(broker, options.burst_ms)
        for link in options.links:
            cases += _measured(bench, link, options)
    for case in cases:
        _say("\n" + report.table(case))
    if options.json:
        Path(options.json).write_text(report.json_text(machine, cases), encoding="utf-8")
    void = report.void_lines(cases)
    _say("\n".join(void))
    return 1 if void else 0


def _measured(bench: Bench, link: Link, options: argparse.Namespace) -> list[report.Case]:
    """The rounds on one link, each starting with another contender and going over all paces."""
    names = options.only
    pilot = _QUICK_RECORDS if options.quick else _PILOT_RECORDS
    first = {name: bench.measure(link, name, pilot, pilot, None) for name in names}
    for name, run in first.items():
        _say(f"{link}: {name}: " + (f"VOID: {run.void}" if run.void else f"{run.outcome.rate:,.0f} records/s"))
    paces = options.rates or (None, *_RATES, _half_of_the_slowest(first))
    cases = [report.Case(link, pace) for pace in paces]
    for number in range(options.rounds):
        for case in cases:
            shift = number % len(names)
            found = {}
            for name in names[shift:] + names[:shift]:
                rate = case.rate or first[name].outcome.rate
                records = _QUICK_RECORDS if options.quick else max(round(rate * _MEASURED_S), 1)
                warm_up = max(round(records * _WARM_UP_S / _MEASURED_S), 1)
                found[name] = bench.measure(link, name, records, warm_up, case.rate)
            case.rounds.append({name: found[name] for name in names})
            _say(f"round {number + 1} of {options.rounds}: {case}: done")
    return cases


def _half_of_the_slowest(first: dict[str, Run]) -> float:
    """A pace that everybody can keep, in two digits that mean something."""
    rate = min((run.outcome.rate for run in first.values() if not run.void), default=0.0) / 2
    return max(float(f"{rate:.1e}"), 1.0)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--links",
        type=_links,
        default=[Link(0), Link(1), Link(10), Link(100)],
        metavar="MS,...",
        help=f"what is added to a round trip; {_NO_PROXY}: no proxy at all (default: 0,1,10,100)",
    )
    parser.add_argument(
        "--rates", type=_rates, metavar="N,...", help="records/s, 0: as fast as they can (default: see README)"
    )
    parser.add_argument(
        "--only", type=names_in(CONTENDERS), default=list(CONTENDERS), metavar="NAME,...", help=", ".join(CONTENDERS)
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--burst-ms", type=float, default=_BURST_MS, metavar="MS", help="of fastprod's load (default: as Java's)"
    )
    parser.add_argument("--model", action="store_true", help="compare rules on a model instead")
    parser.add_argument("--quick", action="store_true", help="one round of a few records; the figures mean nothing")
    parser.add_argument("--json", metavar="FILE", help="write every run there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return options


def _links(text: str) -> list[Link]:
    return [Link(None if part == _NO_PROXY else float(part)) for part in text.split(",")]


def _rates(text: str) -> list[float | None]:
    return [float(part) or None for part in text.split(",")]


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
