"""Items 48 to 51: a batch fails for good, and what happens to those behind it and beside it."""

from __future__ import annotations

import time

import pytest
from patience import eventually

from fastprod import errors
from fastprod.testing import Api, ScriptedBroker

from .conftest import Make
from .story import ID, in_flight, offsets, proven, send


@pytest.mark.parametrize("code", [10, 29, 32, 44, 87])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_fatal_first_followers_recover(broker: ScriptedBroker, make: Make, code: int, place: int) -> None:
    """They are answered 45, renumbered from 0 under the next epoch and written, in order, without a gap in offsets."""
    made = proven(broker, make)
    futures, requests = in_flight(broker, made, 5)
    for number, request in enumerate(requests):
        if number == place:
            request.refuse(code)
        else:
            request.answer()
    broker.by_hand = False
    (last,) = send(made, b"6")
    failed = futures.pop(place)
    with pytest.raises(errors.for_code(code)) as caught:
        failed.get(20)
    assert caught.value.maybe_written is False  # type: ignore[attr-defined]
    assert offsets([*futures, last]) == [1, 2, 3, 4, 5]
    left = [b"%d" % number for number in range(1, 7) if number != place + 1]
    assert broker.values("t") == [b"first", *left]
    stamps = [each.stamp for each in broker.log("t")]
    before = place + 1
    assert stamps == [(ID, 0, number) for number in range(before)] + [(ID, 1, number) for number in range(6 - before)]
    assert broker.count(Api.INIT_PRODUCER_ID) == 1


def test_strict_mode_followers_fail(broker: ScriptedBroker, make: Make) -> None:
    """With `strict_order` those that hold a sequence fail; those that hold none go on under the next epoch."""
    made = proven(broker, make, strict_order=True)
    futures, requests = in_flight(broker, made, 5)
    futures += send(made, b"6", b"7")
    requests[0].accept()
    requests.append(broker.next_produce())
    assert requests[-1].batch.values == [b"6"]
    requests[1].refuse(87)
    for each in requests[2:]:
        each.answer()
    broker.by_hand = False
    assert futures[0].get(20).offset == 1
    with pytest.raises(errors.InvalidRecordError):
        futures[1].get(20)
    for each in futures[2:6]:
        with pytest.raises(errors.OutOfOrderSequenceNumberError, match="strict_order"):
            each.get(20)
        assert each.exception.maybe_written is False
    assert futures[6].get(20).offset == 2
    assert broker.values("t") == [b"first", b"1", b"7"]
    assert broker.log("t")[-1].stamp == (ID, 1, 0)


def test_strict_mode_followers_fail_that_wait_for_a_retry(broker: ScriptedBroker, make: Make) -> None:
    made = proven(broker, make, strict_order=True)
    futures, requests = in_flight(broker, made, 4)
    requests[0].refuse(19)
    for each in requests[1:]:
        each.answer()
    broker.next_produce().refuse(87)
    with pytest.raises(errors.InvalidRecordError):
        futures[0].get(20)
    for each in futures[1:]:
        with pytest.raises(errors.OutOfOrderSequenceNumberError):
            each.get(20)
    broker.nothing_more()
    assert broker.values("t") == [b"first"]


def test_strict_mode_followers_fail_behind_one_of_unknown_fate(broker: ScriptedBroker, make: Make) -> None:
    """The first one's answers were lost and its time is over. That the next one does not fit tells that it is not in
    the log; one that holds no sequence goes on under the next epoch. What was on the connection that was lost may still
    lie unread, and then be written: no later answer says that it will not."""
    made = proven(broker, make, strict_order=True, request_timeout_ms=4000, delivery_timeout_ms=4000)
    (first,) = send(made, b"1")
    broker.next_produce().drop()
    lost = broker.next_produce()
    time.sleep(2.5)   # what comes now has that much more time
    behind = send(made, b"2", b"3")
    assert [broker.next_produce().batch.values for _ in behind] == [[b"2"], [b"3"]]
    eventually(lambda: first.failed())
    assert first.exception.maybe_written
    lost.drop()
    broker.by_hand = False
    for each in behind:
        with pytest.raises(errors.OutOfOrderSequenceNumberError, match="strict_order"):
            each.get(20)
    assert all(each.exception.maybe_written for each in behind)
    assert send(made, b"4")[0].get(20).offset == 1
    assert broker.values("t") == [b"first", b"4"]
    assert broker.log("t")[-1].stamp == (ID, 1, 0)


def test_strict_mode_followers_fail_behind_one_that_nobody_can_tell_of(broker: ScriptedBroker, make: Make) -> None:
    """The broker was started again, and those that may be there are asked about from the last on. The last one is not
    there; the others end without an answer, and so there may be a gap before it. What holds no sequence goes on."""
    made = proven(broker, make, strict_order=True)
    futures, requests = in_flight(broker, made, 3)
    requests[0].drop()
    request = broker.next_produce()
    assert request.batch.values == [b"1"]
    request.refuse(45)
    request = broker.next_produce()
    assert request.batch.values == [b"3"]
    (late,) = send(made, b"4")
    request.refuse(45)
    for values in ([b"2"], [b"1"]):
        request = broker.next_produce()
        assert request.batch.values == values
        request.refuse(-1)
    request = broker.next_produce()
    assert (request.batch.values, request.batch.stamp) == ([b"4"], (ID, 1, 0))
    request.accept()
    for each in futures[:2]:
        with pytest.raises(errors.UnknownError):
            each.get(20)
        assert each.exception.maybe_written
    with pytest.raises(errors.OutOfOrderSequenceNumberError, match="strict_order"):
        futures[2].get(20)
    assert futures[2].exception.maybe_written
    assert late.get(20).offset == 1
    assert broker.values("t") == [b"first", b"4"]


def test_strict_mode_followers_fail_between_two_that_nobody_can_tell_of(broker: ScriptedBroker, make: Make) -> None:
    """The second one was refused and waits; the first and the third ended without an answer. The topic is created
    again, so it would begin anew: but the first one may be missing."""
    made = proven(broker, make, strict_order=True, retry_backoff_ms=2000, metadata_max_age_ms=100)
    futures, requests = in_flight(broker, made, 3)
    for request, code in zip(requests, (-1, 19, -1), strict=True):
        request.refuse(code)
    for each in (futures[0], futures[2]):
        with pytest.raises(errors.UnknownError):
            each.get(20)
    broker.recreate_topic("t")
    broker.wait_for(Api.METADATA, broker.count(Api.METADATA) + 2)
    broker.by_hand = False
    (late,) = send(made, b"4")
    with pytest.raises(errors.OutOfOrderSequenceNumberError, match="strict_order"):
        futures[1].get(20)
    assert late.get(20).offset == 0
    assert broker.values("t") == [b"4"]


def test_bump_on_45_next_batch(broker: ScriptedBroker, make: Make) -> None:
    """A leader with another idea of our sequences: one bump, and from 0."""
    made = proven(broker, make)
    futures = send(made, b"1", b"2")
    requests = [broker.next_produce() for _ in futures]
    for each in requests:
        each.refuse(45)
    again = broker.next_produce()
    assert again.batch.stamp == (ID, 1, 0)
    broker.nothing_more(0.1)
    again.accept()
    last = broker.next_produce()
    assert last.batch.stamp == (ID, 1, 1)
    last.accept()
    assert offsets(futures) == [1, 2]
    assert broker.count(Api.INIT_PRODUCER_ID) == 1


def test_bump_on_45_next_batch_not_before_it_was_said_twice(broker: ScriptedBroker, make: Make) -> None:
    """Two requests lie unread in a connection that was lost, and the first one's time is over. The other one is asked
    about, and denied, a moment before the broker reads what lies there: so it is asked about again."""
    made = proven(broker, make, request_timeout_ms=6000, delivery_timeout_ms=6000)
    (first,) = send(made, b"1")
    unread = [broker.next_produce()]
    time.sleep(3)   # what comes now has that much more time
    (second,) = send(made, b"2")
    unread.append(broker.next_produce())
    with pytest.raises(errors.KafkaTimeoutError):
        first.get(20)
    broker.drop_connections()
    asked = broker.next_produce()
    assert asked.batch.stamp == (ID, 0, 2)
    asked.answer()
    broker.nothing_more(0.5)
    for each in unread:
        each.ignore(applied=True)
    again = broker.next_produce()
    assert again.batch.data == asked.batch.data
    assert again.at - asked.at > 0.9
    broker.by_hand = False
    again.answer()
    (third,) = send(made, b"3")
    assert offsets([second, third]) == [2, 3]
    assert first.exception.maybe_written
    assert broker.values("t") == [b"first", b"1", b"2", b"3"]


def test_bump_on_45_next_batch_not_behind_one_that_was_found(broker: ScriptedBroker, make: Make) -> None:
    """The last of them was denied twice, and then the connection that was lost is read: that the one before it is there
    now says that it may be, too."""
    made = proven(broker, make, request_timeout_ms=9000, delivery_timeout_ms=9000)
    (first,) = send(made, b"1")
    unread = [broker.next_produce()]
    time.sleep(4)   # what comes now has that much more time
    futures = send(made, b"2", b"3", b"4")
    unread += [broker.next_produce() for _ in futures]
    with pytest.raises(errors.KafkaTimeoutError):
        first.get(20)
    broker.drop_connections()
    for sequence in (2, 4):
        asked = broker.next_produce()
        assert asked.batch.stamp == (ID, 0, sequence)
        asked.answer()
    asked = broker.next_produce()
    assert asked.batch.stamp == (ID, 0, 3)
    for each in unread:
        each.ignore(applied=True)
    broker.by_hand = False
    asked.answer()
    assert offsets(futures) == [2, 3, 4]
    assert broker.values("t") == [b"first", b"1", b"2", b"3", b"4"]


def test_bump_leaves_healthy_tp(broker: ScriptedBroker, make: Make) -> None:
    """Others keep the old epoch until nothing of theirs is in flight, and then begin at 0."""
    made = proven(broker, make)
    broker.by_hand = False
    send(made, b"first", partition=1)[0].get(20)
    broker.by_hand = True
    (failing,) = send(made, b"x")
    refused = broker.next_produce()
    healthy = send(made, b"1", partition=1)
    busy = [broker.next_produce()]
    healthy += send(made, b"2", partition=1)
    busy.append(broker.next_produce())
    assert [each.batch.stamp for each in busy] == [(ID, 0, 1), (ID, 0, 2)]
    refused.refuse(87)
    eventually(lambda: failing.failed())
    (next_,) = send(made, b"y")
    bumped = broker.next_produce()
    assert (bumped.batch.partition, bumped.batch.stamp) == (0, (ID, 1, 0))
    healthy += send(made, b"3", partition=1)
    broker.nothing_more()
    busy[0].refuse(19)
    busy[1].answer()
    bumped.accept()
    for number in (1, 2):
        again = broker.next_produce()
        assert (again.batch.partition, again.batch.stamp) == (1, (ID, 0, number))
        again.accept()
    last = broker.next_produce()
    assert (last.batch.partition, last.batch.stamp) == (1, (ID, 1, 0))
    last.accept()
    assert next_.get(20).offset == 1
    assert offsets(healthy) == [1, 2, 3]
