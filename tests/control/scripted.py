"""A broker that answers as a test tells it: real sockets, real frames, no Kafka."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from fastprod.protocol import (
    ApiVersionsResponse,
    InitProducerIdResponse,
    MetadataBroker,
    MetadataPartition,
    MetadataResponse,
    MetadataTopic,
    encode_message,
)
from fastprod.protocol.api_versions import ApiVersion

PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID = 0, 3, 18, 22
# Metadata 8 and Produce 8 are the newest without compact lengths.
OFFERED = {PRODUCE: 8, METADATA: 8, API_VERSIONS: 2, INIT_PRODUCER_ID: 1}


class Hang(Exception):
    """Raised by an answer function: never answer this request."""


class HangUp(Exception):
    """Raised by an answer function: close the connection."""


class Request(NamedTuple):
    """A request as it came. `body` is everything behind the header."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str
    body: bytes


class Batch(NamedTuple):
    """One batch of a Produce request."""

    topic: str
    partition: int
    producer_id: int
    epoch: int
    sequence: int
    count: int
    size: int


class PartitionAnswer(NamedTuple):
    """What the broker says to a batch."""

    error_code: int = 0
    base_offset: int = 0
    record_errors: tuple[tuple[int, str | None], ...] = ()
    message: str | None = None


class ScriptedBroker:
    """Listens on 127.0.0.1. Change `topics`, `offered`, `judge` or `answers` to script it.

    `topics`: name -> (error code, number of partitions); `judge(batch)` says what a batch is
    answered with; `answers[api_key](request) -> bytes` replaces the whole body.
    """

    def __init__(self) -> None:
        self.offered = dict(OFFERED)
        self.topics: dict[str, tuple[int, int]] = {}
        self.judge: Callable[[Batch], PartitionAnswer] = lambda batch: PartitionAnswer()
        self.answers: dict[int, Callable[[Request], bytes]] = {}
        self.requests: list[Request] = []
        self.batches: list[Batch] = []
        self.identity = InitProducerIdResponse(producer_id=77, producer_epoch=0)
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> ScriptedBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and drop all connections."""
        _stop_listening(self._listener)
        self.drop_connections()

    def drop_connections(self) -> None:
        """Close every connection, with a reset or not."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._sockets.clear()

    def count(self, api_key: int) -> int:
        """Return how many requests of an API have come."""
        return sum(each.api_key == api_key for each in list(self.requests))

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            while True:
                (size,) = struct.unpack(">i", _exactly(sock, 4))
                request = _parse(_exactly(sock, size))
                self.requests.append(request)
                try:
                    body = self._answer(request)
                except Hang:
                    continue
                frame = struct.pack(">i", request.correlation_id) + body
                sock.sendall(struct.pack(">i", len(frame)) + frame)
        except (OSError, HangUp, EOFError):
            sock.close()

    def _answer(self, request: Request) -> bytes:
        scripted = self.answers.get(request.api_key)
        if scripted is not None:
            return scripted(request)
        if request.version > self.offered.get(request.api_key, -1):
            if request.api_key == API_VERSIONS:
                return self._versions(0, error_code=35)
            raise HangUp
        if request.api_key == API_VERSIONS:
            return self._versions(request.version)
        if request.api_key == METADATA:
            return self._metadata(request)
        if request.api_key == INIT_PRODUCER_ID:
            return encode_message(self.identity, request.version)
        return self._produce(request)

    def _versions(self, version: int, error_code: int = 0) -> bytes:
        ranges = tuple(ApiVersion(key, 0, last) for key, last in self.offered.items())
        return encode_message(ApiVersionsResponse(error_code, ranges), version)

    def _metadata(self, request: Request) -> bytes:
        topics = tuple(self._topic(name) for name in _asked_topics(request.body))
        response = MetadataResponse(
            brokers=(MetadataBroker(1, "127.0.0.1", self.port),), cluster_id="c", topics=topics
        )
        return encode_message(response, request.version)

    def _topic(self, name: str) -> MetadataTopic:
        code, count = self.topics.get(name, (3, 0))
        partitions = tuple(MetadataPartition(0, each, 1, 0, (1,), (1,)) for each in range(count))
        internal = name.startswith("__")
        return MetadataTopic(code, name, is_internal=internal, partitions=partitions)

    def _produce(self, request: Request) -> bytes:
        acks, batches = parse_produce(request.body)
        self.batches.extend(batches)
        told = [(batch, self.judge(batch)) for batch in batches]
        if acks == 0:
            raise Hang
        return _produce_response(told)


def _stop_listening(listener: socket.socket) -> None:
    """A thread that waits in accept() would keep a merely closed listener open."""
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _parse(frame: bytes) -> Request:
    api_key, version, correlation_id, length = struct.unpack_from(">hhih", frame)
    end = 10 + max(0, length)
    return Request(api_key, version, correlation_id, frame[10:end].decode(), frame[end:])


def _asked_topics(body: bytes) -> list[str]:
    (count,) = struct.unpack_from(">i", body)
    position, names = 4, []
    for _ in range(count):
        (length,) = struct.unpack_from(">h", body, position)
        names.append(body[position + 2 : position + 2 + length].decode())
        position += 2 + length
    return names


def parse_produce(body: bytes) -> tuple[int, list[Batch]]:
    """Return acks and the batches of a Produce request, versions 3 to 8."""
    _, acks, _, topics = struct.unpack_from(">hhii", body)
    position, batches = 12, []
    for _ in range(topics):
        (length,) = struct.unpack_from(">h", body, position)
        topic = body[position + 2 : position + 2 + length].decode()
        position += 2 + length
        (partitions,) = struct.unpack_from(">i", body, position)
        position += 4
        for _ in range(partitions):
            partition, size = struct.unpack_from(">ii", body, position)
            position += 8
            header = struct.unpack_from(">qhii", body, position + 43)
            batches.append(Batch(topic, partition, *header, size))
            position += size
    return acks, batches


def _produce_response(told: list[tuple[Batch, PartitionAnswer]]) -> bytes:
    out = struct.pack(">i", len(told))
    for batch, answer in told:
        out += _string(batch.topic) + struct.pack(">i", 1)
        out += struct.pack(">ihqqq", batch.partition, answer.error_code, answer.base_offset, -1, 0)
        out += struct.pack(">i", len(answer.record_errors))
        for index, message in answer.record_errors:
            out += struct.pack(">i", index) + _string(message)
        out += _string(answer.message)
    return out + struct.pack(">i", 0)


def _string(text: str | None) -> bytes:
    if text is None:
        return struct.pack(">h", -1)
    return struct.pack(">h", len(text)) + text.encode()


class RawServer:
    """Accepts connections and does `talk(socket)` with each: a server that is no Kafka broker."""

    def __init__(self, talk: Callable[[socket.socket], Any]) -> None:
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        _stop_listening(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._run, args=(sock,), daemon=True).start()

    def _run(self, sock: socket.socket) -> None:
        try:
            self._talk(sock)
        except OSError:
            pass
        finally:
            sock.close()
