"""When metadata is asked for, for which topics, and what the plane is told."""

from __future__ import annotations

import pytest

from fastprod import errors
from fastprod.control.cluster import Broker, Cluster, Leader, MetadataAnswer, TopicAnswer
from fastprod.control.metadata import Metadata, MetadataSettings

from .doubles import ManualChannel, ManualLoop, RecordingPlane, quiet

BROKERS = (Broker(1, "one", 9092), Broker(2, "two", 9092))
ID = b"i" * 16


class Rig:
    """Metadata with doubles all around."""

    def __init__(self, **settings: object) -> None:
        self.loop = ManualLoop()
        self.channel = ManualChannel()
        self.plane = RecordingPlane()
        self.updates = 0
        chosen = MetadataSettings(100, 300_000, True)._replace(**settings)
        self.metadata = Metadata(
            self.loop, self.channel, Cluster(), self.plane, quiet(), chosen, self._updated
        )

    def _updated(self) -> None:
        self.updates += 1

    def answer(self, *topics: TopicAnswer, code: int = 0) -> None:
        self.channel.answer(MetadataAnswer(BROKERS, topics, "c", code))

    def fail(self) -> None:
        self.channel.answer(error=errors.KafkaConnectionError("gone"))

    def topics_asked(self) -> list[list[str]]:
        return [[each.name for each in message.topics] for message in self.channel.asked]

    def started(self) -> Rig:
        self.metadata.refresh()
        self.answer()
        self.loop.advance(10)
        return self


def topic(name: str = "t", epoch: int = 0, code: int = 0, topic_id: bytes = ID) -> TopicAnswer:
    leaders = () if code else (Leader(1, epoch), Leader(2, epoch))
    return TopicAnswer(name, code, topic_id, False, leaders)


class TestWhen:
    def test_the_first_asks_for_the_brokers_alone(self) -> None:
        rig = Rig()
        rig.metadata.refresh()
        assert rig.topics_asked() == [[]]
        assert rig.channel.asked[0].topics is not None

    def test_one_at_a_time(self) -> None:
        rig = Rig()
        for _ in range(5):
            rig.metadata.refresh()
        assert len(rig.channel.asked) == 1
        # What was asked meanwhile may be younger than that answer: one more, after the backoff.
        rig.answer()
        assert len(rig.channel.asked) == 1
        rig.loop.advance(1)
        assert len(rig.channel.asked) == 2
        rig.answer()
        rig.loop.advance(10)
        assert len(rig.channel.asked) == 2

    def test_a_new_topic_is_asked_for_at_once_and_alone(self) -> None:
        rig = Rig()
        rig.metadata.refresh()
        rig.metadata.enter("t")
        rig.answer()
        rig.answer(topic())
        rig.metadata.enter("u")
        assert rig.topics_asked() == [[], ["t"], ["u"]]

    def test_a_refresh_names_all_live_topics(self) -> None:
        rig = Rig().started()
        for name in ("b", "a"):
            rig.metadata.enter(name)
            rig.answer(topic(name))
        rig.loop.advance(10)
        rig.metadata.refresh()
        assert rig.topics_asked()[-1] == ["a", "b"]

    def test_failures_back_off_exponentially(self) -> None:
        rig = Rig()
        rig.metadata.refresh()
        waits = []
        for _ in range(6):
            rig.fail()
            before = rig.loop.time
            while not rig.channel.open:
                rig.loop.advance(0.01)
            waits.append(rig.loop.time - before)
        assert 0.07 <= waits[0] <= 0.14
        assert 0.15 <= waits[1] <= 0.26
        assert waits[-1] == pytest.approx(1.0, abs=0.03)

    def test_answers_that_tell_nothing_new_back_off(self) -> None:
        rig = Rig().started()
        rig.metadata.enter("t")
        rig.answer(topic())
        rig.loop.advance(10)
        waits = []
        for _ in range(5):
            rig.metadata.refresh("t")
            before = rig.loop.time
            while not rig.channel.open:
                rig.loop.advance(0.01)
            waits.append(rig.loop.time - before)
            rig.answer(topic())
        assert waits[0] == 0
        assert 0.07 <= waits[1] <= 0.14
        assert waits[4] > 0.5
        # One that tells of a newer leader sets it back.
        rig.metadata.refresh("t")
        rig.loop.advance(2)
        rig.answer(topic(epoch=1))
        rig.metadata.refresh("t")
        rig.loop.advance(0.13)
        assert len(rig.channel.open) == 1

    def test_age(self) -> None:
        rig = Rig(max_age_ms=5000).started()
        asked = len(rig.channel.asked)
        rig.loop.advance(4)
        assert len(rig.channel.asked) == asked or rig.channel.open
        while rig.channel.open:
            rig.answer()
        asked = len(rig.channel.asked)
        rig.loop.advance(4.9)
        assert len(rig.channel.asked) == asked
        rig.loop.advance(0.2)
        assert len(rig.channel.asked) == asked + 1

    def test_an_empty_broker_list_is_a_failure(self) -> None:
        rig = Rig()
        rig.metadata.refresh()
        rig.channel.answer(MetadataAnswer((), ()))
        assert isinstance(rig.metadata.failure, errors.MetadataEmptyBrokerList)
        rig.loop.advance(1)
        assert len(rig.channel.asked) == 2

    @pytest.mark.parametrize("allowed", [True, False])
    def test_auto_creation_is_passed_on(self, allowed: bool) -> None:
        rig = Rig(allow_auto_create=allowed)
        rig.metadata.refresh()
        assert rig.channel.asked[0].allow_auto_topic_creation is allowed


class TestWaiters:
    def test_an_unknown_topic_is_asked_for_as_long_as_somebody_waits(self) -> None:
        rig = Rig().started()
        rig.metadata.enter("t")
        for _ in range(3):
            rig.answer(topic(code=3))
            rig.loop.advance(2)
        assert rig.topics_asked()[1:] == [["t"]] * 4
        rig.metadata.leave("t")
        rig.answer(topic(code=3))
        rig.loop.advance(60)
        assert not rig.channel.open

    def test_a_final_error_is_not_asked_for_again(self) -> None:
        rig = Rig().started()
        rig.metadata.enter("t")
        rig.answer(topic(code=29))
        rig.loop.advance(60)
        assert not rig.channel.open
        trouble = rig.metadata.trouble("t")
        assert trouble is not None
        assert trouble.is_final

    def test_a_lost_request_is_repeated_for_them(self) -> None:
        rig = Rig().started()
        rig.metadata.enter("t")
        rig.fail()
        rig.loop.advance(1)
        assert rig.topics_asked()[-1] == ["t"]


class TestPlane:
    def test_a_topic_is_set(self) -> None:
        rig = Rig().started()
        rig.metadata.enter("t")
        rig.answer(topic())
        assert rig.plane.named("set_topic") == [("t", ID, [1, 2])]

    def test_internal_topics_are_not(self) -> None:
        rig = Rig().started()
        rig.metadata.enter("__x")
        rig.answer(TopicAnswer("__x", 0, ID, True, (Leader(1, 0),)))
        assert rig.plane.named("set_topic") == []

    def test_a_recreated_one_is_reset_first(self) -> None:
        rig = Rig().started()
        rig.metadata.enter("t")
        rig.answer(topic())
        rig.metadata.refresh("t")
        rig.loop.advance(1)
        rig.answer(topic(topic_id=b"j" * 16))
        assert [name for name, _ in rig.plane.calls][-2:] == ["reset_topic", "set_topic"]

    def test_a_lost_one_waits_without_leaders_and_out_of_the_routes(self) -> None:
        rig = Rig().started()
        rig.metadata.enter("t")
        rig.answer(topic())
        rig.metadata.leave("t")
        rig.metadata.refresh("t")
        rig.loop.advance(1)
        rig.answer(topic(code=3))
        assert rig.plane.calls[-2:] == [
            ("set_topic", ("t", ID, [-1, -1])),
            ("forget_topic", ("t",)),
        ]

    def test_queued_batches_of_a_lost_one_keep_it_alive(self) -> None:
        rig = Rig().started()
        rig.metadata.enter("t")
        rig.answer(topic())
        rig.metadata.leave("t")
        rig.metadata.refresh("t")
        rig.loop.advance(1)
        rig.answer(topic(code=3))
        for _ in range(3):
            rig.plane.calls.clear()
            rig.metadata.leaderless("t")
            rig.loop.advance(2)
            assert rig.topics_asked()[-1] == ["t"]
            rig.answer(topic(code=3))
            # Set again, so that EVENT_NO_LEADER comes again if something still waits.
            assert ("set_topic", ("t", ID, [-1, -1])) in rig.plane.calls
        rig.metadata.leaderless("t")
        rig.loop.advance(2)
        rig.answer(topic())
        assert rig.plane.calls[-1] == ("set_topic", ("t", ID, [1, 2]))

    def test_a_denied_one_leaves_the_routes_but_keeps_its_leaders(self) -> None:
        rig = Rig().started()
        rig.metadata.enter("t")
        rig.answer(topic())
        rig.plane.calls.clear()
        rig.metadata.refresh("t")
        rig.loop.advance(1)
        rig.answer(topic(code=29))
        assert rig.plane.calls == [("forget_topic", ("t",))]

    def test_an_idle_one_is_dropped_and_found_again(self) -> None:
        rig = Rig(max_age_ms=100_000).started()
        rig.metadata.enter("t")
        rig.answer(topic())
        rig.metadata.leave("t")
        rig.plane.routes["t"].used = True
        for _ in range(5):
            rig.loop.advance(101)
            rig.answer(*([topic()] if rig.topics_asked()[-1] else []))
        assert rig.topics_asked()[-1] == []
        assert rig.plane.calls[-1] == ("forget_topic", ("t",))
        rig.metadata.enter("t")
        rig.answer(topic())
        assert "t" in rig.plane.routes

    def test_one_in_use_is_kept(self) -> None:
        rig = Rig(max_age_ms=100_000).started()
        rig.metadata.enter("t")
        rig.answer(topic())
        rig.metadata.leave("t")
        for _ in range(8):
            rig.plane.routes["t"].used = True
            rig.loop.advance(101)
            assert rig.topics_asked()[-1] == ["t"]
            rig.answer(topic())

    def test_size_limits_are_lifted_with_age_only(self) -> None:
        rig = Rig(max_age_ms=20_000).started()
        rig.metadata.enter("t")
        rig.answer(topic())
        rig.metadata.limited("t")
        for _ in range(5):
            rig.loop.advance(3)
            rig.metadata.refresh()
            rig.answer(topic())
        assert rig.plane.named("set_leader_limit") == []
        rig.loop.advance(21)
        assert rig.plane.named("set_leader_limit") == [("t", 0)]

    def test_a_broker_that_moved_is_let_go(self) -> None:
        rig = Rig().started()
        rig.metadata.refresh()
        moved = (Broker(1, "elsewhere", 9092), BROKERS[1])
        rig.channel.answer(MetadataAnswer(moved, ()))
        assert [args[0] for args in rig.plane.named("detach")] == [1]


class TestRebootstrap:
    def test_a_broker_may_ask_for_it(self) -> None:
        rig = Rig().started()
        rig.metadata.refresh()
        rig.answer(code=129)
        assert len(rig.channel.restarts) == 1
        assert sorted(args[0] for args in rig.plane.named("detach")) == [1, 2]
        rig.loop.advance(1)
        assert len(rig.channel.open) == 1

    def test_after_300_s_without_success(self) -> None:
        rig = Rig().started()
        rig.metadata.refresh()
        for _ in range(299):
            rig.fail()
            rig.loop.advance(1.0)
        assert rig.channel.restarts == []
        for _ in range(5):
            rig.fail()
            rig.loop.advance(1.0)
        assert len(rig.channel.restarts) == 1
