"""What becomes of the sequence of a batch that ended without an answer."""

from __future__ import annotations

import contextlib
import queue
import time
from typing import Any

import pytest

from fastprod import KafkaProducer, errors

from .conftest import MakeProducer
from .fake_broker import INIT_PRODUCER_ID, FakeBroker, Produced
from .idempotent import ID, SINGLE, proven, send
from .patience import eventually


class TestExpiry:
    # The batch is refused once so that its request's own timeout ends after delivery_timeout_ms.
    SHORT = {"request_timeout_ms": 700, "delivery_timeout_ms": 800}

    def _expire_in_flight(self, fake: FakeBroker, made: KafkaProducer) -> tuple[Any, Produced]:
        (future,) = send(made, b"1")
        request = fake.next()
        time.sleep(0.4)
        request.refuse(19)
        again = fake.next()
        with pytest.raises(errors.KafkaTimeoutError, match="delivery_timeout_ms=800") as caught:
            future.get(10)
        assert caught.value.maybe_written is True
        return future, again

    def test_a_late_success_changes_nothing(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = proven(fake, fake_producer, **self.SHORT)
        calls: list[Any] = []
        future, request = self._expire_in_flight(fake, made)
        future.add_both(calls.append)
        request.accept()
        (later,) = send(made, b"2")
        next_ = fake.next()
        assert next_.batch.stamp == (ID, 0, 2), "its sequence was used, so no epoch is needed"
        next_.accept()
        assert later.get(10).offset == 2
        assert future.failed()
        assert calls == [future.exception]

    def test_a_late_failure_is_a_gap(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = proven(fake, fake_producer, **self.SHORT)
        future, request = self._expire_in_flight(fake, made)
        (later,) = send(made, b"2")
        request.refuse(87)
        next_ = fake.next()
        if next_.batch.stamp == (ID, 0, 2):  # it left before the verdict
            next_.refuse(45)
            next_ = fake.next()
        assert next_.batch.stamp == (ID, 1, 0)
        next_.accept()
        assert later.get(10).offset == 1
        assert isinstance(future.exception, errors.KafkaTimeoutError)

    def test_never_answered(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """Its fate stays unknown: what comes later goes under a new epoch, without anybody's help."""
        made = proven(fake, fake_producer, **self.SHORT)
        future, request = self._expire_in_flight(fake, made)
        eventually(lambda: request.abandoned)
        (later,) = send(made, b"2")
        next_ = fake.next()
        assert next_.batch.stamp == (ID, 1, 0)
        next_.accept()
        assert later.get(10).offset == 1
        assert future.failed()

    @pytest.mark.parametrize("written", [True, False])
    def test_a_follower_tells_what_became_of_it(
        self, fake: FakeBroker, fake_producer: MakeProducer, written: bool
    ) -> None:
        made = proven(fake, fake_producer, **self.SHORT)
        _, request = self._expire_in_flight(fake, made)
        (follower,) = send(made, b"2")
        behind = fake.next()
        assert behind.batch.stamp == (ID, 0, 2)
        if written:
            fake.append(request.batch)
        request.hang_up()
        again = fake.next()
        assert again.batch.data == behind.batch.data
        if not written:
            again.refuse(45)
            again = fake.next()
            assert again.batch.stamp == (ID, 1, 0)
        again.accept()
        assert follower.get(10).offset == 1 + written
        send(made, b"3")
        assert fake.next().batch.stamp == ((ID, 0, 3) if written else (ID, 1, 1))

    def test_retries_used_up(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """Two batches end without an answer: the partition does not wait for one for ever."""
        made = proven(fake, fake_producer, retries=1)
        futures = send(made, b"1", b"2")
        fake.next()
        fake.next().hang_up()
        fake.next().hang_up()
        fake.next().hang_up()
        for each in futures:
            with pytest.raises(errors.KafkaConnectionError) as caught:
                each.get(10)
            assert caught.value.maybe_written is True
        (later,) = send(made, b"3")
        request = fake.next()
        assert request.batch.stamp == (ID, 1, 0), "only a new epoch is safe"
        request.accept()
        assert later.get(10).offset == 1

    def test_never_sent(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """It had no sequence, so there is nothing to mend."""
        fake.silent.add(INIT_PRODUCER_ID)
        fake.by_hand = True
        made = fake_producer(**SINGLE, request_timeout_ms=800, delivery_timeout_ms=800)
        for each in send(made, b"1", b"2"):
            with pytest.raises(errors.KafkaTimeoutError) as caught:
                each.get(10)
            assert caught.value.maybe_written is False
        fake.silent.clear()
        fake.drop_connections()

        def goes_out() -> Produced | None:
            send(made, b"3")
            with contextlib.suppress(queue.Empty):
                return fake.next(0.5)
            return None

        assert eventually(goes_out).batch.stamp == (ID, 0, 0)
