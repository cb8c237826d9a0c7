"""One broker, and measurements on it: a fresh topic and a fresh process each, judged by the end offsets."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from comparing.ceiling import PARTITIONS
from comparing.child_process import ChildProcess, VoidError
from comparing.job import DRAIN_QUEUE_BYTES, FILLED, QUEUE_BYTES, READY, Job
from fastprod.testing import KafkaBroker

_GONE_S = 30
_POLL_S = 0.05
# A stop signal takes effect a moment after it was sent, and a file's times are only as fine as the kernel's tick.
_STOPPING_S = 0.02
_TICK_S = 0.01
_SPIN = "while True: pass"

# A deleted topic's data goes at once, not after a minute: the log is in memory, and deleting must not fall into the
# next measurement.
BROKER_PROPERTIES = {"log.segment.delete.delay.ms": 100, "log.initial.task.delay.ms": 100}


@dataclass(frozen=True)
class Run:
    """One measurement. `void` says why it does not count; then the figures mean nothing."""

    contender: str
    records: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss: int = 0
    void: str = ""

    @property
    def rate(self) -> float:
        """Acknowledged records per second."""
        return self.records / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per acknowledged record."""
        return self.cpu_seconds / self.records * 1e6


class Bench:
    """Measures on a broker that the caller has started."""

    def __init__(self, broker: KafkaBroker, value_size: int, compression: str | None) -> None:
        self._broker = broker
        self._value_size = value_size
        self._compression = compression
        self._topics = 0

    def measure(self, contender: str, records: int, *, busy: bool = False) -> Run:
        """From the first send to the last acknowledgement, by the clock of the client's own process."""
        job = self._job(contender, records, busy=busy, drain=False)
        with self._topic(job):
            try:
                return self._throughput(job)
            except VoidError as error:
                return Run(contender, records, void=str(error))

    def drain(self, contender: str, records: int, *, busy: bool = False, neighbour: bool = False) -> Run:
        """From the moment the broker goes on to the last write to its log, of records it was not there to take.

        `busy`: a Python thread computes beside them in the client. `neighbour`: another process does, so that the
        cores are as busy and the client's interpreter is not.
        """
        job = self._job(contender, records, busy=busy, drain=True)
        with self._topic(job):
            try:
                return self._drained(job, neighbour)
            except VoidError as error:
                return Run(contender, records, void=str(error))

    def _throughput(self, job: Job) -> Run:
        with ChildProcess(job) as child:
            outcome = child.outcome()
        self._check(job, outcome.sent, outcome.acknowledged, outcome.first)
        return Run(job.contender, outcome.acknowledged, outcome.seconds, outcome.cpu_seconds, outcome.peak_rss)

    def _drained(self, job: Job, neighbour: bool) -> Run:
        with ChildProcess(job) as child, _computing(neighbour):
            child.wait_for(READY)
            self._broker.pause()
            try:
                time.sleep(_STOPPING_S)
                child.tell(READY)
                child.wait_for(FILLED)
            finally:
                began = time.time()
                self._broker.resume()
            outcome = child.outcome()
        self._check(job, outcome.sent, outcome.acknowledged, outcome.first)
        return Run(job.contender, outcome.acknowledged, max(self._last_write(job.topic) - began, _TICK_S))

    def _last_write(self, topic: str) -> float:
        """When the log of the topic was written to last: a clock that no thread of the client can delay."""
        segments = [path for partition in range(PARTITIONS) for path in self._broker.log_segments(topic, partition)]
        return max(path.stat().st_mtime for path in segments)

    def _check(self, job: Job, sent: int, acknowledged: int, first: int) -> None:
        if sent != acknowledged:
            raise VoidError(f"{sent} records were sent and {acknowledged} acknowledged")
        found = sum(self._broker.end_offset(job.topic, partition) for partition in range(PARTITIONS))
        if found != first + acknowledged:
            raise VoidError(f"{first + acknowledged} records were acknowledged, and the topic holds {found}")

    def _job(self, contender: str, records: int, *, busy: bool, drain: bool) -> Job:
        self._topics += 1
        return Job(
            contender,
            self._broker.bootstrap_servers,
            f"{contender}-{self._topics}",
            records,
            self._value_size,
            self._compression,
            DRAIN_QUEUE_BYTES if drain else QUEUE_BYTES,
            busy,
            drain,
        )

    @contextlib.contextmanager
    def _topic(self, job: Job) -> Iterator[None]:
        """The topic, and in the end its deletion, waited for: the next measurement must not share a core with it."""
        self._broker.create_topic(job.topic, PARTITIONS)
        yield
        self._broker.delete_topic(job.topic)
        deadline = time.monotonic() + _GONE_S
        while any(self._broker.directory.glob(f"**/{job.topic}-*")) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


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
