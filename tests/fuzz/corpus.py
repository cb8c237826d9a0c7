"""What real brokers answered, and what can be made of it: cut, lied about, changed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastprod import protocol
from fastprod.control import wire

PRODUCE, METADATA, SASL, API_VERSIONS, INIT_PRODUCER_ID = 0, 3, 17, 18, 22
FILE = Path(__file__).resolve().parent / "recorded.txt"
IDS = {"fuzz": b"F" * 16, "more": b"M" * 16}
# The control plane's messages; those of SaslAuthenticate no broker without SASL answers with.
MESSAGES: dict[int, type] = {
    METADATA: protocol.MetadataResponse,
    SASL: protocol.SaslHandshakeResponse,
    API_VERSIONS: protocol.ApiVersionsResponse,
    INIT_PRODUCER_ID: protocol.InitProducerIdResponse,
    36: protocol.SaslAuthenticateResponse,
}
# What the control plane makes of them.
CALLS: dict[int, wire.Call[Any]] = {
    METADATA: wire.metadata(IDS, False), API_VERSIONS: wire.api_versions(), INIT_PRODUCER_ID: wire.init_producer_id(),
}
# Lengths as nobody sends them, in the three ways that the protocol writes them.
LIES = [
    *(struct.pack(">i", number) for number in (-(2**31), -2, -1, 2**16, 2**31 - 1)),
    *(struct.pack(">h", number) for number in (-(2**15), -2, -1, 2**15 - 1)),
    b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x1f", b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x00", b"\x7f",
]


class Recorded(NamedTuple):
    """A response without its size. `release`: of Apache Kafka; `name`: what was asked for."""

    release: str
    api: int
    version: int
    name: str
    payload: bytes

    def line(self) -> str:
        """As it stands in the file."""
        name = self.name.replace(" ", "-")
        return f"{self.release} {self.api} {self.version} {name} {self.payload.hex()}\n"

    @property
    def id(self) -> str:
        """For pytest."""
        return f"{self.release}-{self.api}-v{self.version}-{self.name}"


def recorded(*apis: int) -> list[Recorded]:
    """The responses of these APIs; none named: all."""
    found = []
    for line in FILE.read_text(encoding="ascii").splitlines():
        release, api, version, name, payload = line.split()
        found.append(Recorded(release, int(api), int(version), name, bytes.fromhex(payload)))
    return [each for each in found if not apis or each.api in apis]


def cut(payload: bytes) -> Iterator[bytes]:
    """It, ending after each of its bytes but the last."""
    return (payload[:length] for length in range(len(payload)))


def lied(payload: bytes) -> Iterator[bytes]:
    """It, with each lie at each place behind the correlation id."""
    for at in range(4, len(payload)):
        for lie in LIES:
            yield payload[:at] + lie + payload[at + len(lie) :]
