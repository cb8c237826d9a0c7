"""The way of the control plane's own requests: to any broker that answers.

Metadata and InitProducerId can be asked of every broker. A request goes out on the ready
connection with the least to do; while there is none it waits here, and brokers are dialed: known
ones first, bootstrap servers when no broker is known or each one's last attempt failed (KIP-899).

One peer that is deaf must not hold up the producer for a whole request timeout. After a second
without a connection the next peer is dialed beside the first; and after two seconds without an
answer a request is also sent to another broker, and the first answer counts. That does no harm:
asking twice for metadata changes nothing, and a producer id that nobody uses is forgotten. Once a
request timeout is over since it first went out, the next failure counts as well: else one that
nobody answers would never end, since each new connection is one more that may answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastprod.control.connection import Connection, Receiver, State, Target
from fastprod.control.dialer import Dialer
from fastprod.control.journal import Journal
from fastprod.control.loop import Timer
from fastprod.control.wire import Call, Versions

_STAGGER_S: Final = 1.0
_MOST_DIALING: Final = 4
_PATIENCE_S: Final = 2.0
# A connection that waits for an answer past its idle time is looked at again this often.
_IDLE_CHECK_S: Final = 0.1


class _Errand:
    """A request on its way to its first answer. `tried`: the connections it went out on. `due`:
    from when on a failure counts even if others may still answer."""

    __slots__ = ("call", "done", "due", "hurry", "receiver", "tried", "waiting_for")

    def __init__(self, call: Call[Any], receiver: Receiver) -> None:
        self.call = call
        self.receiver = receiver
        self.done = False
        self.tried: list[Connection] = []
        self.waiting_for = 0
        self.due = 0.0
        self.hurry: Timer | None = None

    def answered(self, error: Exception | None, now: float) -> bool:
        """Note an answer or a failure; return whether it is the one that counts."""
        self.waiting_for -= 1
        if self.done or (error is not None and self.waiting_for > 0 and now < self.due):
            return False
        self.done = True
        if self.hurry is not None:
            self.hurry.cancel()
        self.tried.clear()
        return True


class Channel:
    """Control thread only. `brokers` returns whom it may dial beside the bootstrap servers;
    `offered` is what the last broker that was connected to lists in ApiVersions."""

    def __init__(
        self,
        dialer: Dialer,
        journal: Journal,
        bootstrap: Sequence[Target],
        brokers: Callable[[], Sequence[Target]],
        max_idle_s: float,
    ) -> None:
        self._dialer = dialer
        self._loop = dialer.loop
        self._journal = journal
        self._bootstrap = list(bootstrap)
        self._brokers = brokers
        self._max_idle_s = max_idle_s
        self.offered: Versions = {}
        self._connections: list[Connection] = []
        self._queue: list[_Errand] = []
        self._last_dial = float("-inf")
        self._retry: Timer | None = None
        self._idle: Timer | None = None
        self._bootstrap_only = True
        self._closed = False
        self._announced: dict[str, str] = {}

    @property
    def bootstrap_connected(self) -> bool:
        """Whether a bootstrap server's handshake is done and its connection is open."""
        return any(
            each.state is State.READY and isinstance(each.target.node, str)
            for each in self._connections
        )

    def troubles(self) -> list[str]:
        """Return what went wrong last with each server we would ask, in words."""
        targets = [*self._brokers(), *self._bootstrap]
        reasons = (self._dialer.reconnects.reason(each.name) for each in targets)
        failed = [each for each in reasons if each]
        waiting = [
            f"{each.target.name}: {each.waits_for()}"
            for each in self._connections
            if each.state in (State.DIALING, State.HANDSHAKE) or each.open_requests
        ]
        return list(dict.fromkeys([*failed, *waiting]))

    def submit(self, call: Call[Any], receiver: Receiver) -> None:
        """Send a request as soon as there is a connection for it. `receiver(answer, None)` or, when
        all connections break under it, `receiver(None, error)`; the caller tries again."""
        self._queue.append(_Errand(call, receiver))
        self._pump()

    def distrust(self, peer: str, reason: str) -> None:
        """The data plane's connection to that "host:port" stopped answering: ask another one."""
        for each in list(self._connections):
            if each.target.name == peer:
                each.close(reason)

    def rebootstrap(self, reason: str) -> None:
        """Forget the brokers and start again from the bootstrap servers (KIP-1102)."""
        self._journal.warning("Starting over from the bootstrap servers: %s", reason)
        self._bootstrap_only = True
        self._dialer.reconnects.forget()
        for each in list(self._connections):
            each.close("starting over from the bootstrap servers")
        self._pump()

    def brokers_known(self) -> None:
        """Metadata has arrived: from now on brokers are asked before bootstrap servers."""
        self._bootstrap_only = False

    def close(self) -> None:
        """Close all connections; requests that wait are let go without an answer."""
        self._closed = True
        self._queue.clear()
        for timer in (self._retry, self._idle):
            if timer is not None:
                timer.cancel()
        for each in list(self._connections):
            each.close("the producer is closing")

    # Sending

    def _pump(self) -> None:
        if self._closed:
            return
        waiting, self._queue = self._queue, []
        self._queue = [*(each for each in waiting if not self._send(each)), *self._queue]
        if self._queue:
            self._dial()
        self._watch_idle()

    def _send(self, errand: _Errand) -> bool:
        """Send a request if there is a connection for it; return whether it need wait no longer."""
        if errand.done:
            return True
        ready = [
            each
            for each in self._connections
            if each.state is State.READY and each not in errand.tried
        ]
        if not ready:
            return False
        # A throttled one holds back what it is given; still better than nothing.
        best = min(ready, key=lambda each: (each.throttled_until, each.open_requests))
        if not errand.tried:
            errand.due = self._loop.now() + self._dialer.settings.request_timeout_s
        errand.tried.append(best)
        errand.waiting_for += 1
        try:
            best.request(errand.call, lambda answer, error: self._got(errand, answer, error))
        except Exception as error:
            # The broker has no version of it that we speak.
            self._got(errand, None, error)
        if not errand.done:
            errand.hurry = self._loop.call_later(_PATIENCE_S, lambda: self._hurry(errand))
        return True

    def _got(self, errand: _Errand, answer: Any, error: Exception | None) -> None:
        if errand.answered(error, self._loop.now()):
            self._loop.guard(errand.receiver, answer, error)

    def _hurry(self, errand: _Errand) -> None:
        if not errand.done:
            self._queue.append(errand)
            self._pump()

    # Connecting

    def _dial(self) -> None:
        """Begin a connection if it is time for one; otherwise see to it that we come back."""
        now = self._loop.now()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        busy = {each.target.name for each in self._connections}
        dialing = sum(each.state is not State.READY for each in self._connections)
        again_at = self._last_dial + _STAGGER_S
        if not dialing or (now >= again_at and dialing < _MOST_DIALING):
            target, allowed_at = self._choose(busy)
            if target is not None and allowed_at <= now:
                self._last_dial = now
                again_at = now + _STAGGER_S
                self._connections.append(
                    self._dialer.open(target, self._became_ready, self._was_closed)
                )
            elif target is not None:
                again_at = allowed_at
            else:
                again_at = now + _STAGGER_S
        self._retry = self._loop.call_later(again_at - now, self._pump)

    def _choose(self, busy: set[str]) -> tuple[Target | None, float]:
        """Return whom to dial next and from when on that is allowed."""
        reconnects = self._dialer.reconnects
        brokers = [] if self._bootstrap_only else list(self._brokers())
        candidates = brokers
        if all(reconnects.failures(each.name) > 0 for each in brokers):
            candidates = [*brokers, *self._bootstrap]
        candidates = [each for each in candidates if each.name not in busy]
        if not candidates:
            return None, 0.0
        random.shuffle(candidates)
        best = min(candidates, key=lambda each: reconnects.allowed_at(each.name))
        return best, reconnects.allowed_at(best.name)

    def _became_ready(self, connection: Connection) -> None:
        self.offered = connection.versions
        self._journal.debug("Connected to %s (%s)", connection.target.name, connection.target.node)
        self._pump()

    def _was_closed(self, connection: Connection, reason: str) -> None:
        self._connections = [each for each in self._connections if each is not connection]
        if not self._closed:
            self._announce(connection, reason)
            self._pump()

    def _announce(self, connection: Connection, reason: str) -> None:
        """Log a trouble once, not once an attempt."""
        name = connection.target.name
        if connection.served:
            self._announced.pop(name, None)
            self._journal.debug("%s", reason)
        elif self._announced.get(name) != reason:
            self._announced[name] = reason
            self._journal.warning("Cannot use %s: %s", name, reason)

    # Idling

    def _watch_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        quiet = [each for each in self._connections if each.state is State.READY]
        if not quiet:
            return
        due = min(each.last_used for each in quiet) + self._max_idle_s
        self._idle = self._loop.call_later(
            max(_IDLE_CHECK_S, due - self._loop.now()), self._close_idle
        )

    def _close_idle(self) -> None:
        limit = self._loop.now() - self._max_idle_s
        for each in list(self._connections):
            if each.state is State.READY and not each.open_requests and each.last_used <= limit:
                each.close("idle")
        self._watch_idle()
