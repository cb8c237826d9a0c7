"""Items 43 to 47: producer ids, sequences, and what is in flight."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from typing import Any

import pytest
from patience import eventually, in_time

from fastprod import errors
from fastprod.testing import Api, ScriptedBroker, Verdict

from .conftest import Make
from .story import ID, SINGLE, in_flight, offsets, proven, send


def test_no_send_before_pid(broker: ScriptedBroker, make: Make) -> None:
    """Nothing leaves until InitProducerId succeeds, and its retries are spaced."""
    broker.on(Api.INIT_PRODUCER_ID, times=4).refuse(14)
    broker.on(Api.INIT_PRODUCER_ID, times=1).hold()
    made = make(**SINGLE, retry_backoff_ms=100)
    futures = send(made, b"1", b"2")
    pending = broker.next(Api.INIT_PRODUCER_ID)
    assert broker.count(Api.PRODUCE) == 0
    assert not any(each.is_done for each in futures)
    times = [each.at for each in broker.requests_of(Api.INIT_PRODUCER_ID)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    for pause, expected in zip(pauses, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert pause >= 0.8 * expected - 0.02, pauses
    pending.answer()
    assert offsets(futures) == [0, 1]
    assert {each.producer_id for each in broker.log("t")} == {ID}
    assert broker.count(Api.INIT_PRODUCER_ID) == 5


@pytest.mark.parametrize("identity", [{"producer_id": -5}, {"producer_epoch": -3}])
def test_no_send_before_pid_and_none_that_is_no_id(
    broker: ScriptedBroker, make: Make, identity: dict[str, int]
) -> None:
    """With a negative one a broker would take our batches for those of a producer without idempotence."""
    broker.on(Api.INIT_PRODUCER_ID, times=1).answer(edit=lambda said: dataclasses.replace(said, **identity))
    made = make(**SINGLE)
    assert offsets(send(made, b"1")) == [0]
    assert broker.log("t")[0].stamp == (ID, 0, 0)
    assert broker.count(Api.INIT_PRODUCER_ID) == 2


def test_sequence_by_record_count(broker: ScriptedBroker, make: Make) -> None:
    """It goes on by records, is given when a batch leaves, and stays with it when it is sent again."""
    broker.by_hand = True
    made = make(linger_ms=60_000, delivery_timeout_ms=120_000)
    counts = [3, 1, 4, 2]
    for place, count in enumerate(counts):
        futures = send(made, *[b"v"] * count)
        flushing = threading.Thread(target=made.flush)
        flushing.start()
        first = broker.next_produce()
        assert (first.batch.count, first.batch.sequence) == (count, sum(counts[:place]))
        first.refuse(19)
        again = broker.next_produce()
        assert again.batch.data == first.batch.data
        again.accept()
        flushing.join()
        assert offsets(futures) == list(range(sum(counts[:place]), sum(counts[: place + 1])))
    assert broker.log("t")[-1].last_sequence == sum(counts) - 1


def test_five_in_flight(broker: ScriptedBroker, make: Make) -> None:
    made = proven(broker, make)
    futures, requests = in_flight(broker, made, 5)
    futures += send(made, b"6", b"7")
    broker.nothing_more()
    for request in requests[:2]:
        request.accept()
        requests.append(broker.next_produce())
        broker.nothing_more(0.1)
    for request in requests[2:]:
        request.accept()
    assert offsets(futures) == list(range(1, 8))


def test_five_in_flight_is_the_most(broker: ScriptedBroker, make: Make) -> None:
    with pytest.raises(errors.KafkaConfigurationError, match="max_in_flight_requests_per_connection"):
        make(enable_idempotence=True, max_in_flight_requests_per_connection=6)


def test_five_in_flight_and_the_first_one_alone(broker: ScriptedBroker, make: Make) -> None:
    """Until a batch of this producer is acknowledged the leader would take any sequence (design, rule 5a)."""
    broker.by_hand = True
    made = make(**SINGLE)
    futures = send(made, b"1", b"2", b"3")
    for _ in range(3):
        request = broker.next_produce()
        broker.nothing_more(0.1)
        assert request.batch.stamp == (ID, 0, 0)
        request.refuse(19)
    broker.next_produce().refuse(87)
    with pytest.raises(errors.InvalidRecordError):
        futures[0].get(20)
    broker.by_hand = False
    assert offsets(futures[1:]) == [0, 1]
    assert broker.values("t") == [b"2", b"3"]


def test_five_in_flight_and_those_acknowledged_meanwhile(two: ScriptedBroker, make: Make) -> None:
    """A leader recognizes a producer's last five batches. The first is in flight to the old one, and written; were six
    sent past it, its retry would be taken for refused and written again."""
    made = proven(two, make, metadata_max_age_ms=100)
    futures = send(made, b"1")
    old = two.next_produce()
    two.append(old.batch)
    two.move_leader("t", 0, 2)
    asked = two.count(Api.METADATA)
    two.wait_for(Api.METADATA, asked + 2)
    for number in range(2, 6):
        futures += send(made, b"%d" % number)
        two.next_produce().accept()
        assert offsets(futures[1:]) == list(range(2, number + 1))
    futures += send(made, b"6")
    two.nothing_more()
    old.drop()
    two.by_hand = False
    assert offsets(futures) == [1, 2, 3, 4, 5, 6]
    assert two.values("t") == [b"first", b"1", b"2", b"3", b"4", b"5", b"6"]


@pytest.mark.parametrize("code", [2, 19, 7])
def test_in_flight_retried_in_order(broker: ScriptedBroker, make: Make, code: int) -> None:
    made = proven(broker, make)
    futures, requests = in_flight(broker, made, 5)
    for each in requests:
        each.refuse(code)
    for number, each in enumerate(requests):
        again = broker.next_produce()
        assert again.batch.data == each.batch.data
        if number < 4:
            broker.nothing_more(0.1)
        again.accept()
    assert offsets(futures) == [1, 2, 3, 4, 5]
    assert broker.count(Api.INIT_PRODUCER_ID) == 1


@pytest.mark.parametrize("code", [45, 0])
def test_out_of_order_responses(two: ScriptedBroker, make: Make, code: int) -> None:
    """The leader moves while the first is in flight to the old one. The second is answered first, by the new leader:
    too early (45), or written, if the first had come that far before its answer was lost."""
    made = proven(two, make, metadata_max_age_ms=100)
    (first,) = send(made, b"1")
    old = two.next_produce()
    two.move_leader("t", 0, 2)
    asked = two.count(Api.METADATA)
    two.wait_for(Api.METADATA, asked + 2)
    (second,) = send(made, b"2")
    new = two.next_produce()
    assert (old.request.node, new.request.node) == (1, 2)
    if code:
        new.answer()
        old.refuse(6)
        two.by_hand = False
    else:
        offset = two.append(old.batch)
        new.answer()
        assert second.get(20).offset == 2
        old.drop()
        again = two.next_produce()
        assert (again.request.node, again.batch.data) == (2, old.batch.data)
        again.answer()
        assert offset == 1
    assert offsets([first, second]) == [1, 2]
    assert two.values("t") == [b"first", b"1", b"2"]
    assert {each.epoch for each in two.log("t")} == {0}
    # The later of the two is what the next one has to follow: refused, that one is not early but needs an epoch.
    two.by_hand = False
    two.on_produce(times=1).refuse(45)
    assert offsets(send(made, b"3")) == [3]
    assert two.log("t")[-1].stamp == (ID, 1, 0)


def test_duplicate_is_success(broker: ScriptedBroker, make: Make) -> None:
    """46 tells that it is there and not where; the usual answer tells the original offset."""
    made = proven(broker, make)
    (future,) = send(made, b"1")
    request = broker.next_produce()
    broker.append(request.batch)
    request.refuse(46)
    assert future.get(20).offset == -1
    futures = send(made, b"2", b"3")
    requests = [broker.next_produce() for _ in futures]
    assert [each.batch.stamp for each in requests] == [(ID, 0, 2), (ID, 0, 3)]
    requests[0].lose()
    broker.by_hand = False
    assert offsets(futures) == [2, 3]
    assert broker.values("t") == [b"first", b"1", b"2", b"3"]


def test_duplicate_is_success_with_its_own_time(broker: ScriptedBroker, make: Make) -> None:
    """A leader fills the append time of a duplicate with the batch's own time."""
    broker.on_produce(times=1).lose()
    made = make(**SINGLE)
    result: Any = made.send("t", b"1", partition=0, timestamp_ms=1_700_000_000_000).get(20)
    assert (result.offset, result.timestamp) == (0, 1_700_000_000_000)


def test_epoch_exhaustion(broker: ScriptedBroker, make: Make) -> None:
    """Behind epoch 32767 comes another producer id, and nothing leaves without one."""
    broker.next_identity = (ID, 32767)
    made = proven(broker, make)
    broker.on(Api.INIT_PRODUCER_ID, times=1).hold()
    broker.next_identity = (ID + 1, 0)
    futures = send(made, b"1", b"2", b"3")
    requests = [broker.next_produce() for _ in futures]
    requests[0].refuse(87)
    for each in requests[1:]:
        each.answer()
    pending = broker.next(Api.INIT_PRODUCER_ID)
    broker.nothing_more()
    pending.answer()
    broker.by_hand = False
    with pytest.raises(errors.InvalidRecordError):
        futures[0].get(20)
    assert offsets(futures[1:]) == [1, 2]
    assert [each.stamp for each in broker.log("t")] == [(ID, 32767, 0), (ID + 1, 0, 0), (ID + 1, 0, 1)]
    assert all(each.producer_id in (ID, ID + 1) for each in broker.batches)


@pytest.mark.parametrize("code", [31, 35, 53, 49, 90])
def test_fatal_vs_not_fatal(broker: ScriptedBroker, make: Make, code: int) -> None:
    """The producer is at its end, and every later send says why."""
    made = proven(broker, make)
    futures, requests = in_flight(broker, made, 2)
    requests[0].refuse(code)
    requests[1].answer()
    broker.by_hand = False
    with pytest.raises(errors.for_code(code)):
        futures[0].get(20)
    eventually(lambda: futures[1].is_done)
    with pytest.raises(errors.for_code(code)):
        made.send("t", b"later", partition=1).get(20)
    assert broker.values("t", 1) == []
    made.close(5)


def test_fatal_vs_not_fatal_for_those_that_wait(broker: ScriptedBroker, make: Make) -> None:
    """Batches that were refused as too early wait for the one before them, which brings the end of the producer. No
    epoch will ever come for them to go on under, so they end with it and not when their time is up."""
    made = proven(broker, make)
    futures, requests = in_flight(broker, made, 3)
    requests[0].refuse(19)
    for each in requests[1:]:
        each.answer()
    again = broker.next_produce()
    assert again.batch.sequence == 1
    again.refuse(90)
    for each in futures:
        with pytest.raises(errors.ProducerFencedError) as caught:
            each.get(5)
        assert caught.value.maybe_written is False
    with in_time("close()", 0):
        made.close()
    assert broker.values("t") == [b"first"]


def test_fatal_vs_not_fatal_each_error_is_about_its_own(broker: ScriptedBroker, make: Make) -> None:
    """What is in flight, what waits in the queue and what is sent later fails with an error that names its own topic
    and partition, or none: not those of the batch that was refused."""
    broker.add_partitions("t", 3)
    made = proven(broker, make, retry_backoff_ms=20_000)
    broker.by_hand = False
    send(made, b"first", partition=1)[0].get(20)
    with broker.on_produce("t", 1).lose():
        (waits,) = send(made, b"w", partition=1)
        eventually(lambda: broker.values("t", 1) == [b"first", b"w"])
        eventually(lambda: made.stats().queued.records == 1)
    broker.by_hand = True
    futures, requests = in_flight(broker, made, 2)
    requests[0].refuse(90, message="fenced")
    requests[1].refuse(19)
    broker.by_hand = False
    with pytest.raises(errors.ProducerFencedError, match=r"partition 0, batch of 1 record.*fenced"):
        futures[0].get(20)
    for future, partition, maybe in ((futures[1], 0, False), (waits, 1, True)):
        with pytest.raises(errors.ProducerFencedError) as caught:
            future.get(20)
        assert f"fenced. Close it and make another. Topic 't' partition {partition}: Sent once" in str(caught.value)
        assert ("partition 0" in str(caught.value)) == (partition == 0)
        assert caught.value.maybe_written is maybe
    with pytest.raises(errors.ProducerFencedError) as caught:
        made.send("t", b"later", partition=2).get(20)
    assert "partition" not in str(caught.value)


def test_epoch_exhaustion_and_no_new_id(broker: ScriptedBroker, make: Make) -> None:
    """Those behind the one that failed have held sequences and wait for an epoch to go on under. There will be none, as
    the brokers refuse a producer id for good: they say so and do not wait until their time is up."""
    broker.next_identity = (ID, 32767)
    made = make(**SINGLE)
    send(made, b"first")[0].get(20)
    broker.by_hand = True
    futures = send(made, b"1", b"2", b"3")
    requests = [broker.next_produce() for _ in futures]
    with broker.on(Api.INIT_PRODUCER_ID).refuse(31):
        requests[0].refuse(87)
        for each in requests[1:]:
            each.answer()
        for each in futures[1:]:
            with pytest.raises(errors.ClusterAuthorizationFailedError) as caught:
                each.get(20)
            assert "Topic 't' partition 0: Sent once" in str(caught.value)
            assert caught.value.maybe_written is False
    broker.next_identity = (ID + 1, 0)
    broker.by_hand = False
    assert eventually(lambda: not (last := send(made, b"4")[0]).failed() and last.get(20)).offset == 1
    assert broker.values("t") == [b"first", b"4"]


@pytest.mark.parametrize("code", [29, 43, 87, 10, 44, -1])
def test_fatal_vs_not_not(broker: ScriptedBroker, make: Make, code: int) -> None:
    """The batch fails alone; everything else goes on."""
    made = proven(broker, make)
    futures, requests = in_flight(broker, made, 2)
    requests[0].refuse(code)
    requests[1].answer()
    broker.by_hand = False
    with pytest.raises(errors.for_code(code)):
        futures[0].get(20)
    assert futures[1].get(20).offset == 1
    assert made.send("t", b"other", partition=1).get(20).offset == 0
    assert made.send("t", b"later", partition=0).get(20).offset == 2


@pytest.mark.parametrize("release", ["2.1", "2.4"])
def test_unknown_producer_id_cases_truncated(make: Make, release: str) -> None:
    """Retention has removed what we wrote and our state with it: a new epoch, and the batch again."""
    with ScriptedBroker({"t": 1}, version=release) as old:
        old.next_identity = (ID, 0)
        made = make(**SINGLE, bootstrap_servers=old.bootstrap_servers)
        made.send("t", b"first", partition=0).get(20)
        old.forget_producers("t")
        old.delete_records("t", 0, 1)
        (future,) = send(made, b"1")
        assert future.get(20).offset == 1
        assert [each.stamp for each in old.log("t")] == [(ID, 1, 0)]
        assert [each.stamp for each in old.batches] == [(ID, 0, 0), (ID, 0, 1), (ID, 1, 0)]
        made.close()


def test_unknown_producer_id_cases_not_truncated(make: Make) -> None:
    """Our records are there and our state is not."""
    with ScriptedBroker({"t": 1}, version="2.4") as old:
        old.next_identity = (ID, 0)
        made = make(**SINGLE, bootstrap_servers=old.bootstrap_servers)
        made.send("t", b"first", partition=0).get(20)
        old.forget_producers("t")
        assert offsets(send(made, b"1", b"2")) == [1, 2]
        assert [each.stamp for each in old.log("t")] == [(ID, 0, 0), (ID, 1, 0), (ID, 1, 1)]
        made.close()


def test_unknown_producer_id_cases_the_broker_does_not_know(broker: ScriptedBroker, make: Make) -> None:
    """Log start -1: the same batch again."""
    made = proven(broker, make)
    (future,) = send(made, b"1")
    for _ in range(3):
        request = broker.next_produce()
        assert request.batch.stamp == (ID, 0, 1)
        request.answer(lambda _: Verdict(59, log_start_offset=-1))
    broker.next_produce().accept()
    assert future.get(20).offset == 1
