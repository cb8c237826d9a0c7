"""fastprod.serializers: the built-in ones, and every form that a program may hand in."""

from __future__ import annotations

import builtins
import warnings
from typing import Any

import kafka  # type: ignore[import-untyped]
import kafka.serializer  # type: ignore[import-untyped]
import pytest

from fastprod import errors, serializers
from fastprod.serializers import (
    DefaultSerializer,
    JsonSerializer,
    Serializer,
    StringSerializer,
    function_of,
)

pytestmark = pytest.mark.native_only


def call(serializer: object, data: Any, headers: list[tuple[str, bytes]] | None = None) -> Any:
    function = function_of("value_serializer", serializer)
    assert function is not None
    return function("t", [] if headers is None else headers, data)


def test_none_stays_none() -> None:
    assert function_of("key_serializer", None) is None


class Ours(Serializer):
    def serialize(self, topic: str, headers: list[tuple[str, bytes]], data: Any) -> bytes:
        headers.append(("by", b"us"))
        return f"{topic}/{data}".encode()


class Theirs(kafka.serializer.Serializer):  # type: ignore[misc]
    def serialize(self, topic: str, headers: list[tuple[str, bytes]], data: Any) -> bytes:
        return f"{topic}/{data}".encode()


class Nobodys:
    def serialize(self, topic: str, headers: list[tuple[str, bytes]], data: Any) -> bytes:
        return f"{topic}/{data}".encode()


class Older:
    def serialize(self, topic: str, value: Any) -> bytes:
        return f"{topic}/{value}".encode()


class Callable:
    def __call__(self, data: Any) -> bytes:
        return f"t/{data}".encode()


def function(data: Any) -> bytes:
    return f"t/{data}".encode()


@pytest.mark.parametrize(
    "serializer",
    [Ours(), Theirs(), Nobodys(), Older(), Callable(), function, lambda data: f"t/{data}".encode()],
    ids=lambda each: type(each).__name__,
)
def test_every_form_is_called_and_nobody_is_warned(serializer: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call(serializer, 5) == b"t/5"
        assert call(serializer, None) == b"t/None"


def test_headers_are_the_live_list() -> None:
    headers: list[tuple[str, bytes]] = []
    call(Ours(), 1, headers)
    assert headers == [("by", b"us")]


@pytest.mark.parametrize(
    ("function", "data", "expected"),
    [(str.encode, "a", b"a"), (bytes, [1, 2], b"\1\2"), (repr, 1, "1"), (int.to_bytes, 5, b"\5")],
)
def test_callables_of_the_language(function: Any, data: Any, expected: Any) -> None:
    assert call(function, data) == expected


class Raises:
    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    def serialize(self, topic: str, headers: list[tuple[str, bytes]], data: Any) -> bytes:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize("error", [TypeError("mine"), ValueError("x"), KeyError("k")])
def test_a_program_s_own_error_is_not_masked(error: Exception) -> None:
    serializer = Raises(error)
    with pytest.raises(type(error)) as caught:
        call(serializer, 1)
    assert caught.value is error
    assert serializer.calls == 1


def test_a_type_error_of_a_function_is_not_masked() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        call(lambda data: data + "x", 1)


@pytest.mark.parametrize("bad", [5, "utf-8", b"", [], object()])
def test_no_serializer_at_all(bad: object) -> None:
    with pytest.raises(errors.KafkaConfigurationError, match="value_serializer="):
        function_of("value_serializer", bad)


def test_a_class_instead_of_an_instance() -> None:
    with pytest.raises(ValueError, match=r"JsonSerializer\(\)"):
        function_of("key_serializer", JsonSerializer)


def test_serialize_with_one_argument_is_refused_at_construction() -> None:
    class One:
        def serialize(self, data: Any) -> bytes:
            return b""

    with pytest.raises(ValueError, match=r"serialize\(data"):
        function_of("key_serializer", One())


def test_default_serializer() -> None:
    serializer = DefaultSerializer()
    for same in (b"x", bytearray(b"x"), memoryview(b"x"), None):
        assert serializer.serialize("t", [], same) is same
    assert serializer.serialize("t", [], "Gr\u00fc\u00dfe") == "Gr\u00fc\u00dfe".encode()
    assert DefaultSerializer("utf-16-le").serialize("t", [], "ab") == b"a\0b\0"
    with pytest.raises(TypeError, match="int: 5"):
        serializer.serialize("t", [], 5)
    with pytest.raises(LookupError):
        DefaultSerializer("no-such-encoding")


def test_string_serializer() -> None:
    assert StringSerializer().serialize("t", [], "ab") == b"ab"
    assert StringSerializer("latin-1").serialize("t", [], "\u00fc") == b"\xfc"
    assert StringSerializer().serialize("t", [], None) is None
    with pytest.raises(TypeError, match="takes str or None"):
        StringSerializer().serialize("t", [], b"ab")


@pytest.mark.parametrize("data", [{"a": [1, 2.5, None]}, "text", 5, [], True, "\u00fc"])
def test_json_serializer_is_kafka_python_s(data: Any) -> None:
    theirs = kafka.serializer.JsonSerializer().serialize("t", [], data)
    assert JsonSerializer().serialize("t", [], data) == theirs


def test_json_serializer_tombstones_and_errors() -> None:
    assert JsonSerializer().serialize("t", [], None) is None
    with pytest.raises(TypeError):
        JsonSerializer().serialize("t", [], object())


def test_a_subclass_can_call_its_base() -> None:
    class Shouting(DefaultSerializer):
        def serialize(self, topic: str, headers: list[tuple[str, bytes]], data: Any) -> Any:
            return super().serialize(topic, headers, data.upper())

    assert call(Shouting(), "ab") == b"AB"


class Closable:
    def __init__(self, error: Exception | None = None) -> None:
        self.closed = 0
        self.error = error

    def serialize(self, topic: str, headers: list[tuple[str, bytes]], data: Any) -> Any:
        return data

    def close(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error


def test_close_reaches_each_one_once_and_survives_errors() -> None:
    shared, broken = Closable(), Closable(RuntimeError("no"))
    assert serializers.close(shared, shared, None, builtins.repr) == []
    assert shared.closed == 1
    after = Closable()
    raised = serializers.close(broken, after)
    assert [str(each) for each in raised] == ["no"]
    assert after.closed == 1


def test_close_of_the_base_does_nothing() -> None:
    assert serializers.close(Ours(), Theirs()) == []
