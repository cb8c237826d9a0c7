"""Sequences, epochs and what is resent: each step seen from a broker that answers as the test says."""

from __future__ import annotations

import threading

import pytest

from fastprod import errors

from .conftest import MakeProducer
from .fake_broker import INIT_PRODUCER_ID, Batch, FakeBroker, Refusal
from .idempotent import ID, SINGLE, five, proven, send
from .patience import eventually


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
        """Of a broker that does not know the first of several it is asked for the last one first: that one is what it
        would know if it knew but one."""
        made = proven(fake, fake_producer)
        futures, requests = five(fake, made)
        requests[0].hang_up()
        fake.next().refuse(87)
        for number in (1, 4, 3, 2, 1):
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
