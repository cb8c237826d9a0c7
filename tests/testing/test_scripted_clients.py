"""Producers that are not ours, and ours, on an unscripted `ScriptedBroker` of every release."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import KafkaError, Producer
from kafka import KafkaProducer as TheirProducer

from fastprod import KafkaProducer
from fastprod.testing import Api, ScriptedBroker

# With the version of Produce that a client of today agrees on.
RELEASES = {"2.1": 7, "2.4": 8, "3.3": 9, "4.0": 12, "4.3": 13}
VALUES = [b"%d" % number for number in range(200)]


@pytest.mark.native_only
class TestOtherClients:
    """Records arrive, offsets are told, and the log is what was sent."""

    @pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
    @pytest.mark.parametrize("release", RELEASES)
    def test_confluent_kafka(self, release: str, codec: str) -> None:
        offsets: list[int] = []

        def delivered(error: KafkaError | None, message: Any) -> None:
            assert error is None, error
            offsets.append(message.offset())

        with ScriptedBroker({"t": 1}, version=release) as broker:
            made = Producer(
                {
                    "bootstrap.servers": broker.bootstrap_servers,
                    "enable.idempotence": True,
                    "compression.type": codec,
                    "linger.ms": 5,
                }
            )
            for value in VALUES:
                made.produce("t", value, b"key", headers={"h": b"x"}, on_delivery=delivered)
            assert made.flush(20) == 0
            assert offsets == list(range(len(VALUES)))
            assert broker.values("t") == VALUES
            assert broker.records("t")[7] == (7, broker.records("t")[7].timestamp_ms, b"key", b"7", (("h", b"x"),))
            assert {each.epoch for each in broker.log("t")} == {0}
            assert not broker.complaints or codec == "zstd"

    @pytest.mark.parametrize("release", RELEASES)
    def test_kafka_python(self, release: str) -> None:
        with ScriptedBroker({"t": 1}, version=release) as broker:
            made = TheirProducer(bootstrap_servers=broker.bootstrap_servers, compression_type="gzip")
            futures = [made.send("t", value, partition=0) for value in VALUES]
            assert [each.get(20).offset for each in futures] == list(range(len(VALUES)))
            made.close()
            assert broker.values("t") == VALUES
            assert not broker.complaints

    @pytest.mark.parametrize("release", RELEASES)
    def test_aiokafka(self, release: str) -> None:
        async def run(address: str) -> list[int]:
            async with AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True) as made:
                futures = [await made.send("t", value, partition=0) for value in VALUES]
                return [(await each).offset for each in futures]

        with ScriptedBroker({"t": 1}, version=release) as broker:
            assert asyncio.run(run(broker.bootstrap_servers)) == list(range(len(VALUES)))
            assert broker.values("t") == VALUES
            assert not broker.complaints

    @pytest.mark.parametrize("release", RELEASES)
    def test_fastprod(self, release: str) -> None:
        with ScriptedBroker({"t": 1}, version=release) as broker:
            with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as made:
                futures = [made.send("t", value, partition=0) for value in VALUES]
                made.flush(20)
            assert [each.get(0).offset for each in futures] == list(range(len(VALUES)))
            assert broker.values("t") == VALUES
            assert {each.version for each in broker.requests_of(Api.PRODUCE)} == {RELEASES[release]}
            assert not broker.complaints

    def test_a_topic_that_nobody_made(self) -> None:
        with ScriptedBroker(auto_create=3) as broker:
            made = TheirProducer(bootstrap_servers=broker.bootstrap_servers)
            made.send("new", b"x").get(20)
            assert len(made.partitions_for("new")) == 3
            made.close()
            assert broker.topics == {"new": 3}
