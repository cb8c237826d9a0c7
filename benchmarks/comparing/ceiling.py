"""The ceiling: what the broker takes from a client that costs next to nothing.

Whole Produce requests, one 900 kB batch each, are encoded before the clock starts and sent again and again by compiled
code (ceiling.c), round robin over the partitions, five in flight on one connection, acks=all and not idempotent. The
kernel's copy is the client's whole work.
"""

from __future__ import annotations

import ctypes
import socket
import time
from collections.abc import Iterator

from comparing.compiled import library
from comparing.job import FIRST_RECORDS, Job
from comparing.workload import key_values
from fastprod._backend import RecordBatchBuilder, encode_produce_request
from fastprod.codecs import CODECS
from fastprod.compression import compressor

PARTITIONS = 6
_BATCH_BYTES = 900_000
_IN_FLIGHT = 5
# The newest version that names topics: later ones need the topic's id.
_VERSION = 12
_TIMEOUT_MS = 30_000
# A response of that version before the topic's name (correlation id, header tags, number of topics, length of the
# name) and from there to the error code (number of partitions, partition).
_BEFORE_NAME = 4 + 1 + 1 + 1
_BEFORE_ERROR = 1 + 4
_FAILURES = {-1: "the broker closed the connection", -2: "the broker sent something else than the next response"}


class Ceiling:
    """Prebuilt requests over a plain socket; the `Client` of that name."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._library = library("ceiling")
        self._library.transmit.restype = ctypes.c_long
        host, _, port = job.bootstrap_servers.split(",")[0].rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._acknowledged = 0
        batch, self._batch_records = self._batch()
        requests = [
            encode_produce_request(_VERSION, 0, "ceiling", -1, _TIMEOUT_MS, [(job.topic, None, [(partition, batch)])])
            for partition in range(PARTITIONS)
        ]
        self._buffers = [ctypes.create_string_buffer(request, len(request)) for request in requests]
        self._requests = (ctypes.c_void_p * PARTITIONS)(*map(ctypes.addressof, self._buffers))
        self._sizes = (ctypes.c_size_t * PARTITIONS)(*map(len, requests))

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
        error_at = _BEFORE_NAME + len(self._job.topic.encode()) + _BEFORE_ERROR
        answered = self._library.transmit(
            self._socket.fileno(), self._requests, self._sizes, PARTITIONS, ctypes.c_long(batches), _IN_FLIGHT,
            ctypes.c_size_t(error_at),
        )
        if answered < 0:
            raise RuntimeError(_FAILURES.get(answered) or f"a partition was refused with error {-3 - answered}")
        self._acknowledged += answered * self._batch_records
