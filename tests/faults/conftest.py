"""Brokers that may be killed, paused and cut off, and what every test here needs."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastprod import KafkaProducer
from fastprod.testing import FaultProxy, KafkaBroker, ScriptedBroker

_numbers = itertools.count(1)

MakeProducer = Callable[..., KafkaProducer]
MakeTopic = Callable[..., str]
Silence = Callable[[], None]


@pytest.fixture(scope="package")
def _direct_broker() -> Iterator[KafkaBroker]:
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture(scope="package")
def _proxied_broker() -> Iterator[KafkaBroker]:
    with KafkaBroker(proxied=True) as broker:
        yield broker


@pytest.fixture
def own_broker(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """A broker of this folder's own, running and answering again after each test. Tests that ask for `proxy` get the
    one whose clients all go through it."""
    kind = "_proxied_broker" if "proxy" in request.fixturenames else "_direct_broker"
    broker: KafkaBroker = request.getfixturevalue(kind)
    yield broker
    if broker.is_running():
        broker.resume()
    else:
        broker.start()


@pytest.fixture
def proxy(own_broker: KafkaBroker) -> Iterator[FaultProxy]:
    """The proxy in front of `own_broker`, with nothing in the way."""
    proxy = own_broker.proxy()
    yield proxy
    proxy.heal()


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
def producer(own_broker: KafkaBroker) -> Iterator[MakeProducer]:
    """Make producers for `own_broker`; they are closed at the end of the test, whatever state they are in."""
    yield from producers_on(own_broker.bootstrap_servers)


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    """A broker double with the topics "t" (two partitions) and "other" (one), that gives producer id 77 to all. It has
    no complaints at the end: whatever the test made of its answers, what the producer sent was sound."""
    with ScriptedBroker({"t": 2, "other": 1}, auto_create=0) as broker:
        broker.next_identity = (77, 0)
        yield broker
        assert broker.complaints == []


@pytest.fixture
def scripted_producer(scripted: ScriptedBroker) -> Iterator[MakeProducer]:
    """Make producers for `scripted`, as `producer` does."""
    yield from producers_on(scripted.bootstrap_servers)


@pytest.fixture
def topic(own_broker: KafkaBroker) -> MakeTopic:
    """Make topics with a name of their own: `topic(partitions=1, **settings)`."""

    def make(partitions: int = 1, **settings: Any) -> str:
        name = f"fault-{next(_numbers)}"
        own_broker.create_topic(name, partitions, {key.replace("_", "."): value for key, value in settings.items()})
        return name

    return make


@pytest.fixture(params=["paused", "unreachable", "black hole"])
def silence(request: pytest.FixtureRequest, own_broker: KafkaBroker, proxy: FaultProxy) -> Silence:
    """Return what makes the broker fall silent: frozen; gone, so that connections end and new ones are refused; or
    alive behind a network that swallows everything."""

    def fall_silent() -> None:
        if request.param == "paused":
            own_broker.pause()
        elif request.param == "unreachable":
            proxy.refuse()
            proxy.cut()
        else:
            proxy.black_hole()

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
