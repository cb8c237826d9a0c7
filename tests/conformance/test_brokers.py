"""Items 42 and 74: starting over, and brokers of other releases."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from patience import eventually

from fastprod.testing import Api, ScriptedBroker

from .conftest import Make
from .story import SINGLE, offsets, proven, send


def test_rebootstrap_no_node_answers(make: Make) -> None:
    """All that is known has gone: a bootstrap server tells of the cluster that is there now."""
    with ScriptedBroker({"t": 1}) as new:
        old = ScriptedBroker({"t": 1})
        made = make(**SINGLE, bootstrap_servers=[old.address(), new.address()], reconnect_backoff_max_ms=100)
        made.send("t", b"first", partition=0).get(20)
        here, there = (old, new) if old.values("t") else (new, old)
        there.by_hand = True
        here.down()
        futures = send(made, b"1", b"2")
        request = there.next_produce()
        assert request.batch.values == [b"1"]
        request.accept()
        there.by_hand = False
        assert offsets(futures) == [0, 1]
        made.close()
        old.close()


def test_rebootstrap_when_a_broker_asks_for_it(two: ScriptedBroker, make: Make) -> None:
    """129: all connections are closed, the bootstrap servers asked, and nothing that is queued is failed."""
    made = proven(two, make, bootstrap_servers=two.address(2), metadata_max_age_ms=200)
    futures = send(made, b"1", b"2")
    requests = [two.next_produce() for _ in futures]
    before = {each.connection for each in two.requests_of(Api.METADATA)}
    two.on(Api.METADATA, times=1).refuse(129)
    eventually(lambda: all(each.abandoned for each in requests))
    again = two.next_produce()
    asked = eventually(lambda: [each for each in two.requests_of(Api.METADATA) if each.connection not in before])
    assert asked[0].node == 2, "not the bootstrap server"
    assert again.batch.data == requests[0].batch.data
    two.by_hand = False
    again.accept()
    assert offsets(futures) == [1, 2]
    assert two.values("t") == [b"first", b"1", b"2"]


@pytest.mark.parametrize(("release", "produce"), [("2.1", 7), ("2.4", 8), ("3.3", 9), ("4.0", 12), ("4.3", 13)])
def test_api_versions_fallback(make: Make, release: str, produce: int) -> None:
    """Error 35 comes in the oldest layout, from 2.1 with an empty list: asked again, one finds common versions."""
    with ScriptedBroker({"t": 1}, version=release) as broker:
        made = make(**SINGLE, bootstrap_servers=broker.bootstrap_servers)
        assert offsets(send(made, b"1", b"2")) == [0, 1]
        newest = broker.offered[Api.API_VERSIONS][1]
        asked: dict[int, list[int]] = {}
        for each in broker.requests_of(Api.API_VERSIONS):
            asked.setdefault(each.connection, []).append(each.version)
        expected = {"2.1": [4, 0], "2.4": [4, 3], "3.3": [4, 3]}.get(release, [4])
        assert all(versions == expected for versions in asked.values()), asked
        assert expected[-1] <= newest
        assert {each.version for each in broker.requests_of(Api.PRODUCE)} == {produce}
        made.close()


@pytest.mark.parametrize(("first", "then"), [("2.4", "4.3"), ("4.3", "3.3"), ("2.1", "2.4")])
def test_api_versions_fallback_rolling_upgrade(make: Make, first: str, then: str) -> None:
    """Versions belong to a connection: the next one finds a newer, or an older, broker. Records go on."""
    with ScriptedBroker(version=then) as other:
        offered = dict(other.offered)
    with ScriptedBroker({"t": 1}, version=first) as broker:
        made = make(**SINGLE, bootstrap_servers=broker.bootstrap_servers)
        broker.by_hand = True
        futures = send(made, b"1")
        waiting = broker.next_produce()
        broker.offered.clear()
        broker.offered.update(offered)
        broker.drop_connections()
        again = broker.next_produce()
        assert again.batch.data == waiting.batch.data
        assert again.request.version != waiting.request.version
        broker.by_hand = False
        again.accept()
        futures += send(made, b"2")
        assert offsets(futures) == [0, 1]
        made.close()


def test_api_versions_fallback_to_a_cluster_of_two_releases(two: ScriptedBroker, make: Make) -> None:
    """In the middle of a rolling upgrade each broker has versions of its own."""
    two.add_partitions("t", 2)

    def older(said: Any) -> Any:
        keys = tuple(
            dataclasses.replace(each, max_version=min(each.max_version, 9)) if each.api_key == Api.PRODUCE else each
            for each in said.api_keys
        )
        return dataclasses.replace(said, api_keys=keys)

    two.on(Api.API_VERSIONS, node=2).answer(edit=older)
    made = make(**SINGLE)
    assert offsets([*send(made, b"1"), *send(made, b"2", partition=1)]) == [0, 0]
    versions = {each.node: each.version for each in two.requests_of(Api.PRODUCE)}
    assert versions == {1: 13, 2: 9}
