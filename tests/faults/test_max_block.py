"""send() waits for a topic or for memory as long as max_block_ms, in the order of asking."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest
from patience import check_time, eventually, in_time

from fastprod import KafkaProducer, errors
from fastprod.testing import FaultProxy, KafkaBroker, ScriptedBroker

from .conftest import MakeProducer, MakeTopic, Silence
from .ledger import read_log


class TestMaxBlock:
    @pytest.mark.parametrize("limit_ms", [0, 400])
    def test_a_topic_that_is_not_there(
        self, own_broker: KafkaBroker, producer: MakeProducer, limit_ms: int
    ) -> None:
        made = producer(max_block_ms=limit_ms, allow_auto_create_topics=False)
        limit_s = limit_ms / 1000
        for call in (lambda: made.send("never-made", b"v"), lambda: made.partitions_for("never-made")):
            with (
                in_time(f"max_block_ms={limit_ms}", limit_s, at_least_s=limit_s),
                pytest.raises(errors.KafkaTimeoutError, match="never-made"),
            ):
                call()

    def test_it_says_why(self, producer: MakeProducer) -> None:
        made = producer(max_block_ms=500, allow_auto_create_topics=False)
        with pytest.raises(errors.KafkaTimeoutError) as caught:
            made.send("never-made", b"v")
        assert "Create it" in str(caught.value)
        assert isinstance(caught.value.__cause__, errors.UnknownTopicOrPartitionError)

    def test_a_topic_that_nobody_tells_about(
        self, producer: MakeProducer, topic: MakeTopic, silence: Silence
    ) -> None:
        known, name = topic(), topic()
        made = producer(max_block_ms=500)
        made.send(known, b"v").get(10)
        silence()
        with in_time("max_block_ms=500", 0.5, at_least_s=0.5), pytest.raises(errors.KafkaTimeoutError, match=name):
            made.send(name, b"v")

    def test_a_full_buffer(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, silence: Silence, proxy: FaultProxy
    ) -> None:
        """A sender waits its time and is refused; nothing that was accepted is lost, nothing refused is written."""
        name, made = topic(2), producer(buffer_memory=1_000_000, max_block_ms=400, reconnect_backoff_max_ms=300)
        accepted = [made.send(name, b"before", partition=0)]
        accepted[0].get(10)
        silence()

        def fill() -> bytes:
            while True:
                value = b"%d " % len(accepted) + bytes(10_000)
                began = time.monotonic()
                try:
                    accepted.append(made.send(name, value, partition=len(accepted) % 2))
                except errors.KafkaTimeoutError as error:
                    check_time("a full buffer, max_block_ms=400", time.monotonic() - began, 0.4, at_least_s=0.4)
                    assert "buffer_memory=1000000" in str(error)
                    assert "not accepted" in str(error)
                    return value

        refused = fill()
        assert 20 < len(accepted) <= 101
        proxy.heal()
        own_broker.resume()
        for future in accepted:
            future.get(60)
        last = made.send(name, b"after", partition=0)
        last.get(10)
        written = {each.value for each in read_log(own_broker.direct_servers, name, 2)}
        assert len(written) == len(accepted) + 1
        assert refused not in written

    def test_memory_is_had_in_the_order_of_asking(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        """A small record does not slip in before a large one that waits, though there is room for it."""
        made = scripted_producer(batch_size=0, buffer_memory=100_000, max_block_ms=60_000)
        scripted.by_hand = True
        made.send("t", bytes(40_000), partition=0)
        first = scripted.next_produce()
        made.send("t", bytes(40_000), partition=1)
        second = scripted.next_produce()
        accepted: list[str] = []
        large = Sender(made, accepted, "large", bytes(70_000), partition=0)
        small = Sender(made, accepted, "small", bytes(5_000), partition=1)
        time.sleep(0.3)
        assert accepted == []
        first.accept()
        time.sleep(0.3)
        assert accepted == [], "60,000 bytes are free, the first in line needs 70,000"
        second.accept()
        for each in (large, small):
            each.join()
        assert sorted(accepted) == ["large", "small"]
        batches = list(scripted.next_produce().batches)
        if len(batches) == 1:  # they may leave in one request as well
            batches += scripted.next_produce().batches
        assert sorted(len(each.data) // 10_000 for each in batches) == [0, 7]

    def test_one_at_a_time_in_order(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = scripted_producer(batch_size=0, buffer_memory=10_000, max_block_ms=60_000)
        scripted.by_hand = True
        made.send("t", b"first" + bytes(9_000), partition=0)
        accepted: list[str] = []
        senders = [Sender(made, accepted, str(n), b"%d" % n + bytes(9_000), partition=0) for n in range(6)]
        for _ in range(7):
            scripted.next_produce().accept()
        for each in senders:
            each.join()
        written = [(value or b"").rstrip(b"\0") for value in scripted.values("t", 0)]
        assert written == [b"first"] + [b"%d" % n for n in range(6)]

    def test_who_gives_up_leaves_the_line(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = scripted_producer(batch_size=0, buffer_memory=10_000, max_block_ms=3_000)
        scripted.by_hand = True
        made.send("t", b"first" + bytes(9_000), partition=0)
        request = scripted.next_produce()
        accepted: list[str] = []
        impatient = Sender(made, accepted, "impatient", bytes(9_000), partition=0)
        time.sleep(1.5)
        patient = Sender(made, accepted, "patient", b"patient" + bytes(8_000), partition=0)
        impatient.join()
        assert isinstance(impatient.error, errors.KafkaTimeoutError)
        request.accept()
        patient.join()
        assert patient.error is None
        scripted.next_produce().accept()
        assert accepted == ["patient"]


class Sender:
    """A thread that sends one record; it is on its way into `send` when the constructor returns."""

    def __init__(self, made: KafkaProducer, accepted: list[str], name: str, value: bytes, partition: int) -> None:
        self.error: Exception | None = None

        def run() -> None:
            try:
                made.send("t", value, partition=partition)
                accepted.append(name)
            except Exception as error:
                self.error = error

        self._thread = threading.Thread(target=run)
        self._thread.start()
        # Its line in the queue for memory is not to be seen from outside; that it has got to `send` is.
        eventually(lambda: not self._thread.is_alive() or self._is_sending(run.__code__))
        time.sleep(0.05)

    def _is_sending(self, code: Any) -> bool:
        frame = sys._current_frames().get(self._thread.ident or 0)
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        return frame is not None

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()
