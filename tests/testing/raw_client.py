"""Requests sent by hand: messages by kio, batches by a writer of our own, answers as they come."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Self

from crc32c import crc32c
from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer

from fastprod.testing import Api

NOW_MS = 1_700_000_000_000


def varint(value: int) -> bytes:
    raw = (value << 1) ^ (value >> 63)
    out = bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    return bytes([*out, raw])


def record(place: int, value: bytes | None, key: bytes | None = b"k", delta_ms: int = 0) -> bytes:
    fields = b"".join(varint(-1) if each is None else varint(len(each)) + each for each in (key, value))
    body = b"\0" + varint(delta_ms) + varint(place) + fields + varint(0)
    return varint(len(body)) + body


def batch(
    *values: bytes | None,
    stamp: tuple[int, int, int] = (-1, -1, -1),
    key: bytes | None = b"k",
    at_ms: int = NOW_MS,
    body: bytes | None = None,
    attributes: int = 0,
    **header: int,
) -> bytes:
    """A record batch. `stamp`: producer id, epoch, sequence. `header`: fields that are to be wrong."""
    if body is None:
        body = b"".join(record(place, value, key) for place, value in enumerate(values))
    count = header.get("count", len(values))
    covered = struct.pack(
        ">hiqqqhii", attributes, header.get("last_delta", count - 1), at_ms, at_ms, *stamp, count
    ) + body
    crc = header.get("crc", crc32c(covered))
    front = struct.pack(
        ">qiibI", header.get("base", 0), header.get("length", 9 + len(covered)), -1, header.get("magic", 2), crc
    )
    return front + covered


class RawClient:
    """One connection to a broker."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 20)
        self._number = 0
        self._ids: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, api: int, version: int, **fields: Any) -> Any:
        """Send a request and return the response."""
        self.send(api, version, **fields)
        return self.receive(api, version)

    def send(self, api: int, version: int, **fields: Any) -> None:
        self.socket.sendall(self.frame(api, version, **fields))

    def frame(self, api: int, version: int, **fields: Any) -> bytes:
        self._number += 1
        cls: Any = load_request_schema(api, version)
        header = cls.__header_schema__(
            request_api_key=api, request_api_version=version, correlation_id=self._number, client_id="raw"
        )
        payload = _written(header) + _written(cls(**fields))
        return struct.pack(">i", len(payload)) + payload

    def receive(self, api: int, version: int) -> Any:
        payload = self.receive_frame()
        cls: Any = load_response_schema(api, version)
        header, size = entity_reader(cls.__header_schema__)(payload, 0)
        assert header.correlation_id <= self._number
        response, more = entity_reader(cls)(payload, size)
        assert size + more == len(payload)
        return response

    def receive_frame(self) -> bytes:
        """Return the next frame, its length left out; EOFError if the connection ends."""
        (size,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(size)

    def produce(
        self, topic: str, partition: int, data: bytes | None, version: int = 9, acks: int = -1, answered: bool = True
    ) -> Any:
        """Produce one batch; return what its partition is answered."""
        make = self._part(Api.PRODUCE, version)
        part = make("PartitionProduceData")(index=partition, records=data)
        name = {"topic_id": self.topic_id(topic)} if version >= 13 else {"name": topic}
        self.send(
            Api.PRODUCE,
            version,
            transactional_id=None,
            acks=acks,
            timeout=timedelta(seconds=10),
            topic_data=(make("TopicProduceData")(**name, partition_data=(part,)),),
        )
        if not answered:
            return None
        ((answer,),) = [each.partition_responses for each in self.receive(Api.PRODUCE, version).responses]
        return answer

    def metadata(self, *topics: str, version: int = 12) -> Any:
        """Ask for topics; none: for all of them."""
        make = self._part(Api.METADATA, version)("MetadataRequestTopic")
        ids = {"topic_id": None} if version >= 10 else {}
        asked = tuple(make(name=topic, **ids) for topic in topics) if topics else None
        more = {"include_topic_authorized_operations": False} if version >= 8 else {}
        if 8 <= version <= 10:
            more["include_cluster_authorized_operations"] = False
        if version >= 4:
            more["allow_auto_topic_creation"] = False
        return self.ask(Api.METADATA, version, topics=asked, **more)

    def topic_id(self, topic: str) -> Any:
        if topic not in self._ids:
            self._ids[topic] = self.metadata(topic).topics[0].topic_id
        return self._ids[topic]

    def ended(self) -> bool:
        """Wait until something comes or the connection ends; whether it has ended."""
        with contextlib.suppress(ConnectionError):
            return not self.socket.recv(1)
        return True

    def _part(self, api: int, version: int) -> Any:
        module = sys.modules[load_request_schema(api, version).__module__]
        return lambda name: getattr(module, name)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data


@contextlib.contextmanager
def client(address: str) -> Iterator[RawClient]:
    with RawClient(address) as made:
        yield made


def _written(entity: Any) -> bytes:
    with io.BytesIO() as buffer:
        entity_writer(type(entity))(buffer, entity)
        return buffer.getvalue()
