"""A batch on its way, and what the control plane is shown of one that needs a verdict."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastprod import failures
from fastprod._pure import layout
from fastprod._pure.delivery import BatchOutcome
from fastprod._pure.produce import LeaderHint, PartitionAnswer
from fastprod._pure.record_batch import BytesLike, Compress, batch_header, compressed_body

if TYPE_CHECKING:
    from fastprod._pure.partition import Partition

Ordinal = tuple[int, ...]


class Batch:
    """Records of one partition: open, then queued, in flight, perhaps parked, then ended.

    The partition's lock guards what appends change (`records`, `count`, the timestamps, `accepts`,
    `full`, `charge` while it is open); the core's lock guards the rest.
    """

    __slots__ = (
        "accepts",
        "attempts",
        "base_sequence",
        "base_timestamp",
        "body",
        "charge",
        "codec",
        "count",
        "created",
        "doubted",
        "ended",
        "full",
        "in_request",
        "last_error",
        "last_node",
        "limit",
        "max_timestamp",
        "ordinal",
        "outcome",
        "parked",
        "partition",
        "place",
        "producer_epoch",
        "producer_id",
        "raw_size",
        "reached",
        "records",
        "sealed",
        "settled",
        "split_product",
        "unknown",
    )

    def __init__(
        self,
        partition: Partition,
        outcome: BatchOutcome,
        *,
        created: float,
        limit: int,
        charge: int,
        base_timestamp: int,
    ) -> None:
        self.partition = partition
        self.outcome = outcome
        self.created = created
        self.limit = limit
        self.charge = charge
        self.records = bytearray()
        self.count = 0
        self.base_timestamp = self.max_timestamp = base_timestamp
        self.accepts = True
        self.full = False
        # Sealed: what goes to the wire behind the header, and what it took before compression.
        self.sealed = False
        self.codec = 0
        self.body: BytesLike = b""
        self.raw_size = 0
        # The stamp. An empty ordinal: never drained, or renumbered since.
        self.ordinal: Ordinal = ()
        self.producer_id = self.producer_epoch = self.base_sequence = -1
        self.place = 0  # how many of its partition were stamped before it
        self.attempts = 0
        self.last_error = 0
        self.last_node = -1  # the broker of the last attempt
        self.reached = False
        self.unknown = False
        self.doubted = False  # is unknown, or was: what a broker said since is true of that moment
        self.settled = False  # left when its leader had denied what may be in the log, and a while had passed
        self.ended = False
        self.parked = False
        self.in_request = False
        self.split_product = False

    @property
    def stamped(self) -> bool:
        """Whether it holds a sequence."""
        return self.base_sequence >= 0

    @property
    def next_sequence(self) -> int:
        """The sequence of the record after its last."""
        return (self.base_sequence + self.count) & layout.SEQUENCE_MASK

    @property
    def raw_bytes(self) -> int:
        """Bytes of its records before compression."""
        return self.raw_size if self.sealed else len(self.records)

    @property
    def wire_size(self) -> int:
        """Bytes it takes in a request; before it is sealed, the most that can be."""
        return layout.BATCH_HEADER + (len(self.body) if self.sealed else len(self.records))

    def close(self, *, full: bool) -> None:
        """No more records."""
        self.accepts = False
        self.full = self.full or full

    def seal(self, codec: int, compress: Compress | None) -> None:
        """Make the body. It is closed, so no lock is needed; what `compress` raises comes out and
        leaves it unsealed."""
        self.codec, self.body = compressed_body(codec, compress, self.records)
        self.raw_size = len(self.records)
        self.sealed = True
        self.records = bytearray()

    def header(self) -> bytes:
        """The 61 bytes for the next transmission."""
        return batch_header(
            self.body,
            self.codec,
            self.count,
            self.base_timestamp,
            self.max_timestamp,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
        )

    def take_stamp_off(self) -> None:
        """It is not in the log and will be numbered anew."""
        self.ordinal = ()
        self.producer_id = self.producer_epoch = self.base_sequence = -1
        self.unknown = False

    def body_bytes(self) -> bytes:
        """A copy of its body: as sealed, or its records so far."""
        return bytes(self.body if self.sealed else self.records)


def history_of(batch: Batch, maybe_written: bool, *, elapsed: bool = True) -> str:
    """What was tried with a batch that fails now, in words."""
    leader = batch.partition.leader
    host = batch.outcome.host
    held_by = host.troubles.get(None, "")
    if not held_by and host.throttled_until.get(leader, 0.0) > time.monotonic():
        held_by = failures.throttled(leader)
    return failures.history(
        batch.attempts,
        batch.last_node,
        batch.last_error,
        leader,
        host.troubles.get(leader, "") if leader >= 0 else "",
        maybe_written,
        (time.monotonic() - batch.created) * 1000 if elapsed else None,
        held_by,
    )


class ParkedBatch:
    """A batch that waits for a verdict, as the control plane sees it; see DESIGN.md."""

    __slots__ = (
        "_batch",
        "attempts",
        "base_sequence",
        "base_timestamp",
        "codec",
        "created",
        "error_code",
        "error_message",
        "last_acked_offset",
        "last_acked_sequence",
        "later_lost",
        "later_unknown",
        "leader_hint",
        "log_start_offset",
        "node_id",
        "overtaken",
        "partition",
        "producer_epoch",
        "producer_id",
        "reached",
        "record_count",
        "record_errors",
        "settled",
        "size",
        "split",
        "topic",
        "unknown",
        "unresolved_sequence",
    )

    def __init__(
        self, batch: Batch, node_id: int, error_code: int, answer: PartitionAnswer | None
    ) -> None:
        partition = batch.partition
        self._batch: Batch | None = batch
        self.topic: str = partition.topic
        self.partition: int = partition.index
        self.node_id = node_id
        self.error_code = error_code
        # An empty text says no more than none.
        self.record_errors: list[tuple[int, str | None]] = (
            [(index, text or None) for index, text in answer[7]] if answer else []
        )
        self.error_message: str | None = answer[8] if answer else None
        self.log_start_offset: int = answer[6] if answer else -1
        self.leader_hint: LeaderHint | None = None
        if answer and answer[9]:
            leader, epoch, host, port = answer[9]
            self.leader_hint = (leader, epoch, host or None, port)
        self.attempts = batch.attempts
        self.record_count = batch.count
        self.size = batch.wire_size
        self.codec = batch.codec
        self.base_timestamp = batch.base_timestamp
        self.created = batch.created
        self.reached = batch.reached
        self.unknown = batch.unknown
        self.settled = batch.settled
        self.split = batch.split_product
        self.producer_id = batch.producer_id
        self.producer_epoch = batch.producer_epoch
        self.base_sequence = batch.base_sequence
        self.last_acked_sequence: int = partition.last_acked_sequence
        self.last_acked_offset: int = partition.last_acked_offset
        self.unresolved_sequence: int = partition.unresolved
        self.overtaken = partition.overtaken(batch)
        self.later_unknown = partition.later_unknown(batch)
        unresolved = partition.unresolved >= 0
        self.later_lost = unresolved and partition.unresolved_ordinal > batch.ordinal

    @property
    def done(self) -> bool:
        """Whether its futures have already ended: only bookkeeping is left."""
        return self._batch is None or self._batch.ended

    def body(self) -> bytes:
        """Its body as sealed, maybe compressed; empty once the batch is done."""
        return b"" if self._batch is None else self._batch.body_bytes()

    def look(self) -> Batch | None:
        """The batch; None when a verdict was carried out before."""
        return self._batch

    def take(self) -> Batch | None:
        """The batch, for whoever carries the verdict out; None when one was carried out before."""
        batch, self._batch = self._batch, None
        return batch
