"""What can go wrong around a test broker."""

from __future__ import annotations


class BrokerError(RuntimeError):
    """The local Apache Kafka could not be set up or started, or refused what was asked; the message says what to do."""


class MissingExtraError(BrokerError, ImportError):
    """A package of an extra (`broker` unless told otherwise) is needed and not installed."""

    def __init__(self, what: str, extra: str = "broker") -> None:
        super().__init__(f"{what}. Install it with: pip install 'fastprod[{extra}]'")
