"""The C limit: what a producer's work costs when it is nothing but the work (climit.c).

One thread copies the same records into batches of a megabyte with varints between them, takes the CRC-32C and writes,
five batches in flight. Beside it the memory's own limit: the same bytes by one memcpy, CRC-32C and write.
"""

from __future__ import annotations

import ctypes
import socket
import time
from statistics import median

from comparing.compiled import library
from comparing.job import Case, Job
from comparing.workload import Share, distinct_keys, distinct_values, key_size, page

_IN_FLIGHT = 5
_SLACK = 64
_MOST_PARTITIONS = 6
_FIRST_RECORDS = 10_000
_LOOP_BYTES = 400_000_000
_LOOPS = 9
_BATCH_BYTES = 1_000_000
_SMALL_BATCHES = (6, 60)  # records: about what a stream leaves in each of many partitions, and ten times as many
_FAILURES = {-1: "the connection was closed", -2: "something else came than the next answer", -3: "a batch was refused"}


class _Wire(ctypes.Structure):
    _fields_ = [
        ("fd", ctypes.c_int),
        ("topic", ctypes.c_char_p),
        ("partitions", ctypes.c_int),
        ("in_flight", ctypes.c_int),
    ]


class _Records(ctypes.Structure):
    _fields_ = [
        ("values", ctypes.c_char_p),
        ("keys", ctypes.c_char_p),
        ("value_size", ctypes.c_size_t),
        ("key_size", ctypes.c_size_t),
        ("value_count", ctypes.c_long),
        ("key_count", ctypes.c_long),
        ("page", ctypes.c_long),
    ]


class CLimit:
    """The loop, to a server; the `Client` of that name."""

    copied = False

    def __init__(self, job: Job) -> None:
        host, _, port = job.bootstrap_servers.split(",")[0].rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Few partitions: each batch is of one, and which it is costs nothing.
        partitions = min(job.case.partitions, _MOST_PARTITIONS)
        self._wire = _Wire(self._socket.fileno(), job.topics[0].encode(), partitions, _IN_FLIGHT)
        self._records = _records(job.case.value_size)
        self._acknowledged = 0

    def open(self) -> int:
        """Deliver something, so that the connection's window has grown as the others' have."""
        first = min(_FIRST_RECORDS, len(page(self._records.value_size)[0]))
        return _deliver(self._wire, self._records, first, self.copied)

    def prepare(self, share: Share) -> int:
        """How many; the records are there."""
        return share.size

    def send(self, count: int) -> int:
        """Send them all, the copied ones rounded up to whole batches, and read the answers."""
        self._acknowledged = _deliver(self._wire, self._records, count, self.copied)
        return self._acknowledged

    def finish(self) -> int:
        """How many were acknowledged."""
        return self._acknowledged

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class MemoryLimit(CLimit):
    """memcpy, CRC-32C and write of the same bytes."""

    copied = True


def scatter(case: Case, partitions: int, records_a_batch: int, count: int) -> int:
    """Share `count` records out over partitions by their keys and seal the batches; how many there were."""
    function = library("climit").scatter
    function.restype = ctypes.c_long
    records = _records(case.value_size)
    batches = int(
        function(ctypes.byref(records), partitions, records_a_batch, ctypes.c_long(count), ctypes.c_int64(_now_ms()))
    )
    if batches < 0:
        raise MemoryError(f"{partitions} batches of {records_a_batch} records of {case.value_size} bytes")
    return batches


def scattering(case: Case) -> str:
    """What it costs a C loop that the records go to many partitions, in words; medians of pairwise ratios."""
    size = case.value_size + key_size()
    count = max(_LOOP_BYTES // size, 1)
    large = max(_BATCH_BYTES // size, 1)
    found: dict[int, list[float]] = {each: [] for each in _SMALL_BATCHES}
    for _ in range(_LOOPS):
        alone = _scatter_s(case, 1, large, count)
        for each, ratios in found.items():
            ratios.append(_scatter_s(case, case.partitions, each, count) / alone)
    told = ", ".join(f"{median(ratios):.1f} with {each} records a batch" for each, ratios in found.items())
    return f"a C loop that shares records out over {case.partitions:,} partitions takes, times one partition: {told}"


def loops(case: Case) -> str:
    """The loop and memcpy + CRC-32C without a socket, in words; the median of ratios formed pairwise."""
    wire = _Wire(-1, b"topic", 1, _IN_FLIGHT)
    records = _records(case.value_size)
    count = max(_LOOP_BYTES // (case.value_size + key_size()), 1)
    encoded: list[float] = []
    copied: list[float] = []
    for _ in range(_LOOPS):
        for copying, found in ((False, encoded), (True, copied)):
            began = time.process_time()
            delivered = _deliver(wire, records, count, copying)
            found.append((time.process_time() - began) / delivered)
    ratio = median(copy / encode for encode, copy in zip(encoded, copied, strict=True))
    return (
        f"C loop without a socket: {1e9 * median(encoded):.1f} ns a record; memcpy + CRC-32C of the same bytes: "
        f"{1e9 * median(copied):.1f} ns; the loop reaches {ratio:.0%} of it"
    )


def _scatter_s(case: Case, partitions: int, records_a_batch: int, count: int) -> float:
    began = time.process_time()
    scatter(case, partitions, records_a_batch, count)
    return time.process_time() - began


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _records(value_size: int) -> _Records:
    values, keys, slack = distinct_values(value_size), distinct_keys(), bytes(_SLACK)
    columns = b"".join([*values, slack]), b"".join([*keys, slack])
    return _Records(*columns, value_size, key_size(), len(values), len(keys), len(page(value_size)[0]))


def _deliver(wire: _Wire, records: _Records, count: int, copied: bool) -> int:
    deliver = library("climit").deliver
    deliver.restype = ctypes.c_long
    delivered = int(
        deliver(ctypes.byref(wire), ctypes.byref(records), ctypes.c_long(count), int(copied), ctypes.c_int64(_now_ms()))
    )
    if delivered < 0:
        raise RuntimeError(_FAILURES[delivered])
    return delivered
