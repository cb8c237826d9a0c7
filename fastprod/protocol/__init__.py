"""The control plane's side of the Kafka protocol: every request but Produce.

A message is a NamedTuple that declares all of its versions (`schema`); `encode_request` and
`decode_response` turn it into bytes and back; `versions` holds what fastprod speaks and picks
what a broker speaks too. To add an API: a row in `versions`, a module with its two classes.
"""

from fastprod.protocol.api_versions import ApiVersionsRequest, ApiVersionsResponse
from fastprod.protocol.frames import decode_message, decode_response, encode_message, encode_request
from fastprod.protocol.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from fastprod.protocol.metadata import (
    MetadataBroker,
    MetadataPartition,
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataTopic,
)
from fastprod.protocol.sasl import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)
from fastprod.protocol.versions import Api, VersionRange, negotiate

__all__ = [
    "Api",
    "ApiVersionsRequest",
    "ApiVersionsResponse",
    "InitProducerIdRequest",
    "InitProducerIdResponse",
    "MetadataBroker",
    "MetadataPartition",
    "MetadataRequest",
    "MetadataRequestTopic",
    "MetadataResponse",
    "MetadataTopic",
    "SaslAuthenticateRequest",
    "SaslAuthenticateResponse",
    "SaslHandshakeRequest",
    "SaslHandshakeResponse",
    "VersionRange",
    "decode_message",
    "decode_response",
    "encode_message",
    "encode_request",
    "negotiate",
]
