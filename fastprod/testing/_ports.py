"""Choosing TCP ports on 127.0.0.1 for a broker that will be killed and started again on the same port."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from fastprod.testing._errors import BrokerError

HOST = "127.0.0.1"
_LOWEST = 10_000
_USUAL_EPHEMERAL_START = 32_768
_ATTEMPTS = 1_000


def free_port(taken: set[int] | None = None) -> int:
    """Return a port that is free on 127.0.0.1 now and outside the range the system gives to outgoing connections.

    Inside that range two things go wrong while the broker is down: an outgoing connection may take its port, so that it
    cannot come back, and a client that keeps reconnecting may be given the very port it connects to, and then TCP
    connects it to itself.

    Args:
        taken: ports not to return.

    Raises:
        BrokerError: no free port was found.
    """
    end = _ephemeral_start()
    for _ in range(_ATTEMPTS):
        port = random.randrange(_LOWEST, end)
        if port not in (taken or ()) and is_free(port):
            return port
    raise BrokerError(f"no free TCP port on {HOST} between {_LOWEST} and {end} in {_ATTEMPTS} attempts")


def is_free(port: int) -> bool:
    """Say whether nothing is bound to `port` on 127.0.0.1 (closed connections that linger do not count)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _ephemeral_start() -> int:
    try:
        start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return _USUAL_EPHEMERAL_START
    return min(start, _USUAL_EPHEMERAL_START) if start > _LOWEST + _ATTEMPTS else _USUAL_EPHEMERAL_START
