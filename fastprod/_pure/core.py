"""The state that all threads of one plane share, and how a batch ends, is parked or goes back.

`lock` guards everything about batches on their way. Order of locks: `lock`, then a partition's,
then the small ones (registry, pool, outcome, wake), of which nobody ever holds two. A sender takes
a partition's lock and small ones only, so it never waits for the I/O thread's work.

A signal's handler or a finalizer may run in the middle of any of this, on the thread that holds the
locks, and may send. It must wait for no lock then: its record is put down in `late`, and placed by
whoever comes next without a lock (`Host.is_inside`).
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from fastprod import failures
from fastprod._pure import layout
from fastprod._pure.batch import Batch, Ordinal, ParkedBatch, history_of
from fastprod._pure.counters import PLANE, Counters
from fastprod._pure.delivery import BatchOutcome, Host
from fastprod._pure.partition import NO_IDENTITY, Identity, Partition
from fastprod._pure.pool import BufferPool
from fastprod._pure.produce import PartitionAnswer
from fastprod._pure.unread import Unread
from fastprod._pure.wakeup import Wakeup
from fastprod.waiting import Gate, RLock

if TYPE_CHECKING:
    from fastprod._pure.accumulator import TopicRoute
    from fastprod.config import PlaneOptions

Event = tuple[Any, ...]


class Core:
    """See the module's text."""

    def __init__(self, options: PlaneOptions, event_fd: int) -> None:
        self.options = options
        self.host = Host()
        self.lock = RLock()
        self.late: deque[Callable[[], None]] = deque()
        self.wake_read, self._wake_write = socket.socketpair()
        self.wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._wake = Wakeup(self._wake_write)
        # A duplicate: the descriptor itself stays the control plane's, and a socket object that
        # does not own what it holds closes it all the same when it is collected.
        self._event_socket = socket.fromfd(event_fd, socket.AF_INET, socket.SOCK_STREAM)
        self._told = Wakeup(self._event_socket)
        self.pool = BufferPool(
            options.buffer_memory, options.batch_size, self.host, on_pressure=self.urge
        )
        self.io_thread = 0
        self.urged = False  # something changed that may let batches leave for every broker
        self.idempotent = options.idempotent
        self.closing = False
        self.flush_until = 0.0  # partial batches created until then leave now
        self.topics: dict[str, TopicRoute] = {}
        self.identity: Identity = NO_IDENTITY
        self._ordinal = 0
        self.counters = Counters(PLANE)
        # Encoded, before compression, without the batch's header.
        self.bytes_acked = self.bytes_failed = self.bytes_retried = 0
        # What threads hand to each other; appending to and taking from a deque is atomic.
        self.arrivals: deque[Partition] = deque()
        self.events: deque[Event] = deque()
        self.due: deque[tuple[BatchOutcome, int]] = deque()
        # Batches not ended, oldest first, and outcomes not settled: ended with callbacks to run.
        self.registry = RLock()
        self.pending: OrderedDict[Batch, None] = OrderedDict()
        self.unsettled: dict[BatchOutcome, None] = {}
        self.settling = Gate()  # opened when the next one is settled

        for lock in (
            self.lock,
            self.registry,
            self.pool.lock,
            self._wake.lock,
            self._told.lock,
            self.host.unread.lock,
        ):
            self.host.guard(lock)

    # --- Signals --------------------------------------------------------------------------------

    def wake(self) -> None:
        """Let the I/O thread look again."""
        self._wake.send()

    def urge(self) -> None:
        """Let it look at every broker."""
        self.urged = True
        self.wake()

    def take_urge(self) -> bool:
        """Whether it is to look at every broker. One that comes in between is not lost: the I/O
        thread looks after it."""
        urged = self.urged
        if urged:
            self.urged = False
        return urged

    def woken(self) -> None:
        """The I/O thread is awake."""
        try:
            while self.wake_read.recv(4096):
                pass
        except (BlockingIOError, InterruptedError):
            pass
        self._wake.seen()

    def emit(self, event: Event) -> None:
        """Queue an event for the control plane."""
        self.events.append(event)
        self._told.send()

    def take_events(self) -> list[Event]:
        self._told.seen()
        taken = []
        while self.events:
            taken.append(self.events.popleft())
        return taken

    def arrive(self, partition: Partition) -> None:
        """The I/O thread is to look at this partition: it has something new, or may leave now."""
        self.arrivals.append(partition)
        # The I/O thread looks at the arrivals before it sleeps.
        if threading.get_ident() != self.io_thread:
            self.wake()

    # --- In the middle of it --------------------------------------------------------------------

    def put_late(self, place: Callable[[], None]) -> None:
        """Let a record be placed soon. Takes no lock that somebody else could hold for long."""
        self.late.append(place)
        self.wake()

    def place_late(self) -> None:
        """Place what was sent in the middle of something, in that order. Not to be called there."""
        with self.lock:
            while self.late:
                # Taken off when it is done: a signal's handler may raise, and to do it again is
                # harmless.
                self.late[0]()
                self.late.popleft()

    def close(self) -> None:
        self.wake_read.close()
        self._wake_write.close()
        self._event_socket.close()

    # --- The life of a batch --------------------------------------------------------------------

    def register(self, batch: Batch) -> None:
        """A new batch: from now on flush waits for it and time runs out for it. The partition's
        lock is held."""
        with self.registry:
            self.pending[batch] = None
            self.unsettled[batch.outcome] = None

    @property
    def stamping(self) -> Identity | None:
        """What batches are stamped with when they leave; None without idempotence."""
        return self.identity if self.idempotent else None

    def end(
        self,
        batch: Batch,
        error: BaseException | None = None,
        *,
        record_errors: dict[int, Exception] | None = None,
        base_offset: int = -1,
        log_append_time: int = -1,
    ) -> None:
        """The batch has succeeded, or failed with `error`; nothing happens if it had ended before
        (a late answer after it expired)."""
        if batch.ended:
            return
        batch.ended = True
        outcome = batch.outcome
        if error is None:
            self.bytes_acked += batch.raw_bytes
        else:
            self.bytes_failed += batch.raw_bytes
            example = record_errors[min(record_errors)] if record_errors else error
            outcome.unread = Unread(self.host.unread, batch.count, example)
        outcome.error = error
        outcome.record_errors = record_errors
        outcome.base_offset = base_offset
        outcome.log_append_time = log_append_time
        self.counters.add("records_acked" if error is None else "records_failed", batch.count)
        if error is not None:
            self.topics[batch.partition.topic].counters.add("records_failed", batch.count)
        with self.registry:
            self.pending.pop(batch, None)
        charge = batch.charge
        if outcome.finish():
            self.pool.owe(charge)
            self.call_back(outcome, charge)
        else:
            self.settle(outcome)
        if not batch.in_request:
            self.free(batch)

    def call_back(self, outcome: BatchOutcome, charge: int) -> None:
        """Let the control thread run its callbacks; then `charge` bytes are owed no more."""
        self.due.append((outcome, charge))
        self._told.send()

    def settle(self, outcome: BatchOutcome) -> None:
        """It ended and its callbacks have run: flush need not wait for it any more."""
        with self.registry:
            self.unsettled.pop(outcome, None)
            gate, self.settling = self.settling, Gate()
            gate.open()

    def free(self, batch: Batch) -> None:
        """Return the batch's bytes. No request holds them, no retry or split will ask for them."""
        batch.sealed = True
        batch.records = bytearray()
        batch.body = b""
        self.pool.give(batch.charge, batch)

    def next_ordinal(self) -> int:
        self._ordinal += 1
        return self._ordinal

    def fail_unsent(self, batch: Batch, error: BaseException) -> None:
        """A batch at rest in its queue cannot be made ready to send."""
        self.remove_queued(batch)
        self.end(batch, failures.flagged(error, batch.doubted))
        self.account(batch, batch.unknown)
        self.review(batch.partition)

    def _landed(self, batch: Batch) -> None:
        """Its request is over: the socket holds none of its bytes any more."""
        batch.in_request = False
        batch.partition.in_flight.remove(batch)

    def acknowledge(self, batch: Batch, base_offset: int, log_append_time: int) -> None:
        """Its request was answered: it is in the log."""
        self._landed(batch)
        self._in_log(batch, base_offset, log_append_time)

    def _in_log(self, batch: Batch, base_offset: int, log_append_time: int) -> None:
        partition = batch.partition
        partition.acknowledged(batch, base_offset, time.monotonic())
        if batch.ended:
            self.free(batch)
        else:
            self.end(batch, base_offset=base_offset, log_append_time=log_append_time)
        self.review(partition)

    def park(
        self, batch: Batch, node_id: int, error_code: int, answer: PartitionAnswer | None
    ) -> None:
        """Its request ended with an error, or with the connection: Python decides."""
        partition = batch.partition
        self._landed(batch)
        batch.last_error = error_code
        if batch.ended:
            self.free(batch)
        elif self._behind_failure(batch):
            self._fail_behind(batch, batch.unknown or (answer is None and batch.reached))
            self.review(partition)
            return
        partition.parked += 1
        batch.parked = True
        self.emit((layout.EVENT_PARKED, ParkedBatch(batch, node_id, error_code, answer)))

    # --- Verdicts -------------------------------------------------------------------------------

    def unpark(self, parked: ParkedBatch) -> Batch | None:
        """The batch a verdict is about; None when one was given before."""
        batch = parked.take()
        if batch is not None:
            batch.parked = False
            batch.partition.parked -= 1
        return batch

    def retry(self, parked: ParkedBatch, delay_s: float, unknown: bool, renumber: bool) -> None:
        batch = self.unpark(parked)
        if batch is None:
            return
        partition = batch.partition
        partition.retry_at = max(partition.retry_at, time.monotonic() + delay_s)
        batch.unknown = unknown
        batch.doubted = batch.doubted or unknown
        batch.reached = False  # `unknown` says all there is to say about the attempts so far
        if renumber:
            partition.broken = True
            if unknown:
                partition.forgetful = parked.node_id
        elif batch.last_error in (layout.NETWORK_EXCEPTION, layout.REQUEST_TIMED_OUT):
            # This attempt may lie unread as well. A broker says 7 itself, too; asking once more is no harm.
            partition.forgetful = -1
        if batch.ended:
            self.account(batch, unknown)
        elif partition.vanished:
            self.vanish_one(batch)
        elif self._behind_failure(batch):
            self._fail_behind(batch, unknown)
        else:
            with partition.lock:
                partition.requeue(batch)
        self.review(partition)

    def fail(
        self,
        parked: ParkedBatch,
        error: BaseException,
        unknown: bool,
        record_errors: dict[int, Exception] | None,
    ) -> None:
        batch = self.unpark(parked)
        if batch is None:
            return
        told = failures.flagged(error, unknown or batch.doubted)
        self.end(batch, told, record_errors=record_errors)
        self.account(batch, unknown)
        self.review(batch.partition)

    def succeed(self, parked: ParkedBatch, base_offset: int, log_append_time: int) -> None:
        batch = self.unpark(parked)
        if batch is not None:
            self._in_log(batch, base_offset, log_append_time)

    def replace(self, parent: Batch, children: list[Batch]) -> None:
        """A batch was split. Its memory goes and theirs comes, past the budget if need be: decoded
        and encoded anew they may be larger than what was compressed."""
        self.pool.charge(sum(child.charge for child in children))
        first_of_child = list(
            itertools.accumulate((child.count for child in children[:-1]), initial=0)
        )
        parent.ended = True
        with self.registry:
            # Expiry looks at the oldest first, and children are as old as their parent.
            self.pending.pop(parent, None)
            pending = sorted([*self.pending, *children], key=attrgetter("created"))
            self.pending = OrderedDict.fromkeys(pending)
            for child in children:
                self.unsettled[child.outcome] = None
        parent.outcome.split([child.outcome for child in children], first_of_child)
        self.settle(parent.outcome)
        self.free(parent)
        with parent.partition.lock:
            for child in children:
                parent.partition.requeue(child)

    def account(self, batch: Batch, unknown: bool) -> None:
        """A batch with or without a sequence failed: what that means for those behind it."""
        partition = batch.partition
        if unknown:
            partition.ended_unknown(batch)
            return
        partition.ended_unwritten(batch)
        if self.options.strict_order and batch.stamped:
            self._fail_all_behind(partition, batch.ordinal)

    def vanish_one(self, batch: Batch) -> None:
        """Its partition is gone."""
        partition = batch.partition
        count = self.topics[partition.topic].partition_count
        told = history_of(batch, batch.doubted)
        error = failures.partition_vanished(partition.topic, partition.index, count, told)
        self.end(batch, failures.flagged(error, batch.doubted))
        self.account(batch, batch.unknown)

    # --- Strict order ---------------------------------------------------------------------------

    def _behind_failure(self, batch: Batch) -> bool:
        after = batch.partition.strict_after
        return after is not None and batch.stamped and batch.ordinal > after

    def _fail_behind(self, batch: Batch, unknown: bool) -> None:
        partition = batch.partition
        maybe_written = unknown or batch.doubted
        told = history_of(batch, maybe_written)
        error = failures.behind_a_failed_batch(partition.topic, partition.index, told)
        self.end(batch, failures.flagged(error, maybe_written))
        partition.broken = True

    def _fail_all_behind(self, partition: Partition, ordinal: Ordinal) -> None:
        """Those queued fail now; those in flight or parked when they are not acknowledged."""
        if partition.strict_after is None or ordinal < partition.strict_after:
            partition.strict_after = ordinal
        with partition.lock:
            behind = [batch for batch in partition.queue if self._behind_failure(batch)]
            for batch in behind:
                partition.queue.remove(batch)
        for batch in behind:
            self._fail_behind(batch, batch.unknown)

    # --- The queue ------------------------------------------------------------------------------

    def oldest(self) -> Batch | None:
        """The oldest batch that has not ended."""
        with self.registry:
            return next(iter(self.pending), None)

    def remove_queued(self, batch: Batch) -> None:
        """Take a batch that is not on its way out of its queue."""
        partition = batch.partition
        with partition.lock:
            batch.close(full=False)
            if batch in partition.queue:
                partition.queue.remove(batch)

    # --- Identity -------------------------------------------------------------------------------

    def review(self, partition: Partition) -> None:
        """Something of this partition changed: may it leave now, or does it need an epoch?"""
        if self.idempotent and partition.needs_epoch():
            if self.options.strict_order and partition.broken and partition.unresolved >= 0:
                # It is not in the log, or nobody will know any more: it has failed for good.
                self._fail_all_behind(partition, partition.unresolved_first)
            if self.identity not in (NO_IDENTITY, partition.identity):
                partition.renumber(self.identity)
            elif not partition.epoch_asked:
                partition.epoch_asked = True
                self.emit(
                    (
                        layout.EVENT_NEED_EPOCH,
                        partition.topic,
                        partition.index,
                        *partition.identity,
                    )
                )
        if partition.queue:
            self.arrive(partition)
