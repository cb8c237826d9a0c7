"""One broker's outbox: the partitions that wait for it, its connection, its requests in flight.

Only the I/O thread is here. A connection moves bytes and knows nothing of batches' fate; what its
end means for them is decided in `io_loop.py`.
"""

from __future__ import annotations

import itertools
import socket
from collections import deque
from collections.abc import Iterator, Sequence

from fastprod._pure import layout
from fastprod._pure.batch import Batch
from fastprod._pure.counters import LATENCY_BUCKETS, NODE, Counters
from fastprod._pure.partition import Partition
from fastprod._pure.produce import (
    TOPIC_IDS_FROM,
    PartitionAnswer,
    TopicBatches,
    WireBatch,
    decode_produce_response,
    write_request,
)
from fastprod._pure.record_batch import BytesLike

_PIECES_AT_ONCE = 64  # well below any system's limit for one gathering write
_READ_CHUNK = 1 << 16
_READS_AT_ONCE = 16  # then the other sockets get their turn
_SIZE_FIELD = 4

NEVER = float("inf")


class ConnectionLost(Exception):
    """A connection has ended or must be ended: `reason` in words, `code` as EVENT_CONNECTION_LOST
    reports it."""

    def __init__(self, reason: str, code: int = layout.NETWORK_EXCEPTION) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Request:
    """One Produce request: its bytes until they are written, its batches until it is answered."""

    __slots__ = (
        "batches",
        "correlation_id",
        "deadline",
        "pieces",
        "sent_at",
        "size",
        "topic_ids",
        "version",
    )

    def __init__(self, correlation_id: int, version: int, batches: list[Batch]) -> None:
        self.correlation_id = correlation_id
        self.version = version
        self.batches = batches
        # By topic: what the answer will be told apart by, as it was when the request was made.
        self.topic_ids: dict[str, bytes | None] = {}
        self.pieces: deque[memoryview] = deque()
        self.size = 0
        self.sent_at = 0.0
        self.deadline = NEVER

    @property
    def written(self) -> bool:
        return not self.pieces

    def write_out(
        self, client_id: str, acks: int, timeout_ms: int, topic_ids: dict[str, bytes | None]
    ) -> None:
        """Make the bytes. The bodies are pointed at, not copied."""
        if None in topic_ids.values():
            # A topic without an id can only be named.
            self.version = min(self.version, TOPIC_IDS_FROM - 1)
        self.topic_ids = topic_ids
        wire: dict[str, list[WireBatch]] = {topic: [] for topic in topic_ids}
        for batch in self.batches:
            part = WireBatch(batch.partition.index, batch.header(), batch.body)
            wire[batch.partition.topic].append(part)
        topics: list[TopicBatches] = [(topic, topic_ids[topic], wire[topic]) for topic in wire]
        pieces: Sequence[BytesLike] = write_request(
            self.version, self.correlation_id, client_id, acks, timeout_ms, topics
        )
        self.pieces.extend(map(memoryview, pieces))
        self.size = sum(map(len, pieces))

    def match(self, answers: list[PartitionAnswer]) -> list[tuple[Batch, PartitionAnswer]]:
        """Each batch with its answer, in the answers' order."""
        by_id = self.version >= TOPIC_IDS_FROM
        waiting: dict[tuple[str | bytes | None, int], Batch] = {}
        for batch in self.batches:
            topic = batch.partition.topic
            key = self.topic_ids[topic] if by_id else topic
            waiting[key, batch.partition.index] = batch
        matched = []
        for answer in answers:
            found = waiting.pop((answer[1] if by_id else answer[0], answer[2]), None)
            if found is None:
                raise ConnectionLost("the broker's answer names a partition that was not sent")
            matched.append((found, answer))
        if waiting:
            raise ConnectionLost("the broker's answer misses a partition that was sent")
        return matched


class Connection:
    """A connected non-blocking socket, and the requests on it, oldest first."""

    __slots__ = (
        "_inbox",
        "_next_correlation_id",
        "_receive_max",
        "in_flight",
        "last_batches",
        "last_records",
        "last_use",
        "last_write",
        "round_trip",
        "sock",
        "throttled_until",
        "version",
        "watches_writing",
    )

    def __init__(self, fd: int, version: int, receive_max: int, now: float) -> None:
        self.sock = socket.socket(fileno=fd)
        self.sock.setblocking(False)
        self.version = version
        self.in_flight: deque[Request] = deque()
        self.throttled_until = 0.0
        self.round_trip: float | None = None
        self.last_write = 0.0
        self.last_batches = self.last_records = 0  # of the request written last
        self.last_use = now
        self.watches_writing = False
        self._receive_max = receive_max
        self._inbox = bytearray()
        self._next_correlation_id = 0

    def next_correlation_id(self) -> int:
        taken = self._next_correlation_id
        self._next_correlation_id = (taken + 1) & 0x7FFFFFFF
        return taken

    @property
    def writing(self) -> Request | None:
        """The request that is not fully written: always the last one."""
        if self.in_flight and not self.in_flight[-1].written:
            return self.in_flight[-1]
        return None

    def write(self, now: float) -> bool:
        """Write what is left; whether all of it is out. Raises ConnectionLost."""
        request = self.writing
        if request is None:
            return True
        pieces = request.pieces
        try:
            while pieces:
                self._advance(pieces, self._send(pieces))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise ConnectionLost(f"writing to the broker failed: {error}") from error
        self.last_write = self.last_use = request.sent_at = now
        self.last_batches = len(request.batches)
        self.last_records = sum(batch.count for batch in request.batches)
        return True

    def _send(self, pieces: deque[memoryview]) -> int:
        if hasattr(self.sock, "sendmsg"):
            return self.sock.sendmsg(list(itertools.islice(pieces, _PIECES_AT_ONCE)))
        return self.sock.send(pieces[0])

    @staticmethod
    def _advance(pieces: deque[memoryview], sent: int) -> None:
        while sent and sent >= len(pieces[0]):
            sent -= len(pieces.popleft())
        if sent:
            pieces[0] = pieces[0][sent:]

    def read(self) -> Iterator[bytes]:
        """The responses that are complete now. Raises ConnectionLost behind the last one: what was
        answered before the end counts."""
        reason = ""
        for _ in range(_READS_AT_ONCE):
            try:
                data = self.sock.recv(_READ_CHUNK)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                reason = f"reading from the broker failed: {error}"
                break
            if not data:
                reason = "the broker closed the connection"
                break
            self._inbox += data
            if len(data) < _READ_CHUNK:
                break
        yield from self._whole_frames()
        if reason:
            raise ConnectionLost(reason)

    def _whole_frames(self) -> Iterator[bytes]:
        inbox = self._inbox
        while len(inbox) >= _SIZE_FIELD:
            size = int.from_bytes(inbox[:_SIZE_FIELD], "big", signed=True)
            if size > self._receive_max:
                raise ConnectionLost(
                    "the broker announced an answer longer than receive_message_max_bytes"
                )
            if size < 0:
                raise ConnectionLost("the broker announced an answer of negative length")
            end = _SIZE_FIELD + size
            if len(inbox) < end:
                return
            frame = bytes(inbox[_SIZE_FIELD:end])
            del inbox[:end]
            yield frame

    def answer(self, frame: bytes) -> tuple[Request, int, list[tuple[Batch, PartitionAnswer]]]:
        """The oldest request, whose answer this is, the throttle time in ms, and what the broker
        said of each batch. Raises ConnectionLost; the request then stays in flight."""
        if not self.in_flight or not self.in_flight[0].written:
            raise ConnectionLost("the broker answered a request that was not made")
        request = self.in_flight[0]
        try:
            correlation_id, throttle_ms, answers = decode_produce_response(request.version, frame)
        except ValueError as error:
            raise ConnectionLost(
                f"the broker's answer is not a Produce response: {error}"
            ) from error
        if correlation_id != request.correlation_id:
            raise ConnectionLost("the broker's answer has another correlation id")
        matched = request.match(answers)
        self.in_flight.popleft()
        return request, throttle_ms, matched

    def next_deadline(self) -> float:
        """When the oldest request must be answered."""
        return self.in_flight[0].deadline if self.in_flight else NEVER

    def throttle(self, until: float, extension_s: float) -> None:
        """KIP-219: send nothing until then; what is under way has that much longer."""
        self.throttled_until = max(self.throttled_until, until)
        for request in self.in_flight:
            request.deadline += extension_s

    def measure(self, seconds: float) -> None:
        """One more round trip; a moving average, as TCP keeps it."""
        if self.round_trip is None:
            self.round_trip = seconds
        else:
            self.round_trip += (seconds - self.round_trip) / 8


class Outbox:
    """What waits for one broker. It outlives its connections."""

    __slots__ = (
        "answered",
        "asked",
        "connection",
        "counters",
        "latency_buckets",
        "look_at",
        "node_id",
        "partitions",
    )

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.connection: Connection | None = None
        # In the order of their turns: who was served goes to the end.
        self.partitions: dict[Partition, None] = {}
        self.asked = False  # for a connection
        self.answered = False  # a response came since batches were last looked for
        self.look_at = NEVER  # when a batch may leave next; 0: look now
        self.counters = Counters(NODE)
        self.latency_buckets = [0] * LATENCY_BUCKETS

    def look_now(self) -> None:
        self.look_at = 0.0

    def can_send(self, now: float, max_in_flight: int) -> bool:
        connection = self.connection
        return (
            connection is not None
            and connection.writing is None
            and now >= connection.throttled_until
            and len(connection.in_flight) < max_in_flight
        )
