"""`KafkaProducer.metrics()`: counters of both planes, looked at through moving windows.

The counters only ever grow. A window remembers where they stood when it began and the maxima seen
since; with `metrics_num_samples` windows of `metrics_sample_window_ms` each, a rate or average is
taken over what the counters grew since the oldest kept window began.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from fastprod.control.loop import Loop
from fastprod.control.metric_table import NODE, PRODUCER, TOPIC, Kind, Row
from fastprod.waiting import Lock

_NOTHING: Final = float("-inf")
# Kafka counts a rate over at least this much, or the first instant would give absurd ones.
_SHORTEST_S: Final = 0.001

Counters = Mapping[str, float]
Groups = dict[str, dict[str, float]]


class MetricName:
    """What a metric is called; `tags` holds the client id. Compares by group, name and tags."""

    __slots__ = ("description", "group", "name", "tags")

    def __init__(self, name: str, group: str, description: str, tags: dict[str, str]) -> None:
        self.name = name
        self.group = group
        self.description = description
        self.tags = tags

    def _key(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        return self.group, self.name, tuple(sorted(self.tags.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MetricName) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"MetricName(name={self.name!r}, group={self.group!r}, tags={self.tags!r})"


class KafkaMetric:
    """A metric that can be asked for its value again and again."""

    __slots__ = ("_read", "metric_name")

    def __init__(self, metric_name: MetricName, read: Callable[[], float]) -> None:
        self.metric_name = metric_name
        self._read = read

    def value(self) -> float:
        """Return its value now."""
        return self._read()


class _Window(NamedTuple):
    began: float
    totals: dict[str, dict[str, float]]
    maxima: dict[str, dict[str, float]]


class Metrics:
    """Any thread. `read()` returns group -> counters of both planes; see `metric_table`."""

    def __init__(
        self,
        read: Callable[[], dict[str, dict[str, float]]],
        client_id: str,
        samples: int,
        window_ms: float,
        now: Callable[[], float] = Loop.now,
    ) -> None:
        self._read = read
        self._tags = {"client-id": client_id}
        self._samples = max(1, samples)
        self._window_s = window_ms / 1000
        self._now = now
        self._lock = Lock()
        self._totals: dict[str, dict[str, float]] = {}
        self._windows = collections.deque([_Window(now(), {}, {})])

    @property
    def window_s(self) -> float:
        """Seconds of a window; `sample` should be called that often."""
        return self._window_s

    def sample(self) -> None:
        """Take the counters in, and begin a new window if it is time."""
        with self._lock:
            self._sample()

    def snapshot(self) -> Groups:
        """Return {group: {name: value}}."""
        with self._lock:
            self._sample()
            groups = {
                group: {row.name: self._value(group, row) for row in rows}
                for group, rows in self._rows()
            }
        count = sum(len(names) for names in groups.values()) + 1
        return {"kafka-metrics-count": {"count": float(count)}, **groups}

    def raw(self) -> dict[MetricName, KafkaMetric]:
        """Return {MetricName: KafkaMetric}."""
        with self._lock:
            self._sample()
            known = list(self._rows())
        result: dict[MetricName, KafkaMetric] = {}
        for group, rows in known:
            for row in rows:
                name = MetricName(row.name, group, row.description, dict(self._tags))
                result[name] = KafkaMetric(name, self._reader(group, row))
        text = "How many metrics there are."
        name = MetricName("count", "kafka-metrics-count", text, dict(self._tags))
        total = float(len(result) + 1)
        result[name] = KafkaMetric(name, lambda: total)
        return result

    def _reader(self, group: str, row: Row) -> Callable[[], float]:
        def read() -> float:
            with self._lock:
                self._sample()
                return self._value(group, row)

        return read

    def _rows(self) -> Iterable[tuple[str, tuple[Row, ...]]]:
        for group in self._totals:
            if group.startswith("producer-node-metrics."):
                yield group, NODE
            elif group.startswith("producer-topic-metrics."):
                yield group, TOPIC
            else:
                yield group, PRODUCER

    def _sample(self) -> None:
        now = self._now()
        self._totals = self._read()
        maxima = self._windows[-1].maxima
        for group, counters in self._totals.items():
            seen = maxima.setdefault(group, {})
            for name, value in counters.items():
                if "_max" in name and value > 0:
                    seen[name] = max(value, seen.get(name, _NOTHING))
        if now - self._windows[-1].began >= self._window_s:
            self._windows.append(_Window(now, self._totals, {}))
        oldest_kept = now - self._samples * self._window_s
        # A window that nobody looked at for long has ended, whatever came after it.
        while len(self._windows) > self._samples or (
            len(self._windows) > 1 and self._windows[0].began < oldest_kept
        ):
            self._windows.popleft()

    def _value(self, group: str, row: Row) -> float:
        totals = self._totals[group]
        if row.kind is Kind.NOW:
            return float(totals.get(row.counters[0], 0.0))
        before = self._windows[0].totals.get(group, {})
        grown = [totals.get(name, 0.0) - before.get(name, 0.0) for name in row.counters]
        if row.kind is Kind.MAX:
            least = 0.0 if any(grown[1:]) else _NOTHING
            seen = [each.maxima.get(group, {}) for each in self._windows]
            return float(max(each.get(row.counters[0], least) for each in seen))
        if row.kind is Kind.AVG:
            return grown[0] / grown[1] if grown[1] else 0.0
        return sum(grown) / self._elapsed_s()

    def _elapsed_s(self) -> float:
        """Return the seconds that rates are taken over: at least all windows but one."""
        elapsed = self._now() - self._windows[0].began
        full = int(elapsed / self._window_s)
        missing = max(0, self._samples - 1 - full)
        return max(_SHORTEST_S, elapsed + missing * self._window_s)
