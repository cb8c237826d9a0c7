"""Everything at once: threads that send, wait, register, drop and close, on connections that are cut, for a while.

What is checked is what must hold whatever happened: every future has ended, no batch is left, no byte is charged.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from patience import eventually

from fastprod import KafkaProducer, _backend, errors
from fastprod.testing import Pending, ScriptedBroker

SECONDS = 1.5
SENDERS = 4
PRODUCERS = 3
# A sender keeps this many of its last futures; older ones are dropped, done or not.
KEPT = 200
# No single call may take longer, whatever it waits for.
LONGEST_S = 20.0

PLAIN: dict[str, Any] = {}
# No constructor waits for a broker: on a busy machine it is long until one has answered in 60 ms.
IMPATIENT: dict[str, Any] = {
    "request_timeout_ms": 60, "delivery_timeout_ms": 250, "linger_ms": 1, "api_version": (3, 9),
}
CRAMPED: dict[str, Any] = {"buffer_memory": 20_000, "max_block_ms": 50, "strict_order": True}
SQUEEZED: dict[str, Any] = {"compression_type": "gzip", "linger_ms": 2}
# Of codecs that may be linked. Senders wait for memory, and batches expire, while others compress.
PRESSED: dict[str, Any] = {**CRAMPED, "compression_type": "lz4", "batch_size": 5000}
SLOW: dict[str, Any] = {**IMPATIENT, "compression_type": "zstd", "compression_level": 19}
CARELESS: dict[str, Any] = {"acks": 0, "enable_idempotence": False}


def live_objects() -> dict[str, int]:
    gc.collect()
    return dict(_backend.live_objects())


class Scene:
    """A broker with moods, producers that come and go, and the threads that use them."""

    def __init__(self, broker: ScriptedBroker, seed: int, options: dict[str, Any]) -> None:
        self._broker = broker
        self._options = {
            "batch_size": 2000, "retry_backoff_ms": 1, "reconnect_backoff_ms": 1, "reconnect_backoff_max_ms": 5,
            "delivery_timeout_ms": 2000, "request_timeout_ms": 1000, "max_block_ms": 500, **options,
        }
        self._seed = seed
        self._until = 0.0
        self._planes: list[Any] = []
        self._errors: list[BaseException] = []
        self._futures: list[list[Any]] = [[] for _ in range(SENDERS)]
        self._many: list[deque[Any]] = [deque(maxlen=50) for _ in range(SENDERS)]
        self._mood = random.Random(seed)
        self.called = 0
        self.accepted = 0
        broker.on_produce().decide(self._decide)
        self._producers = [self._produce() for _ in range(PRODUCERS)]

    def _produce(self) -> KafkaProducer:
        made = KafkaProducer(bootstrap_servers=self._broker.bootstrap_servers, **self._options)
        self._planes.append(made._engine.plane)
        return made

    def _decide(self, pending: Pending) -> None:
        kind = self._mood.random()
        if kind < 0.75 or pending.request.acks == 0:
            pending.answer()
        elif kind < 0.85:
            pending.drop()
        elif kind < 0.95:
            pending.refuse(self._mood.choice([2, 6, 7, 10, 19, 45, 87]))
        # Else never answered, nor is what comes behind it: the connection ends by a cut or by its timeout.

    def _called(self, _: Any) -> None:
        self.called += 1

    def _send(self, number: int) -> None:
        chance = random.Random(self._seed * 100 + number)
        mine = self._futures[number]
        producer: Any = None
        while time.monotonic() < self._until:
            producer = chance.choice(self._producers)
            value = bytes(chance.randrange(600))
            with contextlib.suppress(errors.KafkaError):
                future = producer.send(chance.choice(["t", "other"]), value, chance.choice([None, value[:3], b""]))
                self.accepted += 1
                mine.append(future)
                if chance.random() < 0.3:
                    future.add_both(self._called)
                if chance.random() < 0.02:
                    future.get(0.02)
                if chance.random() < 0.01:
                    producer.flush(0.02)
                if chance.random() < 0.01:
                    chance.choice(mine).success("by hand")
                if chance.random() < 0.03:
                    self._send_many(producer, number, chance)
            if len(mine) > KEPT:
                del mine[: KEPT // 2]
            if chance.random() < 0.05:
                time.sleep(0.001)
        # `get` has raised errors that futures keep, and with each of them this frame. The producer may have been
        # dropped since, and must not be kept alive by it.
        producer = None

    def _send_many(self, producer: KafkaProducer, number: int, chance: random.Random) -> None:
        values = [bytes(chance.randrange(100)) for _ in range(chance.randrange(300))]
        keys = chance.choice([None, values, [chance.choice([None, each]) for each in values]])
        many = producer.send_many(chance.choice(["t", "other"]), values, keys)
        self._many[number].append(many)
        if chance.random() < 0.5:
            many.add_both(self._called)
        for each in self._many[number]:
            if each.is_done and chance.random() < 0.1:
                assert each.succeeded() != each.failed()
                assert len(each._outcome().offsets) == len(each)

    def _look(self, number: int) -> None:
        chance = random.Random(self._seed * 100 + number)
        while time.monotonic() < self._until:
            for growing in self._futures:
                futures = list(growing)   # of one moment: its sender goes on
                for each in chance.sample(futures, min(10, len(futures))):
                    assert each.is_done in (True, False)
                    assert each.exception is None or not each.succeeded()
                    repr(each)
            chance.choice(self._producers).metrics()
            plane = chance.choice(self._planes)
            plane.topic_counters()
            plane.node_counters()
            time.sleep(0.002)

    def _cut(self, number: int) -> None:
        chance = random.Random(self._seed * 100 + number)
        while time.monotonic() < self._until:
            time.sleep(chance.random() * 0.1)
            self._broker.drop_connections()
            partitions = chance.choice([2, 2, 2, 3, 1])
            if partitions != self._broker.topics["t"]:
                self._broker.recreate_topic("t", partitions)

    def _end(self, number: int) -> None:
        """Drop a producer, or close it while others use it, and put a new one in its place."""
        chance = random.Random(self._seed * 100 + number)
        while time.monotonic() < self._until:
            time.sleep(chance.random() * 0.3)
            place = chance.randrange(PRODUCERS)
            old, self._producers[place] = self._producers[place], self._produce()
            if chance.random() < 0.6:
                with contextlib.suppress(errors.KafkaTimeoutError):
                    old.close(chance.choice([0, 0.05, 0.5]))
            del old

    def _guarded(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            self._errors.append(error)

    def play(self) -> None:
        self._until = time.monotonic() + SECONDS
        works = [*[self._send] * SENDERS, self._look, self._cut, self._end]
        threads = [threading.Thread(target=self._guarded, args=pair) for pair in zip(works, range(99), strict=False)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(SECONDS + LONGEST_S)
            if each.is_alive():
                faulthandler.dump_traceback(file=sys.__stderr__)
                pytest.fail("a call does not return")
        assert not self._errors, self._errors

    def check(self) -> None:
        for each in self._producers:
            with contextlib.suppress(errors.KafkaTimeoutError):
                each.close(0.3)
        self._producers.clear()
        del each
        gc.collect()   # dropped ones deliver for a second
        eventually(lambda: not any(plane.incomplete() for plane in self._planes), "batches never end")
        assert all(each.is_done for futures in [*self._futures, *self._many] for each in futures)
        eventually(lambda: not any(plane.counters()["memory_used"] for plane in self._planes), "memory is not returned")
        for plane in self._planes:
            eventually(lambda: not plane.counters()["connections"], "connections stay")   # noqa: B023
            counters = plane.counters()
            assert counters["records_appended"] == counters["records_acked"] + counters["records_failed"]
            assert counters["records_queued"] == counters["callbacks_waiting"] == counters["bytes_queued"] == 0


@pytest.mark.parametrize("options", [PLAIN, IMPATIENT, CRAMPED, SQUEEZED, PRESSED, SLOW, CARELESS], ids=str)
def test_everything_at_once(options: dict[str, Any]) -> None:
    before = live_objects()
    with ScriptedBroker({"t": 2, "other": 1}) as broker:
        scene = Scene(broker, 7, options)
        scene.play()
        scene.check()
        print(scene.accepted, "accepted,", scene.called, "callbacks,", len(scene._planes), "producers")
    del scene, broker
    eventually(lambda: live_objects() == before, f"something is left: {_backend.live_objects()}, was {before}")
