"""Makes connections: one place that knows loop, resolver, settings, backoff and traffic."""

from __future__ import annotations

from collections.abc import Callable

from fastprod.control.connection import Connection, ConnectionSettings, Target
from fastprod.control.loop import Loop
from fastprod.control.nodes import Reconnects
from fastprod.control.resolve import Resolver
from fastprod.control.traffic import Traffic


class Dialer:
    """Opens connections, tells `reconnects` how that went and counts what they carry."""

    def __init__(self, loop: Loop, settings: ConnectionSettings, reconnects: Reconnects) -> None:
        self.loop = loop
        self.settings = settings
        self.reconnects = reconnects
        self.traffic: dict[int | str, Traffic] = {}
        self.opened = 0
        self.closed = 0
        self._resolver = Resolver(loop)

    def open(
        self,
        target: Target,
        on_ready: Callable[[Connection], None],
        on_closed: Callable[[Connection, str], None],
    ) -> Connection:
        """Begin a connection. `on_ready` comes once its handshake is done, `on_closed` when it
        ends without having been handed over."""
        peer = target.name
        was_ready = False

        def ready(connection: Connection) -> None:
            nonlocal was_ready
            was_ready = True
            self.opened += 1
            on_ready(connection)

        def closed(connection: Connection, reason: str) -> None:
            now = self.loop.now()
            self.closed += was_ready
            if connection.served:
                self.reconnects.lost(peer, reason, now)
            else:
                # Versions alone prove nothing: a listener that expects SASL tells them to all.
                self.reconnects.failed(peer, reason, now)
            on_closed(connection, reason)

        return Connection(
            self.loop,
            self._resolver,
            target,
            self.settings,
            self.reconnects.setup_timeout_s(peer),
            self.traffic.setdefault(target.node, Traffic()),
            ready,
            lambda: self.reconnects.succeeded(peer),
            closed,
        )

    def handed_over(self, connection: Connection) -> None:
        """A connection is the data plane's now, which counts it from here on."""
        self.opened -= 1
        self.reconnects.succeeded(connection.target.name)
