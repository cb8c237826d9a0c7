"""A rolling upgrade of a cluster in place, while a producer goes on."""

from __future__ import annotations

import threading
import time

import pytest
from judges import PATIENCE_S, read_compressed

from fastprod import KafkaProducer
from fastprod.testing import KafkaBroker

PARTITIONS = 3
PAUSE_S = 0.002


class Traffic(threading.Thread):
    """Sends numbered records to every partition in turn until it is told to end, and keeps all futures."""

    def __init__(self, servers: str, topic: str) -> None:
        super().__init__()
        self._ending = threading.Event()
        self._servers = servers
        self._topic = topic
        self.offsets: list[list[int]] = [[] for _ in range(PARTITIONS)]

    def run(self) -> None:
        with KafkaProducer(bootstrap_servers=self._servers, linger_ms=5) as producer:
            futures = []
            while not self._ending.is_set():
                number = len(futures)
                value = b"%d" % (number // PARTITIONS)
                futures.append(producer.send(self._topic, value, partition=number % PARTITIONS))
                time.sleep(PAUSE_S)
            producer.flush(PATIENCE_S)
            for number, future in enumerate(futures):
                self.offsets[number % PARTITIONS].append(future.get(PATIENCE_S).offset)

    def end(self) -> None:
        self._ending.set()
        self.join()


@pytest.mark.timeout(600)
def test_a_cluster_is_upgraded_from_3_9_to_4_node_by_node_under_traffic() -> None:
    with KafkaBroker(nodes=3, version="3.9.1") as cluster:
        cluster.create_topic("upgraded", PARTITIONS)
        traffic = Traffic(cluster.bootstrap_servers, "upgraded")
        traffic.start()
        try:
            for node in cluster.nodes:
                cluster.wait_until_in_sync(PATIENCE_S)
                before = cluster.pid(node)
                cluster.upgrade(node, "4.3.1")
                assert cluster.pid(node) != before
                assert "kafka-clients-4.3.1.jar" in command_line(cluster.pid(node))
            cluster.wait_until_in_sync(PATIENCE_S)
            # What was upgraded once stays so.
            cluster.kill(1)
            cluster.start(1)
            assert "kafka-clients-4.3.1.jar" in command_line(cluster.pid(1))
            cluster.wait_until_in_sync(PATIENCE_S)
        finally:
            traffic.end()
        for partition, offsets in enumerate(traffic.offsets):
            assert offsets == list(range(len(offsets)))
            assert len(offsets) > 100
            assert cluster.end_offset("upgraded", partition) == len(offsets)
            values = read_compressed(cluster, "upgraded", len(offsets), partition)
            assert values == [b"%d" % number for number in range(len(offsets))]


def command_line(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
        return file.read()


@pytest.mark.native_only
def test_what_cannot_read_the_data_is_refused() -> None:
    with KafkaBroker() as broker:
        broker.stop()
        with pytest.raises(ValueError, match=r"version='2\.8\.2': supported from '4\.3\.1' are releases with KRaft"):
            broker.start(version="2.8.2")
        with pytest.raises(ValueError, match=r"version='0\.8': supported are"):
            broker.upgrade(1, "0.8")
        broker.start()
