"""Parses `bootstrap_servers`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from fastprod.refusal import bad_value, refusal

DEFAULT_PORT: Final = 9092
ACCEPTED: Final = (
    '"host[:port]", a comma-separated str of these, or a list of them '
    '(IPv6 with a port: "[::1]:9092")'
)

_PROTOCOL: Final = re.compile(r"^[A-Za-z0-9_+.-]*://")


class Address(NamedTuple):
    """Where a broker listens: host name, IPv4 or IPv6 address (no brackets) and TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_servers(servers: object) -> tuple[Address, ...]:
    """Return the addresses in `bootstrap_servers`, in the order given, each one once.

    A leading `PROTOCOL://` is ignored, as the Java client's configuration has it; without a port
    it is 9092. Raises KafkaConfigurationError (a ValueError too) if there is none or one is bad.
    """
    if isinstance(servers, str):
        entries: list[object] = [each for each in servers.split(",") if each.strip()]
    elif isinstance(servers, Iterable) and not isinstance(servers, bytes | bytearray | memoryview):
        entries = list(servers)
    else:
        raise bad_value("bootstrap_servers", servers, ACCEPTED)
    if not entries:
        raise refusal(
            f"bootstrap_servers={servers!r:.120} names no server. Give at least one "
            '"host:port" of your Kafka cluster.'
        )
    return tuple(dict.fromkeys(_parse_entry(each, servers) for each in entries))


def _parse_entry(entry: object, servers: object) -> Address:
    if not isinstance(entry, str):
        raise bad_value("bootstrap_servers", servers, ACCEPTED, f"{entry!r:.80} is no str.")
    text = _PROTOCOL.sub("", entry.strip())
    host, port = _split(text)
    if host is None or not host or any(each.isspace() for each in host) or "/" in host:
        raise bad_value("bootstrap_servers", servers, ACCEPTED, f"{entry!r:.80} has no host.")
    if port is None:
        return Address(host, DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise bad_value(
            "bootstrap_servers",
            servers,
            ACCEPTED,
            f"The port of {entry!r:.80} must be a number from 1 to 65535.",
        )
    return Address(host, int(port))


def _split(text: str) -> tuple[str | None, str | None]:
    """Return (host, port) as written; the host is None where brackets do not fit."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or not _is_ipv6(host) or (rest and not rest.startswith(":")):
            return None, None
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        return (text, None) if _is_ipv6(text) else (None, None)
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _is_ipv6(text: str) -> bool:
    import ipaddress  # slow to import, and seldom needed

    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
