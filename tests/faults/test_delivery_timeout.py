"""No record waits longer than delivery_timeout_ms, wherever it is by then."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from patience import check_time, in_time

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, FaultProxy, KafkaBroker, ScriptedBroker

from .conftest import MakeProducer, MakeTopic, Silence


class Watch:
    """Notes when each future is seen to be done, without help from callbacks: monotonic seconds."""

    def __init__(self, futures: list[Any]) -> None:
        self.done_at: dict[int, float] = {}
        self._futures = futures
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while len(self.done_at) < len(self._futures):
            for number, future in enumerate(self._futures):
                if future.is_done:
                    self.done_at.setdefault(number, time.monotonic())
            time.sleep(0.005)

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert len(self.done_at) == len(self._futures), "some futures hang"


class TestDeliveryTimeout:
    OPTIONS = {"request_timeout_ms": 400, "delivery_timeout_ms": 1200, "retry_backoff_ms": 20}

    def test_in_flight_and_queued(self, producer: MakeProducer, topic: MakeTopic, silence: Silence) -> None:
        name, made = topic(2), producer(batch_size=0, **self.OPTIONS)
        for partition in range(2):
            made.send(name, b"before", partition=partition).get(10)
        silence()
        began = time.monotonic()
        futures = [made.send(name, b"v", partition=number % 2) for number in range(30)]
        watch = Watch(futures)
        watch.wait(20)
        for number in range(30):
            assert isinstance(futures[number].exception, errors.KafkaTimeoutError)
            check_time("delivery_timeout_ms=1200", watch.done_at[number] - began, 1.2, at_least_s=1.2)
        assert "delivery_timeout_ms=1200" in str(futures[0].exception)
        assert isinstance(futures[-1].exception.maybe_written, bool)
        assert futures[-1].exception.maybe_written is False  # 15 a partition, 5 of them in flight
        with in_time("close() after all has expired", 0):
            made.close()

    def test_a_killed_broker(self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic) -> None:
        name, made = topic(), producer(**self.OPTIONS)
        made.send(name, b"before").get(10)
        own_broker.kill()
        self._expires(made, name, written=None)
        made.send(name, b"v")
        with in_time("close(0.3)", 0.3), pytest.raises(errors.KafkaTimeoutError, match=r"1 record\(s\)"):
            made.close(0.3)

    def test_longer_than_a_request(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """In flight when it expires: the request goes on waiting, the future does not."""
        made = scripted_producer(batch_size=0, request_timeout_ms=1000, delivery_timeout_ms=1000)
        made.send("t", b"before", partition=0).get(10)
        scripted.by_hand = True
        began = time.monotonic()
        future = made.send("t", b"v", partition=0)
        scripted.next_produce()
        with pytest.raises(errors.KafkaTimeoutError) as caught:
            future.get(20)
        check_time("delivery_timeout_ms=1000", time.monotonic() - began, 1.0, at_least_s=1.0)
        assert caught.value.maybe_written is True

    def test_while_it_waits_to_be_sent_again(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = scripted_producer(batch_size=0, **{**self.OPTIONS, "retry_backoff_ms": 60_000})
        scripted.on_produce().refuse(19)
        began = time.monotonic()
        future = made.send("t", b"v", partition=0)
        with pytest.raises(errors.KafkaTimeoutError, match="NotEnoughReplicas") as caught:
            future.get(20)
        check_time("delivery_timeout_ms=1200", time.monotonic() - began, 1.2, at_least_s=1.2)
        assert caught.value.maybe_written is False

    def test_while_it_waits_for_a_verdict(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """Parked: a callback holds up the thread that would decide. The clock does not wait for it."""
        made = scripted_producer(batch_size=0, **self.OPTIONS)
        entered, go_on = threading.Event(), threading.Event()
        made.send("t", b"1", partition=0).add_callback(lambda _: (entered.set(), go_on.wait(30)))
        assert entered.wait(10)
        refusing = scripted.on_produce().refuse(19)
        began = time.monotonic()
        futures = [made.send("t", b"2", partition=0) for _ in range(3)]
        watch = Watch(futures)
        watch.wait(20)
        assert not go_on.is_set()
        for number in range(3):
            check_time("delivery_timeout_ms=1200, parked", watch.done_at[number] - began, 1.2, at_least_s=1.2)
            with pytest.raises(errors.KafkaTimeoutError):
                futures[number].get(10)
        refusing.remove()
        go_on.set()
        assert made.send("t", b"3", partition=0).get(10).offset >= 1

    def test_a_callback_that_sleeps_delays_no_expiry(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, proxy: FaultProxy
    ) -> None:
        name, made = topic(), producer(batch_size=0, **self.OPTIONS)
        entered, go_on = threading.Event(), threading.Event()
        made.send(name, b"1").add_callback(lambda _: (entered.set(), go_on.wait(30)))
        assert entered.wait(10)
        proxy.hold()
        began = time.monotonic()
        futures = [made.send(name, b"2") for _ in range(10)]
        for future in futures:
            with pytest.raises(errors.KafkaTimeoutError):
                future.get(20)
        check_time("delivery_timeout_ms=1200 beside a callback", time.monotonic() - began, 1.2, at_least_s=1.2)
        go_on.set()

    def test_without_a_producer_id(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        scripted.on(Api.INIT_PRODUCER_ID).ignore()
        self._expires(scripted_producer(**self.OPTIONS), written=False)

    def test_without_a_leader(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        scripted.move_leader("t", 1, -1)
        self._expires(scripted_producer(**self.OPTIONS), partition=1, written=False)

    def test_with_a_leader_that_nobody_knows(self) -> None:
        with ScriptedBroker({"t": 2}, nodes=2) as broker:
            assert broker.leader("t", 1) == 2
            broker.down(2, noticed=True)
            with KafkaProducer(bootstrap_servers=broker.address(1), **self.OPTIONS) as made:
                self._expires(made, partition=1, written=False)

    @pytest.mark.parametrize("linger_ms", [0, 700])
    def test_lingering(self, scripted: ScriptedBroker, scripted_producer: MakeProducer, linger_ms: int) -> None:
        scripted.on(Api.PRODUCE).ignore()
        self._expires(scripted_producer(linger_ms=linger_ms, **self.OPTIONS), written=True)

    def _expires(
        self, made: KafkaProducer, topic: str = "t", partition: int = 0, written: bool | None = None
    ) -> None:
        """`written`: what the errors say of it, None for either."""
        began = time.monotonic()
        futures = [made.send(topic, b"v", partition=partition) for _ in range(5)]
        for future in futures:
            with pytest.raises(errors.KafkaTimeoutError) as caught:
                future.get(20)
            assert written is None or caught.value.maybe_written is written
        check_time("delivery_timeout_ms=1200", time.monotonic() - began, 1.2, at_least_s=1.2)

    def test_many_partitions_and_ages(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """Each batch by its own age."""
        scripted.create_topic("wide", 20)
        scripted.on(Api.PRODUCE).ignore()
        made = scripted_producer(batch_size=0, **self.OPTIONS)
        made.partitions_for("wide")
        futures, began = [], []
        watch_from = time.monotonic()
        for number in range(60):
            began.append(time.monotonic())
            futures.append(made.send("wide", b"v", partition=number % 20))
            time.sleep(0.02)
        watch = Watch(futures)
        watch.wait(20)
        late = [watch.done_at[number] - began[number] - 1.2 for number in range(60)]
        print(f"from {watch_from:.1f}: {min(late):+.3f} to {max(late):+.3f} s")
        check_time("the latest of 60 expiries", 1.2 + max(late), 1.2)
        check_time("the earliest of 60 expiries", 1.2 + min(late), 1.2, at_least_s=1.2)
