"""Connections of the control plane once they work: idle, throttled, deaf, replaced."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from patience import eventually, in_time

from fastprod.protocol import MetadataBroker, MetadataResponse, MetadataTopic, encode_message
from fastprod.protocol.metadata import MetadataPartition

from .conftest import MakeSender
from .scripted import METADATA, Hang, Request, ScriptedBroker


@pytest.fixture
def brokers() -> Iterator[list[ScriptedBroker]]:
    """Two brokers of one cluster; the second leads partition 0 of topic "t"."""
    with ScriptedBroker() as one, ScriptedBroker() as two:
        both = [one, two]
        cluster = tuple(
            MetadataBroker(node, "127.0.0.1", each.port) for node, each in enumerate(both, 1)
        )
        partition = MetadataPartition(0, 0, 2, 0, (2,), (2,))
        topic = MetadataTopic(0, "t", partitions=(partition,))

        def metadata(request: Request) -> bytes:
            wanted = (topic,) if b"\x00\x01t" in request.body else ()
            response = MetadataResponse(brokers=cluster, cluster_id="c", topics=wanted)
            return encode_message(response, request.version)

        for each in both:
            each.answers[METADATA] = metadata
        yield both


def silent(_: Request) -> bytes:
    raise Hang


def test_an_idle_one_is_closed_and_made_again(sender: MakeSender) -> None:
    with ScriptedBroker() as broker:
        broker.topics["t"] = (0, 1)
        engine = sender(broker.address, connections_max_idle_ms=300).engine
        eventually(lambda: engine._parts.dialer.closed)
        assert engine._parts.dialer.closed == 1
        assert engine.partitions_for("t", 5) == {0}


def test_a_deaf_broker_does_not_hold_up_metadata(
    sender: MakeSender, brokers: list[ScriptedBroker]
) -> None:
    one, two = brokers
    made = sender(one.address)
    one.answers[METADATA] = silent
    with in_time("finding another broker", 0, slack_s=10):
        made.send("t", b"v").get(15)
    assert two.count(METADATA) > 0


def test_batches_go_to_the_leader(sender: MakeSender, brokers: list[ScriptedBroker]) -> None:
    made = sender(brokers[0].address)
    made.send("t", b"v").get(10)
    assert len(brokers[1].batches) == 1
    assert brokers[0].batches == []


def test_a_throttled_connection_is_left_alone(sender: MakeSender) -> None:
    with ScriptedBroker() as broker:
        broker.topics.update(t=(0, 1), u=(0, 1))
        made = sender(broker.address)
        usual = broker._metadata

        def throttled(request: Request) -> bytes:
            # The throttle time is the first field of the response.
            return (700).to_bytes(4, "big") + usual(request)[4:]

        broker.answers[METADATA] = throttled
        made.engine.partitions_for("t")
        began = time.monotonic()
        made.engine.partitions_for("u", 5)
        assert time.monotonic() - began > 0.5


def test_no_throttle_time_lasts_longer_than_a_request_may(sender: MakeSender) -> None:
    """The number is a broker's that is broken: it would be silenced for 24 days."""
    with ScriptedBroker() as broker:
        broker.topics.update(t=(0, 1), u=(0, 1))
        made = sender(broker.address, request_timeout_ms=300)
        usual = broker._metadata
        broker.answers[METADATA] = lambda request: b"\x7f\xff\xff\xff" + usual(request)[4:]
        made.engine.partitions_for("t")
        assert made.engine.partitions_for("u", 20)


def test_a_broker_that_lets_go_now_and_then(sender: MakeSender) -> None:
    with ScriptedBroker() as broker:
        broker.topics["t"] = (0, 1)
        made = sender(broker.address, retry_backoff_ms=5)
        for _ in range(10):
            made.send("t", b"v").get(10)
            broker.drop_connections()
        made.send("t", b"v").get(10)


def test_it_is_found_at_another_address(sender: MakeSender) -> None:
    """A broker restarted elsewhere under its old id, behind the same bootstrap servers."""
    with ScriptedBroker() as bootstrap, ScriptedBroker() as old, ScriptedBroker() as new:
        for each in (bootstrap, old, new):
            each.topics["t"] = (0, 1)
        current = [old]

        def metadata(request: Request) -> bytes:
            return current[0]._metadata(request)

        bootstrap.answers[METADATA] = old.answers[METADATA] = metadata
        made = sender(
            bootstrap.address, metadata_max_age_ms=200, reconnect_backoff_ms=5, retry_backoff_ms=5
        )
        made.send("t", b"v").get(10)
        assert len(old.batches) == 1
        current[0] = new
        old.close()
        made.send("t", b"v").get(15)
        assert len(new.batches) == 1


def test_socket_options_are_applied(sender: MakeSender, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = socket.socket.setsockopt

    class Watching(socket.socket):
        def setsockopt(self, *args: int) -> None:  # type: ignore[override]
            seen.append(args)
            real(self, *args)

    with ScriptedBroker() as broker:
        monkeypatch.setattr("fastprod.control.dial.socket.socket", Watching)
        sender(
            broker.address,
            send_buffer_bytes=12345,
            receive_buffer_bytes=23456,
            socket_options=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
        )
    assert (socket.SOL_SOCKET, socket.SO_SNDBUF, 12345) in seen
    assert (socket.SOL_SOCKET, socket.SO_RCVBUF, 23456) in seen
    assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in seen
