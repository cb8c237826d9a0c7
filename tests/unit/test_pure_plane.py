"""The pure data plane when all goes well, and what `send` refuses, against a broker double."""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from patience import eventually, in_time
from pure_rig import TOPIC, Answer, Broker, Rig, Sent, rigs, running_broker

from fastprod import _pure, errors

pytestmark = pytest.mark.pure_only

broker = pytest.fixture(name="broker")(running_broker)
rig = pytest.fixture(name="rig")(rigs)


class TestDelivery:
    def test_one_record(self, rig: Callable[..., Rig], broker: Broker) -> None:
        broker.script = lambda sent: Answer(0, 41, 1234)
        future = rig().send(b"v", key=b"k", headers=[("h", b"x")], timestamp_ms=5)
        metadata = future.get(5)
        assert metadata == (TOPIC, 0, (TOPIC, 0), 41, 1234, None, 1, 1, 2)
        assert future.succeeded()
        assert future.is_done
        assert future.exception is None
        assert broker.sent[0].producer == (9, 0, 0)

    def test_many_records_in_order(self, rig: Callable[..., Rig], broker: Broker) -> None:
        made = rig(leaders=[1, 1, 1], batch_size=700, buffer_memory=8000)
        futures = [made.send(b"%d" % i, partition=i % 3) for i in range(3000)]
        assert made.plane.flush(20)
        for partition in range(3):
            values = [b"%d" % i for i in range(3000) if i % 3 == partition]
            assert broker.values(partition) == values
        assert [future.get(0).offset for future in futures] == [i // 3 for i in range(3000)]
        counters = made.plane.counters()
        assert counters["records_acked"] == counters["records_appended"] == 3000
        assert counters["memory_used"] == counters["records_queued"] == 0
        sequences = [sent.producer[2] for sent in broker.sent if sent.partition == 0]
        assert sequences == sorted(sequences)

    def test_keyless_records_reach_every_partition(
        self, rig: Callable[..., Rig], broker: Broker
    ) -> None:
        made = rig(leaders=[1] * 4, batch_size=2000)
        for _ in range(3000):
            made.send(b"x" * 50)
        assert made.plane.flush(20)
        shares = [len(broker.values(partition)) for partition in range(4)]
        assert sum(shares) == 3000
        assert min(shares) > 300

    @pytest.mark.parametrize(
        ("mode", "expected"),
        [
            (_pure.PARTITION_MURMUR2, [_pure.partition_for_key(b"", 5)] * 20),
            (_pure.PARTITION_CRC32, [zlib.crc32(b"") % 5] * 20),
        ],
    )
    def test_modes_that_hash_no_key(
        self, rig: Callable[..., Rig], mode: int, expected: list[int]
    ) -> None:
        made = rig(leaders=[1] * 5, mode=mode)
        assert [made.send(b"v").get(5).partition for _ in range(20)] == expected

    def test_round_robin_and_random(self, rig: Callable[..., Rig]) -> None:
        made = rig(leaders=[1, 1, 1], mode=_pure.PARTITION_ROUND_ROBIN)
        got = [made.send(b"v", key=b"k").get(5).partition for _ in range(6)]
        assert got == [(got[0] + i) % 3 for i in range(6)]
        made = rig(leaders=[1, -1, 1], mode=_pure.PARTITION_RANDOM)
        assert {made.send(b"v").get(5).partition for _ in range(40)} == {0, 2}

    def test_custom_partitioner(self, rig: Callable[..., Rig]) -> None:
        told: list[tuple[str, int]] = []

        class Mine:
            def __call__(self, *call: Any) -> Any:
                return call[3] if isinstance(call[3], str) else int(call[3])

            def on_new_batch(self, topic: str, previous: int) -> None:
                told.append((topic, previous))

        made = rig(leaders=[1, 1, 1], mode=_pure.PARTITION_CUSTOM, partitioner=Mine())
        assert made.send(b"2").get(5).partition == 2
        assert told == [(TOPIC, 2)]
        with pytest.raises(ValueError, match="partitioner returned 7"):
            made.send(b"7")

    def test_compression(self, rig: Callable[..., Rig], broker: Broker) -> None:
        made = rig(codec=1, compress=gzip.compress, linger_ms=20)
        futures = [made.send(b"a" * 100) for _ in range(50)]
        assert [future.get(5).offset for future in futures] == list(range(50))
        assert broker.sent[0].codec == 1
        counters = made.plane.counters()
        assert counters["compressed_bytes"] < counters["uncompressed_bytes"] / 4

    def test_compression_that_fails(self, rig: Callable[..., Rig], broker: Broker) -> None:
        calls = iter([ZeroDivisionError("no"), None])

        def compress(data: Any) -> bytes:
            error = next(calls)
            if error:
                raise error
            return b""[:0] or zlib.compress(b"")[:0] or bytes(data)

        made = rig(codec=1, compress=compress)
        with pytest.raises(ZeroDivisionError):
            made.send(b"first").get(5)
        assert made.send(b"second").get(5).offset == 0
        assert broker.sent[0].producer == (9, 0, 0)

    def test_acks_0(self, rig: Callable[..., Rig], broker: Broker) -> None:
        made = rig(acks=0, idempotent=False)
        futures = [made.send(b"%d" % i) for i in range(50)]
        assert [future.get(5).offset for future in futures] == [-1] * 50
        eventually(lambda: broker.values() == [b"%d" % i for i in range(50)])

    def test_linger_waits_and_flush_does_not(self, rig: Callable[..., Rig], broker: Broker) -> None:
        made = rig(linger_ms=400)
        with in_time("linger_ms=400", 0.4, at_least_s=0.4, slack_s=1.6):
            made.send(b"1").get(5)
        made = rig(linger_ms=60_000)
        made.send(b"2")
        assert made.plane.flush(5)
        assert made.plane.incomplete() == 0


class TestSend:
    def test_refused_at_once(self, rig: Callable[..., Rig]) -> None:
        made = rig(max_request_size=2000, buffer_memory=1500)
        for wrong, error in [
            ({"value": None}, ValueError),
            ({"value": "text"}, TypeError),
            ({"value": b"v", "headers": (("h", b"x"),)}, TypeError),
            ({"value": b"v", "headers": [["h", b"x"]]}, TypeError),
            ({"value": b"v", "headers": [("h", None)]}, TypeError),
            ({"value": b"v", "partition": True}, TypeError),
            ({"value": b"v", "partition": 0.0}, TypeError),
            ({"value": b"v", "partition": -1}, ValueError),
            ({"value": b"v", "partition": 1}, ValueError),
            ({"value": b"v", "timestamp_ms": True}, TypeError),
            ({"value": b"v", "timestamp_ms": 2**63}, ValueError),
            ({"value": b"v" * 2000}, errors.MessageSizeTooLargeError),
            ({"value": b"v" * 1450}, errors.MessageSizeTooLargeError),
        ]:
            with pytest.raises(error):
                made.producer.send(TOPIC, **wrong)
        assert made.plane.incomplete() == 0
        made.plane.close_appends()
        with pytest.raises(errors.IllegalStateError):
            made.producer.send(TOPIC)

    def test_topic_that_is_refused(self, rig: Callable[..., Rig]) -> None:
        future = rig().producer.send("refused", b"v")
        assert isinstance(future.exception, errors.TopicAuthorizationFailedError)
        with pytest.raises(errors.TopicAuthorizationFailedError):
            future.get()

    def test_memory_runs_out_and_comes_back(self, rig: Callable[..., Rig], broker: Broker) -> None:
        gate = threading.Event()

        def script(sent: Sent) -> Answer:
            gate.wait(5)
            return Answer()

        broker.script = script
        made = rig(buffer_memory=4096, batch_size=1024, max_block_ms=300)
        futures: list[Any] = []

        def fill() -> None:
            while True:
                futures.append(made.send(b"x" * 200))

        with pytest.raises(errors.KafkaTimeoutError, match="buffer_memory=4096"):
            fill()
        assert made.plane.counters()["memory_used"] <= 4096
        gate.set()
        for future in futures:
            future.get(5)
        made.send(b"again").get(5)

    def test_callback_may_send_without_memory_for_others(self, rig: Callable[..., Rig]) -> None:
        made = rig(buffer_memory=2048, batch_size=1024, max_block_ms=5000)
        done = threading.Event()

        def more(left: int, _metadata: Any) -> None:
            if left:
                made.send(b"y" * 500).add_callback(more, left - 1)
            else:
                done.set()

        made.send(b"y" * 500).add_callback(more, 30)
        for _ in range(30):
            made.send(b"z" * 500)
        assert done.wait(10)


class TestCallbacks:
    def test_order_arguments_and_errors(self, rig: Callable[..., Rig]) -> None:
        made = rig(linger_ms=30)
        seen: list[Any] = []

        def first(_metadata: Any) -> None:
            seen.append(threading.current_thread() is made.control)
            futures[0].add_callback(lambda _m: seen.append("late"))
            raise SystemExit("must be swallowed")

        futures = [made.send(b"%d" % i) for i in range(3)]
        futures[2].add_both(lambda *call, **named: seen.append((call, named)), "extra", x=1)
        futures[1].add_errback(lambda _e: seen.append("never"))
        assert futures[0].add_callback(first) is futures[0]
        metadata = futures[2].get(5)
        assert seen == [True, (("extra", metadata), {"x": 1}), "late"]
        futures[1].add_callback(seen.append)
        assert seen[-1] == futures[1].value

    def test_get_and_flush_wake_after_the_callbacks(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        ran = []

        def slow(_metadata: Any) -> None:
            time.sleep(0.3)
            ran.append(True)

        future = made.send(b"v").add_callback(slow)
        eventually(lambda: future.is_done)
        assert not ran
        with pytest.raises(errors.KafkaTimeoutError):
            future.get(0)
        assert made.plane.flush(5)
        assert ran

    def test_get_inside_a_callback(self, rig: Callable[..., Rig]) -> None:
        made = rig()
        got: list[Any] = []
        done = threading.Event()

        def look(metadata: Any) -> None:
            got.append(future.get(1) == metadata)
            with pytest.raises(errors.IllegalStateError):
                made.plane.flush(1)
            done.set()

        future = made.send(b"v").add_callback(look)
        assert done.wait(5)
        assert got == [True]

    def test_by_hand_and_chain(self, rig: Callable[..., Rig]) -> None:
        made = rig(linger_ms=50)
        seen: list[Any] = []
        mine = made.send(b"1").add_callback(seen.append).success("value")
        assert (mine.value, seen) == ("value", ["value"])
        failed = _pure.FutureRecordMetadata.failed_with(TOPIC, 0, ValueError("x"))
        other = made.send(b"2")
        failed.chain(other)
        assert isinstance(other.exception, ValueError)
        assert made.plane.flush(5)
        with pytest.raises(errors.IllegalStateError):
            mine.failure(ValueError)
