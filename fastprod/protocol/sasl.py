"""SaslHandshake and SaslAuthenticate: the frames around a SASL exchange (KIP-43, KIP-152, KIP-368)."""

from typing import Annotated, NamedTuple

from fastprod.protocol import versions
from fastprod.protocol.schema import IGNORABLE, Array, Bytes, Int16, Int64, String, message_of, since


@message_of(versions.SASL_HANDSHAKE)
class SaslHandshakeRequest(NamedTuple):
    """`mechanism` is the name that SASL knows it by, like SCRAM-SHA-512."""

    mechanism: String = ""


@message_of(versions.SASL_HANDSHAKE)
class SaslHandshakeResponse(NamedTuple):
    """`mechanisms` are those that the listener offers, also when the asked one is refused."""

    error_code: Int16 = 0
    mechanisms: Array[String] = ()


@message_of(versions.SASL_AUTHENTICATE)
class SaslAuthenticateRequest(NamedTuple):
    """`auth_bytes` is one message of the mechanism, which the frame does not look into."""

    auth_bytes: Bytes = b""


@message_of(versions.SASL_AUTHENTICATE)
class SaslAuthenticateResponse(NamedTuple):
    """`session_lifetime_ms` is 0 where the session does not end by itself."""

    error_code: Int16 = 0
    error_message: String | None = None
    auth_bytes: Bytes = b""
    session_lifetime_ms: Annotated[Int64, since(1), IGNORABLE] = 0
