"""What becomes of the sequence of a batch that ended without an answer."""

from __future__ import annotations

import time
from typing import Any

import pytest
from patience import eventually

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, Pending, ScriptedBroker

from .conftest import MakeProducer
from .idempotent import ID, SINGLE, proven, send


class TestExpiry:
    # The batch is refused once so that its request's own timeout ends after delivery_timeout_ms.
    SHORT = {"request_timeout_ms": 1900, "delivery_timeout_ms": 2000}

    def _expire_in_flight(self, scripted: ScriptedBroker, made: KafkaProducer) -> tuple[Any, Pending]:
        (future,) = send(made, b"1")
        request = scripted.next_produce()
        time.sleep(1.0)
        request.refuse(19)
        again = scripted.next_produce()
        with pytest.raises(errors.KafkaTimeoutError, match="delivery_timeout_ms=2000") as caught:
            future.get(10)
        assert caught.value.maybe_written is True
        return future, again

    def test_a_late_success_changes_nothing(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = proven(scripted, scripted_producer, **self.SHORT)
        calls: list[Any] = []
        future, request = self._expire_in_flight(scripted, made)
        future.add_both(calls.append)
        request.accept()
        (later,) = send(made, b"2")
        next_ = scripted.next_produce()
        assert next_.batch.stamp == (ID, 0, 2), "its sequence was used, so no epoch is needed"
        next_.accept()
        assert later.get(10).offset == 2
        assert future.failed()
        assert calls == [future.exception]

    def test_a_late_failure_is_a_gap(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = proven(scripted, scripted_producer, **self.SHORT)
        future, request = self._expire_in_flight(scripted, made)
        (later,) = send(made, b"2")
        request.refuse(87)
        next_ = scripted.next_produce()
        if next_.batch.stamp == (ID, 0, 2):  # it left before the verdict
            next_.refuse(45)
            next_ = scripted.next_produce()
        assert next_.batch.stamp == (ID, 1, 0)
        next_.accept()
        assert later.get(10).offset == 1
        assert isinstance(future.exception, errors.KafkaTimeoutError)

    def test_never_answered(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """Its fate stays unknown: what comes later goes under a new epoch, without anybody's help."""
        made = proven(scripted, scripted_producer, **self.SHORT)
        future, request = self._expire_in_flight(scripted, made)
        eventually(lambda: request.abandoned)
        (later,) = send(made, b"2")
        next_ = scripted.next_produce()
        assert next_.batch.stamp == (ID, 1, 0)
        next_.accept()
        assert later.get(10).offset == 1
        assert future.failed()

    @pytest.mark.parametrize("written", [True, False])
    def test_a_follower_tells_what_became_of_it(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer, written: bool
    ) -> None:
        made = proven(scripted, scripted_producer, **self.SHORT)
        _, request = self._expire_in_flight(scripted, made)
        (follower,) = send(made, b"2")
        behind = scripted.next_produce()
        assert behind.batch.stamp == (ID, 0, 2)
        if written:
            scripted.append(request.batch)
        request.drop()
        again = scripted.next_produce()
        assert again.batch.data == behind.batch.data
        if not written:
            again.refuse(45)
            again = scripted.next_produce()
            assert again.batch.data == behind.batch.data, "it is asked about again before that is believed"
            again.refuse(45)
            again = scripted.next_produce()
            assert again.batch.stamp == (ID, 1, 0)
        again.accept()
        assert follower.get(10).offset == 1 + written
        send(made, b"3")
        assert scripted.next_produce().batch.stamp == ((ID, 0, 3) if written else (ID, 1, 1))

    def test_retries_used_up(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """Two batches end without an answer: the partition does not wait for one for ever."""
        made = proven(scripted, scripted_producer, retries=1)
        futures = send(made, b"1", b"2")
        scripted.next_produce()
        scripted.next_produce().drop()
        scripted.next_produce().drop()
        scripted.next_produce().drop()
        for each in futures:
            with pytest.raises(errors.KafkaConnectionError) as caught:
                each.get(10)
            assert caught.value.maybe_written is True
        (later,) = send(made, b"3")
        request = scripted.next_produce()
        assert request.batch.stamp == (ID, 1, 0), "only a new epoch is safe"
        request.accept()
        assert later.get(10).offset == 1

    def test_never_sent(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """It had no sequence, so there is nothing to mend."""
        silent = scripted.on(Api.INIT_PRODUCER_ID).ignore()
        scripted.by_hand = True
        made = scripted_producer(**SINGLE, request_timeout_ms=800, delivery_timeout_ms=2000)
        for each in send(made, b"1", b"2"):
            with pytest.raises(errors.KafkaTimeoutError) as caught:
                each.get(10)
            assert caught.value.maybe_written is False
        silent.remove()
        asked = scripted.count(Api.INIT_PRODUCER_ID)
        scripted.drop_connections()
        scripted.wait_for(Api.INIT_PRODUCER_ID, asked + 1)
        send(made, b"3")
        assert scripted.next_produce().batch.stamp == (ID, 0, 0)
