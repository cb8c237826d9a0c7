"""Which releases of Apache Kafka can be started, and what sets the old ones apart."""

from __future__ import annotations

import re

DEFAULT_VERSION = "4.3.1"
SUPPORTED = "2.8.x (with a ZooKeeper of its own), 3.9.x, and 4.0.0 and later"

_PATTERN = re.compile(r"(2\.8|3\.9|[4-9]\.\d+)\.\d+")


def check_version(version: str) -> None:
    """Raise ValueError, naming what is supported, for a version that cannot be started."""
    if not _PATTERN.fullmatch(version):
        raise ValueError(f"version={version!r}: supported are releases {SUPPORTED}, such as {DEFAULT_VERSION!r}")


def uses_zookeeper(version: str) -> bool:
    """Say whether brokers of that release keep their metadata in ZooKeeper (before KRaft was ready, KIP-500)."""
    return version.startswith("2.")
