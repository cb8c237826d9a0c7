"""A real Apache Kafka for tests and for throwaway use, from nothing but `pip`.

Importing this package costs next to nothing: each name is loaded on first use, so that the pytest plugin and the
command line do not pay for what they may never start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastprod.testing._errors import BrokerError, MissingExtraError
    from fastprod.testing._faults import PlannedFault
    from fastprod.testing._frames import Request
    from fastprod.testing.broker import KafkaBroker
    from fastprod.testing.proxy import FaultProxy
    from fastprod.testing.tap import Tap

__all__ = ["BrokerError", "FaultProxy", "KafkaBroker", "MissingExtraError", "PlannedFault", "Request", "Tap"]

_HOME = {
    "BrokerError": "_errors",
    "FaultProxy": "proxy",
    "KafkaBroker": "broker",
    "MissingExtraError": "_errors",
    "PlannedFault": "_faults",
    "Request": "_frames",
    "Tap": "tap",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use; AttributeError for any other."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
