"""What we know of brokers, topics and leaders.

A `Snapshot` never changes; the control thread swaps in a whole new one, so any thread may read
`Cluster.snapshot` without a lock and sees one consistent picture. `Cluster` itself does no I/O:
it is told what a metadata response or a leader hint said and returns what that changes.

Rules (Java's Metadata, KIP-320, KIP-516, KIP-951):
* A leader with an older epoch than the known one is old news and ignored.
* A topic with another id is another topic: its epochs start anew. Before Metadata v10 there are
  no ids; there a topic is taken for recreated when its epochs went back, or it has fewer
  partitions, after it had been reported unknown, or when two responses in a row say so (one alone
  may come from a broker that lags behind).
* A topic does not lose partitions. Where the same one has fewer, the broker has not heard of the
  others yet, and they stay as we know them.
* A topic that vanished or went idle is remembered, so that we notice if it comes back as another.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Broker(NamedTuple):
    """A broker's address as the cluster advertises it."""

    node_id: int
    host: str
    port: int
    rack: str | None = None


class Leader(NamedTuple):
    """Who leads a partition: node id (-1 nobody) and leader epoch (-1 not known)."""

    node_id: int
    epoch: int = -1


class TopicInfo(NamedTuple):
    """A topic: `leaders[partition]`; `topic_id` 16 bytes, None before Metadata v10."""

    name: str
    topic_id: bytes | None
    leaders: tuple[Leader, ...]
    internal: bool = False
    fetched_at: float = 0.0


class Snapshot(NamedTuple):
    """The whole picture. `fetched_at`: monotonic seconds of the last response, 0 for never."""

    brokers: Mapping[int, Broker] = MappingProxyType({})
    topics: Mapping[str, TopicInfo] = MappingProxyType({})
    cluster_id: str | None = None
    fetched_at: float = 0.0


class TopicAnswer(NamedTuple):
    """A topic of a metadata response. `leaders`: by partition; `topic_id` is None where it has none."""

    name: str
    error_code: int
    topic_id: bytes | None
    internal: bool
    leaders: tuple[Leader, ...]


class MetadataAnswer(NamedTuple):
    """A metadata response in one shape for all versions."""

    brokers: tuple[Broker, ...]
    topics: tuple[TopicAnswer, ...]
    cluster_id: str | None = None
    error_code: int = 0


class Changes(NamedTuple):
    """What a response changes. `current`: topics it told about; `recreated`: those of them that
    are other topics now; `lost`: known ones it reports unknown; `refused`: topic -> error code;
    `moved`: brokers with a new address; `newer`: it told something we did not know."""

    current: tuple[TopicInfo, ...]
    recreated: frozenset[str]
    lost: tuple[TopicInfo, ...]
    refused: Mapping[str, int]
    moved: tuple[int, ...]
    newer: bool


_UNKNOWN_TOPIC: Final = (3, 100)
_MOST_REMEMBERED: Final = 10_000


class Cluster:
    """Holds the snapshot and decides what news means. Control thread only, `snapshot` aside."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self._past: dict[str, TopicInfo] = {}
        self._went_back: set[str] = set()

    def apply(self, answer: MetadataAnswer, now: float) -> Changes:
        """Swap in what a metadata response says. `now`: monotonic seconds."""
        old = self.snapshot
        brokers = {broker.node_id: broker for broker in answer.brokers}
        topics = dict(old.topics)
        current: list[TopicInfo] = []
        recreated: set[str] = set()
        lost: list[TopicInfo] = []
        refused: dict[str, int] = {}
        newer = brokers != old.brokers
        for told in answer.topics:
            known = topics.get(told.name)
            if told.error_code in _UNKNOWN_TOPIC and known is not None:
                lost.append(known)
                self._remember(topics.pop(told.name))
            if told.error_code or not told.leaders:
                refused[told.name] = told.error_code
                continue
            info, is_new_topic = self._merge(told, known, now)
            if is_new_topic:
                recreated.add(told.name)
            newer = newer or known is None or known.leaders != info.leaders
            topics[told.name] = info
            current.append(info)
        self.snapshot = Snapshot(
            MappingProxyType(brokers),
            MappingProxyType(topics),
            answer.cluster_id or old.cluster_id,
            now,
        )
        moved = tuple(
            node
            for node, broker in brokers.items()
            if _address(old.brokers, node, broker) != broker
        )
        return Changes(tuple(current), frozenset(recreated), tuple(lost), refused, moved, newer)

    def _merge(
        self, told: TopicAnswer, known: TopicInfo | None, now: float
    ) -> tuple[TopicInfo, bool]:
        """Return (the topic as we now see it, whether it is another topic than before)."""
        past = known or self._past.pop(told.name, None)
        fresh = TopicInfo(told.name, told.topic_id, told.leaders, told.internal, now)
        if past is None:
            return fresh, False
        if told.topic_id is not None and past.topic_id is not None:
            if told.topic_id != past.topic_id:
                return fresh, True
        elif self._is_recreated_without_ids(told, past, was_lost=known is None):
            return fresh, True
        return fresh._replace(leaders=_newest(past.leaders, told.leaders)), False

    def _is_recreated_without_ids(self, told: TopicAnswer, past: TopicInfo, was_lost: bool) -> bool:
        pairs = zip(past.leaders, told.leaders, strict=False)
        fewer = len(told.leaders) < len(past.leaders)
        if not fewer and not any(0 <= new.epoch < old.epoch for old, new in pairs):
            self._went_back.discard(told.name)
            return False
        if not was_lost and told.name not in self._went_back:
            self._went_back.add(told.name)
            return False
        self._went_back.discard(told.name)
        return True

    def apply_hint(
        self, topic: str, partition: int, leader: Leader, address: Broker | None
    ) -> bool:
        """Take a leader from a Produce response (KIP-951); return whether it was news.

        It counts only with an id and an epoch, an epoch strictly newer than ours, a partition we
        know, and a node that we know or whose `address` came along.
        """
        old = self.snapshot
        info = old.topics.get(topic)
        if info is None or not 0 <= partition < len(info.leaders):
            return False
        if leader.node_id < 0 or leader.epoch <= info.leaders[partition].epoch:
            return False
        brokers = dict(old.brokers)
        if leader.node_id not in brokers:
            if address is None:
                return False
            brokers[leader.node_id] = address
        leaders = list(info.leaders)
        leaders[partition] = leader
        topics = {**old.topics, topic: info._replace(leaders=tuple(leaders))}
        self.snapshot = old._replace(
            brokers=MappingProxyType(brokers), topics=MappingProxyType(topics)
        )
        return True

    def drop(self, topic: str) -> None:
        """Forget a topic that nobody sends to any more."""
        topics = dict(self.snapshot.topics)
        info = topics.pop(topic, None)
        if info is not None:
            self._remember(info)
            self.snapshot = self.snapshot._replace(topics=MappingProxyType(topics))

    def _remember(self, info: TopicInfo) -> None:
        self._past[info.name] = info
        while len(self._past) > _MOST_REMEMBERED:
            del self._past[next(iter(self._past))]

    def past(self, topic: str) -> TopicInfo | None:
        """Return what was known of a topic that vanished or was dropped."""
        return self._past.get(topic)

    def leader_of(self, topic: str, partition: int) -> int:
        """Return the node id of a partition's leader, -1 if there is none we could talk to."""
        info = self.snapshot.topics.get(topic)
        if info is None or not 0 <= partition < len(info.leaders):
            return -1
        node_id = info.leaders[partition].node_id
        return node_id if node_id in self.snapshot.brokers else -1

    def routable_leaders(self, info: TopicInfo) -> list[int]:
        """Return the leaders' node ids in partition order, -1 where there is no such broker."""
        brokers = self.snapshot.brokers
        return [each.node_id if each.node_id in brokers else -1 for each in info.leaders]


def _newest(known: tuple[Leader, ...], told: tuple[Leader, ...]) -> tuple[Leader, ...]:
    kept = [
        old if 0 <= new.epoch < old.epoch else new for old, new in zip(known, told, strict=False)
    ]
    return (*kept, *told[len(kept) :], *known[len(kept) :])


def _address(brokers: Mapping[int, Broker], node: int, fallback: Broker) -> Broker:
    """Return the known address of a node, compared without its rack; `fallback` if unknown."""
    known = brokers.get(node)
    return fallback if known is None else known._replace(rack=fallback.rack)
