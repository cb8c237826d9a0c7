"""The producer id: what is done without one, and where there is none to be had."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from patience import eventually

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, ScriptedBroker

from .conftest import MakeProducer
from .idempotent import ID, SINGLE, send


class TestIdentity:
    def test_a_missing_permission_is_named(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        refused = scripted.on(Api.INIT_PRODUCER_ID).refuse(31)
        made = scripted_producer(**SINGLE)
        (future,) = send(made, b"1")
        with pytest.raises(errors.ClusterAuthorizationFailedError) as caught:
            future.get(10)
        text = str(caught.value)
        assert "IdempotentWrite" in text
        assert "enable_idempotence=False" in text
        assert caught.value.maybe_written is False
        assert scripted.count(Api.PRODUCE) == 0
        refused.remove()

        def goes_through() -> bool:
            (again,) = send(made, b"2")
            try:
                return bool(again.get(10).offset == 0)
            except errors.ClusterAuthorizationFailedError:
                return False

        eventually(goes_through)
        assert scripted.values("t", 0)[0] == b"2"

    @pytest.mark.parametrize("code", [14, 15, 16, 51])
    def test_transient_refusals_are_waited_out(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer, code: int
    ) -> None:
        refused = scripted.on(Api.INIT_PRODUCER_ID).refuse(code)
        made = scripted_producer(**SINGLE)
        (future,) = send(made, b"1")
        eventually(lambda: scripted.count(Api.INIT_PRODUCER_ID) >= 3)
        assert not future.is_done
        assert scripted.count(Api.PRODUCE) == 0
        refused.remove()
        assert future.get(10).offset == 0

    def test_a_broker_without_it(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """By default idempotence is given up, said once."""
        del scripted.offered[Api.INIT_PRODUCER_ID]
        with caplog.at_level(logging.INFO):
            made = scripted_producer(**SINGLE)
            futures = send(made, b"1", b"2", b"3")
            assert [each.get(10).offset for each in futures] == [0, 1, 2]
            made.close(20)  # writes what its log still owes
        assert [each.stamp for each in scripted.log("t", 0)] == [(-1, -1, -1)] * 3
        lines = [each.getMessage() for each in caplog.records if "idempotence" in each.getMessage()]
        assert len(lines) == 1
        assert "InitProducerId" in lines[0]
        assert made.config["enable_idempotence"] is False

    def test_a_broker_without_it_that_was_asked_for(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        del scripted.offered[Api.INIT_PRODUCER_ID]

        def use() -> None:
            made = scripted_producer(enable_idempotence=True, **SINGLE)
            made.send("t", b"1", partition=0).get(10)

        with pytest.raises(errors.UnsupportedVersionError) as caught:
            use()
        assert "enable_idempotence=True" in str(caught.value)
        assert "InitProducerId" in str(caught.value)
        assert scripted.count(Api.PRODUCE) == 0

    def test_nothing_leaves_before_there_is_one(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer
    ) -> None:
        silent = scripted.on(Api.INIT_PRODUCER_ID).ignore()
        scripted.by_hand = True
        # A broker answers in turn: what it is asked behind this, on the same connection, waits as long.
        made = scripted_producer(**SINGLE, request_timeout_ms=500)
        (future,) = send(made, b"1")
        eventually(lambda: scripted.count(Api.INIT_PRODUCER_ID))
        scripted.nothing_more()
        silent.remove()
        scripted.drop_connections()
        request = scripted.next_produce()
        assert request.batch.stamp == (ID, 0, 0)
        request.accept()
        assert future.get(10).offset == 0


@pytest.mark.parametrize("given", [(ID + 50, 0), (ID, 1)], ids=["another id", "the same id"])
def test_another_cluster_gives_another_one(
    scripted: ScriptedBroker, scripted_producer: MakeProducer, given: tuple[int, int]
) -> None:
    """Under the id of the cluster before, a record could be taken for that of whoever has the id in this one."""
    made = scripted_producer(**SINGLE, metadata_max_age_ms=100)
    (future,) = send(made, b"1")
    assert future.get(10).offset == 0
    scripted.next_identity = (given[0], 0)   # what throwaway clusters begin with is the same each time
    scripted.on(Api.METADATA).answer(edit=lambda said: dataclasses.replace(said, cluster_id="another"))
    scripted.wait_for(Api.INIT_PRODUCER_ID, 2)
    (future,) = send(made, b"2")
    assert future.get(10).offset == 1
    assert [each.stamp for each in scripted.log("t", 0)] == [(ID, 0, 0), (*given, 0)]
    asked = scripted.count(Api.METADATA)
    eventually(lambda: scripted.count(Api.METADATA) > asked + 2)
    assert scripted.count(Api.INIT_PRODUCER_ID) == 2, "the same cluster gives no other one"


def test_one_that_is_never_answered_holds_nothing_up_for_good() -> None:
    """A broker answers in turn, and there is but one: what comes behind waits for the timeout, once, and is then asked
    ahead of it."""
    with ScriptedBroker({"t": 1, "other": 1, "third": 1}) as broker:
        deaf = broker.on(Api.INIT_PRODUCER_ID).ignore()
        made = KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=300, retry_backoff_ms=5,
            reconnect_backoff_ms=5, max_block_ms=20_000,
        )
        future = made.send("t", b"v")
        for topic in ("other", "third"):
            assert made.partitions_for(topic) == {0}
        asked = broker.wait_for(Api.INIT_PRODUCER_ID, 5)
        assert not future.is_done
        deaf.remove()
        assert future.get(20).offset == 0
        made.close()
    connections = {each.connection for each in asked}
    assert len(connections) == len(asked)
    for connection in connections:
        apis = [each.api for each in broker.requests if each.connection == connection]
        assert apis[:2] == [Api.API_VERSIONS, Api.METADATA]


def test_one_that_no_broker_answers_holds_nothing_up_for_good_either() -> None:
    """It goes out on one connection after the other, so there is always one that has not failed yet."""
    with ScriptedBroker({"t": 1}, nodes=2) as cluster:
        deaf = cluster.on(Api.INIT_PRODUCER_ID).ignore()
        made = KafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, request_timeout_ms=2_500, max_block_ms=20_000,
        )
        future = made.send("t", b"v")   # the topic is known within that time
        deaf.remove()
        assert future.get(30).offset == 0
        made.close()
