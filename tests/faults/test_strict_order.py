"""strict_order=True: nothing that has a sequence is written behind a batch that failed."""

from __future__ import annotations

import time

import pytest

from fastprod import errors
from fastprod.testing import ScriptedBroker

from .conftest import MakeProducer
from .idempotent import ID, SINGLE, five, proven, send


class TestStrictOrder:
    def test_followers_fail(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = proven(scripted, scripted_producer, strict_order=True)
        futures, requests = five(scripted, made)
        futures += send(made, b"6", b"7")  # without a sequence yet: five are in flight
        requests[0].accept()
        requests.append(scripted.next_produce())
        requests[1].refuse(87)
        for each in requests[2:]:
            each.refuse(45)
        again = scripted.next_produce()
        assert (again.batch.stamp, again.batch.values) == ((ID, 1, 0), [b"7"])
        again.accept()
        assert futures[0].get(10).offset == 1
        with pytest.raises(errors.InvalidRecordError):
            futures[1].get(10)
        for each in futures[2:6]:
            with pytest.raises(errors.OutOfOrderSequenceNumberError, match="strict_order"):
                each.get(10)
        assert futures[6].get(10).offset == 2
        scripted.nothing_more()
        assert scripted.values("t", 0) == [b"first", b"1", b"7"]

    def test_queued_for_a_retry(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """They came back before the first one's verdict: none of them leaves again."""
        made = proven(scripted, scripted_producer, strict_order=True)
        futures, requests = five(scripted, made)
        requests[0].refuse(19)
        for each in requests[1:]:
            each.refuse(45)
        scripted.next_produce().refuse(87)
        with pytest.raises(errors.InvalidRecordError):
            futures[0].get(10)
        for each in futures[1:]:
            with pytest.raises(errors.OutOfOrderSequenceNumberError):
                each.get(10)
        scripted.nothing_more()

    def test_what_came_before_the_failed_one_is_written(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        """It waits for its own retry, and is not behind anything."""
        made = proven(scripted, scripted_producer, strict_order=True, retry_backoff_ms=500)
        futures, requests = five(scripted, made)
        requests[0].refuse(19)
        requests[1].refuse(87)
        for each in requests[2:]:
            each.refuse(45)
        again = scripted.next_produce()
        assert (again.batch.stamp, again.batch.values) == ((ID, 1, 0), [b"1"])
        again.accept()
        assert futures[0].get(10).offset == 1
        with pytest.raises(errors.InvalidRecordError):
            futures[1].get(10)
        for each in futures[2:]:
            with pytest.raises(errors.OutOfOrderSequenceNumberError):
                each.get(10)
        scripted.nothing_more()

    def test_an_expiry_leaves_a_gap_as_well(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """The first one was refused, so it is certainly not in the log, and time runs out before it is sent again."""
        options = {"request_timeout_ms": 2000, "delivery_timeout_ms": 2000, "retry_backoff_ms": 1000}
        made = proven(scripted, scripted_producer, strict_order=True, **options)
        (first,) = send(made, b"1")
        refused = scripted.next_produce()
        time.sleep(1.2)
        followers = send(made, b"2", b"3")
        behind = [scripted.next_produce(), scripted.next_produce()]
        time.sleep(0.3)
        refused.refuse(19)
        for each in behind:
            each.refuse(45)
        with pytest.raises(errors.KafkaTimeoutError) as caught:
            first.get(10)
        assert caught.value.maybe_written is False
        for each in followers:
            with pytest.raises(errors.OutOfOrderSequenceNumberError):
                each.get(10)
        scripted.nothing_more(1.5)
        send(made, b"4")
        assert scripted.next_produce().batch.stamp == (ID, 1, 0)

    def test_by_default_they_are_written(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        scripted.on_produce(when=lambda batch: b"bad" in (batch.values[0] or b"")).refuse(87)
        made = scripted_producer(**SINGLE)
        values = [b"%d bad" % number if number % 10 == 3 else b"%d" % number for number in range(60)]
        futures = send(made, *values)
        made.flush(20)
        assert [each.failed() for each in futures] == [b"bad" in value for value in values]
        assert scripted.values("t", 0) == [value for value in values if b"bad" not in value]
