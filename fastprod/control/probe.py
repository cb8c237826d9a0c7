"""One address, step by step, over a blocking socket of its own: what `diagnose` is made of.

Nothing here touches a producer's connections or threads, so it works beside one that hangs. It all
happens on the caller's thread, but for the look-up of a name, which nothing can interrupt.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from typing import Any, Final, NamedTuple

from fastprod import errors
from fastprod.addresses import Address as Server
from fastprod.control.frames import FrameReader
from fastprod.control.resolve import Address, look_up
from fastprod.control.wire import Call, OfferedVersions, Versions, api_versions, usable_version
from fastprod.diagnosis import Check
from fastprod.protocol.versions import METADATA, PRODUCE, release_of

_RECEIVE_BYTES: Final = 65536
_CORRELATION: Final = struct.Struct(">i")
_SASL_OR_GONE: Final = (
    "The listener may expect SASL, which is not supported yet: name one with security protocol "
    "PLAINTEXT. Or the broker is on its way down: look at its log."
)


class Settings(NamedTuple):
    """What a conversation needs to know of the configuration."""

    client_id: str
    receive_message_max_bytes: int


class Watch:
    """Times one step, and what is left of its time. Seconds."""

    def __init__(self, deadline: float) -> None:
        self.began = time.monotonic()
        self.deadline = deadline

    def left(self) -> float:
        """Raises TimeoutError when nothing is left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def passed(self, step: str, seen: str) -> Check:
        return Check(step, True, seen, "", self._elapsed_ms())

    def failed(self, step: str, seen: str, remedy: str) -> Check:
        return Check(step, False, seen, remedy, self._elapsed_ms())

    def waited(self) -> str:
        return f"within {self._elapsed_ms():.0f} ms"

    def _elapsed_ms(self) -> float:
        return (time.monotonic() - self.began) * 1000


class Conversation:
    """Requests and answers over a connected socket, one at a time."""

    def __init__(self, sock: socket.socket, settings: Settings) -> None:
        self.versions: Versions = {}
        self._socket = sock
        self._settings = settings
        self._frames = FrameReader(settings.receive_message_max_bytes)
        self._correlation_id = 0

    def ask(self, call: Call[Any], watch: Watch, version: int | None = None) -> Any:
        """Return the answer. Raises TimeoutError, OSError, KafkaProtocolError for bytes that are no
        such answer and UnsupportedVersionError where we speak no version that the broker does."""
        if version is None:
            version = usable_version(call.api, self.versions, "the broker")
        self._correlation_id += 1
        self._socket.settimeout(watch.left())
        self._socket.sendall(call.encode(version, self._correlation_id, self._settings.client_id))
        while (frame := self._frames.next()) is None:
            self._socket.settimeout(watch.left())
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("closed the connection")
            self._frames.feed(data)
        (answered,) = _CORRELATION.unpack_from(frame)
        if answered != self._correlation_id:
            raise errors.CorrelationIdError(f"the answer has correlation id {answered}")
        return call.read(version, frame).value

    def ask_versions(self, watch: Watch) -> OfferedVersions:
        call = api_versions()
        offered: OfferedVersions = self.ask(call, watch, call.api.versions.last)
        while offered.retry_with is not None:
            offered = self.ask(call, watch, offered.retry_with)
        self.versions = offered.versions
        return offered

    def close(self) -> None:
        self._socket.close()


class Probe(NamedTuple):
    """How far it went: the steps up to the first that failed, and the conversation where none did.
    `release` is () where it did not get that far."""

    checks: tuple[Check, ...]
    release: tuple[int, ...]
    conversation: Conversation | None


def probe(server: Server, deadline: float, settings: Settings, advertised_by: str = "") -> Probe:
    """Resolve, connect, see whether it is Kafka and which. `advertised_by`: the broker that tells
    clients of this address, "" for a bootstrap server. `deadline`: on the monotonic clock."""
    checks: list[Check] = []
    addresses = _resolve(server, Watch(deadline), checks, advertised_by)
    sock = _connect(server, addresses, Watch(deadline), checks, advertised_by) if addresses else None
    if sock is None:
        return Probe(tuple(checks), (), None)
    conversation = Conversation(sock, settings)
    if not _handshake(conversation, Watch(deadline), checks, sock.getpeername()):
        conversation.close()
        return Probe(tuple(checks), (), None)
    return Probe(tuple(checks), release_of(conversation.versions), conversation)


def _resolve(server: Server, watch: Watch, checks: list[Check], by: str) -> list[Address]:
    found: list[list[Address] | Exception] = []

    def ask() -> None:
        try:
            found.append(look_up(server.host, server.port, canonical=False))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=ask, name="fastprod-diagnose-resolve", daemon=True)
    thread.start()
    thread.join(max(0.0, watch.deadline - time.monotonic()))
    if not found or isinstance(found[0], Exception):
        words = _words(found[0]) if found and isinstance(found[0], Exception) else None
        checks.append(
            watch.failed(
                "resolve",
                f"cannot resolve {server.host!r}: {words or f'no answer {watch.waited()}'}",
                _advertised(by, server, "cannot resolve")
                or "Check the spelling of the name, and this machine's DNS or /etc/hosts.",
            )
        )
        return []
    addresses = found[0]
    shown = ", ".join(str(each.sockaddr[0]) for each in addresses)
    checks.append(watch.passed("resolve", f"{server.host} is {shown}"))
    return addresses


def _connect(
    server: Server, addresses: list[Address], watch: Watch, checks: list[Check], by: str
) -> socket.socket | None:
    failures = []
    for number, address in enumerate(addresses):
        sock = socket.socket(address.family, address.kind, address.protocol)
        try:
            # The last one gets all that is left.
            sock.settimeout(watch.left() / (len(addresses) - number))
            sock.connect(address.sockaddr)
            if sock.getsockname() == sock.getpeername():
                raise ConnectionRefusedError("Connection refused")
        except OSError as error:
            sock.close()
            failures.append(f"{address}: {_words(error) or f'no answer {watch.waited()}'}")
            continue
        checks.append(watch.passed("connect", f"connected to {address}"))
        return sock
    remedy = _advertised(by, server, "cannot reach") or (
        "Check that the broker runs and listens at that port, and that no firewall is in between."
    )
    checks.append(watch.failed("connect", f"cannot connect to {'; '.join(failures)}", remedy))
    return None


def _handshake(
    conversation: Conversation, watch: Watch, checks: list[Check], peer: tuple[Any, ...]
) -> bool:
    try:
        # Half of the time: who does not answer is asked whether it speaks TLS in the other half.
        half = Watch(time.monotonic() + watch.left() / 2)
        offered = conversation.ask_versions(half)
    except (OSError, errors.KafkaProtocolError) as error:
        checks.append(_not_kafka(error, watch, peer))
        return False
    if offered.error_code:
        kind = errors.for_code(offered.error_code)
        seen = f"it refuses ApiVersions: {kind.__name__}: {kind.description}"
        checks.append(watch.failed("versions", seen, "Look at the broker's log."))
        return False
    checks.append(watch.passed("protocol", "it speaks Kafka, without TLS"))
    release = ".".join(map(str, release_of(offered.versions)))
    try:
        for api in (PRODUCE, METADATA):
            usable_version(api, offered.versions, "the broker")
    except errors.UnsupportedVersionError as error:
        seen, _, remedy = str(error.args[0]).partition(". ")
        checks.append(watch.failed("versions", seen, remedy))
        return False
    checks.append(watch.passed("versions", f"like Apache Kafka {release}"))
    return True


def _not_kafka(error: Exception, watch: Watch, peer: tuple[Any, ...]) -> Check:
    if speaks_tls(peer, watch.deadline):
        return watch.failed(
            "protocol",
            "it is a TLS server",
            "TLS is not supported yet: name a listener with security protocol PLAINTEXT.",
        )
    is_it = "Check host and port: is that a Kafka broker's listener?"
    if isinstance(error, TimeoutError):
        return watch.failed("protocol", f"it does not answer ApiVersions {watch.waited()}", is_it)
    if isinstance(error, OSError):
        return watch.failed(
            "protocol", f"it closed the connection instead of answering ApiVersions ({_words(error)})", is_it
        )
    return watch.failed("protocol", f"it is no Kafka broker: {error.args[0]}", is_it)


def speaks_tls(peer: tuple[Any, ...], deadline: float) -> bool:
    """Whether a TLS handshake gets an answer there; whose certificate it is is not asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    with contextlib.suppress(OSError), socket.create_connection(peer[:2], left) as sock:
        try:
            context.wrap_socket(sock).close()
        except ssl.SSLError as error:
            # An alert is TLS, too: it may want a client's certificate, or a version we lack.
            return error.reason is not None and "ALERT" in error.reason
        return True
    return False


def closed_without_answer(request: str, error: Exception, watch: Watch) -> tuple[str, str]:
    """Return (seen, remedy) for a request that got no proper answer after the handshake."""
    if isinstance(error, TimeoutError):
        return f"{request} is not answered {watch.waited()}", "Look at the broker's log and load."
    if isinstance(error, OSError):
        return f"it closed the connection without answering {request}", _SASL_OR_GONE
    return f"{request}: {error.args[0]}", "Look at the broker's log; is its release supported?"


def _advertised(by: str, server: Server, verb: str) -> str:
    if not by:
        return ""
    return (
        f"Broker {by} tells clients to connect to {server}, which this machine {verb}. Set the "
        "broker's advertised.listeners to a host and port that clients can reach, or make that one "
        "reachable here (DNS, /etc/hosts, firewall, port mapping)."
    )


def _words(error: Exception) -> str:
    """What the system says; "" for a timeout."""
    if isinstance(error, TimeoutError):
        return ""
    return getattr(error, "strerror", None) or str(error)
