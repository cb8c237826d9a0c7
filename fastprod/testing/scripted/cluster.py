"""The cluster that a `ScriptedBroker` plays: topics, partitions, leaders, logs. Nothing here knows of sockets."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Final

from fastprod.testing.scripted.log import PartitionLog, Verdict
from fastprod.testing.scripted.records import Batch, Record
from fastprod.testing.scripted.releases import Release

UNKNOWN_TOPIC_OR_PARTITION: Final = 3
NOT_LEADER_OR_FOLLOWER: Final = 6
MESSAGE_TOO_LARGE: Final = 10
INVALID_TIMESTAMP: Final = 32
INVALID_RECORD: Final = 87
UNKNOWN_TOPIC_ID: Final = 100
NO_LEADER: Final = -1
# Kafka's default of max.message.bytes: 1 MiB and the 12 bytes in front of a batch that its size field leaves out.
_LARGEST: Final = 1024 * 1024 + 12
_TOPIC_NAME: Final = re.compile(r"(?!\.\.?$)[a-zA-Z0-9._-]{1,249}")


class Partition:
    """One partition: `leader` is a node id or -1; `epoch` counts its leaders."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.epoch = 0
        self.log = PartitionLog()


class Topic:
    """One topic, under an id of its own."""

    def __init__(self, name: str, largest: int, compacted: bool) -> None:
        self.name = name
        self.id = uuid.uuid4()
        self.largest = largest
        self.compacted = compacted
        self.partitions: list[Partition] = []


class Cluster:
    """What there is, and what becomes of it. Every method may be called from any thread at any time.

    Topics are named, partitions counted from 0, nodes from 1. ValueError for what is not there.
    """

    def __init__(self, release: Release, nodes: int, topics: Mapping[str, int]) -> None:
        self.lock = threading.RLock()
        self._release = release
        self._node_ids = range(1, nodes + 1)
        self._topics: dict[str, Topic] = {}
        for name, partitions in topics.items():
            self.create_topic(name, partitions)

    @property
    def topics(self) -> dict[str, int]:
        """Topics and how many partitions each has."""
        with self.lock:
            return {name: len(topic.partitions) for name, topic in self._topics.items()}

    def create_topic(
        self, name: str, partitions: int = 1, *, max_message_bytes: int = _LARGEST, compacted: bool = False
    ) -> None:
        """Make a topic. Its partitions are led by the nodes in turn: 0 by node 1, 1 by node 2.

        Args:
            max_message_bytes: largest batch that it takes, bytes.
            compacted: whether records need a key.

        Raises:
            ValueError: there is one of that name.
        """
        with self.lock:
            if name in self._topics:
                raise ValueError(f"there is a topic {name!r} already")
            self._topics[name] = Topic(name, max_message_bytes, compacted)
            self._grow(self._topics[name], partitions)

    def add_partitions(self, name: str, total: int) -> None:
        """Give a topic more partitions, so that it has `total`. ValueError if it has more already."""
        with self.lock:
            topic = self._topic(name)
            if total < len(topic.partitions):
                raise ValueError(f"{name!r} has {len(topic.partitions)} partitions: they cannot become {total}")
            self._grow(topic, total)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all that is in it. Made again, it has another id and leader epochs from 0 on."""
        with self.lock:
            self._topic(name)
            del self._topics[name]

    def recreate_topic(self, name: str, partitions: int | None = None) -> None:
        """Delete a topic and make it again, with as many partitions as before unless told otherwise."""
        with self.lock:
            old = self._topic(name)
            self.delete_topic(name)
            count = len(old.partitions) if partitions is None else partitions
            self.create_topic(name, count, max_message_bytes=old.largest, compacted=old.compacted)

    def change_topic(self, name: str, *, max_message_bytes: int) -> None:
        """Change the largest batch that a topic takes, bytes."""
        with self.lock:
            self._topic(name).largest = max_message_bytes

    def move_leader(self, topic: str, partition: int, node: int) -> None:
        """Make another node the leader, in the next leader epoch; -1 leaves the partition without one. ValueError for
        a node that there is not."""
        with self.lock:
            found = self.partition(topic, partition)
            if node != NO_LEADER and node not in self._node_ids:
                raise ValueError(f"node={node!r}: there are {list(self._node_ids)}")
            found.leader = node
            found.epoch += 1

    def leader(self, topic: str, partition: int) -> int:
        """Return the leader's node id, -1 if there is none."""
        with self.lock:
            return self.partition(topic, partition).leader

    def leader_epoch(self, topic: str, partition: int) -> int:
        """Return the leader epoch: 0, and one more with each move."""
        with self.lock:
            return self.partition(topic, partition).epoch

    def topic_id(self, name: str) -> uuid.UUID:
        """Return the topic's id (told to clients by releases from 3.3 on)."""
        with self.lock:
            return self._topic(name).id

    def topic_name(self, topic_id: uuid.UUID | None) -> str:
        """Return the name of the topic with that id, "" if there is none."""
        with self.lock:
            topic = self.find_topic(None, topic_id)
            return "" if topic is None else topic.name

    def log(self, topic: str, partition: int = 0) -> list[Batch]:
        """Return the batches in a partition, in order, with their records at their offsets."""
        with self.lock:
            return list(self.partition(topic, partition).log.batches)

    def records(self, topic: str, partition: int = 0) -> list[Record]:
        """Return the records in a partition, in order."""
        return [record for batch in self.log(topic, partition) for record in batch.records]

    def values(self, topic: str, partition: int = 0) -> list[bytes | None]:
        """Return the values in a partition, in order."""
        return [record.value for record in self.records(topic, partition)]

    def append(self, batch: Batch) -> int:
        """Write a batch to its partition's log, whatever speaks against it; return the offset of its first record."""
        with self.lock:
            return self.partition(batch.topic, batch.partition).log.append(batch)

    def forget_producers(self, topic: str, partition: int = 0) -> None:
        """Forget all producers' epochs and sequences there, as after retention has deleted what they wrote."""
        with self.lock:
            self.partition(topic, partition).log.forget_producers()

    def remember_less(self, topic: str, partition: int = 0) -> None:
        """Remember of each producer its last batch there and no other, as a broker does that was started again."""
        with self.lock:
            self.partition(topic, partition).log.remember_less()

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Move the start of a log up to this offset."""
        with self.lock:
            self.partition(topic, partition).log.delete_records(before)

    def judge(self, batch: Batch, node: int | None = None) -> Verdict:
        """Do with a batch what a broker does, and return its verdict: append it, recognize it or refuse it.

        `node`: who was asked; None is the leader, whoever that is.
        """
        with self.lock:
            topic = self._topics.get(batch.topic)
            if batch.topic_id is not None and (topic is None or topic.id != batch.topic_id):
                return Verdict(UNKNOWN_TOPIC_ID)
            if topic is None or not 0 <= batch.partition < len(topic.partitions):
                return Verdict(UNKNOWN_TOPIC_OR_PARTITION)
            partition = topic.partitions[batch.partition]
            if node is not None and node != partition.leader:
                return Verdict(NOT_LEADER_OR_FOLLOWER, leader=partition.leader)
            return self._invalid(topic, batch) or partition.log.take(batch, self._release.without_state)

    def partition(self, topic: str, partition: int) -> Partition:
        """Return the partition itself; hold `lock` while using it. ValueError if there is none of that number."""
        partitions = self._topic(topic).partitions
        if not 0 <= partition < len(partitions):
            raise ValueError(f"partition={partition!r}: {topic!r} has {len(partitions)}")
        return partitions[partition]

    def find_topic(self, name: str | None, topic_id: uuid.UUID | None) -> Topic | None:
        """Return the topic of that name or, if the name is None, of that id."""
        if name is not None:
            return self._topics.get(name)
        return next((topic for topic in self._topics.values() if topic.id == topic_id), None)

    def _invalid(self, topic: Topic, batch: Batch) -> Verdict | None:
        """What the validation of records has against a batch (LogValidator of Apache Kafka)."""
        start = topic.partitions[batch.partition].log.start
        if len(batch.data) > topic.largest:
            return Verdict(MESSAGE_TOO_LARGE)
        if batch.problem is not None:
            return Verdict(batch.problem.code, log_start_offset=-1 if batch.problem.early else start)
        place = f"topic partition {topic.name}-{batch.partition}"
        wrong = [
            (index, f"Compacted topic cannot accept message without key in {place}")
            for index, record in enumerate(batch.records)
            if topic.compacted and record.key is None
        ]
        if wrong:
            why = f"One or more records have been rejected due to {len(wrong)} record errors in total"
            return Verdict(INVALID_RECORD, message=why, record_errors=tuple(wrong), log_start_offset=start)
        if self._release.latest_ms is not None:
            latest = time.time() * 1000 + self._release.latest_ms
            late = [
                (index, f"Timestamp {record.timestamp_ms} of message with offset {index} is out of range.")
                for index, record in enumerate(batch.records)
                if record.timestamp_ms > latest
            ]
            if late:
                why = "One or more records have been rejected due to invalid timestamp"
                return Verdict(INVALID_TIMESTAMP, message=why, record_errors=tuple(late), log_start_offset=start)
        return None

    def _topic(self, name: str) -> Topic:
        if name not in self._topics:
            raise ValueError(f"there is no topic {name!r}; there are {sorted(self._topics)}")
        return self._topics[name]

    def _grow(self, topic: Topic, total: int) -> None:
        for number in range(len(topic.partitions), total):
            topic.partitions.append(Partition(self._node_ids[number % len(self._node_ids)]))


def is_topic_name(name: str) -> bool:
    """Say whether a topic may be called so."""
    return _TOPIC_NAME.fullmatch(name) is not None
