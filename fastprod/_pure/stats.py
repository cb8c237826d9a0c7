"""What `KafkaProducer.stats()` is made of; the names are those of DESIGN.md, "Counters"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastprod._pure.core import Core
    from fastprod._pure.outbox import Outbox

Totals = dict[str, float]
Stats = tuple[Totals, dict[str, Totals], dict[int, tuple[Totals, tuple[int, ...]]]]


def stats_of(core: Core, outboxes: Mapping[int, Outbox]) -> Stats:
    """(totals by name, totals by topic, broker -> (totals, latency buckets))."""
    with core.lock:
        counted = core.counters.look()
        totals = {
            name: counted[name] for name in ("records_acked", "records_failed", "records_retried")
        }
        totals["bytes_acked"] = core.bytes_acked
        totals["bytes_failed"] = core.bytes_failed
        totals["bytes_retried"] = core.bytes_retried
        with core.registry:
            pending = list(core.pending)
        for place, there in (("queued", False), ("in_flight", True)):
            batches = [batch for batch in pending if batch.in_request is there]
            totals[f"records_{place}"] = sum(batch.count for batch in batches)
            totals[f"bytes_{place}"] = sum(batch.raw_bytes for batch in batches)
        topics = {name: route.counters.look() for name, route in core.topics.items()}
        nodes = {}
        for node_id, outbox in list(outboxes.items()):
            counters = outbox.counters.look()
            connection = outbox.connection
            counters["in_flight"] = len(connection.in_flight) if connection is not None else 0
            nodes[node_id] = counters, tuple(outbox.latency_buckets)
    ends = ("acked", "failed", "queued", "in_flight")
    totals["records_accepted"] = sum(totals[f"records_{end}"] for end in ends)
    totals["memory_used"] = core.pool.charged
    totals["unread_failures"] = core.host.unread.count
    return totals, topics, nodes
