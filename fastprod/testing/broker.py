"""`KafkaBroker`: a real Apache Kafka of one's own, from nothing but `pip`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from fastprod.testing._cluster import Cluster, Plan
from fastprod.testing._errors import BrokerError
from fastprod.testing._node import DEFAULT_HEAP, START_TIMEOUT_S, Node
from fastprod.testing._ports import HOST
from fastprod.testing._prepare import tools_installation
from fastprod.testing._release import DEFAULT_VERSION, check_version, uses_zookeeper
from fastprod.testing._settings import as_setting, default_properties
from fastprod.testing._topics import WAIT_S, Topics
from fastprod.testing.proxy import FaultProxy

_LOGGER = logging.getLogger("fastprod.testing")
_MEMORY_DISK = Path("/dev/shm")
_MOST_NODES = 9
# Several nodes share a machine, and each has a part of the work.
_HEAP_OF_SEVERAL = "512m"


class KafkaBroker:
    """A throwaway Apache Kafka on 127.0.0.1, as a context manager.

    It starts on entry and is killed on exit, its data with it; if this process dies in any way, it dies as well. The
    first start on a machine resolves the jars (about 40 s, needs the network); later ones take about 2 s, and 10 s for
    three nodes. A broker object can be entered again after its exit, and is then a new and empty cluster.

    Nodes have the ids 1 to `nodes`. With three or more, topics have three replicas, two of which must be in sync
    (`min.insync.replicas`), and a node that is killed or silent loses its leaderships after some 3 s, a few more if it
    was the active controller; all nodes vote for that one.

    Args:
        nodes: number of brokers, 1 to 9; with KRaft each is also a controller.
        version: an Apache Kafka version, 4.0.0 or later, 3.9.x, or 2.8.x: that one with a ZooKeeper.
        listeners: security protocols; ("PLAINTEXT",).
        port: of node 1, for clients; the next nodes have the next ports. 0 for any free ones.
        proxied: put a `FaultProxy` in front of each node: see `proxy`. Clients are told the addresses of the proxies
            only; what the nodes say to each other does not go through them.
        properties: further broker settings, as in `server.properties`; they win over ours.
        log_dir: an existing directory in which the broker's own is made; default the system's temporary directory.
        in_memory: make it on the memory disk (/dev/shm) where there is one.
        heap: the `-Xmx` of each node's JVM; None: "1g" for one node, "512m" each for several.
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
        proxied: bool = False,
        properties: Mapping[str, object] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        in_memory: bool = False,
        heap: str | None = None,
        start_timeout: float = START_TIMEOUT_S,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        check_version(version)
        if not 1 <= nodes <= _MOST_NODES:
            raise ValueError(f"nodes={nodes!r}: supported are 1 to {_MOST_NODES}")
        if isinstance(listeners, str) or tuple(listeners) != ("PLAINTEXT",):
            raise ValueError(f"listeners={listeners!r}: supported is ('PLAINTEXT',)")
        if not 0 <= port <= 65536 - nodes:
            raise ValueError(f"port={port!r}: supported are 1 to {65536 - nodes}, and 0 for any free one")
        self.version = version
        given = {key: as_setting(value) for key, value in (properties or {}).items()}
        parent = _MEMORY_DISK if in_memory and log_dir is None and _MEMORY_DISK.is_dir() else log_dir
        self._plan = Plan(
            nodes=nodes,
            version=version,
            port=port,
            proxied=proxied,
            properties={**default_properties(nodes, uses_zookeeper(version)), **given},
            heap=heap or (DEFAULT_HEAP if nodes == 1 else _HEAP_OF_SEVERAL),
            start_timeout=start_timeout,
            parent=None if parent is None else Path(parent),
        )
        self._progress = progress or _LOGGER.info
        self._cluster: Cluster | None = None

    def __enter__(self) -> Self:
        """Start Apache Kafka and wait until all nodes take requests.

        Raises:
            MissingExtraError: a package of the `broker` extra is needed and missing.
            BrokerError: no network on the first start, no such version, or it did not start (with the end of its log).
        """
        if self._cluster is not None:
            raise BrokerError("this KafkaBroker is running already")
        self._cluster = Cluster(self._plan, self._progress)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill every node and remove the data. A second call does nothing; nor does one in a forked child."""
        cluster = self._cluster
        if cluster is not None and cluster.close():
            self._cluster = None

    @property
    def nodes(self) -> tuple[int, ...]:
        """The ids of the nodes: 1 to their number."""
        return tuple(range(1, self._plan.nodes + 1))

    @property
    def bootstrap_servers(self) -> str:
        """The addresses to give to clients: "127.0.0.1:port" of each node (of its proxy), comma-separated."""
        return ",".join(f"{HOST}:{node.place.advertised_port}" for node in self._running().nodes.values())

    @property
    def direct_servers(self) -> str:
        """As `bootstrap_servers`, but clients that begin here stay off the proxies: to look behind a fault."""
        nodes = self._running().nodes.values()
        return ",".join(f"{HOST}:{node.place.internal_port or node.place.port}" for node in nodes)

    @property
    def directory(self) -> Path:
        """The directory that holds everything of this broker and is removed at the end."""
        return self._running().directory

    def proxy(self, node: int = 1) -> FaultProxy:
        """Return the proxy in front of a node. ValueError without `proxied=True`."""
        self._node(node)
        if not self._plan.proxied:
            raise ValueError("there are no proxies: KafkaBroker(proxied=True) has them")
        return self._running().proxies[node]

    def pid(self, node: int = 1) -> int:
        """Return the process id of a node. BrokerError if it is not running."""
        return self._node(node).pid

    def is_running(self, node: int = 1) -> bool:
        """Say whether the node's process is there (paused or not)."""
        return self._node(node).running

    def start(self, node: int = 1, *, version: str | None = None) -> None:
        """Start a killed or stopped node on its port and data, and wait until it takes requests.

        Args:
            version: the release to start it with from now on; None: that of its last start.

        Raises:
            ValueError: a version that is not supported, or that cannot read the node's data.
            BrokerError: it is running, or did not start.
        """
        if version is not None:
            self._check_version(version)
        self._running().start(self._node(node), version)

    def upgrade(self, node: int, version: str) -> None:
        """Stop a node in order and start it with another release on the same data.

        A rolling upgrade does this to one node after another, with `wait_until_in_sync` before each: releases 3.9 and
        later work together in one cluster.

        Raises:
            ValueError, BrokerError: as `stop` and `start`.
        """
        self._check_version(version)
        self.stop(node)
        self.start(node, version=version)

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
        replication_factor: int | None = None,
    ) -> None:
        """Create a topic and wait until every partition has a leader that serves it.

        Args:
            config: topic settings, such as {"max.message.bytes": 2000}.
            replication_factor: None is the cluster's default: 1 with one node, 3 with three.

        Raises:
            BrokerError: the broker refused (its reason is in the message), or the topic was not ready within 60 s.
            OSError: the broker does not answer (so for every method that asks it something).
        """
        settings = {key: as_setting(value) for key, value in (config or {}).items()}
        self._topics().create(name, partitions, replication_factor, settings)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until no node knows it any more. BrokerError if it is refused."""
        self._topics().delete(name)

    def wait_for_topic(self, name: str, partitions: int = 1) -> None:
        """Wait until a topic has at least `partitions` partitions and the leader of each serves it.

        Raises:
            BrokerError: not within 60 s.
        """
        self._topics().wait(name, partitions)

    def leader_of(self, topic: str, partition: int = 0) -> int:
        """Return the id of the partition's leader, as the nodes that answer know it: for a moment that may be a node
        that has just gone. BrokerError if there is none."""
        return self._topics().leader(topic, partition)

    def controller(self) -> int:
        """Return the id of the node that is the active controller. BrokerError if there is none for the moment."""
        return 1 if self._plan.nodes == 1 else self._topics().controller()

    def wait_for_leader(
        self, topic: str, partition: int = 0, *, other_than: int | None = None, timeout: float = WAIT_S
    ) -> int:
        """Wait until a partition has a leader that serves it, and return its id.

        Args:
            other_than: a node that does not count, because it was killed or paused, say.
            timeout: s.

        Raises:
            BrokerError: there was none in time.
        """
        return self._topics().wait_for_leader(topic, partition, other_than, timeout)

    def wait_until_in_sync(self, timeout: float = WAIT_S) -> None:
        """Wait until every replica of every partition is in sync, as before the next node of a rolling restart.

        BrokerError after `timeout` s.
        """
        self._topics().wait_in_sync(timeout)

    def end_offset(self, topic: str, partition: int = 0) -> int:
        """Ask the partition's leader for its end offset; right after a pause or a kill it may take a few seconds.

        BrokerError if there is no leader that serves the partition.
        """
        return self._topics().end_offset(topic, partition)

    def log_segments(self, topic: str, partition: int = 0, *, node: int | None = None) -> list[Path]:
        """Return the partition's segment files (.log) on a node, in offset order; empty if it has no such partition.

        `node`: None is the only one there is, or the partition's leader (BrokerError if it has none).
        """
        if node is None:
            node = 1 if self._plan.nodes == 1 else self.leader_of(topic, partition)
        return sorted((self._node(node).data / f"{topic}-{partition}").glob("*.log"))

    def read_log(self, topic: str, partition: int = 0, *, node: int | None = None) -> bytes:
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

    def _running(self) -> Cluster:
        if self._cluster is None:
            raise BrokerError("this KafkaBroker is not running: use it in a `with` statement")
        return self._cluster

    def _check_version(self, version: str) -> None:
        check_version(version)
        self._running().check_version(version)

    def _node(self, node: int) -> Node:
        nodes = self._running().nodes
        if node not in nodes:
            raise ValueError(f"node={node!r}: there are {sorted(nodes)}")
        return nodes[node]

    def _topics(self) -> Topics:
        return Topics(self._running().nodes)
