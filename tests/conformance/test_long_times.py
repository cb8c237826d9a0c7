"""Items 21, 37 and 42: after one minute, or five. Python's clock is set forward; nothing of fastprod is touched."""

from __future__ import annotations

import logging
import time

import pytest
from patience import eventually

import fastprod
from fastprod.testing import Api, ScriptedBroker

from .conftest import Make
from .story import SINGLE, offsets, proven, send

FIVE_MINUTES_S = 301.0


class Clock:
    """`time.monotonic`, which can be set forward."""

    def __init__(self) -> None:
        self._real = time.monotonic
        self._ahead = 0.0

    def __call__(self) -> float:
        return self._real() + self._ahead

    def forward(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def topics_of(broker: ScriptedBroker, request: int) -> list[str]:
    return sorted(each.name for each in broker.requests_of(Api.METADATA)[request].message.topics)


def test_metadata_topic_idle(broker: ScriptedBroker, clock: Clock, make: Make) -> None:
    """A topic that nobody has sent to for five minutes is asked for no more, and again at the next send."""
    made = make(**SINGLE, metadata_max_age_ms=200, connections_max_idle_ms=3_600_000)
    assert offsets(send(made, b"1")) == [0]
    assert offsets(send(made, b"1", topic="other")) == [0]
    asked = broker.count(Api.METADATA)
    broker.wait_for(Api.METADATA, asked + 2)
    assert topics_of(broker, -1) == ["other", "t"]
    clock.forward(FIVE_MINUTES_S - 100)
    assert offsets(send(made, b"2", topic="other")) == [1]
    asked = broker.count(Api.METADATA)
    broker.wait_for(Api.METADATA, asked + 2)
    assert topics_of(broker, -1) == ["other", "t"]
    clock.forward(100)
    asked = broker.count(Api.METADATA)
    broker.wait_for(Api.METADATA, asked + 3)
    assert topics_of(broker, -1) == ["other"]
    assert offsets(send(made, b"2")) == [1]
    asked = broker.count(Api.METADATA)
    broker.wait_for(Api.METADATA, asked + 2)
    assert topics_of(broker, -1) == ["other", "t"]


def test_rebootstrap_after_five_minutes_without_metadata(
    two: ScriptedBroker, clock: Clock, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """All connections are closed and the bootstrap server is asked; what is queued is not failed."""
    options = {"delivery_timeout_ms": 3_600_000, "connections_max_idle_ms": 3_600_000}
    made = proven(two, make, **options, metadata_max_age_ms=100, bootstrap_servers=two.address(2))
    futures = send(made, b"1", b"2")
    requests = [two.next_produce() for _ in futures]
    silent = two.on(Api.METADATA).drop()
    two.wait_for(Api.METADATA, two.count(Api.METADATA) + 3)
    with caplog.at_level(logging.WARNING):
        clock.forward(FIVE_MINUTES_S)
        eventually(lambda: any("no metadata for 300 s" in each.getMessage() for each in caplog.records))
    asked = two.count(Api.METADATA)
    nodes = [each.node for each in two.wait_for(Api.METADATA, asked + 3)[asked:]]
    assert set(nodes) == {2}, "not only the bootstrap server"
    assert all(each.abandoned for each in requests)
    assert not any(each.is_done for each in futures)
    two.by_hand = False
    silent.remove()
    assert offsets(futures) == [1, 2]


@pytest.mark.skipif(fastprod.backend == "native", reason="its clock is not Python's")
def test_muted_partition_after_a_quiet_minute(broker: ScriptedBroker, clock: Clock, make: Make) -> None:
    """The broker may have forgotten this producer by then, and would write followers of a first batch that it refuses:
    it goes alone again (design, invariant 5a)."""
    made = proven(broker, make)
    futures = send(made, b"1", b"2")
    for request in [broker.next_produce() for _ in futures]:
        request.accept()
    assert offsets(futures) == [1, 2]
    clock.forward(61)
    futures = send(made, b"3", b"4")
    alone = broker.next_produce()
    broker.nothing_more()
    alone.refuse(19)
    alone = broker.next_produce()
    broker.nothing_more()
    alone.accept()
    broker.next_produce().accept()
    assert offsets(futures) == [3, 4]
