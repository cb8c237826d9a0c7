"""Kafka's requests and responses taken apart by `kio`, which is generated from Kafka's own definitions."""

from __future__ import annotations

import importlib
import io
from typing import Any, NamedTuple

from kio.serial import entity_reader, entity_writer
from recording import Request

from .reading import Batch, split_batches


class Produced(NamedTuple):
    """What one Produce request carried to one partition."""

    request: Request
    partition: int
    batch: Batch


def produced(requests: list[Request]) -> list[Produced]:
    """The batches of Produce requests, in order. They must carry one batch a partition, as format v2 demands."""
    found = []
    for request in requests:
        for topic in _body(request).topic_data:
            for part in topic.partition_data:
                (batch,) = split_batches(bytes(part.records))
                found.append(Produced(request, part.index, batch))
    return found


def _body(request: Request) -> Any:
    kind = importlib.import_module(f"kio.schema.produce.v{request.version}.request").ProduceRequest
    _, at = entity_reader(kind.__header_schema__)(request.payload, 0)
    body, size = entity_reader(kind)(request.payload, at)
    assert at + size == len(request.payload)
    return body


def api_versions_response(version: int) -> Any:
    """kio's class for the ApiVersions response of that version."""
    return importlib.import_module(f"kio.schema.api_versions.v{version}.response").ApiVersionsResponse


def read_api_versions(version: int, payload: bytes) -> Any:
    """An ApiVersions response, whose header is always the correlation id alone."""
    body, size = entity_reader(api_versions_response(version))(payload, 4)
    assert 4 + size == len(payload)
    return body


def write_api_versions(correlation_id: int, body: Any) -> bytes:
    """The payload of an ApiVersions response."""
    buffer = io.BytesIO()
    entity_writer(type(body))(buffer, body)
    return correlation_id.to_bytes(4, "big") + buffer.getvalue()
