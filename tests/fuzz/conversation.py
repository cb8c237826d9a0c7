"""A data plane that has sent three batches over a socket of ours, and what becomes of them after what we answer."""

from __future__ import annotations

import socket
from typing import Any

from fastprod.config import PlaneOptions

from .corpus import IDS

NODE = 1
PARTITIONS = {"fuzz": 2, "more": 1}
_WAIT_S = 20.0
_OPTIONS = PlaneOptions(
    client_id="fuzz", acks=-1, idempotent=False, strict_order=False, batch_size=1000, buffer_memory=64_000,
    max_request_size=20_000, receive_message_max_bytes=100_000, linger_ms=0, max_block_ms=0,
    request_timeout_ms=30_000, delivery_timeout_ms=120_000, retries=0, max_in_flight=5,
    connections_max_idle_ms=540_000, codec=0, compress=None,
)  # fmt: skip

Outcome = dict[tuple[str, int], Any]


class Conversation:
    """One twin's plane, used again and again; a connection for each answer."""

    def __init__(self, twin: Any) -> None:
        self._twin = twin
        self._bell, self._ring = socket.socketpair()
        self._bell.settimeout(_WAIT_S)
        self._ring.setblocking(False)
        self._plane = twin.DataPlane(_OPTIONS, self._ring.fileno())
        for topic, count in PARTITIONS.items():
            self._plane.set_topic(topic, IDS[topic], [NODE] * count)
        self._producer = twin.ProducerBase()
        self._producer._bind(self._plane, None, None, None, twin.PARTITION_DEFAULT, None, None)
        self._plane.start()

    def close(self) -> None:
        """End the plane, in which nothing may be left."""
        self._plane.close_appends()
        self._plane.stop()
        assert not self._plane.incomplete()
        assert not self._plane.counters()["memory_used"]
        for end in (self._bell, self._ring):
            end.close()

    def answer(self, version: int, data: bytes, piece: int = 0, *, correlation: bool = True) -> tuple[bool, Outcome]:
        """Answer a request with that, so many bytes at once (0: all), and hang up when something has come of it.

        `correlation`: put the right correlation id into it. Return whether it was the plane that ended the connection,
        and by partition the offset it has, or what the control plane is asked to judge.
        """
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        ours.settimeout(_WAIT_S)
        futures = {
            (topic, index): self._producer.send(topic, b"value", partition=index)
            for topic, count in PARTITIONS.items()
            for index in range(count)
        }
        self._plane.attach(NODE, theirs.detach(), version)
        request = self._exactly(ours, int.from_bytes(self._exactly(ours, 4), "big"))
        if correlation:
            data = (data[:4] + request[4:8] + data[8:])[: len(data)]
        parked: Outcome = {}
        lost = ""
        try:
            for at in range(0, len(data), piece or len(data)):
                ours.sendall(data[at : at + (piece or len(data))])
            ours.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass   # it has had enough
        while not lost:
            self._bell.recv(100)
            for event in self._plane.take_events():
                if event[0] == self._twin.EVENT_PARKED:
                    parked[event[1].topic, event[1].partition] = judged(event[1])
                    self._plane.fail(event[1], RuntimeError("fuzz"), unknown=False)
                elif event[0] == self._twin.EVENT_CONNECTION_LOST:
                    lost = event[2]
        ours.close()
        while self._plane.run_callbacks():
            pass
        outcome = {where: parked.get(where) or future.get(_WAIT_S).offset for where, future in futures.items()}
        return lost != "the broker closed the connection", outcome

    def _exactly(self, sock: socket.socket, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = sock.recv(size - len(data))
            assert more, "the plane hung up before it was answered"
            data += more
        return bytes(data)


def judged(parked: Any) -> tuple[Any, ...]:
    """What the control plane is told of a batch that was not simply accepted."""
    return parked.error_code, parked.error_message, parked.record_errors, parked.log_start_offset, parked.leader_hint
