"""`KafkaBroker`: a real Apache Kafka of one's own, from nothing but `pip`."""

from __future__ import annotations

import atexit
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from fastprod.testing import _admin
from fastprod.testing._errors import BrokerError
from fastprod.testing._guard import Guard
from fastprod.testing._installation import Installation
from fastprod.testing._node import DEFAULT_HEAP, START_TIMEOUT_S, Node, PortTakenError
from fastprod.testing._ports import HOST, free_port, is_free
from fastprod.testing._prepare import installation, tools_installation

DEFAULT_VERSION = "4.3.1"

_LOGGER = logging.getLogger("fastprod.testing")
_SUPPORTED_VERSION = re.compile(r"[4-9]\.\d+\.\d+")
_MEMORY_DISK = Path("/dev/shm")
_PORT_ATTEMPTS = 3
_ANSWER_S = 10.0
_TOPIC_TIMEOUT_S = 60.0
_POLL_S = 0.01

# Settings that fit one node and short lives: no replica to wait for, no waiting for more group members, one partition
# of the internal topics where 50 would be opened at first use, and no 128 MB of heap set aside for compaction.
_DEFAULTS = {
    "auto.create.topics.enable": "true",
    "delete.topic.enable": "true",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "8388608",
    # A killed node may register again only when its old session has run out, which would be 9 s. The heartbeats are
    # closer together than by default so that a paused node is not taken for dead when it goes on.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "300",
}


class KafkaBroker:
    """A throwaway Apache Kafka on 127.0.0.1, as a context manager.

    It starts on entry and is killed on exit, its data with it; if this process dies in any way, it dies as well. The
    first start on a machine resolves the jars (about 40 s, needs the network); later ones take about 2 s. A broker
    object can be entered again after its exit, and is then a new and empty cluster.

    Args:
        nodes: number of brokers; 1.
        version: an Apache Kafka version, 4.0.0 or later.
        listeners: security protocols; ("PLAINTEXT",).
        port: of the broker, 0 for any free one.
        properties: further broker settings, as in `server.properties`; they win over ours.
        log_dir: an existing directory in which the broker's own is made; default the system's temporary directory.
        in_memory: make it on the memory disk (/dev/shm) where there is one.
        heap: the JVM's `-Xmx`.
        start_timeout: how long to wait for it to be ready, s.
        progress: called with a line of text before each long step; default is the log `fastprod.testing` (INFO).

    Raises:
        ValueError: an argument is not supported; the message says what is.
    """

    def __init__(
        self,
        nodes: int = 1,
        version: str = DEFAULT_VERSION,
        listeners: Sequence[str] = ("PLAINTEXT",),
        *,
        port: int = 0,
        properties: Mapping[str, object] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        in_memory: bool = False,
        heap: str = DEFAULT_HEAP,
        start_timeout: float = START_TIMEOUT_S,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        if nodes != 1:
            raise ValueError(f"nodes={nodes!r}: supported is 1")
        if not _SUPPORTED_VERSION.fullmatch(version):
            raise ValueError(f"version={version!r}: supported are releases from 4.0.0 on, such as {DEFAULT_VERSION!r}")
        if isinstance(listeners, str) or tuple(listeners) != ("PLAINTEXT",):
            raise ValueError(f"listeners={listeners!r}: supported is ('PLAINTEXT',)")
        if not 0 <= port <= 65535:
            raise ValueError(f"port={port!r}: supported are 1 to 65535, and 0 for any free one")
        self.version = version
        self._port = port
        self._properties = {**_DEFAULTS, **{key: _setting(value) for key, value in (properties or {}).items()}}
        self._parent = _MEMORY_DISK if in_memory and log_dir is None and _MEMORY_DISK.is_dir() else log_dir
        self._heap = heap
        self._start_timeout = start_timeout
        self._progress = progress or _LOGGER.info
        self._closing = threading.Lock()
        self._owner = 0
        self._directory: Path | None = None
        self._guard: Guard | None = None
        self._nodes: dict[int, Node] = {}

    def __enter__(self) -> Self:
        """Start Apache Kafka and wait until it takes requests.

        Raises:
            MissingExtraError: a package of the `broker` extra is needed and missing.
            BrokerError: no network on the first start, no such version, or it did not start (with the end of its log).
        """
        if self._directory is not None:
            raise BrokerError("this KafkaBroker is running already")
        made = installation(self.version, self._progress)
        self._owner = os.getpid()
        self._directory = Path(tempfile.mkdtemp(prefix="fastprod-kafka-", dir=self._parent))
        atexit.register(self.close)
        try:
            self._guard = Guard(self._directory)
            self._start_on_free_ports(made, self._directory, self._guard)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill every node and remove the data. A second call does nothing; nor does one in a forked child."""
        with self._closing:
            if self._directory is None or os.getpid() != self._owner:
                return
            for node in self._nodes.values():
                node.kill()
            shutil.rmtree(self._directory, ignore_errors=True)
            if self._guard is not None:
                self._guard.close()
            self._directory, self._guard = None, None
            self._nodes.clear()
        atexit.unregister(self.close)

    @property
    def bootstrap_servers(self) -> str:
        """The address to give to clients: "127.0.0.1:port", comma-separated if there are several."""
        self._node(1)
        return ",".join(f"{host}:{port}" for host, port in (node.address for node in self._nodes.values()))

    @property
    def directory(self) -> Path:
        """The directory that holds everything of this broker and is removed at the end."""
        self._node(1)
        assert self._directory is not None
        return self._directory

    def pid(self, node: int = 1) -> int:
        """Return the process id of a node. BrokerError if it is not running."""
        return self._node(node).pid

    def is_running(self, node: int = 1) -> bool:
        """Say whether the node's process is there (paused or not)."""
        return self._node(node).running

    def start(self, node: int = 1) -> None:
        """Start a killed or stopped node on its port and data, and wait until it takes requests.

        Raises:
            BrokerError: it is running, or did not start.
        """
        self._node(node).start()

    def stop(self, node: int = 1) -> None:
        """Stop a node in order (controlled shutdown); nothing happens if it is not running."""
        self._node(node).stop()

    def kill(self, node: int = 1) -> None:
        """Kill a node at once (SIGKILL); nothing happens if it is not running."""
        self._node(node).kill()

    def pause(self, node: int = 1) -> None:
        """Freeze a node (SIGSTOP): connections stay open, nothing answers. BrokerError if it is not running."""
        self._node(node).pause()

    def resume(self, node: int = 1) -> None:
        """Let a paused node go on (SIGCONT). BrokerError if it is not running."""
        self._node(node).resume()

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        config: Mapping[str, object] | None = None,
        *,
        replication_factor: int = -1,
    ) -> None:
        """Create a topic and wait until every partition has a leader that serves it.

        Args:
            config: topic settings, such as {"max.message.bytes": 2000}.
            replication_factor: -1 is the broker's default (1).

        Raises:
            BrokerError: the broker refused (its reason is in the message), or the topic was not ready within 60 s.
            OSError: the broker does not answer (so for every method that asks it something).
        """
        settings = {key: _setting(value) for key, value in (config or {}).items()}
        _admin.create_topic(self._any_address(), name, partitions, replication_factor, settings, _ANSWER_S)
        self.wait_for_topic(name, partitions)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until the broker no longer knows it. BrokerError if it is refused."""
        _admin.delete_topic(self._any_address(), name, _ANSWER_S)
        self._wait(lambda: self._topic(name)[0] == _admin.UNKNOWN_TOPIC_OR_PARTITION, f"topic {name!r} to be gone")

    def wait_for_topic(self, name: str, partitions: int = 1) -> None:
        """Wait until a topic has at least `partitions` partitions and the leader of each serves it.

        Raises:
            BrokerError: not within 60 s.
        """
        self._wait(lambda: self._serves(name, partitions), f"topic {name!r} to serve {partitions} partitions")

    def end_offset(self, topic: str, partition: int = 0) -> int:
        """Ask the partition's leader for its end offset. BrokerError if there is no leader that serves it."""
        leader = self._topic(topic)[1].get(partition, -1)
        address = self._node(leader).address if leader in self._nodes else None
        offset = _admin.end_offset(address, topic, partition, _ANSWER_S) if address is not None else None
        if offset is None:
            raise BrokerError(f"partition {partition} of topic {topic!r} has no leader that serves it")
        return offset

    def log_segments(self, topic: str, partition: int = 0, *, node: int = 1) -> list[Path]:
        """Return the partition's segment files (.log) on a node, in offset order; empty if it has no such partition."""
        return sorted((self._node(node).data / f"{topic}-{partition}").glob("*.log"))

    def read_log(self, topic: str, partition: int = 0, *, node: int = 1) -> bytes:
        """Return the bytes of the partition's segments, end to end: the record batches as the broker keeps them."""
        return b"".join(path.read_bytes() for path in self.log_segments(topic, partition, node=node))

    def broker_log(self, node: int = 1) -> str:
        """Return the end of the node's own log."""
        return self._node(node).log_tail()

    def tool_command(self, main: str, *arguments: str, heap: str = DEFAULT_HEAP) -> list[str]:
        """Return the command line that runs one of Kafka's own tools, such as the class
        "org.apache.kafka.tools.ProducerPerformance", with this broker's version and Java.

        The broker need not run. The first call on a machine downloads the tools.

        Raises:
            BrokerError, MissingExtraError: as on entry.
        """
        return tools_installation(self.version, self._progress).command(heap, [], main, list(arguments))

    def _node(self, node: int) -> Node:
        if self._directory is None:
            raise BrokerError("this KafkaBroker is not running: use it in a `with` statement")
        if node not in self._nodes:
            raise ValueError(f"node={node!r}: there are {sorted(self._nodes)}")
        return self._nodes[node]

    def _start_on_free_ports(self, made: Installation, directory: Path, guard: Guard) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            port, controller_port = self._ports()
            node = Node(
                directory / f"node-1-attempt-{attempt}",
                made,
                guard,
                secrets.token_urlsafe(16),
                node_id=1,
                port=port,
                controller_port=controller_port,
                properties=self._properties,
                heap=self._heap,
                start_timeout=self._start_timeout,
            )
            self._nodes[1] = node
            try:
                node.start()
                break
            except PortTakenError:
                # Another process took a port between our look and the JVM's.
                if attempt == _PORT_ATTEMPTS:
                    raise

    def _ports(self) -> tuple[int, int]:
        if self._port and not is_free(self._port):
            raise BrokerError(f"port {self._port} on {HOST} is taken by another process; port=0 finds a free one")
        port = self._port or free_port()
        return port, free_port({port})

    def _any_address(self) -> _admin.Address:
        self._node(1)
        for node in self._nodes.values():
            if node.running:
                return node.address
        raise BrokerError("no node is running")

    def _topic(self, name: str) -> tuple[int, dict[int, int]]:
        return _admin.metadata(self._any_address(), [name], _ANSWER_S).topics[name]

    def _serves(self, name: str, partitions: int) -> bool:
        """Say whether every leader answers for its partition: it is named in metadata a moment before it does."""
        error, leaders = self._topic(name)
        if error or len(leaders) < partitions or not set(leaders.values()) <= set(self._nodes):
            return False
        return all(
            _admin.end_offset(self._nodes[leader].address, name, partition, _ANSWER_S) is not None
            for partition, leader in leaders.items()
        )

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _TOPIC_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise BrokerError(f"waited {_TOPIC_TIMEOUT_S:.0f} s in vain for {what}")
            time.sleep(_POLL_S)


def _setting(value: object) -> str:
    """Write a setting as Kafka reads it: Python's True is its true."""
    return str(value).lower() if isinstance(value, bool) else str(value)
