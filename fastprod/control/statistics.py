"""From the data plane's counters to `ProducerStats`."""

from __future__ import annotations

from typing import Any, Final

from fastprod.stats import BrokerStats, LatencyHistogram, ProducerStats, Tally, TopicStats

_NOTHING: Final = Tally(0, 0)


def producer_stats(plane: Any, memory_limit: int) -> ProducerStats:
    """Return what the plane counts at this moment. Any thread."""
    totals, topics, nodes = plane.stats()
    ends = {end: _tally(totals, end) for end in ("queued", "in_flight", "acked", "failed")}
    return ProducerStats(
        accepted=Tally(int(totals["records_accepted"]), sum(each.bytes for each in ends.values())),
        queued=ends["queued"],
        in_flight=ends["in_flight"],
        acknowledged=ends["acked"],
        failed=ends["failed"],
        retried=_tally(totals, "retried"),
        unread_failures=int(totals["unread_failures"]),
        memory_used=int(totals["memory_used"]),
        memory_limit=memory_limit,
        brokers={node: _broker(*counted) for node, counted in nodes.items()},
        topics={name: _topic(counted) for name, counted in topics.items()},
    )


def nothing_yet(memory_limit: int) -> ProducerStats:
    """Return the stats of a producer that has sent nothing."""
    none = _NOTHING
    return ProducerStats(none, none, none, none, none, none, 0, 0, memory_limit, {}, {})


def _tally(totals: dict[str, float], name: str) -> Tally:
    return Tally(int(totals[f"records_{name}"]), int(totals[f"bytes_{name}"]))


def _broker(counted: dict[str, float], buckets: tuple[int, ...]) -> BrokerStats:
    return BrokerStats(
        requests=int(counted["requests"]),
        responses=int(counted["responses"]),
        request_bytes=int(counted["request_bytes"]),
        response_bytes=int(counted["response_bytes"]),
        in_flight=int(counted["in_flight"]),
        throttled_ms=counted["throttle_ms"],
        latency=LatencyHistogram(buckets),
    )


def _topic(counted: dict[str, float]) -> TopicStats:
    return TopicStats(
        batches=int(counted["batches_sent"]),
        batch_bytes=int(counted["batch_bytes"]),
        batch_bytes_max=int(counted["largest_batch"]),
        uncompressed_bytes=int(counted["uncompressed_bytes"]),
        records=int(counted["records_sent"]),
        records_retried=int(counted["records_retried"]),
        records_failed=int(counted["records_failed"]),
    )
