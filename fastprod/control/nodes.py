"""When to try which address again: reconnect backoff and the memory of what went wrong.

Kept by "host:port" and shared by everything that connects: a broker that is down is not tried
twice as often because two parts of the producer want it, and one that is back for one part is
back for all.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fastprod.control.backoff import backoff_ms

SETUP_TIMEOUT_MS: Final = 10_000.0
SETUP_TIMEOUT_MAX_MS: Final = 30_000.0


class _Trouble(NamedTuple):
    failures: int
    allowed_at: float
    reason: str


class Reconnects:
    """Backoff per peer: reconnect_backoff_ms doubling up to reconnect_backoff_max_ms, 20 % jitter.

    A peer is a "host:port". Times are monotonic seconds.
    """

    def __init__(self, base_ms: float, max_ms: float) -> None:
        self._base_ms = base_ms
        self._max_ms = max(base_ms, max_ms)
        self._troubles: dict[str, _Trouble] = {}

    def failed(self, peer: str, reason: str, now: float) -> None:
        """A connection could not be made, or did not get past the handshake."""
        if now < self.allowed_at(peer) and self.failures(peer):
            # Two attempts at the same time failed of the same trouble.
            return
        failures = self.failures(peer) + 1
        self._troubles[peer] = _Trouble(failures, self._after(failures, now), reason)

    def lost(self, peer: str, reason: str, now: float) -> None:
        """A connection that worked is gone: one base backoff, so that a broker that accepts and
        drops is not hammered."""
        if peer not in self._troubles:
            self._troubles[peer] = _Trouble(0, self._after(1, now), reason)

    def succeeded(self, peer: str) -> None:
        """The handshake is done."""
        self._troubles.pop(peer, None)

    def failures(self, peer: str) -> int:
        """Return how many attempts failed in a row."""
        trouble = self._troubles.get(peer)
        return trouble.failures if trouble else 0

    def allowed_at(self, peer: str) -> float:
        """Return when the peer may be tried again; 0 for at once."""
        trouble = self._troubles.get(peer)
        return trouble.allowed_at if trouble else 0.0

    def reason(self, peer: str) -> str | None:
        """Return what went wrong last, None if nothing did."""
        trouble = self._troubles.get(peer)
        return trouble.reason if trouble else None

    def setup_timeout_s(self, peer: str) -> float:
        """Return how long connecting may take: 10 s, growing with failures to 30 s."""
        timeout = backoff_ms(SETUP_TIMEOUT_MS, SETUP_TIMEOUT_MAX_MS, self.failures(peer) + 1)
        return timeout / 1000

    def forget(self) -> None:
        """Everything starts anew (another set of brokers)."""
        self._troubles.clear()

    def _after(self, failures: int, now: float) -> float:
        return now + backoff_ms(self._base_ms, self._max_ms, failures) / 1000
