"""Topics as `send` sees them, the choice of a partition, and the append."""

from __future__ import annotations

import itertools
import random
import threading
import time
from bisect import bisect_right

from fastprod import failures
from fastprod._pure import layout
from fastprod._pure.batch import Batch
from fastprod._pure.core import Core
from fastprod._pure.counters import TOPIC, Counters
from fastprod._pure.delivery import BatchOutcome
from fastprod._pure.partition import Partition
from fastprod._pure.record_batch import Record, place_record
from fastprod.waiting import RLock


class StickySlot:
    """Where a topic's keyless records go for now (KIP-794). It is replaced, never moved: a sender
    that finds another slot than it chose, once it holds the partition's lock, chooses again."""

    __slots__ = ("partition", "produced", "since")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.produced = 0  # bytes; guarded by that partition's lock
        self.since = time.monotonic()


class TopicRoute:
    """What `send` knows of a topic: its partitions and the open batches in them."""

    __slots__ = (
        "_core",
        "_counter",
        "_rotation",
        "_rotation_lock",
        "_used",
        "available",
        "counters",
        "leaders",
        "partitions",
        "quantum",
        "sticky",
        "topic",
        "topic_id",
        "vanished",
        "waiting_told",
        "wire_limit",
    )

    def __init__(self, core: Core, topic: str) -> None:
        self._core = core
        self.topic = topic
        self.topic_id: bytes | None = None
        self.leaders: list[int] = []
        self.partitions: list[Partition] = []
        self.vanished: dict[int, Partition] = {}
        self.available: list[Partition] = []  # with a leader; all when none has one
        self.wire_limit = 0
        self.counters = Counters(TOPIC)
        self.waiting_told = False  # EVENT_NO_LEADER was emitted since the last set_topic
        self.sticky: StickySlot | None = None
        self.quantum = first_quantum(core)
        self._used = True
        self._rotation: list[Partition] = []
        self._rotation_lock = RLock()
        self._counter = itertools.count(random.getrandbits(31))

    @property
    def partition_count(self) -> int:
        """How many partitions the topic has."""
        return len(self.partitions)

    def take_used(self) -> bool:
        """Whether a record was sent to the topic since this was last asked."""
        if not self._used:
            return False
        self._used = False  # what is sent in between counts as before
        return True

    def mark_used(self) -> None:
        self._used = True

    def update(self, topic_id: bytes | None, leaders: list[int]) -> list[Partition]:
        """Take over what metadata says; the partitions that are gone. The core's lock is held."""
        self.topic_id = topic_id
        partitions = self.partitions[: len(leaders)]
        gone = self.partitions[len(leaders) :]
        for partition in gone:
            self.vanished[partition.index] = partition
            with partition.lock:
                partition.vanished = True
        for index in range(len(partitions), len(leaders)):
            back = self.vanished.pop(index, None)
            if back is None:
                back = Partition(self.topic, index, self._core.pool)
            back.vanished = False
            partitions.append(back)
        for partition, leader in zip(partitions, leaders, strict=True):
            partition.leader = leader
        # Replaced as a whole: senders read them without a lock.
        self.leaders = list(leaders)
        self.partitions = partitions
        self.available = [each for each in partitions if each.leader >= 0] or partitions
        self.waiting_told = False
        if self.sticky is not None and self.sticky.partition not in self.available:
            self.sticky = None
        return gone

    # --- Which partition ------------------------------------------------------------------------

    def round_robin(self) -> Partition:
        available = self.available
        return available[(next(self._counter) & 0x7FFFFFFF) % len(available)]

    def uniform(self) -> Partition:
        available = self.available
        return available[int(random.random() * len(available))]

    def sticky_slot(self) -> StickySlot:
        slot = self.sticky
        return slot if slot is not None else self.move_sticky(None)

    def move_sticky(self, slot: StickySlot | None) -> StickySlot:
        """The slot after `slot`: a new one, unless another thread moved it first."""
        with self._rotation_lock:
            now = self.sticky  # `update` may take it away at any time
            if now is None or now is slot:
                now = self.sticky = StickySlot(self._next_partition(slot))
            return now

    def _next_partition(self, slot: StickySlot | None) -> Partition:
        """When all queues are alike, every partition once, in random order, then again; otherwise
        a random one, the likelier the shorter its queue (KIP-794)."""
        available = self.available
        lengths = [len(partition.queue) for partition in available]
        longest = max(lengths)
        if longest != min(lengths):
            table = list(itertools.accumulate(longest + 1 - length for length in lengths))
            return available[bisect_right(table, int(random.random() * table[-1]))]
        last = None if slot is None else slot.partition
        while self._rotation:
            chosen = self._rotation.pop()
            if chosen is not last and chosen in available:
                return chosen
        self._rotation = random.sample(available, len(available))
        if len(available) > 1 and self._rotation[-1] is last:
            self._rotation.insert(0, self._rotation.pop())
        return self._rotation.pop()

    def sticky_is_due(self, slot: StickySlot, new_batch: bool) -> bool:
        """Whether keyless records go elsewhere now: after a quantum of bytes and only when that
        leaves no batch behind half filled; at twice the quantum in any case."""
        if slot.produced >= 2 * self.quantum:
            return True
        return new_batch and (
            slot.produced >= self.quantum or time.monotonic() - slot.since > layout.STICKY_HOLD
        )

    def batch_left(self, batch: Batch) -> None:
        """A batch was sent: full ones double the quantum, partial ones bring it back. One that
        holds a whole quantum counts as full: with the quantum below the batch size, no batch
        would ever be fuller, because the slot moves on."""
        if batch.full or batch.raw_bytes >= self.quantum:
            self.quantum = max(min(self.quantum * 2, self._core.options.batch_size), 1)
        else:
            self.quantum = first_quantum(self._core)


def first_quantum(core: Core) -> int:
    """Never 0, as batch_size can be: a record must be able to stay where it was put."""
    return max(min(layout.STICKY_QUANTUM, core.options.batch_size), 1)


def batch_limit(core: Core, route: TopicRoute) -> int:
    """The size up to which new batches of the topic take records, header included."""
    limit = max(core.options.batch_size, 1)
    return min(limit, route.wire_limit) if route.wire_limit else limit


def _open_batch(core: Core, route: TopicRoute, partition: Partition, record: Record) -> Batch:
    """A new batch at the tail, with the record, which has the memory for it. The partition's lock
    is held, so nobody else can touch the batch before it is registered."""
    batch = Batch(
        partition,
        BatchOutcome(core.host, partition.topic_partition),
        created=time.monotonic(),
        limit=batch_limit(core, route),
        charge=0,
        base_timestamp=record.timestamp,
    )
    placed = place_record(record.framed, 0, 0)
    try:
        partition.put(batch, placed, record)
        core.register(batch)
    except BaseException:
        # A signal's. Once it is queued the record is accepted.
        if batch.count:
            core.register(batch)
        raise
    return batch


def _try_append(
    core: Core,
    route: TopicRoute,
    partition: Partition,
    slot: StickySlot | None,
    record: Record,
) -> tuple[Batch | None, int, int]:
    """Append the record if there is room: its batch, its index there, 0. No batch: the memory that
    it needs first; 0 of it: choose again. The core knows of this thread that it is in the middle of
    something until the I/O thread knows of the batch: whoever waited for it before would wait for
    ever."""
    inside = core.host.inside
    me = threading.get_ident()
    fresh = me not in inside
    try:
        inside.add(me)
        with partition.lock:
            if core.closing:
                raise failures.closed()
            if partition.vanished or (slot is not None and route.sticky is not slot):
                return None, 0, 0
            place = partition.try_append(record)
            if place is None:
                if slot is not None and not record.charge and route.sticky_is_due(slot, True):
                    route.move_sticky(slot)
                    return None, 0, 0
                size = core.pool.size_class(len(place_record(record.framed, 0, 0)))
                if not record.charge and not core.pool.try_take(size, record):
                    return None, 0, size
                place = _open_batch(core, route, partition, record), 0
            if slot is not None:
                slot.produced += len(record.framed)
                if route.sticky_is_due(slot, False):
                    route.move_sticky(slot)
        batch, index = place
        if index == 0 or not batch.accepts:
            core.arrive(partition)
        return batch, index, 0
    finally:
        if fresh:
            inside.discard(me)


def append(
    core: Core,
    route: TopicRoute,
    partition: Partition,
    slot: StickySlot | None,
    record: Record,
    timeout_s: float,
) -> tuple[BatchOutcome, int] | None:
    """Append one record: its batch's outcome and its index there. None: choose again, because the
    sticky slot moved or the partition vanished. Waits up to `timeout_s` for memory.

    Raises what `BufferPool.take` does. A signal's handler may raise anywhere: whether the record was
    accepted or not, nothing is then left undone.
    """
    try:
        while True:
            batch, index, size = _try_append(core, route, partition, slot, record)
            if batch is not None or size == 0:
                break
            began = time.monotonic()
            core.pool.take(size, timeout_s, record)
            timeout_s -= time.monotonic() - began
        if record.charge:
            # Another sender made room meanwhile, or the record goes elsewhere.
            core.pool.give(record.charge, record)
    except BaseException:
        core.pool.give(record.charge, record)
        core.arrive(partition)
        raise
    return None if batch is None else (batch.outcome, index)
