"""One measurement, in a process of its own: build the client, warm it, run the clock."""

from __future__ import annotations

import gc
import resource
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Protocol

from comparing.contenders import CONTENDERS
from comparing.job import FILLED, OUTCOME, READY, Job, Outcome
from comparing.workload import key_values

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Client(Protocol):
    """What a contender is to this file. It is made with the Job."""

    def open(self) -> int:
        """Connect and deliver a few records; how many."""

    def send(self, pairs: Iterator[tuple[bytes, bytes]], count: int) -> int:
        """Send all of `pairs` (there are `count`); how many were sent."""

    def finish(self) -> int:
        """Wait until all of them are done; how many were acknowledged."""

    def close(self) -> None:
        """Give everything back."""


def measure(job: Job) -> None:
    """Run `job` and print its outcome as the last line of the output."""
    module, name = CONTENDERS[job.contender].client
    client: Client = getattr(import_module(module), name)(job)
    first = client.open()
    pairs = key_values(job.records, job.value_size)
    gc.collect()
    outcome = _drain(client, job, pairs, first) if job.drain else _run(client, job, pairs, first)
    print(OUTCOME + outcome.to_json(), flush=True)
    client.close()


def _run(client: Client, job: Job, pairs: Iterator[tuple[bytes, bytes]], first: int) -> Outcome:
    busy = _Busy() if job.busy else None
    cpu, began = _cpu_seconds(), time.perf_counter()
    sent = client.send(pairs, job.records)
    acknowledged = client.finish()
    seconds, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
    if busy is not None:
        busy.stop()
    return Outcome(sent, acknowledged, first, seconds, cpu, _peak_rss())


def _drain(client: Client, job: Job, pairs: Iterator[tuple[bytes, bytes]], first: int) -> Outcome:
    """Accept everything while the broker stands still. The parent stops it before and lets it go on after the word
    FILLED; it also takes the time, so that this process's busy thread cannot delay the clock."""
    print(READY, flush=True)
    sys.stdin.readline()
    sent = client.send(pairs, job.records)
    busy = _Busy() if job.busy else None
    print(FILLED, flush=True)
    began = time.perf_counter()
    acknowledged = client.finish()
    seconds = time.perf_counter() - began
    if busy is not None:
        busy.stop()
    return Outcome(sent, acknowledged, first, seconds, 0.0, _peak_rss())


class _Busy:
    """A Python thread that computes and never waits, as a program with work of its own has it."""

    def __init__(self) -> None:
        self._running = True
        self._thread = threading.Thread(target=self._compute, name="busy")
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._running = False
        self._thread.join()

    def _compute(self) -> None:
        number = 0
        while self._running:
            number = (number * 31 + 7) % 1_000_003


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
