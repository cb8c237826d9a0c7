"""Serializers: from what a program sends to bytes.

The options `key_serializer` and `value_serializer` take, besides None (what is sent is bytes
already):

* an object with `serialize(topic, headers, data)`: a subclass of `Serializer` here, of
  kafka-python's, or of nothing in particular. `headers` is the record's live list: what a
  serializer appends to it is sent;
* an object with `serialize(topic, data)`, the form of kafka-python 2;
* a callable `f(data)`.

Which form it is, is found out once, at construction and by its signature, so an exception that a
serializer raises always comes out of `send` as it is. A serializer is called with None, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from fastprod.call_forms import takes
from fastprod.refusal import bad_value, refusal

Headers = list[tuple[str, bytes]]
Serialize = Callable[[str, list[Any], Any], Any]

ACCEPTED: Final = "None, a callable f(data), or an object with serialize(topic, headers, data)"

__all__ = [
    "DefaultSerializer",
    "JsonSerializer",
    "Serializer",
    "StringSerializer",
]


class Serializer(ABC):
    """Base of serializers; deriving from it is a courtesy, having `serialize` is enough."""

    @abstractmethod
    def serialize(self, topic: str, headers: Headers, data: Any) -> Any:
        """Return the bytes-like to send for `data`, or None for none.

        `topic` is where the record goes. `headers` is the record's own list: what is appended to it
        is sent along.
        """

    def close(self) -> None:  # noqa: B027  (to be overridden by those who need it)
        """The producer that used it was closed."""


class DefaultSerializer(Serializer):
    """Passes on what is bytes-like or None and encodes str."""

    def __init__(self, encoding: str = "utf-8") -> None:
        """Raises LookupError for an unknown encoding."""
        "".encode(encoding)
        self.encoding = encoding

    def serialize(self, topic: str, headers: Headers, data: Any) -> Any:
        """Return bytes; TypeError for anything but str, bytes, bytearray, memoryview and None."""
        if data is None or isinstance(data, bytes | bytearray | memoryview):
            return data
        if not isinstance(data, str):
            raise TypeError(
                f"{type(self).__name__} takes str, bytes, bytearray, memoryview or None, not "
                f"{type(data).__name__}: {data!r:.80}"
            )
        return data.encode(self.encoding)


class StringSerializer(DefaultSerializer):
    """Encodes str and nothing else; None stays None."""

    def serialize(self, topic: str, headers: Headers, data: Any) -> Any:
        """Return bytes; TypeError for anything but str and None."""
        if data is not None and not isinstance(data, str):
            raise TypeError(f"StringSerializer takes str or None, not {data!r:.80}")
        return super().serialize(topic, headers, data)


class JsonSerializer(DefaultSerializer):
    """JSON text of anything the `json` module can write. None stays None: a tombstone."""

    def serialize(self, topic: str, headers: Headers, data: Any) -> Any:
        """Return bytes; TypeError or ValueError for what JSON cannot hold."""
        if data is None:
            return None
        return _dumps(data).encode(self.encoding)


def _first_dumps(data: Any) -> str:
    """Import json, which takes its time, when the first serializer needs it, and leave it in our place."""
    global _dumps
    import json

    _dumps = json.dumps
    return _dumps(data)


_dumps: Callable[[Any], str] = _first_dumps


def function_of(name: str, serializer: object) -> Serialize | None:
    """Return `f(topic, headers, data)` for what the option `name` holds; None for None.

    Raises KafkaConfigurationError (a ValueError too) for anything that is no serializer.
    """
    if serializer is None:
        return None
    method = getattr(serializer, "serialize", None)
    if isinstance(serializer, type) and method is not None:
        raise refusal(
            f"{name}={serializer.__name__} is a class. Give an instance: "
            f"{name}={serializer.__name__}()."
        )
    if callable(method):
        return _function_of_method(name, serializer, method)
    if not callable(serializer):
        raise bad_value(name, serializer, ACCEPTED)
    function = serializer

    def serialize(topic: str, headers: list[Any], data: Any) -> Any:
        return function(data)

    return serialize


def _function_of_method(name: str, serializer: object, method: Callable[..., Any]) -> Serialize:
    if takes(method, 3):
        return method
    if not takes(method, 2):
        raise bad_value(name, serializer, ACCEPTED, f"Its serialize is {_signature(method)}.")
    two_arguments = method

    def serialize(topic: str, headers: list[Any], data: Any) -> Any:
        return two_arguments(topic, data)

    return serialize


def _signature(function: Callable[..., object]) -> str:
    import inspect  # slow to import; see call_forms.py

    return f"serialize{inspect.signature(function)}"


def close(*serializers: object) -> list[Exception]:
    """Call `close()` of each one that has it, once each; return what they raised."""
    raised: list[Exception] = []
    seen: list[object] = []
    for serializer in serializers:
        closer = getattr(serializer, "close", None)
        if not callable(closer) or any(each is serializer for each in seen):
            continue
        seen.append(serializer)
        try:
            closer()
        except Exception as error:
            raised.append(error)
    return raised
