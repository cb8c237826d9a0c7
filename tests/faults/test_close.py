"""close() keeps its time, lets go of everybody who waits and hands back what it could not deliver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from patience import check_time, eventually, in_time

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, ScriptedBroker

from .conftest import MakeProducer, MakeTopic, Silence, refused_address


class TestClose:
    def test_it_keeps_its_time_and_what_it_could_not_deliver(
        self, producer: MakeProducer, topic: MakeTopic, silence: Silence
    ) -> None:
        name, made = topic(2), producer(client_id="closing")
        made.send(name, b"before", partition=0).get(10)
        made.send(name, b"before", partition=1).get(10)
        silence()
        headers = [("h", b"1"), ("empty", b"")]
        in_flight = made.send(name, b"value", b"key", headers, partition=0, timestamp_ms=1000)
        waiting = [made.send(name, b"%d" % number, partition=number % 2) for number in range(20)]
        tombstone = made.send(name, None, b"gone", partition=1)
        with in_time("close(0.5)", 0.5), pytest.raises(errors.KafkaTimeoutError) as caught:
            made.close(0.5)
        assert "22 record(s)" in str(caught.value)
        assert "undelivered()" in str(caught.value)
        for future in [in_flight, *waiting, tombstone]:
            assert isinstance(future.exception, errors.IllegalStateError)
        left = made.undelivered()
        assert len(left) == 22
        (first,) = [each for each in left if each.key == b"key"]
        assert (first.topic, first.partition, first.value) == (name, 0, b"value")
        assert (first.headers, first.timestamp_ms) == (headers, 1000)
        assert isinstance(first.error, errors.IllegalStateError)
        assert [each.value for each in left if each.key == b"gone"] == [None]
        for partition in range(2):
            values = [each.value for each in left if each.partition == partition and each.key is None]
            assert values == [b"%d" % number for number in range(20) if number % 2 == partition]
        assert made.undelivered() == left
        with in_time("a second close()", 0):
            made.close()
        with pytest.raises(errors.IllegalStateError):
            made.send(name, b"late")
        eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("closing-")])

    @pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
    def test_undelivered_are_readable_whatever_the_codec(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer, codec: str
    ) -> None:
        """One batch was compressed when it left, the other has not been yet."""
        made = scripted_producer(compression_type=codec, linger_ms=50)
        scripted.by_hand = True
        values = [b"%d %s" % (number, bytes(50)) for number in range(20)]
        for value in values[:10]:
            made.send("t", value, partition=0)
        scripted.next_produce()
        for value in values[10:]:
            made.send("t", value, partition=0)
        with pytest.raises(errors.KafkaTimeoutError, match=r"20 record\(s\)"):
            made.close(0)
        left = made.undelivered()
        assert [each.value for each in left] == values
        assert [each.maybe_written for each in left] == [True] * 10 + [False] * 10

    def test_nothing_waits_nothing_to_wait_for(
        self, producer: MakeProducer, topic: MakeTopic, silence: Silence
    ) -> None:
        made = producer()
        made.send(topic(), b"v").get(10)
        silence()
        with in_time("close() with nothing to deliver", 0):
            made.close()
        assert made.undelivered() == []

    def test_unbounded_it_takes_as_long_as_delivery(
        self, producer: MakeProducer, topic: MakeTopic, silence: Silence
    ) -> None:
        name, made = topic(), producer(request_timeout_ms=500, delivery_timeout_ms=1000)
        made.send(name, b"before").get(10)
        silence()
        futures = [made.send(name, b"v") for _ in range(3)]
        with in_time("close() for delivery_timeout_ms=1000", 1.0):
            made.close()
        assert all(isinstance(each.exception, errors.KafkaTimeoutError) for each in futures)
        assert made.undelivered() == []  # their futures have ended, so somebody was told

    def test_a_broker_that_never_was(self) -> None:
        made = KafkaProducer(bootstrap_servers=refused_address(), api_version=(2, 6), max_block_ms=100)
        with pytest.raises(errors.KafkaTimeoutError):
            made.send("t", b"v")
        with in_time("close()", 0):
            made.close()

    def test_everybody_who_waits_is_let_go(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        made = scripted_producer(batch_size=0, buffer_memory=50_000, max_block_ms=60_000)
        scripted.by_hand = True
        future = made.send("t", bytes(40_000), partition=0)
        scripted.next_produce()
        outcome: dict[str, Any] = {}

        def wait(name: str, call: Callable[[], Any]) -> threading.Thread:
            def run() -> None:
                try:
                    outcome[name] = call()
                except Exception as error:
                    outcome[name] = error

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        threads = [
            wait("full buffer", lambda: made.send("t", bytes(40_000), partition=0)),
            wait("unknown topic", lambda: made.send("unknown", b"v")),
            wait("partitions_for", lambda: made.partitions_for("unknown-too")),
            wait("get", lambda: future.get(60)),
            wait("flush", lambda: made.flush(60)),
        ]
        time.sleep(0.3)
        assert not outcome
        with in_time("close(0.2)", 0.2), pytest.raises(errors.KafkaTimeoutError, match=r"1 record\(s\)"):
            made.close(0.2)
        with in_time("letting go of who waits", 0):
            for thread in threads:
                thread.join(20)
        for name in ("full buffer", "unknown topic", "get"):
            assert isinstance(outcome[name], errors.IllegalStateError), (name, outcome[name])
        assert isinstance(outcome["partitions_for"], Exception)
        assert outcome["flush"] is None or isinstance(outcome["flush"], errors.KafkaError)

    def test_two_at_once(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = scripted_producer()
        scripted.by_hand = True
        made.send("t", b"v")
        scripted.next_produce()
        raised: list[Exception] = []

        def close() -> None:
            try:
                made.close(0.3)
            except errors.KafkaTimeoutError as error:
                raised.append(error)

        threads = [threading.Thread(target=close) for _ in range(3)]
        with in_time("close(0.3) by three threads", 0.3):
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        assert raised, "nobody was told"
        assert len(made.undelivered()) == 1

    def test_a_callback_that_sleeps_does_not_hold_it_up(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        made = scripted_producer()
        entered, go_on = threading.Event(), threading.Event()
        made.send("t", b"v").add_callback(lambda _: (entered.set(), go_on.wait(30)))
        assert entered.wait(10)
        began = time.monotonic()
        try:
            made.close(0.5)
        except errors.KafkaTimeoutError as error:
            print(error)
        check_time("close(0.5) while a callback sleeps", time.monotonic() - began, 0.5)
        go_on.set()


class Hasty(KafkaProducer):
    """Its `with` block does not wait for delivery."""

    def close(self, timeout: float | None = 0.2, null_logger: bool = False) -> None:
        super().close(timeout, null_logger)


class TestWith:
    def test_an_exception_on_its_way_goes_on(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        scripted.on(Api.PRODUCE).ignore()
        made = scripted_producer(Hasty)

        def program() -> None:
            with made:
                made.send("t", b"v")
                raise KeyError("mine")

        with in_time("with", 0.2), pytest.raises(KeyError, match="mine") as caught:
            program()
        assert "1 record(s) could not be delivered" in "".join(caught.value.__notes__)
        assert len(made.undelivered()) == 1

    def test_without_one_it_is_told(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        scripted.on(Api.PRODUCE).ignore()

        def program() -> None:
            with scripted_producer(Hasty) as made:
                made.send("t", b"v")

        with in_time("with", 0.2), pytest.raises(errors.KafkaTimeoutError, match=r"1 record\(s\)"):
            program()

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_nor_does_it_mask_one_that_is_no_error(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer, kind: type[BaseException]
    ) -> None:
        scripted.on(Api.PRODUCE).ignore()
        made = scripted_producer(Hasty)

        def program() -> None:
            with made:
                made.send("t", b"v")
                raise kind("mine")

        with pytest.raises(kind, match="mine"):
            program()
        assert len(made.undelivered()) == 1
