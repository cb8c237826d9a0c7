"""`KafkaBroker(nodes=3)` against what it promises: replicated by default, and alive when a node is not."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, ConfigResource
from judges import PATIENCE_S, produce, read

from fastprod import KafkaProducer
from fastprod.testing import BrokerError, KafkaBroker
from fastprod.testing._release import DEFAULT_VERSION

# What is tested does not depend on the twin.
pytestmark = pytest.mark.native_only


@pytest.fixture(scope="module", params=[DEFAULT_VERSION, "2.8.2"])
def cluster(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """Three nodes, with KRaft and with a ZooKeeper."""
    with KafkaBroker(nodes=3, version=request.param) as started:
        yield started


@pytest.fixture
def whole(cluster: KafkaBroker) -> Iterator[KafkaBroker]:
    """The cluster with all nodes there and in sync, before and after."""
    yield cluster
    for node in cluster.nodes:
        if not cluster.is_running(node):
            cluster.start(node)
        else:
            cluster.resume(node)
    cluster.wait_until_in_sync(PATIENCE_S)


def admin(cluster: KafkaBroker) -> AdminClient:
    return AdminClient({"bootstrap.servers": cluster.bootstrap_servers})


def test_clients_are_told_of_all_nodes(cluster: KafkaBroker) -> None:
    brokers = admin(cluster).list_topics(timeout=PATIENCE_S).brokers
    addresses = [f"{brokers[node].host}:{brokers[node].port}" for node in cluster.nodes]
    assert cluster.bootstrap_servers == cluster.direct_servers == ",".join(addresses)
    assert cluster.nodes == (1, 2, 3)


def test_all_nodes_vote_for_the_controller(cluster: KafkaBroker) -> None:
    if cluster.version != DEFAULT_VERSION:
        assert cluster.controller() in cluster.nodes, "whoever was first with the ZooKeeper"
        return
    command = ["--bootstrap-server", cluster.bootstrap_servers, "describe", "--status"]
    told = run_tool(cluster, "org.apache.kafka.tools.MetadataQuorumCommand", *command)
    assert len(re.findall(r'"id": ([123])\b', told.partition("CurrentVoters:")[2].partition("\n")[0])) == 3, told


def run_tool(cluster: KafkaBroker, main: str, *arguments: str) -> str:
    done = subprocess.run(cluster.tool_command(main, *arguments), capture_output=True, text=True, check=True)
    return done.stdout


def test_topics_have_three_replicas_two_of_which_must_be_in_sync(cluster: KafkaBroker) -> None:
    cluster.create_topic("replicated", partitions=3)
    cluster.create_topic("alone", replication_factor=1)
    produce(cluster, "replicated", [b"one"])
    produce(cluster, "made-on-first-use", [b"one"])
    assert read(cluster, "replicated", 1) == [b"one"]
    client = admin(cluster)
    topics = client.list_topics(timeout=PATIENCE_S).topics
    for name in ("replicated", "made-on-first-use"):
        assert {frozenset(each.replicas) for each in topics[name].partitions.values()} == {frozenset({1, 2, 3})}
    assert len(topics["alone"].partitions[0].replicas) == 1
    asked = ConfigResource(ConfigResource.Type.TOPIC, "replicated")
    ((_, told),) = client.describe_configs([asked]).items()
    assert told.result(PATIENCE_S)["min.insync.replicas"].value == "2"


def test_internal_topics_are_replicated(cluster: KafkaBroker) -> None:
    cluster.create_topic("in-a-group")
    produce(cluster, "in-a-group", [b"one"])
    consumer = Consumer({
        "bootstrap.servers": cluster.bootstrap_servers, "group.id": "g", "auto.offset.reset": "earliest"
    })
    consumer.subscribe(["in-a-group"])
    message = consumer.poll(PATIENCE_S)
    assert message is not None
    assert message.value() == b"one"
    consumer.close()
    topics = admin(cluster).list_topics(timeout=PATIENCE_S).topics
    assert len(topics["__consumer_offsets"].partitions[0].replicas) == 3


def test_every_node_has_the_log_and_the_leaders_is_the_default(cluster: KafkaBroker) -> None:
    cluster.create_topic("logged", partitions=3)
    produce(cluster, "logged", [b"in every log"])
    cluster.wait_until_in_sync()
    logs = [cluster.read_log("logged", node=node) for node in cluster.nodes]
    assert b"in every log" in logs[0]
    assert logs[1:] == logs[:2]
    assert cluster.read_log("logged") == logs[0]
    (path,) = cluster.log_segments("logged")
    assert path.parent == cluster.log_segments("logged", node=cluster.leader_of("logged"))[0].parent
    with pytest.raises(BrokerError, match="partition 7 of topic 'logged' has no leader"):
        cluster.log_segments("logged", 7)


@pytest.mark.parametrize("how", ["kill", "pause", "stop"])
def test_the_others_lead_when_a_node_is_gone(whole: KafkaBroker, how: str) -> None:
    name = f"led-{how}"
    whole.create_topic(name)
    produce(whole, name, [b"before"])
    gone = whole.leader_of(name)
    getattr(whole, how)(gone)
    leader = whole.wait_for_leader(name, other_than=gone, timeout=PATIENCE_S)
    assert leader != gone
    produce(whole, name, [b"during"])
    whole.create_topic(f"meanwhile-{how}", replication_factor=2)
    if how == "pause":
        whole.resume(gone)
    else:
        whole.start(gone)
    whole.wait_until_in_sync()
    assert read(whole, name, 2) == [b"before", b"during"]
    assert whole.read_log(name, node=gone) == whole.read_log(name, node=leader)


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_another_controller_makes_another_leader(whole: KafkaBroker, how: str) -> None:
    name = f"led-by-controller-{how}"
    whole.create_topic(name, 3)
    controller = whole.controller()
    (partition,) = [each for each in range(3) if whole.leader_of(name, each) == controller]
    getattr(whole, how)(controller)
    leader = whole.wait_for_leader(name, partition, other_than=controller, timeout=PATIENCE_S)
    assert leader != controller
    assert whole.controller() != controller
    produce_to(whole, name, partition)
    if how == "kill":
        whole.start(controller)
    else:
        whole.resume(controller)
    # It may not know yet, but somebody does.
    assert whole.leader_of(name, partition) == leader
    whole.wait_until_in_sync()
    assert len({whole.read_log(name, partition, node=node) for node in whole.nodes}) == 1
    assert b"taken" in whole.read_log(name, partition)


def produce_to(cluster: KafkaBroker, topic: str, partition: int) -> None:
    with KafkaProducer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        producer.send(topic, b"taken", partition=partition).get(PATIENCE_S)


def test_one_node_alone_takes_nothing_that_two_must_have(whole: KafkaBroker) -> None:
    whole.create_topic("needs-two")
    first = whole.leader_of("needs-two")
    whole.kill(first)
    second = whole.wait_for_leader("needs-two", other_than=first)
    whole.kill(second)
    with pytest.raises(BrokerError, match=f"waited 1 s in vain for .* a leader other than node {second}"):
        whole.wait_for_leader("needs-two", other_than=second, timeout=1)
    whole.start(second)
    whole.start(first)
    assert whole.wait_for_leader("needs-two") in whole.nodes
    produce(whole, "needs-two", [b"taken"])


def test_a_port_that_is_asked_for_is_that_of_the_first_node_and_those_behind_it_are_the_others() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port ({port - 1}|{port}) on"), KafkaBroker(nodes=2, port=port - 1):
            pytest.fail("started on a port that is taken")


def test_a_node_that_does_not_exist_is_named(cluster: KafkaBroker) -> None:
    with pytest.raises(ValueError, match=r"node=4: there are \[1, 2, 3\]"):
        cluster.kill(4)
    with pytest.raises(ValueError, match="there are no proxies"):
        cluster.proxy(1)


def test_a_cluster_that_does_not_start_shows_the_log_of_a_node() -> None:
    with pytest.raises(BrokerError, match=r"did not start(?s:.)*Invalid value many for configuration num\.io\.threads"):
        KafkaBroker(nodes=3, properties={"num.io.threads": "many"}).__enter__()
