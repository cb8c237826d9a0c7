"""One measurement, in a process of its own: build the client, warm it, run the clock."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import psutil

from comparing.contenders import CONTENDERS
from comparing.counting import percentiles_ms
from comparing.job import ARRIVAL, FILLED, LATENCY, OUTCOME, READY, STALLED, Job, Outcome
from comparing.workload import Share, page

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Client(Protocol):
    """What a contender is to this file. It is made with the Job."""

    def open(self) -> int:
        """Connect and deliver a few records; how many."""

    def prepare(self, share: Share) -> Any:
        """What `send` wants of a thread's share. The clock does not run yet."""

    def send(self, prepared: Any) -> int:
        """Send what was prepared; how many records. Called from several threads at once where the case says so."""

    def finish(self) -> int:
        """Wait until all of them are done; how many were acknowledged."""

    def close(self) -> None:
        """Give everything back."""

    def latencies(self, share: Share) -> list[float]:
        """Send each record when the one before is acknowledged; seconds of each. Only where the contender offers it."""

    def pace(self, share: Share) -> int:
        """Send records now and then, each with the time of its call; how many. Only where the contender offers it."""


def measure(job: Job) -> None:
    """Run `job` and print its outcome as the last line of the output."""
    module, name = CONTENDERS[job.contender].client
    client: Client = getattr(import_module(module), name)(job)
    page(job.case.value_size)
    first = client.open()
    run = _RUNS.get(job.kind, _throughput)
    gc.collect()
    print(OUTCOME + run(client, job, first).to_json(), flush=True)
    client.close()


def _throughput(client: Client, job: Job, first: int) -> Outcome:
    prepared = [client.prepare(share) for share in _shares(job)]
    gc.collect()
    with _busy(job.case.busy):
        cpu, began = _cpu_seconds(), time.perf_counter()
        sent = _together(client, prepared)
        acknowledged = client.finish()
        seconds, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
    return Outcome(sent, acknowledged, first, seconds, cpu, _peak_rss())


def _stalled(client: Client, job: Job, first: int) -> Outcome:
    """Accept everything while the server stands still. The parent stops it before and lets it go on after the word
    FILLED; where the time counts it takes that, too, so that this process's busy thread cannot delay the clock."""
    prepared = [client.prepare(share) for share in _shares(job)]
    gc.collect()
    print(READY, flush=True)
    sys.stdin.readline()
    before = _rss()
    sent = _together(client, prepared)
    queued = _rss() - before
    with _busy(job.case.busy):
        print(FILLED, flush=True)
        began = time.perf_counter()
        acknowledged = client.finish()
        seconds = time.perf_counter() - began
    return Outcome(sent, acknowledged, first, seconds, 0.0, _peak_rss(), queued)


def _one_by_one(client: Client, job: Job, first: int) -> Outcome:
    with _busy(job.case.busy):
        cpu, began = _cpu_seconds(), time.perf_counter()
        taken = client.latencies(Share(job.topics, job.case.value_size, job.records))
        seconds, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
    return Outcome(len(taken), len(taken), first, seconds, cpu, _peak_rss(), 0, percentiles_ms(taken))


def _now_and_then(client: Client, job: Job, first: int) -> Outcome:
    """How long they took is told by the server, which sees them come."""
    with _busy(job.case.busy):
        began = time.perf_counter()
        sent = client.pace(Share(job.topics, job.case.value_size, job.records))
        acknowledged = client.finish()
        seconds = time.perf_counter() - began
    return Outcome(sent, acknowledged, first, seconds, 0.0, _peak_rss())


_RUNS = {LATENCY: _one_by_one, ARRIVAL: _now_and_then, **dict.fromkeys(STALLED, _stalled)}


def _shares(job: Job) -> list[Share]:
    """As many as there are threads; each sends the stream from its beginning."""
    threads = job.case.threads
    counts = [job.records // threads + (number < job.records % threads) for number in range(threads)]
    return [Share(job.topics, job.case.value_size, count) for count in counts]


def _together(client: Client, prepared: list[Any]) -> int:
    """Send all shares, one in this thread and each of the others in one of its own; how many records were sent."""
    sent = [0] * len(prepared)

    def send(number: int) -> None:
        sent[number] = client.send(prepared[number])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(1, len(prepared))]
    for thread in threads:
        thread.start()
    send(0)
    for thread in threads:
        thread.join()
    return sum(sent)


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Python threads that compute and never wait, as a program with work of its own has them."""
    running = True

    def compute() -> None:
        number = 0
        while running:
            number = (number * 31 + 7) % 1_000_003

    threads = [threading.Thread(target=compute, name=f"busy-{number}") for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        running = False
        for thread in threads:
            thread.join()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _rss() -> int:
    return int(psutil.Process().memory_info().rss)


def _peak_rss() -> int:
    """The most this program has had. Where the kernel tells it of the program itself: `getrusage` may tell the peak of
    the process that started it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
