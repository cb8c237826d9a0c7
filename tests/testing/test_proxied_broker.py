"""`KafkaBroker(proxied=True)`: all clients go through the proxies, and faults hit the request they are aimed at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient
from judges import PATIENCE_S, produce, read

from fastprod import KafkaProducer
from fastprod.errors import KafkaTimeoutError
from fastprod.testing import FaultProxy, KafkaBroker, Request, Tap

# What is tested does not depend on the twin.
pytestmark = pytest.mark.native_only

PRODUCE, METADATA, API_VERSIONS = 0, 3, 18


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    with KafkaBroker(proxied=True) as started:
        yield started


@pytest.fixture
def proxy(broker: KafkaBroker) -> Iterator[FaultProxy]:
    yield broker.proxy()
    broker.proxy().tap = None
    broker.proxy().heal()


def test_clients_are_told_the_proxy_and_those_that_begin_behind_it_stay_there(
    broker: KafkaBroker, proxy: FaultProxy
) -> None:
    assert broker.bootstrap_servers == proxy.address
    produce(broker, "through", [b"one"])
    before = proxy.opened
    direct = AdminClient({"bootstrap.servers": broker.direct_servers}).list_topics(timeout=PATIENCE_S)
    assert f"{direct.brokers[1].host}:{direct.brokers[1].port}" == broker.direct_servers != broker.bootstrap_servers
    assert proxy.opened == before
    proxy.refuse()
    proxy.cut()
    # What the broker is asked by us goes past the proxy.
    assert broker.end_offset("through") == 1


def test_it_comes_back_on_the_same_proxy(broker: KafkaBroker, proxy: FaultProxy) -> None:
    address = broker.bootstrap_servers
    broker.create_topic("survives")
    produce(broker, "survives", [b"before"])
    broker.kill()
    broker.start()
    assert broker.bootstrap_servers == address
    produce(broker, "survives", [b"after"])
    assert read(broker, "survives", 2) == [b"before", b"after"]


@pytest.mark.parametrize("way", ["requests", "responses"])
@pytest.mark.parametrize("byte", [0, 5, 30])
def test_a_produce_request_or_its_response_is_cut_at_a_byte_and_nothing_is_lost_or_doubled(
    broker: KafkaBroker, proxy: FaultProxy, way: str, byte: int
) -> None:
    topic = f"cut-{way}-{byte}"
    broker.create_topic(topic)
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        producer.send(topic, b"0", partition=0).get(PATIENCE_S)
        fault = proxy.cut_at(byte, "requests" if way == "requests" else "responses", api_key=PRODUCE)
        for number in range(1, 100):
            producer.send(topic, b"%d" % number, partition=0)
        producer.flush(PATIENCE_S)
    assert fault.done
    assert read(broker, topic, 100) == [b"%d" % number for number in range(100)]
    assert broker.end_offset(topic) == 100


def test_a_stalled_response_is_outlived(broker: KafkaBroker, proxy: FaultProxy) -> None:
    broker.create_topic("stalled")
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=1000) as producer:
        fault = proxy.stall_at(4, "responses", api_key=PRODUCE)
        future = producer.send("stalled", b"once", partition=0)
        assert fault.wait(PATIENCE_S)
        assert future.get(PATIENCE_S).offset == 0
    assert broker.end_offset("stalled") == 1


def test_every_byte_on_its_own_is_understood(broker: KafkaBroker, proxy: FaultProxy) -> None:
    broker.create_topic("in-bytes")
    proxy.one_byte_at_a_time()
    produce(broker, "in-bytes", [b"one"])
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        assert producer.send("in-bytes", b"two", partition=0).get(PATIENCE_S).offset == 1
    assert read(broker, "in-bytes", 2) == [b"one", b"two"]


def test_a_request_that_was_held_when_its_client_went_away_is_still_delivered(
    broker: KafkaBroker, proxy: FaultProxy
) -> None:
    broker.create_topic("late")
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, enable_idempotence=False)
    producer.send("late", b"0", partition=0).get(PATIENCE_S)
    proxy.hold("requests")
    future = producer.send("late", b"1", partition=0)
    with pytest.raises(KafkaTimeoutError):
        producer.close(0.5)
    assert future.exception is not None
    proxy.release()
    assert read(broker, "late", 2) == [b"0", b"1"]


class Recording(Tap):
    """Keeps what passes, and changes it as the test wants."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.requests: list[Request] = []
        self.refuse = self.fail = self.drop = False

    def opened(self, connection: int) -> None:
        self.seen.append(f"opened {connection}")
        if self.refuse:
            raise ConnectionRefusedError

    def closed(self, connection: int) -> None:
        self.seen.append(f"closed {connection}")

    def request(self, request: Request) -> bytes | None:
        self.requests.append(request)
        if self.fail:
            raise ConnectionResetError
        return request.payload

    def response(self, request: Request, payload: bytes) -> bytes | None:
        assert payload[:4] == request.payload[4:8]
        if request.api_key == PRODUCE and self.drop:
            self.drop = False
            raise RuntimeError("this tap is broken")
        return payload


def test_a_tap_sees_whole_requests_and_may_reset_a_connection(
    broker: KafkaBroker, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    broker.create_topic("tapped")
    proxy.cut()
    proxy.tap = tap = Recording()
    before = proxy.requests(PRODUCE)
    tap.drop = True
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers, client_id="seen") as producer:
        assert producer.send("tapped", b"x" * 100_000, partition=0).get(PATIENCE_S).offset == 0
    assert broker.end_offset("tapped") == 1
    sent = [each for each in tap.requests if each.api_key == PRODUCE]
    assert len(sent) == 2
    assert proxy.requests(PRODUCE) - before == 2
    assert sent[0].connection != sent[1].connection
    assert len(sent[0].payload) > 100_000
    assert {each.client_id for each in tap.requests} == {"seen"}
    assert {each.api_key for each in tap.requests} >= {PRODUCE, METADATA, API_VERSIONS}
    assert "this tap is broken" in caplog.text
    for what in ("refuse", "fail"):
        setattr(tap, what, True)
        with pytest.raises(KafkaTimeoutError, match="reset"):
            KafkaProducer(bootstrap_servers=broker.bootstrap_servers, bootstrap_timeout_ms=500)
        setattr(tap, what, False)
    proxy.cut()
    opened = [line for line in tap.seen if line.startswith("opened")]
    assert sorted(tap.seen) == sorted([*opened, *(line.replace("opened", "closed") for line in opened)])


def test_each_node_of_a_cluster_has_its_proxy() -> None:
    with KafkaBroker(nodes=3, proxied=True) as cluster:
        addresses = [cluster.proxy(node).address for node in cluster.nodes]
        assert cluster.bootstrap_servers == ",".join(addresses)
        cluster.create_topic("behind", 3)
        told = AdminClient({"bootstrap.servers": addresses[0]}).list_topics(timeout=PATIENCE_S)
        assert [f"{told.brokers[node].host}:{told.brokers[node].port}" for node in cluster.nodes] == addresses
        # Nodes replicate, and lead, whatever the proxies do to clients.
        leaders = [cluster.leader_of("behind", partition) for partition in range(3)]
        for node in cluster.nodes:
            cluster.proxy(node).black_hole()
        produce_directly(cluster, "behind")
        assert [cluster.leader_of("behind", partition) for partition in range(3)] == leaders
        cluster.wait_until_in_sync()
        assert len({cluster.read_log("behind", node=node) for node in cluster.nodes}) == 1


def produce_directly(cluster: KafkaBroker, topic: str) -> None:
    with KafkaProducer(bootstrap_servers=cluster.direct_servers) as producer:
        producer.send(topic, b"past the proxies", partition=0).get(PATIENCE_S)
