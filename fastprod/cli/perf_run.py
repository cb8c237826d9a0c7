"""One run of `fastprod perf`: its threads, and whoever looks on meanwhile."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from fastprod import errors
from fastprod.cli.failure import CommandError
from fastprod.cli.perf_load import Failures, Load, Plan, Stop
from fastprod.cli.perf_payload import Payload
from fastprod.cli.perf_report import Result, interim

if TYPE_CHECKING:
    from fastprod import KafkaProducer

_INTERRUPTED = 130
_SLICE_S = 0.1
# Of how many records one is in the sample, and how many are in it at least: more where a record takes long anyway.
_ONE_OF = 500
_LEAST = 2_000
_LEAST_WHEN_SLOW = 10_000
_SLOW = 10_000


class Wanted(NamedTuple):
    """What to do: `rate` in records/s of all threads, None for as many as they can; `interval_s` between lines."""

    records: int
    rate: float | None
    threads: int
    warmup: int
    interval_s: float


class Run:
    """Sends what is wanted; `tell` gets a line for each interval."""

    def __init__(
        self, producer: KafkaProducer, topic: str, payload: Payload, wanted: Wanted, tell: Callable[[str], None]
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._payload = payload
        self._wanted = wanted
        self._tell = tell
        self._stop = Stop()

    def measure(self) -> tuple[int, Result]:
        """Warm up, send, wait; return 0 or the exit status of an interruption, and what was reached.

        CommandError where a record of the warm-up failed.
        """
        self._warm_up()
        loads = [self._load(plan) for plan in _shares(self._wanted)]
        cpu, began = time.process_time(), time.perf_counter()
        status = self._carry_out(loads, self._wanted.interval_s)
        cpu = time.process_time() - cpu
        failures = Failures()
        for load in loads:
            failures.merge(load.failures)
        return status, Result(
            sum(load.acknowledged for load in loads),
            sum(load.bytes for load in loads),
            max(load.ended for load in loads) - began,
            cpu,
            [ms for load in loads for ms in load.latencies.found],
            failures,
        )

    def _warm_up(self) -> None:
        count = self._wanted.warmup
        if not count:
            return
        load = self._load(Plan(count, None, _ONE_OF))
        if self._carry_out([load], None):
            raise KeyboardInterrupt
        for name, text in load.failures.examples.items():
            raise CommandError(f"{load.failures.total:,} of {count:,} warm-up records failed: {name}: {text}")

    def _load(self, plan: Plan) -> Load:
        return Load(self._producer, self._topic, self._payload, plan, self._stop)

    def _carry_out(self, loads: list[Load], interval_s: float | None) -> int:
        """Run them to their end and return 0, or the exit status after a Ctrl-C."""
        for load in loads:
            threading.Thread(target=load.run, name="fastprod-perf", daemon=True).start()
        try:
            if interval_s is not None:
                self._look_on(loads, interval_s)
            _wait(loads)
            return 0
        except KeyboardInterrupt:
            self._stop.wanted = True
        try:
            _wait(loads)
        except KeyboardInterrupt:
            # Whatever the threads wait for ends with this.
            with suppress(errors.KafkaTimeoutError):
                self._producer.close(0)
            _wait(loads)
        return _INTERRUPTED

    def _look_on(self, loads: list[Load], interval_s: float) -> None:
        """Tell of each interval that is over before they are."""
        looked, records, size = time.monotonic(), 0, 0
        seen = [0] * len(loads)
        while not _wait(loads, looked + interval_s):
            seconds, looked = time.monotonic() - looked, time.monotonic()
            fresh = [load.latencies.found[before:] for load, before in zip(loads, seen, strict=True)]
            seen = [before + len(part) for before, part in zip(seen, fresh, strict=True)]
            latencies = [ms for part in fresh for ms in part]
            records_now, size_now = sum(load.acknowledged for load in loads), sum(load.bytes for load in loads)
            self._tell(interim(records_now - records, size_now - size, seconds, latencies))
            records, size = records_now, size_now


def _shares(wanted: Wanted) -> list[Plan]:
    """Return what each thread has to do; none is left without a record."""
    threads = min(wanted.threads, wanted.records)
    rate = None if wanted.rate is None else wanted.rate / threads
    share, rest = divmod(wanted.records, threads)
    every = _one_of(wanted)
    return [Plan(share + (number < rest), rate, every) for number in range(threads)]


def _one_of(wanted: Wanted) -> int:
    """Return of how many records one is in the sample."""
    slow = wanted.rate is not None and wanted.rate <= _SLOW
    return max(1, min(_ONE_OF, wanted.records // (_LEAST_WHEN_SLOW if slow else _LEAST)))


def _wait(loads: list[Load], until: float = math.inf) -> bool:
    """Wait for the end of all of them, at most until then on the monotonic clock; say whether it has come."""
    for load in loads:
        while not load.wait(min(_SLICE_S, max(0.0, until - time.monotonic()))):
            if time.monotonic() >= until:
                return False
    return True
