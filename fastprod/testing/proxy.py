"""`FaultProxy`: a TCP proxy that does to a connection what networks do.

One thread serves all connections of a proxy, with bounded queues: who is slow on one side is felt on the other. It
passes bytes on unchanged; of Kafka's protocol it knows where requests and responses begin, so that a fault can be aimed
at a byte of one.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from fastprod.testing._errors import BrokerError
from fastprod.testing._faults import QUEUE_BYTES, Conditions, Direction, PlannedFault, Way, directions
from fastprod.testing._forks import Forgotten
from fastprod.testing._link import Link
from fastprod.testing._ports import HOST, free_port
from fastprod.testing.tap import Tap

_BACKLOG = 128
# FD_SETSIZE: select() knows no descriptor from there on.
_SELECT_LIMIT = 1024


class FaultProxy(Forgotten):
    """A proxy on 127.0.0.1 in front of `target`, from its construction to `close`; also a context manager.

    Every method returns when its effect is there: after `cut`, say, no connection is left. They may be called from any
    thread, and they add up; `heal` undoes them all. Where one takes a `way`, "requests" are the bytes that clients
    send, "responses" those that come back, and "both", the default, all.

    In front of one Kafka broker, that broker has to advertise the proxy's address, or clients go past it;
    `KafkaBroker(proxied=True)` arranges that. If the target refuses a connection, the client's is reset.

    Args:
        target: where to connect to: (host, port) or "host:port". May be changed at any time, for new connections.
        port: to listen on, 0 for any free one.
        tap: sees, and may change, whole requests and responses; see `Tap`. May be changed too, for new connections.

    Raises:
        OSError: the port is taken, or the target's name cannot be resolved.
        ValueError: the target has no port.
    """

    def __init__(self, target: tuple[str, int] | str, *, port: int = 0, tap: Tap | None = None) -> None:
        self.target = target
        self.port = port or free_port()
        self.tap = tap
        self._conditions = {direction: Conditions() for direction in Direction}
        self._planned: list[PlannedFault] = []
        self._links: dict[Link, None] = {}
        self._opened = 0
        self._counts: Counter[int] = Counter()
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._calls: list[Callable[[], None]] = []
        self._calls_lock = threading.Lock()
        self._closed = False
        self._listen()
        self._bell, self._knob = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True, name="fastprod-fault-proxy")
        super().__init__()
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """What to give to clients: "127.0.0.1:port"."""
        return f"{HOST}:{self.port}"

    @property
    def target(self) -> tuple[str, int]:
        """Where new connections lead to, resolved."""
        return self._target

    @target.setter
    def target(self, target: tuple[str, int] | str) -> None:
        if isinstance(target, str):
            host, _, number = target.rpartition(":")
            if not host or not number.isdigit():
                raise ValueError(f'target={target!r}: it must be (host, port) or "host:port"')
            target = (host.strip("[]"), int(number))
        family, _, _, _, address = socket.getaddrinfo(*target, type=socket.SOCK_STREAM)[0]
        self._family, self._target = family, (str(address[0]), int(address[1]))

    @property
    def connections(self) -> int:
        """How many connections clients have open, as far as is known here."""
        counts: list[int] = []
        self._do(lambda: counts.append(sum(link.open for link in self._links)))
        return counts[0]

    @property
    def opened(self) -> int:
        """How many connections were accepted so far."""
        return self._opened

    def requests(self, api_key: int) -> int:
        """Return how many requests of that kind (0: Produce) came so far, on all connections."""
        return self._counts[api_key]

    def cut(self) -> int:
        """Reset every connection now; return how many there were. New ones are accepted."""
        counts: list[int] = []

        def cut() -> None:
            counts.append(len(self._links))
            for link in list(self._links):
                self._drop(link)

        self._do(cut)
        return counts[0]

    def refuse(self) -> None:
        """Have new connections refused, as where nothing listens; those there are stay (see `cut`)."""
        self._do(self._refuse)

    def accept(self) -> None:
        """Accept connections again, on the same port. OSError if another process has taken it meanwhile."""
        self._do(self._listen)

    def delay(self, ms: float, way: Way = "both", *, on_its_way: int = QUEUE_BYTES) -> None:
        """Add `ms` milliseconds to the journey of every byte that comes from now on, 0: none.

        Args:
            on_its_way: how many bytes of a connection may be under way at once in a direction. With a long delay that
                is what limits its speed, as a network's own capacity times its delay would.

        Raises:
            ValueError: a negative delay, or no bytes that may be under way.
        """
        if on_its_way < 1:
            raise ValueError(f"on_its_way={on_its_way!r}: must be above 0")
        seconds = _not_negative("ms", ms) / 1000
        self._set(way, delay_s=seconds, on_its_way=on_its_way)

    def slow(self, bytes_per_s: float, way: Way = "both") -> None:
        """Let each connection carry no more than that many bytes a second in a direction; `math.inf`: any number.

        ValueError for what is not above 0.
        """
        if not bytes_per_s > 0:
            raise ValueError(f"bytes_per_s={bytes_per_s!r}: must be above 0")
        self._set(way, bytes_per_s=float(bytes_per_s))

    def one_byte_at_a_time(self, way: Way = "both") -> None:
        """Write every byte on its own."""
        self.pieces(1, way)

    def pieces(self, size: int, way: Way = "both") -> None:
        """Write at most `size` bytes at once, 0: any number."""
        self._set(way, piece=int(_not_negative("size", size)))

    def hold(self, way: Way = "both") -> None:
        """Keep bytes back until `release`, in order and without loss: a partition that TCP survives.

        The ends of connections are kept back as well: what a client sent before it closed arrives after the release.
        """
        self._set(way, held=True)

    def release(self, way: Way = "both") -> None:
        """Let go of what `hold` keeps back."""
        self._set(way, held=False)

    def black_hole(self, way: Way = "both") -> None:
        """Swallow every byte and every end of a connection; connections stay open, new ones too.

        A connection that lost something carries nothing more in that direction, and `heal` resets it.
        """
        self._set(way, swallowed=True)

    def cut_at(self, byte: int, way: Way = "requests", *, api_key: int | None = None) -> PlannedFault:
        """Reset one connection after exactly `byte` more bytes have passed on it in a direction.

        Args:
            way: "requests" or "responses".
            api_key: count from the first byte of the next request of that kind (0: Produce), its size included, or of
                the next response to one, on whichever connection that comes first. None: count from the first byte
                that comes on any connection.

        Returns:
            The planned fault, to be asked whether it has happened; it happens once.
        """
        return self._plan(byte, way, api_key, False)

    def stall_at(self, byte: int, way: Way = "requests", *, api_key: int | None = None) -> PlannedFault:
        """As `cut_at`, but the connection stays open, and everything that comes later is swallowed, both ways."""
        return self._plan(byte, way, api_key, True)

    def heal(self) -> None:
        """Undo everything: accept, no delay, full speed, nothing held; planned faults that did not happen will not.

        Connections that lost bytes are reset, for what they would carry is no longer a stream.
        """

        def heal() -> None:
            self._listen()
            self._planned.clear()
            for direction in Direction:
                vars(self._conditions[direction]).update(vars(Conditions()))
            for link in list(self._links):
                if link.lossy or any(pipe.stalled for pipe in link.pipes):
                    self._drop(link)

        self._do(heal)

    def close(self) -> None:
        """Refuse new connections, reset those there are and end the thread. A second call does nothing."""

        def close() -> None:
            self._closed = True

        with contextlib.suppress(BrokerError):
            self._do(close)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _plan(self, byte: int, way: Way, api_key: int | None, stall: bool) -> PlannedFault:
        if way == "both":
            raise ValueError("way='both': supported are 'requests' and 'responses'")
        fault = PlannedFault(directions(way)[0], int(_not_negative("byte", byte)), api_key, stall)
        self._do(lambda: self._planned.append(fault))
        return fault

    def _set(self, way: Way, **conditions: object) -> None:
        chosen = directions(way)

        def put() -> None:
            for direction in chosen:
                vars(self._conditions[direction]).update(conditions)

        self._do(put)

    def _do(self, call: Callable[[], None]) -> None:
        """Have the proxy's thread do something, and wait until it has; it then looks at every connection.

        What the call raises is raised here. BrokerError if the proxy is closed.
        """
        if threading.current_thread() is self._thread:
            call()
            return
        done = threading.Event()
        errors: list[BaseException] = []

        def answered() -> None:
            try:
                call()
            except BaseException as error:
                errors.append(error)
            done.set()

        with self._calls_lock:
            if self._closed:
                raise BrokerError("this FaultProxy is closed")
            self._calls.append(answered)
            self._knob.send(b"!")
        done.wait()
        if errors:
            raise errors[0]

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((HOST, self.port), backlog=_BACKLOG)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _refuse(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._selector.unregister(listener)
            with contextlib.suppress(OSError):
                # Closing alone would leave it to a child that was forked a moment ago.
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _run(self) -> None:
        try:
            while not self._closed:
                self._turn()
        finally:
            self._closed = True
            self._end()

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        now = time.monotonic()
        due = min((at for link in self._links if (at := link.due()) is not None), default=None)
        ready = self._ready(None if due is None else max(0.0, due - now))
        with self.working:
            self._work(ready, time.monotonic())

    def _ready(self, seconds: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what the selector finds, within `seconds` where they are not None."""
        if seconds and sys.platform == "linux" and self._selector.fileno() < _SELECT_LIMIT:
            # epoll waits for whole milliseconds, and Python rounds up: a delay of 0.2 ms would be one of 1. What it
            # looks at can be waited for as a descriptor, and select() has microseconds.
            select.select([self._selector.fileno()], [], [], seconds)
            seconds = 0.0
        return self._selector.select(seconds)

    def _work(self, ready: list[tuple[selectors.SelectorKey, int]], now: float) -> None:
        touched = {link for link in self._links if (at := link.due()) is not None and at <= now}
        for key, events in ready:
            if key.fileobj is self._bell:
                self._answer()
                touched.update(self._links)
            elif key.fileobj is self._listener:
                touched.update(self._admit())
            elif key.data in self._links:
                assert isinstance(key.fileobj, socket.socket)
                key.data.on_event(key.fileobj, events, now)
                touched.add(key.data)
        for link in touched:
            if link in self._links:
                self._serve(link, now)

    def _answer(self) -> None:
        self._bell.recv(4096)
        with self._calls_lock:
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def _admit(self) -> list[Link]:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return []
        link = Link(
            self._opened,
            client,
            self._family,
            self._target,
            self._conditions,
            self._planned,
            self._counts,
            self.tap,
        )
        self._opened += 1
        self._links[link] = None
        if not link.tell_opened():
            self._drop(link)
        return [link]

    def _serve(self, link: Link, now: float) -> None:
        if not link.flush(now):
            self._drop(link, reset=any(pipe.aborted for pipe in link.pipes))
            return
        if not link.open:
            link.tell_closed()
        for sock in (link.client, link.server):
            wanted = link.interest(sock)
            known = self._selector.get_map().get(sock)
            if known is None and wanted:
                self._selector.register(sock, wanted, link)
            elif known is not None and not wanted:
                self._selector.unregister(sock)
            elif known is not None and known.events != wanted:
                self._selector.modify(sock, wanted, link)

    def _drop(self, link: Link, reset: bool = True) -> None:
        for sock in (link.client, link.server):
            if sock in self._selector.get_map():
                self._selector.unregister(sock)
        for fault in self._planned:
            fault.forget(link)
        (link.reset if reset else link.close)()
        del self._links[link]
        link.tell_closed()

    def _end(self) -> None:
        for link in list(self._links):
            self._drop(link)
        self._refuse()
        with self._calls_lock:
            calls, self._calls = self._calls, []
        for call in calls:
            call()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        self._selector.close()
        for sock in (self._bell, self._knob, self._listener):
            if sock is not None:
                sock.close()
        for link in self._links:
            link.close()

    def forget(self) -> None:
        """Of use to a fork only: the proxy is closed in the child, and goes on in the parent."""
        self._closed = True
        self._calls_lock = threading.Lock()
        self._close_descriptors()


def _not_negative(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name}={value!r}: must not be negative")
    return value
