"""The figures of `fastprod perf`, as lines and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import fastprod
from fastprod.cli.perf_load import Failures

# In thousandths, whole numbers: 99.9 % of 1,000 must not be a hair above 999.
_PERCENTILES = (500, 950, 990, 999)


class Result(NamedTuple):
    """What was reached between the first `send` and the last acknowledgement. `latencies` is in ms, of a sample;
    `cpu_s` is the whole process's, user and system."""

    acknowledged: int
    bytes: int
    seconds: float
    cpu_s: float
    latencies: Sequence[float]
    failures: Failures

    def to_json(self) -> str:
        """Return one JSON object."""
        records = max(self.acknowledged, 1)
        found: dict[str, Any] = {
            "backend": fastprod.backend,
            "acknowledged": self.acknowledged,
            "failed": self.failures.total,
            "failures": dict(self.failures.counts),
            "bytes": self.bytes,
            "seconds": self.seconds,
            "records_per_s": self.acknowledged / self.seconds,
            "megabytes_per_s": self.bytes / self.seconds / 1e6,
            "cpu_us_per_record": self.cpu_s * 1e6 / records if self.acknowledged else None,
            "latency_ms": _latency(self.latencies),
        }
        return json.dumps(found)

    def __str__(self) -> str:
        parts = [_rate(self.acknowledged, self.bytes, self.seconds)]
        if self.latencies:
            shown = ", ".join(f"{name} {ms:.2f}" for name, ms in _latency(self.latencies).items() if name != "sampled")
            parts.append(f"latency in ms: {shown} ({len(self.latencies):,} records in the sample)")
        if self.acknowledged:
            parts.append(f"CPU {self.cpu_s * 1e6 / self.acknowledged:.2f} us a record")
        if self.failures.total:
            parts.append(f"{self.failures.total:,} failed")
        return "; ".join(parts)


def interim(acknowledged: int, size: int, seconds: float, latencies: Sequence[float]) -> str:
    """Return the line of one interval: what was acknowledged in it, and how long that had taken."""
    text = _rate(acknowledged, size, seconds)
    if latencies:
        text += f"; latency in ms: average {sum(latencies) / len(latencies):.2f}, max {max(latencies):.2f}"
    return text


def _rate(acknowledged: int, size: int, seconds: float) -> str:
    rate = f"{acknowledged / seconds:,.1f} records/s, {size / seconds / 1e6:,.2f} MB/s"
    return f"{acknowledged:,} records acknowledged in {seconds:,.2f} s: {rate}"


def _latency(latencies: Sequence[float]) -> dict[str, float]:
    """The percentiles are those of the nearest rank: each is a latency that was measured."""
    if not latencies:
        return {"sampled": 0}
    ranked = sorted(latencies)
    ranks = {f"p{permille / 10:g}": -(-permille * len(ranked) // 1000) for permille in _PERCENTILES}
    return {
        "average": sum(ranked) / len(ranked),
        **{name: ranked[rank - 1] for name, rank in ranks.items()},
        "max": ranked[-1],
        "sampled": len(ranked),
    }
