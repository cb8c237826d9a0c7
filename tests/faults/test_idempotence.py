"""Sequences, epochs and what is resent: each step seen from a broker that answers as the test says."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest

from fastprod import KafkaProducer, errors

from .conftest import MakeProducer
from .fake_broker import INIT_PRODUCER_ID, PRODUCE, Batch, FakeBroker, Produced, Refusal
from .honest_log import HonestLog
from .patience import eventually

# A record a batch, so that the test decides what is in flight.
SINGLE = {"batch_size": 0, "retry_backoff_ms": 5, "reconnect_backoff_ms": 5}
ID = 77


def send(producer: KafkaProducer, *values: bytes, partition: int = 0) -> list[Any]:
    return [producer.send("t", value, partition=partition) for value in values]


def proven(fake: FakeBroker, make: MakeProducer, **options: Any) -> KafkaProducer:
    """A producer whose first record in partition 0 was acknowledged, and a broker answered by hand from then on."""
    made = make(**{**SINGLE, **options})
    made.send("t", b"first", partition=0).get(10)
    fake.by_hand = True
    return made


def five(fake: FakeBroker, producer: KafkaProducer) -> tuple[list[Any], list[Produced]]:
    """Five records in flight, sequences 1 to 5: their futures and their requests."""
    futures = send(producer, b"1", b"2", b"3", b"4", b"5")
    requests = [fake.next() for _ in range(5)]
    assert [each.batch.stamp for each in requests] == [(ID, 0, number) for number in range(1, 6)]
    return futures, requests


class TestInFlight:
    def test_the_first_batch_goes_alone(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        fake.by_hand = True
        made = fake_producer(**SINGLE)
        futures = send(made, b"a", b"b", b"c")
        first = fake.next()
        assert first.batch.stamp == (ID, 0, 0)
        fake.nothing_more()
        first.accept()
        followers = [fake.next(), fake.next()]
        assert [each.batch.stamp for each in followers] == [(ID, 0, 1), (ID, 0, 2)]
        for each in followers:
            each.accept()
        assert [each.get(10).offset for each in futures] == [0, 1, 2]

    def test_alone_until_it_is_acknowledged_and_not_only_answered(
        self, fake: FakeBroker, fake_producer: MakeProducer
    ) -> None:
        fake.by_hand = True
        made = fake_producer(**SINGLE)
        futures = send(made, b"a", b"b")
        for _ in range(3):
            request = fake.next()
            assert request.batch.stamp == (ID, 0, 0)
            request.refuse(19)
        last = fake.next()
        fake.nothing_more()
        last.accept()
        fake.next().accept()
        assert [each.get(10).offset for each in futures] == [0, 1]

    def test_five_and_no_more(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = proven(fake, fake_producer)
        futures, requests = five(fake, made)
        futures += send(made, b"6", b"7")
        fake.nothing_more()
        requests[0].accept()
        requests.append(fake.next())
        assert requests[-1].batch.stamp == (ID, 0, 6)
        fake.nothing_more()
        for each in requests[1:]:
            each.accept()
        fake.next().accept()
        assert [each.get(10).offset for each in futures] == list(range(1, 8))

    def test_sequences_count_records(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        fake.by_hand = True
        made = fake_producer(linger_ms=60_000, delivery_timeout_ms=120_000)
        counts = [3, 1, 4]
        for count in counts:
            send(made, *[b"v"] * count)
            flushing = threading.Thread(target=made.flush)
            flushing.start()
            request = fake.next()
            assert (request.batch.count, request.batch.sequence) == (count, sum(counts[: counts.index(count)]))
            request.accept()
            flushing.join()


class TestRetries:
    @pytest.mark.parametrize("code", [2, 6, 19])
    def test_the_first_of_five_is_refused(
        self, fake: FakeBroker, fake_producer: MakeProducer, code: int
    ) -> None:
        made = proven(fake, fake_producer)
        futures, requests = five(fake, made)
        later = send(made, b"6", b"7")
        requests[0].refuse(code)
        for each in requests[1:]:
            each.refuse(45)
        again = []
        for number in range(5):
            again.append(fake.next())
            assert again[-1].batch.data == requests[number].batch.data, "not the same bytes in the same order"
            if number < 4:
                fake.nothing_more(0.05)  # one at a time until it has caught up
            again[-1].accept()
        for _ in later:
            fake.next().accept()
        assert [each.get(10).offset for each in futures + later] == list(range(1, 8))
        assert fake.log["t", 0] == [b"first", *(b"%d" % number for number in range(1, 8))]

    def test_a_follower_was_answered_before_the_first_one_s_retry(
        self, fake: FakeBroker, fake_producer: MakeProducer
    ) -> None:
        """20: appended on the leader, so the followers fit, and the first one's retry is a duplicate."""
        made = proven(fake, fake_producer)
        futures, requests = five(fake, made)
        offset = fake.append(requests[0].batch)
        requests[0].refuse(20)
        for each in requests[1:]:
            each.accept()
        again = fake.next()
        assert again.batch.data == requests[0].batch.data
        again.answer(lambda _: Refusal(0, offset))
        assert [each.get(10).offset for each in futures] == [1, 2, 3, 4, 5]

    def test_a_lost_connection(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """Nobody knows what was written: the same bytes go again, in order."""
        made = proven(fake, fake_producer)
        futures, requests = five(fake, made)
        requests[0].accept()
        eventually(futures[0].succeeded)
        requests[1].hang_up()
        for number in range(1, 5):
            again = fake.next()
            assert again.batch.data == requests[number].batch.data
            again.accept()
        assert [each.get(10).offset for each in futures] == [1, 2, 3, 4, 5]

    def test_no_answer_in_time(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = proven(fake, fake_producer, request_timeout_ms=300)
        futures, requests = five(fake, made)
        for request in requests:
            again = fake.next()
            assert again.batch.data == request.batch.data
            assert again.at - request.at > 0.25
            again.accept()
        assert [each.get(10).offset for each in futures] == [1, 2, 3, 4, 5]

    def test_duplicate_is_success(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = proven(fake, fake_producer)
        (future,) = send(made, b"1")
        fake.next().refuse(46)
        result = future.get(10)
        assert (result.offset, result.partition) == (-1, 0)
        (future,) = send(made, b"2")
        assert fake.next().batch.stamp == (ID, 0, 2)


class TestFailures:
    @pytest.mark.parametrize("code", [10, 29, 44, 87])
    @pytest.mark.parametrize("place", [0, 2, 4])
    def test_followers_go_on_under_the_next_epoch(
        self, fake: FakeBroker, fake_producer: MakeProducer, code: int, place: int
    ) -> None:
        made = proven(fake, fake_producer)
        futures, requests = five(fake, made)
        for number, request in enumerate(requests):
            if number < place:
                request.accept()
            else:
                request.refuse(code if number == place else 45)
        left = [b"%d" % number for number in range(place + 2, 6)]
        for number, value in enumerate(left):
            again = fake.next()
            assert (again.batch.stamp, again.batch.values) == ((ID, 1, number), [value])
            if number == 0:
                fake.nothing_more(0.05)  # what proves our state is known again is its acknowledgement
            again.accept()
        eventually(futures[place].failed)
        futures += send(made, b"6")
        request = fake.next()
        assert request.batch.stamp == (ID, 1, len(left))
        request.accept()
        failed = futures.pop(place)
        with pytest.raises(errors.for_code(code)) as caught:
            failed.get(10)
        assert caught.value.maybe_written is False
        assert [each.get(10).offset for each in futures] == [1, 2, 3, 4, 5]
        assert fake.requests[INIT_PRODUCER_ID] == 1

    def test_what_may_be_written_is_asked_about_before_the_next_epoch(
        self, fake: FakeBroker, fake_producer: MakeProducer
    ) -> None:
        """All five were written and every answer was lost. Then the topic refuses the first one's retry, because the
        permission to write is gone for a moment. The others are in the log: a new number would write them twice."""
        made = proven(fake, fake_producer)
        futures, requests = five(fake, made)
        offsets = [fake.append(each.batch) for each in requests]
        requests[0].hang_up()
        again = fake.next()
        assert again.batch.data == requests[0].batch.data
        again.refuse(29)
        for number in range(1, 5):
            again = fake.next()
            assert again.batch.data == requests[number].batch.data, "not under its old id, epoch and sequence"
            fake.nothing_more(0.05)
            again.answer(lambda _: Refusal(0, offsets[number]))  # noqa: B023
        with pytest.raises(errors.TopicAuthorizationFailedError) as caught:
            futures[0].get(10)
        assert caught.value.maybe_written is True
        assert [each.get(10).offset for each in futures[1:]] == [2, 3, 4, 5]
        assert fake.log["t", 0] == [b"first", b"1", b"2", b"3", b"4", b"5"]

    def test_what_is_found_unwritten_is_renumbered(
        self, fake: FakeBroker, fake_producer: MakeProducer
    ) -> None:
        made = proven(fake, fake_producer)
        futures, requests = five(fake, made)
        requests[0].hang_up()
        fake.next().refuse(87)
        for number in range(1, 5):
            again = fake.next()
            assert again.batch.data == requests[number].batch.data
            again.refuse(45)
        for number in range(4):
            again = fake.next()
            assert (again.batch.stamp, again.batch.values) == ((ID, 1, number), [b"%d" % (number + 2)])
            again.accept()
        assert futures[0].failed()
        assert [each.get(10).offset for each in futures[1:]] == [1, 2, 3, 4]

    def test_a_leader_that_has_lost_our_state(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """45 to the very next batch: one bump, and it starts again at 0."""
        made = proven(fake, fake_producer)
        (future,) = send(made, b"1")
        fake.next().refuse(45)
        again = fake.next()
        assert again.batch.stamp == (ID, 1, 0)
        again.accept()
        assert future.get(10).offset == 1

    def test_other_partitions_keep_their_epoch_until_idle(
        self, fake: FakeBroker, fake_producer: MakeProducer
    ) -> None:
        made = proven(fake, fake_producer)
        fake.by_hand = False
        send(made, b"first", partition=1)[0].get(10)
        fake.by_hand = True
        (failing,) = send(made, b"x")
        refused = fake.next()
        healthy = send(made, b"1", b"2", partition=1)
        busy = [fake.next(), fake.next()]
        assert [each.batch.stamp for each in busy] == [(ID, 0, 1), (ID, 0, 2)]
        refused.refuse(87)
        eventually(failing.failed)
        (next_,) = send(made, b"y")
        bumped = fake.next()
        assert bumped.batch[:5] == ("t", 0, ID, 1, 0)
        healthy += send(made, b"3", partition=1)
        fake.nothing_more()  # its partition is still in the old epoch
        busy[0].refuse(19)
        busy[1].refuse(45)
        bumped.accept()
        assert next_.get(10).offset == 1
        for number in (1, 2):
            again = fake.next()
            assert again.batch[:5] == ("t", 1, ID, 0, number)
            again.accept()
        last = fake.next()
        assert last.batch[:5] == ("t", 1, ID, 1, 0)
        last.accept()
        assert [each.get(10).offset for each in healthy] == [1, 2, 3]

    def test_the_last_epoch(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """Behind 32767 comes another producer id; nothing leaves without one."""
        fake.identity = (ID, 32767)
        made = proven(fake, fake_producer)
        fake.silent.add(INIT_PRODUCER_ID)
        send(made, b"x")
        fake.next().refuse(87)
        (future,) = send(made, b"y")
        eventually(lambda: fake.requests[INIT_PRODUCER_ID] == 2)
        fake.nothing_more()
        fake.silent.clear()
        fake.identity = (ID + 1, 5)
        fake.drop_connections()  # the question went unanswered; it is asked again
        request = fake.next()
        assert request.batch.stamp == (ID + 1, 5, 0)
        request.accept()
        assert future.get(10).offset == 1

    def test_fenced(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """90 is the end of this producer, and every later send says why."""
        made = proven(fake, fake_producer)
        (future,) = send(made, b"x")
        fake.next().refuse(90)
        with pytest.raises(errors.ProducerFencedError):
            future.get(10)
        (later,) = send(made, b"y")
        with pytest.raises(errors.ProducerFencedError):
            later.get(10)
        made.close(5)


class TestStrictOrder:
    def test_followers_fail(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = proven(fake, fake_producer, strict_order=True)
        futures, requests = five(fake, made)
        futures += send(made, b"6", b"7")  # without a sequence yet: five are in flight
        requests[0].accept()
        requests.append(fake.next())
        requests[1].refuse(87)
        for each in requests[2:]:
            each.refuse(45)
        again = fake.next()
        assert (again.batch.stamp, again.batch.values) == ((ID, 1, 0), [b"7"])
        again.accept()
        assert futures[0].get(10).offset == 1
        with pytest.raises(errors.InvalidRecordError):
            futures[1].get(10)
        for each in futures[2:6]:
            with pytest.raises(errors.OutOfOrderSequenceNumberError, match="strict_order"):
                each.get(10)
        assert futures[6].get(10).offset == 2
        fake.nothing_more()
        assert fake.log["t", 0] == [b"first", b"1", b"7"]

    def test_queued_for_a_retry(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """They came back before the first one's verdict: none of them leaves again."""
        made = proven(fake, fake_producer, strict_order=True)
        futures, requests = five(fake, made)
        requests[0].refuse(19)
        for each in requests[1:]:
            each.refuse(45)
        fake.next().refuse(87)
        with pytest.raises(errors.InvalidRecordError):
            futures[0].get(10)
        for each in futures[1:]:
            with pytest.raises(errors.OutOfOrderSequenceNumberError):
                each.get(10)
        fake.nothing_more()

    def test_what_came_before_the_failed_one_is_written(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """It waits for its own retry, and is not behind anything."""
        made = proven(fake, fake_producer, strict_order=True, retry_backoff_ms=500)
        futures, requests = five(fake, made)
        requests[0].refuse(19)
        requests[1].refuse(87)
        for each in requests[2:]:
            each.refuse(45)
        again = fake.next()
        assert (again.batch.stamp, again.batch.values) == ((ID, 1, 0), [b"1"])
        again.accept()
        assert futures[0].get(10).offset == 1
        with pytest.raises(errors.InvalidRecordError):
            futures[1].get(10)
        for each in futures[2:]:
            with pytest.raises(errors.OutOfOrderSequenceNumberError):
                each.get(10)
        fake.nothing_more()

    def test_an_expiry_leaves_a_gap_as_well(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """The first one was refused, so it is certainly not in the log, and time runs out before it is sent again."""
        options = {"request_timeout_ms": 2000, "delivery_timeout_ms": 2000, "retry_backoff_ms": 1000}
        made = proven(fake, fake_producer, strict_order=True, **options)
        (first,) = send(made, b"1")
        refused = fake.next()
        time.sleep(1.2)
        followers = send(made, b"2", b"3")
        behind = [fake.next(), fake.next()]
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
        fake.nothing_more(1.5)
        send(made, b"4")
        assert fake.next().batch.stamp == (ID, 1, 0)

    def test_by_default_they_are_written(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        log = HonestLog(fake, poison=b"bad")
        fake.judge = log.answer
        made = fake_producer(**SINGLE)
        values = [b"%d bad" % number if number % 10 == 3 else b"%d" % number for number in range(60)]
        futures = send(made, *values)
        made.flush(20)
        assert [each.failed() for each in futures] == [b"bad" in value for value in values]
        assert fake.log["t", 0] == [value for value in values if b"bad" not in value]


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


class TestIdentity:
    def test_a_missing_permission_is_named(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        fake.init_error = 31
        made = fake_producer(**SINGLE)
        (future,) = send(made, b"1")
        with pytest.raises(errors.ClusterAuthorizationFailedError) as caught:
            future.get(10)
        text = str(caught.value)
        assert "IdempotentWrite" in text
        assert "enable_idempotence=False" in text
        assert caught.value.maybe_written is False
        assert fake.requests[PRODUCE] == 0
        fake.init_error = 0

        def goes_through() -> bool:
            (again,) = send(made, b"2")
            try:
                return bool(again.get(10).offset == 0)
            except errors.ClusterAuthorizationFailedError:
                return False

        eventually(goes_through)
        assert fake.log["t", 0][0] == b"2"

    @pytest.mark.parametrize("code", [14, 15, 16, 51])
    def test_transient_refusals_are_waited_out(
        self, fake: FakeBroker, fake_producer: MakeProducer, code: int
    ) -> None:
        fake.init_error = code
        made = fake_producer(**SINGLE)
        (future,) = send(made, b"1")
        eventually(lambda: fake.requests[INIT_PRODUCER_ID] >= 3)
        assert not future.is_done
        assert fake.requests[PRODUCE] == 0
        fake.init_error = 0
        assert future.get(10).offset == 0

    def test_a_broker_without_it(
        self, fake: FakeBroker, fake_producer: MakeProducer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """By default idempotence is given up, said once."""
        del fake.offered[INIT_PRODUCER_ID]
        stamps: list[tuple[int, int, int]] = []

        def judge(produced: Produced) -> None:
            stamps.append(produced.batch.stamp)
            produced.accept()

        fake.judge = judge
        with caplog.at_level(logging.INFO):
            made = fake_producer(**SINGLE)
            futures = send(made, b"1", b"2", b"3")
            assert [each.get(10).offset for each in futures] == [0, 1, 2]
        assert stamps == [(-1, -1, -1)] * 3
        lines = [each.getMessage() for each in caplog.records if "idempotence" in each.getMessage()]
        assert len(lines) == 1
        assert "InitProducerId" in lines[0]
        assert made.config["enable_idempotence"] is False

    def test_a_broker_without_it_that_was_asked_for(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        del fake.offered[INIT_PRODUCER_ID]

        def use() -> None:
            made = fake_producer(enable_idempotence=True, **SINGLE)
            made.send("t", b"1", partition=0).get(10)

        with pytest.raises(errors.UnsupportedVersionError) as caught:
            use()
        assert "enable_idempotence=True" in str(caught.value)
        assert "InitProducerId" in str(caught.value)
        assert fake.requests[PRODUCE] == 0

    def test_nothing_leaves_before_there_is_one(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        fake.silent.add(INIT_PRODUCER_ID)
        fake.by_hand = True
        made = fake_producer(**SINGLE)
        (future,) = send(made, b"1")
        eventually(lambda: fake.requests[INIT_PRODUCER_ID])
        fake.nothing_more()
        fake.silent.clear()
        fake.drop_connections()
        request = fake.next()
        assert request.batch.stamp == (ID, 0, 0)
        request.accept()
        assert future.get(10).offset == 0


class TestSplitting:
    def test_parts_carry_on_the_sequence(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = fake_producer(linger_ms=60_000, delivery_timeout_ms=120_000)
        fake.by_hand = True
        futures = send(made, *[b"%d" % number for number in range(8)])
        threading.Thread(target=made.flush).start()
        whole = fake.next()
        assert (whole.batch.stamp, whole.batch.count) == ((ID, 0, 0), 8)
        whole.refuse(10)
        got: list[Batch] = []
        while sum(each.count for each in got) < 8:
            request = fake.next()
            assert request.batch.stamp == (ID, 0, sum(each.count for each in got))
            got.append(request.batch)
            request.accept()
        assert len(got) > 1
        assert [each.get(10).offset for each in futures] == list(range(8))


class Chaos:
    """Loses requests before and after they were written, and answers with errors, until that has happened often."""

    OFTEN = 60

    def __init__(self, log: HonestLog, seed: int, late_s: float) -> None:
        """`late_s`: how long a request may lie unread; its connection may be gone by then."""
        self._log = log
        self._chance = random.Random(seed)
        self._late_s = late_s
        self.happened: Counter[str] = Counter()

    @property
    def over(self) -> bool:
        return self.happened.total() >= self.OFTEN

    def answer(self, produced: Produced) -> None:
        kind = self._chance.random()
        if self._late_s and not self.over and self._chance.random() < 0.1:
            self.happened["read late"] += 1
            time.sleep(self._chance.random() * self._late_s)
        if self.over or kind < 0.6:
            produced.answer(self._log.judge)
        elif kind < 0.7:
            self.happened["lost before it was written"] += 1
            produced.hang_up()
        elif kind < 0.8:
            self.happened["lost after it was written"] += 1
            for batch in produced.batches:
                self._log.judge(batch)
            produced.hang_up()
        elif kind < 0.9:
            self.happened["refused"] += 1
            produced.refuse(self._chance.choice([2, 6, 19]))
        else:
            self.happened["written, but not said"] += 1
            produced.answer(self._written_but)

    def _written_but(self, batch: Batch) -> Refusal:
        honest = self._log.judge(batch)
        return Refusal(self._chance.choice([7, 20])) if honest.code == 0 else honest


BY_DEFAULT: dict[str, Any] = {}
STRICT: dict[str, Any] = {"strict_order": True}
# Batches expire while they are queued, in flight and waiting for a verdict.
IMPATIENT: dict[str, Any] = {"request_timeout_ms": 80, "delivery_timeout_ms": 400}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [BY_DEFAULT, STRICT, IMPATIENT, {**STRICT, **IMPATIENT}], ids=str)
def test_whatever_happens_nothing_is_twice_or_out_of_order(
    fake: FakeBroker, fake_producer: MakeProducer, seed: int, options: dict[str, Any]
) -> None:
    log = HonestLog(fake, poison=b"bad", largest=700)
    chaos = Chaos(log, seed, late_s=0.15 if "request_timeout_ms" in options else 0)
    fake.judge = chaos.answer
    made = fake_producer(
        batch_size=1500, retry_backoff_ms=1, reconnect_backoff_ms=1, reconnect_backoff_max_ms=5, **options
    )
    chance = random.Random(seed)
    sent: list[tuple[int, bytes, Any]] = []
    for number in itertools.takewhile(lambda _: not chaos.over, itertools.count()):
        value = b"%05d%s" % (number, b" bad" if chance.random() < 0.005 else bytes(chance.randrange(80)))
        partition = chance.randrange(2)
        sent.append((partition, value, made.send("t", value, partition=partition)))
        if number % 20 == 0:
            time.sleep(0.001)
    made.flush(60)
    print(len(sent), "sent,", sum(each.failed() for _, _, each in sent), "failed;", dict(chaos.happened))
    for partition in range(2):
        lying = fake.log["t", partition]
        assert lying == sorted(lying), "out of order"
        assert len(set(lying)) == len(lying), "written twice"
    written = [set(fake.log["t", partition]) for partition in range(2)]
    for partition, value, future in sent:
        assert future.is_done
        if future.succeeded():
            assert fake.log["t", partition][future.value.offset] == value
        elif value in written[partition]:
            assert future.exception.maybe_written, f"{value!r} failed for good and is in the log"
        assert b"bad" not in value or future.failed()

    def goes_on() -> bool:
        # The request of an expired batch may still be open; then its answer decides about those behind it, too.
        future = made.send("t", b"99999", partition=0)
        made.flush(10)
        return bool(future.succeeded())

    eventually(goes_on)
