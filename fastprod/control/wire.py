"""The three requests of the control plane: how each is written and what its answer says to us."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from fastprod import errors
from fastprod._version import __version__
from fastprod.control.cluster import Broker, Leader, MetadataAnswer, TopicAnswer
from fastprod.protocol import decode_response, encode_request, versions
from fastprod.protocol.api_versions import (
    ApiVersionsRequest,
    ApiVersionsResponse,
    retry_version,
    software_version,
    version_ranges,
)
from fastprod.protocol.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from fastprod.protocol.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataTopic,
)
from fastprod.protocol.schema import ZERO_UUID
from fastprod.protocol.versions import Api, VersionRange

Versions = Mapping[int, VersionRange]
T = TypeVar("T")

SOFTWARE_NAME: Final = "fastprod"

# Older brokers fill in leader epochs that can be wrong (KAFKA-9212).
_EPOCHS_TRUSTED_FROM: Final = 9
# From these versions on a throttled client is asked to wait; before, the broker waited (KIP-219).
_METADATA_THROTTLES_FROM: Final = 6
_OTHERS_THROTTLE_FROM: Final = 1
_UNSUPPORTED_VERSION: Final = 35


class Answer(NamedTuple, Generic[T]):
    """A decoded response. `throttle_ms`: how long the broker wants us to be silent."""

    value: T
    throttle_ms: int


class Call(NamedTuple, Generic[T]):
    """A request that can be written in every version, and how to read its answer.

    `read` raises KafkaProtocolError for bytes that are no such response.
    """

    api: Api
    message: Any
    read: Callable[[int, bytes], Answer[T]]
    throttles_from: int = _OTHERS_THROTTLE_FROM

    @property
    def name(self) -> str:
        return self.api.name

    def encode(self, version: int, correlation_id: int, client_id: str) -> bytes:
        """Return the whole frame, its 4-byte size included."""
        return encode_request(self.message, version, correlation_id, client_id)


class OfferedVersions(NamedTuple):
    """What ApiVersions says. `retry_with`: the version to ask with again, if it was refused."""

    error_code: int
    versions: Versions
    retry_with: int | None = None


class NewIdentity(NamedTuple):
    """What InitProducerId says."""

    error_code: int
    producer_id: int
    epoch: int


def api_versions() -> Call[OfferedVersions]:
    """ApiVersions, naming this software (KIP-511)."""
    message = ApiVersionsRequest(SOFTWARE_NAME, software_version(__version__))
    return Call(versions.API_VERSIONS, message, _read_api_versions)


def metadata(topics: Iterable[str], allow_auto_create: bool) -> Call[MetadataAnswer]:
    """Metadata of the brokers and of the named topics (none named: of the brokers alone)."""
    asked = tuple(MetadataRequestTopic(name=name) for name in topics)
    message = MetadataRequest(asked, allow_auto_create)
    return Call(versions.METADATA, message, _read_metadata, _METADATA_THROTTLES_FROM)


def metadata_of_all() -> Call[MetadataAnswer]:
    """Metadata of the brokers and of every topic that there is; creates none."""
    message = MetadataRequest(None, allow_auto_topic_creation=False)
    return Call(versions.METADATA, message, _read_metadata, _METADATA_THROTTLES_FROM)


def init_producer_id() -> Call[NewIdentity]:
    """A producer id of our own, without transactions."""
    return Call(versions.INIT_PRODUCER_ID, InitProducerIdRequest(), _read_init_producer_id)


def _read_api_versions(version: int, frame: bytes) -> Answer[OfferedVersions]:
    _, response = decode_response(ApiVersionsResponse, version, frame)
    refused = response.error_code == _UNSUPPORTED_VERSION and version > 0
    offered = OfferedVersions(
        response.error_code,
        version_ranges(response),
        min(retry_version(response), version - 1) if refused else None,
    )
    return Answer(offered, response.throttle_time_ms)


def _read_init_producer_id(version: int, frame: bytes) -> Answer[NewIdentity]:
    _, response = decode_response(InitProducerIdResponse, version, frame)
    identity = NewIdentity(response.error_code, response.producer_id, response.producer_epoch)
    if identity.error_code == 0 and (identity.producer_id < 0 or identity.epoch < 0):
        # Brokers take a batch with such an id for one without idempotence.
        raise errors.KafkaProtocolError(
            f"InitProducerId: producer id {identity.producer_id} with epoch {identity.epoch}"
        )
    return Answer(identity, response.throttle_time_ms)


def _read_metadata(version: int, frame: bytes) -> Answer[MetadataAnswer]:
    _, response = decode_response(MetadataResponse, version, frame)
    brokers = tuple(
        Broker(each.node_id, each.host, each.port, each.rack) for each in response.brokers
    )
    trusted = version >= _EPOCHS_TRUSTED_FROM
    topics = tuple(_topic(each, trusted) for each in response.topics if each.name is not None)
    answer = MetadataAnswer(brokers, topics, response.cluster_id, response.error_code)
    return Answer(answer, response.throttle_time_ms)


def _topic(told: MetadataTopic, epochs_trusted: bool) -> TopicAnswer:
    leaders: list[Leader | None] = [None] * len(told.partitions)
    for each in told.partitions:
        # Numbers run from 0 without a gap, so this also bounds what one of them makes us allocate.
        if (
            not 0 <= each.partition_index < len(leaders)
            or leaders[each.partition_index] is not None
        ):
            raise errors.KafkaProtocolError(
                f"Metadata: topic {told.name!r} has {len(leaders)} partitions, one of them "
                f"numbered {each.partition_index}"
            )
        epoch = each.leader_epoch if epochs_trusted else -1
        leaders[each.partition_index] = Leader(each.leader_id, epoch)
    return TopicAnswer(
        told.name or "",
        told.error_code,
        None if told.topic_id == ZERO_UUID else told.topic_id,
        told.is_internal,
        tuple(each for each in leaders if each is not None),
    )


def usable_version(api: Api, offered: Versions, peer: str) -> int:
    """Return the newest version both sides speak; UnsupportedVersionError names `peer`."""
    try:
        return versions.negotiate(api, offered)
    except errors.UnsupportedVersionError as error:
        raise errors.UnsupportedVersionError(f"{peer}: {error.args[0]}") from None
