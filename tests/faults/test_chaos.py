"""A broker that loses and refuses whatever it likes: nothing is twice, lost or out of order."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from patience import eventually

from fastprod.testing import Pending, ScriptedBroker, Verdict

from .conftest import MakeProducer


class Chaos:
    """Loses requests before and after they were written, and answers with errors, until that has happened often."""

    OFTEN = 60

    def __init__(self, seed: int, late_s: float) -> None:
        """`late_s`: how long a request may lie unread, and those behind it on its connection; that may be gone by then.
        """
        self._chance = random.Random(seed)
        self._late_s = late_s
        self._connections: dict[int, ThreadPoolExecutor] = {}
        self._requests: list[Future[None]] = []
        self.happened: Counter[str] = Counter()

    @property
    def over(self) -> bool:
        return self.happened.total() >= self.OFTEN

    def decide(self, pending: Pending) -> None:
        """For `Rule.decide`."""
        connection = pending.request.connection
        if connection not in self._connections:
            self._connections[connection] = ThreadPoolExecutor(1)
        self._requests.append(self._connections[connection].submit(self._answer, pending))

    def end(self) -> None:
        """Wait until everything that came is dealt with."""
        for each in self._connections.values():
            each.shutdown()
        for request in self._requests:
            request.result()

    def _answer(self, pending: Pending) -> None:
        kind = self._chance.random()
        if self._late_s and not self.over and self._chance.random() < 0.1:
            self.happened["read late"] += 1
            time.sleep(self._chance.random() * self._late_s)
        if self.over or kind < 0.6:
            pending.answer()
        elif kind < 0.7:
            self.happened["lost before it was written"] += 1
            pending.drop()
        elif kind < 0.8:
            self.happened["lost after it was written"] += 1
            pending.lose()
        elif kind < 0.9:
            self.happened["refused"] += 1
            pending.refuse(self._chance.choice([2, 6, 19]))
        else:
            self.happened["written, but not said"] += 1
            pending.answer(lambda batch: self._written_but(pending.honest(batch)))

    def _written_but(self, honest: Verdict) -> Verdict:
        return Verdict(self._chance.choice([7, 20])) if honest.code == 0 else honest


BY_DEFAULT: dict[str, Any] = {}
STRICT: dict[str, Any] = {"strict_order": True}
# A busy machine answers in 80 ms sooner or later; the constructor need not wait for it.
HURRIED: dict[str, Any] = {"request_timeout_ms": 80, "api_version": (3, 9)}
# Batches expire while they are queued, in flight and waiting for a verdict.
IMPATIENT: dict[str, Any] = {**HURRIED, "delivery_timeout_ms": 400}
# There is time to ask twice about what may be in the log, and to go on under a newer epoch.
IN_BETWEEN: dict[str, Any] = {**HURRIED, "delivery_timeout_ms": 3_000}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [BY_DEFAULT, STRICT, IMPATIENT, {**STRICT, **IMPATIENT}, IN_BETWEEN], ids=str)
def test_whatever_happens_nothing_is_twice_or_out_of_order(
    scripted: ScriptedBroker, scripted_producer: MakeProducer, seed: int, options: dict[str, Any]
) -> None:
    # Of a compacted topic a record without a key is refused for good.
    scripted.delete_topic("t")
    scripted.create_topic("t", 2, max_message_bytes=700, compacted=True)
    chaos = Chaos(seed, late_s=0.15 if "request_timeout_ms" in options else 0)
    scripted.on_produce().decide(chaos.decide)
    made = scripted_producer(
        batch_size=1500, retry_backoff_ms=1, reconnect_backoff_ms=1, reconnect_backoff_max_ms=5, **options
    )
    chance = random.Random(seed)
    sent: list[tuple[int, bytes, Any]] = []
    for number in itertools.takewhile(lambda _: not chaos.over, itertools.count()):
        bad = chance.random() < 0.005
        value = b"%05d%s" % (number, b" bad" if bad else bytes(chance.randrange(80)))
        partition = chance.randrange(2)
        sent.append((partition, value, made.send("t", value, None if bad else b"k", partition=partition)))
        if number % 20 == 0:
            time.sleep(0.001)
    made.flush(60)
    print(len(sent), "sent,", sum(each.failed() for _, _, each in sent), "failed;", dict(chaos.happened))
    logs = [scripted.values("t", partition) for partition in range(2)]
    for lying in logs:
        assert lying == sorted(lying), "out of order"
        assert len(set(lying)) == len(lying), "written twice"
    written = [set(log) for log in logs]
    for partition, value, future in sent:
        assert future.is_done
        if future.succeeded():
            assert logs[partition][future.value.offset] == value
        elif value in written[partition]:
            assert future.exception.maybe_written, f"{value!r} failed for good and is in the log"
        assert b"bad" not in value or future.failed()

    def goes_on() -> bool:
        # The request of an expired batch may still be open; then its answer decides about those behind it, too.
        future = made.send("t", b"99999", b"k", partition=0)
        made.flush(30)
        return bool(future.succeeded())

    eventually(goes_on)
    made.close(0)
    chaos.end()
