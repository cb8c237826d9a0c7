"""Splitting, metrics windows, the loop, the journal, frames and answers of the wire."""

from __future__ import annotations

import collections
import logging
import os
import socket
import threading
import time
from math import inf
from types import SimpleNamespace
from typing import Any

import interleaved
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import in_time

from fastprod import errors
from fastprod.control import connection, splitting, wire
from fastprod.control.cluster import Leader
from fastprod.control.frames import FrameReader
from fastprod.control.journal import Journal
from fastprod.control.loop import READ, Loop
from fastprod.control.metrics import Metrics
from fastprod.control.refusals import Refusal, batch_error
from fastprod.protocol import (
    MetadataBroker,
    MetadataPartition,
    MetadataResponse,
    MetadataTopic,
    encode_message,
)

Records = st.lists(st.binary(max_size=300), min_size=2, max_size=40)


class TestSplitting:
    @given(values=Records, share=st.floats(0, 1))
    def test_order_is_kept_and_it_always_ends(self, values: list[bytes], share: float) -> None:
        records = [(0, None, value, []) for value in values]
        groups = splitting.groups(records, share)
        assert [each for group in groups for each in group] == records
        assert len(groups) >= 2
        assert all(groups)
        limit = sum(map(splitting.record_size, records)) * min(share, 0.5)
        for group in groups:
            assert len(group) == 1 or sum(map(splitting.record_size, group)) <= limit

    def test_a_topic_remembers_the_smallest_refusal(self) -> None:
        memory = splitting.SizeMemory()
        assert memory.refused("t", 10_000) == 5000
        assert memory.refused("t", 20_000) == 5000
        assert memory.refused("t", 4000) == 2000
        assert memory.refused("u", 6000) == 3000
        memory.forget("t")
        assert memory.refused("t", 20_000) == 10_000


class TestMetrics:
    def make(self, samples: int = 2, window_ms: float = 1000) -> tuple[Metrics, dict, list[float]]:
        counters = {"records_sent": 0.0, "batch_bytes": 0.0, "batches_sent": 0.0}
        clock = [100.0]

        def read() -> dict[str, dict[str, float]]:
            taken = {"producer-metrics": dict(counters)}
            counters.pop("batch_size_max", None)
            return taken

        return Metrics(read, "c", samples, window_ms, lambda: clock[0]), counters, clock

    def value(self, metrics: Metrics, name: str) -> float:
        return metrics.snapshot()["producer-metrics"][name]

    def test_nothing_yet(self) -> None:
        metrics, _, _ = self.make()
        assert self.value(metrics, "record-send-rate") == 0
        assert self.value(metrics, "batch-size-avg") == 0
        assert self.value(metrics, "batch-size-max") == -inf

    @pytest.mark.parametrize(("samples", "window_ms", "rate"), [(2, 1000, 50), (5, 1000, 20)])
    def test_rates_count_all_windows_but_one(
        self, samples: int, window_ms: float, rate: float
    ) -> None:
        metrics, counters, clock = self.make(samples, window_ms)
        counters["records_sent"] = 50.0 + 50.0 * 0.0
        clock[0] += 0.25
        expected = 50 / (0.25 + (samples - 1) * window_ms / 1000)
        assert self.value(metrics, "record-send-rate") == pytest.approx(expected)

    def test_old_windows_are_forgotten(self) -> None:
        metrics, counters, clock = self.make(2, 1000)
        counters.update(records_sent=100.0, batch_bytes=1000.0, batches_sent=1.0)
        counters["batch_size_max"] = 1000.0
        assert self.value(metrics, "batch-size-max") == 1000
        for _ in range(3):
            clock[0] += 1.0
            metrics.sample()
        assert self.value(metrics, "record-send-rate") == 0
        assert self.value(metrics, "batch-size-max") == -inf
        counters.update(batch_bytes=1010.0, batches_sent=2.0)
        assert self.value(metrics, "batch-size-avg") == 10

    def test_answers_that_did_not_throttle(self) -> None:
        metrics, counters, clock = self.make(2, 1000)
        counters.update(responses=0.0, throttle_ms=0.0, throttle_max_ms=0.0)
        assert self.value(metrics, "throttle-time-max") == -inf
        counters["responses"] = 1.0
        assert self.value(metrics, "throttle-time-max") == 0
        counters.update(responses=2.0, throttle_ms=5.0, throttle_max_ms=5.0)
        assert self.value(metrics, "throttle-time-max") == 5
        counters["throttle_max_ms"] = 0.0
        for _ in range(3):
            clock[0] += 1.0
            metrics.sample()
        assert self.value(metrics, "throttle-time-max") == -inf

    def test_raw_values_live(self) -> None:
        metrics, counters, clock = self.make()
        (metric,) = (
            each for name, each in metrics.raw().items() if name.name == "record-send-rate"
        )
        assert metric.value() == 0
        counters["records_sent"] = 10.0
        clock[0] += 1
        assert metric.value() > 0


class TestLoop:
    def test_timers_run_in_order(self) -> None:
        loop, ran = Loop(Journal("x")), []
        for delay in (0.03, 0.01, 0.02):
            loop.call_later(delay, lambda delay=delay: ran.append(delay))
        loop.call_later(0.015, lambda: ran.append("cancelled")).cancel()
        deadline = time.monotonic() + 20
        while len(ran) < 3 and time.monotonic() < deadline:
            loop.run_once(1)
        assert ran == [0.01, 0.02, 0.03]
        loop.close()

    def test_calls_from_other_threads_wake_it(self) -> None:
        loop, ran = Loop(Journal("x")), []
        threading.Timer(0.1, lambda: loop.call_threadsafe(lambda: ran.append(1))).start()
        with in_time("the call", 0.1, slack_s=4.9):
            loop.run_once(10)
        assert ran == [1]
        loop.close()

    def test_one_that_raises_does_not_stop_the_others(self) -> None:
        loop, ran = Loop(Journal("x")), []

        def broken() -> None:
            raise ValueError

        loop.call_threadsafe(broken)
        loop.call_threadsafe(lambda: ran.append(1))
        loop.run_once(0)
        assert ran == [1]
        loop.close()

    def test_it_is_not_entered_twice(self) -> None:
        loop, seen = Loop(Journal("x")), []

        def again() -> None:
            with pytest.raises(RuntimeError):
                loop.run_once(0)
            seen.append(loop.busy)

        loop.call_threadsafe(again)
        loop.run_once(0)
        assert seen == [True]
        loop.close()

    def test_a_socket_closed_by_an_earlier_handler_is_left_alone(self) -> None:
        loop, ran = Loop(Journal("x")), []
        pairs = [socket.socketpair() for _ in range(2)]

        def handler(mine: int) -> None:
            ran.append(mine)
            for ours, _ in pairs:
                loop.unwatch(ours)

        for number, (ours, theirs) in enumerate(pairs):
            loop.watch(ours, READ, lambda _, number=number: handler(number))
            theirs.send(b"x")
        loop.run_once(1)
        assert len(ran) == 1
        loop.close()
        for pair in pairs:
            for each in pair:
                each.close()

    def test_waking_a_closed_one_is_harmless(self) -> None:
        loop = Loop(Journal("x"))
        loop.close()
        loop.wake()
        loop.call_threadsafe(lambda: None)


def test_the_journal_waits_for_release(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal("fastprod.control.test")
    journal.warning("before %s", 1)
    journal.own()
    journal.warning("kept %s", 2)
    assert caplog.messages == ["before 1"]
    thread = threading.Thread(target=lambda: journal.error("elsewhere"))
    thread.start()
    thread.join()
    journal.release()
    assert caplog.messages == ["before 1", "elsewhere", "kept 2"]


def test_a_logging_handler_that_raises_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError

    logger = logging.getLogger("fastprod.control.broken")
    monkeypatch.setattr(logger, "handlers", [Broken()])
    monkeypatch.setattr(logger, "propagate", False)
    journal = Journal(logger.name)
    journal.own()
    journal.warning("one")
    journal.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.parametrize("owned", [True, False], ids=["on the control thread", "on another thread"])
def test_forks_do_not_come_into_the_middle_of_a_message(monkeypatch: pytest.MonkeyPatch, owned: bool) -> None:
    began, stream = threading.Event(), threading.Lock()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with stream:
                began.set()
                time.sleep(0.1)

    logger = logging.getLogger("fastprod.control.slow")
    monkeypatch.setattr(logger, "handlers", [Slow()])
    monkeypatch.setattr(logger, "propagate", False)
    journal = Journal(logger.name)

    def write() -> None:
        if owned:
            journal.own()
        journal.warning("one")
        journal.release()

    thread = threading.Thread(target=write)
    thread.start()
    assert began.wait(20)
    child = os.fork()
    if child == 0:
        os._exit(stream.locked())
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TestFrames:
    @given(frames=st.lists(st.binary(min_size=4, max_size=50), max_size=6), cut=st.integers(1, 9))
    def test_whole_and_in_pieces(self, frames: list[bytes], cut: int) -> None:
        data = b"".join(len(each).to_bytes(4, "big") + each for each in frames)
        reader, found = FrameReader(100), []
        for start in range(0, len(data), cut):
            reader.feed(data[start : start + cut])
            while (frame := reader.next()) is not None:
                found.append(frame)
        assert found == frames
        assert reader.buffered == 0

    @given(data=st.binary(min_size=4, max_size=40))
    def test_anything_else_is_an_error_or_incomplete(self, data: bytes) -> None:
        reader = FrameReader(1000)
        reader.feed(data)
        try:
            frame = reader.next()
        except errors.InvalidReceiveError:
            return
        assert frame is None or len(frame) >= 4


class TestWire:
    def read(self, version: int, *partitions: int, epoch: int = 3) -> wire.MetadataAnswer:
        topic = MetadataTopic(
            0,
            "t",
            bytes(16),
            False,
            tuple(MetadataPartition(0, each, 1, epoch) for each in partitions),
        )
        response = MetadataResponse(brokers=(MetadataBroker(1, "h", 2),), topics=(topic,))
        header = b"\0\0\0\0" + (b"\0" if version >= 9 else b"")
        call = wire.metadata(["t"], True)
        return call.read(version, header + encode_message(response, version)).value

    @pytest.mark.parametrize("version", range(4, 14))
    def test_epochs_are_trusted_from_version_9_on(self, version: int) -> None:
        (topic,) = self.read(version, 0).topics
        assert topic.leaders == (Leader(1, 3 if version >= 9 else -1),)
        assert topic.topic_id is None

    def test_partitions_come_in_any_order(self) -> None:
        assert len(self.read(12, 2, 0, 1).topics[0].leaders) == 3

    @pytest.mark.parametrize("numbers", [(0, 0), (1,), (0, 2), (-1,), (2**31 - 1,)])
    def test_numbers_that_cannot_be(self, numbers: tuple[int, ...]) -> None:
        with pytest.raises(errors.KafkaProtocolError, match="numbered"):
            self.read(12, *numbers)


def test_every_error_names_its_place() -> None:
    for code in range(-1, 134):
        if code == 0:
            continue
        error = batch_error(Refusal("top", 5, 7, 2, 345, 67.8, 1, code, None, False), 30_000)
        assert "Topic 'top' partition 5, batch of 2 records (345 bytes), broker 7: " in str(error)
        assert "Sent once in 68 ms." in str(error)
        assert error.maybe_written is False


def test_what_a_connection_waits_for_may_come_meanwhile() -> None:
    """Other threads ask, for the words of their errors."""

    def case() -> interleaved.Case:
        made: Any = connection.Connection.__new__(connection.Connection)
        made.state, made.served = connection.State.READY, 1
        made._open = collections.deque([SimpleNamespace(call=SimpleNamespace(name="Metadata"))])
        told: list[str] = []

        def check() -> None:
            assert told[0].split()[2] in ("Metadata", "anything")

        return lambda: told.append(made.waits_for()), made._open.popleft, check

    interleaved.everywhere(connection.__file__, case)
