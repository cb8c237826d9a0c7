"""fastprod.partitioners: which form is recognised as what, and how each is called."""

from __future__ import annotations

import collections
import random
import threading
import warnings
from typing import Any
from unittest import mock

import kafka.partitioner  # type: ignore[import-untyped]
import pytest

from fastprod import _backend, errors, partitioners
from fastprod.partitioners import (
    CUSTOM,
    MODES,
    DefaultPartitioner,
    Partitioner,
    RandomPartitioner,
    RoundRobinPartitioner,
    StickyPartitioner,
    plan,
)


class View:
    """A cluster of one topic "t" with four partitions, of which 3 has no leader."""

    def topics(self) -> set[str]:
        return {"t"}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0, 1, 2, 3} if topic == "t" else None

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0, 1, 2} if topic == "t" else None


VIEW = View()


def choose(partitioner: object, key: bytes | None = b"k", topic: str = "t") -> int:
    made = plan(partitioner)
    assert made.mode == CUSTOM
    function = made.bind(VIEW)
    assert function is not None
    return function(topic, "key object", key, "value object", b"v")


@pytest.mark.parametrize("name", MODES)
def test_names_are_the_data_plane_s_modes(name: str) -> None:
    made = plan(name)
    assert made.bind(VIEW) is None
    assert isinstance(getattr(_backend, made.mode), int)


def test_all_modes_of_the_data_plane_have_a_name() -> None:
    theirs = {name for name in vars(_backend) if name.startswith("PARTITION_")}
    assert theirs == {*MODES.values(), CUSTOM}


@pytest.mark.parametrize(
    ("instance", "name"),
    [
        (None, "default"),
        (DefaultPartitioner(), "default"),
        (StickyPartitioner(), "default"),
        (RandomPartitioner(), "random"),
        (RoundRobinPartitioner(), "round_robin"),
    ],
)
def test_our_own_classes_stand_for_names(instance: object, name: str) -> None:
    assert plan(instance).mode == MODES[name]


def test_unknown_names() -> None:
    with pytest.raises(errors.KafkaConfigurationError, match="Did you mean 'round_robin'"):
        plan("roundrobin")
    with pytest.raises(ValueError, match="partitioner='x'"):
        plan("x")


@pytest.mark.parametrize(
    "cls", [DefaultPartitioner, kafka.partitioner.DefaultPartitioner, RoundRobinPartitioner]
)
def test_a_class_instead_of_an_instance(cls: type) -> None:
    with pytest.raises(ValueError, match=rf"{cls.__name__}\(\)"):
        plan(cls)


@pytest.mark.parametrize("bad", [5, 1.5, [], object(), b"default"])
def test_no_partitioner_at_all(bad: object) -> None:
    with pytest.raises(ValueError, match="partitioner="):
        plan(bad)


class Ours(Partitioner):
    def partition(self, *arguments: Any) -> int:
        self.arguments = arguments
        return 2


class Theirs(kafka.partitioner.Partitioner):  # type: ignore[misc]
    def partition(
        self,
        topic: str,
        key: Any,
        serialized_key: Any,
        value: Any,
        serialized_value: Any,
        cluster: Any,
    ) -> int:
        self.arguments = (topic, key, serialized_key, value, serialized_value, cluster)
        return 2


class Duck:
    def partition(
        self, topic: str, key: Any, skey: Any, value: Any, svalue: Any, cluster: Any
    ) -> int:
        self.arguments = (topic, key, skey, value, svalue, cluster)
        return 2


@pytest.mark.parametrize("partitioner", [Ours(), Theirs(), Duck()], ids=lambda p: type(p).__name__)
def test_six_arguments(partitioner: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose(partitioner) == 2
    assert partitioner.arguments == ("t", "key object", b"k", "value object", b"v", VIEW)


class Three:
    def partition(self, topic: str, serialized_key: Any, cluster: Any) -> int:
        self.arguments = (topic, serialized_key, cluster)
        return 1


def test_three_arguments_warn_once_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitioners, "_warned", threading.Event())
    partitioner = Three()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan(partitioner).mode == partitioners.CUSTOM
    with pytest.warns(DeprecationWarning, match="takes six") as caught:
        function = plan(partitioner, stacklevel=2).bind(VIEW)
    assert caught[0].filename == __file__
    assert function is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert function("t", "key object", b"k", "value object", b"v") == 1
        plan(Three(), stacklevel=2)
    assert partitioner.arguments == ("t", b"k", VIEW)


def test_a_mock_is_called_as_kafka_python_calls_it() -> None:
    partitioner = mock.Mock(spec=["partition"])
    partitioner.partition.return_value = 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert choose(partitioner) == 3
    partitioner.partition.assert_called_once_with("t", b"k", VIEW)


def test_a_partition_method_of_no_known_form() -> None:
    class Two:
        def partition(self, topic: str, key: bytes) -> int:
            return 0

    with pytest.raises(ValueError, match="callable as partition"):
        plan(Two())


def test_callables_of_kafka_python_2() -> None:
    seen: list[Any] = []

    def function(key: bytes | None, every: list[int], available: list[int]) -> int:
        seen.append((key, every, available))
        return available[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose(function) == 2
        assert choose(function, None) == 2
    assert seen == [(b"k", [0, 1, 2, 3], [0, 1, 2]), (None, [0, 1, 2, 3], [0, 1, 2])]


def test_callable_objects_of_kafka_python_2() -> None:
    class Hashed:
        @classmethod
        def __call__(cls, key: bytes | None, every: list[int], available: list[int]) -> int:
            return every[len(key or b"") % len(every)]

    assert choose(Hashed(), b"abc") == 3


def test_a_callable_with_another_number_of_arguments() -> None:
    with pytest.raises(ValueError, match="all_partitions"):
        plan(lambda key: 0)


def test_on_new_batch_is_there_only_where_the_partitioner_has_it() -> None:
    assert not hasattr(plan(Ours()).bind(VIEW), "on_new_batch")

    class Hooked(Ours):
        def on_new_batch(self, topic: str, cluster: Any, previous: int) -> None:
            self.hook = (topic, cluster, previous)

    partitioner = Hooked()
    function: Any = plan(partitioner).bind(VIEW)
    function.on_new_batch("t", 1)
    assert partitioner.hook == ("t", VIEW, 1)


def test_kafka_python_s_own_instances_run_as_they_are() -> None:
    random.seed(5)
    theirs = kafka.partitioner.DefaultPartitioner()
    counts = collections.Counter(choose(theirs, None) for _ in range(300))
    assert set(counts) == {0, 1, 2}
    assert min(counts.values()) > 50
    sticky = kafka.partitioner.StickyPartitioner()
    function: Any = plan(sticky).bind(VIEW)
    first = function("t", None, None, None, b"v")
    assert {function("t", None, None, None, b"v") for _ in range(20)} == {first}
    function.on_new_batch("t", first)
    assert function("t", None, None, None, b"v") != first


KEYS = [
    b"",
    b"abc",
    b"abcd",
    b"21",
    b"foobar",
    b"a-little-bit-long-string",
    bytes.fromhex("fffe80007f"),
]


@pytest.mark.parametrize("key", KEYS)
def test_a_subclass_of_ours_hashes_like_kafka_python(key: bytes) -> None:
    class Mine(DefaultPartitioner):
        pass

    theirs = kafka.partitioner.DefaultPartitioner()
    assert choose(Mine(), key) == choose(theirs, key)


def test_a_subclass_of_ours_without_a_key_takes_what_has_a_leader() -> None:
    class Mine(DefaultPartitioner):
        pass

    assert {choose(Mine(), None) for _ in range(200)} == {0, 1, 2}


def test_a_subclass_of_round_robin() -> None:
    class Mine(RoundRobinPartitioner):
        pass

    function: Any = plan(Mine()).bind(VIEW)
    assert [function("t", None, b"same", None, b"v") for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("base", [DefaultPartitioner, RoundRobinPartitioner])
@pytest.mark.parametrize("key", [None, b"k"])
def test_an_unknown_topic_is_a_value_error(base: type, key: bytes | None) -> None:
    mine = type("Mine", (base,), {})()
    with pytest.raises(ValueError, match="'other'"):
        choose(mine, key, "other")


def test_what_a_partitioner_raises_comes_through() -> None:
    def function(key: Any, every: Any, available: Any) -> int:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        choose(function)
