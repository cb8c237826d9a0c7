"""How long a record takes from the call of `send()` to the server's socket: in a program that does nothing else, and
beside two Python threads that compute.

The sending thread writes the machine's time into the value right before the call; the kernel notes it again when it has
put the bytes into the server's socket, and the sink (`sink.c`) reads that. So it is always the sink that is sent to,
whatever the rest of the run is measured on, and always the usual case: a value that is compressed shows no time. It is
not the time at which the sink reads: on two cores the kernel may let a server wait for 4 ms behind a thread that
computes, whoever the client is.

A thread that has slept waits for the interpreter before it can send anything. That is over when the time is taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from comparing.bench import Run
from comparing.checking import problems
from comparing.child_process import ChildProcess, VoidError
from comparing.contenders import PACED
from comparing.counting import percentiles_ms
from comparing.goals import Judged, judged_arrival
from comparing.job import ARRIVAL, Case, Job
from comparing.report import aligned
from comparing.sink import Sink, arrived
from comparing.summary import Round, Spread, figures, voids

ALONE, THREADS = Case(), Case(busy=2)
# Beside the threads each record waits some 10 ms for the interpreter.
_RECORDS = {ALONE: 1_000, THREADS: 500}
_FEWEST = 10


@dataclass
class Arrivals:
    """Rounds of both cases."""

    rounds: dict[Case, list[Round]] = field(default_factory=lambda: {case: [] for case in _RECORDS})

    def void_lines(self) -> list[str]:
        """One line for each run that does not count."""
        found = [run for rounds in self.rounds.values() for run in voids(rounds)]
        return [f"VOID {run.contender} (arrival): {run.void}" for run in found]

    def judged(self) -> list[Judged]:
        """How fastprod stands to what is asked of it."""
        return judged_arrival(self.rounds[ALONE], self.rounds[THREADS])

    def as_json(self) -> dict[str, Any]:
        """Every run."""
        return {
            "cases": [
                {
                    "case": case._asdict(),
                    "rounds": [{name: asdict(run) for name, run in one.items()} for one in rounds],
                }
                for case, rounds in self.rounds.items()
            ],
            "goals": [one._asdict() for one in self.judged()],
        }


def run(names: list[str], scale: float, count: int, say: Callable[[str], None]) -> Arrivals:
    """Measure those of `names` that can do it, `count` interleaved rounds, each starting with another one."""
    found, taking = Arrivals(), [name for name in PACED if name in names]
    for number in range(count):
        shift = number % max(len(taking), 1)
        for case, records in _RECORDS.items():
            one: Round = {}
            for name in taking[shift:] + taking[:shift]:
                one[name] = run_ = measure(case, name, max(int(records * scale), _FEWEST))
                say(f"arrival: round {number + 1}: {name}{', beside threads' if case.busy else ''}: {_told(run_)}")
            found.rounds[case].append(one)
    return found


def measure(case: Case, contender: str, records: int) -> Run:
    """One run, in a process of its own, to a sink of its own."""
    with tempfile.TemporaryDirectory() as folder:
        came = Path(folder, "came")
        with Sink(case.partitions, arrivals=came) as sink:
            try:
                with ChildProcess(Job(contender, sink.address, ("arrival",), records, case, ARRIVAL)) as child:
                    outcome = child.outcome()
            except VoidError as error:
                return Run(contender, records, void=str(error))
            wrong = problems(sink.counted(), outcome.first + outcome.acknowledged)
        # The client's first records were acknowledged before, and have no time in their values.
        seconds = arrived(came)[outcome.first :]
    if not wrong and len(seconds) != records:
        wrong = f"{records} records were to be sent, and {len(seconds)} came"
    if wrong:
        return Run(contender, records, void=wrong)
    return Run(contender, records, outcome.seconds, peak_rss=outcome.peak_rss, latency_ms=percentiles_ms(seconds))


def report(arrivals: Arrivals) -> str:
    """A table, and below it what is asked."""
    rows = [("", *(f"{where}, {part} ms" for where in ("alone", "beside threads") for part in ("p50", "p99", "p99.9")))]
    for name in PACED:
        if any(name in one for one in arrivals.rounds[ALONE]):
            cells = (_shown(rounds, name, place) for rounds in arrivals.rounds.values() for place in range(3))
            rows.append((name, *cells))
    head = "From the call of send() to the server's socket, alone and beside two CPU-bound threads (on the sink)"
    return "\n".join([head, aligned(rows), *map(str, arrivals.judged())])


def _told(found: Run) -> str:
    return found.void or "p50 {:.3f}, p99 {:.3f}, p99.9 {:.3f} ms".format(*found.latency_ms)


def _shown(rounds: list[Round], name: str, place: int) -> str:
    found: Spread | None = figures(rounds, name, lambda run: run.latency_ms[place])
    return "void" if found is None else format(found, ".3f")
