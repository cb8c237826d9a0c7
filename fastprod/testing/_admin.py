"""The few requests a test broker needs of itself: is it up, create a topic, delete it, how far does a partition go.

Written out with `struct` although the package has a codec: this code serves the tests that judge that codec, so it must
not depend on it, and the environment for testing must not need a second Kafka client. Field order is that of the Kafka
protocol guide; all versions are the newest without tagged fields (KIP-482) that Apache Kafka 4 still answers (KIP-896).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any

from fastprod.testing._errors import BrokerError

Address = tuple[str, int]

_LIST_OFFSETS, _METADATA, _API_VERSIONS, _CREATE_TOPICS, _DELETE_TOPICS = 2, 3, 18, 19, 20
_LATEST = -1
_CORRELATION_ID = 1
_MAX_RESPONSE_BYTES = 100 << 20
UNKNOWN_TOPIC_OR_PARTITION = 3


@dataclass(frozen=True)
class Cluster:
    """One broker's view: cluster, ids and addresses of live brokers, topic -> (error code, partition -> leader id)."""

    cluster_id: str
    brokers: dict[int, Address]
    topics: dict[str, tuple[int, dict[int, int]]]


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


def serves_as(address: Address, cluster_id: str, node_id: int, timeout: float) -> bool:
    """Say whether that node of that cluster answers at `address` and counts itself among the live brokers.

    The cluster id matters: until our broker fails to bind it, a port that was taken from us answers very well.
    """
    try:
        if _call(address, _API_VERSIONS, 0, b"", timeout).take("h"):
            return False
        seen = metadata(address, [], timeout)
        return seen.cluster_id == cluster_id and node_id in seen.brokers
    except (OSError, struct.error):
        return False


def metadata(address: Address, topics: list[str], timeout: float) -> Cluster:
    """Ask for the live brokers and for `topics`, creating none; OSError if no answer comes within `timeout` s."""
    body = struct.pack(">i", len(topics)) + b"".join(map(_string, topics)) + b"\x00"
    reader = _call(address, _METADATA, 4, body, timeout)
    reader.take("i")  # throttle_time_ms
    brokers = {}
    for _ in reader.count():
        node = reader.take("i")
        brokers[node] = (reader.string(), reader.take("i"))
        reader.string()  # rack
    cluster_id = reader.string()
    reader.take("i")  # controller_id
    found: dict[str, tuple[int, dict[int, int]]] = {}
    for _ in reader.count():
        error, name = reader.take("h"), reader.string()
        reader.take("?")  # is_internal
        leaders: dict[int, int] = {}
        for _ in reader.count():
            partition_error, partition = reader.take("h"), reader.take("i")
            leaders[partition] = reader.take("i")
            error = error or partition_error
            for _ in range(2):  # replica_nodes, isr_nodes
                for _ in reader.count():
                    reader.take("i")
        found[name] = (error, leaders)
    return Cluster(cluster_id, brokers, found)


def create_topic(
    address: Address, name: str, partitions: int, replication: int, config: dict[str, str], timeout: float
) -> None:
    """Create a topic; `replication` -1: the broker's default. BrokerError if it is refused, OSError without answer."""
    body = struct.pack(">i", 1) + _string(name) + struct.pack(">ihii", partitions, replication, 0, len(config))
    body += b"".join(_string(key) + _string(value) for key, value in config.items())
    body += struct.pack(">i?", int(timeout * 1000), False)  # timeout_ms, validate_only
    reader = _call(address, _CREATE_TOPICS, 4, body, timeout)
    reader.take("i")  # throttle_time_ms
    for _ in reader.count():
        reader.string()
        error, message = reader.take("h"), reader.string()
        if error:
            raise BrokerError(f"topic {name!r} was not created: {message or 'no message'} (error code {error})")


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
