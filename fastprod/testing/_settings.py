"""The settings of a node: its listeners, its quorum or ZooKeeper, and defaults that fit a short life."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastprod.testing._ports import HOST

# How long a silent node stays the leader of its partitions, ms; after that the others take over. It is also how long
# a killed node has to wait before it may register again. The heartbeats are closer together than by default so that
# a node that was paused is not taken for dead at the moment it goes on.
_SESSION_MS = 3000
_HEARTBEAT_MS = 300


@dataclass(frozen=True)
class Place:
    """Where a node listens on 127.0.0.1.

    `port` is for clients; they are told `advertised_port`. With `internal_port` the brokers talk to each other there,
    and not where clients do. `controllers`: node id -> port of each voter of the quorum, this node's among them; empty:
    the metadata are kept by the ZooKeeper on `zookeeper_port`.
    """

    node_id: int
    port: int
    advertised_port: int
    internal_port: int | None
    controllers: Mapping[int, int]
    zookeeper_port: int = 0


def default_properties(nodes: int, zookeeper: bool) -> dict[str, str]:
    """Return broker settings for a cluster of that size that lives for a test.

    No record is deleted because it is old, for tests give timestamps of their own: a broker would begin half a minute
    after its start. No waiting for more group members, few partitions of the internal topics where 50 would be opened
    at first use, and no 128 MB of heap set aside for compaction. From three nodes on everything is replicated, so that
    one may fail.
    """
    replicas, in_sync = str(min(nodes, 3)), str(2 if nodes > 2 else 1)
    properties = {
        "auto.create.topics.enable": "true",
        "delete.topic.enable": "true",
        "num.partitions": "1",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.dedupe.buffer.size": "8388608",
        "log.retention.ms": "-1",
        # An ISR change that waits for a paused controller would wait 30 s before it asks who is the controller now.
        "controller.socket.timeout.ms": str(_SESSION_MS),
    }
    if zookeeper:
        return {**properties, "zookeeper.session.timeout.ms": str(_SESSION_MS)}
    return {
        **properties,
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "broker.session.timeout.ms": str(_SESSION_MS),
        "broker.heartbeat.interval.ms": str(_HEARTBEAT_MS),
    }


def node_properties(place: Place, data: Path) -> dict[str, str]:
    """Return the settings that say who and where a node is."""
    listeners = {"PLAINTEXT": place.port}
    advertised = {"PLAINTEXT": place.advertised_port}
    properties = {"log.dirs": data.as_posix()}
    if place.internal_port is not None:
        listeners["INTERNAL"] = advertised["INTERNAL"] = place.internal_port
        properties["inter.broker.listener.name"] = "INTERNAL"
    if place.controllers:
        listeners["CONTROLLER"] = place.controllers[place.node_id]
        voters = ",".join(f"{node}@{HOST}:{port}" for node, port in place.controllers.items())
        properties |= {
            "process.roles": "broker,controller",
            "node.id": str(place.node_id),
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": voters,
        }
    else:
        properties |= {"broker.id": str(place.node_id), "zookeeper.connect": f"{HOST}:{place.zookeeper_port}"}
    return {
        **properties,
        "listeners": _listed(listeners),
        "advertised.listeners": _listed(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
    }


def as_setting(value: object) -> str:
    """Write a value as Kafka reads it: Python's True is its true."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a Java properties file."""
    lines = [f"{key}={_escape(value)}\n" for key, value in properties.items()]
    path.write_text("".join(lines), encoding="latin-1")


def _listed(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())


def _escape(value: str) -> str:
    """Write a value as Java's properties files want it: Latin-1, and a backslash starts an escape."""
    text = value.replace("\\", "\\\\").replace("\n", "\\n")
    if text[:1] == " ":
        text = "\\" + text
    return "".join(char if ord(char) < 128 else _unicode_escape(char) for char in text)


def _unicode_escape(char: str) -> str:
    data = char.encode("utf-16-be")
    return "".join(f"\\u{data[at]:02x}{data[at + 1]:02x}" for at in range(0, len(data), 2))
