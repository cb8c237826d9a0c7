"""Everything that runs for one `KafkaBroker` between entry and exit: nodes, ZooKeeper, proxies, guardian, directory."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastprod.testing._errors import BrokerError
from fastprod.testing._guard import Guard
from fastprod.testing._installation import Installation
from fastprod.testing._node import Node, wait_ready
from fastprod.testing._ports import HOST, free_port, is_free
from fastprod.testing._prepare import installation
from fastprod.testing._process import PortTakenError
from fastprod.testing._release import uses_zookeeper
from fastprod.testing._settings import Place
from fastprod.testing._topics import Topics
from fastprod.testing._zookeeper import ZooKeeper
from fastprod.testing.proxy import FaultProxy

_PORT_ATTEMPTS = 3


@dataclass(frozen=True)
class Plan:
    """What is to be started; what each means is told at `KafkaBroker`. `parent`: of the directory, None: anywhere."""

    nodes: int
    version: str
    port: int
    proxied: bool
    properties: Mapping[str, str]
    heap: str
    start_timeout: float
    parent: Path | None


class Cluster:
    """A running cluster; construction starts it and waits until all nodes take requests.

    Raises:
        MissingExtraError, BrokerError: as `KafkaBroker` does on entry.
    """

    def __init__(self, plan: Plan, progress: Callable[[str], None]) -> None:
        self._plan = plan
        self._progress = progress
        self._closing = threading.Lock()
        self._closed = False
        self._owner = os.getpid()
        self._zookeeper: ZooKeeper | None = None
        self.nodes: dict[int, Node] = {}
        self.proxies: dict[int, FaultProxy] = {}
        made = installation(plan.version, progress)
        self.directory = Path(tempfile.mkdtemp(prefix="fastprod-kafka-", dir=plan.parent))
        atexit.register(self.close)
        self._guard: Guard | None = None
        try:
            self._guard = Guard(self.directory)
            self._start(made, self._guard)
        except BaseException:
            self.close()
            raise

    def close(self) -> bool:
        """Kill every node and remove the data; False, and nothing done, in a forked child."""
        if os.getpid() != self._owner:
            return False
        with self._closing:
            if self._closed:
                return True
            self._closed = True
            for process in (*self.nodes.values(), self._zookeeper):
                if process is not None:
                    process.kill()
            for proxy in self.proxies.values():
                proxy.close()
            shutil.rmtree(self.directory, ignore_errors=True)
            if self._guard is not None:
                self._guard.close()
        atexit.unregister(self.close)
        return True

    def check_version(self, version: str) -> None:
        """Raise ValueError for a release that cannot read the nodes' data: with a ZooKeeper it is another format."""
        if uses_zookeeper(version) or uses_zookeeper(self._plan.version):
            raise ValueError(f"version={version!r}: supported from {self._plan.version!r} are releases with KRaft")

    def start(self, node: Node, version: str | None) -> None:
        """Start a node that is down, with the jars of `version` if that is given, and from then on if it starts.

        Raises:
            BrokerError: it is running, or did not start.
        """
        if node.running:
            raise BrokerError(f"{node.name} is running already")
        before = node.installation
        if version is not None:
            node.installation = installation(version, self._progress)
        try:
            node.start(self._plan.start_timeout)
        except BaseException:
            node.installation = before
            raise
        if len(self.nodes) == 1:
            Topics(self.nodes).wait_for_data(node.data)

    def _start(self, made: Installation, guard: Guard) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                self._start_once(made, guard, f"attempt-{attempt}")
                return
            except PortTakenError:
                # Another process took a port between our look and the JVM's.
                if attempt == _PORT_ATTEMPTS:
                    raise
                if self._zookeeper is not None:
                    self._zookeeper.kill()

    def _start_once(self, made: Installation, guard: Guard, attempt: str) -> None:
        plan = self._plan
        ports = _Ports(plan.port, plan.nodes)
        if uses_zookeeper(plan.version):
            self._zookeeper = ZooKeeper(self.directory / f"zookeeper-{attempt}", made, guard, ports.any())
            self._zookeeper.start(plan.start_timeout)
        cluster_id = secrets.token_urlsafe(16)
        for place in self._places(ports):
            directory = self.directory / f"node-{place.node_id}-{attempt}"
            self.nodes[place.node_id] = Node(
                directory, made, guard, cluster_id, place, plan.properties, plan.heap, self._zookeeper
            )
        for node in self.nodes.values():
            node.begin()
        wait_ready(self.nodes.values(), plan.start_timeout)

    def _places(self, ports: _Ports) -> list[Place]:
        ids = range(1, self._plan.nodes + 1)
        zookeeper_port = 0 if self._zookeeper is None else self._zookeeper.port
        controllers = {} if self._zookeeper is not None else {node: ports.any() for node in ids}
        places = []
        for node in ids:
            if not self._plan.proxied:
                port = ports.of(node)
                places.append(Place(node, port, port, None, controllers, zookeeper_port))
                continue
            port = ports.any()
            if node not in self.proxies:
                self.proxies[node] = FaultProxy((HOST, port), port=ports.of(node))
            self.proxies[node].target = (HOST, port)
            places.append(Place(node, port, self.proxies[node].port, ports.any(), controllers, zookeeper_port))
        return places


class _Ports:
    """Hands out ports, none of them twice. `first`: of node 1 for clients, 0 for any; the others' follow it."""

    def __init__(self, first: int, nodes: int) -> None:
        self._first = first
        self._taken = set(range(first, first + nodes)) if first else set()

    def any(self) -> int:
        port = free_port(self._taken)
        self._taken.add(port)
        return port

    def of(self, node: int) -> int:
        """Return the port of a node for clients. BrokerError if it was asked for and is taken."""
        if not self._first:
            return self.any()
        port = self._first + node - 1
        if not is_free(port):
            raise BrokerError(f"port {port} on {HOST} is taken by another process; port=0 finds a free one")
        return port
