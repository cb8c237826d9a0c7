"""The twins agree on `send`: the same records, in the same batches, in the same partitions; the same errors.

No connection is ever made here: what was accepted stays queued until `abort` hands it back, batch by batch.
"""

from __future__ import annotations

import socket
from typing import Any

import fastprod._core as native
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastprod._pure as pure
from fastprod.config import PlaneOptions

pytestmark = pytest.mark.native_only

DEFAULTS = {
    "client_id": "twin", "acks": -1, "idempotent": True, "strict_order": False, "batch_size": 1000,
    "buffer_memory": 64_000, "max_request_size": 20_000, "receive_message_max_bytes": 10**8, "linger_ms": 0,
    "max_block_ms": 0, "request_timeout_ms": 30_000, "delivery_timeout_ms": 120_000, "retries": 2**31 - 1,
    "max_in_flight": 5, "connections_max_idle_ms": 540_000, "codec": 0, "compress": None,
}
TWINS = [native, pure]
SIX = 6


class Engine:
    """Knows one topic and never learns more."""

    def __init__(self, plane: Any) -> None:
        self.plane = plane

    def on_control_thread(self) -> bool:
        return False

    def resolve_topic(self, topic: Any, timeout_s: float) -> Any:
        if topic == "unauthorized":
            return RuntimeError("a returned exception becomes a failed future")
        raise LookupError(topic)

    def refresh_partitions(self, topic: str, partition: int, timeout_s: float) -> Any:
        return self.plane.routes[topic]


class Rig:
    """One twin's producer on a plane of its own."""

    def __init__(self, twin: Any, mode: int | None = None, partitioner: Any = None, key_serializer: Any = None,
                 value_serializer: Any = None, **options: Any) -> None:
        self.twin = twin
        self.sockets = socket.socketpair()
        self.sockets[1].setblocking(False)
        self.plane = twin.DataPlane(PlaneOptions(**{**DEFAULTS, **options}), self.sockets[1].fileno())
        self.plane.set_topic("t", None, [0] * SIX)
        self.producer = twin.ProducerBase()
        self.producer._bind(self.plane, Engine(self.plane), key_serializer, value_serializer,
                            twin.PARTITION_DEFAULT if mode is None else mode, partitioner, None)

    def attempt(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        try:
            future = self.producer.send(*arguments, **keywords)
        except Exception as error:
            return type(error), str(error)
        return type(future).__name__, future.is_done

    def end(self) -> Any:
        """What was accepted, in batches."""
        self.plane.stop()
        self.plane.close_appends()
        left = self.plane.abort(lambda: RuntimeError("over"))
        for _ in range(10_000):
            if not self.plane.run_callbacks():
                break
        for end in self.sockets:
            end.close()
        return sorted((t, p, c, bytes(b), base, n, bool(m)) for t, p, c, b, base, n, m in left)


def copied(call: Any) -> Any:
    """Fresh header lists: a serializer may add to them."""
    arguments, keywords = call
    return tuple(list(a) if type(a) is list else a for a in arguments), keywords


def both(calls: list[tuple[tuple[Any, ...], dict[str, Any]]], **options: Any) -> tuple[Any, Any]:
    results = []
    for twin in TWINS:
        rig = Rig(twin, **options)
        steps = [rig.attempt(*copied(call)) for call in calls]
        results.append((steps, rig.end()))
    return results[0], results[1]


BLOB = st.binary(max_size=400)
PAYLOAD = st.one_of(st.none(), BLOB, BLOB.map(bytearray), BLOB.map(memoryview))
HEADERS = st.one_of(st.none(), st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=8)), max_size=3))
GOOD = st.tuples(
    st.tuples(st.just("t"), PAYLOAD, BLOB, HEADERS, st.one_of(st.none(), st.integers(0, SIX - 1)),
              st.integers(-(2**63), 2**63 - 1)),
    st.just({}),
)


@settings(max_examples=150)
@given(st.lists(GOOD, min_size=1, max_size=30), st.sampled_from(["PARTITION_DEFAULT", "PARTITION_MURMUR2",
                                                                "PARTITION_CRC32"]),
       st.sampled_from([0, 62, 300, 1000]))
def test_accepted_records(calls: list[Any], mode: str, batch_size: int) -> None:
    first, second = both(calls, mode=getattr(native, mode), batch_size=batch_size)
    assert first == second


ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(allow_nan=False), st.text(max_size=3), BLOB,
    st.lists(st.one_of(st.none(), st.tuples(st.text(max_size=2), BLOB), st.tuples(BLOB, BLOB), st.integers()),
             max_size=3),
    st.tuples(st.text(max_size=2), BLOB),
)


@settings(max_examples=400)
@given(st.sampled_from(["t", "unauthorized", "unknown", None, 7, b"t"]), ANY, ANY, ANY, ANY, ANY)
def test_bad_arguments(topic: Any, value: Any, key: Any, headers: Any, partition: Any, timestamp: Any) -> None:
    fixed = 5 if timestamp is None else timestamp   # the clock is not the same twice
    first, second = both([((topic, value, key, headers, partition, fixed), {})], mode=native.PARTITION_MURMUR2)
    assert first == second


@pytest.mark.parametrize(
    "arguments",
    [
        ("t", b"x" * 30_000, b"k"),
        ("t", b"x" * 19_900, b"k", None, 0, 0),
        ("t", None, None),
        ("t", b"", None, [], 1, 0),
        ("t", b"v", b"k", [("h", None)], 1, 0),
        ("t", b"v", b"k", [("h", b"x", 1)], 1, 0),
        ("t", b"v", b"k", (("h", b"x"),), 1, 0),
        ("t", "v", b"k"),
        ("t", b"v", b"k", None, 6, 0),
        ("t", b"v", b"k", None, -1, 0),
        ("t", b"v", b"k", None, 2**80, 0),
        ("t", b"v", b"k", None, True, 0),
        ("t", b"v", b"k", None, 0.0, 0),
        ("t", b"v", b"k", None, 0, 2**63),
        ("t", b"v", b"k", None, 0, True),
        ("t", memoryview(b"abcdef")[::2], b"k", None, 0, 0),
        ("t", memoryview(b"abcdefgh").cast("I"), b"k", None, 0, 0),
        ("t", b"v", b"k", [("\ud800", b"x")], 0, 0),
    ],
)
def test_edges(arguments: tuple[Any, ...]) -> None:
    first, second = both([(arguments, {})])
    assert first == second


def test_oversized_for_the_buffer() -> None:
    first, second = both([(("t", b"x" * 9_000, b"k", None, 0, 0), {})], buffer_memory=8_000)
    assert first == second
    assert "buffer_memory=8000" in first[0][0][1]


def test_full_buffer_keeps_what_was_accepted() -> None:
    calls: list[Any] = [(("t", bytes([n]) * 900, b"k", None, 0, 0), {}) for n in range(90)]
    first, second = both(calls, buffer_memory=16_000)
    errors = [step for step in first[0] if step[0] != "FutureRecordMetadata"]
    assert errors
    assert "buffer_memory=16000" in errors[0][1]
    for accepted in (first, second):
        futures = sum(step[0] == "FutureRecordMetadata" for step in accepted[0])
        assert sum(batch[5] for batch in accepted[1]) == futures > 10


@pytest.mark.parametrize("result", [None, True, 6, -1, "1", 2.0, 2**70, 3])
def test_partitioner_results(result: Any) -> None:
    first, second = both([(("t", b"v", b"k", None, None, 0), {})], mode=native.PARTITION_CUSTOM,
                         partitioner=lambda *_: result)
    assert first == second


@pytest.mark.parametrize("twin", TWINS)
def test_on_new_batch_is_called_for_keyless_records_that_open_one(twin: Any) -> None:
    asked: list[Any] = []

    class Choice:
        def __call__(self, *arguments: Any) -> int:
            return len(asked) % SIX

        def on_new_batch(self, topic: str, previous: int) -> None:
            asked.append((topic, previous))

    rig = Rig(twin, mode=twin.PARTITION_CUSTOM, partitioner=Choice())
    for _ in range(3):
        rig.attempt(("t", b"v" * 10, None, None, None, 0), {})
    batches = rig.end()
    assert asked == [("t", 0)]
    assert [(b[1], b[5]) for b in batches] == [(1, 3)]


@pytest.mark.parametrize("serialize", [str.upper, lambda t, h, d: b"x" + (d or b""), lambda t, h, d: h.append(
    ("added", b"1")) or d, lambda t, h, d: 1 / 0, lambda t, h, d: "text"])
def test_serializers(serialize: Any) -> None:
    calls: list[Any] = [(("t", b"v", b"k", None, 0, 0), {}), (("t", b"v", b"k", [("h", b"x")], 0, 0), {})]
    first, second = both(calls, value_serializer=serialize)
    assert first == second


def test_round_robin_differs_by_at_most_one() -> None:
    for twin in TWINS:
        rig = Rig(twin, mode=twin.PARTITION_ROUND_ROBIN)
        for _ in range(100):
            rig.attempt(("t", b"v", b"k", None, None, 0), {})
        counts = [0] * SIX
        for batch in rig.end():
            counts[batch[1]] += batch[5]
        assert max(counts) - min(counts) <= 1


def test_attributes_of_a_closed_producer() -> None:
    for twin in TWINS:
        rig = Rig(twin)
        future = rig.producer.send("t", b"v")
        rig.end()
        assert future.failed()
        assert isinstance(future.exception, RuntimeError)
        assert rig.attempt(("t", b"v"), {})[0].__name__ == "IllegalStateError"


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("batch_size", [0, 1, 100])
def test_keyless_records_with_tiny_batches(twin: Any, batch_size: int) -> None:
    rig = Rig(twin, batch_size=batch_size)
    for number in range(20):
        rig.producer.send("t", b"%d" % number)
    assert [batch[5] for batch in rig.end()].count(1) >= (20 if batch_size < 2 else 0)
