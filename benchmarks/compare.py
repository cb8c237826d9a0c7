"""fastprod beside confluent-kafka, kafka-python, aiokafka and the ceiling, on one broker, in one run.

    python benchmarks/compare.py                  about five minutes
    python benchmarks/compare.py --quick          one short round: does everything work?
    python benchmarks/compare.py --cpu-bound      beside a busy Python thread as well

README.md in this directory says what is measured, how to read it and what the options are for.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from comparing import busy, report
from comparing.bench import BROKER_PROPERTIES, Bench
from comparing.child import measure
from comparing.contenders import CONTENDERS, DEFAULT, NATIVE, PLAIN, PURE
from comparing.job import QUEUE_BYTES, Job
from comparing.machine import describe
from comparing.rounds import run_rounds, warmed_rates
from comparing.summary import Round, voids
from comparing.workload import key_size

from fastprod.codecs import CODECS
from fastprod.testing import KafkaBroker

_HEAP = "3g"
_WARM_UP_S = 10.0
_RUN_S = 3.0
_QUICK_S = 0.02
_ROUNDS = 5


def main() -> int:
    """Measure and print; 1 if any run was void."""
    options = _options()
    if options.measure:
        measure(Job.from_json(options.measure))
        return 0
    names = _names(options)
    with KafkaBroker(in_memory=True, heap=_HEAP, properties=BROKER_PROPERTIES) as broker:
        machine = describe(broker.version)
        for what, value in machine.items():
            _say(f"{what}: {value}")
        bench = Bench(broker, options.values, options.compression)
        beside_a_thread = PLAIN if options.cpu_bound and not options.only else ()
        everyone = list(dict.fromkeys([*names, *beside_a_thread]))
        rates = warmed_rates(bench, everyone, _QUICK_S if options.quick else _WARM_UP_S, _say)
        seconds = (_QUICK_S if options.quick else _RUN_S) * options.records
        records = {name: _rounded(rates[name] * seconds) for name in names}
        rounds = run_rounds(bench, records, options.rounds, _say)
        beside = busy.run(bench, rates, options.values, seconds, options.rounds, _say) if options.cpu_bound else None
    _print(options, rounds, beside)
    if options.json:
        _write(options, machine, rounds, beside)
    return 1 if voids(rounds) or (beside is not None and beside.voids()) else 0


def _print(options: argparse.Namespace, rounds: list[Round], beside: busy.Beside | None) -> None:
    _say(
        f"\nValues of {options.values} bytes, keys of {key_size()}, six partitions, acks=all, compression "
        f"{options.compression or 'none'}, {QUEUE_BYTES >> 20} MiB of queue for each, {options.rounds} round(s): "
        "median (smallest-largest)\n"
    )
    _say(report.table(rounds, options.values + key_size()))
    _say("")
    if options.quick:
        _say("--quick: everything works; the figures mean nothing.")
    for name in () if options.quick else NATIVE:
        if any(name in one for one in rounds):
            _say(report.verdict(rounds, name))
    if beside is not None:
        _say("\n" + busy.report(beside))
    for line in report.void_lines(rounds) + (beside.void_lines() if beside is not None else []):
        _say(line)


def _write(
    options: argparse.Namespace, machine: dict[str, str], rounds: list[Round], beside: busy.Beside | None
) -> None:
    everything = {
        "machine": machine,
        "options": {key: value for key, value in vars(options).items() if key not in ("json", "measure")},
        "rounds": [{name: asdict(run) for name, run in one.items()} for one in rounds],
        "cpu_bound": None if beside is None else beside.as_json(),
    }
    Path(options.json).write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


def _names(options: argparse.Namespace) -> list[str]:
    if options.only:
        return list(options.only)
    return [*DEFAULT, *(PURE if options.pure else ())]


def _rounded(records: float) -> int:
    """Two digits that mean something."""
    digits = len(str(int(records))) - 2
    return max(int(round(records, -digits)) if digits > 0 else int(records), 1)


def _contenders(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} not known; there are {', '.join(CONTENDERS)}")
    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=float, default=1.0, metavar="SCALE", help="times as many records as usual")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--values", type=int, default=100, metavar="BYTES", help="size of a value (default 100)")
    parser.add_argument("--compression", choices=sorted(CODECS), help="codec for everybody (default none)")
    parser.add_argument("--only", type=_contenders, metavar="NAME,NAME", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--pure", action="store_true", help="fastprod's pure-Python twin as well")
    parser.add_argument("--cpu-bound", action="store_true", help="also beside a busy Python thread")
    parser.add_argument("--quick", action="store_true", help="one short round; the figures mean nothing")
    parser.add_argument("--json", metavar="FILE", help="write every run there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return options


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
