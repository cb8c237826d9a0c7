"""How verdicts are carried out: delays, hints, what the plane is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from fastprod import _backend, errors
from fastprod.control.arbiter import Arbiter, ArbiterSettings
from fastprod.control.cluster import Broker, Cluster, Leader, MetadataAnswer, TopicAnswer
from fastprod.control.verdict import Rules

from .doubles import ManualLoop, RecordingPlane, quiet


@dataclass
class Parked:
    """A ParkedBatch with attributes of our choice."""

    error_code: int
    topic: str = "t"
    partition: int = 0
    node_id: int = 1
    error_message: str | None = None
    record_errors: list = field(default_factory=list)
    log_start_offset: int = -1
    leader_hint: tuple | None = None
    attempts: int = 1
    record_count: int = 1
    size: int = 100
    codec: int = 0
    base_timestamp: int = 0
    created: float = 999.0
    done: bool = False
    reached: bool = True
    overtaken: bool = False
    later_unknown: bool = False
    later_lost: bool = False
    settled: bool = False
    unknown: bool = False
    split: bool = False
    base_sequence: int = 0
    last_acked_sequence: int = -1
    last_acked_offset: int = -1
    unresolved_sequence: int = -1
    content: bytes = b""

    def body(self) -> bytes:
        return self.content


class StubMetadata:
    """The cluster, and a list of what was asked of metadata."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        brokers = (Broker(1, "one", 1), Broker(2, "two", 2))
        topic = TopicAnswer("t", 0, None, False, (Leader(1, 5), Leader(1, 5)))
        self.cluster.apply(MetadataAnswer(brokers, (topic,)), 1.0)
        self.refreshed: list[str] = []
        self.hinted_topics: list[str] = []
        self.limited_topics: list[str] = []
        self.refresh = self.refreshed.append
        self.hinted = self.hinted_topics.append
        self.limited = self.limited_topics.append


class Rig:
    """An Arbiter with doubles all around."""

    def __init__(self, **rules: object) -> None:
        self.plane = RecordingPlane()
        self.metadata = StubMetadata()
        self.fatal: list[Exception] = []
        self.arbiter = Arbiter(
            ManualLoop(),
            self.plane,
            self.metadata,
            quiet(),
            ArbiterSettings(100, 30_000, 1_000_000),
            Rules(2**31 - 1, 120.0, True)._replace(**rules),
            self.fatal.append,
        )

    def handle(self, parked: Parked) -> tuple[str, tuple, dict]:
        self.arbiter.handle(parked)
        name, args = self.plane.calls[-1]
        return name, args, self.plane.keywords[-1]


@pytest.mark.parametrize(
    ("attempts", "low", "high"), [(1, 80, 120), (3, 320, 480), (9, 1000, 1000)]
)
def test_retries_wait_longer_each_time(attempts: int, low: float, high: float) -> None:
    name, args, keywords = Rig().handle(Parked(19, attempts=attempts))
    assert name == "retry"
    assert low <= args[1] <= high
    assert keywords == {"unknown": False, "renumber": False}


def test_a_newer_leader_need_not_be_waited_for() -> None:
    name, args, keywords = Rig().handle(Parked(6, node_id=2))
    assert (name, args[1], keywords["unknown"]) == ("retry", 0, True)


def test_what_may_be_in_the_log_is_asked_about_again_after_a_pause() -> None:
    denied = Parked(45, unknown=True)
    name, args, keywords = Rig().handle(denied)
    assert (name, args[1], keywords) == ("retry", 1000, {"unknown": True, "renumber": True})
    assert Rig().handle(replace(denied, settled=True))[1][1] <= 120
    assert Rig().handle(replace(denied, node_id=2))[1][1] == 0, "it is no longer the leader's affair"


class TestHints:
    def test_a_newer_one_is_used_at_once(self) -> None:
        rig = Rig()
        name, args, _ = rig.handle(Parked(6, leader_hint=(2, 6, "two", 2)))
        assert (name, args[1]) == ("retry", 0)
        assert rig.metadata.cluster.leader_of("t", 0) == 2
        assert rig.metadata.hinted_topics == ["t"]
        assert rig.metadata.refreshed == ["t"]

    def test_a_node_nobody_knew(self) -> None:
        rig = Rig()
        rig.handle(Parked(74, leader_hint=(9, 6, "nine", 9)))
        assert rig.metadata.cluster.snapshot.brokers[9] == Broker(9, "nine", 9)

    @pytest.mark.parametrize(
        "hint", [(2, 5, "two", 2), (2, -1, "two", 2), (-1, 6, None, -1), (9, 6, None, -1)]
    )
    def test_others_are_ignored(self, hint: tuple) -> None:
        rig = Rig()
        _, args, _ = rig.handle(Parked(6, leader_hint=hint))
        assert args[1] > 0
        assert rig.metadata.hinted_topics == []
        assert rig.metadata.refreshed == ["t"]

    def test_other_errors_have_none(self) -> None:
        rig = Rig()
        rig.handle(Parked(3, leader_hint=(2, 6, "two", 2)))
        assert rig.metadata.cluster.leader_of("t", 0) == 1


class TestFailures:
    def test_the_error_says_where_and_whether(self) -> None:
        name, args, keywords = Rig().handle(Parked(-1))
        assert (name, keywords["unknown"]) == ("fail", True)
        assert isinstance(args[1], errors.UnknownError)
        assert args[1].maybe_written is True

    def test_a_done_batch_goes_without_a_word(self) -> None:
        name, _, keywords = Rig().handle(Parked(13, done=True))
        assert (name, keywords["unknown"]) == ("fail", True)

    def test_time_has_run_out(self) -> None:
        _, args, _ = Rig().handle(Parked(6, created=0.0))
        assert isinstance(args[1], errors.KafkaTimeoutError)
        assert "NotLeaderForPartitionError" in str(args[1])

    def test_after_a_fatal_error_nothing_is_retried(self) -> None:
        rig = Rig()
        rig.handle(Parked(90))
        assert len(rig.fatal) == 1
        rig.arbiter.fatal = rig.fatal[0]
        name, args, keywords = rig.handle(Parked(6))
        assert (name, keywords["unknown"]) == ("fail", True)
        assert isinstance(args[1], errors.ProducerFencedError)
        assert args[1] is not rig.fatal[0]
        assert args[1].maybe_written is True

    def test_a_fatal_error_is_known_before_the_batch_ends(self) -> None:
        rig = Rig()
        ended: list[list] = []
        rig.arbiter._on_fatal = lambda _: ended.append(rig.plane.named("fail"))
        rig.handle(Parked(90))
        assert ended == [[]]
        assert len(rig.plane.named("fail")) == 1

    def test_broken_bytes_fail_the_batch_alone(self) -> None:
        rig = Rig()
        name, args, keywords = rig.handle(Parked(10, record_count=3, content=b"nonsense"))
        assert (name, keywords["unknown"]) == ("fail", True)
        assert "internal error" in str(args[1])


def test_duplicates_succeed() -> None:
    name, args, _ = Rig().handle(Parked(46))
    assert (name, args[1:]) == ("succeed", (-1, -1))


def test_a_split() -> None:
    builder = _backend.RecordBatchBuilder()
    for each in range(10):
        builder.append(each, None, b"v" * 100, [])
    content = builder.build()[61:]
    rig = Rig()
    parked = Parked(10, record_count=10, size=61 + len(content), content=content)
    name, (_, groups), _ = rig.handle(parked)
    assert name == "split"
    assert [len(each) for each in groups] == [5, 5]
    assert [each[0] for group in groups for each in group] == list(range(10))
    assert rig.plane.named("set_leader_limit") == [("t", (parked.size + 1) // 2)]
    assert rig.metadata.limited_topics == ["t"]
