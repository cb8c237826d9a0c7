"""The twins agree on `send_many`: the same batches, metadata and errors; and both on what a loop of `send` would do.

No connection is ever made here, as in test_send.py.
"""

from __future__ import annotations

import gc
import mmap
import random
import re
import sys
import threading
import time
import zlib
from typing import Any

import fastprod._core as native
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_send import ANY, BLOB, HEADERS, PAYLOAD, SIX, TWINS, Engine, Rig

pytestmark = pytest.mark.native_only

MODES = ["PARTITION_DEFAULT", "PARTITION_MURMUR2", "PARTITION_CRC32"]


class ManyRig(Rig):
    """Calls `send_many`, or `send` record by record."""

    def many(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        try:
            future = self.producer.send_many(*arguments, **keywords)
        except Exception as error:
            return type(error), str(error), getattr(error, "__notes__", None)
        self.future = future
        return type(future).__name__, len(future), future.is_done

    def loop(self, values: list[Any], keys: Any, headers: Any, partitions: Any, times: Any) -> None:
        for index, value in enumerate(values):
            self.producer.send(
                "t", value, None if keys is None else keys[index], None if headers is None else headers[index],
                None if partitions is None else partitions[index], times[index],
            )


def both(arguments: tuple[Any, ...], keywords: dict[str, Any], **options: Any) -> tuple[Any, Any]:
    results = []
    for twin in TWINS:
        rig = ManyRig(twin, **options)
        step = rig.many(arguments, keywords)
        results.append((step, rig.end()))
    return results[0], results[1]


ROWS = st.lists(
    st.tuples(PAYLOAD, BLOB, HEADERS, st.one_of(st.none(), st.integers(0, SIX - 1)), st.integers(-(2**63), 2**63 - 1)),
    max_size=40,
)


@settings(max_examples=150)
@given(ROWS, st.sampled_from(MODES), st.sampled_from([0, 62, 300, 1000]))
def test_accepted_records(rows: list[Any], mode: str, batch_size: int) -> None:
    """What the twins queue is the same, and it is what `send` in a loop queues."""
    values, keys, headers, partitions, times = ([row[n] for row in rows] for n in range(5))
    made = {"mode": getattr(native, mode), "batch_size": batch_size}
    first, second = both(("t", values, keys), {"headers": headers, "partition": partitions, "timestamp_ms": times},
                         **made)
    assert first == second
    assert first[0] == ("BatchFuture", len(rows), not rows)
    one_by_one = ManyRig(native, **made)
    one_by_one.loop(values, keys, headers, partitions, times)
    assert one_by_one.end() == first[1]


@settings(max_examples=150)
@given(st.lists(st.tuples(PAYLOAD, BLOB), max_size=40), st.booleans(), st.sampled_from(MODES), st.integers(-5, 2**62))
def test_two_lists_and_nothing_else(rows: list[Any], keyed: bool, mode: str, time_: int) -> None:
    """Such lists the compiled twin reads where they are. It leaves them as they were."""
    values = [row[0] if keyed else row[0] or b"" for row in rows]
    keys = [row[1] for row in rows] if keyed else None
    given = list(values)
    first, second = both(("t", values, keys), {"timestamp_ms": time_}, mode=getattr(native, mode))
    assert first[0] == second[0] == ("BatchFuture", len(rows), not rows)
    if keyed:   # the others go to a partition by chance
        assert first == second
    assert sum(batch[5] for batch in first[1]) == sum(batch[5] for batch in second[1]) == len(rows)
    assert all(mine is theirs for mine, theirs in zip(values, given, strict=True))


SHARED = st.one_of(st.none(), st.lists(st.tuples(st.text(max_size=3), BLOB), max_size=2))


@settings(max_examples=100)
@given(st.lists(BLOB, max_size=30), SHARED, st.one_of(st.none(), st.integers(0, SIX - 1)), st.integers(-5, 2**62))
def test_one_of_each_for_all(values: list[bytes], headers: Any, partition: int | None, time_: int) -> None:
    first, second = both(("t", values, values), {"headers": headers, "partition": partition, "timestamp_ms": time_})
    assert first == second
    one_by_one = ManyRig(native)
    one_by_one.loop(values, values, [headers] * len(values), [partition] * len(values), [time_] * len(values))
    assert one_by_one.end() == first[1]


COLUMN = st.one_of(ANY, st.lists(ANY, max_size=4), st.just([b"a", b"b"]), st.just([5, 5]))


@settings(max_examples=500)
@given(st.sampled_from(["t", "unauthorized", "unknown", None, 7, b"t"]), COLUMN, COLUMN, COLUMN, COLUMN, COLUMN)
def test_bad_arguments(topic: Any, values: Any, keys: Any, headers: Any, partition: Any, timestamp: Any) -> None:
    fixed = 5 if timestamp is None else timestamp   # the clock is not the same twice
    if isinstance(fixed, list):
        fixed = [5 if each is None else each for each in fixed]
    first, second = both((topic, values, keys), {"headers": headers, "partition": partition, "timestamp_ms": fixed},
                         mode=native.PARTITION_MURMUR2)
    assert first == second


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"values": [b"a", b"b", "text"]}, "Record 2: Type of the serialized value must be bytes"),
        ({"values": [b"a", None]}, "Record 1: Need at least one: key or value"),
        ({"values": [None, None], "keys": [b"k", None]}, "Record 1: Need at least one"),
        ({"values": [b"a", b"b"], "keys": [b"k", 7]}, "Record 1: Type of the serialized key"),
        ({"values": [b"a", b"b"], "keys": [b"k"]}, "keys has 1 items for 2 values"),
        ({"values": [b"a", b"x" * 30_000]}, "Record 1: The record for topic 't' takes up to"),
        ({"values": [b"a"] * 3, "partition": [0, 1, 6]}, "Record 2: Unrecognized partition 6"),
        ({"values": [b"a"] * 3, "partition": [0, 1, 2**70]}, "Record 2: Unrecognized partition"),
        ({"values": [b"a"] * 3, "partition": 6}, "Unrecognized partition 6"),
        ({"values": [b"a"] * 3, "partition": [0, 1]}, "partition has 2 items for 3 values"),
        ({"values": [b"a"] * 3, "partition": [0, "1", 2]}, "Record 1: partition must be an int"),
        ({"values": [b"a"] * 3, "timestamp_ms": [0, 1, 2**63]}, "Record 2: timestamp_ms 9223372036854775808"),
        ({"values": [b"a"] * 3, "timestamp_ms": [0, 1.5, 2]}, "Record 1: timestamp_ms must be an int"),
        ({"values": [b"a"] * 3, "headers": [None, [("h", 1)], None]}, "Record 1: headers[0] must be"),
        ({"values": [b"a"] * 3, "headers": [[("h", b"1")]]}, "headers has 1 items for 3 values"),
        ({"values": [b"a"], "headers": [("h", "1")]}, "headers[0] must be"),
        ({"values": [b"a"], "headers": {"h": b"1"}}, "headers must be a list of (str, bytes) tuples, not dict: {'h'"),
        ({"values": [b"a"], "headers": ["h"]}, "tuples, not str: 'h'. Nothing of the call"),
        ({"values": [b"a", b"b"], "headers": [None, ("h", b"1")]}, "Record 1: headers must be a list"),
        ({"values": b"abc"}, "values must be a sequence or an iterable"),
        ({"values": "abc"}, "values must be a sequence or an iterable"),
        ({"values": 5}, "values must be a sequence or an iterable"),
        ({"values": [b"a"], "keys": b"k"}, "keys must be a sequence or an iterable"),
    ],
)
@pytest.mark.parametrize("twin", TWINS)
def test_one_bad_item_and_nothing_was_sent(twin: Any, columns: dict[str, Any], said: str) -> None:
    rig = ManyRig(twin)
    with pytest.raises((TypeError, ValueError, twin_errors("MessageSizeTooLargeError"))) as raised:
        rig.producer.send_many("t", **columns)
    assert said in str(raised.value)
    if "Record " in said:
        assert str(raised.value).endswith("Nothing of the call was sent.")
    assert rig.end() == []


def twin_errors(name: str) -> Any:
    from fastprod import errors

    return getattr(errors, name)


@pytest.mark.parametrize("twin", TWINS)
def test_whatever_can_be_iterated_is_a_column(twin: Any) -> None:
    rig = ManyRig(twin)
    rig.producer.send_many("t", (b"%d" % n for n in range(5)), map(b"%d".__mod__, range(5)), partition=range(5),
                           timestamp_ms=iter([9] * 5))
    assert [(batch[1], batch[3]) for batch in rig.end()] == [
        (n, b"\x10\x00\x00\x00\x02%d\x02%d\x00" % (n, n)) for n in range(5)
    ]


@pytest.mark.parametrize("twin", TWINS)
def test_arrays_are_columns_of_numbers(twin: Any) -> None:
    numpy = pytest.importorskip("numpy")
    rig = ManyRig(twin)
    rig.producer.send_many("t", [b"v"] * 3, partition=numpy.array([2, 1, 0]), timestamp_ms=numpy.array([7, 8, 9]))
    assert sorted((batch[1], batch[4]) for batch in rig.end()) == [(0, 9), (1, 8), (2, 7)]


@pytest.mark.parametrize("twin", TWINS)
def test_what_changes_afterwards_does_no_harm(twin: Any) -> None:
    """A list that another thread changes, and bytes that a serializer changes while others are looked at."""
    mutable = bytearray(b"first")
    values: list[Any] = [mutable, b"second"]

    def serialize(topic: str, headers: Any, data: Any) -> Any:
        values.clear()
        return data

    rig = ManyRig(twin, value_serializer=serialize)
    rig.producer.send_many("t", values, partition=0, timestamp_ms=0)
    mutable[:] = b"later"
    ((_, _, _, body, _, count, _),) = rig.end()
    assert count == 2
    assert b"first" in body
    assert b"second" in body


@pytest.mark.parametrize("twin", TWINS)
def test_lists_that_are_changed_when_another_thread_has_its_turn(twin: Any) -> None:
    """The call takes longer than a thread keeps the interpreter. What counts is what the lists held when it began.

    Where other processes have the processors, the other thread may miss its turn; then once more."""
    assert any(changed_in_a_call(twin) for _ in range(50)), "the other thread never had a turn while a call went on"


def changed_in_a_call(twin: Any) -> bool:
    count = 300_000 if twin is native else 3_000
    values, keys = [b"first-%06d" % number for number in range(count)], [b"key"] * count
    rig = ManyRig(twin, buffer_memory=64 << 20, batch_size=1_000_000)
    changed = threading.Event()

    def change() -> None:
        while not rig.plane.incomplete():
            time.sleep(0)
        values[:] = [bytearray(b"other")] * 7
        keys.clear()
        changed.set()

    other = threading.Thread(target=change)
    other.start()
    future = rig.producer.send_many("t", values, keys)
    in_time = changed.is_set()
    other.join()
    assert len(future) == count
    batches = rig.end()
    assert sum(batch[5] for batch in batches) == count
    written = [int(number) for batch in batches for number in re.findall(rb"first-(\d{6})", batch[3])]
    assert written == list(range(count)), "one key, so one partition, in the order of the list"
    return in_time


def sent(rig: ManyRig) -> list[Any]:
    """The records, as (key, value, headers), partition by partition."""
    return [record[1:] for batch in rig.end() for record in native.decode_records(batch[3], batch[4], batch[5])]


@pytest.mark.parametrize("twin", TWINS)
def test_lists_that_are_changed_while_zlib_hashes_a_key(twin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a long one it lets the interpreter go, and another thread may do this."""
    values, keys = [b"first-%d" % number for number in range(9)], [b"k" * 6_000] * 9
    given = list(values)
    hash_ = zlib.crc32

    def hash_slowly(*arguments: Any) -> int:
        values[:] = [b""] * 9
        keys[:] = [b""] * 9
        return hash_(*arguments)

    rig = ManyRig(twin, mode=twin.PARTITION_CRC32, buffer_memory=1_000_000)
    monkeypatch.setattr(zlib, "crc32", hash_slowly)
    rig.producer.send_many("t", values, keys)
    assert sorted(sent(rig)) == [(b"k" * 6_000, value, []) for value in given]


class Teaching(Engine):
    """Knows any topic, once it is asked."""

    def resolve_topic(self, topic: Any, timeout_s: float) -> Any:
        return self.plane.set_topic(topic, None, [0])


class Trap:
    """Garbage that does something when it is found."""

    def __init__(self, spring: Any) -> None:
        self.me, self.spring = self, spring

    def __del__(self) -> None:
        self.spring()


@pytest.mark.parametrize("twin", TWINS)
def test_lists_that_a_finalizer_changes(twin: Any) -> None:
    """On 3.11 any new list may start the collector, that of a copy too. Each threshold starts it somewhere else."""
    given, others = [b"%06d" % number * 10 for number in range(50)], [b"x"] * 50
    armed = False

    def spring() -> None:
        if armed:
            values[:] = others

    before = gc.get_threshold()
    gc.freeze()   # what the tests have made need not be looked through each time
    try:
        for threshold in range(1, 25):
            values = list(given)
            rig = ManyRig(twin)
            rig.producer = twin.ProducerBase()
            rig.producer._bind(rig.plane, Teaching(rig.plane), None, None, twin.PARTITION_DEFAULT, None, None)
            spare = [[] for _ in range(100)]   # beyond what CPython keeps of freed ones
            gc.collect()
            Trap(spring)
            armed = True
            gc.set_threshold(threshold)
            rig.producer.send_many("new", values)
            gc.set_threshold(*before)
            armed = False
            del spare
            assert [value for _, value, _ in sent(rig)] in (given, others)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
        gc.collect()
        gc.freeze()   # what conftest.py has frozen


@pytest.mark.parametrize("twin", TWINS)
def test_headers_that_are_changed_while_they_are_encoded(twin: Any) -> None:
    class Changing(tuple[str, bytes]):
        def __iter__(self) -> Any:
            headers.append(("later", b"2"))
            return super().__iter__()

    headers: list[Any] = [Changing(("h", b"1"))]
    rig = ManyRig(twin)
    rig.producer.send_many("t", [b"v"], headers=[headers], partition=0)
    assert sent(rig) == [(None, b"v", [("h", b"1")])]


@pytest.mark.skipif(sys.platform == "win32" or sys.maxsize < 2**32, reason="there a mapping takes what it spans")
def test_a_view_with_fewer_items_than_bytes() -> None:
    """What counts is bytes: more than a record can hold, in fewer items."""
    wide = memoryview(mmap.mmap(-1, 2**31 + 8)).cast("Q")
    said = []
    for twin in TWINS:
        rig = ManyRig(twin, max_request_size=2**31 - 1, buffer_memory=2**32)
        said += [rig.many(("t", [b"v", wide], [b"k", b"k"]), {}), rig.many(("t", [b"v", b"v"], [b"k", wide]), {}),
                 rig.attempt(("t", wide), {})]
        assert rig.end() == []
    assert said[:3] == said[3:]
    assert [each[0].__name__ for each in said] == ["MessageSizeTooLargeError"] * 6


@pytest.mark.parametrize("serialize", [str.upper, lambda t, h, d: b"x" + (d or b""), lambda t, h, d: h.append(
    ("added", b"1")) or d, lambda t, h, d: 1 / 0, lambda t, h, d: "text", lambda t, h, d: 1 / (d != b"w") and d])
@pytest.mark.parametrize("headers", [None, [("h", b"x")], [None, [("h", b"x")]]])
def test_serializers(serialize: Any, headers: Any) -> None:
    arguments = ("t", [b"v", b"w"], [b"k", b"l"])
    keywords = {"headers": headers, "partition": 0, "timestamp_ms": 0}
    for which in ("key_serializer", "value_serializer"):
        first, second = both(arguments, keywords, **{which: serialize})
        assert first == second
        if first[0][0] == "BatchFuture":
            one_by_one = ManyRig(native, **{which: serialize})
            given = headers if headers and not isinstance(headers[0], tuple) else [headers and list(headers)] * 2
            one_by_one.loop([b"v", b"w"], [b"k", b"l"], [each and list(each) for each in given], [0, 0], [0, 0])
            assert one_by_one.end() == first[1]
        else:
            assert first[1] == []
    assert headers is None or headers[-1] in (("h", b"x"), [("h", b"x")]), "the caller's own lists are left alone"


@pytest.mark.parametrize("twin", TWINS)
def test_full_buffer_keeps_what_was_accepted(twin: Any) -> None:
    """max_block_ms is 0 here: what does not fit fails at once, in the future; the others go on."""
    rig = ManyRig(twin, buffer_memory=16_000)
    values = [bytes([n]) * 900 for n in range(90)]
    future = rig.producer.send_many("t", values, [b"k"] * 90, partition=0)
    assert not future.is_done, "the accepted ones are on their way"
    accepted = sum(batch[5] for batch in rig.end())
    assert 10 < accepted < 90
    outcome = future._outcome()
    assert future.is_done
    assert sorted(outcome.errors) == list(range(90)), "abort() failed those that were accepted"
    kinds = [type(outcome.errors[n]).__name__ for n in range(90)]
    assert kinds == ["RuntimeError"] * accepted + ["KafkaTimeoutError"] * (90 - accepted)
    assert "buffer_memory=16000" in str(outcome.errors[89])


@pytest.mark.parametrize("twin", TWINS)
def test_a_buffer_that_is_full_already_raises(twin: Any) -> None:
    """As `send` does: nothing was accepted, and no future has to be looked at to know it."""
    rig = ManyRig(twin, buffer_memory=2_000)
    rig.producer.send("t", b"x" * 1_700, partition=0)
    with pytest.raises(twin_errors("KafkaTimeoutError"), match="No room"):
        rig.producer.send_many("t", [b"y" * 900] * 3, partition=1)
    assert sum(batch[5] for batch in rig.end()) == 1


@pytest.mark.parametrize("twin", TWINS)
def test_a_topic_that_cannot_be_resolved_fails_them_all(twin: Any) -> None:
    rig = ManyRig(twin)
    future = rig.producer.send_many("unauthorized", [b"a", b"b"])
    assert future.failed()
    with pytest.raises(twin_errors("BatchDeliveryError"), match="2 of 2 records") as raised:
        future.get()
    assert list(raised.value.metadata.offsets) == [-1, -1]
    with pytest.raises(RuntimeError):
        future[1]
    rig.end()


@pytest.mark.parametrize("twin", TWINS)
def test_a_closed_producer(twin: Any) -> None:
    rig = ManyRig(twin)
    rig.end()
    with pytest.raises(twin_errors("IllegalStateError")):
        rig.producer.send_many("t", [b"a"])
    with pytest.raises(ValueError, match="keys has 2 items for 1 values"):
        rig.producer.send_many("t", [b"a"], [b"k", b"l"])


@pytest.mark.parametrize("twin", TWINS)
def test_no_records_at_all(twin: Any) -> None:
    rig = ManyRig(twin)
    future = rig.producer.send_many("t", [])
    assert (len(future), future.is_done, future.succeeded(), future.failed()) == (0, True, True, False)
    assert list(future.get().offsets) == []
    assert rig.end() == []


class TestPartitioners:
    @pytest.mark.parametrize("result", [None, True, 6, -1, "1", 2.0, 2**70, 3])
    def test_results(self, result: Any) -> None:
        first, second = both(("t", [b"v", b"w"], [b"k", b"k"]), {"timestamp_ms": 0}, mode=native.PARTITION_CUSTOM,
                             partitioner=lambda *_: result)
        assert first == second

    @pytest.mark.parametrize("twin", TWINS)
    def test_is_asked_for_all_before_the_first_is_accepted(self, twin: Any) -> None:
        seen: list[Any] = []

        def choose(topic: str, key: Any, serialized_key: Any, value: Any, serialized_value: Any) -> int:
            seen.append((topic, key, serialized_key, value, serialized_value))
            return 0 if value < 2 else 99

        rig = ManyRig(twin, mode=twin.PARTITION_CUSTOM, partitioner=choose,
                      value_serializer=lambda t, h, d: b"%d" % d)
        with pytest.raises(ValueError, match="Record 2: The partitioner returned 99"):
            rig.producer.send_many("t", [0, 1, 2], [b"k", None, b"m"])
        assert seen == [("t", b"k", b"k", 0, b"0"), ("t", None, None, 1, b"1"), ("t", b"m", b"m", 2, b"2")]
        assert rig.end() == []

    @pytest.mark.parametrize("twin", TWINS)
    def test_is_shown_what_was_given(self, twin: Any) -> None:
        seen: list[Any] = []
        value, key = bytearray(b"v"), memoryview(b"k")
        rig = ManyRig(twin, mode=twin.PARTITION_CUSTOM, partitioner=lambda *given: seen.append(given) or 0)
        rig.producer.send_many("t", [value], [key])
        assert len(rig.end()) == 1
        assert seen[0][1] is key
        assert seen[0][3] is value

    @pytest.mark.parametrize("twin", TWINS)
    def test_one_that_is_told_of_new_batches_is_asked_as_they_open(self, twin: Any) -> None:
        told: list[Any] = []

        class Choice:
            def __call__(self, *arguments: Any) -> int:
                return len(told) % SIX

            def on_new_batch(self, topic: str, previous: int) -> None:
                told.append((topic, previous))

        rig = ManyRig(twin, mode=twin.PARTITION_CUSTOM, partitioner=Choice(), batch_size=200)
        rig.producer.send_many("t", [b"v" * 50] * 6)
        counts = [(batch[1], batch[5]) for batch in rig.end()]
        assert counts == [(1, 2), (2, 2), (3, 2)]
        assert told == [("t", 0), ("t", 1), ("t", 2)]

    @pytest.mark.parametrize("twin", TWINS)
    def test_round_robin_differs_by_at_most_one(self, twin: Any) -> None:
        rig = ManyRig(twin, mode=twin.PARTITION_ROUND_ROBIN)
        rig.producer.send_many("t", [b"v"] * 100, [b"k"] * 100)
        counts = [0] * SIX
        for batch in rig.end():
            counts[batch[1]] += batch[5]
        assert max(counts) - min(counts) <= 1

    @pytest.mark.parametrize("twin", TWINS)
    def test_keyless_records_stick_and_move_on(self, twin: Any) -> None:
        """A quantum of bytes in one partition, then the next (KIP-794)."""
        rig = ManyRig(twin, batch_size=10_000, buffer_memory=4_000_000)
        rig.producer.send_many("t", [b"v" * 93] * 12_000)
        counts = [0] * SIX
        for batch in rig.end():
            counts[batch[1]] += batch[5]
        assert sum(counts) == 12_000
        assert min(counts) > 1_000, "all partitions get their share"

    @pytest.mark.parametrize("twin", TWINS)
    def test_keyed_and_keyless_records_keep_their_order(self, twin: Any) -> None:
        chance = random.Random(4)
        values = [b"%06d" % n for n in range(5_000)]
        keys = [chance.choice([None, None, b"k%d" % chance.randrange(9)]) for _ in values]
        rig = ManyRig(twin, batch_size=4_000, buffer_memory=4_000_000)
        rig.producer.send_many("t", values, keys)
        last = dict.fromkeys(range(SIX), b"")
        seen = 0
        for _, partition, _, body, base, count, _ in sorted_by_first(rig.end()):
            for _, key, value, _ in native.decode_records(body, base, count):
                assert value > last[partition]
                last[partition] = value
                assert key is None or native.partition_for_key(key, SIX) == partition
                seen += 1
        assert seen == len(values)


def sorted_by_first(batches: list[Any]) -> list[Any]:
    """`end` sorts by bytes; the batches of a partition in the order of their first record."""
    return sorted(batches, key=lambda b: native.decode_records(b[3], b[4], b[5])[0][2])
