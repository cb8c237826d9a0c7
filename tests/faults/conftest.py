"""Brokers that may be killed, paused and cut off, and what every test here needs."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastprod import KafkaProducer
from fastprod.testing import KafkaBroker

from .fake_broker import FakeBroker
from .relay import Relay

_numbers = itertools.count(1)

MakeProducer = Callable[..., KafkaProducer]
MakeTopic = Callable[..., str]
Silence = Callable[[], None]


@pytest.fixture(scope="package")
def _direct_broker() -> Iterator[KafkaBroker]:
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture(scope="package")
def _relayed_broker() -> Iterator[tuple[KafkaBroker, Relay]]:
    relay = Relay()
    with KafkaBroker(properties={"advertised.listeners": f"PLAINTEXT://{relay.address}"}) as broker:
        host, _, port = broker.bootstrap_servers.rpartition(":")
        relay.target = (host, int(port))
        yield broker, relay
    relay.refuse()


@pytest.fixture
def own_broker(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """A broker of this folder's own, running and answering again after each test. Tests that ask for `relay` get the
    one whose clients all go through it."""
    if "relay" in request.fixturenames:
        broker, _ = request.getfixturevalue("_relayed_broker")
    else:
        broker = request.getfixturevalue("_direct_broker")
    yield broker
    if broker.is_running():
        broker.resume()
    else:
        broker.start()


@pytest.fixture
def relay(own_broker: KafkaBroker, _relayed_broker: tuple[KafkaBroker, Relay]) -> Iterator[Relay]:
    """The relay in front of `own_broker`, with nothing in the way."""
    _, relay = _relayed_broker
    relay.reset()
    yield relay
    relay.reset()


@pytest.fixture
def address(request: pytest.FixtureRequest, own_broker: KafkaBroker) -> str:
    """Where clients find `own_broker`."""
    if "relay" in request.fixturenames:
        return str(request.getfixturevalue("relay").address)
    return own_broker.bootstrap_servers


def producers_on(address: str) -> Iterator[MakeProducer]:
    """The body of a fixture that makes producers for that address."""
    made: list[KafkaProducer] = []

    def make(cls: type[KafkaProducer] = KafkaProducer, **options: Any) -> KafkaProducer:
        options.setdefault("bootstrap_servers", address)
        made.append(cls(**options))
        return made[-1]

    yield make
    for each in made:
        try:
            each.close(0)
        except Exception as error:
            print("closing at the end of the test:", error)


@pytest.fixture
def producer(address: str) -> Iterator[MakeProducer]:
    """Make producers for `own_broker`; they are closed at the end of the test, whatever state they are in."""
    yield from producers_on(address)


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    """A broker that the test answers for, with the topics "t" (two partitions) and "other" (one)."""
    with FakeBroker(t=2, other=1) as broker:
        yield broker


@pytest.fixture
def fake_producer(fake: FakeBroker) -> Iterator[MakeProducer]:
    """Make producers for `fake`, as `producer` does."""
    yield from producers_on(fake.address)


@pytest.fixture
def topic(own_broker: KafkaBroker) -> MakeTopic:
    """Make topics with a name of their own: `topic(partitions=1, **settings)`."""

    def make(partitions: int = 1, **settings: Any) -> str:
        name = f"fault-{next(_numbers)}"
        own_broker.create_topic(name, partitions, {key.replace("_", "."): value for key, value in settings.items()})
        return name

    return make


@pytest.fixture(params=["paused", "unreachable", "black hole"])
def silence(request: pytest.FixtureRequest, own_broker: KafkaBroker, relay: Relay) -> Silence:
    """Return what makes the broker fall silent: frozen; gone, so that connections end and new ones are refused; or
    alive behind a network that swallows everything."""

    def fall_silent() -> None:
        if request.param == "paused":
            own_broker.pause()
        elif request.param == "unreachable":
            relay.refuse()
        else:
            relay.holding = True

    return fall_silent


@pytest.fixture
def deaf_server() -> Iterator[str]:
    """The address of a socket that is listened on, and never accepted from or answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def refused_address() -> str:
    """Return an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"
