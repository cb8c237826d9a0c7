"""What metadata and leader hints mean: epochs, recreated topics, lost ones (KIP-320, 516, 951)."""

from __future__ import annotations

from fastprod.control.cluster import Broker, Changes, Cluster, Leader, MetadataAnswer, TopicAnswer
from fastprod.control.view import ClusterView
from fastprod.types import TopicPartition

ID_A, ID_B = b"a" * 16, b"b" * 16
BROKERS = (Broker(1, "one", 9092), Broker(2, "two", 9092))


def topic(
    *leaders: tuple[int, int], name: str = "t", topic_id: bytes | None = ID_A, code: int = 0
) -> TopicAnswer:
    return TopicAnswer(name, code, topic_id, False, tuple(Leader(*each) for each in leaders))


def feed(cluster: Cluster, *topics: TopicAnswer, brokers: tuple[Broker, ...] = BROKERS) -> Changes:
    return cluster.apply(MetadataAnswer(brokers, topics), 1.0)


def leaders(cluster: Cluster, name: str = "t") -> list[tuple[int, int]]:
    return [tuple(each) for each in cluster.snapshot.topics[name].leaders]


class TestEpochs:
    def test_newer_is_taken(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        changes = feed(cluster, topic((2, 6)))
        assert leaders(cluster) == [(2, 6)]
        assert changes.newer
        assert not changes.recreated

    def test_older_is_ignored(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5), (2, 3)))
        changes = feed(cluster, topic((2, 4), (1, 3)))
        assert leaders(cluster) == [(1, 5), (1, 3)]
        assert not changes.recreated

    def test_unknown_epochs_are_taken(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, -1), topic_id=None))
        feed(cluster, topic((2, -1), topic_id=None))
        assert leaders(cluster) == [(2, -1)]

    def test_the_same_again_is_nothing_new(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        assert not feed(cluster, topic((1, 5))).newer

    def test_more_partitions_are_taken_and_fewer_ignored(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        feed(cluster, topic((1, 5), (2, 0)))
        assert leaders(cluster) == [(1, 5), (2, 0)]
        changes = feed(cluster, topic((2, 6)))
        assert leaders(cluster) == [(2, 6), (2, 0)]
        assert not changes.recreated

    def test_without_ids_fewer_partitions_twice_in_a_row_are_another_topic(self) -> None:
        cluster = Cluster()
        two, one = topic((1, -1), (2, -1), topic_id=None), topic((1, -1), topic_id=None)
        feed(cluster, two)
        assert not feed(cluster, one).recreated
        assert leaders(cluster) == [(1, -1), (2, -1)]
        assert not feed(cluster, two).recreated
        assert not feed(cluster, one).recreated
        assert feed(cluster, one).recreated == {"t"}
        assert leaders(cluster) == [(1, -1)]


class TestRecreated:
    def test_another_id(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        changes = feed(cluster, topic((2, 0), topic_id=ID_B))
        assert changes.recreated == {"t"}
        assert leaders(cluster) == [(2, 0)]

    def test_another_id_after_it_was_reported_unknown(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        lost = feed(cluster, topic(code=3))
        assert [each.name for each in lost.lost] == ["t"]
        assert "t" not in cluster.snapshot.topics
        assert feed(cluster, topic((1, 0), topic_id=ID_B)).recreated == {"t"}

    def test_another_id_after_it_was_dropped_as_idle(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        cluster.drop("t")
        assert feed(cluster, topic((1, 0), topic_id=ID_B)).recreated == {"t"}

    def test_the_same_id_again_is_the_same_topic(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        feed(cluster, topic(code=3))
        changes = feed(cluster, topic((2, 4)))
        assert not changes.recreated
        assert leaders(cluster) == [(1, 5)]

    def test_without_ids_one_stale_answer_is_not_enough(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5), topic_id=None))
        assert not feed(cluster, topic((2, 1), topic_id=None)).recreated
        assert leaders(cluster) == [(1, 5)]
        assert feed(cluster, topic((2, 1), topic_id=None)).recreated == {"t"}
        assert leaders(cluster) == [(2, 1)]

    def test_without_ids_a_good_answer_in_between_clears_the_suspicion(self) -> None:
        cluster = Cluster()
        for epoch in (5, 1, 5):
            feed(cluster, topic((1, epoch), topic_id=None))
        assert not feed(cluster, topic((2, 1), topic_id=None)).recreated

    def test_without_ids_epochs_back_after_unknown(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5), topic_id=None))
        feed(cluster, topic(code=3, topic_id=None))
        assert feed(cluster, topic((1, 0), topic_id=None)).recreated == {"t"}

    def test_without_ids_the_same_epochs_after_unknown(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5), topic_id=None))
        feed(cluster, topic(code=3, topic_id=None))
        assert not feed(cluster, topic((1, 5), topic_id=None)).recreated


class TestRefused:
    def test_errors_are_reported_and_what_is_known_stays(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        changes = feed(cluster, topic(code=5), topic(name="u", code=29))
        assert dict(changes.refused) == {"t": 5, "u": 29}
        assert leaders(cluster) == [(1, 5)]

    def test_a_topic_without_partitions_is_not_there_yet(self) -> None:
        assert dict(feed(Cluster(), topic()).refused) == {"t": 0}


class TestHints:
    def test_newer_epoch_of_a_known_node(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        assert cluster.apply_hint("t", 0, Leader(2, 6), None)
        assert cluster.leader_of("t", 0) == 2

    def test_ignored_ones(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        for leader, address in (
            (Leader(2, 5), None),  # same epoch
            (Leader(2, 4), None),  # older
            (Leader(-1, 6), None),  # nobody
            (Leader(2, -1), None),  # no epoch
            (Leader(7, 6), None),  # a node we cannot reach
        ):
            assert not cluster.apply_hint("t", 0, leader, address)
        assert not cluster.apply_hint("t", 1, Leader(2, 6), None)
        assert not cluster.apply_hint("u", 0, Leader(2, 6), None)
        assert leaders(cluster) == [(1, 5)]

    def test_a_new_node_comes_with_its_address(self) -> None:
        cluster = Cluster()
        feed(cluster, topic((1, 5)))
        assert cluster.apply_hint("t", 0, Leader(7, 6), Broker(7, "seven", 9092))
        assert cluster.leader_of("t", 0) == 7
        assert cluster.snapshot.brokers[7].host == "seven"


def test_a_leader_without_address_cannot_be_routed_to() -> None:
    cluster = Cluster()
    changes = feed(cluster, topic((1, 5), (9, 5), (-1, 5)))
    assert cluster.routable_leaders(changes.current[0]) == [1, -1, -1]
    assert cluster.leader_of("t", 1) == -1


def test_brokers_that_moved() -> None:
    cluster = Cluster()
    feed(cluster)
    moved = (Broker(1, "one", 9092, "rack"), Broker(2, "two", 9999), Broker(3, "three", 9092))
    assert feed(cluster, brokers=moved).moved == (2,)


def test_a_snapshot_never_changes() -> None:
    cluster = Cluster()
    feed(cluster, topic((1, 5)))
    before = cluster.snapshot
    feed(cluster, topic((2, 6)), topic((1, 0), name="u"))
    cluster.drop("t")
    assert set(before.topics) == {"t"}
    assert before.topics["t"].leaders == (Leader(1, 5),)


def test_the_view_of_partitioners() -> None:
    cluster = Cluster()
    view = ClusterView(lambda: cluster.snapshot)
    assert view.partitions_for_topic("t") is None
    assert view.available_partitions_for_topic("t") is None
    assert view.leader_for_partition(TopicPartition("t", 0)) is None
    internal = TopicAnswer("__x", 0, ID_B, True, (Leader(1, 0),))
    feed(cluster, topic((1, 5), (-1, 5), (2, 5)), internal)
    assert view.topics() == {"t"}
    assert view.topics(exclude_internal_topics=False) == {"t", "__x"}
    assert view.partitions_for_topic("t") == {0, 1, 2}
    assert view.available_partitions_for_topic("t") == {0, 2}
    assert view.leader_for_partition(TopicPartition("t", 2)) == 2
    assert view.leader_for_partition(TopicPartition("t", 1)) == -1
    assert view.leader_for_partition(TopicPartition("t", 3)) is None
    assert view.brokers() == set(BROKERS)
    assert view.partitions_for_broker(2) == {TopicPartition("t", 2)}
    assert view.partitions_for_broker(5) is None
