"""A broker that does as it is told, and producers on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastprod import KafkaProducer
from fastprod.testing import ScriptedBroker

Make = Callable[..., KafkaProducer]


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    """One node with the topics "t" (two partitions) and "other" (one); its producer ids are 77."""
    with ScriptedBroker({"t": 2, "other": 1}) as made:
        made.next_identity = (77, 0)
        yield made


@pytest.fixture
def two() -> Iterator[ScriptedBroker]:
    """Two nodes; "t" has one partition, which node 1 leads."""
    with ScriptedBroker({"t": 1}, nodes=2) as made:
        made.next_identity = (77, 0)
        yield made


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make producers on `two` or `broker`, whichever the test uses, with short pauses; closed at its end."""
    made: list[KafkaProducer] = []

    def begin(**options: Any) -> KafkaProducer:
        name = "two" if "two" in request.fixturenames else "broker"
        if "bootstrap_servers" not in options:
            options["bootstrap_servers"] = request.getfixturevalue(name).bootstrap_servers
        made.append(KafkaProducer(**{"retry_backoff_ms": 5, "reconnect_backoff_ms": 5, **options}))
        return made[-1]

    yield begin
    for each in made:
        try:
            each.close(0)
        except Exception as error:
            print("closing at the end of the test:", error)
