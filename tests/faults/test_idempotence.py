"""Sequences, epochs and what is resent: each step seen from a broker that answers as the test says."""

from __future__ import annotations

import threading

import pytest
from patience import eventually

from fastprod import errors
from fastprod.testing import Api, Batch, ScriptedBroker

from .conftest import MakeProducer
from .idempotent import ID, SINGLE, five, proven, send


class TestInFlight:
    def test_the_first_batch_goes_alone(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        scripted.by_hand = True
        made = scripted_producer(**SINGLE)
        futures = send(made, b"a", b"b", b"c")
        first = scripted.next_produce()
        assert first.batch.stamp == (ID, 0, 0)
        scripted.nothing_more()
        first.accept()
        followers = [scripted.next_produce(), scripted.next_produce()]
        assert [each.batch.stamp for each in followers] == [(ID, 0, 1), (ID, 0, 2)]
        for each in followers:
            each.accept()
        assert [each.get(10).offset for each in futures] == [0, 1, 2]

    def test_alone_until_it_is_acknowledged_and_not_only_answered(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        scripted.by_hand = True
        made = scripted_producer(**SINGLE)
        futures = send(made, b"a", b"b")
        for _ in range(3):
            request = scripted.next_produce()
            assert request.batch.stamp == (ID, 0, 0)
            request.refuse(19)
        last = scripted.next_produce()
        scripted.nothing_more()
        last.accept()
        scripted.next_produce().accept()
        assert [each.get(10).offset for each in futures] == [0, 1]

    def test_five_and_no_more(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = proven(scripted, scripted_producer)
        futures, requests = five(scripted, made)
        futures += send(made, b"6", b"7")
        scripted.nothing_more()
        requests[0].accept()
        requests.append(scripted.next_produce())
        assert requests[-1].batch.stamp == (ID, 0, 6)
        scripted.nothing_more()
        for each in requests[1:]:
            each.accept()
        scripted.next_produce().accept()
        assert [each.get(10).offset for each in futures] == list(range(1, 8))

    def test_sequences_count_records(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        scripted.by_hand = True
        made = scripted_producer(linger_ms=60_000, delivery_timeout_ms=120_000)
        counts = [3, 1, 4]
        for count in counts:
            send(made, *[b"v"] * count)
            flushing = threading.Thread(target=made.flush)
            flushing.start()
            request = scripted.next_produce()
            assert (request.batch.count, request.batch.sequence) == (count, sum(counts[: counts.index(count)]))
            request.accept()
            flushing.join()


class TestRetries:
    @pytest.mark.parametrize("code", [2, 6, 19])
    def test_the_first_of_five_is_refused(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer, code: int
    ) -> None:
        made = proven(scripted, scripted_producer)
        futures, requests = five(scripted, made)
        later = send(made, b"6", b"7")
        requests[0].refuse(code)
        for each in requests[1:]:
            each.refuse(45)
        again = []
        for number in range(5):
            again.append(scripted.next_produce())
            assert again[-1].batch.data == requests[number].batch.data, "not the same bytes in the same order"
            if number < 4:
                scripted.nothing_more(0.05)  # one at a time until it has caught up
            again[-1].accept()
        for _ in later:
            scripted.next_produce().accept()
        assert [each.get(10).offset for each in futures + later] == list(range(1, 8))
        assert scripted.values("t", 0) == [b"first", *(b"%d" % number for number in range(1, 8))]

    def test_a_follower_was_answered_before_the_first_one_s_retry(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        """20: appended on the leader, so the followers fit, and the first one's retry is a duplicate."""
        made = proven(scripted, scripted_producer)
        futures, requests = five(scripted, made)
        scripted.append(requests[0].batch)
        requests[0].refuse(20)
        for each in requests[1:]:
            each.accept()
        again = scripted.next_produce()
        assert again.batch.data == requests[0].batch.data
        again.accept()
        assert [each.get(10).offset for each in futures] == [1, 2, 3, 4, 5]

    def test_a_lost_connection(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """Nobody knows what was written: the same bytes go again, in order."""
        made = proven(scripted, scripted_producer)
        futures, requests = five(scripted, made)
        requests[0].accept()
        eventually(futures[0].succeeded)
        requests[1].drop()
        for number in range(1, 5):
            again = scripted.next_produce()
            assert again.batch.data == requests[number].batch.data
            again.accept()
        assert [each.get(10).offset for each in futures] == [1, 2, 3, 4, 5]

    def test_no_answer_in_time(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = proven(scripted, scripted_producer, request_timeout_ms=1_500)
        futures, requests = five(scripted, made)
        for request in requests:
            again = scripted.next_produce()
            assert again.batch.data == request.batch.data
            assert again.at - request.at > 1.4
            again.accept()
        assert [each.get(10).offset for each in futures] == [1, 2, 3, 4, 5]

    def test_duplicate_is_success(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = proven(scripted, scripted_producer)
        (future,) = send(made, b"1")
        scripted.next_produce().refuse(46)
        result = future.get(10)
        assert (result.offset, result.partition) == (-1, 0)
        (future,) = send(made, b"2")
        assert scripted.next_produce().batch.stamp == (ID, 0, 2)


class TestFailures:
    @pytest.mark.parametrize("code", [10, 29, 44, 87])
    @pytest.mark.parametrize("place", [0, 2, 4])
    def test_followers_go_on_under_the_next_epoch(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer, code: int, place: int
    ) -> None:
        made = proven(scripted, scripted_producer)
        futures, requests = five(scripted, made)
        for number, request in enumerate(requests):
            if number < place:
                request.accept()
            else:
                request.refuse(code if number == place else 45)
        left = [b"%d" % number for number in range(place + 2, 6)]
        for number, value in enumerate(left):
            again = scripted.next_produce()
            assert (again.batch.stamp, again.batch.values) == ((ID, 1, number), [value])
            if number == 0:
                scripted.nothing_more(0.05)  # what proves our state is known again is its acknowledgement
            again.accept()
        eventually(futures[place].failed)
        futures += send(made, b"6")
        request = scripted.next_produce()
        assert request.batch.stamp == (ID, 1, len(left))
        request.accept()
        failed = futures.pop(place)
        with pytest.raises(errors.for_code(code)) as caught:
            failed.get(10)
        assert caught.value.maybe_written is False
        assert [each.get(10).offset for each in futures] == [1, 2, 3, 4, 5]
        assert scripted.count(Api.INIT_PRODUCER_ID) == 1

    def test_what_may_be_written_is_asked_about_before_the_next_epoch(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        """All five were written and every answer was lost. Then the topic refuses the first one's retry, because the
        permission to write is gone for a moment. The others are in the log: a new number would write them twice."""
        made = proven(scripted, scripted_producer)
        futures, requests = five(scripted, made)
        for each in requests:
            scripted.append(each.batch)
        requests[0].drop()
        again = scripted.next_produce()
        assert again.batch.data == requests[0].batch.data
        again.refuse(29)
        for number in range(1, 5):
            again = scripted.next_produce()
            assert again.batch.data == requests[number].batch.data, "not under its old id, epoch and sequence"
            scripted.nothing_more(0.05)
            again.accept()
        with pytest.raises(errors.TopicAuthorizationFailedError) as caught:
            futures[0].get(10)
        assert caught.value.maybe_written is True
        assert [each.get(10).offset for each in futures[1:]] == [2, 3, 4, 5]
        assert scripted.values("t", 0) == [b"first", b"1", b"2", b"3", b"4", b"5"]

    def test_what_is_found_unwritten_is_renumbered(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        """Of a broker that does not know the first of several it is asked for the last one first: that one is what it
        would know if it knew but one."""
        made = proven(scripted, scripted_producer)
        futures, requests = five(scripted, made)
        requests[0].drop()
        scripted.next_produce().refuse(87)
        for number in (1, 4, 3, 2, 1):
            again = scripted.next_produce()
            assert again.batch.data == requests[number].batch.data
            again.refuse(45)
        for number in range(4):
            again = scripted.next_produce()
            assert (again.batch.stamp, again.batch.values) == ((ID, 1, number), [b"%d" % (number + 2)])
            again.accept()
        assert futures[0].failed()
        assert [each.get(10).offset for each in futures[1:]] == [1, 2, 3, 4]

    def test_a_leader_that_has_lost_our_state(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """45 to the very next batch: one bump, and it starts again at 0."""
        made = proven(scripted, scripted_producer)
        (future,) = send(made, b"1")
        scripted.next_produce().refuse(45)
        again = scripted.next_produce()
        assert again.batch.stamp == (ID, 1, 0)
        again.accept()
        assert future.get(10).offset == 1

    def test_other_partitions_keep_their_epoch_until_idle(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        made = proven(scripted, scripted_producer)
        scripted.by_hand = False
        send(made, b"first", partition=1)[0].get(10)
        scripted.by_hand = True
        (failing,) = send(made, b"x")
        refused = scripted.next_produce()
        healthy = send(made, b"1", b"2", partition=1)
        busy = [scripted.next_produce(), scripted.next_produce()]
        assert [each.batch.stamp for each in busy] == [(ID, 0, 1), (ID, 0, 2)]
        refused.refuse(87)
        eventually(failing.failed)
        (next_,) = send(made, b"y")
        bumped = scripted.next_produce()
        assert (bumped.batch.partition, *bumped.batch.stamp) == (0, ID, 1, 0)
        healthy += send(made, b"3", partition=1)
        scripted.nothing_more()  # its partition is still in the old epoch
        busy[0].refuse(19)
        busy[1].refuse(45)
        bumped.accept()
        assert next_.get(10).offset == 1
        for number in (1, 2):
            again = scripted.next_produce()
            assert (again.batch.partition, *again.batch.stamp) == (1, ID, 0, number)
            again.accept()
        last = scripted.next_produce()
        assert (last.batch.partition, *last.batch.stamp) == (1, ID, 1, 0)
        last.accept()
        assert [each.get(10).offset for each in healthy] == [1, 2, 3]

    def test_the_last_epoch(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """Behind 32767 comes another producer id; nothing leaves without one."""
        scripted.next_identity = (ID, 32767)
        made = proven(scripted, scripted_producer)
        silent = scripted.on(Api.INIT_PRODUCER_ID).ignore()
        (refused,) = send(made, b"x")
        scripted.next_produce().refuse(87)
        eventually(lambda: refused.is_done)
        (future,) = send(made, b"y")
        eventually(lambda: scripted.count(Api.INIT_PRODUCER_ID) == 2)
        scripted.nothing_more()
        silent.remove()
        scripted.next_identity = (ID + 1, 5)
        scripted.drop_connections()  # the question went unanswered; it is asked again
        request = scripted.next_produce()
        assert request.batch.stamp == (ID + 1, 5, 0)
        request.accept()
        assert future.get(10).offset == 1

    def test_fenced(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """90 is the end of this producer, and every later send says why."""
        made = proven(scripted, scripted_producer)
        (future,) = send(made, b"x")
        scripted.next_produce().refuse(90)
        with pytest.raises(errors.ProducerFencedError):
            future.get(10)
        (later,) = send(made, b"y")
        with pytest.raises(errors.ProducerFencedError):
            later.get(10)
        made.close(5)


class TestSplitting:
    def test_parts_carry_on_the_sequence(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        made = scripted_producer(linger_ms=60_000, delivery_timeout_ms=120_000)
        scripted.by_hand = True
        futures = send(made, *[b"%d" % number for number in range(8)])
        threading.Thread(target=made.flush).start()
        whole = scripted.next_produce()
        assert (whole.batch.stamp, whole.batch.count) == ((ID, 0, 0), 8)
        whole.refuse(10)
        got: list[Batch] = []
        while sum(each.count for each in got) < 8:
            request = scripted.next_produce()
            assert request.batch.stamp == (ID, 0, sum(each.count for each in got))
            got.append(request.batch)
            request.accept()
        assert len(got) > 1
        assert [each.get(10).offset for each in futures] == list(range(8))
