"""A broker whose clients go through a relay, and topics of a test's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from fastprod.testing import KafkaBroker

from .relay import Relay

_numbers = itertools.count(1)

MakeTopic = Callable[..., str]


@pytest.fixture(scope="package")
def _relayed() -> Iterator[tuple[KafkaBroker, Relay]]:
    relay = Relay()
    with KafkaBroker(properties={"advertised.listeners": f"PLAINTEXT://{relay.address}"}) as broker:
        host, _, port = broker.bootstrap_servers.rpartition(":")
        relay.target = (host, int(port))
        yield broker, relay
    relay.close()


@pytest.fixture
def own_broker(_relayed: tuple[KafkaBroker, Relay]) -> KafkaBroker:
    """The broker behind `relay`."""
    return _relayed[0]


@pytest.fixture
def relay(_relayed: tuple[KafkaBroker, Relay]) -> Iterator[Relay]:
    """The relay in front of `own_broker`, with nothing seen yet and nothing changed."""
    _, relay = _relayed
    relay.reset()
    yield relay
    relay.reset()


@pytest.fixture
def topic() -> MakeTopic:
    """Make topics: `topic(broker, partitions=1, config=None)` returns the name of a new one."""

    def make(broker: KafkaBroker, partitions: int = 1, config: dict[str, object] | None = None) -> str:
        name = f"end-to-end-{next(_numbers)}"
        broker.create_topic(name, partitions, config)
        return name

    return make
