"""fastprod.protocol against kio, which is generated from Apache Kafka's own definitions."""

import dataclasses
import datetime
import importlib
import io
import types
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer

from fastprod import errors, protocol
from fastprod.protocol import versions
from fastprod.protocol.schema import ZERO_UUID, api_of
from fastprod.protocol.versions import Api

pytestmark = pytest.mark.native_only

MESSAGES: list[type] = [
    protocol.ApiVersionsRequest,
    protocol.ApiVersionsResponse,
    protocol.InitProducerIdRequest,
    protocol.InitProducerIdResponse,
    protocol.MetadataRequest,
    protocol.MetadataResponse,
    protocol.SaslAuthenticateRequest,
    protocol.SaslAuthenticateResponse,
    protocol.SaslHandshakeRequest,
    protocol.SaslHandshakeResponse,
]
KIO_PACKAGES = {
    "ApiVersions": "api_versions",
    "InitProducerId": "init_producer_id",
    "Metadata": "metadata",
    "SaslAuthenticate": "sasl_authenticate",
    "SaslHandshake": "sasl_handshake",
}


def every_version(suffix: str) -> list[Any]:
    return [
        pytest.param(message, version, id=f"{message.__name__}-v{version}")
        for message in MESSAGES
        if message.__name__.endswith(suffix)
        for version in range(api_of(message).versions.first, api_of(message).versions.last + 1)
    ]


def kio_class(message: type, version: int) -> Any:
    kind = "request" if message.__name__.endswith("Request") else "response"
    package = KIO_PACKAGES[api_of(message).name]
    return getattr(importlib.import_module(f"kio.schema.{package}.v{version}.{kind}"), message.__name__)


def without_optional(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (inner,) = (each for each in typing.get_args(hint) if each is not type(None))
        return inner, True
    return hint, False


def signed(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def milliseconds(bits: int) -> st.SearchStrategy[datetime.timedelta]:
    # timedelta holds less than int64 ms.
    limit = min(2 ** (bits - 1) - 1, 86_400_000 * 999_999)
    return st.integers(0, limit).map(lambda ms: datetime.timedelta(milliseconds=ms))


PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int16": signed(16),
    "int32": signed(32),
    "int64": signed(64),
    # The longer ones need two bytes for a compact length.
    "string": st.text(max_size=20) | st.just("x" * 130),
    "bytes": st.binary(max_size=20) | st.just(b"y" * 130),
    "uuid": st.uuids(),
    "error_code": st.sampled_from(ErrorCode),
    "timedelta_i32": milliseconds(32),
    "timedelta_i64": milliseconds(64),
}


def values_of(entity: Any) -> st.SearchStrategy[Any]:
    """A strategy for kio's entities, built from kio's field metadata and not from our tables."""
    return st.builds(entity, **{field.name: values_of_field(field) for field in dataclasses.fields(entity)})


def values_of_field(field: Any) -> st.SearchStrategy[Any]:
    hint, optional = without_optional(field.type)
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        element = values_of(inner) if dataclasses.is_dataclass(inner) else PRIMITIVES[field.metadata["kafka_type"]]
        strategy: st.SearchStrategy[Any] = st.lists(element, max_size=4).map(tuple)
    else:
        strategy = PRIMITIVES[field.metadata["kafka_type"]]
    return st.none() | strategy if optional else strategy


def to_ours(value: Any, ours: Any) -> Any:
    """Convert kio's entity to our message: `ours` is its class, values are plain."""
    arguments = {}
    hints = typing.get_type_hints(ours)
    for field in dataclasses.fields(value):
        name = field.name
        item = getattr(value, name)
        if field.metadata.get("kafka_type", "").startswith("timedelta"):
            name, item = f"{name}_ms", item // datetime.timedelta(milliseconds=1)
        elif field.metadata.get("kafka_type") == "uuid":
            item = ZERO_UUID if item is None else item.bytes
        elif isinstance(item, tuple) and item and dataclasses.is_dataclass(item[0]):
            element = typing.get_args(without_optional(hints[name])[0])[0]
            item = tuple(to_ours(each, element) for each in item)
        arguments[name] = int(item) if isinstance(item, ErrorCode) else item
    return ours(**arguments)


def written_by_kio(value: Any) -> bytes:
    buffer = io.BytesIO()
    entity_writer(type(value))(buffer, value)
    return buffer.getvalue()


def kio_response(entity: Any, correlation_id: int) -> bytes:
    """What a broker would send: kio's header, chosen by kio, and the body."""
    return written_by_kio(entity.__header_schema__(correlation_id=correlation_id)) + written_by_kio(entity)


class TestAgainstKio:
    @pytest.mark.parametrize(("message", "version"), every_version("Request"))
    @settings(max_examples=50)
    @given(data=st.data())
    def test_requests(self, message: type[Any], version: int, data: st.DataObject) -> None:
        kio_entity = kio_class(message, version)
        expected = data.draw(values_of(kio_entity))
        correlation_id = data.draw(signed(32))
        client_id = data.draw(st.none() | st.text(max_size=20))
        frame = protocol.encode_request(to_ours(expected, message), version, correlation_id, client_id)
        assert int.from_bytes(frame[:4], "big") == len(frame) - 4
        header, size = entity_reader(kio_entity.__header_schema__)(frame, 4)
        assert header.request_api_key == api_of(message).key == kio_entity.__api_key__
        assert (header.request_api_version, header.correlation_id) == (version, correlation_id)
        assert header.client_id == client_id
        body = frame[4 + size :]
        assert entity_reader(kio_entity)(body, 0) == (expected, len(body))
        assert body == written_by_kio(expected)
        assert protocol.decode_message(message, version, body) == to_ours(expected, message)

    @pytest.mark.parametrize(("message", "version"), every_version("Response"))
    @settings(max_examples=50)
    @given(data=st.data())
    def test_responses(self, message: type[Any], version: int, data: st.DataObject) -> None:
        value = data.draw(values_of(kio_class(message, version)))
        if message is protocol.ApiVersionsResponse and value.error_code == 35:
            value = dataclasses.replace(value, error_code=ErrorCode.none)
        correlation_id = data.draw(signed(32))
        payload = kio_response(value, correlation_id)
        answered, decoded = protocol.decode_response(message, version, payload)
        assert (answered, decoded) == (correlation_id, to_ours(value, message))
        assert type(decoded) is message
        assert protocol.encode_message(decoded, version) == written_by_kio(value)

    def test_flexible_versions_are_those_of_kio(self) -> None:
        for message in MESSAGES:
            api = api_of(message)
            for version in range(api.versions.first, api.versions.last + 1):
                assert api.is_flexible(version) is kio_class(message, version).__flexible__

    @pytest.mark.parametrize(
        ("package", "api"),
        [
            ("produce", versions.PRODUCE),
            ("find_coordinator", versions.FIND_COORDINATOR),
            ("add_partitions_to_txn", versions.ADD_PARTITIONS_TO_TXN),
            ("add_offsets_to_txn", versions.ADD_OFFSETS_TO_TXN),
            ("end_txn", versions.END_TXN),
            ("txn_offset_commit", versions.TXN_OFFSET_COMMIT),
        ],
    )
    def test_keys_and_flexible_versions_of_apis_without_tables(self, package: str, api: Api) -> None:
        for version in range(api.versions.first, api.versions.last + 1):
            module = importlib.import_module(f"kio.schema.{package}.v{version}.request")
            request = getattr(module, f"{api.name}Request")
            assert (request.__api_key__, request.__flexible__) == (api.key, api.is_flexible(version))


class TestRequests:
    def test_set_field_that_the_version_lacks(self) -> None:
        request = protocol.InitProducerIdRequest(producer_id=7)
        with pytest.raises(
            errors.UnsupportedVersionError, match=r"InitProducerIdRequest\.producer_id = 7 .* version 2"
        ):
            protocol.encode_request(request, 2, 1, None)
        assert protocol.encode_request(request, 3, 1, None)

    def test_nothing_to_say_is_said_in_any_version(self) -> None:
        assert protocol.encode_message(protocol.InitProducerIdRequest(), 0) == b"\xff\xff\x7f\xff\xff\xff"

    def test_ignorable_field_is_left_out(self) -> None:
        request = protocol.ApiVersionsRequest("fastprod", "1.0")
        assert protocol.encode_message(request, 2) == b""
        assert protocol.encode_message(request, 3) == b"\x09fastprod\x041.0\x00"

    def test_null_that_the_version_lacks(self) -> None:
        request = protocol.MetadataRequest(topics=(protocol.MetadataRequestTopic(b"i" * 16, None),))
        with pytest.raises(ValueError, match=r"MetadataRequest version 9: topics\.name: null is not allowed"):
            protocol.encode_request(request, 9, 1, None)
        assert protocol.encode_request(request, 12, 1, None)

    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            (protocol.InitProducerIdRequest(transaction_timeout_ms=2**31), "transaction_timeout_ms"),
            (protocol.InitProducerIdRequest(transactional_id="x" * 32768), "transactional_id"),
            (protocol.InitProducerIdRequest(transactional_id="\ud800"), "transactional_id"),
            (protocol.InitProducerIdRequest(transactional_id=typing.cast(str, b"x")), "transactional_id"),
            (protocol.InitProducerIdRequest(producer_epoch=typing.cast(int, None)), "producer_epoch"),
        ],
    )
    def test_value_that_does_not_fit(self, request_: Any, field: str) -> None:
        with pytest.raises(ValueError, match=f"InitProducerIdRequest version 4: {field}: "):
            protocol.encode_request(request_, 4, 1, None)

    def test_uuid_of_another_length(self) -> None:
        request = protocol.MetadataRequest(topics=(protocol.MetadataRequestTopic(b"short"),))
        with pytest.raises(ValueError, match="16 bytes, not 5"):
            protocol.encode_request(request, 12, 1, None)

    def test_longest_string(self) -> None:
        for version in (1, 4):
            request = protocol.InitProducerIdRequest(transactional_id="x" * 32767)
            body = protocol.encode_message(request, version)
            assert protocol.decode_message(protocol.InitProducerIdRequest, version, body) == request

    @pytest.mark.parametrize("version", [3, 14])
    def test_version_outside_our_range(self, version: int) -> None:
        with pytest.raises(ValueError, match=f"Metadata version {version}: fastprod speaks 4 to 13"):
            protocol.encode_request(protocol.MetadataRequest(), version, 1, None)
        with pytest.raises(ValueError, match=f"Metadata version {version}: "):
            protocol.decode_response(protocol.MetadataResponse, version, bytes(8))


class TestResponses:
    def test_refused_api_versions_is_read_as_version_0(self) -> None:
        refusal = kio_class(protocol.ApiVersionsResponse, 0)
        key = importlib.import_module("kio.schema.api_versions.v0.response").ApiVersion
        value = refusal(
            error_code=ErrorCode.unsupported_version, api_keys=(key(api_key=18, min_version=0, max_version=3),)
        )
        for version in range(5):
            correlation_id, message = protocol.decode_response(
                protocol.ApiVersionsResponse, version, kio_response(value, 5)
            )
            assert (correlation_id, message.error_code) == (5, 35)
            assert message.api_keys == ((18, 0, 3),)

    def test_unknown_tags_are_stepped_over(self) -> None:
        body = bytes.fromhex("0000 01 00000000 02 01 08 0000000000000009 63 02 abcd".replace(" ", ""))
        message = protocol.decode_message(protocol.ApiVersionsResponse, 3, body)
        assert message == protocol.ApiVersionsResponse(finalized_features_epoch=9)

    def test_repeated_tag_the_last_counts(self) -> None:
        body = bytes.fromhex("0000 01 00000000 02 03 01 01 03 01 00".replace(" ", ""))
        assert protocol.decode_message(protocol.ApiVersionsResponse, 3, body).zk_migration_ready is False

    def test_header_tags_are_stepped_over(self) -> None:
        body = protocol.encode_message(protocol.InitProducerIdResponse(producer_id=5), 4)
        payload = b"\x00\x00\x00\x07" + b"\x01\x05\x02ab" + body
        assert protocol.decode_response(protocol.InitProducerIdResponse, 4, payload)[1].producer_id == 5

    @pytest.mark.parametrize(
        ("message", "version", "body", "complaint"),
        [
            (protocol.InitProducerIdResponse, 0, "00000000 0000", "producer_id: 8 bytes needed, 0 left, at offset 6"),
            (protocol.InitProducerIdResponse, 0, "00" * 17, "InitProducerIdResponse: 1 bytes too many, at offset 16"),
            (protocol.SaslHandshakeResponse, 1, "0000 00000001 ffff", r"mechanisms\[0\]: null where null is not"),
            (protocol.SaslHandshakeResponse, 1, "0000 00000001 fffe", r"mechanisms\[0\]: length -2, at offset 6"),
            (protocol.SaslHandshakeResponse, 1, "0000 00000002 0000 0009", r"mechanisms\[1\]: 9 bytes needed, 0 left"),
            (
                protocol.SaslHandshakeResponse,
                1,
                "0000 7fffffff 0000",
                "mechanisms: 2147483647 elements announced, 2 by",
            ),
            (protocol.SaslHandshakeResponse, 1, "0000 00000001 0001 ff", r"mechanisms\[0\]: not UTF-8, at offset 8"),
            (protocol.ApiVersionsResponse, 3, "0000 ffffffff1f", "api_keys: varint longer than 32 bits, at offset 2"),
            (protocol.ApiVersionsResponse, 3, "0000 ffffffffff01", "api_keys: varint longer than 32 bits"),
            (
                protocol.ApiVersionsResponse,
                3,
                "0000 01 00000000 64",
                "ApiVersionsResponse: 100 tagged fields announced",
            ),
            (protocol.ApiVersionsResponse, 3, "0000 01 00000000 01 03 02 0100", "zk_migration_ready: 1 bytes too many"),
            (
                protocol.ApiVersionsResponse,
                3,
                "0000 01 00000000 01 01 02 0100",
                "finalized_features_epoch: 8 bytes needed",
            ),
            (
                protocol.MetadataResponse,
                5,
                "00000000 00000000 ffff 00000000 00000001 0000 0001 74 00 00000001 0000 00000007 000000",
                r"MetadataResponse\.topics\[0\]\.partitions: 1 elements announced, 9 bytes left",
            ),
        ],
    )
    def test_complaints_say_where(self, message: type[Any], version: int, body: str, complaint: str) -> None:
        api = api_of(message)
        expected = rf"{api.name} \(API {api.key}\) version {version}: .*{complaint}"
        with pytest.raises(errors.KafkaProtocolError, match=expected):
            protocol.decode_message(message, version, bytes.fromhex(body.replace(" ", "")))

    def test_messages_are_immutable(self) -> None:
        with pytest.raises(AttributeError):
            protocol.MetadataBroker().host = "x"  # type: ignore[misc]
