"""The pytest plugin. It imports nothing of the package until a fixture is used, so that merely having the package
installed costs no test run anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastprod.testing.broker import KafkaBroker


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """A running Apache Kafka, one for the whole session; killed and removed at its end."""
    from fastprod.testing import KafkaBroker

    with KafkaBroker() as broker:
        yield broker
