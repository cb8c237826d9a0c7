"""Engines for tests: built as the face builds them, closed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastprod import _backend, config
from fastprod.control.producer import Engine

# Known already where the package is installed; this is for a checkout on the path.
from fastprod.testing.plugin import kafka_broker  # noqa: F401


class Sender(_backend.ProducerBase):
    """`send` bound to an engine, with nothing else of a face."""

    def __init__(self, engine: Engine) -> None:
        mode = _backend.PARTITION_DEFAULT
        self._bind(engine.plane, engine, None, None, mode, None, None)
        self.engine = engine


MakeSender = Callable[..., Sender]


@pytest.fixture
def sender() -> Iterator[MakeSender]:
    """Return a function that makes a Sender from the options of a producer."""
    made: list[Engine] = []

    def make(servers: Any, *, bootstrap: float | None = 10, **options: Any) -> Sender:
        engine = Engine(config.load({"bootstrap_servers": servers, **options}))
        made.append(engine)
        result = Sender(engine)
        if bootstrap is not None:
            engine.bootstrap(bootstrap)
        return result

    yield make
    for engine in made:
        engine.close(0)
