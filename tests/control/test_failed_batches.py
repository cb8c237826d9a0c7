"""What a broker's answer to a batch leads to, through both planes of the backend in use."""

from __future__ import annotations

import itertools
import time

import pytest
from patience import eventually

from fastprod import errors
from fastprod.protocol import InitProducerIdResponse

from .conftest import MakeSender
from .scripted import (
    INIT_PRODUCER_ID,
    METADATA,
    PRODUCE,
    Batch,
    Hang,
    HangUp,
    PartitionAnswer,
    ScriptedBroker,
)


@pytest.fixture
def broker() -> ScriptedBroker:
    with ScriptedBroker() as broker:
        broker.topics["t"] = (0, 2)
        yield broker


def codes(*answers: int) -> object:
    """Return a judge that answers with these codes in turn, then with success."""
    left = iter(answers)
    return lambda batch: PartitionAnswer(next(left, 0), 42)


class TestRetried:
    @pytest.mark.parametrize("code", [2, 3, 5, 6, 7, 9, 13, 14, 19, 20, 51, 56, 72, 74, 75, 89])
    def test_until_it_is_accepted(
        self, sender: MakeSender, broker: ScriptedBroker, code: int
    ) -> None:
        broker.judge = codes(code)
        result = sender(broker.address, retry_backoff_ms=1).send("t", b"v", partition=1).get(10)
        assert (result.partition, result.offset) == (1, 42)
        first, second = broker.batches
        assert first == second  # the same sequence, the same bytes

    def test_exactly_one_send_more_than_retries(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        broker.judge = lambda batch: PartitionAnswer(19)
        made = sender(broker.address, retries=2, retry_backoff_ms=1)
        future = made.send("t", b"v", partition=0)
        with pytest.raises(errors.NotEnoughReplicasError, match="Sent 3 times in"):
            future.get(10)
        assert len(broker.batches) == 3
        assert future.exception.maybe_written is False

    def test_delivery_timeout_ends_it(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.judge = lambda batch: PartitionAnswer(6)
        made = sender(
            broker.address, request_timeout_ms=300, delivery_timeout_ms=700, retry_backoff_ms=10
        )
        with pytest.raises(errors.KafkaTimeoutError, match="delivery_timeout_ms=700"):
            made.send("t", b"v").get(5)
        assert broker.count(METADATA) > 2  # 6 asks for metadata, with backoff
        assert broker.count(METADATA) < 30

    def test_a_lost_connection(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broken = iter([True])

        def judge(batch: Batch) -> PartitionAnswer:
            if next(broken, False):
                raise HangUp
            return PartitionAnswer(0, 7)

        broker.judge = judge
        made = sender(broker.address, retry_backoff_ms=1)
        assert made.send("t", b"v", partition=0).get(10).offset == 7
        assert broker.batches[0] == broker.batches[1]

    def test_a_lost_connection_without_retries(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        def judge(batch: Batch) -> PartitionAnswer:
            raise HangUp

        broker.judge = judge
        future = sender(broker.address, retries=0).send("t", b"v", partition=0)
        with pytest.raises(errors.KafkaConnectionError, match="'t' partition 0"):
            future.get(10)
        assert future.exception.maybe_written is True

    def test_no_answer_in_time(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        def judge(batch: Batch) -> PartitionAnswer:
            raise Hang

        broker.judge = judge
        made = sender(broker.address, retries=0, request_timeout_ms=300)
        future = made.send("t", b"v", partition=0)
        with pytest.raises(errors.RequestTimedOutError, match="timed out"):
            future.get(10)
        assert future.exception.maybe_written is True


class TestFailed:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            (17, errors.InvalidTopicError),
            (29, errors.TopicAuthorizationFailedError),
            (32, errors.InvalidTimestampError),
            (42, errors.InvalidRequestError),
            (44, errors.PolicyViolationError),
            (76, errors.UnsupportedCompressionTypeError),
            (87, errors.InvalidRecordError),
            (10, errors.MessageSizeTooLargeError),
            (18, errors.RecordListTooLargeError),
            (-1, errors.UnknownError),
            (999, errors.UnrecognizedBrokerError),
        ],
    )
    def test_only_that_batch_fails(
        self, sender: MakeSender, broker: ScriptedBroker, code: int, kind: type[Exception]
    ) -> None:
        broker.judge = codes(code)
        made = sender(broker.address, retry_backoff_ms=1)
        future = made.send("t", b"v", partition=1)
        with pytest.raises(kind, match="Topic 't' partition 1") as caught:
            future.get(10)
        assert caught.value.maybe_written is (code == -1)
        assert made.send("t", b"v", partition=0).get(10).offset == 42
        # The gap is closed by an epoch of its own, and the partition goes on from 0.
        assert made.send("t", b"v", partition=1).get(10).offset == 42
        last = broker.batches[-1]
        assert (last.epoch, last.sequence) == (1, 0)

    def test_duplicate_is_success_without_offset(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        broker.judge = codes(46)
        assert sender(broker.address).send("t", b"v").get(10).offset == -1

    def test_the_broker_is_quoted(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.judge = lambda batch: PartitionAnswer(44, message="No cats on Mondays.")
        with pytest.raises(errors.PolicyViolationError, match="No cats on Mondays"):
            sender(broker.address).send("t", b"v").get(10)


class TestRecordErrors:
    """KIP-467: the broker names the records it did not like."""

    def send_three(self, made: object) -> list:
        return [made.send("t", b"v%d" % each, partition=0) for each in range(3)]

    def test_one_listed(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.judge = lambda batch: PartitionAnswer(32, 0, ((1, "too old"),), "some are bad")
        futures = self.send_three(sender(broker.address, linger_ms=50))
        with pytest.raises(errors.InvalidTimestampError, match=r"Record 1 of the batch.*too old"):
            futures[1].get(10)
        for innocent in (futures[0], futures[2]):
            with pytest.raises(errors.KafkaError, match="because of record 1") as caught:
                innocent.get(10)
            assert not isinstance(caught.value, errors.InvalidTimestampError)

    def test_several_listed(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.judge = lambda batch: PartitionAnswer(
            32, 0, ((0, None), (2, "no key")), "some are bad"
        )
        futures = self.send_three(sender(broker.address, linger_ms=50))
        with pytest.raises(errors.InvalidRecordError, match="some are bad"):
            futures[0].get(10)
        with pytest.raises(errors.InvalidRecordError, match="no key"):
            futures[2].get(10)
        with pytest.raises(errors.KafkaError, match="because of record 0, 2"):
            futures[1].get(10)


class TestFatal:
    @pytest.mark.parametrize("code", [31, 35, 49, 53, 90])
    def test_later_sends_get_the_same_error(
        self, sender: MakeSender, broker: ScriptedBroker, code: int
    ) -> None:
        broker.judge = lambda batch: PartitionAnswer(code)
        made = sender(broker.address)
        kind = errors.for_code(code)
        with pytest.raises(kind) as caught:
            made.send("t", b"v").get(10)
        if code == 31:
            assert "IdempotentWrite" in str(caught.value)
            assert "enable_idempotence=False" in str(caught.value)
        eventually(lambda: made.engine._fatal, "the end of the engine")
        for topic in ("t", "other"):
            future = made.send(topic, b"v")
            assert future.failed()
            assert isinstance(future.exception, kind)
        with pytest.raises(kind):
            made.engine.partitions_for("another")
        assert len(made.engine.close(1)) == 0

    def test_not_without_idempotence(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.judge = codes(31)
        made = sender(broker.address, enable_idempotence=False)
        with pytest.raises(errors.ClusterAuthorizationFailedError):
            made.send("t", b"v").get(10)
        assert made.send("t", b"v").get(10).offset == 42


class TestSplit:
    def judge_by_size(self, limit: int) -> object:
        offsets = itertools.count()

        def judge(batch: Batch) -> PartitionAnswer:
            if batch.size > limit:
                return PartitionAnswer(10)
            first = next(offsets)
            for _ in range(batch.count - 1):
                next(offsets)
            return PartitionAnswer(0, first)

        return judge

    @pytest.mark.parametrize("codec", [None, "gzip"])
    def test_it_arrives_in_pieces_and_in_order(
        self, sender: MakeSender, broker: ScriptedBroker, codec: str | None
    ) -> None:
        limit = 3000 if codec is None else 200
        broker.judge = self.judge_by_size(limit)
        made = sender(broker.address, linger_ms=50, compression_type=codec)
        futures = [made.send("t", b"%04d" % each * 50, partition=0) for each in range(100)]
        assert made.engine.flush(20)
        assert [each.get(1).offset for each in futures] == list(range(100))
        accepted = [each for each in broker.batches if each.size <= limit]
        assert sum(each.count for each in accepted) == 100
        assert {each.epoch for each in accepted} == {0}
        assert [each.sequence for each in accepted] == list(
            itertools.accumulate([0, *(each.count for each in accepted[:-1])])
        )

    def test_the_topic_remembers(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        broker.judge = self.judge_by_size(3000)
        made = sender(broker.address, linger_ms=50)
        refusals = []
        for _ in range(3):
            for each in range(100):
                made.send("t", b"%04d" % each * 50, partition=0)
            assert made.engine.flush(20)
            refusals.append(sum(each.size > 3000 for each in broker.batches))
        assert refusals[0] > 0
        assert refusals == [refusals[0]] * 3


class TestIdentity:
    def test_nothing_leaves_before_there_is_one(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        broker.identity = InitProducerIdResponse(error_code=14)
        made = sender(broker.address, retry_backoff_ms=20)
        future = made.send("t", b"v")
        time.sleep(0.5)
        assert not future.is_done
        assert broker.count(PRODUCE) == 0
        asked = broker.count(INIT_PRODUCER_ID)
        assert 2 <= asked < 12, f"asked {asked} times"
        broker.identity = InitProducerIdResponse(producer_id=5, producer_epoch=3)
        future.get(10)
        assert (broker.batches[0].producer_id, broker.batches[0].epoch) == (5, 3)

    def test_denied_fails_what_waits_and_is_asked_again(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        broker.identity = InitProducerIdResponse(error_code=31)
        made = sender(broker.address, retry_backoff_ms=20)
        future = made.send("t", b"v")
        with pytest.raises(errors.ClusterAuthorizationFailedError, match="IdempotentWrite"):
            future.get(10)
        assert "enable_idempotence=False" in str(future.exception)
        broker.identity = InitProducerIdResponse(producer_id=5, producer_epoch=0)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            future = made.send("t", b"v")
            try:
                future.get(10)
                return
            except errors.ClusterAuthorizationFailedError:
                continue
        pytest.fail("it never recovered")

    def test_a_broker_without_producer_ids(
        self, sender: MakeSender, broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
    ) -> None:
        del broker.offered[INIT_PRODUCER_ID]
        made = sender(broker.address)
        made.send("t", b"v").get(10)
        assert broker.batches[0].producer_id == -1
        assert made.engine.config["enable_idempotence"] is False
        made.engine.close(10)
        lines = [each for each in caplog.messages if "idempotence is off" in each]
        assert len(lines) == 1

    def test_asked_for_but_not_offered(self, sender: MakeSender, broker: ScriptedBroker) -> None:
        del broker.offered[INIT_PRODUCER_ID]
        with pytest.raises(errors.UnsupportedVersionError, match="InitProducerId"):
            sender(broker.address, enable_idempotence=True)

    def test_used_up_epochs_ask_for_another_id(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        broker.identity = InitProducerIdResponse(producer_id=5, producer_epoch=32767)

        def refuse(_: Batch) -> PartitionAnswer:
            # Before the answer: the next id is asked for as soon as it is read, and no broker gives the old one again.
            broker.identity = InitProducerIdResponse(producer_id=6, producer_epoch=0)
            broker.judge = codes()
            return PartitionAnswer(87)

        broker.judge = refuse
        made = sender(broker.address, retry_backoff_ms=1)
        with pytest.raises(errors.InvalidRecordError):
            made.send("t", b"v", partition=0).get(10)
        made.send("t", b"v", partition=0).get(10)
        last = broker.batches[-1]
        assert (last.producer_id, last.epoch, last.sequence) == (6, 0, 0)

    def test_none_is_asked_for_without_idempotence(
        self, sender: MakeSender, broker: ScriptedBroker
    ) -> None:
        sender(broker.address, enable_idempotence=False).send("t", b"v").get(10)
        assert broker.count(INIT_PRODUCER_ID) == 0


def test_acks_0_and_1(sender: MakeSender, broker: ScriptedBroker) -> None:
    assert sender(broker.address, acks=0).send("t", b"v").get(10).offset == -1
    broker.judge = codes()
    assert sender(broker.address, acks=1).send("t", b"v").get(10).offset == 42


def test_an_internal_error_about_a_batch_fails_the_batch_only(
    sender: MakeSender, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.judge = codes(19)
    made = sender(broker.address)

    def broken(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(made.engine._parts.arbiter, "_carry_out", broken)
    with pytest.raises(errors.KafkaError, match="internal error"):
        made.send("t", b"v").get(10)
    monkeypatch.undo()
    made.send("t", b"v").get(10)
