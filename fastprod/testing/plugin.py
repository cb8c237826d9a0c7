"""The pytest plugin. It imports nothing of the package until a fixture is used, so that merely having the package
installed costs no test run anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastprod.testing.broker import KafkaBroker
    from fastprod.testing.scripted.broker import ScriptedBroker


def pytest_addoption(parser: pytest.Parser) -> None:
    """Settings of the configuration file, or `-o NAME=VALUE`: what `kafka_broker` is."""
    parser.addini("fastprod_kafka_version", "release of Apache Kafka that kafka_broker is (default: the newest known)")
    parser.addini("fastprod_kafka_nodes", "number of brokers of kafka_broker", default="1")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker that `scripted_broker` reads."""
    config.addinivalue_line("markers", "scripted_broker(topics, **options): what the fixture is made of")


@pytest.fixture(scope="session")
def kafka_broker(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """A running Apache Kafka, one for the whole session; killed and removed at its end. The settings
    `fastprod_kafka_version` and `fastprod_kafka_nodes` say which release and how many brokers."""
    from fastprod.testing import KafkaBroker
    from fastprod.testing._release import DEFAULT_VERSION

    settings = request.config
    version = settings.getini("fastprod_kafka_version") or DEFAULT_VERSION
    with KafkaBroker(int(settings.getini("fastprod_kafka_nodes")), version) as broker:
        yield broker


@pytest.fixture
def scripted_broker(request: pytest.FixtureRequest) -> Iterator[ScriptedBroker]:
    """A broker double of the test's own. `@pytest.mark.scripted_broker({"orders": 3}, version="2.1")` on a test, a
    class or a module gives it other than the default arguments."""
    from fastprod.testing import ScriptedBroker

    marker = request.node.get_closest_marker("scripted_broker")
    arguments, options = (marker.args, marker.kwargs) if marker is not None else ((), {})
    with ScriptedBroker(*arguments, **options) as broker:
        yield broker
