"""Every release `KafkaBroker` starts takes what our producer sends, and gives it back to somebody else's consumer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from judges import PATIENCE_S, produce, read_compressed

from fastprod import KafkaProducer
from fastprod.testing import KafkaBroker, Request, Tap

RECORDS = 2000
# The newest Produce request each of them knows: it shows that the release that runs is the one that was asked for.
NEWEST_PRODUCE = {"2.8.2": 9, "3.9.1": 11, "4.3.1": 13}


@pytest.fixture(scope="module", params=list(NEWEST_PRODUCE))
def broker(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    with KafkaBroker(version=request.param, proxied=True) as started:
        yield started


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_of_every_codec_come_back(broker: KafkaBroker, codec: str | None) -> None:
    topic = f"codec-{codec}"
    broker.create_topic(topic)
    values = [b"value %d " % number * (number % 50) for number in range(RECORDS)]
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers, compression_type=codec) as producer:
        futures = [producer.send(topic, value, partition=0) for value in values]
        assert [future.get(PATIENCE_S).offset for future in futures] == list(range(RECORDS))
    assert read_compressed(broker, topic, RECORDS) == values


@pytest.mark.parametrize(("acks", "idempotent"), [("all", True), ("all", False), (1, False), (0, False)])
def test_every_way_of_acknowledgement(broker: KafkaBroker, acks: Any, idempotent: bool) -> None:
    topic = f"acks-{acks}-{idempotent}"
    broker.create_topic(topic)
    options = {"acks": acks, "enable_idempotence": idempotent}
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **options) as producer:
        for number in range(RECORDS):
            producer.send(topic, b"%d" % number, partition=0)
        producer.flush(PATIENCE_S)
    assert read_compressed(broker, topic, RECORDS) == [b"%d" % number for number in range(RECORDS)]


@pytest.mark.parametrize("way", ["requests", "responses"])
def test_nothing_is_lost_or_doubled_when_connections_break(broker: KafkaBroker, way: Any) -> None:
    topic = f"broken-{way}"
    broker.create_topic(topic)
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers, batch_size=5000) as producer:
        for number in range(RECORDS):
            producer.send(topic, b"%d" % number, partition=0)
            if number % 400 == 0:
                fault = broker.proxy().cut_at(20, way, api_key=0)
                producer.send(topic, b"", partition=0)
                assert fault.wait(PATIENCE_S)
        producer.flush(PATIENCE_S)
    total = RECORDS + RECORDS // 400
    values = read_compressed(broker, topic, total)
    assert [value for value in values if value] == [b"%d" % number for number in range(RECORDS)]
    assert broker.end_offset(topic) == total


def test_it_survives_being_killed_with_its_data(broker: KafkaBroker) -> None:
    broker.create_topic("killed", partitions=3)
    produce(broker, "killed", [b"before"])
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        producer.send("killed", b"ours", partition=0).get(PATIENCE_S)
        broker.kill()
        future = producer.send("killed", b"meanwhile", partition=0)
        broker.start()
        assert future.get(PATIENCE_S).offset == 2
    assert read_compressed(broker, "killed", 3) == [b"before", b"ours", b"meanwhile"]


@pytest.mark.native_only
def test_it_can_be_stopped_and_paused(broker: KafkaBroker) -> None:
    broker.create_topic("stopped")
    produce(broker, "stopped", [b"one"])
    broker.stop()
    broker.start()
    broker.pause()
    broker.resume()
    broker.delete_topic("stopped")
    broker.create_topic("stopped")
    produce(broker, "stopped", [b"two"])
    assert read_compressed(broker, "stopped", 1) == [b"two"]


def test_it_is_the_release_that_was_asked_for(broker: KafkaBroker) -> None:
    class Versions(Tap):
        used: set[int] = set()

        def request(self, request: Request) -> bytes | None:
            if request.api_key == 0:
                self.used.add(request.version)
            return request.payload

    broker.create_topic("versions")
    broker.proxy().tap = Versions()
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        producer.send("versions", b"one").get(PATIENCE_S)
    broker.proxy().tap = None
    broker.proxy().cut()
    assert Versions.used == {NEWEST_PRODUCE[broker.version]}
