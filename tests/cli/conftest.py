"""What the tests of the command line have in common: the real broker, and a fresh topic for each test."""

from __future__ import annotations

import itertools

import pytest
from shell import MakeTopic

from fastprod.testing import KafkaBroker

# Known already where the package is installed; this is for a checkout on the path.
from fastprod.testing.plugin import kafka_broker  # noqa: F401

_numbers = itertools.count(1)


@pytest.fixture
def make_topic(kafka_broker: KafkaBroker) -> MakeTopic:  # noqa: F811
    """Return a function that creates a topic of a name nobody else has."""

    def make(partitions: int = 1, **config: object) -> str:
        name = f"cli-{next(_numbers)}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        kafka_broker.create_topic(name, partitions, settings)
        return name

    return make
