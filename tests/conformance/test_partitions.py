"""Items 10 to 15: which partition a record goes to."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from typing import Any

import pytest
from e2e.test_mixed_load import murmur2 as by_definition

from fastprod import _backend
from fastprod.testing import Api, ScriptedBroker
from fastprod.testing.scripted.script import Rule

from .conftest import Make
from .story import send

LONG: dict[str, Any] = {"linger_ms": 60_000, "delivery_timeout_ms": 120_000}
# KIP-794's quantum as design.md has it: keyless records stay for so many bytes, whatever batch_size is.
QUANTUM = 16_384
VALUE = bytes(1000)


@pytest.fixture
def closed(broker: ScriptedBroker) -> Rule:
    """Nothing leaves: there is no producer id until the rule is removed. Queues stay as they are, so the choice of a
    partition depends on nothing that happens meanwhile."""
    broker.create_topic("three", 3)
    broker.create_topic("ten", 10)
    return broker.on(Api.INIT_PRODUCER_ID).refuse(14)


def runs(futures: list[Any]) -> list[tuple[int, int]]:
    """Partition and length of each run of records that went to the same one."""
    places = [each.get(20).partition for each in futures]
    return [(partition, len(list(group))) for partition, group in itertools.groupby(places)]


@pytest.mark.parametrize(
    ("key", "expected", "of"),
    [
        (b"", 275646681, (0, 1, 81)),
        (b"abc", 479470107, (0, 7, 7)),
        (b"abcd", -1323649548, (2, 0, 0)),
        (b"21", -973932308, (0, 0, 40)),
        (b"foobar", -790332482, (0, 6, 66)),
        (b"a-little-bit-long-string", -985981536, (2, 2, 12)),
        (b"key-000042", -856527934, (1, 4, 14)),
        (bytes.fromhex("fffe80007f"), -1602569320, (1, 8, 28)),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971, (2, 7, 77)),
    ],
)
def test_murmur2_vectors(key: bytes, expected: int, of: tuple[int, int, int]) -> None:
    assert _backend.murmur2(key) == expected
    assert tuple(_backend.partition_for_key(key, count) for count in (3, 10, 100)) == of


def test_murmur2_vectors_of_random_keys() -> None:
    """Against a second implementation, written from the definition."""
    chance = random.Random(20)
    for _ in range(1000):
        key = chance.randbytes(chance.randrange(40))
        count = chance.randrange(1, 2000)
        assert _backend.murmur2(key) & 0xFFFFFFFF == by_definition(key)
        assert _backend.partition_for_key(key, count) == (by_definition(key) & 0x7FFFFFFF) % count


def test_null_vs_empty_key(closed: Rule, make: Make) -> None:
    """Only None is no key. With a record a batch what sticks moves on with each."""
    made = make(batch_size=0)
    empty = [made.send("ten", b"v", b"") for _ in range(30)]
    none = [made.send("ten", b"v") for _ in range(30)]
    closed.remove()
    assert runs(empty) == [(1, 30)]
    assert len({partition for partition, _ in runs(none)}) >= 8


class TestStickySwitch:
    """The quantum is apart from batch_size (design.md): 16,384 bytes until batches have left full."""

    def stuck(self, closed: Rule, make: Make, count: int, **options: Any) -> list[tuple[int, int]]:
        made = make(**LONG, **options)
        # A batch everywhere, so that all queues are alike, and partitions take turns.
        for partition in range(3):
            made.send("three", b"", partition=partition)
        futures = [made.send("three", VALUE) for _ in range(count)]
        closed.remove()
        made.flush(20)
        return runs(futures)

    def test_sticky_switch(self, closed: Rule, make: Make) -> None:
        """Past the quantum it moves as soon as the batch at the tail is full, and leaves none half filled."""
        fit = (20_000 - 61) // (len(VALUE) + 10)
        assert fit * len(VALUE) > QUANTUM
        found = self.stuck(closed, make, 3 * fit, batch_size=20_000)
        assert [length for _, length in found] == [fit] * 3
        assert {partition for partition, _ in found} == {0, 1, 2}

    def test_sticky_switch_forced(self, closed: Rule, make: Make) -> None:
        """A batch that does not fill puts the move off, to twice the quantum at the most."""
        longest = 2 * QUANTUM // len(VALUE) + 1
        found = self.stuck(closed, make, 3 * longest, batch_size=1_000_000)
        assert [length for _, length in found] == [longest] * 3
        assert {partition for partition, _ in found} == {0, 1, 2}


def test_fractional_batches_avoided(broker: ScriptedBroker, make: Make) -> None:
    """With a long linger all batches are full, but for the last one of each partition, however slowly they fill."""
    broker.create_topic("three", 3)
    made = make(**LONG, batch_size=20_000)
    for partition in range(3):
        made.send("three", b"", partition=partition)
    made.flush(20)
    for number in range(600):
        made.send("three", VALUE)
        if number % 5 == 0:
            # A moment in which an I/O thread that does not wait would send what there is.
            time.sleep(0.002)
    made.flush(20)
    fit = (20_000 - 61) // (len(VALUE) + 10)
    # Behind the first ones; how many each partition has is chance.
    counts = [[each.count for each in broker.log("three", partition)][1:] for partition in range(3)]
    assert sum(map(sum, counts)) == 600
    for each in counts:
        assert set(each[:-1]) <= {fit}, counts


class TestAdaptiveWeights:
    """Many topics, and one keyless record for each: the queues are the same for every choice."""

    TOPICS = 100

    def chosen(self, make: Make, queued: tuple[int, ...]) -> Counter[int]:
        names = [f"t{number}" for number in range(self.TOPICS)]
        with ScriptedBroker(dict.fromkeys(names, len(queued))) as broker:
            closed = broker.on(Api.INIT_PRODUCER_ID).refuse(14)
            made = make(batch_size=0, bootstrap_servers=broker.bootstrap_servers)
            futures = []
            for name in names:
                for partition, length in enumerate(queued):
                    for _ in range(length):
                        made.send(name, b"", partition=partition)
                futures.append(made.send(name, b""))
            closed.remove()
            made.flush(60)
            made.close()
        return Counter(each.get(20).partition for each in futures)

    def test_adaptive_weights(self, make: Make) -> None:
        """Of (longest + 1) - own: 20, 1 and 11 in 32. Bounds are some four standard deviations wide."""
        found = self.chosen(make, (0, 19, 9))
        assert abs(found[0] - self.TOPICS * 20 / 32) < 20, found
        assert abs(found[1] - self.TOPICS * 1 / 32) < 8, found
        assert abs(found[2] - self.TOPICS * 11 / 32) < 20, found

    @pytest.mark.parametrize("queued", [(0, 0, 0), (2, 2, 2)])
    def test_adaptive_weights_uniform(self, make: Make, queued: tuple[int, ...]) -> None:
        """All queues alike. A partition without a queue counts as one of length 0 (Java waits until all have one)."""
        found = self.chosen(make, queued)
        for partition in range(3):
            assert abs(found[partition] - self.TOPICS / 3) < 20, found


def test_unavailable_excluded(broker: ScriptedBroker, make: Make) -> None:
    """No leader, nothing unkeyed; keys are hashed over all partitions all the same."""
    broker.create_topic("three", 3)
    broker.move_leader("three", 1, -1)
    made = make(batch_size=0)
    futures = [made.send("three", b"%d" % number) for number in range(60)]
    assert {each.get(20).partition for each in futures} == {0, 2}
    # key-000042 belongs to partition 1 of 3.
    (waiting,) = [made.send("three", b"keyed", b"key-000042")]
    broker.move_leader("three", 1, 1)
    assert waiting.get(20).partition == 1


def test_unavailable_excluded_on_a_stalled_node(two: ScriptedBroker, make: Make) -> None:
    """A node that answers nothing: its queue grows, and the others get what has no key. There is no
    partitioner.availability.timeout.ms: the weights do it (item 14)."""
    two.create_topic("six", 6)
    made = make(batch_size=0, linger_ms=0)
    for partition in range(6):
        made.send("six", b"first", partition=partition).get(20)
    two.on(Api.PRODUCE, node=2).hold()
    for partition in (1, 3, 5):
        send(made, *[b"queued"] * 60, topic="six", partition=partition)
    for _ in range(150):
        made.send("six", b"v")
    two.wait_until(lambda: sum(len(two.values("six", partition)) for partition in (0, 2, 4)) >= 3 + 100)
    stalled = [each for each in two.batches if each.partition in (1, 3, 5) and each.values == [b"v"]]
    assert stalled == []
