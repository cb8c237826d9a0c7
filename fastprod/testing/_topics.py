"""Asking the nodes of a cluster about its topics, whichever of them are there to answer."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from fastprod.testing import _admin
from fastprod.testing._errors import BrokerError
from fastprod.testing._node import Node

WAIT_S = 60.0
_ANSWER_S = 10.0
_POLL_S = 0.01
# A node that was paused is not believed to be there before it has told the controller again.
_LEADERLESS_S = 5.0
# A directory with one more part to its name holds what is being deleted.
_PARTITION = re.compile(r"(.+)-(\d+)")
_METADATA_LOG = "__cluster_metadata"


class Topics:
    """The topics of the cluster made of `nodes`, which are looked at anew for each question.

    Every method raises OSError if a node that should answer does not, and BrokerError if none is running.
    """

    def __init__(self, nodes: Mapping[int, Node]) -> None:
        self._nodes = nodes

    def create(self, name: str, partitions: int, replication_factor: int | None, config: dict[str, str]) -> None:
        """Create a topic and wait until every partition is served. BrokerError if it is refused."""
        replication = -1 if replication_factor is None else replication_factor
        _admin.create_topic(self._administrator(), name, partitions, replication, config, _ANSWER_S)
        self.wait(name, partitions)

    def delete(self, name: str) -> None:
        """Delete a topic and wait until no node that answers knows it. BrokerError if it is refused."""
        _admin.delete_topic(self._administrator(), name, _ANSWER_S)
        wait_for(lambda: self._is_gone(name), f"topic {name!r} to be gone")

    def wait(self, name: str, partitions: int) -> None:
        """Wait until a topic has that many partitions and the leader of each serves it. BrokerError after 60 s."""
        wait_for(lambda: self._serves(name, partitions), f"topic {name!r} to serve {partitions} partitions")

    def wait_for_data(self, data: Path) -> None:
        """Wait until every partition there is in that directory is served. BrokerError after 60 s.

        A broker takes requests a moment before it leads again what it led, the longer the older it is.
        """

        def served() -> bool:
            found = (_PARTITION.fullmatch(path.name) for path in data.iterdir())
            every = [(match[1], int(match[2])) for match in found if match and match[1] != _METADATA_LOG]
            topics = _admin.metadata(self._someone(), sorted({name for name, _ in every}), _ANSWER_S).topics
            partitions = [(name, number, topics[name].partitions.get(number)) for name, number in every]
            return all(
                partition is not None and self._offset(name, number, partition.leader) is not None
                for name, number, partition in partitions
            )

        wait_for(served, f"the partitions in {data} to be served")

    def controller(self) -> int:
        """Return the id of the active controller. BrokerError if there is none, or it is not known yet."""
        if self._quorum:
            found = _admin.controller(self._someone(), _ANSWER_S)
        else:
            # One that was paused a moment ago still takes itself for it.
            found = Counter(view.controller for view in self._views([])).most_common(1)[0][0]
        if found < 0:
            raise BrokerError("there is no active controller")
        return found

    def leader(self, name: str, partition: int) -> int:
        """Return the id of the partition's leader. BrokerError if it has none."""
        found = self._partition(name, partition)
        if found is None or found.leader < 0:
            raise BrokerError(f"partition {partition} of topic {name!r} has no leader")
        return found.leader

    def wait_for_leader(self, name: str, partition: int, other_than: int | None, timeout: float) -> int:
        """Wait until the partition has a leader (another than that node) that serves it; return its id.

        BrokerError if there is none within `timeout` s.
        """
        leaders: list[int] = []

        def moved() -> bool:
            found = self._partition(name, partition)
            if found is None or found.leader in (-1, other_than) or self._offset(name, partition, found.leader) is None:
                return False
            leaders.append(found.leader)
            return True

        besides = "" if other_than is None else f" other than node {other_than}"
        wait_for(moved, f"partition {partition} of topic {name!r} to have a leader{besides}", timeout)
        return leaders[-1]

    def wait_in_sync(self, timeout: float) -> None:
        """Wait until every replica of every partition is in sync. BrokerError after `timeout` s."""

        def in_sync() -> bool:
            topics = [topic for view in self._views(None) for topic in view.topics.values()]
            every = [partition for topic in topics for partition in topic.partitions.values()]
            return all(each.leader >= 0 and each.in_sync == each.replicas for each in every)

        wait_for(in_sync, "all replicas to be in sync", timeout)

    def end_offset(self, name: str, partition: int) -> int:
        """Return the partition's end offset. BrokerError if there is no leader that serves it, for a while."""
        deadline = time.monotonic() + _LEADERLESS_S
        while True:
            found = self._partition(name, partition)
            offset = self._offset(name, partition, found.leader) if found is not None else None
            if offset is not None:
                return offset
            if time.monotonic() > deadline:
                raise BrokerError(f"partition {partition} of topic {name!r} has no leader that serves it")
            time.sleep(_POLL_S)

    def _someone(self) -> _admin.Address:
        """Return the address of a node that answers; a paused one only if there is no other."""
        running = [node for node in self._nodes.values() if node.running]
        if not running:
            raise BrokerError("no node is running")
        return min(running, key=lambda node: node.paused).address

    @property
    def _quorum(self) -> bool:
        """Whether the controller is one of a quorum (KRaft)."""
        return any(node.place.controllers for node in self._nodes.values())

    def _administrator(self) -> _admin.Address:
        """Return the address of whoever creates and deletes topics: with a ZooKeeper the controller alone, with KRaft
        any node, which passes it on (KIP-590)."""
        if self._quorum or len(self._nodes) == 1:
            return self._someone()
        wait_for(lambda: self._nodes[self.controller()].answering, "a controller that answers")
        return self._nodes[self.controller()].address

    def _views(self, names: list[str] | None) -> list[_admin.View]:
        """Return what each node that answers knows: one that was paused a moment ago is behind the others.

        OSError if none does.
        """
        views = []
        failed: OSError | None = None
        for address in [node.address for node in self._nodes.values() if node.answering] or [self._someone()]:
            try:
                views.append(_admin.metadata(address, names, _ANSWER_S))
            except OSError as error:
                failed = error
        if failed is not None and not views:
            raise failed
        return views

    def _partition(self, name: str, partition: int) -> _admin.Partition | None:
        """Return what is known of a partition by whoever knows of the latest leader."""
        found = [view.topics[name].partitions.get(partition) for view in self._views([name])]
        return max((each for each in found if each is not None), key=lambda each: each.leader_epoch, default=None)

    def _is_gone(self, name: str) -> bool:
        """Say whether the name is free again and none of them knows the topic: each learns of it in its own time."""
        unknown = all(view.topics[name].error == _admin.UNKNOWN_TOPIC_OR_PARTITION for view in self._views([name]))
        return unknown and not _admin.topic_exists(self._administrator(), name, _ANSWER_S)

    def _serves(self, name: str, partitions: int) -> bool:
        """Say whether every leader answers for its partition: it is named in metadata a moment before it does."""
        topics = [view.topics[name] for view in self._views([name])]
        if any(topic.error or len(topic.partitions) < partitions for topic in topics):
            return False
        return all(
            self._offset(name, number, partition.leader) is not None
            for topic in topics
            for number, partition in topic.partitions.items()
        )

    def _offset(self, name: str, partition: int, leader: int) -> int | None:
        """Ask a node that may no longer be the leader, or be there, for the partition's end offset."""
        node = self._nodes.get(leader)
        if node is None or not node.answering:
            return None
        return _admin.end_offset(node.address, name, partition, _ANSWER_S)


def wait_for(condition: Callable[[], bool], what: str, timeout: float = WAIT_S) -> None:
    """Wait until the condition is true; a node that goes away while it is asked makes it untrue for now.

    BrokerError after `timeout` s.
    """
    deadline = time.monotonic() + timeout
    while True:
        cause: OSError | None = None
        try:
            if condition():
                return
        except OSError as error:
            cause = error
        if time.monotonic() > deadline:
            raise BrokerError(f"waited {timeout:.0f} s in vain for {what}") from cause
        time.sleep(_POLL_S)
