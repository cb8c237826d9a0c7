"""Brokers older and newer than the one at hand: a relay changes what it says of its versions.

What the client then sends is really answered by the broker, and the records are read back. Brokers of the 2.1 to 3.9
releases are told from their lists of versions alone; the newer one lists versions and an API that nobody knows yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from recording import API_VERSIONS, INIT_PRODUCER_ID, METADATA, PRODUCE, Relay, Request

from fastprod import KafkaProducer, errors
from fastprod.testing import KafkaBroker

from .conftest import MakeTopic
from .reading import log_batches, read_back
from .requests import api_versions_response, produced, read_api_versions, write_api_versions

CLIENT = "of-all-ages"
COUNT = 500
UNSUPPORTED_VERSION = 35

Ranges = dict[int, tuple[int, int]]

# Source: the tables of the releases, by API key; only what a producer uses.
RELEASES: dict[str, Ranges] = {
    "2.1": {PRODUCE: (0, 7), METADATA: (0, 7), API_VERSIONS: (0, 2), INIT_PRODUCER_ID: (0, 1)},
    "3.0": {PRODUCE: (0, 9), METADATA: (0, 11), API_VERSIONS: (0, 3), INIT_PRODUCER_ID: (0, 4)},
    "3.9": {PRODUCE: (0, 11), METADATA: (0, 12), API_VERSIONS: (0, 4), INIT_PRODUCER_ID: (0, 5)},
}


def pretend(edit: Callable[[Ranges], Ranges], newest_api_versions: int = 127) -> Callable[[Request, bytes], bytes]:
    """Return a change for the relay: a broker with another list of versions, which answers ApiVersions above
    `newest_api_versions` as brokers do that do not know it."""

    def change(request: Request, response: bytes) -> bytes:
        if request.api_key != API_VERSIONS or request.client_id != CLIENT:
            return response
        if request.version > newest_api_versions:
            # KIP-511: error 35 in the layout of version 0, whatever was asked, and the range of this API alone.
            kind = api_versions_response(0)
            body = read_api_versions(request.version, response)
            listed = {API_VERSIONS: (0, newest_api_versions)}
            plain = kind(error_code=type(body.error_code)(UNSUPPORTED_VERSION), api_keys=_items(kind, listed))
            return write_api_versions(request.correlation_id, plain)
        body = read_api_versions(request.version, response)
        ranges = edit({each.api_key: (each.min_version, each.max_version) for each in body.api_keys})
        changed = dataclasses.replace(body, api_keys=_items(type(body), ranges))
        return write_api_versions(request.correlation_id, changed)

    return change


def _items(kind: Any, ranges: Ranges) -> tuple[Any, ...]:
    (item,) = kind.__dataclass_fields__["api_keys"].type.__args__[:1]
    return tuple(
        item(api_key=key, min_version=first, max_version=last) for key, (first, last) in sorted(ranges.items())
    )


def versions_used(relay: Relay, api_key: int) -> set[int]:
    return {request.version for request in relay.requests(api_key, CLIENT)}


def send_and_read_back(
    broker: KafkaBroker, relay: Relay, topic: str, codec: str | None = None, **options: Any
) -> None:
    """Send records over a few partitions, and find all of them in the log and with a consumer."""
    partitions = 3
    with KafkaProducer(
        bootstrap_servers=relay.address, client_id=CLIENT, compression_type=codec, linger_ms=5, **options
    ) as producer:
        futures = [
            producer.send(topic, b"value %d" % number, b"%d" % number, [("h", b"%d" % number)], number % partitions)
            for number in range(COUNT)
        ]
    sent = produced(relay.requests(PRODUCE, CLIENT))
    relay.change = None
    for partition in range(partitions):
        mine = [each.batch.lasting for each in sent if each.partition == partition]
        assert [batch.lasting for batch in log_batches(broker, topic, partition)] == mine
    found = read_back(relay.address, topic, partitions)
    for number, future in enumerate(futures):
        metadata = future.get()
        message = found[metadata.partition][metadata.offset]
        assert (message.partition(), message.offset()) == (number % partitions, number // partitions)
        assert (message.key(), message.value()) == (b"%d" % number, b"value %d" % number)
        assert message.headers() == [("h", b"%d" % number)]
        assert message.timestamp()[1] == metadata.timestamp
    assert sum(map(len, found.values())) == COUNT


@pytest.mark.parametrize("acks", [0, 1, "all"])
@pytest.mark.parametrize("version", range(3, 14))
def test_each_version_of_produce(
    own_broker: KafkaBroker, relay: Relay, topic: MakeTopic, version: int, acks: Any
) -> None:
    relay.change = pretend(lambda ranges: {**ranges, PRODUCE: (0, version)})
    name = topic(own_broker, 3)
    if acks == 0:
        with KafkaProducer(bootstrap_servers=relay.address, client_id=CLIENT, acks=0) as producer:
            futures = [producer.send(name, b"%d" % number, partition=0) for number in range(COUNT)]
        assert {future.get().offset for future in futures} == {-1}
        relay.change = None
        found = []
        while len(found) < COUNT:
            # Nobody said when the broker has written them.
            found = read_back(relay.address, name, 3)[0]
        assert [message.value() for message in found] == [b"%d" % number for number in range(COUNT)]
    else:
        send_and_read_back(own_broker, relay, name, acks=acks)
    assert versions_used(relay, PRODUCE) == {version}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_an_older_broker(
    own_broker: KafkaBroker, relay: Relay, topic: MakeTopic, release: str, codec: str | None
) -> None:
    ranges = RELEASES[release]
    relay.change = pretend(lambda _: ranges, ranges[API_VERSIONS][1])
    send_and_read_back(own_broker, relay, topic(own_broker, 3), codec)
    for api_key in (PRODUCE, METADATA, INIT_PRODUCER_ID):
        assert versions_used(relay, api_key) == {ranges[api_key][1]}
    # Once with our newest on each connection, and then with the broker's.
    assert versions_used(relay, API_VERSIONS) == {4, ranges[API_VERSIONS][1]}


def test_a_broker_that_answers_only_the_oldest_api_versions(
    own_broker: KafkaBroker, relay: Relay, topic: MakeTopic
) -> None:
    relay.change = pretend(lambda ranges: ranges, 0)
    send_and_read_back(own_broker, relay, topic(own_broker, 3))
    assert versions_used(relay, API_VERSIONS) == {0, 4}
    assert versions_used(relay, PRODUCE) == {13}


def test_a_newer_broker(own_broker: KafkaBroker, relay: Relay, topic: MakeTopic) -> None:
    def newer(ranges: Ranges) -> Ranges:
        return {key: (first, last + 20) for key, (first, last) in ranges.items()} | {20_000: (0, 3)}

    relay.change = pretend(newer)
    send_and_read_back(own_broker, relay, topic(own_broker, 3), "lz4")
    assert (versions_used(relay, PRODUCE), versions_used(relay, METADATA)) == ({13}, {13})
    assert versions_used(relay, INIT_PRODUCER_ID) == {5}


def test_a_newer_broker_that_dropped_old_versions(own_broker: KafkaBroker, relay: Relay, topic: MakeTopic) -> None:
    relay.change = pretend(lambda ranges: {**ranges, PRODUCE: (13, 30), METADATA: (13, 30)})
    send_and_read_back(own_broker, relay, topic(own_broker, 3))
    assert (versions_used(relay, PRODUCE), versions_used(relay, METADATA)) == ({13}, {13})


@pytest.mark.parametrize("version", [3, 4, 5, 6])
def test_zstd_needs_produce_7(own_broker: KafkaBroker, relay: Relay, topic: MakeTopic, version: int) -> None:
    relay.change = pretend(lambda ranges: {**ranges, PRODUCE: (0, version)})
    name = topic(own_broker)
    with KafkaProducer(bootstrap_servers=relay.address, client_id=CLIENT, compression_type="zstd") as producer:
        future = producer.send(name, b"value" * 100)
        with pytest.raises(errors.UnsupportedCompressionTypeError, match=r"zstd.*2\.1") as caught:
            future.get()
    assert caught.value.maybe_written is False
    assert relay.requests(PRODUCE, CLIENT) == []


@pytest.mark.parametrize(("first", "last", "remedy"), [(0, 2, "Upgrade the broker"), (14, 20, "Upgrade fastprod")])
def test_no_version_of_produce_in_common(
    own_broker: KafkaBroker, relay: Relay, topic: MakeTopic, first: int, last: int, remedy: str
) -> None:
    relay.change = pretend(lambda ranges: {**ranges, PRODUCE: (first, last)})
    name = topic(own_broker)
    with KafkaProducer(bootstrap_servers=relay.address, client_id=CLIENT) as producer:
        future = producer.send(name, b"value")
        with pytest.raises(errors.UnsupportedVersionError, match=f"Produce.*{remedy}") as caught:
            future.get()
    assert caught.value.maybe_written is False
    assert relay.requests(PRODUCE, CLIENT) == []
