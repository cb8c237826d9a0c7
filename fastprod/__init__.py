"""fastprod: a Kafka producer for Python. `from fastprod import KafkaProducer` replaces kafka-python's.

Names are loaded when they are first used, so `import fastprod` costs next to nothing and never imports kafka.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fastprod._version import __version__

if TYPE_CHECKING:
    from fastprod import errors, partitioners, serializers
    from fastprod._backend import FutureRecordMetadata, backend
    from fastprod.batch_future import BatchFuture
    from fastprod.diagnosis import Diagnosis
    from fastprod.faces.kafka_python import KafkaProducer
    from fastprod.faces.sigterm import close_on_sigterm
    from fastprod.stats import ProducerStats
    from fastprod.types import BatchMetadata, RecordMetadata, TopicPartition

_HOMES = {
    "BatchFuture": "fastprod.batch_future",
    "BatchMetadata": "fastprod.types",
    "Diagnosis": "fastprod.diagnosis",
    "FutureRecordMetadata": "fastprod._backend",
    "KafkaProducer": "fastprod.faces.kafka_python",
    "ProducerStats": "fastprod.stats",
    "RecordMetadata": "fastprod.types",
    "TopicPartition": "fastprod.types",
    "backend": "fastprod._backend",
    "close_on_sigterm": "fastprod.faces.sigterm",
}
_MODULES = ("errors", "partitioners", "serializers")

__all__ = [
    "BatchFuture",
    "BatchMetadata",
    "Diagnosis",
    "FutureRecordMetadata",
    "KafkaProducer",
    "ProducerStats",
    "RecordMetadata",
    "TopicPartition",
    "__version__",
    "backend",
    "close_on_sigterm",
    "errors",
    "partitioners",
    "serializers",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"fastprod.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'fastprod' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
