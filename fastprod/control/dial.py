"""From a host name to a connected socket: resolve, then try every address in turn."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from fastprod import addresses
from fastprod.control.loop import WRITE, Loop, Timer
from fastprod.control.resolve import Address, Answer, Resolver

_IN_PROGRESS: Final = frozenset(
    {0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY, getattr(errno, "WSAEWOULDBLOCK", 0)}
)


class SocketSettings(NamedTuple):
    """How sockets are made: kafka-python's socket_options, send_buffer_bytes and
    receive_buffer_bytes (None: the system's choice)."""

    options: Sequence[tuple[int, int, int]] = ()
    send_buffer_bytes: int | None = None
    receive_buffer_bytes: int | None = None


class Dial:
    """One attempt to reach a host. Ends in `on_connected(socket, address)` or `on_failed(reason)`,
    always from the loop and never from the constructor; neither comes after `cancel`."""

    def __init__(
        self,
        loop: Loop,
        resolver: Resolver,
        host: str,
        port: int,
        *,
        canonical: bool,
        timeout_s: float,
        settings: SocketSettings,
        on_connected: Callable[[socket.socket, Address], None],
        on_failed: Callable[[str], None],
    ) -> None:
        """`timeout_s` bounds the look-up, and then the attempt with each address."""
        self._loop = loop
        self._settings = settings
        self._timeout_s = timeout_s
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._name = str(addresses.Address(host, port))
        self._addresses: list[Address] = []
        self._failures: list[str] = []
        self._socket: socket.socket | None = None
        self._over = False
        self._timer: Timer = loop.call_later(timeout_s, self._resolving_took_too_long)
        resolver.resolve(host, port, canonical, self._resolved)

    def cancel(self) -> None:
        """Stop; harmless when it has ended."""
        self._over = True
        self._timer.cancel()
        self._drop_socket()

    def _resolved(self, answer: Answer) -> None:
        if self._over:
            return
        self._timer.cancel()
        if isinstance(answer, OSError):
            self._fail(f"cannot resolve {self._name}: {_words(answer)}")
            return
        self._addresses = list(answer)
        self._try_next()

    def _resolving_took_too_long(self) -> None:
        self._fail(f"cannot resolve {self._name}: no answer within {self._timeout_s:.1f} s")

    def _try_next(self) -> None:
        while self._addresses:
            address = self._addresses.pop(0)
            try:
                self._socket = self._begin(address)
            except (OSError, TypeError, ValueError, OverflowError) as error:
                # The last three: a socket option that is none.
                self._note(address, _words(error))
                continue
            self._timer = self._loop.call_later(
                self._timeout_s,
                lambda address=address: self._timed_out(address),  # type: ignore[misc]
            )
            self._loop.watch(
                self._socket,
                WRITE,
                lambda _, address=address: self._writable(address),  # type: ignore[misc]
            )
            return
        self._fail(f"cannot connect to {self._name}: {'; '.join(self._failures)}")

    def _begin(self, address: Address) -> socket.socket:
        sock = socket.socket(address.family, address.kind, address.protocol)
        try:
            sock.setblocking(False)
            for level, option, value in self._settings.options:
                sock.setsockopt(level, option, value)
            if self._settings.send_buffer_bytes is not None:
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_SNDBUF, self._settings.send_buffer_bytes
                )
            if self._settings.receive_buffer_bytes is not None:
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF, self._settings.receive_buffer_bytes
                )
            code = sock.connect_ex(address.sockaddr)
            if code not in _IN_PROGRESS:
                raise OSError(code, os.strerror(code))
        except BaseException:
            sock.close()
            raise
        return sock

    def _writable(self, address: Address) -> None:
        sock = self._socket
        if sock is None:
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0 and _is_connected_to_itself(sock):
            # Nobody listens on that local port, and the system gave the port to our own end.
            code = errno.ECONNREFUSED
        if code != 0:
            self._next_after(address, os.strerror(code))
            return
        self._timer.cancel()
        self._loop.unwatch(sock)
        self._socket = None
        self._over = True
        self._on_connected(sock, address)

    def _timed_out(self, address: Address) -> None:
        self._next_after(address, f"no connection within {self._timeout_s:.1f} s")

    def _next_after(self, address: Address, reason: str) -> None:
        self._timer.cancel()
        self._drop_socket()
        self._note(address, reason)
        self._try_next()

    def _note(self, address: Address, reason: str) -> None:
        self._failures.append(reason if str(address) == self._name else f"{address}: {reason}")

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
            self._socket = None

    def _fail(self, reason: str) -> None:
        if not self._over:
            self.cancel()
            self._on_failed(reason)


def _is_connected_to_itself(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        # Not connected any more: the first read will say why.
        return False


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
