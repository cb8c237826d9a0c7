"""How batches, topics and whole planes end, on the pure data plane."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from patience import eventually
from pure_rig import (
    HANG_UP,
    SILENCE,
    TOPIC,
    Answer,
    Broker,
    Rig,
    Sent,
    once,
    rigs,
    running_broker,
)

from fastprod import _pure, errors
from fastprod._pure import accumulator

pytestmark = pytest.mark.pure_only

broker = pytest.fixture(name="broker")(running_broker)
rig = pytest.fixture(name="rig")(rigs)


class TestEnds:
    def test_expired_in_the_queue(self, rig: Callable[..., Rig]) -> None:
        made = rig(delivery_timeout_ms=150)
        made.control.connects = False
        futures = [made.send(b"v") for _ in range(2)]
        for future in futures:
            with pytest.raises(errors.KafkaTimeoutError, match="Expiring 2 record") as caught:
                future.get(5)
            assert caught.value.maybe_written is False
        assert futures[0].exception is futures[0].exception is not futures[1].exception
        assert made.plane.counters()["memory_used"] == 0

    def test_expired_in_flight(self, rig: Callable[..., Rig], broker: Broker) -> None:
        gate = threading.Event()

        def script(sent: Sent) -> Answer:
            gate.wait(5)
            return Answer()

        broker.script = script
        made = rig(delivery_timeout_ms=200)
        future = made.send(b"v")
        with pytest.raises(errors.KafkaTimeoutError) as caught:
            future.get(5)
        assert caught.value.maybe_written is True
        assert made.plane.counters()["memory_used"] > 0
        gate.set()
        eventually(lambda: made.plane.counters()["memory_used"] == 0)
        assert made.send(b"w").get(5).offset == 1
        assert broker.sent[-1].producer == (9, 0, 1)

    def test_expired_while_parked_is_only_accounted_for(
        self, rig: Callable[..., Rig], broker: Broker
    ) -> None:
        broker.script = once(HANG_UP)
        made = rig(delivery_timeout_ms=300)
        future = made.send(b"v")
        parked = made.parked()
        with pytest.raises(errors.KafkaTimeoutError):
            future.get(5)
        assert parked.done
        made.plane.fail(parked, errors.KafkaError("ignored"), unknown=True)
        assert made.send(b"w").get(5).offset == 0
        assert broker.sent[-1].producer == (9, 1, 0)

    def test_fewer_partitions(self, rig: Callable[..., Rig]) -> None:
        made = rig(leaders=[1, -1], mode=_pure.PARTITION_ROUND_ROBIN)
        gone = made.send(b"v", partition=1)
        route = made.plane.set_topic(TOPIC, None, [1])
        assert (route.partition_count, route.leaders) == (1, [1])
        assert isinstance(gone.exception, errors.UnknownTopicOrPartitionError)
        with pytest.raises(ValueError, match="partition 1"):
            made.send(b"v", partition=1)
        made.plane.set_topic(TOPIC, None, [1, 1])
        assert made.send(b"v", partition=1).get(5).partition == 1

    def test_forgotten_and_reset_topics(self, rig: Callable[..., Rig], broker: Broker) -> None:
        made = rig()
        made.send(b"v").get(5)
        assert made.plane.routes[TOPIC].take_used()
        assert not made.plane.routes[TOPIC].take_used()
        made.plane.forget_topic(TOPIC)
        assert made.send(b"v").get(5).offset == 1
        assert broker.sent[-1].producer == (9, 0, 1)
        made.plane.reset_topic(TOPIC)
        made.send(b"v").get(5)
        assert broker.sent[-1].producer == (9, 1, 0)

    def test_fail_queued_and_abort(self, rig: Callable[..., Rig], broker: Broker) -> None:
        broker.script = lambda sent: SILENCE
        made = rig(leaders=[1, -1])
        sent = made.send(b"sent", partition=0)
        queued = made.send(b"queued", partition=1)
        eventually(lambda: made.plane.counters()["requests_in_flight"] == 1)
        fatal = errors.ClusterAuthorizationFailedError("no")
        made.plane.fail_queued(fatal)
        assert isinstance(queued.exception, errors.ClusterAuthorizationFailedError)
        assert "no Topic" in str(queued.exception), "it names itself"
        assert not sent.is_done
        open_batch = made.send(b"open", partition=1)
        made.plane.close_appends()
        made.plane.stop()
        left = made.plane.abort(lambda: errors.IllegalStateError("closed"))
        assert [(each[0], each[1], each[5], each[6]) for each in left] == [
            (TOPIC, 0, 1, True),
            (TOPIC, 1, 1, False),
        ]
        values = [_pure.decode_records(each[3], each[4], each[5])[0][2] for each in left]
        assert values == [b"sent", b"open"]
        assert sent.exception.maybe_written is True
        assert open_batch.exception.maybe_written is False
        with pytest.raises(errors.IllegalStateError):
            made.send(b"late")

    def test_leader_limit(self, rig: Callable[..., Rig], broker: Broker) -> None:
        made = rig(linger_ms=50)
        made.plane.set_leader_limit(TOPIC, 200)
        futures: list[Any] = [made.send(b"x" * 50) for _ in range(6)]
        for future in futures:
            future.get(5)
        assert [len(sent.values) for sent in broker.sent] == [2, 2, 2]

    def test_bounded_by_max_request_size(self, rig: Callable[..., Rig], broker: Broker) -> None:
        made = rig(leaders=[1] * 8, max_request_size=300, linger_ms=20)
        futures = [made.send(b"x" * 100, partition=i) for i in range(8)]
        for future in futures:
            future.get(5)
        assert broker.requests == 8
        assert made.plane.node_counters()[1]["request_size_max"] < 400
        assert made.plane.topic_counters()[TOPIC]["records_sent"] == 8


def test_dropped_without_stop(broker: Broker) -> None:
    made = Rig(broker)
    made.send(b"v").get(5)
    made.control.stopping = True
    made.control.join()
    io_thread = next(each for each in threading.enumerate() if each.name == "me-io-thread")
    del made.control.plane, made.plane, made.producer
    io_thread.join(5)
    assert not io_thread.is_alive()
    made.close_sockets()


def test_nothing_is_left(broker: Broker) -> None:
    made = Rig(broker)
    for i in range(100):
        made.send(b"%d" % i).add_callback(lambda _metadata: None)
    assert made.plane.flush(5)
    made.close()
    gc.collect()
    assert _pure.live_objects() == {"batches": 0, "buffers": 0, "futures": 0}


def test_a_record_that_is_being_accepted_belongs_to_what_a_close_waits_for(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender has found the producer open, and the plane does not know of its batch yet."""
    opening, go_on = threading.Event(), threading.Event()
    open_batch = accumulator._open_batch

    def slowly(*given: Any) -> Any:
        opening.set()
        assert go_on.wait(30)
        return open_batch(*given)

    made = rig()
    made.control.connects = False
    monkeypatch.setattr(accumulator, "_open_batch", slowly)
    sender = threading.Thread(target=made.send, args=[b"v"])
    sender.start()
    assert opening.wait(30)
    seen: list[int] = []
    closer = threading.Thread(
        target=lambda: (made.plane.close_appends(), seen.append(made.plane.incomplete()))
    )
    closer.start()
    closer.join(0.1)  # it waits; where it does not, it has seen nothing by now
    go_on.set()
    sender.join(30)
    closer.join(30)
    assert seen == [1]


def test_whoever_stops_as_well_waits_as_well(rig: Callable[..., Rig]) -> None:
    sealing, go_on = threading.Event(), threading.Event()

    def compress(data: Any) -> bytes:
        sealing.set()
        go_on.wait(20)
        return bytes(data)

    made = rig(codec=1, compress=compress)
    made.send(b"v")
    assert sealing.wait(5)
    stops = [threading.Thread(target=made.plane.stop) for _ in range(2)]
    for each in stops:
        each.start()
    time.sleep(0.1)
    assert all(each.is_alive() for each in stops)
    go_on.set()
    for each in stops:
        each.join(20)
        assert not each.is_alive()
