"""Requests read and responses written by `kio`, which is generated from Kafka's own message definitions: fastprod's
own codec is never its own judge."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib
import io
import struct
from typing import Any, NamedTuple

from fastprod.testing._errors import MissingExtraError

NO_TIME = datetime.timedelta(0)


class NoSuchMessageError(ValueError):
    """kio knows no message of this API and version."""


def require_packages() -> None:
    """Raise MissingExtraError where a package of the extra `scripted` is missing."""
    for name in ("kio", "crc32c"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(f"ScriptedBroker speaks through the package {name}", "scripted") from error


def read_request(frame: bytes) -> tuple[Any, Any]:
    """Return header and message of a request, the frame's length left out.

    Raises:
        NoSuchMessageError: kio has no such API or version.
        ValueError: the bytes are no such request, or there are more of them.
    """
    cls = _schema(*struct.unpack_from(">hh", frame), "request")
    read = importlib.import_module("kio.serial").entity_reader
    try:
        header, size = read(cls.__header_schema__)(frame, 0)
        message, more = read(cls)(frame, size)
    except Exception as error:
        raise ValueError(f"not a {cls.__name__} of version {cls.__version__}: {error!r}") from error
    if size + more != len(frame):
        raise ValueError(f"{len(frame) - size - more} bytes behind a {cls.__name__} of version {cls.__version__}")
    return header, message


def write_response(message: Any, correlation_id: int) -> bytes:
    """Return the frame of a response, its length in front."""
    payload = _written(type(message).__header_schema__(correlation_id=correlation_id)) + _written(message)
    return struct.pack(">i", len(payload)) + payload


class Maker:
    """Makes the entities of one response: `make("ProduceResponse", ...)` leaves out fields that this version lacks."""

    def __init__(self, api: int, version: int) -> None:
        self._module = importlib.import_module(_schema(api, version, "response").__module__)

    def __call__(self, entity: str, /, **values: Any) -> Any:
        cls = getattr(self._module, entity)
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def has(self, entity: str) -> bool:
        """Say whether this version has an entity."""
        return hasattr(self._module, entity)


class _OtherCode(NamedTuple):
    """Stands for kio's ErrorCode, which holds the codes that Kafka has."""

    value: int


def error_code(code: int) -> Any:
    """Return kio's ErrorCode, or something that is written as it is, for a code that Kafka does not have."""
    known = importlib.import_module("kio.schema.errors").ErrorCode
    try:
        return known(code)
    except ValueError:
        return _OtherCode(code)


def api_name(api: int) -> str:
    """Return an API's name, such as "InitProducerId"."""
    names: dict[int, str] = importlib.import_module("kio.schema.index").api_key_map
    return names[api].title().replace("_", "") if api in names else f"API {api}"


def milliseconds(count: int) -> datetime.timedelta:
    """Return a duration as kio has it."""
    return datetime.timedelta(milliseconds=count)


def moment(epoch_ms: int) -> datetime.datetime | None:
    """Return a time as kio has it, None for -1."""
    if epoch_ms == -1:
        return None
    return datetime.datetime.fromtimestamp(0, datetime.UTC) + milliseconds(epoch_ms)


@functools.cache
def _schema(api: int, version: int, kind: str) -> Any:
    index = importlib.import_module("kio.index")
    load = index.load_request_schema if kind == "request" else index.load_response_schema
    try:
        return load(api, version)
    except index.KioIndexError as error:
        raise NoSuchMessageError(f"API {api} in version {version}") from error


def _written(entity: Any) -> bytes:
    write = importlib.import_module("kio.serial").entity_writer
    with io.BytesIO() as buffer:
        write(type(entity))(buffer, entity)
        return buffer.getvalue()
