"""The picture of the cluster that custom partitioners are given, in kafka-python's terms."""

from __future__ import annotations

from collections.abc import Callable

from fastprod.control.cluster import Broker, Snapshot
from fastprod.types import TopicPartition


class ClusterView:
    """Answers kafka-python's `ClusterMetadata` questions from the current snapshot, any thread."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def topics(self, exclude_internal_topics: bool = True) -> set[str]:
        """Return the names of the topics this producer knows."""
        return {
            info.name
            for info in self._snapshot().topics.values()
            if not (exclude_internal_topics and info.internal)
        }

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Return all partition numbers, None for an unknown topic."""
        info = self._snapshot().topics.get(topic)
        return None if info is None else set(range(len(info.leaders)))

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        """Return the partitions that have a leader, None for an unknown topic."""
        info = self._snapshot().topics.get(topic)
        if info is None:
            return None
        return {number for number, leader in enumerate(info.leaders) if leader.node_id != -1}

    def leader_for_partition(self, partition: TopicPartition) -> int | None:
        """Return the leader's node id, -1 if the partition has none, None if it is unknown."""
        topic, number = partition[0], partition[1]
        info = self._snapshot().topics.get(topic)
        if info is None or not 0 <= number < len(info.leaders):
            return None
        return info.leaders[number].node_id

    def brokers(self) -> set[Broker]:
        """Return the brokers, each with node_id, host, port and rack."""
        return set(self._snapshot().brokers.values())

    def broker_metadata(self, broker_id: int) -> Broker | None:
        """Return one broker, None if it is unknown."""
        return self._snapshot().brokers.get(broker_id)

    def partitions_for_broker(self, broker_id: int) -> set[TopicPartition] | None:
        """Return the partitions that a broker leads, None if there are none."""
        led = {
            TopicPartition(info.name, number)
            for info in self._snapshot().topics.values()
            for number, leader in enumerate(info.leaders)
            if leader.node_id == broker_id
        }
        return led or None
