"""The work whose instructions are counted, in a process of its own: `python workloads.py NAME RECORDS PORT`.

The native data plane alone, without control threads: what they do depends on the time, and would be counted.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from fastprod import config

_core: Any = import_module("fastprod._core")

TOPIC = "counted"
NODE = 1
PRODUCE_VERSION = 7
PARTITIONS = 6
VALUE = bytes(range(100))
KEYS = [b"key-%05d" % number for number in range(1000)]
_BATCH_RECORDS = 8000
_CALL_RECORDS = 500
_PATIENCE_S = 300
_TIMESTAMP_MS = 1_700_000_000_000
# Everything is queued before the first batch leaves, so that batches and requests are the same in every run.
_OPTIONS = {"buffer_memory": 256 << 20, "linger_ms": 60_000, "delivery_timeout_ms": 600_000}


class Plane:
    """A data plane whose batches stay where they are until `deliver`, and a producer on it."""

    def __init__(self, partitions: int) -> None:
        self._events, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._plane = _core.DataPlane(config.load(_OPTIONS).plane_options(), self._wake.fileno())
        self._partitions = partitions
        self._plane.set_topic(TOPIC, None, [-1] * partitions)
        self.producer = _core.ProducerBase()
        self.producer._bind(self._plane, None, None, None, _core.PARTITION_DEFAULT, None, None)

    def deliver(self, port: int) -> None:
        """Let everything go to the broker there; return when all is acknowledged and all callbacks have run."""
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setblocking(False)
        self._plane.set_identity(9, 0)
        self._plane.attach(NODE, connection.detach(), PRODUCE_VERSION)
        self._plane.set_topic(TOPIC, None, [NODE] * self._partitions)
        threading.Thread(target=self._run_callbacks, daemon=True).start()
        self._plane.start()
        if not self._plane.flush(_PATIENCE_S):
            raise SystemExit("not everything was acknowledged")

    def _run_callbacks(self) -> None:
        while self._events.recv(100):
            if events := self._plane.take_events():
                raise SystemExit(f"nothing should have gone wrong: {events}")
            while self._plane.run_callbacks():
                pass


def send(records: int, port: int) -> None:
    """`send()` alone: what it costs the thread that calls it; the futures are dropped."""
    plane = Plane(PARTITIONS)
    _send_all(plane.producer.send, records)


def add_callback(records: int, port: int) -> None:
    """The same with a callback registered for each record, which is not called."""
    plane = Plane(PARTITIONS)
    send = plane.producer.send
    _send_all(lambda *record: send(*record).add_callback(print), records)


def send_many(records: int, port: int) -> None:
    """`send_many()` with lists of so few values and keys that a call has no time to let other threads run: before that
    it copies the lists, which would be counted on a busy machine and not on an idle one."""
    plane = Plane(PARTITIONS)
    send_many = plane.producer.send_many
    values, keys = [VALUE] * _CALL_RECORDS, KEYS[:_CALL_RECORDS]
    for _ in range(records // _CALL_RECORDS):
        send_many(TOPIC, values, keys)


def seal(records: int, port: int) -> None:
    """The CRC and the header of full batches, and their copy out of the builder; the batch is the same each time."""
    builder = _core.RecordBatchBuilder(1 << 20)
    for number in range(_BATCH_RECORDS):
        builder.append(_TIMESTAMP_MS, KEYS[number % len(KEYS)], VALUE, [])
    for _ in range(records // _BATCH_RECORDS):
        builder.build()


def complete(records: int, port: int) -> None:
    """From the full queue to the end: seal, request, answer, and each future asked. Port 0: only what comes before."""
    plane = Plane(1)
    kept: list[Any] = []
    send = plane.producer.send
    _send_all(lambda *record: kept.append(send(*record)), records)
    if port:
        plane.deliver(port)
        assert all(future.succeeded() for future in kept)


def callback(records: int, port: int) -> None:
    """The same, a Python function called for each record instead."""
    plane = Plane(1)
    done: list[Any] = []
    send = plane.producer.send
    _send_all(lambda *record: send(*record).add_callback(done.append), records)
    if port:
        plane.deliver(port)
        assert len(done) == records


def _send_all(take: Callable[..., Any], records: int) -> None:
    for _ in range(records // len(KEYS)):
        for key in KEYS:
            take(TOPIC, VALUE, key)


WORKLOADS = {function.__name__: function for function in (send, add_callback, send_many, seal, complete, callback)}
# Their own part comes after `send`; what came before is counted apart and taken off.
AFTER_SEND = ("complete", "callback")

if __name__ == "__main__":
    gc.disable()
    WORKLOADS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
    # Taking everything down again is nobody's cost a record.
    os._exit(0)
