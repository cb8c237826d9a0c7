"""Measurements on one server: fresh topics and a fresh process each, judged by the server's own count."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from comparing.child_process import ChildProcess, VoidError
from comparing.job import (
    DRAIN,
    DRAIN_QUEUE_BYTES,
    FILLED,
    MEMORY,
    QUEUE_BYTES,
    READY,
    STALLED,
    THROUGHPUT,
    Case,
    Job,
    Outcome,
)
from comparing.servers import BrokerPlace, Place, Server

# A stop signal takes effect a moment after it was sent, and a file's times are only as fine as the kernel's tick.
_STOPPING_S = 0.02
_TICK_S = 0.01
_SPIN = "while True: pass"


@dataclass(frozen=True)
class Run:
    """One measurement. `void` says why it does not count; then the figures mean nothing.

    `queued_rss`: bytes by which the process grew, all records together. `latency_ms`: p50, p99, p99.9. `stored_bytes`:
    what the server holds of it.
    """

    contender: str
    records: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss: int = 0
    queued_rss: int = 0
    latency_ms: tuple[float, ...] = ()
    stored_bytes: int = 0
    void: str = ""

    @property
    def rate(self) -> float:
        """Acknowledged records per second."""
        return self.records / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per acknowledged record."""
        return self.cpu_seconds / self.records * 1e6

    @property
    def queued_bytes(self) -> float:
        """Bytes of memory a queued record."""
        return self.queued_rss / self.records

    @property
    def stored(self) -> float:
        """Bytes a record on the server."""
        return self.stored_bytes / self.records


class Bench:
    """Measures on a server that the caller has started."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._topics = 0

    def measure(self, case: Case, contender: str, records: int, kind: str = THROUGHPUT) -> Run:
        """In a process of its own, with the clock there."""
        topics = self._names(contender, case)
        try:
            with self._server.place(topics, case.partitions) as place:
                job = _job(contender, place, topics, records, case, kind)
                with ChildProcess(job) as child:
                    if kind in STALLED:
                        _fill(child, place)
                        place.resume()
                    outcome = child.outcome()
                return _run(job, outcome, place)
        except VoidError as error:
            return Run(contender, records, void=str(error))

    def drain(self, case: Case, contender: str, records: int, *, neighbour: bool = False) -> Run:
        """From the moment the broker goes on to the last write to its log, of records it was not there to take.

        `neighbour`: another process computes beside them, so that the cores are as busy as beside a Python thread and
        the client's interpreter is not. The server must be a real broker.
        """
        topics = self._names(contender, case)
        try:
            with self._server.place(topics, case.partitions) as place:
                assert isinstance(place, BrokerPlace)
                job = _job(contender, place, topics, records, case, DRAIN)
                with ChildProcess(job) as child, _computing(neighbour):
                    _fill(child, place)
                    began = time.time()
                    place.resume()
                    outcome = child.outcome()
                _run(job, outcome, place)
                return Run(contender, outcome.acknowledged, max(place.last_write() - began, _TICK_S))
        except VoidError as error:
            return Run(contender, records, void=str(error))

    def _names(self, contender: str, case: Case) -> tuple[str, ...]:
        self._topics += 1
        return tuple(f"{contender}-{self._topics}-{number}" for number in range(case.topics))


def _job(contender: str, place: Place, topics: tuple[str, ...], records: int, case: Case, kind: str) -> Job:
    queue = DRAIN_QUEUE_BYTES if kind in STALLED else QUEUE_BYTES
    return Job(contender, place.address, topics, records, case, kind, queue)


def _fill(child: ChildProcess, place: Place) -> None:
    """Let the client accept everything while the server stands still; the caller lets it go on."""
    child.wait_for(READY)
    place.pause()
    try:
        time.sleep(_STOPPING_S)
        child.tell(READY)
        child.wait_for(FILLED)
    except BaseException:
        place.resume()
        raise


def _run(job: Job, outcome: Outcome, place: Place) -> Run:
    """What came of it. VoidError unless the server holds what the client says was acknowledged."""
    if outcome.sent != outcome.acknowledged:
        raise VoidError(f"{outcome.sent} records were sent and {outcome.acknowledged} acknowledged")
    found, told = place.records(), outcome.first + outcome.acknowledged
    if found != told:
        raise VoidError(f"{told} records were acknowledged, and the server holds {found}")
    return Run(
        job.contender,
        outcome.acknowledged,
        outcome.seconds,
        outcome.cpu_seconds,
        outcome.peak_rss,
        outcome.queued_rss if job.kind == MEMORY else 0,
        outcome.latency_ms,
        round(place.stored_bytes() * outcome.acknowledged / told),
    )


@contextlib.contextmanager
def _computing(wanted: bool) -> Iterator[None]:
    """Another process that computes and never waits."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", _SPIN]) as process:
        try:
            yield
        finally:
            process.kill()
