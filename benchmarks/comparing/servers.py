"""Where records go: to an Apache Kafka, or to the sink. Either gives a measurement topics of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from comparing.sink import Sink
from fastprod.testing import KafkaBroker

_GONE_S = 30
_POLL_S = 0.05

# A deleted topic's data goes at once, not after a minute: the log is in memory, and deleting must not fall into the
# next measurement. A value of 1 MB has to fit.
BROKER_PROPERTIES = {
    "log.segment.delete.delay.ms": 100,
    "log.initial.task.delay.ms": 100,
    "message.max.bytes": 4 << 20,
}


class Place(Protocol):
    """Empty topics on a server, for one measurement."""

    address: str

    def records(self) -> int:
        """How many it holds, by the server's own count."""

    def stored_bytes(self) -> int:
        """Bytes of their batches."""

    def pause(self) -> None:
        """Let the server stand still."""

    def resume(self) -> None:
        """Let it go on."""


class Server(Protocol):
    """What `Bench` measures on."""

    name: str

    def place(self, topics: tuple[str, ...], partitions: int) -> contextlib.AbstractContextManager[Place]:
        """Empty topics of that many partitions each; gone afterwards."""


class SinkServer:
    """A sink of its own for each measurement."""

    name = "a sink that acknowledges everything"

    @contextlib.contextmanager
    def place(self, topics: tuple[str, ...], partitions: int) -> Iterator[Place]:
        """Whatever the topics are called."""
        with Sink(partitions) as sink:
            yield _SinkPlace(sink)


class BrokerServer:
    """A real broker that somebody else has started."""

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        self.name = f"Apache Kafka {broker.version}, one node, log in memory"

    @contextlib.contextmanager
    def place(self, topics: tuple[str, ...], partitions: int) -> Iterator[BrokerPlace]:
        """New topics, and in the end their deletion, waited for: the next measurement must not share a core with it."""
        for topic in topics:
            self._broker.create_topic(topic, partitions)
        yield BrokerPlace(self._broker, topics, partitions)
        for topic in topics:
            self._broker.delete_topic(topic)
        deadline = time.monotonic() + _GONE_S
        while any(any(self._broker.directory.glob(f"**/{topic}-*")) for topic in topics):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)


class _SinkPlace:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.address = sink.address
        self.pause, self.resume = sink.pause, sink.resume

    def records(self) -> int:
        return self._sink.counted().records

    def stored_bytes(self) -> int:
        return self._sink.counted().batch_bytes


class BrokerPlace:
    """Topics on a real broker."""

    def __init__(self, broker: KafkaBroker, topics: tuple[str, ...], partitions: int) -> None:
        self._broker = broker
        self._parts = [(topic, partition) for topic in topics for partition in range(partitions)]
        self.address = broker.bootstrap_servers
        self.pause, self.resume = broker.pause, broker.resume

    def records(self) -> int:
        """The sum of the end offsets."""
        return sum(self._broker.end_offset(topic, partition) for topic, partition in self._parts)

    def stored_bytes(self) -> int:
        """Bytes of their log segments."""
        return sum(path.stat().st_size for part in self._parts for path in self._broker.log_segments(*part))

    def last_write(self) -> float:
        """When their logs were written to last: a clock that no thread of the client can delay."""
        return max(float(path.stat().st_mtime) for part in self._parts for path in self._broker.log_segments(*part))
