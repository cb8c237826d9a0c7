"""A producer takes no more memory than it was given: batches within `buffer_memory`, everything else beside it small.

Resident memory is that of a process of its own (`memory_child.py`), above what it was when the producer was idle. What
a caller keeps, futures above all, is the caller's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from patience import eventually

import fastprod
from fastprod.testing import KafkaBroker

from .conftest import MakeProducer, MakeTopic

MIB = 2**20
CHILD = Path(__file__).with_name("memory_child.py")
BUFFER = 32 * MIB
ALLOWED = BUFFER * 1.25 + 32 * MIB
NATIVE = fastprod.backend == "native"
# More than twice the buffer in all; the interpreted twin needs larger records to get that far.
SIZE = 1_000 if NATIVE else 10_000
RECORDS = (120_000_000 if NATIVE else 80_000_000) // SIZE


class Child:
    """The process, and what it says."""

    def __init__(self, broker: KafkaBroker, topic: str, options: dict[str, Any], **job: Any) -> None:
        job = {"records": RECORDS, "size": SIZE, "callback_s": None, **job}
        job |= {"servers": broker.bootstrap_servers, "topic": topic, "options": {"buffer_memory": BUFFER, **options}}
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD), json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)

    def check(self) -> dict[str, Any]:
        """Wait for its end; fail if it took more memory than it may, or never filled what it was given."""
        said, _ = self._process.communicate(timeout=200)
        assert self._process.returncode == 0
        report: dict[str, Any] = json.loads(said)
        grown = report["peak"] - report["idle"]
        print(f"grown by {grown / MIB:.1f} MiB, allowed {ALLOWED / MIB:.0f}; {report}")
        assert report["errors"] == 0
        assert grown <= ALLOWED
        return {**report, "grown": grown}


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_codec(own_broker: KafkaBroker, topic: MakeTopic, codec: str | None) -> None:
    options: dict[str, Any] = {"compression_type": codec}
    if codec == "gzip":
        options["compression_level"] = 1
    name = topic(4)
    Child(own_broker, name, options).check()
    own_broker.delete_topic(name)


def test_splits(own_broker: KafkaBroker, topic: MakeTopic) -> None:
    """What the topic refused is forgotten all the time, so that batches are split all the time."""
    name = topic(4, max_message_bytes=100_000)
    Child(own_broker, name, {"metadata_max_age_ms": 300}, records=RECORDS // 3).check()
    own_broker.delete_topic(name)


def test_callbacks_slower_than_the_traffic(own_broker: KafkaBroker, topic: MakeTopic) -> None:
    """Records are acknowledged faster than their callbacks run, and `send` waits for those."""
    callback_s = 0.0002
    name = topic(4)
    report = Child(own_broker, name, {}, records=9_000, size=10_000, callback_s=callback_s).check()
    own_broker.delete_topic(name)
    # All but what the buffer holds had been called back when the last record was accepted.
    assert report["seconds"] > (9_000 - BUFFER / 10_000) * callback_s


def test_callbacks_of_small_records(own_broker: KafkaBroker, topic: MakeTopic) -> None:
    """A registered callback takes more than a record of ten bytes, and is charged for: while the first one keeps all
    others waiting, `send` waits as well."""
    records = 1_500_000 if NATIVE else 250_000
    name = topic(4)
    report = Child(own_broker, name, {}, records=records, size=10, callback_s=3.0, slow_callbacks=1).check()
    own_broker.delete_topic(name)
    assert report["seconds"] >= 3.0   # the last ones waited for the first one's callback


def test_a_frozen_broker(own_broker: KafkaBroker, topic: MakeTopic) -> None:
    name = topic(4)
    child = Child(own_broker, name, {"max_block_ms": 300}, frozen=True)
    assert child.line() == "idle"
    own_broker.pause()
    child.go_on()
    assert child.line() == "full"
    own_broker.resume()
    child.go_on()
    report = child.check()
    # It did take what it was given; else a tight limit would tell nothing.
    assert BUFFER * 0.9 <= report["sent"] * SIZE <= BUFFER
    assert report["grown"] >= BUFFER * 0.9
    own_broker.delete_topic(name)


def test_sending_from_a_callback_while_there_is_no_room(
    own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic
) -> None:
    """The thread that runs callbacks is the one that frees memory by having run them: it must not wait for itself."""
    name = topic()
    made = producer(buffer_memory=200_000, batch_size=20_000)
    made.send(name, b"first").get(20)
    followers: list[Any] = []

    def again(_: object) -> None:
        followers.append(made.send(name, bytes(1_000)))

    accepted: list[Any] = []

    def send() -> None:
        for _ in range(2_000):
            future = made.send(name, bytes(1_000))
            future.add_callback(again)
            accepted.append(future)

    def is_stuck() -> bool:
        before = len(accepted)
        # A record and its callback take about 1,100 bytes, in the pure twin 1,350.
        return not threading.Event().wait(0.1) and len(accepted) == before > (150 if NATIVE else 120)

    own_broker.pause()
    sender = threading.Thread(target=send)
    sender.start()
    eventually(is_stuck, what="a full buffer")
    own_broker.resume()
    sender.join(60)
    assert not sender.is_alive()
    made.flush(60)
    eventually(lambda: len(followers) == 2_000)
    assert [each.get(20).offset >= 0 for each in followers] == [True] * 2_000
    assert own_broker.end_offset(name) == 4_001
