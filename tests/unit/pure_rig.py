"""A producer on a data plane (the pure one if not said) with a control plane and a broker double, for tests."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kafka.record.default_records import DefaultRecordBatch
from kio.serial import entity_reader

from fastprod import _pure, errors
from fastprod.config import PlaneOptions

TOPIC = "topic"


class Sent(NamedTuple):
    """One batch that reached the broker."""

    connection: int
    topic: str
    partition: int
    values: list[bytes]
    producer: tuple[int, int, int]
    codec: int


class Answer(NamedTuple):
    code: int = 0
    offset: int | None = None
    append_time: int = -1


SILENCE = Answer(-1000)
HANG_UP = Answer(-1001)
Script = Callable[[Sent], Answer]


def int_of(raw: bytes, at: int, size: int) -> int:
    return int.from_bytes(raw[at : at + size], "big", signed=True)


class Broker:
    """Answers Produce version 7 as `script` says, and keeps what it got."""

    def __init__(self) -> None:
        self.script: Script = lambda sent: Answer()
        self.throttle_ms = 0
        self.garbage: bytes | None = None
        self.damage: Callable[[bytes], bytes] = lambda reply: reply
        self.sent: list[Sent] = []
        self.requests = 0
        self._good: list[Sent] = []
        self._offsets: dict[tuple[str, int], int] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for sock in self._open:
            sock.close()

    def values(self, partition: int = 0) -> list[bytes]:
        return [value for sent in self.sent if sent.partition == partition for value in sent.values]

    def written(self, partition: int = 0) -> list[bytes]:
        """As `values`, of the acknowledged batches only."""
        return [
            value for sent in self._good for value in sent.values if sent.partition == partition
        ]

    def _accept(self) -> None:
        for number in itertools.count():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._converse, args=(number, sock), daemon=True).start()

    def _converse(self, number: int, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock, sock.makefile("rb") as stream:
            while size := stream.read(4):
                reply = self._handle(number, stream.read(int.from_bytes(size, "big")))
                if reply is None:
                    return
                sock.sendall(reply)

    def _handle(self, number: int, frame: bytes) -> bytes | None:
        schema = importlib.import_module("kio.schema.produce.v7.request").ProduceRequest
        header, size = entity_reader(schema.__header_schema__)(frame, 0)
        body, _ = entity_reader(schema)(frame, size)
        self.requests += 1
        topics = []
        for topic in body.topic_data:
            parts = []
            for part in topic.partition_data:
                answer = self._batch(number, topic.name, part.index, part.records)
                if answer is HANG_UP:
                    return None
                if answer is SILENCE:
                    return b""
                parts.append((part.index, answer))
            topics.append((topic.name, parts))
        if body.acks == 0:
            return b""
        if self.garbage is not None:
            return self.garbage
        reply = int(header.correlation_id).to_bytes(4, "big") + len(topics).to_bytes(4, "big")
        for name, parts in topics:
            reply += len(name).to_bytes(2, "big") + name.encode() + len(parts).to_bytes(4, "big")
            for index, answer in parts:
                reply += index.to_bytes(4, "big") + answer.code.to_bytes(2, "big", signed=True)
                reply += (answer.offset or 0).to_bytes(8, "big", signed=True)
                reply += answer.append_time.to_bytes(8, "big", signed=True)
                reply += (0).to_bytes(8, "big")
        reply += self.throttle_ms.to_bytes(4, "big")
        return self.damage(len(reply).to_bytes(4, "big") + reply)

    def _batch(self, number: int, topic: str, partition: int, raw: bytes) -> Answer:
        batch = DefaultRecordBatch(raw)
        assert batch.validate_crc()
        producer = (int_of(raw, 43, 8), int_of(raw, 51, 2), int_of(raw, 53, 4))
        values = [record.value for record in batch]
        sent = Sent(number, topic, partition, values, producer, raw[22] & 7)
        answer = self.script(sent)
        self.sent.append(sent)
        if answer.code == 0:
            self._good.append(sent)
        if answer.code == 0 and answer.offset is None:
            base = self._offsets.get((topic, partition), 0)
            self._offsets[topic, partition] = base + len(values)
            answer = answer._replace(offset=base)
        return answer


class Control(threading.Thread):
    """A control plane of the simplest kind: it connects, retries what it is told to, and keeps all
    events."""

    def __init__(self, plane: Any, events: socket.socket, broker: Broker) -> None:
        super().__init__(daemon=True)
        self.plane = plane
        self.broker = broker
        self.events: list[tuple[Any, ...]] = []
        self.parked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.judge: Callable[[Any], None] = self.parked.put
        self.connects = True
        self.stopping = False
        self._socket = events
        self._socket.settimeout(0.02)

    def run(self) -> None:
        while not self.stopping:
            with contextlib.suppress(TimeoutError):
                self._socket.recv(100)
            for event in self.plane.take_events():
                self.events.append(event)
                if event[0] == _pure.EVENT_NEED_CONNECTION and self.connects:
                    sock = socket.create_connection(self.broker.address)
                    sock.setblocking(False)
                    self.plane.attach(event[1], sock.detach(), 7)
                elif event[0] == _pure.EVENT_PARKED:
                    self.judge(event[1])
                elif event[0] == _pure.EVENT_NEED_EPOCH:
                    self.plane.set_identity(event[3], event[4] + 1)
            while self.plane.run_callbacks(0.01):
                pass

    def of_kind(self, kind: int) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] == kind]

    # What `send` asks.

    def resolve_topic(self, topic: str, timeout_s: float) -> Any:
        if topic == "refused":
            return errors.TopicAuthorizationFailedError(topic)
        return self.plane.set_topic(topic, None, [1])

    def refresh_partitions(self, topic: str, partition: int, timeout_s: float) -> Any:
        return self.plane.routes[topic]

    def on_control_thread(self) -> bool:
        return threading.current_thread() is self

    def pump(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.001))


class Rig:
    """A producer, its plane, its control thread and its broker."""

    def __init__(self, broker: Broker, **options: Any) -> None:
        defaults = {
            "client_id": "me",
            "acks": -1,
            "idempotent": True,
            "strict_order": False,
            "batch_size": 16384,
            "buffer_memory": 1 << 20,
            "max_request_size": 1 << 20,
            "receive_message_max_bytes": 1 << 20,
            "linger_ms": 0,
            "max_block_ms": 2000,
            "request_timeout_ms": 5000,
            "delivery_timeout_ms": 10_000,
            "retries": 2**31 - 1,
            "max_in_flight": 5,
            "connections_max_idle_ms": 60_000,
            "codec": 0,
            "compress": None,
        }
        twin = options.pop("twin", _pure)
        mode = options.pop("mode", _pure.PARTITION_DEFAULT)
        partitioner = options.pop("partitioner", None)
        leaders = options.pop("leaders", [1])
        identity = options.pop("identity", (9, 0))
        self.broker = broker
        self._here, there = socket.socketpair()
        there.setblocking(False)
        self._there = there
        self.plane = twin.DataPlane(PlaneOptions(**(defaults | options)), there.fileno())
        self.control = Control(self.plane, self._here, broker)
        self.producer = twin.ProducerBase()
        self.producer._bind(self.plane, self.control, None, None, mode, partitioner, None)
        self.plane.set_identity(*identity)
        self.plane.set_topic(TOPIC, None, leaders)
        self.plane.start()
        self.control.start()

    def send(self, value: bytes, **how: Any) -> Any:
        return self.producer.send(TOPIC, value, **how)

    def parked(self) -> Any:
        return self.control.parked.get(timeout=30)

    def close(self) -> None:
        self.plane.stop()
        self.plane.abort(lambda: errors.IllegalStateError("the test is over"))
        while self.plane.incomplete():
            time.sleep(0.01)
        memory = self.plane.counters()["memory_used"]
        self.control.stopping = True
        self.control.join()
        # Batches that nobody decided on; natively they hold the plane, and that this object, in a ring through C.
        self.control.events.clear()
        while not self.control.parked.empty():
            self.control.parked.get()
        self.close_sockets()
        assert memory == 0

    def close_sockets(self) -> None:
        self._here.close()
        self._there.close()


def once(first: Answer) -> Script:
    """The first batch gets `first`, the others are acknowledged."""
    answers = iter([first])
    return lambda sent: next(answers, Answer())


def running_broker() -> Iterator[Broker]:
    """For `pytest.fixture`."""
    broker = Broker()
    yield broker
    broker.close()


def rigs(broker: Broker) -> Iterator[Callable[..., Rig]]:
    """For `pytest.fixture`: makes rigs with the options given, and closes them."""
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        made.append(Rig(broker, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
