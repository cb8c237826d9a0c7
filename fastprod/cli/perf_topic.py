"""Making the topic for `fastprod perf --create-topic`."""

from __future__ import annotations

import struct
from typing import Any

from fastprod import config
from fastprod.cli.connection import text_of
from fastprod.cli.failure import CommandError
from fastprod.testing import BrokerError, _admin

_USAGE = 2
_ANSWER_S = 10.0


def create_topic(options: dict[str, Any], topic: str, partitions: int) -> None:
    """Create it by the first of the bootstrap servers that answers, with the cluster's own replication factor.

    CommandError where the options make no sense, none answers, or the topic is refused, as one that exists is.
    """
    try:
        servers = config.load(options).servers
    except ValueError as error:
        raise CommandError(text_of(error), _USAGE) from error
    reason: Exception | None = None
    for server in servers:
        try:
            return _admin.create_topic((server.host, server.port), topic, partitions, -1, {}, _ANSWER_S)
        except (OSError, struct.error) as error:
            reason = error
        except BrokerError as error:
            raise CommandError(f"--create-topic: {error}") from error
    raise CommandError(f"--create-topic: no broker answers ({reason})")
