"""Partitioners: the built-in ones by name, and every form that kafka-python has ever taken.

The `partitioner` option is one of

* a name, done by the data plane without a Python call: "default" (murmur2 of the key, sticky
  without one), "round_robin", "sticky" (ignores keys), "random" (murmur2; a random partition for
  each record without a key), "murmur2" and "crc32" (no key counts as an empty one; crc32 is
  librdkafka's `consistent`);
* an instance of `Partitioner` here or in kafka-python 3:
  `partition(topic, key, serialized_key, value, serialized_value, cluster)`;
* another object whose `partition(topic, serialized_key, cluster)` takes three arguments;
* a callable of kafka-python 2: `f(serialized_key, all_partitions, available_partitions)`.

Which form it is, is found out once, at construction. An instance of exactly `DefaultPartitioner`,
`RoundRobinPartitioner`, `StickyPartitioner` or `RandomPartitioner` of this module stands for the
name. Instances of kafka-python's own classes run as they are.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Set
from typing import Any, Final, Protocol

from fastprod.call_forms import takes
from fastprod.refusal import bad_value, did_you_mean, refusal

__all__ = [
    "Cluster",
    "DefaultPartitioner",
    "Partitioner",
    "RandomPartitioner",
    "RoundRobinPartitioner",
    "StickyPartitioner",
]

# The data plane's constants; that both state the same is under test.
MODES: Final = {
    "default": "PARTITION_DEFAULT",
    "round_robin": "PARTITION_ROUND_ROBIN",
    "sticky": "PARTITION_STICKY",
    "random": "PARTITION_RANDOM",
    "murmur2": "PARTITION_MURMUR2",
    "crc32": "PARTITION_CRC32",
}
"""Name of a built-in partitioner -> name of the data plane's constant for it."""

CUSTOM: Final = "PARTITION_CUSTOM"

ACCEPTED: Final = (
    f"a name ({', '.join(MODES)}), an instance with a partition() method, or a callable "
    "f(key_bytes, all_partitions, available_partitions)"
)

Choose = Callable[[str, Any, Any, Any, Any], int]


class Cluster(Protocol):
    """What a custom partitioner is given to look around in (kafka-python's ClusterMetadata)."""

    def topics(self) -> set[str]:
        """Return the names of the topics this producer knows."""

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Return all partitions, None for an unknown topic."""

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        """Return the partitions that have a leader, None for an unknown topic."""


class Partitioner(ABC):
    """Base of custom partitioners.

    A subclass may also have `on_new_batch(topic, cluster, previous)`. It is called before a
    record without a key opens a new batch in partition `previous`, which was chosen for it; then
    `partition` is asked again, so the record can go elsewhere. Called from the sending thread;
    what either raises comes out of `send`.
    """

    @abstractmethod
    def partition(
        self,
        topic: str,
        key: Any,
        serialized_key: bytes | None,
        value: Any,
        serialized_value: bytes | None,
        cluster: Cluster,
    ) -> int:
        """Return the partition for a record.

        `topic` is its name; `key` and `value` are what `send` was given, `serialized_key` and
        `serialized_value` what the serializers made of them, None for none; `cluster` tells of
        partitions and their leaders.
        """


class DefaultPartitioner(Partitioner):
    """Murmur2 of the key, as Java does it; without a key some partition that has a leader.

    The class itself stands for "default", which stays on a partition while a batch fills. A
    subclass that calls `partition` gets one at random for each record without a key.
    """

    name = "default"

    def partition(
        self,
        topic: str,
        key: Any,
        serialized_key: bytes | None,
        value: Any,
        serialized_value: bytes | None,
        cluster: Cluster,
    ) -> int:
        """Return the partition for a record; ValueError for a topic the cluster does not know."""
        if serialized_key is None:
            import random  # slow to import, and seldom needed

            return random.choice(_candidates(topic, cluster))
        # Not at the top: the data plane lies above this file, and only a subclass needs it here.
        from fastprod._backend import partition_for_key

        partitions = sorted(_known(topic, cluster.partitions_for_topic(topic)))
        return partitions[partition_for_key(serialized_key, len(partitions))]


class StickyPartitioner(DefaultPartitioner):
    """kafka-python's: murmur2 of the key, without one sticky. So it is what "default" does.

    The name "sticky" is another thing: it ignores keys.
    """


class RandomPartitioner(DefaultPartitioner):
    """The name "random": murmur2 of the key; a random partition for each record without one."""

    name = "random"


class RoundRobinPartitioner(Partitioner):
    """The name "round_robin": the partitions that have a leader in turn, whatever the key."""

    name = "round_robin"

    def __init__(self) -> None:
        self._counters: dict[str, itertools.count[int]] = {}

    def partition(
        self,
        topic: str,
        key: Any,
        serialized_key: bytes | None,
        value: Any,
        serialized_value: bytes | None,
        cluster: Cluster,
    ) -> int:
        """Return the partition for a record; ValueError for a topic the cluster does not know."""
        candidates = _candidates(topic, cluster)
        counter = self._counters.setdefault(topic, itertools.count())
        return candidates[next(counter) % len(candidates)]


def _candidates(topic: str, cluster: Cluster) -> list[int]:
    available = cluster.available_partitions_for_topic(topic)
    return sorted(available or _known(topic, cluster.partitions_for_topic(topic)))


def _known(topic: str, partitions: Set[int] | None) -> Set[int]:
    if not partitions:
        raise ValueError(f"Topic {topic!r} is not known to the cluster.")
    return partitions


class _Chooser:
    """What the data plane calls for a partitioner with the six arguments of kafka-python 3."""

    __slots__ = ("_cluster", "_partition")

    def __init__(self, partition: Callable[..., int], cluster: Cluster) -> None:
        self._partition = partition
        self._cluster = cluster

    def __call__(
        self,
        topic: str,
        key: Any,
        serialized_key: bytes | None,
        value: Any,
        serialized_value: bytes | None,
    ) -> int:
        return self._partition(topic, key, serialized_key, value, serialized_value, self._cluster)


class _HookedChooser(_Chooser):
    """One more method for a partitioner that wants to know of new batches."""

    __slots__ = ("_hook",)

    def __init__(self, partitioner: Any, cluster: Cluster) -> None:
        super().__init__(partitioner.partition, cluster)
        self._hook: Callable[[str, Cluster, int], object] = partitioner.on_new_batch

    def on_new_batch(self, topic: str, previous: int) -> None:
        """The data plane is about to open a batch in partition `previous`."""
        self._hook(topic, self._cluster, previous)


class _ThreeArgumentChooser(_Chooser):
    """For `partition(topic, serialized_key, cluster)`."""

    __slots__ = ()

    def __call__(
        self,
        topic: str,
        key: Any,
        serialized_key: bytes | None,
        value: Any,
        serialized_value: bytes | None,
    ) -> int:
        return self._partition(topic, serialized_key, self._cluster)


class _CallableChooser(_Chooser):
    """For kafka-python 2's `f(key_bytes, all_partitions, available_partitions)`."""

    __slots__ = ()

    def __call__(
        self,
        topic: str,
        key: Any,
        serialized_key: bytes | None,
        value: Any,
        serialized_value: bytes | None,
    ) -> int:
        cluster = self._cluster
        every = sorted(cluster.partitions_for_topic(topic) or ())
        available = sorted(cluster.available_partitions_for_topic(topic) or ())
        return self._partition(serialized_key, every, available)


class Plan:
    """What was found out about a partitioner: `mode`, one of the data plane's constant names."""

    __slots__ = ("_make", "mode")

    def __init__(self, mode: str, make: Callable[[Cluster], Choose] | None = None) -> None:
        self.mode = mode
        self._make = make

    def bind(self, cluster: Cluster) -> Choose | None:
        """Return what the data plane calls for each record; None for a built-in mode."""
        return None if self._make is None else self._make(cluster)


_warned = threading.Event()


def plan(partitioner: object, stacklevel: int | None = None) -> Plan:
    """Find out which form a partitioner has, without calling it.

    `stacklevel` is the one of `warnings.warn` that points at the program, which is warned of the
    older form then, once. Raises KafkaConfigurationError (a ValueError too) for an unknown name,
    for a class where an instance is meant and for anything that is no partitioner.
    """
    if partitioner is None:
        return Plan(MODES["default"])
    if isinstance(partitioner, str):
        if partitioner not in MODES:
            remedy = did_you_mean(partitioner.lower(), MODES)
            raise bad_value("partitioner", partitioner, ACCEPTED, remedy)
        return Plan(MODES[partitioner])
    if isinstance(partitioner, type):
        raise refusal(
            f"partitioner={partitioner.__name__} is a class. Give an instance: "
            f"partitioner={partitioner.__name__}()."
        )
    if type(partitioner) in _BUILT_IN:
        return Plan(MODES[_BUILT_IN[type(partitioner)]])
    method = getattr(partitioner, "partition", None)
    if callable(method):
        return _plan_of_object(partitioner, method, stacklevel)
    if callable(partitioner):
        _require(partitioner, "f(key_bytes, all_partitions, available_partitions)", 3, partitioner)
        function = partitioner
        return Plan(CUSTOM, lambda cluster: _CallableChooser(function, cluster))
    raise bad_value("partitioner", partitioner, ACCEPTED)


_BUILT_IN: Final[dict[type, str]] = {
    DefaultPartitioner: "default",
    StickyPartitioner: "default",
    RandomPartitioner: "random",
    RoundRobinPartitioner: "round_robin",
}


def _plan_of_object(
    partitioner: Any, method: Callable[..., int], stacklevel: int | None
) -> Plan:
    if not _is_subclass_instance(partitioner):
        # kafka-python's rule: whoever does not derive from Partitioner has the older form.
        if takes(method, 3):
            if stacklevel is not None:
                _warn_once(stacklevel + 2)
            return Plan(CUSTOM, lambda cluster: _ThreeArgumentChooser(method, cluster))
        wanted = (
            "partition(topic, key, serialized_key, value, serialized_value, cluster) or "
            "partition(topic, serialized_key, cluster)"
        )
        _require(method, wanted, 6, partitioner)
    if callable(getattr(partitioner, "on_new_batch", None)):
        return Plan(CUSTOM, lambda cluster: _HookedChooser(partitioner, cluster))
    return Plan(CUSTOM, lambda cluster: _Chooser(method, cluster))


def _is_subclass_instance(partitioner: object) -> bool:
    """Whether it derives from our Partitioner or from kafka-python's, which is not imported."""
    if isinstance(partitioner, Partitioner):
        return True
    return any(
        base.__name__ == "Partitioner" and base.__module__.partition(".")[0] == "kafka"
        for base in type(partitioner).__mro__
    )


def _require(function: Callable[..., object], form: str, count: int, partitioner: object) -> None:
    if not takes(function, count):
        raise bad_value("partitioner", partitioner, f"callable as {form}")


def _warn_once(stacklevel: int) -> None:
    if _warned.is_set():
        return
    _warned.set()
    warnings.warn(
        "partition(topic, serialized_key, cluster) is the form of older releases; derive the "
        "partitioner from fastprod.partitioners.Partitioner, whose partition() takes six.",
        DeprecationWarning,
        stacklevel=stacklevel,
    )
