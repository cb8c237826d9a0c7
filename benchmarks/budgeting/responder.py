"""Acknowledges every Produce request (version 7) of one topic with one partition, in a thread of its own."""

from __future__ import annotations

import socket
import struct
import threading

from budgeting.workloads import TOPIC

_HEAD = struct.Struct(">ihhi")
_PARTITION = struct.Struct(">ihqqq")


class Responder:
    """Listens at `port` as long as its `with` block lasts."""

    def __enter__(self) -> Responder:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while head := stream.read(_HEAD.size):
                size, _, _, correlation_id = _HEAD.unpack(head)
                stream.read(size - _HEAD.size + 4)
                connection.sendall(_answer(correlation_id))


def _answer(correlation_id: int) -> bytes:
    """No error, base offset 0, no log append time, log start offset 0, no throttling."""
    name = struct.pack(">h", len(TOPIC)) + TOPIC.encode()
    topics = struct.pack(">i", 1) + name + struct.pack(">i", 1) + _PARTITION.pack(0, 0, 0, -1, 0)
    body = struct.pack(">i", correlation_id) + topics + struct.pack(">i", 0)
    return struct.pack(">i", len(body)) + body
