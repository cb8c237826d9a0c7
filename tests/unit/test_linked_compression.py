"""Batches that other threads compress: they leave in order, hold nobody up, and may end while they are compressed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import fastprod._core as native
import pytest
from patience import eventually
from pure_rig import TOPIC, Answer, Broker, Rig, once, rigs, running_broker

from fastprod import codecs, compression, errors

pytestmark = pytest.mark.native_only

MakeRig = Callable[..., Rig]
broker = pytest.fixture(name="broker")(running_broker)
any_rig = pytest.fixture(name="any_rig")(rigs)
without_zlib = pytest.mark.skipif("gzip" not in native.linked_codecs(), reason="zlib is not linked")
MEGABYTE = 1 << 20
LARGE: dict[str, Any] = {
    "batch_size": 16 * MEGABYTE, "buffer_memory": 128 * MEGABYTE, "max_request_size": 32 * MEGABYTE,
    "receive_message_max_bytes": MEGABYTE,
}
# More than the I/O thread compresses by itself.
SIZE = 20_000
TOO_LARGE = 10


@pytest.fixture(params=["gzip", "lz4", "zstd"])
def rig(request: pytest.FixtureRequest, any_rig: MakeRig) -> MakeRig:
    """With the codec as a producer would have it on this build: linked, or a package's."""
    name = request.param
    compress = None if name in native.linked_codecs() else compression.compressor(name)
    codec, level = codecs.CODECS[name].number, codecs.library_level(name, None)
    fixed = {"twin": native, "codec": codec, "compress": compress, "level": level}
    return lambda **options: any_rig(**fixed, **options)


def slow_value() -> bytes:
    """Takes gzip, which most builds link, a second at level 9."""
    return random.Random(3).randbytes(1_700_000).translate(bytes(b"abcd"[n & 3] for n in range(256)))


def slow_rig(make: MakeRig, **options: Any) -> Rig:
    return make(twin=native, codec=codecs.GZIP, level=9, compress=None, **{**LARGE, "batch_size": 1, **options})


def test_order_and_sequences(rig: MakeRig, broker: Broker) -> None:
    """Large batches are compressed elsewhere, small ones between them at once; neither overtakes the other."""
    chance = random.Random(1)
    made = rig(leaders=[1, 1, 1], batch_size=30_000, max_block_ms=60_000)
    values: list[list[bytes]] = [[], [], []]
    for number in range(600):
        value = b"%d " % number * chance.choice([1, 50, 4000])
        values[number % 3].append(value)
        made.send(value, partition=number % 3)
        if number % 50 == 0:
            made.plane.flush(0)
    assert made.plane.flush(20)
    for partition in range(3):
        sent = [each for each in broker.sent if each.partition == partition]
        assert broker.values(partition) == values[partition]
        assert any(len(each.values) == 1 for each in sent)
        expected = 0
        for each in sent:
            assert each.producer == (9, 0, expected)
            expected += len(each.values)


@without_zlib
def test_a_slow_batch_holds_nobody_up(any_rig: MakeRig) -> None:
    made = slow_rig(any_rig, leaders=[1, 1])

    def overtaken() -> bool:
        slow = made.send(slow_value(), partition=0)
        for _ in range(10):
            made.send(b"a small one, a small one, a small one", partition=1).get(5)
        overtaken = not slow.is_done
        slow.get(60)
        return overtaken

    # Ten small ones may take longer than a large one on a busy machine, but not each time.
    assert any(overtaken() for _ in range(3))


@without_zlib
def test_a_batch_that_expires_while_it_is_compressed(any_rig: MakeRig, broker: Broker) -> None:
    made = slow_rig(any_rig, delivery_timeout_ms=50, request_timeout_ms=50)
    slow = made.send(slow_value())
    with pytest.raises(errors.KafkaTimeoutError):
        slow.get(60)
    # Its bytes are given back by who compresses, once it has done with them.
    eventually(lambda: made.plane.counters()["memory_used"] == 0)
    assert not broker.sent

    def arrives() -> bool:
        made.send(b"v")   # whose own 50 ms may be over on a busy machine
        return made.plane.flush(5) and b"v" in broker.values()

    eventually(arrives)
    assert set(broker.values()) == {b"v"}


@without_zlib
def test_batches_that_are_left_at_the_end(any_rig: MakeRig, broker: Broker) -> None:
    """One is being compressed, others wait for it: all are told of, as they were sent."""
    made = slow_rig(any_rig)
    value = slow_value()
    futures = [made.send(value) for _ in range(4)]
    made.plane.close_appends()
    made.plane.stop()
    left = made.plane.abort(lambda: errors.IllegalStateError("too late"))
    assert len(left) + sum(future.succeeded() for future in futures) == 4
    for _, _, codec, body, _, count, _ in left:
        plain = compression.decompress(codec, body, LARGE["batch_size"])
        assert count == 1
        assert value in plain
    assert len(left) > 1
    assert all(future.is_done for future in futures)


def test_the_parts_of_a_split_batch(rig: MakeRig, broker: Broker) -> None:
    made = rig(**{**LARGE, "linger_ms": 60_000})
    broker.script = once(Answer(TOO_LARGE))
    values = [bytes([65 + number]) * SIZE for number in range(4)]
    futures = [made.send(value) for value in values]
    made.plane.set_leader_limit(TOPIC, 0)
    assert made.plane.flush(0) is False
    parked = made.parked()
    body = compression.decompress(parked.codec, parked.body(), MEGABYTE)
    records = native.decode_records(body, parked.base_timestamp, parked.record_count)
    made.plane.split(parked, [records[:1], records[1:]])
    for future in futures:
        future.get(10)
    assert broker.written() == values
    assert [sent.producer[2] for sent in broker.sent[1:]] == [0, 1]
    assert {sent.codec for sent in broker.sent} == {parked.codec}


def test_senders_that_wait_for_memory(rig: MakeRig, broker: Broker) -> None:
    made = rig(batch_size=SIZE, buffer_memory=3 * SIZE, max_block_ms=20_000)
    value = b"0123456789" * 100

    def send() -> None:
        for _ in range(200):
            made.send(value)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert made.plane.flush(20)
    assert broker.values() == [value] * 800
    assert made.plane.counters()["memory_used"] == 0
