"""The ceiling: what the broker takes from a client that costs next to nothing.

Whole Produce requests, one 900 kB batch each, are encoded before the clock starts and sent again and again by compiled
code (ceiling.c), round robin over the partitions, five in flight on one connection, acks=all and not idempotent. The
kernel's copy is the client's whole work.
"""

from __future__ import annotations

import ctypes
import socket
import time

from comparing.compiled import library
from comparing.job import Job
from comparing.workload import Share
from fastprod._backend import RecordBatchBuilder, encode_produce_request
from fastprod.codecs import CODECS
from fastprod.compression import compressor

# More would only take memory: each has a prebuilt request.
_MOST_PARTITIONS = 6
_BATCH_BYTES = 900_000
_IN_FLIGHT = 5
# The newest version without tagged fields: brokers and the sink know it.
_VERSION = 7
_TIMEOUT_MS = 30_000
# A response of that version before the topic's name (correlation id, number of topics, length of the name) and from
# there to the error code (number of partitions, partition).
_BEFORE_NAME = 4 + 4 + 2
_BEFORE_ERROR = 4 + 4
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
        self._partitions = min(job.case.partitions, _MOST_PARTITIONS)
        batch, self._batch_records = self._batch()
        requests = [
            encode_produce_request(
                _VERSION, 0, "ceiling", -1, _TIMEOUT_MS, [(job.topics[0], None, [(partition, batch)])]
            )
            for partition in range(self._partitions)
        ]
        self._buffers = [ctypes.create_string_buffer(request, len(request)) for request in requests]
        self._requests = (ctypes.c_void_p * self._partitions)(*map(ctypes.addressof, self._buffers))
        self._sizes = (ctypes.c_size_t * self._partitions)(*map(len, requests))

    def open(self) -> int:
        """Bring one batch to the broker, so that the connection's window has grown as the others' have."""
        self._transmit(1)
        first, self._acknowledged = self._acknowledged, 0
        return first

    def prepare(self, share: Share) -> int:
        """How many; the records are in the requests already."""
        return share.size

    def send(self, count: int) -> int:
        """Send `count` records, rounded up to whole batches."""
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
        case = self._job.case
        if case.compression is not None:
            codec, compress = CODECS[case.compression].number, compressor(case.compression, case.level)
        builder = RecordBatchBuilder(_BATCH_BYTES)
        now = time.time_ns() // 1_000_000
        enough = _BATCH_BYTES // case.value_size + 1
        for _topic, value, key in Share(("",), case.value_size, enough).records():
            if builder.append(now, key, value, []) is None:
                break
        return builder.build(codec, compress), builder.count

    def _transmit(self, batches: int) -> None:
        error_at = _BEFORE_NAME + len(self._job.topics[0].encode()) + _BEFORE_ERROR
        answered = self._library.transmit(
            self._socket.fileno(),
            self._requests,
            self._sizes,
            self._partitions,
            ctypes.c_long(batches),
            _IN_FLIGHT,
            ctypes.c_size_t(error_at),
        )
        if answered < 0:
            raise RuntimeError(_FAILURES.get(answered) or f"a partition was refused with error {-3 - answered}")
        self._acknowledged += answered * self._batch_records
