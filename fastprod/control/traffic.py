"""What went over the control plane's connections, under the data plane's counter names."""

from __future__ import annotations

from collections.abc import Mapping

from fastprod.control.seam import Plane

_MAXIMA = ("request_size_max", "latency_max_ms", "throttle_max_ms")
_NODE = "producer-node-metrics."
_TOPIC = "producer-topic-metrics."


class Traffic:
    """The counters of one node's connections; maxima since the last `counters()`."""

    __slots__ = ("_counters", "open_requests")

    def __init__(self) -> None:
        self.open_requests = 0
        self._counters = dict.fromkeys(
            (
                "requests",
                "responses",
                "request_bytes",
                "response_bytes",
                "latency_ms",
                "throttle_ms",
            ),
            0.0,
        )
        self._counters.update(dict.fromkeys(_MAXIMA, 0.0))

    def sent(self, size: int) -> None:
        """A request of `size` bytes."""
        counters = self._counters
        counters["requests"] += 1
        counters["request_bytes"] += size
        counters["request_size_max"] = max(counters["request_size_max"], size)

    def received(self, size: int) -> None:
        """`size` bytes of responses."""
        self._counters["response_bytes"] += size

    def answered(self, latency_ms: float, throttle_ms: float) -> None:
        """A whole response."""
        counters = self._counters
        counters["responses"] += 1
        counters["latency_ms"] += latency_ms
        counters["latency_max_ms"] = max(counters["latency_max_ms"], latency_ms)
        counters["throttle_ms"] += throttle_ms
        counters["throttle_max_ms"] = max(counters["throttle_max_ms"], throttle_ms)

    def counters(self) -> dict[str, float]:
        """Return the counters; the maxima start again."""
        taken = dict(self._counters)
        self._counters.update(dict.fromkeys(_MAXIMA, 0.0))
        return taken


def all_counters(
    plane: Plane,
    traffic: Mapping[int | str, Traffic],
    opened: int,
    closed: int,
    metadata_age_s: float,
) -> dict[str, dict[str, float]]:
    """Return metric group -> counters of both planes, maxima since the last call.

    `opened`, `closed`: the control plane's own connections, those handed over not counted.
    """
    total = dict(plane.counters())
    total["produce_requests"] = total.get("requests", 0.0)
    nodes = {f"{_NODE}node-{node}": dict(each) for node, each in plane.node_counters().items()}
    for node, each in list(traffic.items()):
        ours = each.counters()
        group = f"{_NODE}node-{node}"
        nodes[group] = _sum(nodes.get(group, {}), ours)
        total = _sum(total, ours)
        total["requests_in_flight"] = total.get("requests_in_flight", 0.0) + each.open_requests
    total["connections_opened"] = total.get("connections_opened", 0.0) + opened
    total["connections_closed"] = total.get("connections_closed", 0.0) + closed
    total["connections"] = total.get("connections", 0.0) + opened - closed
    total["metadata_age"] = metadata_age_s
    topics = {f"{_TOPIC}{topic}": dict(each) for topic, each in plane.topic_counters().items()}
    return {"producer-metrics": total, **nodes, **topics}


def _sum(ours: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    result = dict(ours)
    for name, value in more.items():
        known = result.get(name, 0.0)
        result[name] = max(known, value) if "_max" in name else known + value
    return result
