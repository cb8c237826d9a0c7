"""A real broker for the tests of the faces: directly, and through a relay that watches.

The suite runs once with each twin (FASTPROD_BACKEND); what is read back is read with other
people's consumers, or straight from the broker's log.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from recording import Relay

from fastprod import KafkaProducer
from fastprod.testing import KafkaBroker

_numbers = itertools.count(1)

MakeProducer = Callable[..., KafkaProducer]
MakeTopic = Callable[..., str]


@pytest.fixture(scope="session")
def own_broker() -> Iterator[KafkaBroker]:
    """A broker behind a proxy; it creates topics that are asked for."""
    with KafkaBroker(proxied=True) as broker:
        yield broker


@pytest.fixture(scope="session")
def own_relay(own_broker: KafkaBroker) -> Relay:
    return Relay(own_broker.proxy())


@pytest.fixture
def relay(own_relay: Relay) -> Iterator[Relay]:
    """The relay, with nothing seen yet and nothing in the way."""
    own_relay.reset()
    yield own_relay
    own_relay.reset()


@pytest.fixture
def producer(relay: Relay) -> Iterator[MakeProducer]:
    """Make producers that go through the relay; they are closed at the end of the test."""
    made: list[KafkaProducer] = []

    def make(cls: type[KafkaProducer] = KafkaProducer, **options: Any) -> KafkaProducer:
        options.setdefault("bootstrap_servers", relay.address)
        made.append(cls(**options))
        return made[-1]

    yield make
    relay.reset()
    for each in made:
        try:
            each.close(5)
        except Exception as error:
            print("closing at the end of the test:", error)


@pytest.fixture
def topic(own_broker: KafkaBroker) -> MakeTopic:
    """Make topics with a name of their own: `topic(partitions=1, **settings)`."""

    def make(partitions: int = 1, **settings: Any) -> str:
        name = f"topic-{next(_numbers)}"
        config = {key.replace("_", "."): value for key, value in settings.items()}
        own_broker.create_topic(name, partitions, config)
        return name

    return make
