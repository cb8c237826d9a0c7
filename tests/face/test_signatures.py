"""KafkaProducer has every public name of kafka-python's, with the same arguments."""

from __future__ import annotations

import inspect
from typing import Any
from unittest import mock

import kafka  # type: ignore[import-untyped]
import kafka.producer.future  # type: ignore[import-untyped]
import pytest

from fastprod import FutureRecordMetadata, KafkaProducer, errors

THEIRS = kafka.KafkaProducer
METHODS = [
    name
    for name in dir(THEIRS)
    if callable(getattr(THEIRS, name)) and (not name.startswith("_") or name in vars(THEIRS))
]
# How kafka-python does things inside; nobody else calls them.
INTERNAL = {
    "_cleanup_factory", "_unregister_cleanup", "_wait_on_metadata", "_estimate_size_in_bytes",
    "_ensure_valid_record_size",
}  # fmt: skip
# Called with three arguments by some and with four by others.
WIDER = {"_serialize"}
PUBLIC = sorted(set(METHODS) - INTERNAL - WIDER)
BEYOND = {"send_many", "send_arrow", "poll", "undelivered"}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Return (name, kind, default) of each parameter. `self` is as good by its place alone, as a method of C has it."""
    listed = inspect.signature(function).parameters.values()
    return [(each.name, each.name != "self" and each.kind, each.default) for each in listed]


@pytest.mark.parametrize("name", PUBLIC)
def test_same_parameters(name: str) -> None:
    assert parameters(getattr(KafkaProducer, name)) == parameters(getattr(THEIRS, name))


def test_beyond() -> None:
    ours = {name for name in dir(KafkaProducer) if not name.startswith("_")}
    theirs = {name for name in dir(THEIRS) if not name.startswith("_")}
    assert theirs - ours == set()
    # stats and diagnose come on top as they are built.
    later = {"stats", "diagnose"}
    assert ours - theirs - later == BEYOND


def test_send_s_positions() -> None:
    names = [name for name, _, _ in parameters(KafkaProducer.send)]
    assert names == ["self", "topic", "value", "key", "headers", "partition", "timestamp_ms"]


def test_close_and_flush_take_seconds_by_name() -> None:
    assert parameters(KafkaProducer.close)[1:] == [
        ("timeout", inspect.Parameter.POSITIONAL_OR_KEYWORD, None),
        ("null_logger", inspect.Parameter.POSITIONAL_OR_KEYWORD, False),
    ]
    assert parameters(KafkaProducer.poll)[1][::2] == ("timeout", 0)


@pytest.mark.parametrize("name", sorted({*PUBLIC, *BEYOND} - {"__init__", "__str__"}))
def test_everything_public_is_documented(name: str) -> None:
    assert (inspect.getdoc(getattr(KafkaProducer, name)) or "").strip()


def test_options_are_known_by_name_from_the_class() -> None:
    assert set(THEIRS.DEFAULT_CONFIG) <= set(KafkaProducer.DEFAULT_CONFIG)
    assert KafkaProducer.DEPRECATED_CONFIGS == THEIRS.DEPRECATED_CONFIGS


def test_no_positional_options() -> None:
    with pytest.raises(TypeError):
        KafkaProducer("localhost:9092")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("version", "magic"), [((4, 3), 2), ((0, 11), 2), ((0, 10, 2), 1), ((0, 10, 0), 1), ((0, 9), 0)]
)
def test_max_usable_produce_magic(version: tuple[int, ...], magic: int) -> None:
    assert KafkaProducer.max_usable_produce_magic(version) == magic
    assert THEIRS.max_usable_produce_magic(version) == magic


FUTURE = kafka.producer.future.FutureRecordMetadata
FUTURE_NAMES = [
    "is_done", "value", "exception", "succeeded", "failed", "retriable", "get", "add_callback",
    "add_errback", "add_both", "chain", "success", "failure",
]  # fmt: skip


@pytest.mark.parametrize("name", FUTURE_NAMES)
def test_futures_have_the_names_that_programs_use(name: str) -> None:
    theirs, ours = getattr(FUTURE, name), getattr(FutureRecordMetadata, name)
    assert inspect.isroutine(ours) == inspect.isroutine(theirs)
    if inspect.isroutine(theirs):
        assert shape(ours) == shape(theirs)


def shape(function: Any) -> list[tuple[Any, Any]]:
    """Return (kind, default) without `self` and without the names of positions: a keyword
    argument for a callback must not meet a parameter of that name."""
    positional = inspect.Parameter.POSITIONAL_ONLY
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    listed = parameters(function)[1:]
    return [(either if kind is positional else kind, default) for _, kind, default in listed]


def test_it_can_be_mocked() -> None:
    mocked = mock.MagicMock(spec=KafkaProducer)
    mocked.send("t", b"v")
    mocked.send.assert_called_once_with("t", b"v")
    with pytest.raises(AttributeError):
        mocked.no_such_method()
    strict = mock.create_autospec(KafkaProducer, instance=True)
    strict.send("t", value=b"v", key=None)
    with pytest.raises(TypeError):
        strict.flush(1, 2, 3)


def test_methods_of_one_that_never_started() -> None:
    class Broken(KafkaProducer):
        def __init__(self) -> None:
            pass

    made = Broken()
    assert str(made) == "<KafkaProducer client_id=None transactional_id=None>"
    made.flush()
    made.close()
    assert made.undelivered() == []
    assert made.metrics() is None
    assert not made.bootstrap_connected()
    with pytest.raises(errors.IllegalStateError):
        made.partitions_for("t")
    made.__del__()
