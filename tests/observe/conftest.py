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
    """Two nodes with the topics "t" (three partitions) and "other" (one)."""
    with ScriptedBroker({"t": 3, "other": 1}, nodes=2) as made:
        yield made


@pytest.fixture
def make(broker: ScriptedBroker) -> Iterator[Make]:
    """Make producers on `broker`, with short pauses; closed at the end of the test."""
    made: list[KafkaProducer] = []

    def begin(**options: Any) -> KafkaProducer:
        options = {"bootstrap_servers": broker.bootstrap_servers, **options}
        made.append(KafkaProducer(**{"retry_backoff_ms": 5, "reconnect_backoff_ms": 5, **options}))
        return made[-1]

    yield begin
    for each in made:
        try:
            each.close(0)
        except Exception as error:
            print("closing at the end of the test:", error)
