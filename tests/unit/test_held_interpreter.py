"""With linked codecs batches are sealed and leave while some Python thread does not let the interpreter go.

Needs pytest alone, so that it runs wherever a wheel is tested. `FASTPROD_TEST_LINKED` is a comma list of codecs that
must be linked, as they are in a wheel.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import fastprod._core as native
import pytest

from fastprod import codecs, compression
from fastprod._pure import EVENT_NEED_CONNECTION
from fastprod.config import PlaneOptions

pytestmark = pytest.mark.native_only

TOPIC = "topic"
LINGER_MS = 300
HOLD_S = 1.5
OPTIONS: dict[str, Any] = {
    "client_id": "me", "acks": 0, "idempotent": False, "strict_order": False, "batch_size": 1 << 20,
    "buffer_memory": 1 << 24, "max_request_size": 1 << 22, "receive_message_max_bytes": 1 << 20,
    "linger_ms": LINGER_MS, "max_block_ms": 0, "request_timeout_ms": 30_000, "delivery_timeout_ms": 60_000,
    "retries": 0, "max_in_flight": 5, "connections_max_idle_ms": 60_000, "compress": None,
}
# One batch that other threads compress, one that is small enough for the I/O thread.
LARGE = b"0123456789" * 20_000
SMALL = b"0123456789" * 100


def test_the_codecs_of_a_wheel_are_linked() -> None:
    assert set(filter(None, os.environ.get("FASTPROD_TEST_LINKED", "").split(","))) <= set(native.linked_codecs())


class Line:
    """A plane that is connected to a socket, which takes all that comes and answers nothing."""

    def __init__(self, codec: str) -> None:
        self.events = socket.socketpair()
        self.events[1].setblocking(False)
        options = {**OPTIONS, "codec": codecs.CODECS[codec].number, "level": codecs.library_level(codec, None)}
        self.plane = native.DataPlane(PlaneOptions(**options), self.events[1].fileno())
        self.producer = native.ProducerBase()
        self.producer._bind(self.plane, None, None, None, native.PARTITION_DEFAULT, None, None)
        self.plane.set_topic(TOPIC, None, [1, 1])
        self.plane.start()
        self.far, near = socket.socketpair()
        self.far.settimeout(10)
        near.setblocking(False)
        self.send(b"proof", 0)
        self.events[0].settimeout(10)
        self.events[0].recv(1)
        assert [event[0] for event in self.plane.take_events()] == [EVENT_NEED_CONNECTION]
        self.plane.attach(1, near.detach(), 7)
        assert b"proof" in self.request()

    def send(self, value: bytes, partition: int) -> None:
        self.producer.send(TOPIC, value, partition=partition)

    def request(self) -> bytes:
        """The next whole request."""
        data = self.exactly(4)
        return self.exactly(int.from_bytes(data, "big"))

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.far.recv(size - len(data))
            assert piece
            data += piece
        return data

    def sent(self) -> int:
        return int(self.plane.counters()["batches_sent"])

    def close(self) -> None:
        self.plane.stop()
        self.plane.abort(lambda: RuntimeError("the test is over"))
        for each in (*self.events, self.far):
            each.close()


@pytest.fixture
def line() -> Iterator[Callable[[str], Line]]:
    made: list[Line] = []

    def make(codec: str) -> Line:
        made.append(Line(codec))
        return made[-1]

    yield make
    for each in made:
        each.close()


def hold_the_interpreter() -> None:
    """A C function that keeps the interpreter, as a careless extension does."""
    if sys.platform == "win32":
        ctypes.PyDLL("kernel32").Sleep(int(HOLD_S * 1e3))
    else:
        ctypes.PyDLL(None).usleep(int(HOLD_S * 1e6))


def batches(request: bytes) -> list[tuple[int, bytes]]:
    """(codec, body as it was before it was compressed) of the batches in a request, by partition."""
    found = []
    at = request.index(TOPIC.encode()) + len(TOPIC) + 4
    while at < len(request):
        size = int.from_bytes(request[at + 4 : at + 8], "big")
        batch = request[at + 8 : at + 8 + size]
        codec = batch[22] & 7
        found.append((codec, compression.decompress(codec, batch[61:], 2 * len(LARGE))))
        at += 8 + size
    return found


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_batches_are_sealed_while_the_interpreter_is_held(line: Callable[[str], Line], codec: str) -> None:
    if codec not in native.linked_codecs():
        pytest.skip(f"{codec} is not linked")
    made = line(codec)
    counts: list[int] = []

    def fill_and_hold() -> None:
        made.send(LARGE, 0)
        made.send(SMALL, 1)
        counts.append(made.sent())
        hold_the_interpreter()
        counts.append(made.sent())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(HOLD_S * 20)   # nor does that thread let it go between its lines
    try:
        thread = threading.Thread(target=fill_and_hold)
        thread.start()
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert counts == [1, 3]
    found = []
    while len(found) < 2:
        found += batches(made.request())
    found.sort(key=lambda batch: len(batch[1]))
    assert [batch[0] for batch in found] == [codecs.CODECS[codec].number] * 2
    assert SMALL in found[0][1]
    assert LARGE in found[1][1]
