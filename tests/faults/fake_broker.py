"""A broker that a test answers for: real sockets and frames, written and read by kio, and no Kafka behind them.

ApiVersions, Metadata and InitProducerId are answered by themselves, as the attributes say. Produce requests are
accepted, unless the test takes them into its own hands: `broker.by_hand = True`, then `broker.next()` returns each
request as it comes, in whatever number are in flight, and `request.accept()`, `request.refuse(code)` or
`request.hang_up()` ends it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import importlib
import io
import queue
import socket
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from kio.records.readers import read_batch
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer

PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID = 0, 3, 18, 22
_PACKAGES = {
    PRODUCE: ("produce", "Produce"),
    METADATA: ("metadata", "Metadata"),
    API_VERSIONS: ("api_versions", "ApiVersions"),
    INIT_PRODUCER_ID: ("init_producer_id", "InitProducerId"),
}
_NO_TIME = datetime.timedelta(0)
_WAIT_S = 20.0


class Batch(NamedTuple):
    """A batch of a Produce request; `data`: all its bytes, `values`: of its records, None where it is compressed."""

    topic: str
    partition: int
    producer_id: int
    epoch: int
    sequence: int
    count: int
    codec: int
    values: list[bytes | None] | None
    data: bytes

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Producer id, epoch and first sequence."""
        return self.producer_id, self.epoch, self.sequence


class Refusal(NamedTuple):
    """What a batch is answered with."""

    code: int = 0
    offset: int = -1
    message: str | None = None
    record_errors: tuple[tuple[int, str | None], ...] = ()
    log_start_offset: int = 0


class Produced:
    """One Produce request that waits for its answer. Answers of a connection are given in the order of requests."""

    def __init__(self, broker: FakeBroker, connection: _Connection, header: Any, request: Any, version: int) -> None:
        self.broker = broker
        self.version = version
        self.acks: int = request.acks
        self.at = time.monotonic()
        self._connection = connection
        self._correlation_id = header.correlation_id
        if self.acks != 0:
            connection.unanswered.append(header.correlation_id)
        self.batches = [
            _batch(broker.name_of(topic), data) for topic in request.topic_data for data in topic.partition_data
        ]

    @property
    def batch(self) -> Batch:
        """The only batch."""
        (batch,) = self.batches
        return batch

    @property
    def abandoned(self) -> bool:
        """Whether the producer has closed the connection."""
        return self._connection not in self.broker.connections

    @property
    def behind_another(self) -> bool:
        """Whether an earlier request of its connection has no answer yet."""
        return self.acks != 0 and self._connection.unanswered[0] != self._correlation_id

    def accept(self) -> None:
        """Write every batch to the broker's log and say so."""
        self.answer(lambda batch: Refusal(0, self.broker.append(batch)))

    def refuse(self, code: int, **details: Any) -> None:
        """Answer every batch with an error."""
        self.answer(lambda _: Refusal(code, **details))

    def answer(self, judge: Callable[[Batch], Refusal]) -> None:
        """Answer each batch with what `judge` says."""
        body = _produce_response(self.version, [(batch, judge(batch)) for batch in self.batches], self.broker)
        if self.acks != 0:
            turn = self._connection.unanswered.popleft()
            assert turn == self._correlation_id, "answered out of turn, which no broker does"
            self._connection.send(PRODUCE, self.version, self._correlation_id, body)

    def send_raw(self, data: bytes, piece: int = 0) -> None:
        """Answer with these bytes, frame and all, so many at once (0: all)."""
        self._connection.unanswered.remove(self._correlation_id)
        for start in range(0, len(data), piece or len(data)):
            self._connection.socket.sendall(data[start : start + (piece or len(data))])

    def frame(self, *, correlation_id: int | None = None) -> bytes:
        """Return the frame that would accept the request, with another correlation id if given."""
        body = _produce_response(self.version, [(batch, Refusal(0, 0)) for batch in self.batches], self.broker)
        chosen = self._correlation_id if correlation_id is None else correlation_id
        return _frame(PRODUCE, self.version, chosen, body)

    def hang_up(self) -> None:
        """Close the connection without an answer; other requests on it get none either."""
        self._connection.close()


class FakeBroker:
    """Listens on 127.0.0.1 and calls itself node 1 of a cluster with these topics: `FakeBroker(t=2, other=1)`.

    `offered`: API key -> versions. `leaders`: (topic, partition) -> node id, 1 if not said. `silent`: APIs whose
    requests are never answered. `judge`: what every batch is answered with, while not `by_hand`. `asked_at`: when a
    topic was last asked for in a Metadata request, monotonic seconds. `mangle`: API key -> what is made of the frames
    of its answers before they are sent.
    """

    def __init__(self, **topics: int) -> None:
        self.topics = topics
        self.offered = {PRODUCE: (3, 12), METADATA: (4, 12), API_VERSIONS: (0, 3), INIT_PRODUCER_ID: (0, 4)}
        self.leaders: dict[tuple[str, int], int] = {}
        self.silent: set[int] = set()
        self.identity = (77, 0)
        self.init_error = 0
        self.mangle: dict[int, Callable[[bytes], bytes]] = {}
        self.by_hand = False
        self.judge: Callable[[Produced], None] = Produced.accept
        self.requests: Counter[int] = Counter()
        self.asked_at: dict[str, float] = {}
        self.log: dict[tuple[str, int], list[bytes | None]] = {}
        self.connections: list[_Connection] = []
        self.errors: list[Exception] = []
        self._waiting: queue.Queue[Produced] = queue.Queue()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True, name="fake-broker").start()

    def __enter__(self) -> FakeBroker:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        assert kind is not None or not self.errors, self.errors

    def close(self) -> None:
        """Stop listening and close every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Close every connection."""
        for each in list(self.connections):
            each.close()

    def next(self, seconds: float = _WAIT_S) -> Produced:
        """Return the next Produce request that nobody has answered."""
        return self._waiting.get(timeout=seconds)

    def nothing_more(self, seconds: float = 0.3) -> None:
        """Fail if another Produce request comes within that time."""
        with contextlib.suppress(queue.Empty):
            batches = self._waiting.get(timeout=seconds).batches
            raise AssertionError(f"unexpected Produce request: {[each.stamp for each in batches]}")

    def append(self, batch: Batch) -> int:
        """Write a batch to the log; return the offset of its first record."""
        log = self.log.setdefault((batch.topic, batch.partition), [])
        log.extend(batch.values or [None] * batch.count)
        return len(log) - batch.count

    def id_of(self, topic: str) -> uuid.UUID:
        """Return the topic's id."""
        return uuid.uuid5(uuid.NAMESPACE_DNS, topic)

    def name_of(self, topic: Any) -> str:
        """Return the name of a topic of a Produce request."""
        if hasattr(topic, "name"):
            return str(topic.name)
        return next(name for name in self.topics if self.id_of(name) == topic.topic_id)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(sock, self.mangle)
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: _Connection) -> None:
        try:
            with contextlib.suppress(OSError, EOFError):
                while True:
                    self._handle(connection, connection.read_frame())
        except Exception as error:
            # A wrong request, or a test's own judge.
            self.errors.append(error)
            raise
        finally:
            connection.close()
            self.connections.remove(connection)

    def _handle(self, connection: _Connection, frame: bytes) -> None:
        api_key, version = struct.unpack_from(">hh", frame)
        self.requests[api_key] += 1
        first, last = self.offered.get(api_key, (0, -1))
        if not first <= version <= last:
            if api_key != API_VERSIONS:
                raise EOFError
            (correlation_id,) = struct.unpack_from(">i", frame, 4)
            connection.send(API_VERSIONS, 0, correlation_id, self._versions(0, code=35))
            return
        schema = _module(api_key, version, "request")
        cls = getattr(schema, _PACKAGES[api_key][1] + "Request")
        header, size = entity_reader(cls.__header_schema__)(frame, 0)
        request, _ = entity_reader(cls)(frame, size)
        if api_key in self.silent:
            return
        if api_key == PRODUCE:
            produced = Produced(self, connection, header, request, version)
            if self.by_hand:
                self._waiting.put(produced)
            else:
                self.judge(produced)
            return
        answers = {METADATA: self._metadata, API_VERSIONS: self._versions, INIT_PRODUCER_ID: self._identity}
        connection.send(api_key, version, header.correlation_id, answers[api_key](version, request))

    def _versions(self, version: int, request: Any = None, code: int = 0) -> Any:
        make = _Maker(API_VERSIONS, version)
        keys = tuple(
            make("ApiVersion", api_key=key, min_version=first, max_version=last)
            for key, (first, last) in self.offered.items()
        )
        return make("ApiVersionsResponse", error_code=ErrorCode(code), api_keys=keys, throttle_time=_NO_TIME)

    def _metadata(self, version: int, request: Any) -> Any:
        make = _Maker(METADATA, version)
        broker = make("MetadataResponseBroker", node_id=1, host="127.0.0.1", port=self.port, rack=None)
        asked = [topic.name for topic in request.topics or ()]
        self.asked_at.update(dict.fromkeys(asked, time.monotonic()))
        return make(
            "MetadataResponse",
            throttle_time=_NO_TIME,
            error_code=ErrorCode.none,
            brokers=(broker,),
            cluster_id="fake",
            controller_id=1,
            topics=tuple(self._topic(make, name) for name in asked),
        )

    def _topic(self, make: _Maker, name: str) -> Any:
        partitions = tuple(
            make(
                "MetadataResponsePartition",
                error_code=ErrorCode.none,
                partition_index=index,
                leader_id=self.leaders.get((name, index), 1),
                leader_epoch=1,
                replica_nodes=(1,),
                isr_nodes=(1,),
                offline_replicas=(),
            )
            for index in range(self.topics.get(name, 0))
        )
        code = ErrorCode.none if name in self.topics else ErrorCode.unknown_topic_or_partition
        topic_id = self.id_of(name) if name in self.topics else None
        return make(
            "MetadataResponseTopic", error_code=code, name=name, topic_id=topic_id, partitions=partitions
        )

    def _identity(self, version: int, request: Any) -> Any:
        producer_id, epoch = (-1, -1) if self.init_error else self.identity
        return _Maker(INIT_PRODUCER_ID, version)(
            "InitProducerIdResponse",
            throttle_time=_NO_TIME,
            error_code=ErrorCode(self.init_error),
            producer_id=producer_id,
            producer_epoch=epoch,
        )


class _Connection:
    def __init__(self, sock: socket.socket, mangle: dict[int, Callable[[bytes], bytes]]) -> None:
        self.socket = sock
        self.mangle = mangle
        self.unanswered: collections.deque[int] = collections.deque()
        self._lock = threading.Lock()

    def read_frame(self) -> bytes:
        (size,) = struct.unpack(">i", self._read(4))
        return self._read(size)

    def send(self, api_key: int, version: int, correlation_id: int, body: Any) -> None:
        # The producer may have given the connection up: then it gets no answer, as from a real broker.
        frame = _frame(api_key, version, correlation_id, body)
        with self._lock, contextlib.suppress(OSError):
            self.socket.sendall(self.mangle.get(api_key, bytes)(frame))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return bytes(data)


class _Maker:
    """Builds kio's entities of one version, leaving out the fields that it does not have."""

    def __init__(self, api_key: int, version: int) -> None:
        self._schema = _module(api_key, version, "response")

    def __call__(self, entity: str, /, **values: Any) -> Any:
        cls = getattr(self._schema, entity)
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def _module(api_key: int, version: int, kind: str) -> Any:
    return importlib.import_module(f"kio.schema.{_PACKAGES[api_key][0]}.v{version}.{kind}")


def _frame(api_key: int, version: int, correlation_id: int, body: Any) -> bytes:
    header = type(body).__header_schema__(correlation_id=correlation_id)
    payload = _written(header) + _written(body)
    return struct.pack(">i", len(payload)) + payload


def _written(entity: Any) -> bytes:
    with io.BytesIO() as buffer:
        entity_writer(type(entity))(buffer, entity)
        return buffer.getvalue()


def _batch(topic: str, data: Any) -> Batch:
    records = bytes(data.records)
    (attributes,) = struct.unpack_from(">h", records, 21)
    producer_id, epoch, sequence, count = struct.unpack_from(">qhii", records, 43)
    values: list[bytes | None] | None = None
    if not attributes & 7:
        # Checks lengths and the CRC as well.
        values = [record.value for record in read_batch(records, 0)[0].records]
        assert len(values) == count
    return Batch(topic, data.index, producer_id, epoch, sequence, count, attributes & 7, values, records)


def _produce_response(version: int, told: list[tuple[Batch, Refusal]], broker: FakeBroker) -> Any:
    make = _Maker(PRODUCE, version)
    responses = []
    for batch, refusal in told:
        record_errors = tuple(
            make("BatchIndexAndErrorMessage", batch_index=index, batch_index_error_message=message)
            for index, message in refusal.record_errors
        ) if version >= 8 else ()
        partition = make(
            "PartitionProduceResponse",
            index=batch.partition,
            error_code=ErrorCode(refusal.code),
            base_offset=refusal.offset,
            log_append_time=None,
            log_start_offset=refusal.log_start_offset,
            record_errors=record_errors,
            error_message=refusal.message,
        )
        topic_id = broker.id_of(batch.topic)
        responses.append(
            make("TopicProduceResponse", name=batch.topic, topic_id=topic_id, partition_responses=(partition,))
        )
    return make("ProduceResponse", responses=tuple(responses), throttle_time=_NO_TIME)
