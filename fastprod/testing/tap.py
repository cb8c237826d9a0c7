"""`Tap`: looking at the requests and responses that go through a `FaultProxy`, and changing them."""

from __future__ import annotations

from fastprod.testing._frames import Request


class Tap:
    """Sees every request and response that goes through a `FaultProxy`, whole, and may change them. To be derived from.

    All methods are called on the proxy's thread: while one runs, nothing passes on any connection. An exception in
    one, such as ConnectionResetError, resets the connection that it was called for; any but a ConnectionError is
    logged as well. With a tap the proxy passes frames on when they are whole, and carries nothing but Kafka in
    plain text.
    """

    def opened(self, connection: int) -> None:
        """A client has connected; connections are counted from 0."""

    def closed(self, connection: int) -> None:
        """Nothing more comes from that client: it has closed the connection, or it was reset."""

    def request(self, request: Request) -> bytes | None:
        """Return the payload to pass on in place of `request.payload`, None for nothing at all."""
        return request.payload

    def response(self, request: Request, payload: bytes) -> bytes | None:
        """Return what to pass on in place of the response to that request, None for nothing at all.

        `payload` is without the four bytes of its size; it begins with the correlation id.
        """
        return payload
