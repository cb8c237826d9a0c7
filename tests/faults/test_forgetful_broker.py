"""A broker that was started again recognizes the last batch of a producer alone: of each producer, a snapshot of its
state holds no more. What it wrote before the restart without an answer must not be written again, and stays in order.

A producer that takes its 45 for proof that the first batch is not there sends all of them again, under a new epoch.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from patience import eventually

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, KafkaBroker, Pending, ScriptedBroker

from .ledger import read_log

ID = 77
VALUES = [b"%d" % number for number in range(1, 6)]
# A batch a record.
SINGLE: dict[str, Any] = {"batch_size": 0, "retry_backoff_ms": 5, "reconnect_backoff_ms": 5}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_real_one(end: str) -> None:
    with KafkaBroker(proxied=True) as broker:
        broker.create_topic("t", 1)
        made = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **SINGLE)
        made.send("t", b"first", partition=0).get(20)
        broker.proxy().hold("responses")
        futures = [made.send("t", value, partition=0) for value in VALUES]
        eventually(lambda: broker.end_offset("t", 0) >= 6)
        getattr(broker, end)()
        broker.proxy().cut()
        broker.proxy().release("responses")
        broker.start()
        offsets = [future.get(60).offset for future in futures]
        assert made.send("t", b"last", partition=0).get(30).offset == 6
        made.close()
        log = read_log(broker.direct_servers, "t", 1)
        assert [each.value for each in log] == [b"first", *VALUES, b"last"]
        assert offsets[-1] == 5
        assert all(offset in (-1, place) for place, offset in enumerate(offsets, 1)), "told right, or not at all"


@pytest.fixture
def broker() -> Any:
    with ScriptedBroker({"t": 1}) as made:
        made.next_identity = (ID, 0)
        yield made


def unanswered(broker: ScriptedBroker, written: int, **options: Any) -> tuple[KafkaProducer, list[Any]]:
    """Five batches in flight, of which the first `written` are in the log; then the broker is started again."""
    made = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **{**SINGLE, **options})
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    futures = [made.send("t", value, partition=0) for value in VALUES]
    requests: list[Pending] = [broker.next_produce() for _ in VALUES]
    for request in requests[:written]:
        broker.append(request.batch)
    broker.remember_less("t")
    broker.by_hand = False
    broker.drop_connections()
    return made, futures


@pytest.mark.parametrize("written", range(6))
def test_so_many_were_written(broker: ScriptedBroker, written: int) -> None:
    made, futures = unanswered(broker, written)
    offsets = [future.get(30).offset for future in futures]
    assert made.send("t", b"last", partition=0).get(20).offset == 6
    made.close()
    assert broker.values("t") == [b"first", *VALUES, b"last"]
    assert broker.complaints == []
    assert all(offset in (-1, place) for place, offset in enumerate(offsets, 1))
    assert offsets[max(written - 1, 0):] == [1, 2, 3, 4, 5][max(written - 1, 0):], "the last one it knows"


@pytest.mark.parametrize("written", [2, 5])
def test_nothing_that_may_be_there_fails_as_if_it_were_not(broker: ScriptedBroker, written: int) -> None:
    """Time runs out before all were asked about: none of those that are in the log says that it is not."""
    made, futures = unanswered(broker, written, delivery_timeout_ms=1_500, request_timeout_ms=1_000,
                               retry_backoff_ms=400)
    for place, future in enumerate(futures):
        try:
            future.get(30)
        except errors.KafkaTimeoutError as error:
            assert error.maybe_written or place >= written
    made.flush(20)
    made.close(5)
    log = broker.values("t")
    assert len(set(log)) == len(log)
    for future, value in zip(futures, VALUES, strict=True):
        if future.failed() and not future.exception.maybe_written:
            assert value not in log


def test_the_last_of_them_gets_no_answer_either(broker: ScriptedBroker) -> None:
    """It ends without one, so nothing tells any more whether those before it are there: they fail and say so."""
    made = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **SINGLE)
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    futures = [made.send("t", value, partition=0) for value in VALUES]
    for request in [broker.next_produce() for _ in VALUES]:
        broker.append(request.batch)
    broker.remember_less("t")
    broker.on_produce("t", 0, when=lambda batch: batch.values == [VALUES[-1]]).refuse(-1)
    broker.by_hand = False
    broker.drop_connections()
    for future in futures:
        with pytest.raises(errors.KafkaError):
            future.get(20)
        assert future.exception.maybe_written
    assert made.send("t", b"last", partition=0).get(20).offset == 6
    made.close()
    assert broker.values("t") == [b"first", *VALUES, b"last"]


def test_the_first_of_them_expired(broker: ScriptedBroker) -> None:
    """Its successors are asked about as they would be with it."""
    made = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **SINGLE, delivery_timeout_ms=7_000,
                         request_timeout_ms=6_900)
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    futures = [made.send("t", VALUES[0], partition=0)]
    requests = [broker.next_produce()]
    time.sleep(5.0)   # what comes later has that much more time
    futures += [made.send("t", value, partition=0) for value in VALUES[1:]]
    requests += [broker.next_produce() for _ in VALUES[1:]]
    for request in requests:
        broker.append(request.batch)
    with pytest.raises(errors.KafkaTimeoutError) as raised:
        futures[0].get(20)
    assert raised.value.maybe_written
    broker.remember_less("t")
    broker.by_hand = False
    broker.drop_connections()
    for future in futures[1:]:
        future.get(20)
    assert made.send("t", b"last", partition=0).get(20).offset == 6
    made.close()
    assert broker.values("t") == [b"first", *VALUES, b"last"]


def test_the_topic_is_created_again_meanwhile(broker: ScriptedBroker) -> None:
    """The new one takes whatever comes first, so the first of them must: one that took the last one alone would say of
    those before it that they are there, too."""
    made = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **SINGLE, metadata_max_age_ms=150)
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    futures = [made.send("t", value, partition=0) for value in VALUES]
    requests = [broker.next_produce() for _ in VALUES]
    requests[0].drop()
    broker.next_produce().refuse(45)
    broker.recreate_topic("t")
    broker.by_hand = False
    assert [future.get(20).offset for future in futures] == [0, 1, 2, 3, 4]
    made.close()
    assert broker.values("t") == VALUES


def test_a_refusal_is_no_reason_to_begin_anew(broker: ScriptedBroker) -> None:
    """Only what was sent on a connection that was lost may lie unread: one that is asked about again and refused for
    another reason is believed to be missing with the next 45."""
    made = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **SINGLE)
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    future = made.send("t", b"1", partition=0)
    broker.next_produce().drop()
    for code in (45, 19, 45):
        asked = broker.next_produce()
        assert asked.batch.sequence == 1
        asked.refuse(code)
    anew = broker.next_produce()
    assert anew.batch.stamp == (ID, 1, 0)
    anew.accept()
    assert future.get(20).offset == 1
    made.close()


def test_another_connection_is_lost_meanwhile(broker: ScriptedBroker) -> None:
    """What was sent on it may lie unread as well: that it is missing has to be said twice once more."""
    made = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **SINGLE)
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    future = made.send("t", b"1", partition=0)
    broker.next_produce().drop()
    broker.next_produce().refuse(45)
    broker.next_produce().drop()
    for _ in range(2):
        asked = broker.next_produce()
        assert asked.batch.sequence == 1
        asked.refuse(45)
    anew = broker.next_produce()
    assert anew.batch.stamp == (ID, 1, 0)
    anew.accept()
    assert future.get(20).offset == 1
    made.close()


def test_another_leader_is_asked_from_the_first_on() -> None:
    """What one broker has forgotten, the next one may know: it tells the offsets, too."""
    with ScriptedBroker({"t": 1}, nodes=2) as broker:
        broker.next_identity = (ID, 0)
        made = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **SINGLE)
        made.send("t", b"first", partition=0).get(20)
        broker.by_hand = True
        futures = [made.send("t", value, partition=0) for value in VALUES]
        for request in [broker.next_produce() for _ in VALUES]:
            broker.append(request.batch)
        with broker.on_produce("t", 0, node=1, times=1).refuse(45):
            sent = broker.count(Api.PRODUCE)
            broker.by_hand = False
            broker.drop_connections()
            broker.wait_for(Api.PRODUCE, sent + 1)
            broker.move_leader("t", 0, 2)
            assert [future.get(20).offset for future in futures] == [1, 2, 3, 4, 5]
        made.close()
        assert broker.values("t") == [b"first", *VALUES]
