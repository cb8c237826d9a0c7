"""One partition's queue: appends at its tail, and the rules by which batches leave at its head.

Two locks. `lock` guards the queue and the open batch at its tail; senders take it and nothing else.
Everything about batches on their way (`in_flight`, `parked`, the identity) is guarded by the core's
lock, which is always taken first. Idempotence (KIP-98, KIP-360) is in this file: which stamped
batch may leave, what an answer proves, and when only a new epoch helps.
"""

from __future__ import annotations

from collections import deque

from fastprod._pure import layout
from fastprod._pure.batch import Batch, Ordinal
from fastprod._pure.pool import BufferPool
from fastprod._pure.record_batch import Record, place_record
from fastprod.types import TopicPartition
from fastprod.waiting import Lock

Identity = tuple[int, int]
NO_IDENTITY: Identity = (-1, -1)


class Partition:
    """See the module's text."""

    __slots__ = (
        "_pool",
        "_stamps_given",
        "broken",
        "epoch_asked",
        "forgetful",
        "identity",
        "in_flight",
        "index",
        "last_acked_offset",
        "last_acked_ordinal",
        "last_acked_sequence",
        "leader",
        "lock",
        "next_sequence",
        "parked",
        "proven_at",
        "queue",
        "record_bytes",
        "record_size_max",
        "records_appended",
        "retry_at",
        "strict_after",
        "topic",
        "topic_partition",
        "unresolved",
        "unresolved_first",
        "unresolved_ordinal",
        "vanished",
    )

    def __init__(self, topic: str, index: int, pool: BufferPool) -> None:
        self._pool = pool
        self.topic = topic
        self.index = index
        self.topic_partition = TopicPartition(topic, index)
        self.lock = Lock()
        self.queue: deque[Batch] = deque()
        self.leader = -1
        self.vanished = False
        self.in_flight: list[Batch] = []
        self.parked = 0
        self.retry_at = 0.0
        self.records_appended = self.record_bytes = self.record_size_max = 0
        self.identity = NO_IDENTITY
        self.next_sequence = 0
        self._stamps_given = 0
        self.last_acked_sequence = self.last_acked_offset = -1
        self.last_acked_ordinal: Ordinal = ()
        self.proven_at: float | None = None
        self.unresolved = -1  # the sequence after the last batch whose fate is not known
        self.unresolved_ordinal: Ordinal = ()
        self.unresolved_first: Ordinal = ()  # of the oldest such one
        self.broken = False  # there is a gap: a sequence that was given out and never written
        self.forgetful = -1  # the broker that did not recognize what may be in its log
        self.epoch_asked = False
        # strict_order: stamped batches behind this one fail with their answer.
        self.strict_after: Ordinal | None = None

    # --- Append (under `lock`) ------------------------------------------------------------------

    def try_append(self, record: Record) -> tuple[Batch, int] | None:
        """Append to the tail batch; the batch and the record's index there, None without room."""
        if not self.queue:
            return None
        batch = self.queue[-1]
        if not batch.accepts:
            return None
        count = batch.count
        placed = place_record(record.framed, record.timestamp - batch.base_timestamp, count)
        size = len(batch.records) + len(placed)
        if count and layout.BATCH_HEADER + size > batch.limit:
            batch.close(full=True)
            return None
        if size > batch.charge and not self._grow(batch, size):
            # Nobody waits for memory under a partition's lock.
            batch.close(full=True)
            return None
        self.put(batch, placed, record)
        return batch, count

    def _grow(self, batch: Batch, size: int) -> bool:
        return self._pool.try_take(self._pool.size_class(size) - batch.charge, batch)

    def put(self, batch: Batch, placed: bytes, record: Record) -> None:
        """Put the record's bytes into the batch, and a new batch, with the memory that was taken
        for it, into the queue. All or nothing: once begun there is no call before it is done, and
        it is at calls that a signal's handler runs and may raise."""
        size = len(placed)
        batch.records += placed
        batch.count += 1
        if record.timestamp > batch.max_timestamp:
            batch.max_timestamp = record.timestamp
        self.records_appended += 1
        self.record_bytes += size
        if size > self.record_size_max:
            self.record_size_max = size
        if batch.count == 1:
            batch.charge, record.charge = record.charge, 0
            self.queue.append(batch)
        if layout.BATCH_HEADER + len(batch.records) >= batch.limit:
            batch.close(full=True)

    # --- Leaving (under both locks) -------------------------------------------------------------

    def next_batch(self, now: float, max_in_flight: int, identity: Identity | None) -> Batch | None:
        """The batch that may leave now, whatever linger says. `identity`: the producer's current
        one, None without idempotence."""
        if not self.queue or self.parked or now < self.retry_at:
            return None
        if len(self.in_flight) >= max_in_flight:
            return None
        head = self.queue[0]
        if identity is None:
            return head
        if self.broken:
            return None if self.in_flight else self._unknown_batch()
        if head.stamped:
            # Older than all in flight: a partition that retries runs one at a time until it has
            # caught up, so what is resent is never overtaken.
            behind = self.in_flight and self.in_flight[0].ordinal < head.ordinal
            return None if behind else head
        if self.unresolved >= 0 or identity == NO_IDENTITY:
            return None
        if not self.in_flight:
            return head
        if identity != self.identity or not self._proven(now):
            return None
        # However many later ones were acknowledged meanwhile (by a new leader, or while an older
        # one was resent): a batch that the broker has written six batches ago is no longer
        # recognized when it is resent, and what is written would be taken for refused.
        span = self._stamps_given - self.in_flight[0].place
        return head if span < layout.BATCHES_REMEMBERED else None

    def _unknown_batch(self) -> Batch | None:
        """A stamped batch that may be in the log: it is resent alone, under its old stamp, until the
        broker has said what became of it. They go in order; but a broker that was started again may
        recognize the last one alone, so there they go from the last to the first."""
        unknown = [batch for batch in self.queue if batch.stamped and batch.unknown]
        if self.denied:
            # A part of a split one is recognized by none.
            unknown = [batch for batch in unknown if not batch.split_product][-1:] or unknown
        return unknown[0] if unknown else None

    @property
    def denied(self) -> bool:
        """Whether its leader did not recognize what may be in its log, so that a pause was made."""
        return self.forgetful >= 0 and self.forgetful == self.leader

    def _proven(self, now: float) -> bool:
        """Whether the broker is known to hold state of our producer id. A broker without it takes
        any sequence, so followers of a refused first batch would be written past the gap."""
        return self.proven_at is not None and now - self.proven_at <= layout.PROOF_SECONDS

    def depart(self, batch: Batch, ordinal: int, identity: Identity | None) -> None:
        """Take the batch from the queue, stamped and counted as in flight."""
        if self.queue[0] is batch:
            self.queue.popleft()
        else:
            self.queue.remove(batch)
        if not batch.ordinal:
            batch.ordinal = (ordinal,)
        if identity is not None and not batch.stamped:
            if identity != self.identity:
                self._adopt(identity)
            batch.producer_id, batch.producer_epoch = identity
            batch.base_sequence = self.next_sequence
            self.next_sequence = batch.next_sequence
            batch.place = self._stamps_given
            self._stamps_given += 1
        batch.attempts += 1
        batch.reached = False
        batch.settled = self.denied
        batch.in_request = True
        self.in_flight.append(batch)
        if len(self.in_flight) > 1:
            self.in_flight.sort(key=_by_ordinal)

    def requeue(self, batch: Batch) -> None:
        """Back into the queue by drain order, before everything never drained."""
        place = 0
        for queued in self.queue:
            if not queued.ordinal or queued.ordinal > batch.ordinal:
                break
            place += 1
        self.queue.insert(place, batch)

    # --- What answers prove (under the core's lock) ---------------------------------------------

    def acknowledged(self, batch: Batch, base_offset: int, now: float) -> None:
        """The batch is in the log."""
        if not batch.stamped:
            return
        self.proven_at = now
        if batch.ordinal > self.last_acked_ordinal:
            self.last_acked_ordinal = batch.ordinal
            self.last_acked_sequence = (batch.next_sequence - 1) & layout.SEQUENCE_MASK
            if base_offset >= 0:
                self.last_acked_offset = base_offset + batch.count - 1
        if self.unresolved >= 0 and batch.ordinal > self.unresolved_ordinal:
            # The broker takes sequences without gaps only, so what came before is in the log.
            self.unresolved = -1
            self.epoch_asked = False
        if self.broken:
            # It may have lain unread when those behind it were denied, and they with it.
            with self.lock:
                for each in self.queue:
                    if each.doubted and each.ordinal > batch.ordinal and not each.split_product:
                        each.unknown = True

    def overtaken(self, batch: Batch) -> bool:
        """Whether a later batch of its identity is in the log."""
        mine = (batch.producer_id, batch.producer_epoch) == self.identity
        return batch.stamped and mine and batch.ordinal < self.last_acked_ordinal

    def later_unknown(self, batch: Batch) -> bool:
        """Whether a later batch of its identity may be in the log. Takes `lock`."""
        stamp = batch.producer_id, batch.producer_epoch
        with self.lock:
            return any(
                each.unknown
                and not each.split_product
                and each.ordinal > batch.ordinal
                and (each.producer_id, each.producer_epoch) == stamp
                for each in self.queue
            )

    def ended_unknown(self, batch: Batch) -> None:
        """The batch ended without an answer and may be in the log."""
        if not batch.stamped or batch.ordinal < self.last_acked_ordinal:
            return
        if self.unresolved < 0 or batch.ordinal < self.unresolved_first:
            self.unresolved_first = batch.ordinal
        if self.unresolved < 0 or batch.ordinal > self.unresolved_ordinal:
            self.unresolved = batch.next_sequence
            self.unresolved_ordinal = batch.ordinal

    def ended_unwritten(self, batch: Batch) -> None:
        """The batch ended and is certainly not in the log: its sequence is a gap."""
        if batch.stamped:
            self.broken = True

    def needs_epoch(self) -> bool:
        """Whether it is blocked and everything left may be renumbered. Takes `lock`."""
        if not (self.broken or self.unresolved >= 0) or self.in_flight or self.parked:
            return False
        with self.lock:
            return not any(
                batch.stamped and (batch.unknown or not self.broken) for batch in self.queue
            )

    # --- Identity (under the core's lock) -------------------------------------------------------

    def _adopt(self, identity: Identity) -> None:
        if identity[0] != self.identity[0]:
            self.proven_at = None
        self.identity = identity
        self.next_sequence = 0
        self.last_acked_sequence = self.last_acked_offset = -1

    def renumber(self, identity: Identity) -> None:
        """All stamps come off; the batches leave in order, from 0, under the newer identity."""
        with self.lock:
            for batch in self.queue:
                batch.take_stamp_off()
        self.proven_at = None
        self.unresolved = -1
        self.broken = self.epoch_asked = False
        self.forgetful = -1
        self.strict_after = None
        self._adopt(identity)


def _by_ordinal(batch: Batch) -> Ordinal:
    return batch.ordinal
