"""How `send` and `partitions_for` come by a topic, and what they say when they do not."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time

import pytest
from patience import eventually, in_time
from strikes import Strike

from fastprod import errors, waiting
from fastprod.control import loop, topics

from .conftest import MakeSender
from .scripted import METADATA, Hang, Request, ScriptedBroker


@pytest.fixture
def broker() -> ScriptedBroker:
    with ScriptedBroker() as broker:
        broker.topics["t"] = (0, 2)
        yield broker


class TestNames:
    @pytest.mark.parametrize(
        "name", ["", ".", "..", "a" * 250, "a b", "t\n", "t/u", "\u00e4", "a:b"]
    )
    def test_impossible_ones(self, sender: MakeSender, broker: ScriptedBroker, name: str) -> None:
        made = sender(broker.address)
        before = broker.count(METADATA)
        # Each name has a text of its own: tests/faults/test_bad_input.py looks at those.
        with pytest.raises(ValueError):  # noqa: PT011
            made.send(name, b"v")
        with pytest.raises(ValueError):  # noqa: PT011
            made.engine.partitions_for(name)
        assert broker.count(METADATA) == before

    @pytest.mark.parametrize("name", [None, 5, b"t", ["t"]])
    def test_no_str(self, sender: MakeSender, broker: ScriptedBroker, name: object) -> None:
        made = sender(broker.address)
        with pytest.raises(TypeError):
            made.send(name, b"v")
        with pytest.raises(TypeError):
            made.engine.partitions_for(name)

    def test_the_longest_one(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.topics["a" * 249] = (0, 1)
        assert sender(broker.address).engine.partitions_for("a" * 249) == {0}


class TestUnknown:
    def test_blocks_up_to_max_block_ms(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address, max_block_ms=400)
        with in_time("max_block_ms=400", 0.4, at_least_s=0.4, slack_s=1.6):
            with pytest.raises(errors.KafkaTimeoutError, match="'nope'") as caught:
                made.send("nope", b"v")
        assert "does not hold that topic" in str(caught.value)
        assert isinstance(caught.value.__cause__, errors.UnknownTopicOrPartitionError)
        assert caught.value.maybe_written is False
        # Exponential backoff: not one request after the other.
        assert broker.count(METADATA) < 8

    def test_max_block_0_asks_and_does_not_wait(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        made = sender(broker.address, max_block_ms=0)
        with pytest.raises(errors.KafkaTimeoutError):
            made.send("t", b"v")
        eventually(lambda: "t" in made.engine.plane.routes)
        made.send("t", b"v").get(5)

    def test_appearing_during_the_wait(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address)
        threading.Timer(0.4, lambda: broker.topics.update(late=(0, 3))).start()
        assert made.engine.partitions_for("late", 10) == {0, 1, 2}

    @pytest.mark.parametrize("code", [5, 3])
    def test_leader_or_topic_not_there_yet(
        self, sender: MakeSender, broker: ScriptedBroker, code: int
    ) -> None:
        broker.topics["new"] = (code, 0)
        made = sender(broker.address)
        threading.Timer(0.3, lambda: broker.topics.update(new=(0, 1))).start()
        made.send("new", b"v").get(10)

    def test_brokers_away(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address, max_block_ms=500)
        broker.close()
        time.sleep(0.2)
        with pytest.raises(errors.KafkaTimeoutError, match="Connection refused"):
            made.send("other", b"v")

    def test_a_new_topic_does_not_wait_for_backoff(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        made = sender(broker.address, retry_backoff_ms=20_000)
        for number in range(5):
            broker.topics[f"n{number}"] = (0, 1)
            assert made.engine.partitions_for(f"n{number}", 5) == {0}

    def test_a_new_topic_is_asked_for_alone(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        made = sender(broker.address)
        made.engine.partitions_for("t")
        broker.topics["u"] = (0, 1)
        made.engine.partitions_for("u")
        last = [each for each in broker.requests if each.api_key == METADATA][-1]
        assert b"u" in last.body
        assert b"\x00\x01t" not in last.body

    def test_many_threads_share_requests(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address)
        before = broker.count(METADATA)
        results: list[set[int]] = []
        threads = [
            threading.Thread(target=lambda: results.append(made.engine.partitions_for("t")))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert results == [{0, 1}] * 20
        assert broker.count(METADATA) - before < 10


class TestRefused:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [(17, errors.InvalidTopicError), (29, errors.TopicAuthorizationFailedError)],
    )
    def test_send_returns_a_failed_future_and_partitions_for_raises(
        self, sender: MakeSender, broker: ScriptedBroker, code: int, kind: type[Exception]
    ) -> None:
        broker.topics["secret"] = (code, 0)
        made = sender(broker.address)
        future = made.send("secret", b"v")
        assert future.failed()
        assert isinstance(future.exception, kind)
        assert "'secret'" in str(future.exception)
        with pytest.raises(kind):
            made.engine.partitions_for("secret")

    def test_a_loop_of_sends_is_no_loop_of_requests(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        broker.topics["secret"] = (29, 0)
        made = sender(broker.address, retry_backoff_ms=2000)
        for _ in range(200):
            assert made.send("secret", b"v").failed()
        assert broker.count(METADATA) < 210

    def test_permission_may_come_later(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.topics["secret"] = (29, 0)
        made = sender(broker.address, retry_backoff_ms=10)
        assert made.send("secret", b"v").failed()
        broker.topics["secret"] = (0, 1)
        time.sleep(0.1)
        made.send("secret", b"v").get(5)

    def test_internal_topics(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.topics["__consumer_offsets"] = (0, 3)
        made = sender(broker.address)
        with pytest.raises(ValueError, match="Unrecognized partition"):
            made.send("__consumer_offsets", b"v")
        assert made.engine.partitions_for("__consumer_offsets") == {0, 1, 2}


class TestPartitions:
    def test_one_that_was_added_is_found(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address)
        made.send("t", b"v", partition=1).get(5)
        broker.topics["t"] = (0, 5)
        time.sleep(1.1)  # what is known must be older than a second to be doubted
        assert made.send("t", b"v", partition=4).get(5).partition == 4

    def test_out_of_range_is_said_at_once(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address)
        made.engine.partitions_for("t")
        before = broker.count(METADATA)
        with pytest.raises(ValueError, match="Unrecognized partition 7"):
            made.send("t", b"v", partition=7)
        assert broker.count(METADATA) == before


class TestRefresh:
    def test_metadata_max_age(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        made = sender(broker.address, metadata_max_age_ms=200)
        made.engine.partitions_for("t")
        before = broker.count(METADATA)
        time.sleep(1.1)
        asked = broker.count(METADATA) - before
        assert 3 <= asked <= 7, f"asked {asked} times"
        last = [each for each in broker.requests if each.api_key == METADATA][-1]
        assert b"\x00\x01t" in last.body

    @pytest.mark.parametrize("allowed", [True, False])
    def test_allow_auto_create_topics(
        self, sender: MakeSender, broker: ScriptedBroker, allowed: bool
    ) -> None:
        made = sender(broker.address, allow_auto_create_topics=allowed)
        made.engine.partitions_for("t")
        last = [each for each in broker.requests if each.api_key == METADATA][-1]
        # Version 8: the flag and two flags about authorized operations end the request.
        assert last.body[-3:] == bytes([allowed, 0, 0])

    def test_a_topic_that_goes_and_comes_back(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        made = sender(broker.address, metadata_max_age_ms=100, max_block_ms=1500)
        made.send("t", b"v").get(5)
        broker.topics["t"] = (3, 0)
        time.sleep(0.5)
        with pytest.raises(errors.KafkaTimeoutError):
            made.send("t", b"v")
        broker.topics["t"] = (0, 2)
        made.send("t", b"v").get(5)


class TestSignals:
    def test_ctrl_c_ends_a_blocked_send(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        def silence(_: Request) -> bytes:
            raise Hang

        made = sender(broker.address)
        broker.answers[METADATA] = silence
        main = threading.main_thread().ident
        assert main is not None
        threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        with in_time("Ctrl-C", 0.3, slack_s=0.7), pytest.raises(KeyboardInterrupt):
            made.send("other", b"v")


def test_a_signal_anywhere(sender: MakeSender, broker: ScriptedBroker) -> None:
    """Whoever gave up is not waited for, and nobody hangs."""
    engine = sender(broker.address, retry_backoff_ms=5).engine
    files = [str(module.__file__) for module in (loop, topics, waiting)]

    def rehearse() -> None:
        with contextlib.suppress(errors.KafkaError):
            engine.partitions_for("no-such-topic", 0)

    for number in itertools.count(1):
        name = f"new-{number}"
        broker.topics[name] = (0, 1)
        strike = Strike(number, *files, rehearse=rehearse)
        try:
            with strike:
                engine.partitions_for(name, 20)
        except KeyboardInterrupt:
            assert strike.place is not None
        assert engine.partitions_for(name, 20) == {0}, strike.place
        if strike.place is None:
            break
    assert number > 20
    eventually(lambda: not engine._parts.metadata._waiting)
