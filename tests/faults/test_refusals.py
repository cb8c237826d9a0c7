"""Batches that a broker refuses for good, here and in kafka-python: the README's table of what each does after it."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kafka
import kafka.errors
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

import fastprod
from fastprod.testing import KafkaBroker

_numbers = itertools.count(1)
# A topic without ACLs is everybody's.
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": True,
}
GOOD: dict[str, Any] = {"value": b"good", "key": b"k", "partition": 0}
THEIRS = pytest.param(kafka, id="kafka-python", marks=pytest.mark.native_only)
LIBRARIES = [pytest.param(fastprod, id="fastprod"), THEIRS]


@pytest.fixture(scope="module")
def guarded() -> Iterator[KafkaBroker]:
    """A broker with an authorizer."""
    with KafkaBroker(properties=AUTHORIZER) as broker:
        yield broker


@pytest.fixture(scope="module")
def admin(guarded: KafkaBroker) -> AdminClient:
    return AdminClient({"bootstrap.servers": guarded.bootstrap_servers})


MakeTopic = Callable[..., str]


@pytest.fixture
def topic(guarded: KafkaBroker) -> MakeTopic:
    """Make topics: `topic({setting: value})`."""

    def make(settings: dict[str, object] | None = None) -> str:
        name = f"refusals-{next(_numbers)}"
        guarded.create_topic(name, 1, settings)
        return name

    return make


def allow(admin: AdminClient, topic: str, what: AclOperation) -> None:
    """From now on only what is allowed to somebody is."""
    anybody = ("User:ANONYMOUS", "*", what, AclPermissionType.ALLOW)
    binding = AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, *anybody)
    for future in admin.create_acls([binding]).values():
        future.result(30)


class Case(NamedTuple):
    """`error`: its name in both libraries. `settings`: of the topic. `bad`: what `send` is called with."""

    error: str
    settings: dict[str, object]
    bad: dict[str, Any]


CASES = {
    "too large": Case("MessageSizeTooLargeError", {"max.message.bytes": 1000}, {"value": b"x" * 5000}),
    "timestamp": Case(
        "InvalidTimestampError", {"message.timestamp.before.max.ms": 60_000}, {"value": b"x", "timestamp_ms": 1000}
    ),
    "no key": Case("InvalidRecordError", {"cleanup.policy": "compact"}, {"value": b"x"}),
    "not authorized": Case("TopicAuthorizationFailedError", {}, {"value": b"x"}),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", list(CASES))
def test_what_goes_on_after_a_refusal(
    guarded: KafkaBroker, admin: AdminClient, topic: MakeTopic, library: Any, case: str
) -> None:
    """Ours fails the one batch. kafka-python's fails everything that is sent from then on, with the same error."""
    named, settings, bad = CASES[case]
    error = getattr(library.errors, named)
    name, other = topic(settings), topic()
    if case == "not authorized":
        allow(admin, name, AclOperation.DESCRIBE)
    producer = library.KafkaProducer(bootstrap_servers=guarded.bootstrap_servers)
    try:
        assert producer.send(other, **GOOD).get(30).offset == 0
        with pytest.raises(error):
            producer.send(name, **bad, partition=0).get(30)
        if case == "not authorized":
            allow(admin, name, AclOperation.WRITE)
        for offset, each in ((0, name), (1, other)):
            future = producer.send(each, **GOOD)
            if library is fastprod:
                assert future.get(30).offset == offset
            else:
                with pytest.raises(error):
                    future.get(30)
    finally:
        producer.close(5)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_batch_that_can_be_split(
    guarded: KafkaBroker, topic: MakeTopic, library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Both split and deliver it. Ours remembers what the topic takes; kafka-python has the next one refused as well.

    Twelve records are parted three times until they fit. A line of the log may be written after the records it
    tells of have succeeded, so they are counted at the end.
    """
    name = topic({"max.message.bytes": 2000})
    producer = library.KafkaProducer(bootstrap_servers=guarded.bootstrap_servers, linger_ms=200)
    bursts = 4
    try:
        with caplog.at_level(logging.INFO):
            for burst in range(bursts):
                futures = [producer.send(name, bytes(500), partition=0) for _ in range(12)]
                offsets = [each.get(30).offset for each in futures]
                assert offsets == [12 * burst + number for number in range(12)]
            producer.close(5)
    finally:
        producer.close(5)
    refused = sum("splitting" in each or "refuses a batch" in each for each in caplog.messages)
    if library is fastprod:
        assert 0 < refused <= 3
    else:
        assert refused >= bursts


def test_the_readme_has_these_rows() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="ascii")
    table = readme.partition("<!-- refusals:begin -->")[2].partition("<!-- refusals:end -->")[0]
    named = re.findall(r"^\| [^|]*`(\w+Error)`", table, re.MULTILINE)
    assert named == [case.error for case in CASES.values()]
