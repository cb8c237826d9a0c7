"""One conversation with one broker over one socket, as a state machine that never blocks.

    DIALING --connected--> HANDSHAKE --ApiVersions answered--> READY --> CLOSED
                                                                     +--> handed over

READY, it either serves the control plane's requests (answers arrive strictly in request order and
are matched by correlation id) or `hand_over` gives its socket to the data plane. Whatever ends it,
`on_closed` is called once, with a reason that names host and port, and every open request gets an
error with that text first. Nothing is retried here.
"""

from __future__ import annotations

import collections
import enum
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastprod import addresses, errors
from fastprod.control.dial import Dial, SocketSettings
from fastprod.control.frames import FrameReader
from fastprod.control.loop import READ, WRITE, Loop, Timer
from fastprod.control.resolve import Address, Resolver
from fastprod.control.traffic import Traffic
from fastprod.control.wire import Call, OfferedVersions, Versions, api_versions, usable_version

_RECEIVE_BYTES: Final = 65536
# A large response must not keep the loop from its timers: the rest comes in the next pass.
_RECEIVES_A_PASS: Final = 16
_CORRELATION: Final = struct.Struct(">i")
_IS_IT_KAFKA: Final = (
    "is that a Kafka broker, and its listener one without TLS and SASL (not supported yet)?"
)

Receiver = Callable[[Any, Exception | None], None]


class State(enum.Enum):
    DIALING = enum.auto()
    HANDSHAKE = enum.auto()
    READY = enum.auto()
    CLOSED = enum.auto()


class ConnectionSettings(NamedTuple):
    """What all connections share."""

    client_id: str
    request_timeout_s: float
    receive_message_max_bytes: int
    sockets: SocketSettings


class Target(NamedTuple):
    """Whom to talk to. `node`: the node id, or "bootstrap-0" and so on."""

    node: int | str
    host: str
    port: int
    canonical: bool = False

    @property
    def name(self) -> str:
        return str(addresses.Address(self.host, self.port))


class _Open(NamedTuple):
    correlation_id: int
    call: Call[Any]
    version: int
    sent_at: float
    receiver: Receiver


class Connection:
    """See the module's text. `on_ready` (handshake done), `on_served` (first request answered) and
    `on_closed` are called from the loop. `served`: how many requests were answered."""

    def __init__(
        self,
        loop: Loop,
        resolver: Resolver,
        target: Target,
        settings: ConnectionSettings,
        setup_timeout_s: float,
        traffic: Traffic,
        on_ready: Callable[[Connection], None],
        on_served: Callable[[], None],
        on_closed: Callable[[Connection, str], None],
    ) -> None:
        self.target = target
        self.state = State.DIALING
        self.versions: Versions = {}
        self.last_used = loop.now()
        self.throttled_until = 0.0
        self.served = 0
        self._loop = loop
        self._settings = settings
        self._traffic = traffic
        self._on_ready = on_ready
        self._on_served = on_served
        self._on_closed = on_closed
        self._address: Address | None = None
        self._socket: socket.socket | None = None
        self._frames = FrameReader(settings.receive_message_max_bytes)
        self._outgoing = bytearray()
        self._open: collections.deque[_Open] = collections.deque()
        self._next_correlation_id = 0
        self._deadline: Timer | None = None
        self._resume: Timer | None = None
        self._dial: Dial | None = Dial(
            loop,
            resolver,
            target.host,
            target.port,
            canonical=target.canonical,
            timeout_s=setup_timeout_s,
            settings=settings.sockets,
            on_connected=self._connected,
            on_failed=self._close,
        )

    @property
    def open_requests(self) -> int:
        """Requests that are not answered yet."""
        return len(self._open)

    def waits_for(self) -> str:
        """What it is waiting for just now, in words. Any thread."""
        if self.state is State.DIALING:
            return "no answer to the attempt to connect yet"
        try:
            asked = self._open[0].call.name
        except IndexError:  # perhaps answered just now
            asked = "anything"
        if self.served:
            return f"connected, but {asked} is not answered yet"
        return f"connected, but it does not answer {asked}; {_IS_IT_KAFKA}"

    def request(self, call: Call[Any], receiver: Receiver) -> None:
        """Send a request; `receiver(result, None)` or `receiver(None, error)` comes later, once.

        Raises UnsupportedVersionError at once if the broker has no version of it that we speak.
        """
        if self.state is not State.READY:
            raise errors.NodeNotReadyError(f"The connection to {self._name()} is not ready.")
        version = usable_version(call.api, self.versions, self._name())
        self._send(call, version, receiver)

    def hand_over(self) -> int:
        """Give the socket away: its descriptor, with nothing read and nothing unwritten.

        Raises OSError where a byte has arrived that nobody asked for.
        """
        assert self._socket is not None
        assert self.state is State.READY
        assert not self._open
        if self._frames.buffered:
            reason = f"{self._name()} sent bytes that nobody asked for."
            self._close(reason)
            raise OSError(reason)
        self._loop.unwatch(self._socket)
        descriptor = self._socket.detach()
        self._socket = None
        self._end()
        return descriptor

    def close(self, reason: str) -> None:
        """End the conversation; `on_closed` is called unless it has ended already."""
        self._close(f"{self._name()}: {reason}")

    # Connecting and the handshake

    def _connected(self, sock: socket.socket, address: Address) -> None:
        self._dial = None
        self._socket = sock
        self._address = address
        self.last_used = self._loop.now()
        self._loop.watch(sock, READ, self._ready_event)
        self.state = State.HANDSHAKE
        call = api_versions()
        self._ask_versions(call, call.api.versions.last)

    def _ask_versions(self, call: Call[OfferedVersions], version: int) -> None:
        self._send(call, version, lambda answer, error: self._got_versions(call, answer, error))

    def _got_versions(
        self, call: Call[OfferedVersions], answer: OfferedVersions, error: Exception | None
    ) -> None:
        if error is not None:
            return  # closed already
        if answer.retry_with is not None:
            self._ask_versions(call, answer.retry_with)
        elif answer.error_code:
            kind = errors.for_code(answer.error_code)
            self._close(f"{self._name()} refused ApiVersions: {kind.description}", kind)
        else:
            self._become_ready(answer.versions)

    def _become_ready(self, versions: Versions) -> None:
        self.versions = versions
        self.state = State.READY
        self._on_ready(self)

    # Requests and responses

    def _send(self, call: Call[Any], version: int, receiver: Receiver) -> None:
        correlation_id = self._next_correlation_id
        self._next_correlation_id = (correlation_id + 1) % 2**31
        frame = call.encode(version, correlation_id, self._settings.client_id)
        now = self._loop.now()
        self._open.append(_Open(correlation_id, call, version, now, receiver))
        self._outgoing += frame
        self._traffic.sent(len(frame))
        self._traffic.open_requests += 1
        self.last_used = now
        self._set_deadline()
        self._flush()

    def _set_deadline(self) -> None:
        """Requests are answered in order, so the oldest one's deadline is the next one."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not self._open:
            return
        # Throttling is the broker's wish, not its silence (KIP-219).
        since = max(self._open[0].sent_at, self.throttled_until)
        due = since + self._settings.request_timeout_s
        self._deadline = self._loop.call_later(due - self._loop.now(), self._timed_out)

    def _timed_out(self) -> None:
        request = self._open[0].call.name
        waited = self._settings.request_timeout_s
        self._close(
            f"{self._name()} did not answer {request} within {waited * 1000:.0f} ms"
            + (f"; {_IS_IT_KAFKA}" if self.served == 0 else ""),
            errors.RequestTimedOutError,
        )

    def _ready_event(self, ready: int) -> None:
        try:
            if ready & WRITE:
                self._flush()
            if ready & READ and self._socket is not None:
                self._receive()
        except errors.KafkaProtocolError as error:
            self._close(f"{self._name()}: {error.args[0]}", type(error))
        except OSError as error:
            self._close(f"{self._name()}: {error.strerror or error}")
        except Exception as error:
            # Our own fault: a connection in an unknown state must not be used again.
            self._close(f"{self._name()}: internal error: {error!r}")
            raise

    def _flush(self) -> None:
        if self._socket is None:
            return
        if self._loop.now() < self.throttled_until:
            self._loop.watch(self._socket, READ, self._ready_event)
            return
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            # The reading side reports it, after whatever the broker still had to say.
            self._outgoing.clear()
        events = READ | WRITE if self._outgoing else READ
        self._loop.watch(self._socket, events, self._ready_event)

    def _receive(self) -> None:
        for _ in range(_RECEIVES_A_PASS):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError as error:
                # A server that closes before it has read our request resets the connection.
                self._close(f"{self._words_for_end()} ({error.strerror or error})")
                return
            if not data:
                self._close(self._words_for_end())
                return
            self._traffic.received(len(data))
            self._frames.feed(data)
            self._answer_frames()
            if len(data) < _RECEIVE_BYTES:
                return

    def _answer_frames(self) -> None:
        while self._socket is not None:
            frame = self._frames.next()
            if frame is None:
                return
            self._answer(frame)

    def _answer(self, frame: bytes) -> None:
        (correlation_id,) = _CORRELATION.unpack_from(frame)
        if not self._open:
            raise errors.KafkaProtocolError(
                f"sent {len(frame)} bytes that nobody asked for ({frame[:24]!r})"
            )
        request = self._open[0]
        if correlation_id != request.correlation_id:
            raise errors.CorrelationIdError(
                f"expected the answer to {request.call.name} (correlation id "
                f"{request.correlation_id}) but got one to {correlation_id}"
            )
        result = request.call.read(request.version, frame)
        self._open.popleft()
        if self.state is State.READY:
            self.served += 1
            if self.served == 1:
                self._on_served()
        self._account(request, result.throttle_ms)
        self._set_deadline()
        self._loop.guard(request.receiver, result.value, None)

    def _account(self, request: _Open, throttle_ms: int) -> None:
        now = self._loop.now()
        self.last_used = now
        self._traffic.open_requests -= 1
        self._traffic.answered((now - request.sent_at) * 1000, max(0, throttle_ms))
        if throttle_ms > 0 and request.version >= request.call.throttles_from:
            # A broken number must not silence a broker for weeks.
            pause_s = min(throttle_ms / 1000, self._settings.request_timeout_s)
            self.throttled_until = now + pause_s
            if self._resume is not None:
                self._resume.cancel()
            self._resume = self._loop.call_later(pause_s, self._flush)

    # The end

    def _words_for_end(self) -> str:
        name = self._name()
        if not self._open:
            return f"{name} closed the connection"
        request = self._open[0].call.name
        if self.state is State.HANDSHAKE:
            return (
                f"{name} closed the connection instead of answering {request}; {_IS_IT_KAFKA}"
            )
        if self.served == 0:
            return (
                f"{name} closed the connection without answering {request}; a listener that "
                "expects SASL, which is not supported yet, does that to a client that does not log in"
            )
        return f"{name} closed the connection before it answered {request}"

    def _close(self, reason: str, kind: type[Exception] | None = None) -> None:
        """`kind`: the class of the error that open requests get, None for KafkaConnectionError.
        No error is made that nobody gets: the first one may have to import kafka-python."""
        if self.state is State.CLOSED:
            return
        waiting = list(self._open)
        self._end()
        if waiting:
            error = (kind or errors.KafkaConnectionError)(reason)
            for each in waiting:
                self._loop.guard(each.receiver, None, error)
        self._loop.guard(self._on_closed, self, reason)

    def _end(self) -> None:
        self.state = State.CLOSED
        self._traffic.open_requests -= len(self._open)
        self._open.clear()
        self._outgoing.clear()
        for timer in (self._deadline, self._resume):
            if timer is not None:
                timer.cancel()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._socket is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
            self._socket = None

    def _name(self) -> str:
        if self._address is None:
            return self.target.name
        address = str(self._address)
        return address if address == self.target.name else f"{self.target.name} ({address})"
