"""What the pure data plane reports, and what becomes of batches after each verdict."""

from __future__ import annotations

import collections
import socket
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

pytestmark = pytest.mark.pure_only

broker = pytest.fixture(name="broker")(running_broker)
rig = pytest.fixture(name="rig")(rigs)


class TestConnections:
    def test_asked_for_once_until_it_failed(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        made.control.connects = False
        future = made.send(b"v")
        eventually(lambda: bool(made.control.events))
        time.sleep(0.1)
        made.send(b"w")
        time.sleep(0.1)
        assert made.control.events == [(_pure.EVENT_NEED_CONNECTION, 1)]
        made.control.connects = True
        made.plane.connection_failed(1)
        future.get(5)
        assert made.control.events == [(_pure.EVENT_NEED_CONNECTION, 1)] * 2
        assert made.plane.counters()["connections"] == 1

    def test_lost_in_the_middle(self, rig: Callable[..., Rig], broker: Broker) -> None:
        broker.script = once(HANG_UP)
        made = rig()
        future = made.send(b"v")
        parked = made.parked()
        assert (parked.topic, parked.partition, parked.node_id) == (TOPIC, 0, 1)
        assert (parked.error_code, parked.reached, parked.unknown) == (13, True, False)
        assert (parked.attempts, parked.record_count, parked.done) == (1, 1, False)
        assert (parked.producer_id, parked.producer_epoch, parked.base_sequence) == (9, 0, 0)
        assert _pure.decode_records(parked.body(), parked.base_timestamp, 1)[0][2] == b"v"
        eventually(lambda: bool(made.control.of_kind(_pure.EVENT_CONNECTION_LOST)))
        assert made.control.events[-1] == (
            _pure.EVENT_CONNECTION_LOST,
            1,
            "the broker closed the connection",
            13,
        )
        made.plane.retry(parked, 0, unknown=True)
        assert future.get(5).offset == 0
        assert [sent.producer for sent in broker.sent] == [(9, 0, 0)] * 2

    def test_no_answer_in_time(self, rig: Callable[..., Rig], broker: Broker) -> None:
        broker.script = once(SILENCE)
        made = rig(request_timeout_ms=200)
        future = made.send(b"v")
        parked = made.parked()
        assert (parked.error_code, parked.reached) == (7, True)
        made.plane.retry(parked, 50, unknown=True)
        assert future.get(5).offset == 0
        lost = made.control.of_kind(_pure.EVENT_CONNECTION_LOST)
        assert lost[0][2:] == ("no answer within request_timeout_ms", 7)

    @pytest.mark.parametrize(
        ("garbage", "reason"),
        [
            (b"\0\0\0\4\0\0\0\0", "not a Produce response"),
            (b"\x7f\0\0\0", "longer than receive_message_max_bytes"),
            (b"\xff\xff\xff\xff", "negative length"),
            (b"\0\0\0\x0c\0\0\0\1" + bytes(8), "another correlation id"),
            (b"\0\0\0\x0c" + bytes(12), "misses a partition"),
        ],
    )
    def test_bad_bytes_end_the_connection(
        self, rig: Callable[..., Rig], broker: Broker, garbage: bytes, reason: str
    ) -> None:
        broker.garbage = garbage
        made = rig()
        made.send(b"v")
        parked = made.parked()
        assert (parked.error_code, parked.reached) == (13, True)
        eventually(lambda: bool(made.control.of_kind(_pure.EVENT_CONNECTION_LOST)))
        assert reason in made.control.of_kind(_pure.EVENT_CONNECTION_LOST)[0][2]
        made.plane.fail(parked, errors.KafkaError("x"), unknown=True)

    def test_detach_and_idle(self, rig: Callable[..., Rig]) -> None:
        made = rig(connections_max_idle_ms=150)
        made.send(b"v").get(5)
        made.plane.detach(1, "for a reason")
        eventually(lambda: bool(made.control.of_kind(_pure.EVENT_CONNECTION_LOST)))
        made.send(b"v").get(5)
        eventually(lambda: len(made.control.of_kind(_pure.EVENT_CONNECTION_LOST)) == 2)
        lost = [event[1:] for event in made.control.of_kind(_pure.EVENT_CONNECTION_LOST)]
        assert lost == [(1, "for a reason", 0), (1, "idle for connections_max_idle_ms", 0)]

    def test_throttled(self, rig: Callable[..., Rig], broker: Broker) -> None:
        broker.throttle_ms = 300
        made = rig()
        made.send(b"v").get(5)
        began = time.monotonic()
        made.send(b"v").get(5)
        assert time.monotonic() - began > 0.25

    def test_no_leader(self, rig: Callable[..., Rig]) -> None:
        made = rig(leaders=[-1, 1])
        futures = [made.send(b"v", partition=0) for _ in range(3)]
        eventually(lambda: bool(made.control.events))
        time.sleep(0.05)
        assert made.control.events == [(_pure.EVENT_NO_LEADER, TOPIC)]
        made.plane.set_topic(TOPIC, None, [-1, 1])
        eventually(lambda: len(made.control.events) == 2)
        made.plane.set_topic(TOPIC, None, [1, 1])
        assert [future.get(5).offset for future in futures] == [0, 1, 2]


class TestVerdicts:
    def test_retries_one_at_a_time_in_order(self, rig: Callable[..., Rig], broker: Broker) -> None:
        ready = threading.Event()
        refused: list[bytes] = []

        def script(sent: Sent) -> Answer:
            ready.wait(5)
            if sent.values == [b"1"] and not refused:
                refused.append(sent.values[0])
                return Answer(6)
            if refused and b"1" not in broker.written() and sent.values != [b"1"]:
                return Answer(45)
            return Answer()

        broker.script = script
        made = rig(batch_size=1)
        made.control.judge = lambda parked: made.plane.retry(parked, 30, unknown=False)
        made.send(b"0")
        ready.set()
        futures = [made.send(b"%d" % i) for i in range(1, 12)]
        assert made.plane.flush(10)
        assert [future.get(0).offset for future in futures] == list(range(1, 12))
        assert all(sent.producer[:2] == (9, 0) for sent in broker.sent)

    def test_split(self, rig: Callable[..., Rig], broker: Broker) -> None:
        broker.script = once(Answer(10))
        made = rig(linger_ms=50)
        told: list[int] = []
        futures = [made.send(b"%d" % i, timestamp_ms=i) for i in range(5)]
        futures[3].add_callback(lambda metadata: told.append(metadata.offset))
        waiter = threading.Thread(target=futures[4].get)
        waiter.start()
        parked = made.parked()
        records = _pure.decode_records(parked.body(), parked.base_timestamp, 5)
        made.plane.split(parked, [records[:2], records[2:]])
        assert made.plane.flush(5)
        assert [future.get(0).offset for future in futures] == list(range(5))
        assert told == [3]
        waiter.join(5)
        assert [(sent.values, sent.producer) for sent in broker.sent[1:]] == [
            ([b"0", b"1"], (9, 0, 0)),
            ([b"2", b"3", b"4"], (9, 0, 2)),
        ]

    def test_definite_failure_needs_an_epoch(self, rig: Callable[..., Rig], broker: Broker) -> None:
        broker.script = once(Answer(87))
        made = rig()
        error = errors.InvalidRecordError("bad")
        future = made.send(b"bad")
        made.plane.fail(made.parked(), error, unknown=False, record_errors={})
        assert (type(future.exception), str(future.exception)) == (type(error), str(error))
        assert made.send(b"good").get(5).offset == 0
        assert made.control.of_kind(_pure.EVENT_NEED_EPOCH) == [
            (_pure.EVENT_NEED_EPOCH, TOPIC, 0, 9, 0)
        ]
        assert broker.sent[-1].producer == (9, 1, 0)

    def test_unknown_failure_is_unresolved(self, rig: Callable[..., Rig], broker: Broker) -> None:
        broker.script = once(HANG_UP)
        made = rig()
        future = made.send(b"lost")
        made.plane.fail(made.parked(), errors.KafkaConnectionError("gone"), unknown=True)
        assert future.exception.maybe_written is True
        assert made.send(b"next").get(5).offset == 0
        assert len(made.control.of_kind(_pure.EVENT_NEED_EPOCH)) == 1
        assert broker.sent[-1].producer == (9, 1, 0)

    def test_record_errors(self, rig: Callable[..., Rig], broker: Broker) -> None:
        broker.script = once(Answer(87))
        made = rig(linger_ms=30)
        futures = [made.send(b"%d" % i) for i in range(3)]
        own = errors.InvalidRecordError("this one")
        whole = errors.KafkaError("another in the batch")
        made.plane.fail(made.parked(), whole, unknown=False, record_errors={1: own})
        assert [future.exception for future in futures] == [whole, own, whole]

    def test_duplicate_is_success(self, rig: Callable[..., Rig], broker: Broker) -> None:
        broker.script = once(Answer(46))
        made = rig()
        future = made.send(b"v")
        made.plane.succeed(made.parked(), -1, -1)
        assert future.get(5).offset == -1
        made.send(b"w").get(5)
        assert broker.sent[-1].producer == (9, 0, 1)

    def test_strict_order(self, rig: Callable[..., Rig], broker: Broker) -> None:
        made = rig(batch_size=1, strict_order=True)
        made.send(b"0").get(5)
        gate = threading.Event()

        def script(sent: Sent) -> Answer:
            gate.wait(5)
            return Answer(87 if sent.values == [b"1"] else 45)

        broker.script = script
        futures = [made.send(b"%d" % i) for i in range(1, 4)]
        eventually(lambda: made.plane.counters()["requests_in_flight"] == 3)
        gate.set()
        parked = made.parked()
        time.sleep(0.1)
        made.plane.fail(parked, errors.InvalidRecordError("1"), unknown=False)
        for other in [made.parked(), made.parked()]:
            made.plane.retry(other, 0, unknown=False)
        assert isinstance(futures[0].exception, errors.InvalidRecordError)
        for future in futures[1:]:
            with pytest.raises(errors.OutOfOrderSequenceNumberError):
                future.get(5)
        broker.script = lambda sent: Answer()
        assert made.send(b"4").get(5).offset == 1
        assert broker.sent[-1].producer == (9, 1, 0)

    def test_first_batch_goes_alone(self, rig: Callable[..., Rig], broker: Broker) -> None:
        gate = threading.Event()

        def script(sent: Sent) -> Answer:
            gate.wait(5)
            return Answer()

        broker.script = script
        made = rig(batch_size=1)
        futures = [made.send(b"%d" % i) for i in range(10)]
        time.sleep(0.1)
        assert made.plane.counters()["requests_in_flight"] == 1
        gate.set()
        assert [future.get(5).offset for future in futures] == list(range(10))

    def test_nothing_leaves_without_identity(self, rig: Callable[..., Rig]) -> None:
        made = rig(identity=(-1, -1))
        future = made.send(b"v")
        with pytest.raises(errors.KafkaTimeoutError, match=r"0\.1 secs"):
            future.get(0.1)
        made.plane.set_identity(3, 0)
        assert future.get(5).offset == 0


def test_topic_ids(rig: Callable[..., Rig]) -> None:
    made = rig()
    made.control.connects = False
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    made.plane.attach(1, ours.detach(), 13)
    with theirs, theirs.makefile("rb") as stream:

        def request_version() -> tuple[int, bytes]:
            frame = stream.read(int.from_bytes(stream.read(4), "big"))
            return int.from_bytes(frame[2:4], "big"), frame[4:8]

        future = made.send(b"v")
        version, _ = request_version()
        assert version == 12
        made.plane.set_topic("other", b"i" * 16, [1])
        other = made.producer.send("other", b"w")
        version, correlation_id = request_version()
        assert version == 13
        # Version 12: one topic by name; 13: one by id. An answer for each, in order.
        part = b"\2" + bytes(4) + bytes(2) + bytes(7) + b"\5" + b"\xff" * 8 + bytes(8) + b"\1\0\0"
        for number, topic in [(bytes(4), b"\6topic"), (correlation_id, b"i" * 16)]:
            reply = number + b"\0\2" + topic + part + b"\0" + bytes(4) + b"\0"
            theirs.sendall(len(reply).to_bytes(4, "big") + reply)
        assert [future.get(5).offset, other.get(5).offset] == [5, 5]
        # The answer is told apart by the id the request was made with.
        made.plane.detach(1, "done")


def test_a_connection_that_comes_as_the_plane_stops(rig: Callable[..., Rig]) -> None:
    """Nobody is left to take it: it is closed by whoever hands it over."""
    made = rig()

    class StoppedFirst(collections.deque[Any]):
        def append(self, command: Any) -> None:
            made.plane.stop()
            super().append(command)

    made.plane._loop._commands = StoppedFirst()
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(5)
        made.plane.attach(1, ours.detach(), 7)
        assert theirs.recv(1) == b""
