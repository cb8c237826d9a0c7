"""A broker whose clients go through a relay, and topics of a test's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from recording import Relay

from fastprod.testing import KafkaBroker

_numbers = itertools.count(1)

MakeTopic = Callable[..., str]


@pytest.fixture(scope="package")
def _relayed() -> Iterator[tuple[KafkaBroker, Relay]]:
    with KafkaBroker(proxied=True) as broker:
        yield broker, Relay(broker.proxy())


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
