"""Connections for the data plane: opened here, handed over once the handshake is done."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from fastprod import errors
from fastprod.control.cluster import Cluster
from fastprod.control.connection import Connection, Target
from fastprod.control.dialer import Dialer
from fastprod.control.journal import Journal
from fastprod.control.loop import Timer
from fastprod.control.seam import Plane
from fastprod.control.wire import usable_version
from fastprod.protocol.versions import PRODUCE

_ZSTD: Final = 4
_ZSTD_FROM: Final = 7  # KIP-110
_UNKNOWN_NODE_RETRY_S: Final = 0.1


class Links:
    """Control thread only. `on_trouble`: a broker could not be reached, metadata may be stale."""

    def __init__(
        self,
        dialer: Dialer,
        plane: Plane,
        cluster: Cluster,
        journal: Journal,
        codec: int,
        on_trouble: Callable[[], None],
    ) -> None:
        self._dialer = dialer
        self._loop = dialer.loop
        self._plane = plane
        self._cluster = cluster
        self._journal = journal
        self._codec = codec
        self._on_trouble = on_trouble
        self._under_way: dict[int, Connection | Timer] = {}
        self._announced: dict[int, str] = {}
        self._closed = False

    def needed(self, node_id: int) -> None:
        """The data plane has batches for that broker and no connection (EVENT_NEED_CONNECTION)."""
        if node_id in self._under_way or self._closed:
            return
        target = self._target(node_id)
        if target is None:
            # Gone since the route was made. Metadata will name another leader; until then the
            # plane would ask again at once, hence the pause.
            self._on_trouble()
            self._later(node_id, _UNKNOWN_NODE_RETRY_S, lambda: self._give_up(node_id))
            return
        wait_s = self._dialer.reconnects.allowed_at(target.name) - self._loop.now()
        if wait_s > 0:
            self._later(node_id, wait_s, lambda: self._open(node_id))
        else:
            self._open(node_id)

    def look_again(self) -> None:
        """Something was learned about the brokers: end waits that have become pointless."""
        for node_id, waiting in list(self._under_way.items()):
            target = self._target(node_id)
            if not isinstance(waiting, Timer) or target is None:
                continue
            if self._dialer.reconnects.allowed_at(target.name) <= self._loop.now():
                waiting.cancel()
                self._open(node_id)

    def lost(self, node_id: int, reason: str) -> str:
        """The data plane's connection broke. Return the broker's "host:port", "" if unknown."""
        target = self._target(node_id)
        if target is None:
            return ""
        self._dialer.reconnects.lost(target.name, reason, self._loop.now())
        return target.name

    def close(self) -> None:
        self._closed = True
        under_way, self._under_way = dict(self._under_way), {}
        for each in under_way.values():
            if isinstance(each, Timer):
                each.cancel()
            else:
                each.close("the producer is closing")

    def _target(self, node_id: int) -> Target | None:
        broker = self._cluster.snapshot.brokers.get(node_id)
        return None if broker is None else Target(node_id, broker.host, broker.port)

    def _later(self, node_id: int, delay_s: float, action: Callable[[], None]) -> None:
        def run() -> None:
            self._under_way.pop(node_id, None)
            action()

        self._under_way[node_id] = self._loop.call_later(delay_s, run)

    def _open(self, node_id: int) -> None:
        target = self._target(node_id)
        if target is None:
            self._give_up(node_id)
            return
        self._under_way[node_id] = self._dialer.open(
            target,
            lambda connection: self._ready(node_id, connection),
            lambda _, reason: self._failed(node_id, reason),
        )

    def _ready(self, node_id: int, connection: Connection) -> None:
        try:
            version = usable_version(PRODUCE, connection.versions, connection.target.name)
            if self._codec == _ZSTD and version < _ZSTD_FROM:
                raise errors.UnsupportedCompressionTypeError(
                    f"{connection.target.name} is too old for compression_type='zstd', which "
                    "brokers store from Kafka 2.1 on; choose another."
                )
            descriptor = connection.hand_over()
        except (errors.UnsupportedVersionError, errors.UnsupportedCompressionTypeError) as error:
            # No retry mends this, and what waited would expire without a word about the cause. A
            # later send tries again: the broker may have been upgraded.
            self._plane.fail_queued(error)
            connection.close(str(error.args[0]))
            return
        except OSError:
            return  # closed, and reported as such
        self._under_way.pop(node_id, None)
        self._announced.pop(node_id, None)
        self._plane.set_trouble(node_id, "")
        self._dialer.handed_over(connection)
        try:
            self._plane.attach(node_id, descriptor, version)
        except Exception:
            socket.close(descriptor)
            self._give_up(node_id)
            raise

    def _failed(self, node_id: int, reason: str) -> None:
        if self._closed:
            return
        if self._announced.get(node_id) != reason:
            self._announced[node_id] = reason
            self._journal.warning("Cannot use broker %s: %s", node_id, reason)
        self._plane.set_trouble(node_id, reason)
        self._on_trouble()
        self._give_up(node_id)

    def _give_up(self, node_id: int) -> None:
        """Have the plane ask again if it still needs the broker; backoff is waited for then."""
        self._under_way.pop(node_id, None)
        self._plane.connection_failed(node_id)
