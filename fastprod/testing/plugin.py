"""The pytest plugin. It imports nothing of the package until a fixture is used, so that merely having the package
installed costs no test run anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastprod.testing.broker import KafkaBroker
    from fastprod.testing.scripted.broker import ScriptedBroker


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker that `scripted_broker` reads."""
    config.addinivalue_line("markers", "scripted_broker(topics, **options): what the fixture is made of")


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """A running Apache Kafka, one for the whole session; killed and removed at its end."""
    from fastprod.testing import KafkaBroker

    with KafkaBroker() as broker:
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
