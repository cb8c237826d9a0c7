"""For tests: a real Apache Kafka from nothing but `pip`, and a double that shows faults no real broker shows on demand.

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
    from fastprod.testing.scripted.broker import ScriptedBroker
    from fastprod.testing.scripted.log import Verdict
    from fastprod.testing.scripted.records import Batch, Record
    from fastprod.testing.scripted.releases import Api
    from fastprod.testing.scripted.requests import Pending
    from fastprod.testing.tap import Tap

__all__ = [
    "Api",
    "Batch",
    "BrokerError",
    "FaultProxy",
    "KafkaBroker",
    "MissingExtraError",
    "Pending",
    "PlannedFault",
    "Record",
    "Request",
    "ScriptedBroker",
    "Tap",
    "Verdict",
]

_HOME = {
    "Api": "scripted.releases",
    "Batch": "scripted.records",
    "BrokerError": "_errors",
    "FaultProxy": "proxy",
    "KafkaBroker": "broker",
    "MissingExtraError": "_errors",
    "Pending": "scripted.requests",
    "PlannedFault": "_faults",
    "Record": "scripted.records",
    "Request": "_frames",
    "ScriptedBroker": "scripted.broker",
    "Tap": "tap",
    "Verdict": "scripted.log",
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
