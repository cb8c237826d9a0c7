"""The data plane as Python sees it: what the control plane tells it, and what it hears back
(DESIGN.md, "The seam")."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from fastprod import failures
from fastprod._pure import io_loop, layout
from fastprod._pure.accumulator import TopicRoute
from fastprod._pure.batch import Batch, ParkedBatch, history_of
from fastprod._pure.core import Core
from fastprod._pure.delivery import BatchOutcome, ControlThread
from fastprod._pure.io_loop import IoLoop
from fastprod._pure.partition import NO_IDENTITY
from fastprod._pure.record_batch import (
    DecodedRecord,
    frame_headers,
    frame_record,
    place_record,
)
from fastprod._pure.stats import Stats, stats_of

if TYPE_CHECKING:
    from fastprod.config import PlaneOptions

log: Final = logging.getLogger("fastprod")

AbortedBatch = tuple[str, int, int, bytes, int, int, bool]


def _settled(outcome: BatchOutcome) -> bool:
    if outcome.children is not None:
        return all(map(_settled, outcome.children))
    return outcome.settled


class DataPlane:
    """Accumulator and sender: accepts records, delivers batches, reports what it cannot decide.

    `options`: a config.PlaneOptions; `event_fd`: a non-blocking socket that gets one byte when
    events or callbacks are due. It must stay open as long as this object lives.
    """

    def __init__(self, options: PlaneOptions, event_fd: int) -> None:
        self.core = Core(options, event_fd)
        self.routes: dict[str, TopicRoute] = {}
        self._loop = IoLoop(self.core)

    def __del__(self) -> None:
        # On any thread, our own included: only signal.
        loop = getattr(self, "_loop", None)
        if loop is not None and not self.core.host.forked:
            loop.abandon()

    @property
    def engine(self) -> ControlThread | None:
        """What `send` asks when it cannot go on by itself."""
        return self.core.host.engine

    @engine.setter
    def engine(self, engine: ControlThread | None) -> None:
        self.core.host.engine = engine

    # --- Start and end --------------------------------------------------------------------------

    def start(self) -> None:
        """Start the I/O thread."""
        self._loop.start()

    def stop(self) -> None:
        """End the I/O thread and close its connections. What is unfinished stays; `abort` ends
        it."""
        if not self.core.host.forked:
            self._loop.stop()

    def inherited(self) -> None:
        """This process is a forked child: what belongs to this plane goes on in the parent, and
        ends here. Whoever held a lock holds it here for good, so none is taken."""
        self.core.closing = self.core.host.forked = True
        self._loop.inherited()
        self.core.close()

    def close_appends(self) -> None:
        """From now on `send` raises IllegalStateError, and partial batches leave at once."""
        core = self.core
        core.closing = True
        core.pool.close()
        if not core.host.is_inside():
            with core.lock:
                self._let_senders_through()
        core.urge()

    # --- Topics and connections -----------------------------------------------------------------

    def set_topic(self, topic: str, topic_id: bytes | None, leaders: Sequence[int]) -> TopicRoute:
        """Create or update a topic: `topic_id` 16 bytes or None, `leaders[partition]` a node id or
        -1."""
        core = self.core
        if not leaders:
            raise ValueError(f"topic {topic!r} must have a partition")
        with core.lock:
            route = core.topics.get(topic)
            if route is None:
                route = core.topics[topic] = TopicRoute(core, topic)
            for partition in route.update(topic_id, list(leaders)):
                with partition.lock:
                    gone = list(partition.queue)
                    partition.queue.clear()
                for batch in gone:
                    batch.close(full=False)
                    core.vanish_one(batch)
            for partition in route.partitions:
                core.review(partition)
        self.routes[topic] = route
        return route

    def forget_topic(self, topic: str) -> None:
        """Take an idle topic out of `routes`; `set_topic` brings it back as it was."""
        self.routes.pop(topic, None)

    def reset_topic(self, topic: str) -> None:
        """The topic was deleted and created again: its partitions go on under a newer epoch, in
        which sequences start anew. Not under the old one: batches may have come to the new topic
        before we knew of it, and what has their sequences would be taken for them."""
        with self.core.lock:
            route = self.core.topics.get(topic)
            if route is not None and self.core.idempotent:
                for partition in (*route.partitions, *route.vanished.values()):
                    if partition.identity != NO_IDENTITY:
                        partition.broken = True
                        partition.forgetful = -1  # the new topic takes whatever comes first
                        self.core.review(partition)

    def set_leader_limit(self, topic: str, limit: int) -> None:
        """New batches of the topic stay at or below `limit` bytes on the wire; 0: no limit of its
        own."""
        route = self.core.topics.get(topic)
        if route is not None:
            route.wire_limit = limit

    def attach(self, node_id: int, fd: int, produce_version: int) -> None:
        """Hand over a connected, non-blocking socket, which the I/O thread owns and closes from
        now on."""
        self._loop.command(io_loop.ATTACH, node_id, fd, produce_version)

    def detach(self, node_id: int, reason: str) -> None:
        """Close the connection to a broker; what was in flight on it is parked as lost."""
        self._loop.command(io_loop.DETACH, node_id, why=reason)

    def connection_failed(self, node_id: int) -> None:
        """No connection could be made: ask again when batches wait."""
        self._loop.command(io_loop.FAILED, node_id)

    def set_trouble(self, node_id: int | None, words: str) -> None:
        """Why a broker cannot be used just now, for the errors that come of it; "": it can. None:
        why nothing may leave."""
        if words:
            self.core.host.troubles[node_id] = words
        else:
            self.core.host.troubles.pop(node_id, None)

    def set_identity(self, producer_id: int, epoch: int) -> None:
        """The producer id and epoch for new batches; -1, -1: none, and nothing idempotent
        leaves."""
        core = self.core
        with core.lock:
            core.identity = (producer_id, epoch)
            for route in core.topics.values():
                for partition in route.partitions:
                    if partition.broken or partition.unresolved >= 0:
                        core.review(partition)
        core.urge()

    def set_idempotent(self, idempotent: bool) -> None:
        """Before the first batch has left: whether batches carry a producer id and sequence."""
        self.core.idempotent = idempotent
        self.core.urge()

    # --- Events and verdicts --------------------------------------------------------------------

    def take_events(self) -> list[tuple[Any, ...]]:
        """The events since the last call; see DESIGN.md."""
        return self.core.take_events()

    def run_callbacks(self, seconds: float = 0.0) -> int:
        """On the control thread: run the callbacks of one batch, and of more until `seconds` have
        passed; how many batches still wait."""
        core = self.core
        enough = time.monotonic() + seconds
        while core.due:
            self._run_due(*core.due.popleft())
            # A callback may have forked, and this be the child.
            if core.host.forked or time.monotonic() >= enough:
                break
        return len(core.due)

    def _run_due(self, outcome: BatchOutcome, charge: int) -> None:
        core = self.core
        began = time.monotonic()
        outcome.run_callbacks()
        core.pool.settle(charge)
        core.settle(outcome)
        took = time.monotonic() - began
        if took > layout.SLOW_CALLBACKS:
            with contextlib.suppress(Exception):  # a logging filter of the user's may raise
                log.warning(
                    "the delivery callbacks of one batch took %.1f s; they delay other callbacks "
                    "and decisions",
                    took,
                )

    def retry(
        self, parked: ParkedBatch, delay_ms: float, *, unknown: bool, renumber: bool = False
    ) -> None:
        """Back into its queue; its partition sends nothing before `delay_ms` have passed."""
        with self.core.lock:
            self.core.retry(parked, delay_ms / 1000, unknown, renumber)

    def fail(
        self,
        parked: ParkedBatch,
        error: BaseException,
        *,
        unknown: bool,
        record_errors: dict[int, Exception] | None = None,
    ) -> None:
        """It has failed with `error`, the records in `record_errors` with theirs."""
        with self.core.lock:
            self.core.fail(parked, error, unknown, record_errors)

    def succeed(self, parked: ParkedBatch, base_offset: int, log_append_time: int) -> None:
        """It is in the log after all."""
        with self.core.lock:
            self.core.succeed(parked, base_offset, log_append_time)

    def split(self, parked: ParkedBatch, groups: Sequence[Sequence[DecodedRecord]]) -> None:
        """Replace it by one batch a group of decoded records, in order, in its old place."""
        with self.core.lock:
            parent = parked.look()
            if parent is None:
                return
            # First what may raise: the batch can then still be decided upon otherwise.
            children = [] if parent.ended else _children(self.core, parent, groups)
            self.core.unpark(parked)
            if parent.ended:
                self.core.account(parent, parent.unknown)
            else:
                self.core.replace(parent, children)
            self.core.review(parent.partition)

    def fail_queued(self, error: BaseException, *, sent: bool = False) -> None:
        """Fail every batch that was never sent, each with an `error` of its own that says what was
        tried with it; `sent`: those that wait to be sent again, too."""
        core = self.core
        with core.lock:
            for batch in list(core.pending):
                at_rest = not (batch.ended or batch.in_request or batch.parked)
                if at_rest and (sent or batch.attempts == 0):
                    told = history_of(batch, batch.doubted)
                    place = batch.partition.topic_partition
                    core.fail_unsent(batch, failures.with_history(error, *place, told))

    def abort(self, error: Callable[[], BaseException]) -> list[AbortedBatch]:
        """End each batch that is left with an `error()`; a tuple for each, see DESIGN.md."""
        left: list[AbortedBatch] = []
        core = self.core
        core.place_late()
        with core.lock:
            self._let_senders_through()
            while (batch := core.oldest()) is not None:
                partition = batch.partition
                if not batch.in_request and not batch.parked:
                    core.remove_queued(batch)
                maybe_written = batch.doubted or (batch.reached and batch.attempts > 0)
                place = partition.topic_partition
                times = (batch.base_timestamp, batch.count, maybe_written)
                left.append((*place, batch.codec, batch.body_bytes(), *times))
                told = history_of(batch, maybe_written)
                mine = failures.with_history(error(), *place, told)
                core.end(batch, failures.flagged(mine, maybe_written))
        return left

    def _let_senders_through(self) -> None:
        """Whoever holds a partition's lock appends; whoever takes it from now on finds the producer
        closed. The core's lock is held."""
        for route in self.core.topics.values():
            for partition in (*route.partitions, *route.vanished.values()):
                with partition.lock:
                    pass

    # --- Waiting --------------------------------------------------------------------------------

    def flush(self, timeout_s: float | None) -> bool:
        """Let every batch that exists leave, and wait up to `timeout_s` (None: without bound) until
        each is done and its callbacks have run. False: not in time."""
        core = self.core
        if core.host.on_control_thread() or threading.get_ident() == core.io_thread:
            raise failures.flush_in_callback()
        if core.host.is_inside():
            raise failures.waits_inside("flush()")
        core.place_late()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with core.registry:
            # All that is waited for was created before, and what another thread flushes as well.
            core.flush_until = time.monotonic()
            waiting = list(core.unsettled)
        core.urge()
        while True:
            gate = core.settling
            while waiting and _settled(waiting[-1]):
                waiting.pop()
            if not waiting:
                return True
            rest = layout.SIGNAL_SLICE
            if deadline is not None:
                rest = min(rest, deadline - time.monotonic())
                if rest <= 0:
                    return False
            gate.wait(rest)
            if core.host.forked:  # by a signal's handler
                return True

    def incomplete(self) -> int:
        """Batches that are not done, or whose callbacks have not run."""
        with self.core.registry:
            return len(self.core.unsettled)

    # --- Counters -------------------------------------------------------------------------------

    def counters(self) -> dict[str, float]:
        """Totals of the whole producer; the names are in DESIGN.md."""
        core = self.core
        with core.lock:
            result = core.counters.take()
            for route in core.topics.values():
                for partition in (*route.partitions, *route.vanished.values()):
                    result["records_appended"] += partition.records_appended
                    result["record_bytes"] += partition.record_bytes
                    largest = max(result["record_size_max"], partition.record_size_max)
                    result["record_size_max"] = largest
                    partition.record_size_max = 0
            with core.registry:
                pending = list(core.pending)
            result["records_queued"] = sum(batch.count for batch in pending)
            result["bytes_queued"] = sum(batch.raw_bytes for batch in pending)
            connections = [outbox.connection for outbox in self._loop.outboxes.values()]
        open_ones = [connection for connection in connections if connection is not None]
        result["requests_in_flight"] = sum(len(each.in_flight) for each in open_ones)
        result["connections"] = len(open_ones)
        result["memory_used"] = core.pool.charged
        result["callbacks_waiting"] = len(core.due)
        return result

    def stats(self) -> Stats:
        """All of it at one moment, and no maximum begins anew: see DESIGN.md."""
        return stats_of(self.core, self._loop.outboxes)

    def take_unread(self) -> tuple[int, BaseException | None]:
        """How many failures were dropped unseen since the last call, and one of them (None:
        none)."""
        return self.core.host.unread.take()

    def topic_counters(self) -> dict[str, dict[str, float]]:
        """Totals by topic; the names are in DESIGN.md."""
        with self.core.lock:
            return {name: route.counters.take() for name, route in self.core.topics.items()}

    def node_counters(self) -> dict[int, dict[str, float]]:
        """Totals by broker; the names are in DESIGN.md."""
        result = {}
        with self.core.lock:
            for node_id, outbox in self._loop.outboxes.items():
                result[node_id] = outbox.counters.take()
                connection = outbox.connection
                in_flight = len(connection.in_flight) if connection is not None else 0
                result[node_id]["in_flight"] = in_flight
        return result


def _children(core: Core, parent: Batch, groups: Sequence[Sequence[DecodedRecord]]) -> list[Batch]:
    """One batch a group, numbered on from the parent's base, in the parent's place."""
    counts = list(map(len, groups))
    if not all(counts) or sum(counts) != parent.count:
        raise ValueError(f"a batch of {parent.count} records cannot be split into {counts}")
    children = []
    sequences = itertools.accumulate(map(len, groups), initial=parent.base_sequence)
    for number, (group, sequence) in enumerate(zip(groups, sequences, strict=False)):
        child = Batch(
            parent.partition,
            BatchOutcome(core.host, parent.partition.topic_partition),
            created=parent.created,
            limit=0,
            charge=0,
            base_timestamp=group[0][0],
        )
        for index, (timestamp, key, value, headers) in enumerate(group):
            framed = frame_record(key, value, frame_headers(headers))
            child.records += place_record(framed, timestamp - child.base_timestamp, index)
            child.max_timestamp = max(child.max_timestamp, timestamp)
        child.count = len(group)
        child.close(full=True)
        child.split_product = True
        child.unknown = parent.unknown
        child.doubted = parent.doubted
        child.charge = len(child.records)
        child.ordinal = (*parent.ordinal, number)
        child.place = parent.place
        child.producer_id = parent.producer_id
        child.producer_epoch = parent.producer_epoch
        child.base_sequence = sequence & layout.SEQUENCE_MASK if parent.stamped else -1
        children.append(child)
    return children
