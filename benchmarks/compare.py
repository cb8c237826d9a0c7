"""fastprod beside confluent-kafka, kafka-python, aiokafka and the limits, on one server, in one run.

    python benchmarks/compare.py                  on a real broker
    python benchmarks/compare.py --sink           against a server that acknowledges everything: the client's own limit
    python benchmarks/compare.py --latency        one record at a time, alone and beside busy Python threads
    python benchmarks/compare.py --memory         memory a queued record
    python benchmarks/compare.py --quick          one short round: does everything work?

README.md in this directory says what is measured, how to read it and what the options are for.
"""

from __future__ import annotations

import contextlib
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from comparing import arrival, busy, climit, output
from comparing.bench import Bench
from comparing.child import measure
from comparing.contenders import C_LIMIT, PLAIN, PURE, usual
from comparing.job import LATENCY, Case, Job
from comparing.machine import describe
from comparing.options import cases_of, kind_of, parse
from comparing.rounds import Measured, checked, planned, run_rounds, warmed_rates
from comparing.servers import BROKER_PROPERTIES, BrokerServer, Server, SinkServer

from fastprod.testing import KafkaBroker

_HEAP = "3g"
# A broker's code is compiled while it works; the sink's is.
_WARM_UP_S = {"broker": 10.0, "sink": 0.5}
_RUN_S = {"broker": 3.0, "sink": 1.5}
_QUICK_S = 0.02
_MANY_PARTITIONS = 100


def main() -> int:
    """Measure and print; 1 if any run was void."""
    options = parse(__doc__ or "")
    if options.measure:
        measure(Job.from_json(options.measure))
        return 0
    kind, cases = kind_of(options), cases_of(options)
    with _server(options) as server:
        machine = describe(server.name)
        for what, value in machine.items():
            _say(f"{what}: {value}")
        found = checked(cases, _names(options), kind, _say)
        bench = Bench(server)
        rates = [_rates(options, bench, measured, kind) for measured in found]
        records = [
            {
                name: planned(kind, measured.case, each[name], _seconds(options), options.scale)
                for name in measured.names
            }
            for measured, each in zip(found, rates, strict=True)
        ]
        run_rounds(bench, found, records, kind, options.rounds, _say)
        beside = _beside(options, bench, cases[0], rates[0]) if options.cpu_bound else None
    arrivals = _arrivals(options, found[0].names) if kind == LATENCY else None
    results = output.Results(options, machine, kind, found, beside, arrivals, _notes(options, found))
    _say(output.text(results))
    if options.json:
        Path(options.json).write_text(output.json_text(results), encoding="utf-8")
    if options.plot:
        Path(options.plot).write_text(output.picture(results), encoding="utf-8")
    return 1 if output.void_lines(results) else 0


@contextlib.contextmanager
def _server(options: Namespace) -> Iterator[Server]:
    if options.sink:
        yield SinkServer()
        return
    with KafkaBroker(in_memory=True, heap=_HEAP, properties=BROKER_PROPERTIES) as broker:
        yield BrokerServer(broker)


def _seconds(options: Namespace) -> float:
    return _QUICK_S if options.quick else _RUN_S["sink" if options.sink else "broker"]


def _rates(options: Namespace, bench: Bench, measured: Measured, kind: str) -> dict[str, float]:
    """What the warm-up found. How many records go one at a time is given; it is for the broker's sake, and once."""
    needless = options.quick or (kind == LATENCY and (options.sink or measured.case.busy))
    seconds = 0.0 if needless else _WARM_UP_S["sink" if options.sink else "broker"]
    return warmed_rates(bench, measured.case, measured.names, seconds, _say)


def _beside(options: Namespace, bench: Bench, case: Case, rates: dict[str, float]) -> busy.Beside:
    return busy.run(bench, case, rates, _seconds(options) * options.scale, options.rounds, _say)


def _arrivals(options: Namespace, names: list[str]) -> arrival.Arrivals:
    return arrival.run(names, options.scale * min(_seconds(options), 1.0), options.rounds, _say)


def _names(options: Namespace) -> list[str]:
    if options.only:
        return list(options.only)
    usually = usual(kind_of(options), options.sink)
    return [*usually, *(PURE if options.pure else ()), *(PLAIN if options.cpu_bound else ())]


def _notes(options: Namespace, found: list[Measured]) -> list[str]:
    """What the C limit is, without a socket, what no loop can beat, and what many partitions cost one."""
    cases = [measured.case for measured in found if C_LIMIT in measured.names]
    if options.quick or not cases:
        return []
    return [climit.loops(cases[0]), *(climit.scattering(case) for case in cases if case.partitions >= _MANY_PARTITIONS)]


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
