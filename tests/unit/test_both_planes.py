"""What both data planes must stand, each test on either twin."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import fastprod._core as native
import pytest
from both_rig import HELD, TWINS, MakeRig, decoded, each_twin, refused, rig_of_twin
from kafka.record.default_records import DefaultRecordBatchBuilder  # type: ignore[import-untyped]
from patience import eventually, in_time
from pure_rig import HANG_UP, SILENCE, TOPIC, Answer, Broker, Sent, once, rigs, running_broker

from fastprod import _pure, errors

pytestmark = pytest.mark.native_only

broker = pytest.fixture(name="broker")(running_broker)
any_rig = pytest.fixture(name="any_rig")(rigs)
twin = pytest.fixture(params=TWINS, name="twin")(each_twin)
rig = pytest.fixture(name="rig")(rig_of_twin)


class TestPartitionsThatComeAndGo:
    def test_a_partition_that_comes_back_goes_on_with_its_sequence(self, rig: MakeRig, broker: Broker) -> None:
        """A broker that lags behind tells fewer partitions for a moment. Begun anew at 0, the second batch would be
        taken for the first come again, acknowledged, and dropped."""
        made = rig(leaders=[1, 1])
        assert made.send(b"a", partition=1).get(5).offset == 0
        made.plane.set_topic(TOPIC, None, [1])
        made.plane.set_topic(TOPIC, None, [1, 1])
        assert made.send(b"b", partition=1).get(5).offset == 1
        assert [sent.producer for sent in broker.sent] == [(9, 0, 0), (9, 0, 1)]

    def test_what_was_counted_stays_counted(self, rig: MakeRig) -> None:
        made = rig(leaders=[1, 1])
        made.send(b"a", partition=1).get(5)
        made.plane.set_topic(TOPIC, None, [1])
        counters = made.plane.counters()
        assert (counters["records_appended"], counters["records_queued"]) == (1, 0)

    def test_a_topic_without_partitions_is_refused(self, rig: MakeRig) -> None:
        with pytest.raises(ValueError, match="partition"):
            rig().plane.set_topic("empty", None, [])


class TestSplitting:
    def test_what_cannot_be_split_can_still_fail(self, rig: MakeRig, twin: Any) -> None:
        made = rig(**HELD)
        futures, parked = refused(made, b"a", b"b")
        records = decoded(twin, parked)
        for broken in ([], [records, []], [records[:1]], [[(0, 1, 2, 3)], records[1:]]):
            with pytest.raises((ValueError, TypeError, AttributeError)):
                made.plane.split(parked, broken)
        made.plane.fail(parked, errors.MessageSizeTooLargeError("x"), unknown=False)
        with pytest.raises(errors.MessageSizeTooLargeError):
            futures[0].get(5)

    def test_time_that_runs_out_meanwhile(self, rig: MakeRig, twin: Any) -> None:
        """The batch has been claimed by then, so it cannot end twice."""
        made = rig(**HELD, delivery_timeout_ms=400)
        futures, parked = refused(made, b"a", b"b")

        class Slow(list[Any]):
            def __iter__(self) -> Iterator[Any]:
                time.sleep(0.6)
                return super().__iter__()

        first, second = decoded(twin, parked)
        made.plane.split(parked, [Slow([first]), [second]])
        for each in futures:
            with pytest.raises(errors.KafkaTimeoutError):
                each.get(5)
        assert made.plane.flush(5)
        assert made.plane.incomplete() == 0

    def test_a_part_that_cannot_be_compressed_leaves_a_gap(self, rig: MakeRig, twin: Any, broker: Broker) -> None:
        """Its sequence must not be given to another batch: those behind it hold theirs already."""
        failing = [False]

        def compress(data: Any) -> bytes:
            if failing[0]:
                failing[0] = False
                raise RuntimeError("no memory")
            return bytes(data)

        made = rig(**HELD, codec=1, compress=compress)
        made.send(b"proof", partition=0)
        assert made.plane.flush(5)
        futures, parked = refused(made, b"a", b"b")
        failing[0] = True
        made.plane.split(parked, [[record] for record in decoded(twin, parked)])
        with pytest.raises(RuntimeError):
            futures[0].get(5)
        futures[1].get(5)
        made.send(b"c", partition=0)
        assert made.plane.flush(5)
        good = [sent.producer for sent in broker.sent[-2:]]
        assert good == [(9, 1, 0), (9, 1, 1)]

    def test_bytes_are_not_counted_for_ever(self, rig: MakeRig, twin: Any) -> None:
        made = rig(**HELD)
        _, parked = refused(made, *[b"value %d" % number for number in range(200)])
        records = decoded(twin, parked)
        made.plane.split(parked, [records[:100], records[100:]])
        assert made.plane.flush(5)
        counters = made.plane.counters()
        assert (counters["records_queued"], counters["bytes_queued"]) == (0, 0)


class TestThrottling:
    def test_not_for_weeks(self, rig: MakeRig, broker: Broker) -> None:
        made = rig(delivery_timeout_ms=4000, request_timeout_ms=2000)
        broker.throttle_ms = 2**31 - 1
        made.send(b"v").get(5)
        broker.throttle_ms = 0
        waiting = made.send(b"w")
        time.sleep(0.3)
        assert broker.values() == [b"v"]
        with contextlib.suppress(errors.KafkaTimeoutError):
            waiting.get(15)
        assert made.send(b"x").get(15)


class TestTimes:
    def test_a_record_has_that_of_its_call(self, rig: MakeRig) -> None:
        """To the millisecond, although the native twin does not read the clock each time."""
        made = rig()
        seen = []
        for _ in range(1000):
            before = time.time_ns() // 1_000_000
            future = made.send(b"v")
            seen.append((before, future, time.time_ns() // 1_000_000))
            time.sleep(0.00005)
        assert len({before for before, _, _ in seen}) > 20
        for before, future, after in seen:
            assert before <= future.get(5).timestamp <= after


class TestThreads:
    def test_stop_and_flush_on_the_io_thread(self, rig: MakeRig) -> None:
        """A destructor can run there, inside a compressor, and call anything."""
        seen: list[str] = []

        def compress(data: Any) -> bytes:
            if not seen:
                for name, arguments in (("flush", (None,)), ("stop", ())):
                    try:
                        getattr(made.plane, name)(*arguments)
                        seen.append(name)
                    except errors.IllegalStateError:
                        seen.append("no " + name)
            return bytes(data)

        made = rig(codec=1, compress=compress)
        made.send(b"v")
        eventually(lambda: len(seen) == 2)
        assert seen == ["no flush", "stop"]

    def test_a_request_times_out_in_time(self, rig: MakeRig, broker: Broker) -> None:
        made = rig(request_timeout_ms=150, leaders=[1, 1])
        made.send(b"v", partition=0).get(5)
        time.sleep(1.1)  # the I/O thread now sleeps until somebody wakes it
        broker.script = lambda sent: SILENCE
        made.send(b"w", partition=0)
        with in_time("request_timeout_ms=150", 0.15, at_least_s=0.15, slack_s=0.65):
            made.parked()

    def test_a_logging_filter_that_raises_ends_nothing(self, rig: MakeRig) -> None:
        def broken(record: logging.LogRecord) -> bool:
            raise RuntimeError("a filter of the user's")

        logger = logging.getLogger("fastprod")
        made = rig(**HELD)
        logger.addFilter(broken)
        try:
            made.send(b"v", partition=0).add_callback(lambda _: 1 // 0)
            assert made.plane.flush(5)
        finally:
            logger.removeFilter(broken)

    def test_a_lost_batch_that_expired_is_forgotten(self, rig: MakeRig, broker: Broker, twin: Any) -> None:
        broker.script = once(HANG_UP)
        made = rig(delivery_timeout_ms=200)
        future = made.send(b"v")
        parked = made.parked()
        with pytest.raises(errors.KafkaTimeoutError):
            future.get(5)
        made.plane.fail(parked, errors.KafkaError("ignored"), unknown=True)
        assert made.plane.counters()["memory_used"] == 0


class TestSubclasses:
    def test_of_what_headers_are_made_of(self, rig: MakeRig, twin: Any, broker: Broker) -> None:
        class Headers(list[Any]):
            def __len__(self) -> int:
                return 7

        class Pair(NamedTuple):
            name: str
            value: bytes

        class Name(str):
            def encode(self, *how: str) -> bytes:
                return b"?"

        class Value(bytes):
            pass

        made = rig(**HELD)
        future = made.send(b"v", headers=Headers([Pair(Name("n\xe4"), Value(b"x")), ("b", b"")]))
        _, parked = refused(made)
        ((_, _, value, headers),) = decoded(twin, parked)
        assert (value, headers) == (b"v", [("n\xe4", b"x"), ("b", b"")])
        made.plane.fail(parked, errors.MessageSizeTooLargeError("x"), unknown=False)
        assert future.failed()


class TestCounters:
    def test_the_size_of_a_record_is_what_it_takes_in_a_batch(self, rig: MakeRig) -> None:
        theirs = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 16384)
        made = rig(**HELD)
        sizes = []
        for number, timestamp in enumerate((1000, 1000, 3000)):
            headers = [("a", b"b")] * number
            made.send(b"v" * 100, key=b"kk", headers=headers, partition=0, timestamp_ms=timestamp)
            sizes.append(theirs.append(number, timestamp, b"kk", b"v" * 100, headers).size)
        counters = made.plane.counters()
        assert (counters["record_bytes"], counters["record_size_max"]) == (sum(sizes), max(sizes))
        assert counters["bytes_queued"] == sum(sizes)


class Liar:
    """Damages the answers of a broker, for a while."""

    MANY = 150

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.done = 0

    def __call__(self, reply: bytes) -> bytes:
        if self.done == self.MANY:
            return reply
        self.done += 1
        chance = self._chance
        data = bytearray(reply)
        at = chance.randrange(len(data))
        kind = chance.randrange(6)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 3:
            del data[at : at + chance.randrange(1, 9)]
        else:
            lie = chance.choice([-(2**31), -1, 0, 1, 2**16, 2**31 - 1]).to_bytes(4, "big", signed=True)
            data[at * (kind == 5) : at * (kind == 5) + 4] = lie
        return bytes(data)


class TestDamagedAnswers:
    """A broken frame ends its connection, and what was in flight is sent again; the process goes on."""

    @pytest.mark.parametrize("seed", range(2))
    def test_everything_arrives_in_the_end(self, rig: MakeRig, broker: Broker, seed: int) -> None:
        broker.damage = liar = Liar(seed)
        made = rig(request_timeout_ms=30, delivery_timeout_ms=1000, leaders=[1, 1])
        made.control.judge = lambda parked: made.plane.retry(parked, 0, unknown=True)
        futures = []
        deadline = time.monotonic() + 50
        while liar.done < liar.MANY and time.monotonic() < deadline:
            futures += [made.send(b"v", partition=number) for number in range(2)]
            time.sleep(0.002)
        assert made.plane.flush(20)
        assert liar.done == liar.MANY
        assert all(each.is_done for each in futures)
        assert made.send(b"healed").get(5)
        lost = made.control.of_kind(_pure.EVENT_CONNECTION_LOST)
        assert len(lost) > 20
        assert made.plane.counters()["memory_used"] == 0


class Fickle:
    """A partition number that is another one when it is asked for again."""

    def __init__(self) -> None:
        self.numbers = iter([0, 1 << 20, 1 << 20])

    def __index__(self) -> int:
        return next(self.numbers)


class TestMisuse:
    def test_a_number_that_changes(self, rig: MakeRig, twin: Any) -> None:
        made = rig()
        made.send(b"v", partition=Fickle()).get(5)
        by_hand = rig(mode=twin.PARTITION_CUSTOM, partitioner=lambda *_: Fickle())
        by_hand.send(b"v").get(5)

    def test_a_verdict_on_nothing(self, rig: MakeRig) -> None:
        plane = rig().plane
        for use in (
            lambda: plane.retry(None, 0, unknown=False),
            lambda: plane.fail(None, errors.KafkaError("x"), unknown=False),
            lambda: plane.succeed(None, 0, 0),
            lambda: plane.split(None, []),
        ):
            with pytest.raises((TypeError, AttributeError)):
                use()

    def test_bare_objects(self) -> None:
        """Nobody makes these by hand; who does gets an error, or nothing, but no crash."""
        future = native.FutureRecordMetadata.__new__(native.FutureRecordMetadata)
        for use in (
            lambda: future.is_done, lambda: future.value, lambda: future.exception, future.succeeded, future.failed,
            future.retriable, future.get, lambda: future.add_both(print), lambda: future.success(1),
            lambda: future.failure(KeyError), lambda: repr(future),
        ):
            with pytest.raises(TypeError, match="made by"):
                use()
        with pytest.raises(errors.IllegalStateError):
            native.ParkedBatch().body()
        assert (native.TopicRoute().partition_count, native.TopicRoute().take_used()) == (0, False)

    def test_refused_options_close_nothing(self) -> None:
        here, there = socket.socketpair()
        with here, there:
            script = (
                "import os, fastprod._core as core\n"
                "try: core.DataPlane(None, 0)\n"
                "except AttributeError: os.fstat(0)\n"
            )
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            subprocess.run([sys.executable, "-c", script], stdin=there, check=True, env=environment)

    def test_what_a_compressor_keeps_is_not_ours(self, any_rig: MakeRig) -> None:
        kept: list[memoryview] = []

        def compress(data: memoryview) -> bytes:
            kept.append(data)
            return bytes(data)

        any_rig(twin=native, codec=1, compress=compress).send(b"v").get(5)
        with pytest.raises(ValueError, match="released"):
            kept[0][0]


def test_an_older_batch_acknowledged_late(rig: MakeRig, broker: Broker) -> None:
    """It was resent to the new leader while the old one still answered for a later batch. What the partition knows of
    the last acknowledged sequence does not go back."""
    offsets: list[int] = []
    made = rig()
    made.send(b"proof").get(5)

    def script(sent: Sent) -> Answer:
        offsets.append(sent.producer[2])
        return Answer(6) if sent.values == [b"old"] and offsets.count(1) == 1 else Answer()

    broker.script = script
    old = made.send(b"old")
    parked = made.parked()
    assert parked.last_acked_sequence == 0
    made.plane.succeed(parked, 7, -1)
    assert old.get(5).offset == 7
    assert made.send(b"new").get(5).offset == 1
    assert broker.sent[-1].producer == (9, 0, 2)
