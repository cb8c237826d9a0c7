"""Which batches may leave for a broker now, and the request that carries them."""

from __future__ import annotations

import time

from fastprod._pure import layout
from fastprod._pure.batch import Batch
from fastprod._pure.core import Core
from fastprod._pure.outbox import NEVER, Connection, Outbox, Request
from fastprod._pure.partition import Partition

# With a codec this many times max_request_size is taken before compression; what then does not
# fit waits, sealed, for the next request.
_COMPRESSION_HOPE = 4

NOW = 0.0


def _behind_others(core: Core, outbox: Outbox, connection: Connection, batch: Batch) -> float:
    """When a partial batch leaves behind requests without an answer."""
    round_trip = connection.round_trip
    most = core.options.max_in_flight
    leaves = NOW
    if round_trip is not None and 2 * len(connection.in_flight) > most:
        # Requests are what is scarce now. A stream would use up the last ones within a small part
        # of a long round trip, and wait for the rest of it; so they leave at even distances.
        leaves = connection.last_write + round_trip / most
    elif outbox.answered:
        return NOW
    part = (round_trip or NEVER) * layout.CLOCK_PART
    return max(leaves, batch.created + min(part, layout.CLOCK_MAX))


def _pauses_until(core: Core, connection: Connection) -> float:
    """Until when partial batches wait after the last request, however idle the connection is."""
    # A broker that answers at once would get a stream of records a few at a time. Without answers
    # the socket is the clock.
    if core.options.acks and connection.last_records < layout.STREAM:
        return NOW
    pause = max(layout.CLOCK_MAX, connection.last_batches * layout.PAUSE_A_BATCH)
    return connection.last_write + min(pause, layout.LONGEST_PAUSE)


def leaves_at(core: Core, outbox: Outbox, partition: Partition, batch: Batch) -> float:
    """When linger lets the batch leave; NOW at once. The partition's lock is held."""
    if (
        not batch.accepts
        or len(partition.queue) > 1
        or core.closing
        or core.pool.pressed
        or batch.created <= core.flush_until
    ):
        return NOW
    if core.options.linger_ms > 0:
        return batch.created + core.options.linger_ms / 1000
    connection = outbox.connection
    if connection is None:
        return NOW
    # Linger 0: the connection is the clock. Nothing waits when it is idle, batches fill when not.
    leaves = _pauses_until(core, connection)
    if core.options.acks and connection.in_flight:
        leaves = max(leaves, _behind_others(core, outbox, connection, batch))
    return leaves


def _candidates(core: Core, outbox: Outbox, now: float) -> list[Batch]:
    """Close and return the batches whose turn it is, one a partition at most, in turn. Sets when
    to look again for those that wait. The core's lock is held."""
    chosen: list[Batch] = []
    limit = core.options.max_request_size
    if core.options.codec:
        limit *= _COMPRESSION_HOPE
    total = 0
    outbox.look_at = NEVER
    for partition in list(outbox.partitions):
        if partition.leader != outbox.node_id:
            del outbox.partitions[partition]
            core.arrive(partition)
            continue
        with partition.lock:
            if not partition.queue:
                del outbox.partitions[partition]
                continue
            batch = partition.next_batch(now, core.options.max_in_flight, core.stamping)
            if batch is None:
                if now < partition.retry_at:
                    outbox.look_at = min(outbox.look_at, partition.retry_at)
                continue
            at = leaves_at(core, outbox, partition, batch)
            if at > now:
                outbox.look_at = min(outbox.look_at, at)
                continue
            if chosen and total + batch.wire_size > limit:
                break
            batch.close(full=False)
        total += batch.wire_size
        chosen.append(batch)
    return chosen


def _seal(core: Core, batch: Batch) -> None:
    """Compress the batch, under no lock: it is closed, and only this thread seals. A failure is
    that batch's alone."""
    try:
        batch.seal(core.options.codec, core.options.compress)
    except BaseException as error:
        with core.lock:
            if not batch.ended:
                core.fail_unsent(batch, error)
        return
    with core.lock:
        if batch.ended:
            core.free(batch)


def _depart(core: Core, outbox: Outbox, candidates: list[Batch], now: float) -> list[Batch]:
    """Stamp those that still may leave and fit into one request; the first always fits. The
    core's lock is held."""
    leaving: list[Batch] = []
    total = 0
    for batch in candidates:
        partition = batch.partition
        if batch.ended:
            continue
        if leaving and total + batch.wire_size > core.options.max_request_size:
            # It stays in front of its turn: the next request begins with it.
            outbox.look_now()
            break
        with partition.lock:
            # Between the two looks it may have been failed, and its leader or the identity may
            # have changed.
            again = partition.next_batch(now, core.options.max_in_flight, core.stamping)
            if again is not batch or partition.leader != outbox.node_id:
                outbox.look_now()
                continue
            partition.depart(batch, core.next_ordinal(), core.stamping)
        batch.last_node = outbox.node_id
        core.topics[partition.topic].batch_left(batch)
        outbox.partitions.pop(partition, None)
        if partition.queue:
            outbox.partitions[partition] = None
        total += batch.wire_size
        leaving.append(batch)
    return leaving


def next_request(core: Core, outbox: Outbox, now: float) -> Request | None:
    """The request to write now; None when no batch may leave."""
    connection = outbox.connection
    assert connection is not None
    with core.lock:
        candidates = _candidates(core, outbox, now)
    if not candidates:
        return None
    for batch in candidates:
        if not batch.sealed:
            _seal(core, batch)
    with core.lock:
        leaving = _depart(core, outbox, candidates, now)
        if not leaving:
            return None
        request = Request(connection.next_correlation_id(), connection.version, leaving)
        topics = (core.topics[batch.partition.topic] for batch in leaving)
        topic_ids = {route.topic: route.topic_id for route in topics}
    connection.in_flight.append(request)
    request.write_out(
        core.options.client_id,
        core.options.acks,
        int(core.options.request_timeout_ms),
        topic_ids,
    )
    request.deadline = time.monotonic() + core.options.request_timeout_ms / 1000
    with core.lock:
        _count(core, outbox, request, now)
    return request


def _count(core: Core, outbox: Outbox, request: Request, now: float) -> None:
    for counters in (core.counters, outbox.counters):
        counters.add("requests", 1)
        counters.add("request_bytes", request.size)
        counters.top("request_size_max", request.size)
    for batch in request.batches:
        topic = core.topics[batch.partition.topic].counters
        raw_size = layout.BATCH_HEADER + batch.raw_size
        core.counters.add("batches_sent", 1)
        core.counters.top("batch_size_max", batch.wire_size)
        for counters in (core.counters, topic):
            counters.add("records_sent", batch.count)
            counters.add("batch_bytes", batch.wire_size)
            counters.add("uncompressed_bytes", raw_size)
            counters.add("compressed_bytes", batch.wire_size)
            if batch.attempts > 1:
                counters.add("records_retried", batch.count)
        topic.add("batches_sent", 1)
        topic.top("largest_batch", batch.wire_size)
        if batch.attempts > 1:
            core.bytes_retried += batch.raw_size
        if batch.attempts == 1:
            queued_ms = (now - batch.created) * 1000
            core.counters.add("queue_time_ms", queued_ms)
            core.counters.top("queue_time_max_ms", queued_ms)
