"""One Apache Kafka node: broker and controller in one JVM (KRaft combined mode), or a broker with a ZooKeeper."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from fastprod.testing import _admin
from fastprod.testing._errors import BrokerError
from fastprod.testing._guard import Guard
from fastprod.testing._installation import Installation
from fastprod.testing._ports import HOST
from fastprod.testing._process import Process, jvm_options
from fastprod.testing._settings import Place, node_properties, write_properties
from fastprod.testing._zookeeper import ZooKeeper

_POLL_S = 0.02
_ANSWER_S = 1.0
DEFAULT_HEAP = "1g"
START_TIMEOUT_S = 120.0


class Node(Process):
    """One node: its directory, ports and process. Not for use by two threads at once.

    Args:
        directory: where its data, settings and log go; created.
        installation: what to start; another one may be set while the node is down.
        guard: told of every process that is started and ended.
        cluster_id: as Kafka wants it, 16 bytes in URL-safe base64; with a ZooKeeper the broker makes its own.
        place: its id and ports.
        properties: broker settings, as in `server.properties`; they win over those of `place`.
        heap: the JVM's `-Xmx`.
        zookeeper: None with KRaft.
    """

    def __init__(
        self,
        directory: Path,
        installation: Installation,
        guard: Guard,
        cluster_id: str,
        place: Place,
        properties: Mapping[str, str],
        heap: str = DEFAULT_HEAP,
        zookeeper: ZooKeeper | None = None,
    ) -> None:
        super().__init__(f"node {place.node_id}", directory, guard)
        self.directory = directory
        self.data = directory / "data"
        self.node_id = place.node_id
        self.place = place
        self.address = (HOST, place.port)
        self.heap = heap
        self.installation = installation
        self._zookeeper = zookeeper
        self.data.mkdir(parents=True)
        if zookeeper is None:
            self._format(cluster_id)
        write_properties(self._settings, {**node_properties(place, self.data), **properties})

    @property
    def answering(self) -> bool:
        """Whether the process is there and not paused."""
        return self.running and not self.paused

    def begin(self, options: Collection[str] = ()) -> None:
        """Start the process with further JVM options; `wait_ready` says when it is there.

        BrokerError if it runs already.
        """
        if self._zookeeper is not None:
            self._zookeeper.wait_forgotten(self.node_id)
        every = [*jvm_options(self.directory), *options]
        self.launch(self.installation.command(self.heap, every, "kafka.Kafka", [str(self._settings)]))

    def start(self, timeout: float = START_TIMEOUT_S, options: Collection[str] = ()) -> None:
        """Start the process and wait until the broker takes requests.

        Raises:
            PortTakenError: another process has one of its ports.
            BrokerError: it runs already, ended, or was not ready within `timeout` s.
        """
        self.begin(options)
        wait_ready([self], timeout)

    def ready(self, beside: Collection[int]) -> bool:
        """Say whether the broker answers and counts itself and those `beside` it among the live ones: an open port
        comes long before that."""
        cluster_id = self._cluster_id()
        return cluster_id is not None and _admin.serves_as(self.address, cluster_id, {self.node_id, *beside}, _ANSWER_S)

    def _format(self, cluster_id: str) -> None:
        """Do what Kafka's storage tool does, without a JVM."""
        meta = f"version=1\ncluster.id={cluster_id}\nnode.id={self.node_id}\n"
        self._meta.write_text(meta, encoding="ascii")
        assert self.installation.checkpoint is not None
        shutil.copyfile(self.installation.checkpoint, self.data / "bootstrap.checkpoint")

    def _cluster_id(self) -> str | None:
        """Read it from the data: with a ZooKeeper the broker writes it there when it has learned it."""
        try:
            lines = self._meta.read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return None
        return next((line.partition("=")[2] for line in lines if line.startswith("cluster.id=")), None)

    @property
    def _meta(self) -> Path:
        return self.data / "meta.properties"

    @property
    def _settings(self) -> Path:
        return self.directory / "server.properties"


def wait_ready(nodes: Collection[Node], timeout: float) -> None:
    """Wait until all of the nodes, begun together, take requests and know each other. If that fails, all are killed.

    They are asked in turn, because none of a quorum is ready before the others are there, and because one that has
    ended tells the reason at once where waiting for another one would not.

    Raises:
        PortTakenError: another process has a port of one.
        BrokerError: one ended, or not all were ready within `timeout` s.
    """
    deadline = time.monotonic() + timeout
    everyone = {node.node_id for node in nodes}
    waiting = list(nodes)
    try:
        while waiting:
            for node in waiting:
                node.check()
            waiting = [node for node in waiting if not node.ready(everyone)]
            if waiting and time.monotonic() > deadline:
                raise BrokerError(
                    f"Apache Kafka ({waiting[0].name}) was not ready within {timeout:.0f} s; from its log:\n"
                    f"{waiting[0].telling_part()}"
                )
            time.sleep(_POLL_S if waiting else 0)
    except BaseException:
        for node in nodes:
            node.kill()
        raise
