"""The ceiling: what the broker takes from a client that costs next to nothing.

Sent by sendmsg from prebuilt bytes: whole Produce requests, one 900 kB batch each, are encoded before the clock starts
and sent again and again, round robin over the partitions, five in flight on one connection, acks=all and not
idempotent. What is left for Python is one system call for 900 kB of records and one small response to read, a share
too small to see; the kernel's copy is the client's whole work.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from itertools import cycle

from comparing.job import FIRST_RECORDS, Job
from comparing.workload import key_values
from fastprod._backend import RecordBatchBuilder, decode_produce_response, encode_produce_request
from fastprod.codecs import CODECS
from fastprod.compression import compressor

PARTITIONS = 6
_BATCH_BYTES = 900_000
_IN_FLIGHT = 5
# The newest version that names topics: later ones need the topic's id.
_VERSION = 12
_TIMEOUT_MS = 30_000
_CORRELATION_ID = slice(8, 12)


class Ceiling:
    """Prebuilt requests over a plain socket; the `Client` of that name."""

    def __init__(self, job: Job) -> None:
        self._job = job
        host, _, port = job.bootstrap_servers.split(",")[0].rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._acknowledged = 0
        batch, self._batch_records = self._batch()
        self._requests = [
            encode_produce_request(_VERSION, 0, "ceiling", -1, _TIMEOUT_MS, [(job.topic, None, [(partition, batch)])])
            for partition in range(PARTITIONS)
        ]

    def open(self) -> int:
        """Bring one batch to the broker, so that the connection's window has grown as the others' have."""
        self._transmit(1)
        first, self._acknowledged = self._acknowledged, 0
        return first

    def send(self, pairs: Iterator[tuple[bytes, bytes]], count: int) -> int:
        """Send `count` records, rounded up to whole batches; the pairs are in the requests already."""
        batches = -(-count // self._batch_records)
        self._transmit(batches)
        return batches * self._batch_records

    def finish(self) -> int:
        """How many records the broker has acknowledged."""
        return self._acknowledged

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _batch(self) -> tuple[bytes, int]:
        codec, compress = 0, None
        if self._job.compression is not None:
            codec, compress = CODECS[self._job.compression].number, compressor(self._job.compression)
        builder = RecordBatchBuilder(_BATCH_BYTES)
        now = time.time_ns() // 1_000_000
        enough = _BATCH_BYTES // max(self._job.value_size, 1) + FIRST_RECORDS
        for value, key in key_values(enough, self._job.value_size):
            if builder.append(now, key, value, []) is None:
                break
        return builder.build(codec, compress), builder.count

    def _transmit(self, batches: int) -> None:
        requests = cycle(self._requests)
        sent = answered = 0
        while answered < batches:
            if sent < batches and sent - answered < _IN_FLIGHT:
                self._write(next(requests), sent)
                sent += 1
            else:
                self._read_answer(answered)
                answered += 1

    def _write(self, request: bytes, correlation_id: int) -> None:
        whole = memoryview(request)
        parts = [
            whole[: _CORRELATION_ID.start],
            memoryview(struct.pack(">i", correlation_id)),
            whole[_CORRELATION_ID.stop :],
        ]
        left = self._socket.sendmsg(parts)
        for part in parts:
            if left < len(part):
                self._socket.sendall(part[left:])
            left = max(left - len(part), 0)

    def _read_answer(self, correlation_id: int) -> None:
        (size,) = struct.unpack(">i", self._read(4))
        found, _throttle, answers = decode_produce_response(_VERSION, self._read(size))
        if found != correlation_id:
            raise RuntimeError(f"request {correlation_id} was answered by response {found}")
        for answer in answers:
            if answer[3]:
                raise RuntimeError(f"partition {answer[2]} was refused with error {answer[3]}")
            self._acknowledged += self._batch_records

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionResetError("the broker closed the connection")
            data += part
        return data
