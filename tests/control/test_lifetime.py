"""Close, abandon, callbacks, re-entry and the end of the program."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import Any

import pytest
from patience import eventually, in_time

from fastprod import errors
from fastprod._pure import accumulator

from .conftest import MakeSender, Sender
from .scripted import METADATA, Batch, Hang, PartitionAnswer, ScriptedBroker


@pytest.fixture
def broker() -> ScriptedBroker:
    with ScriptedBroker() as broker:
        broker.topics["t"] = (0, 2)
        yield broker


def never(batch: Batch) -> PartitionAnswer:
    raise Hang


def threads_of(made: Sender) -> list[threading.Thread]:
    name = f"{made.engine.config['client_id']}-network-thread"
    return [each for each in threading.enumerate() if each.name == name]


class TestClose:
    def test_delivers_what_lingers(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address, linger_ms=60_000)
        futures = [made.send("t", b"v") for _ in range(100)]
        assert len(made.engine.close()) == 0
        assert all(each.succeeded() for each in futures)
        assert not threads_of(made)

    def test_refuses_more(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address)
        made.engine.partitions_for("t")
        made.engine.close()
        for topic in ("t", "unknown"):
            with pytest.raises(errors.IllegalStateError, match="closed"):
                made.send(topic, b"v")

    def test_afterwards(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address)
        assert made.engine.partitions_for("t") == {0, 1}
        made.engine.close()
        assert made.engine.partitions_for("t") == {0, 1}
        with pytest.raises(errors.IllegalStateError):
            made.engine.partitions_for("unknown")
        assert made.engine.flush(1) is True
        assert made.engine.metrics() == {}
        assert made.engine.bootstrap_connected() is False
        assert len(made.engine.close(0)) == 0

    @pytest.mark.parametrize("seconds", [0, 0.5])
    def test_keeps_its_timeout_and_hands_back_the_rest(
        self, sender: MakeSender, broker: ScriptedBroker, seconds: float
    ) -> None:
        broker.judge = never
        made = sender(broker.address, linger_ms=5)
        futures = [
            made.send("t", b"v%d" % each, key=b"k", headers=[("h", b"x")], timestamp_ms=each)
            for each in range(50)
        ]
        time.sleep(0.3)
        with in_time(f"close({seconds})", seconds, at_least_s=seconds, slack_s=0.5):
            left = made.engine.close(seconds)
        assert len(left) == 50
        for future in futures:
            with pytest.raises(errors.IllegalStateError, match="closed forcefully"):
                future.get(0)
        records = sorted(left.records(), key=lambda each: each.timestamp_ms)
        assert [each.value for each in records] == [b"v%d" % each for each in range(50)]
        assert {(each.topic, each.key, tuple(each.headers)) for each in records} == {
            ("t", b"k", (("h", b"x"),))
        }
        assert all(each.maybe_written for each in records)
        assert isinstance(records[0].error, errors.IllegalStateError)
        assert not threads_of(made)

    def test_compressed_leftovers(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.judge = never
        made = sender(broker.address, linger_ms=5, compression_type="gzip")
        for each in range(50):
            made.send("t", b"value %d" % each, partition=0)
        time.sleep(0.3)
        left = made.engine.close(0).records()
        assert [each.value for each in left] == [b"value %d" % each for each in range(50)]

    def test_brokers_away(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address, request_timeout_ms=500, delivery_timeout_ms=1000)
        made.engine.partitions_for("t")
        broker.close()
        future = made.send("t", b"v")
        with in_time("close()", 1, slack_s=4):
            assert len(made.engine.close()) == 0
        assert isinstance(future.exception, errors.KafkaTimeoutError)

    def test_never_connected(self, sender: MakeSender) -> None:
        made = sender("127.0.0.1:1", bootstrap=None)
        with in_time("close()", 0, slack_s=1):
            made.engine.close()

    def test_from_two_threads(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.judge = never
        made = sender(broker.address)
        made.send("t", b"v")
        waiting = threading.Thread(target=made.engine.close)
        waiting.start()
        time.sleep(0.2)
        assert len(made.engine.close(0)) == 1
        waiting.join(5)
        assert not waiting.is_alive()

    @pytest.mark.pure_only
    def test_by_a_signals_handler_in_the_middle_of_a_send(
        self, sender: MakeSender, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It would wait for the send, which waits for it; afterwards it goes on where it was."""
        made = sender(broker.address)
        made.send("t", b"first").get(10)
        open_batch = accumulator._open_batch
        raised: list[BaseException] = []

        def interrupted(*given: Any) -> Any:
            monkeypatch.undo()
            try:
                made.engine.close(20)
            except BaseException as error:
                raised.append(error)
            return open_batch(*given)

        monkeypatch.setattr(accumulator, "_open_batch", interrupted)
        future = made.send("t", b"second")
        (error,) = raised
        assert isinstance(error, errors.IllegalStateError)
        assert "in the middle of another call" in str(error)
        assert list(made.engine.close(20)) == []
        assert future.succeeded()

    def test_ends_a_blocked_send(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address)
        caught: list[BaseException] = []

        def blocked() -> None:
            try:
                made.send("unknown", b"v")
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=blocked)
        thread.start()
        time.sleep(0.3)
        made.engine.close(0)
        thread.join(2)
        assert isinstance(caught[0], errors.IllegalStateError)

    def test_a_callback_that_hangs_does_not_hold_it_up(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        over = threading.Event()
        made = sender(broker.address)
        made.send("t", b"v").add_callback(lambda _: over.wait(20))
        time.sleep(0.3)
        with in_time("close(0.2)", 0.2, slack_s=0.8):
            made.engine.close(0.2)
        over.set()


class TestAbandon:
    def test_delivers_and_ends_by_itself(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address, linger_ms=60_000)
        future = made.send("t", b"v")
        made.engine.abandon()
        assert future.get(5).partition in (0, 1)
        eventually(lambda: not threads_of(made), "the end of its thread")

    def test_gives_up_after_its_budget(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.judge = never
        made = sender(broker.address)
        future = made.send("t", b"v")
        made.engine.abandon(0.2)
        eventually(lambda: not threads_of(made), "the end of its thread")
        assert isinstance(future.exception, errors.IllegalStateError)

    def test_a_closed_engine_is_let_go(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        from fastprod import config
        from fastprod.control.producer import Engine

        engine = Engine(config.load({"bootstrap_servers": broker.address}))
        engine.bootstrap(10)
        engine.close()
        seen = weakref.ref(engine)
        del engine
        gc.collect()
        assert seen() is None


class TestCallbacks:
    def test_flush_returns_after_them(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address)
        ran: list[int] = []
        for each in range(50):
            made.send("t", b"v", partition=0).add_callback(lambda _, each=each: ran.append(each))
        assert made.engine.flush(10)
        assert ran == list(range(50))

    def test_they_run_on_the_network_thread(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        made = sender(broker.address, client_id="abc", linger_ms=50)
        names: list[str] = []
        future = made.send("t", b"v")
        future.add_callback(lambda _: names.append(threading.current_thread().name))
        made.engine.flush(10)
        assert names == ["abc-network-thread"]

    @pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
    def test_one_that_raises(
        self, sender: MakeSender, broker: ScriptedBroker, kind: type[BaseException]
    ) -> None:
        made = sender(broker.address, linger_ms=20)

        def broken(_: object) -> None:
            raise kind

        made.send("t", b"v", partition=0).add_callback(broken)
        ran = []
        made.send("t", b"v", partition=0).add_callback(ran.append)
        assert made.engine.flush(10)
        assert len(ran) == 1
        made.send("t", b"v").get(10)

    def test_one_that_raises_where_a_logging_filter_does_too(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        def give_up(_: object) -> bool:
            raise SystemExit

        made = sender(broker.address, linger_ms=20)
        ran: list[object] = []
        logger = logging.getLogger("fastprod")
        logger.addFilter(give_up)
        try:
            made.send("t", b"v", partition=0).add_callback(int)
            made.send("t", b"v", partition=0).add_callback(ran.append)
            assert made.engine.flush(10)
        finally:
            logger.removeFilter(give_up)
        assert len(ran) == 1

    def in_callback(self, made: Sender, action: object) -> object:
        """Run `action` in a delivery callback and return its result, or what it raised."""
        result: list[object] = []

        def run(_: object) -> None:
            try:
                result.append(action())
            except BaseException as error:
                result.append(error)

        future = made.send("t", b"v", partition=0)
        future.add_both(run)
        eventually(lambda: result, "the callback")
        return result[0]

    def test_send_to_an_unknown_topic(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.topics["u"] = (0, 1)
        made = sender(broker.address, linger_ms=20)
        future = self.in_callback(made, lambda: made.send("u", b"v"))
        assert future.get(10).topic == "u"

    def test_send_to_one_that_does_not_exist(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        made = sender(broker.address, linger_ms=20, max_block_ms=300)
        error = self.in_callback(made, lambda: made.send("nope", b"v"))
        assert isinstance(error, errors.KafkaTimeoutError)
        made.send("t", b"v").get(10)

    def test_partitions_for(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.topics["u"] = (0, 1)
        made = sender(broker.address, linger_ms=20)
        assert self.in_callback(made, lambda: made.engine.partitions_for("u")) == {0}

    def test_get(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address, linger_ms=20)
        result = self.in_callback(made, lambda: made.send("t", b"v", partition=1).get(5))
        assert result.partition == 1

    def test_flush_is_refused(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address, linger_ms=20)
        error = self.in_callback(made, made.engine.flush)
        assert isinstance(error, errors.IllegalStateError)

    def test_close_acts_as_close_0(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address, linger_ms=20)
        self.in_callback(made, made.engine.close)
        eventually(lambda: not threads_of(made), "the end of its thread")
        with pytest.raises(errors.IllegalStateError):
            made.send("t", b"v")

    def test_metadata_goes_on_while_one_runs(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        made = sender(broker.address, linger_ms=20)
        broker.topics["u"] = (0, 1)

        def wait() -> object:
            made.engine.pump(0.01)
            return broker.count(METADATA)

        assert isinstance(self.in_callback(made, wait), int)


class TestInternalErrors:
    def test_a_handler_that_raises_does_not_end_the_loop(
        self,
        sender: MakeSender,
        broker: ScriptedBroker,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        made = sender(broker.address)

        def broken() -> None:
            raise RuntimeError("boom")

        made.engine._loop.call_threadsafe(broken)
        made.send("t", b"v").get(10)
        made.engine.close(10)
        assert any("Internal error" in each for each in caplog.messages)

    def test_a_loop_that_fails_for_good_fails_everything(
        self, sender: MakeSender, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = sender(broker.address)
        made.engine.partitions_for("t")
        monkeypatch.setattr("fastprod.control.control_thread._AFTER_ERROR_S", 0.001)

        def broken(_: float) -> None:
            raise RuntimeError("boom")

        monkeypatch.setattr(made.engine._thread, "_pass", broken)
        eventually(lambda: made.engine._fatal, "the end of the engine")
        future = made.send("t", b"v")
        with pytest.raises(errors.KafkaError, match="boom"):
            future.get(1)

    def test_a_logging_handler_that_sends(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.topics["logs"] = (0, 1)
        made = sender(broker.address, max_block_ms=2000)
        sent: list[object] = []

        class ToKafka(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                sent.append(made.send("logs", record.getMessage().encode()))

        handler = ToKafka()
        logger = logging.getLogger("fastprod.control")
        logger.addHandler(handler)
        try:
            made.engine._loop.call_threadsafe(lambda: made.engine._journal.warning("hello"))
            eventually(lambda: sent, "the record")
            assert sent[0].get(10).topic == "logs"
        finally:
            logger.removeHandler(handler)


PROGRAM = """
    import sys, threading
    from fastprod import _backend, config
    from fastprod.control.producer import Engine
    engine = Engine(config.load({{"bootstrap_servers": sys.argv[1], "linger_ms": 60000}}))
    engine.bootstrap(10)
    send = _backend.ProducerBase()
    send._bind(engine.plane, engine, None, None, _backend.PARTITION_DEFAULT, None, None)
    send.send("t", b"v").add_callback(lambda m: print("delivered", m.offset, flush=True))
    {end}
"""


class TestProgramEnd:
    @pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "del send, engine"])
    def test_what_lingers_is_delivered(self, broker: ScriptedBroker, end: str) -> None:
        done = self.run(broker, end)
        assert done.returncode == 0
        assert "delivered 0" in done.stdout
        assert done.stderr == ""

    def test_it_takes_a_second_at_most(self, broker: ScriptedBroker) -> None:
        broker.judge = never
        with in_time("the program's end", 1, slack_s=7):
            done = self.run(broker, "pass")
        assert "delivered" not in done.stdout
        assert "1 records were delivered" in done.stderr

    def run(self, broker: ScriptedBroker, end: str) -> subprocess.CompletedProcess[str]:
        program = textwrap.dedent(PROGRAM.format(end=end))
        return subprocess.run(
            [sys.executable, "-c", program, broker.address],
            capture_output=True,
            text=True,
            timeout=60,
            env=dict(os.environ),
            check=False,
        )
