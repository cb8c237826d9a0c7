"""Bad input from the program: a clear error at once, and nothing that was accepted before it is lost."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest

from fastprod import KafkaProducer, errors
from fastprod.testing import ScriptedBroker

from .conftest import MakeProducer

LIMIT = 1000
BUFFER = 5000


class Bad(NamedTuple):
    """A call of send() that is refused, and what its error names: the value, the limit, what to do."""

    arguments: dict[str, Any]
    error: type[Exception]
    words: tuple[str, ...]
    options: dict[str, Any] = {}


def bad(error: type[Exception], *words: str, options: dict[str, Any] | None = None, **arguments: Any) -> Any:
    shown = ", ".join(f"{name}={value!r:.20}" for name, value in {**arguments, **(options or {})}.items())
    return pytest.param(Bad(arguments, error, words, options or {}), id=f"{shown:.60}")


def refuse(*_: Any) -> Any:
    raise ZeroDivisionError("the program's own")


CALLS = [
    bad(ValueError, "-1", "0 to 1", partition=-1),
    bad(ValueError, "2", "0 to 1", partition=2),
    bad(ValueError, "0 to 1", partition=2**80),
    bad(TypeError, "True", "int or None", partition=True),
    bad(TypeError, "0.0", "int or None", partition=0.0),
    bad(TypeError, "'0'", "int or None", partition="0"),
    bad(ValueError, "empty", topic=""),
    bad(ValueError, "'.'", topic="."),
    bad(ValueError, "'..'", topic=".."),
    bad(ValueError, "'a b'", "letters, digits", topic="a b"),
    bad(ValueError, r"'t\n'", "letters, digits", topic="t\n"),
    bad(ValueError, "letters, digits", topic="t\u00e4"),
    bad(ValueError, "249", "250", topic="x" * 250),
    bad(TypeError, "topic", "str", "NoneType", topic=None),
    bad(TypeError, "topic", "str", "bytes", topic=b"t"),
    bad(TypeError, "topic", "str", "7", topic=7),
    bad(TypeError, "topic", "str", "list", topic=["t"]),
    bad(ValueError, "key or value", value=None),
    bad(TypeError, "value", "bytes", "'text'", "value_serializer", value="text"),
    bad(TypeError, "value", "bytes", "int", "value_serializer", value=7),
    bad(TypeError, "key", "bytes", "'text'", "key_serializer", key="text"),
    bad(TypeError, "headers", "list", "dict", headers={"a": b"1"}),
    bad(TypeError, "headers", "list", "tuple", headers=(("a", b"1"),)),
    bad(TypeError, "headers[1]", "(str, bytes)", "'1'", headers=[("a", b"1"), ("b", "1")]),
    bad(TypeError, "headers[0]", "(str, bytes)", "None", headers=[("a", None)]),
    bad(TypeError, "headers[0]", "(str, bytes)", headers=[(b"a", b"1")]),
    bad(TypeError, "headers[0]", "(str, bytes)", headers=[("a", b"1", b"2")]),
    bad(UnicodeEncodeError, "utf-8", headers=[("\ud800", b"1")]),
    bad(TypeError, "timestamp_ms", "int", "1.5", timestamp_ms=1.5),
    bad(TypeError, "timestamp_ms", "int", "True", timestamp_ms=True),
    bad(ValueError, "timestamp_ms", str(2**63), "64", timestamp_ms=2**63),
    bad(errors.MessageSizeTooLargeError, "'t'", "max_request_size=1000", "Raise", value=bytes(LIMIT)),
    bad(errors.MessageSizeTooLargeError, "'t'", "max_request_size=1000", "Raise", key=bytes(LIMIT)),
    bad(
        errors.MessageSizeTooLargeError, "'t'", "max_request_size=1000", "Raise", headers=[("a", bytes(LIMIT))]
    ),
    bad(
        errors.MessageSizeTooLargeError, "'t'", "buffer_memory=5000", "Raise",
        value=bytes(BUFFER), options={"max_request_size": 10_000},
    ),
    bad(ZeroDivisionError, "the program's own", options={"value_serializer": refuse}),
    bad(TypeError, "value", "bytes", "float", options={"value_serializer": lambda _: 1.5}),
    bad(ZeroDivisionError, "the program's own", options={"partitioner": refuse}),
    bad(ValueError, "partitioner", "9", "'t'", "0 to 1", options={"partitioner": lambda *_: 9}),
    bad(ValueError, "partitioner", "None", "'t'", "0 to 1", options={"partitioner": lambda *_: None}),
]


def send_good(made: KafkaProducer, number: int) -> Any:
    """The serializers and partitioners above are not asked about it."""
    return made.send("t", b"%d" % number, partition=0)


@pytest.mark.parametrize("call", CALLS)
def test_send(scripted: ScriptedBroker, scripted_producer: MakeProducer, call: Bad) -> None:
    options = dict(call.options)
    spoil = options.pop("value_serializer", None)

    def serialize(value: Any) -> Any:
        # The good ones pass.
        return value if spoil is None or value != b"bad" else spoil(value)

    made = scripted_producer(
        **{"linger_ms": 60_000, "max_request_size": LIMIT, "buffer_memory": BUFFER, **options},
        **({"value_serializer": serialize} if spoil else {}),
    )
    accepted = [send_good(made, number) for number in range(3)]
    for _ in range(3):
        with pytest.raises(call.error) as caught:
            made.send(**{"topic": "t", "value": b"bad", **call.arguments})
        assert type(caught.value) is call.error
        assert [word for word in call.words if word not in str(caught.value)] == [], str(caught.value)
        accepted.append(send_good(made, len(accepted)))
    assert not any(each.is_done for each in accepted)
    made.flush(20)
    assert [each.get(0).offset for each in accepted] == list(range(6))
    assert scripted.values("t", 0) == [b"%d" % number for number in range(6)]
    assert len(scripted.batches) == 1


def test_all_memory_is_there_afterwards(scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
    made = scripted_producer(buffer_memory=BUFFER, max_request_size=LIMIT, max_block_ms=5000)
    for number in range(100):
        for spoiled in ({"value": bytes(LIMIT)}, {"headers": [("\ud800", bytes(500))]}, {"timestamp_ms": 1.5}):
            with pytest.raises((errors.MessageSizeTooLargeError, UnicodeEncodeError, TypeError)):
                made.send(**{"topic": "t", "value": bytes(500), "partition": 0, **spoiled})
        assert made.send("t", bytes(900), partition=0).get(20).offset == number


TIMEOUTS = [
    ("1", TypeError),
    (b"1", TypeError),
    ([1], TypeError),
    (1j, TypeError),
    (math.nan, ValueError),
]


@pytest.mark.parametrize(("timeout", "error"), TIMEOUTS, ids=repr)
def test_timeouts(
    scripted: ScriptedBroker, scripted_producer: MakeProducer, timeout: Any, error: type[Exception]
) -> None:
    scripted.by_hand = True
    made = scripted_producer()
    future = made.send("t", b"v", partition=0)
    for call in (future.get, made.flush, made.close):
        with pytest.raises(error, match="timeout") as caught:
            call(timeout)
        assert "seconds" in str(caught.value)
        assert (str(timeout) if error is ValueError else repr(timeout)) in str(caught.value)
    # None of them has done anything.
    scripted.next_produce().accept()
    assert future.get(20).offset == 0
    assert send_good(made, 2) is not None
    scripted.next_produce().accept()
    made.close(20)
    assert len(scripted.values("t", 0)) == 2


@pytest.mark.parametrize("timeout", [-1, -math.inf, 0, False])
def test_a_get_that_is_over_before_it_began(
    scripted: ScriptedBroker, scripted_producer: MakeProducer, timeout: float
) -> None:
    scripted.by_hand = True
    future = scripted_producer().send("t", b"v", partition=0)
    with pytest.raises(errors.KafkaTimeoutError):
        future.get(timeout)
    scripted.next_produce().accept()
    assert future.get(math.inf).offset == 0


@pytest.mark.parametrize("topic", ["", ".", "a b", "t\n", "x" * 250, None, 7, b"t"])
def test_partitions_for(scripted: ScriptedBroker, scripted_producer: MakeProducer, topic: Any) -> None:
    made = scripted_producer(linger_ms=60_000)
    accepted = send_good(made, 0)
    with pytest.raises(ValueError if isinstance(topic, str) else TypeError, match=r"(?i)topic"):
        made.partitions_for(topic)
    made.flush(20)
    assert accepted.get(0).offset == 0
