"""The few requests a test broker needs of itself: is it up, create a topic, delete it, how far does a partition go.

Written out with `struct` although the package has a codec: this code serves the tests that judge that codec, so it must
not depend on it, and the environment for testing must not need a second Kafka client. Field order is that of the Kafka
protocol guide; all versions are the newest without tagged fields (KIP-482) that Apache Kafka 4 still answers (KIP-896),
but for the one request that never had such a version.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any

from fastprod.testing._errors import BrokerError

Address = tuple[str, int]

_LIST_OFFSETS, _METADATA, _API_VERSIONS, _CREATE_TOPICS, _DELETE_TOPICS, _DESCRIBE_QUORUM = 2, 3, 18, 19, 20, 55
_LATEST = -1
_CORRELATION_ID = 1
_MAX_RESPONSE_BYTES = 100 << 20
UNKNOWN_TOPIC_OR_PARTITION = 3
_TOPIC_ALREADY_EXISTS = 36
_METADATA_LOG = b"__cluster_metadata"


@dataclass(frozen=True)
class Partition:
    """Who keeps a partition: the leader's id (-1: none), how many leaders it has had, the ids of all replicas and of
    those in sync."""

    leader: int
    leader_epoch: int
    replicas: frozenset[int]
    in_sync: frozenset[int]


@dataclass(frozen=True)
class Topic:
    """A topic as one broker sees it; `error` is its error code or that of one of its partitions."""

    error: int
    partitions: dict[int, Partition]


@dataclass(frozen=True)
class View:
    """What one broker knows of the cluster: ids and addresses of live brokers, which of them is the controller (-1:
    none; with KRaft any of them, KIP-590), and the topics asked for."""

    cluster_id: str
    brokers: dict[int, Address]
    controller: int
    topics: dict[str, Topic]


class _Reader:
    """A cursor over a response body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, form: str) -> Any:
        """Read one number of `struct` form `form` (big endian)."""
        (value,) = struct.unpack_from(f">{form}", self._data, self._at)
        self._at += struct.calcsize(f">{form}")
        return value

    def string(self) -> str:
        """Read a string; null reads as the empty one."""
        length = max(self.take("h"), 0)
        self._at += length
        return self._data[self._at - length : self._at].decode()

    def count(self) -> range:
        """Read an array's length, as something to loop over; null reads as empty."""
        return range(max(self.take("i"), 0))


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionResetError("the broker closed the connection")
        parts += part
    return bytes(parts)


def _call(address: Address, api_key: int, version: int, body: bytes, timeout: float) -> _Reader:
    """Send one request over a connection of its own; OSError if no answer comes (`timeout` in s for each step)."""
    request = struct.pack(">hhi", api_key, version, _CORRELATION_ID) + _string("fastprod-testing") + body
    with socket.create_connection(address, timeout) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", _exactly(connection, 4))
        if not 4 <= size <= _MAX_RESPONSE_BYTES:
            raise ConnectionResetError(f"not a Kafka response: {size} bytes announced")
        reader = _Reader(_exactly(connection, size))
    if reader.take("i") != _CORRELATION_ID:
        raise ConnectionResetError("not the response to our request")
    return reader


def serves_as(address: Address, cluster_id: str, node_ids: set[int], timeout: float) -> bool:
    """Say whether a node of that cluster answers at `address` and counts those ids among the live brokers.

    The cluster id matters: until our broker fails to bind it, a port that was taken from us answers very well.
    """
    try:
        if _call(address, _API_VERSIONS, 0, b"", timeout).take("h"):
            return False
        seen = metadata(address, [], timeout)
        return seen.cluster_id == cluster_id and node_ids <= seen.brokers.keys()
    except (OSError, struct.error):
        return False


def metadata(address: Address, topics: list[str] | None, timeout: float) -> View:
    """Ask for the live brokers and for `topics` (None: all), creating none; OSError if no answer within `timeout` s."""
    wanted = struct.pack(">i", -1) if topics is None else struct.pack(">i", len(topics))
    body = wanted + b"".join(map(_string, topics or ())) + b"\x00"
    reader = _call(address, _METADATA, 7, body, timeout)
    reader.take("i")  # throttle_time_ms
    brokers = {}
    for _ in reader.count():
        node = reader.take("i")
        brokers[node] = (reader.string(), reader.take("i"))
        reader.string()  # rack
    cluster_id = reader.string()
    controller_id = int(reader.take("i"))
    found = {}
    for _ in reader.count():
        error, name = reader.take("h"), reader.string()
        reader.take("?")  # is_internal
        partitions = {}
        for _ in reader.count():
            partition_error, number, leader = reader.take("h"), reader.take("i"), reader.take("i")
            error = error or partition_error
            epoch = reader.take("i")
            replicas, in_sync, _offline = (frozenset(reader.take("i") for _ in reader.count()) for _ in range(3))
            partitions[number] = Partition(leader, epoch, replicas, in_sync)
        found[name] = Topic(error, partitions)
    return View(cluster_id, brokers, controller_id, found)


def create_topic(
    address: Address, name: str, partitions: int, replication: int, config: dict[str, str], timeout: float
) -> None:
    """Create a topic; `replication` -1: the broker's default. BrokerError if it is refused, OSError without answer."""
    error, message = _create_topic(address, name, partitions, replication, config, timeout, False)
    if error:
        raise BrokerError(f"topic {name!r} was not created: {message or 'no message'} (error code {error})")


def topic_exists(address: Address, name: str, timeout: float) -> bool:
    """Say whether a topic of that name would be refused because there is one. OSError without answer.

    With a ZooKeeper that is so for a moment after metadata have ceased to name a deleted topic.
    """
    return _create_topic(address, name, 1, -1, {}, timeout, True)[0] == _TOPIC_ALREADY_EXISTS


def _create_topic(
    address: Address,
    name: str,
    partitions: int,
    replication: int,
    config: dict[str, str],
    timeout: float,
    validate_only: bool,
) -> tuple[int, str]:
    """Return the error code and the message."""
    body = struct.pack(">i", 1) + _string(name) + struct.pack(">ihii", partitions, replication, 0, len(config))
    body += b"".join(_string(key) + _string(value) for key, value in config.items())
    body += struct.pack(">i?", int(timeout * 1000), validate_only)  # timeout_ms
    reader = _call(address, _CREATE_TOPICS, 4, body, timeout)
    reader.take("i")  # throttle_time_ms
    reader.count()
    reader.string()
    return reader.take("h"), reader.string()


def delete_topic(address: Address, name: str, timeout: float) -> None:
    """Delete a topic. BrokerError if it is refused, OSError without answer."""
    body = struct.pack(">i", 1) + _string(name) + struct.pack(">i", int(timeout * 1000))
    reader = _call(address, _DELETE_TOPICS, 3, body, timeout)
    reader.take("i")  # throttle_time_ms
    for _ in reader.count():
        reader.string()
        error = reader.take("h")
        if error:
            unknown = " (there is no such topic)" if error == UNKNOWN_TOPIC_OR_PARTITION else ""
            raise BrokerError(f"topic {name!r} was not deleted: error code {error}{unknown}")


def end_offset(address: Address, topic: str, partition: int, timeout: float) -> int | None:
    """Ask the partition's leader at `address` for its end offset; None while it does not serve the partition."""
    body = struct.pack(">ii", -1, 1) + _string(topic) + struct.pack(">iiq", 1, partition, _LATEST)
    reader = _call(address, _LIST_OFFSETS, 1, body, timeout)
    reader.count()
    reader.string()
    reader.count()
    reader.take("i")  # partition_index
    error, _timestamp, offset = reader.take("h"), reader.take("q"), int(reader.take("q"))
    return None if error else offset


def controller(address: Address, timeout: float) -> int:
    """Ask who leads the quorum of controllers (DescribeQuorum v0, KIP-595); -1 while nobody does."""
    topic = b"".join((bytes([1 + len(_METADATA_LOG)]), _METADATA_LOG, b"\x02", bytes(4), b"\x00\x00"))
    # No tags behind the header, one topic with one partition, no tags behind it all.
    reader = _call(address, _DESCRIBE_QUORUM, 0, b"\x00\x02" + topic + b"\x00", timeout)
    reader.take("b")  # tags of the header
    error = reader.take("h")
    if error or reader.take("b") != 2:
        return -1
    reader.take(f"{reader.take('b') - 1}s")  # topic_name
    reader.take("b")
    reader.take("i")  # partition_index
    error, leader = reader.take("h"), int(reader.take("i"))
    return -1 if error else leader
