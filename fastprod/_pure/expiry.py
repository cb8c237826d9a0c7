"""The end of what is older than `delivery_timeout_ms`, wherever it is."""

from __future__ import annotations

from fastprod import failures
from fastprod._pure.batch import Batch, history_of
from fastprod._pure.core import Core


def expire(core: Core, now: float) -> float:
    """End every batch whose time is up, oldest first; when the next one's will be. The core's lock
    is held."""
    timeout_s = core.options.delivery_timeout_ms / 1000
    while (batch := core.oldest()) is not None:
        if now < batch.created + timeout_s:
            return batch.created + timeout_s
        _expire_one(core, batch, now)
    return float("inf")


def _expire_one(core: Core, batch: Batch, now: float) -> None:
    """The futures end now. A batch in a request keeps its bytes and its place until the request
    ends, a parked one its place until the verdict; a queued one goes, and leaves a trace only if
    it was stamped."""
    partition = batch.partition
    on_its_way = batch.in_request or batch.parked
    if not on_its_way:
        core.remove_queued(batch)
    # In a request its bytes go on to the socket, whatever is said here. Parked, only the control
    # plane could tell what its answer means.
    maybe_written = batch.doubted or batch.in_request or (batch.parked and batch.reached)
    error = failures.expired(
        partition.topic,
        partition.index,
        batch.count,
        (now - batch.created) * 1000,
        core.options.delivery_timeout_ms,
        history_of(batch, maybe_written, elapsed=False),
        maybe_written,
    )
    unknown = batch.unknown
    core.end(batch, error)
    if not on_its_way:
        core.account(batch, unknown)
        core.review(partition)
