"""What options about connections, time and retries do, seen by a relay in front of the broker."""

from __future__ import annotations

import itertools
import socket
import time
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]
from conftest import MakeProducer, MakeTopic
from effects import shows
from patience import check_time, eventually, in_time
from recording import METADATA, PRODUCE, Relay
from sockets import CAN_LOOK, sockets_to

from fastprod import KafkaProducer, errors


def free_port() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class TestBootstrap:
    @shows("bootstrap_servers")
    def test_any_server_will_do(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        dead = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        name = topic()
        for servers in ([*dead, relay.address], ",".join([relay.address, *dead])):
            made = producer(bootstrap_servers=servers)
            made.send(name, b"v").get(10)

    @shows("bootstrap_timeout_ms")
    @pytest.mark.parametrize("timeout_ms", [300, 900])
    def test_bootstrap_timeout(self, timeout_ms: int) -> None:
        dead = f"127.0.0.1:{free_port()}"
        limit_s = timeout_ms / 1000
        with in_time("bootstrap_timeout_ms", limit_s, at_least_s=limit_s, slack_s=0.5, early_s=0.02):
            with pytest.raises(errors.KafkaTimeoutError, match=f"Unable to bootstrap from {dead}"):
                KafkaProducer(bootstrap_servers=dead, bootstrap_timeout_ms=timeout_ms)

    @shows("api_version")
    def test_with_api_version_the_constructor_waits_for_nobody(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        dead = f"127.0.0.1:{free_port()}"
        with in_time("the constructor", 0, slack_s=0.25):
            made = producer(bootstrap_servers=dead, api_version=(3, 9), max_block_ms=300)
        with pytest.raises(errors.KafkaTimeoutError):
            made.send("t", b"v")
        assert producer(api_version=(0, 11)).send(topic(), b"v").get(10).offset == 0

    @shows("client_dns_lookup")
    def test_all_addresses_of_a_name_are_tried(
        self, producer: MakeProducer, relay: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genuine = socket.getaddrinfo

        def two_addresses(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "two-addresses.test":
                return genuine(host, port, *args, **kwargs)
            answers = [("127.0.0.1", free_port()), ("127.0.0.1", relay.port)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in answers]

        monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
        made = producer(
            bootstrap_servers="two-addresses.test:1",
            client_dns_lookup="use_all_dns_ips",
            bootstrap_timeout_ms=5000,
        )
        assert made._metadata.brokers()

    def test_names_are_looked_up_backwards_when_asked_to(
        self, producer: MakeProducer, relay: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def by_address(address: str) -> tuple[str, list[str], list[str]]:
            asked.append(address)
            return "canonical.test", [], [address]

        monkeypatch.setattr(socket, "gethostbyaddr", by_address)
        producer()
        assert asked == []
        producer(client_dns_lookup="resolve_canonical_bootstrap_servers_only")
        assert asked == ["127.0.0.1"]


class TestConnections:
    @shows("client_id")
    def test_client_id_is_in_every_request(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        producer(client_id="someone").send(topic(), b"v").get(10)
        assert {each.client_id for each in relay.requests()} == {"someone"}
        relay.reset()
        producer().send(topic(), b"v").get(10)
        (name,) = {each.client_id for each in relay.requests()}
        assert name is not None
        assert name.startswith("fastprod-producer-")

    @shows("connections_max_idle_ms")
    def test_idle_connections_are_closed_and_made_again(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        name, made = topic(), producer(connections_max_idle_ms=400)
        made.send(name, b"v").get(10)
        (connection,) = relay.producing()
        eventually(lambda: connection.closed)
        assert connection.closed is not None
        idle = connection.closed - connection.requests[-1].at
        check_time("connections_max_idle_ms=400", idle, 0.4, at_least_s=0.4, slack_s=0.6)
        assert made.send(name, b"v").get(10).offset == 1
        assert len(relay.producing()) == 2

    def test_connections_stay_open_otherwise(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        name, made = topic(), producer()
        made.send(name, b"v").get(10)
        time.sleep(1.2)
        made.send(name, b"v").get(10)
        (connection,) = relay.producing()
        assert connection.closed is None

    @shows("reconnect_backoff_ms", "reconnect_backoff_max_ms")
    def test_pauses_between_attempts_grow_up_to_the_limit(
        self, producer: MakeProducer, relay: Relay
    ) -> None:
        relay.closed_door = True
        producer(api_version=(3, 9), reconnect_backoff_ms=100, reconnect_backoff_max_ms=500)
        eventually(lambda: len(relay.connections) >= 8)
        opened = [each.opened for each in relay.connections[:8]]
        gaps = [after - before for before, after in itertools.pairwise(opened)]
        # 100, 200, 400, then 500; each 20 % more or less, and the limit is one for good.
        for gap, expected in zip(gaps, [0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5], strict=True):
            assert 0.75 * expected < gap < 1.2 * expected + 0.15, gaps

    @shows("socket_options", "send_buffer_bytes", "receive_buffer_bytes")
    @pytest.mark.skipif(not CAN_LOOK, reason="needs /proc/self/fd")
    def test_options_of_sockets(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        made = producer(
            send_buffer_bytes=50_000,
            receive_buffer_bytes=60_000,
            socket_options=[
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE, True),
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 0),
            ],
        )
        made.send(topic(), b"v").get(10)
        with sockets_to(relay.port) as found:
            assert len(found) >= 2, "the one for requests about the cluster, the one for records"
            for each in found:
                # Linux doubles what it is asked for.
                assert each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 100_000
                assert each.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 120_000
                assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0

    @pytest.mark.skipif(not CAN_LOOK, reason="needs /proc/self/fd")
    def test_sockets_by_default(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        producer().send(topic(), b"v").get(10)
        with sockets_to(relay.port) as found:
            assert found
            for each in found:
                assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0

    @shows("max_in_flight_requests_per_connection")
    @pytest.mark.parametrize("limit", [1, 3, 5])
    def test_requests_in_flight(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay, limit: int
    ) -> None:
        name = topic()
        made = producer(max_in_flight_requests_per_connection=limit, batch_size=0)
        made.send(name, b"0", partition=0).get(10)
        relay.silent = True
        futures = [made.send(name, b"%d" % number, partition=0) for number in range(1, 12)]
        eventually(lambda: len(relay.requests(PRODUCE)) == 1 + limit)
        time.sleep(0.3)
        assert len(relay.requests(PRODUCE)) == 1 + limit
        relay.silent = False
        assert [future.get(10).offset for future in futures] == list(range(1, 12))


class TestTime:
    @shows("request_timeout_ms")
    def test_a_broker_that_does_not_answer(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        name, made = topic(), producer(request_timeout_ms=700)
        made.send(name, b"v").get(10)
        (first,) = relay.producing()
        assert first.requests[-1].timeout_ms == 700
        relay.silent = True
        future = made.send(name, b"w")
        eventually(lambda: first.closed)
        assert first.closed is not None
        waited = first.closed - first.requests[-1].at
        check_time("request_timeout_ms=700", waited, 0.7, at_least_s=0.7, slack_s=0.5)
        relay.silent = False
        assert future.get(10).offset == 1

    @shows("delivery_timeout_ms")
    def test_a_record_that_does_not_get_through(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        name, made = topic(), producer(delivery_timeout_ms=900, request_timeout_ms=800)
        made.send(name, b"v").get(10)
        relay.silent = True
        began = time.monotonic()
        future = made.send(name, b"w")
        with pytest.raises(errors.KafkaTimeoutError, match="delivery_timeout_ms=900") as caught:
            future.get(10)
        check_time("delivery_timeout_ms=900", time.monotonic() - began, 0.9, at_least_s=0.9, slack_s=0.5)
        assert caught.value.maybe_written

    @shows("metadata_max_age_ms")
    @pytest.mark.parametrize(("age_ms", "low", "high"), [(300, 3, 6), (300_000, 0, 1)])
    def test_metadata_is_asked_for_again(
        self,
        producer: MakeProducer,
        topic: MakeTopic,
        relay: Relay,
        age_ms: int,
        low: int,
        high: int,
    ) -> None:
        name, made = topic(), producer(metadata_max_age_ms=age_ms)
        made.send(name, b"v").get(10)
        before = len(relay.requests(METADATA))
        time.sleep(1.4)
        asked = len(relay.requests(METADATA)) - before
        assert low <= asked <= high, f"asked {asked} times"

    def test_added_partitions_are_found(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: Any
    ) -> None:
        name, made = topic(), producer(metadata_max_age_ms=200)
        made.send(name, b"v").get(10)
        admin = AdminClient({"bootstrap.servers": own_broker.bootstrap_servers})
        for done in admin.create_partitions([NewPartitions(name, 3)]).values():
            done.result(10)
        eventually(lambda: made.partitions_for(name) == {0, 1, 2})


class TestRetries:
    @shows("retries")
    @pytest.mark.parametrize("retries", [0, 1, 3])
    def test_number_of_attempts(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay, retries: int
    ) -> None:
        made = producer(retries=retries, retry_backoff_ms=10)
        name = topic()
        made.partitions_for(name)
        relay.produce_error, relay.produce_errors_left = 19, 1000
        with pytest.raises(errors.NotEnoughReplicasError):
            made.send(name, b"v").get(10)
        assert len(relay.requests(PRODUCE)) == 1 + retries

    def test_by_default_until_it_works(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        made, name = producer(retry_backoff_ms=10), topic()
        made.partitions_for(name)
        relay.produce_error, relay.produce_errors_left = 7, 6
        assert made.send(name, b"v").get(20).offset == 0
        assert len(relay.requests(PRODUCE)) == 7

    @shows("retry_backoff_ms")
    @pytest.mark.parametrize("backoff_ms", [20, 200])
    def test_pauses_grow(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay, backoff_ms: int
    ) -> None:
        made, name = producer(retry_backoff_ms=backoff_ms), topic()
        made.partitions_for(name)
        relay.produce_error, relay.produce_errors_left = 19, 3
        made.send(name, b"v").get(20)
        sent = [each.at for each in relay.requests(PRODUCE)]
        gaps = [after - before for before, after in itertools.pairwise(sent)]
        for gap, expected in zip(gaps, [1, 2, 4], strict=True):
            seconds = expected * backoff_ms / 1000
            assert 0.75 * seconds < gap < 1.2 * seconds + 0.15, gaps


class TestMetrics:
    @shows("metrics_enabled")
    def test_off(self, producer: MakeProducer) -> None:
        made = producer(metrics_enabled=False)
        assert made.metrics() is None
        assert made.metrics(raw=True) is None
        assert producer().metrics()

    @shows("metrics_num_samples", "metrics_sample_window_ms")
    @pytest.mark.parametrize(
        ("samples", "window_ms", "forgets"), [(2, 100, True), (60, 100, False)]
    )
    def test_windows_move_on(
        self, producer: MakeProducer, topic: MakeTopic, samples: int, window_ms: int, forgets: bool
    ) -> None:
        made = producer(metrics_num_samples=samples, metrics_sample_window_ms=window_ms)
        made.send(topic(), b"v").get(10)
        assert self.rate(made) > 0
        time.sleep(1)
        assert (self.rate(made) == 0) == forgets

    @staticmethod
    def rate(made: KafkaProducer) -> float:
        metrics = made.metrics()
        assert metrics is not None
        rate: float = metrics["producer-metrics"]["record-send-rate"]
        return rate
