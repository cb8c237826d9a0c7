"""Requests and responses whole: size, header, body.

Request header v1, or v2 where the version is flexible; its client id stays a classic string in
both. Response header v0, or v1 where the version is flexible, except for ApiVersions, which has
v0 always: a client must be able to read the answer before it knows what the broker speaks.
Source: Kafka protocol guide, KIP-482, KIP-511.
"""

import struct
from typing import Any, NamedTuple, TypeVar

from fastprod import errors
from fastprod.protocol import versions
from fastprod.protocol.decode import Cursor, Malformed, struct_reader
from fastprod.protocol.encode import Unfit, struct_writer
from fastprod.protocol.schema import Int16, Int32, String, api_of

M = TypeVar("M", bound=tuple[Any, ...])

UNSUPPORTED_VERSION = (35).to_bytes(2, "big")
NO_TAGS = b"\x00"


class RequestHeader(NamedTuple):
    """Header v1; v2 only adds tagged fields after it."""

    api_key: Int16 = 0
    api_version: Int16 = 0
    correlation_id: Int32 = 0
    client_id: String | None = None


class ResponseHeader(NamedTuple):
    """Header v0; v1 only adds tagged fields after it."""

    correlation_id: Int32 = 0


def encode_request(request: tuple[Any, ...], version: int, correlation_id: int, client_id: str | None) -> bytes:
    """Return a request as it goes to the socket: the 4 bytes of size, the header, the body.

    `request` is a message like MetadataRequest; its class says which API it is. Raises
    UnsupportedVersionError if a field is set that this version cannot express, and ValueError if
    a value does not fit its field or fastprod does not speak the version.
    """
    api = api_of(type(request))
    header = RequestHeader(api.key, version, correlation_id, client_id)
    out = bytearray(4)
    _write(out, header, version, flexible=False)
    if api.is_flexible(version):
        out += NO_TAGS
    out += encode_message(request, version)
    struct.pack_into(">i", out, 0, len(out) - 4)
    return bytes(out)


def encode_message(message: tuple[Any, ...], version: int) -> bytes:
    """Return the body of a request or response alone; raises as encode_request does."""
    out = bytearray()
    _write(out, message, version, _flexible(type(message), version))
    return bytes(out)


def decode_response(response: type[M], version: int, payload: bytes) -> tuple[int, M]:
    """Return the correlation id and the message of a response.

    `response` is the class to decode to, `version` the one that the request was sent with,
    `payload` everything after the 4 bytes of size. Fields that the version lacks have their
    defaults. Raises KafkaProtocolError, which names API, version, field and offset in the
    payload, if the bytes are not exactly such a message; ValueError if fastprod does not speak
    the version.

    A broker that does not speak the version of an ApiVersions request answers in version 0 with
    error 35; that is recognised here.
    """
    flexible = _flexible(response, version)
    is_api_versions = api_of(response) is versions.API_VERSIONS
    cursor = Cursor(bytes(payload))
    header: ResponseHeader = _read(response, version, ResponseHeader, flexible and not is_api_versions, cursor)
    if is_api_versions and cursor.data[4:6] == UNSUPPORTED_VERSION:
        version, flexible = 0, False
    message: M = _read(response, version, response, flexible, cursor)
    _expect_end(response, version, cursor)
    return header.correlation_id, message


def decode_message(message: type[M], version: int, data: bytes) -> M:
    """Return a request or response from its body alone; raises as decode_response does."""
    cursor = Cursor(bytes(data))
    decoded: M = _read(message, version, message, _flexible(message, version), cursor)
    _expect_end(message, version, cursor)
    return decoded


def _flexible(message: type, version: int) -> bool:
    """Return whether that version is flexible; ValueError if it is none of ours."""
    api = api_of(message)
    if not api.versions.first <= version <= api.versions.last:
        raise ValueError(f"{api.name} version {version}: fastprod speaks {api.versions}")
    return api.is_flexible(version)


def _write(out: bytearray, message: tuple[Any, ...], version: int, flexible: bool) -> None:
    try:
        struct_writer(type(message), version, flexible)(out, message)
    except Unfit as unfit:
        raise ValueError(f"{type(message).__name__} version {version}: {unfit.field}: {unfit.reason}") from None


def _read(response: type, version: int, part: type, flexible: bool, cursor: Cursor) -> Any:
    try:
        return struct_reader(part, version, flexible)(cursor)
    except Malformed as malformed:
        raise _protocol_error(response, version, f"{part.__name__}.{malformed.field}", malformed) from None


def _expect_end(message: type, version: int, cursor: Cursor) -> None:
    left = cursor.end - cursor.position
    if left:
        surplus = Malformed(f"{left} bytes too many", cursor.position)
        raise _protocol_error(message, version, message.__name__, surplus)


def _protocol_error(message: type, version: int, field: str, malformed: Malformed) -> "errors.KafkaProtocolError":
    api = api_of(message)
    return errors.KafkaProtocolError(
        f"{api.name} (API {api.key}) version {version}: {field.rstrip('.')}: {malformed.reason},"
        f" at offset {malformed.offset}"
    )
