"""Record anew what real brokers answer: `python -m fuzz.record` in `tests/` writes `recorded.txt` (about a minute).

Topics are called `fuzz` (two partitions) and `more` (one, compacted, stamped by the broker). Their ids, which are
other ones in each cluster, are written as 16 times F and 16 times M.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from kio.index import load_request_schema

from fastprod.protocol import versions
from fastprod.testing import KafkaBroker

from .corpus import API_VERSIONS, FILE, IDS, INIT_PRODUCER_ID, METADATA, PRODUCE, SASL, Recorded

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "testing"))

from raw_client import RawClient, batch

# Release and nodes. Several are there to answer for each other's partitions (KIP-951).
CLUSTERS = [("2.8.2", 1), ("3.9.1", 1), ("4.3.1", 1), ("4.3.1", 2)]
APIS = {
    PRODUCE: versions.PRODUCE, METADATA: versions.METADATA, API_VERSIONS: versions.API_VERSIONS,
    INIT_PRODUCER_ID: versions.INIT_PRODUCER_ID, SASL: versions.SASL_HANDSHAKE,
}
GOOD = batch(b"value", b"another")
BROKEN = batch(b"value", crc=7)
KEYLESS = batch(b"value", b"another", key=None)


def recorded(release: str, client: RawClient, api: int, version: int, name: str, fields: dict[str, Any]) -> Recorded:
    client.send(api, version, **fields)
    return Recorded(release, api, version, name, client.receive_frame())


def asked_for(client: RawClient, version: int, parts: dict[str, list[bytes]]) -> dict[str, Any]:
    """A Produce request of a batch for each partition of the topics."""
    module = sys.modules[load_request_schema(PRODUCE, version).__module__]
    topics = []
    for topic, batches in parts.items():
        data = tuple(
            module.PartitionProduceData(index=index, records=records) for index, records in enumerate(batches)
        )
        name = {"topic_id": client.topic_id(topic)} if version >= 13 else {"name": topic}
        topics.append(module.TopicProduceData(**name, partition_data=data))
    return {"transactional_id": None, "acks": -1, "timeout": timedelta(seconds=10), "topic_data": tuple(topics)}


def produce_requests(client: RawClient, version: int) -> dict[str, dict[str, Any]]:
    """What is produced, by name."""
    cases = {
        "accepted": {"fuzz": [GOOD, GOOD], "more": [GOOD]},
        "one": {"fuzz": [GOOD]},
        "broken": {"fuzz": [BROKEN, GOOD], "more": [GOOD]},
        "keyless": {"fuzz": [GOOD, GOOD], "more": [KEYLESS]},
        "stamped": {"fuzz": [GOOD, batch(b"value", stamp=(1, 0, 7))], "more": [GOOD]},
        "beyond": {"more": [GOOD, GOOD]},
    }
    return {name: asked_for(client, version, parts) for name, parts in cases.items()}


def answers(release: str, client: RawClient) -> Iterator[Recorded]:
    """Every API in every version that both sides know."""
    client.send(API_VERSIONS, 0)
    offered = {each.api_key: each for each in client.receive(API_VERSIONS, 0).api_keys}
    for key, api in APIS.items():
        if key not in offered:
            continue
        newest = min(api.versions.last, offered[key].max_version)
        for version in range(max(api.versions.first, offered[key].min_version), newest + 1):
            asked = produce_requests(client, version) if key == PRODUCE else plain_requests(key, version)
            for name, fields in asked.items():
                yield recorded(release, client, key, version, name, fields)


def hints(release: str, client: RawClient) -> Iterator[Recorded]:
    """Of brokers that lead some of the partitions only, from the version on that they say who leads the others."""
    for version in range(10, versions.PRODUCE.versions.last + 1):
        asked = produce_requests(client, version)["accepted"]
        yield recorded(release, client, PRODUCE, version, "led elsewhere", asked)
    newest = versions.METADATA.versions.last
    yield recorded(release, client, METADATA, newest, "two brokers", plain_requests(METADATA, newest)["topics"])


def plain_requests(key: int, version: int) -> dict[str, dict[str, Any]]:
    """What is asked of the other APIs, by name."""
    if key == METADATA:
        module = sys.modules[load_request_schema(key, version).__module__]
        ids: dict[str, Any] = {"topic_id": None} if version >= 10 else {}
        some = tuple(module.MetadataRequestTopic(name=name, **ids) for name in ("fuzz", "more", "absent"))
        fields: dict[str, Any] = {"allow_auto_topic_creation": False}
        if version >= 8:
            fields["include_topic_authorized_operations"] = True
        if 8 <= version <= 10:
            fields["include_cluster_authorized_operations"] = True
        return {"topics": {"topics": some, **fields}, "brokers": {"topics": (), **fields}}
    if key == INIT_PRODUCER_ID:
        more = {"producer_id": -1, "producer_epoch": -1} if version >= 3 else {}
        timeout = timedelta(milliseconds=2**31 - 1)
        return {"identity": {"transactional_id": None, "transaction_timeout": timeout, **more}}
    if key == API_VERSIONS:
        more = {"client_software_name": "fuzz", "client_software_version": "1"} if version >= 3 else {}
        return {"offered": more}
    return {"refused": {"mechanism": "PLAIN"}}   # the listener has no SASL, and says so


def of_cluster(release: str, nodes: int) -> Iterator[Recorded]:
    with KafkaBroker(nodes, release) as broker:
        plain = {"min.insync.replicas": 1}
        stamped = {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}
        broker.create_topic("fuzz", 2, plain, replication_factor=1)
        broker.create_topic("more", 1, {**plain, **stamped}, replication_factor=1)
        for address in broker.direct_servers.split(","):
            with RawClient(address) as client:
                topics = client.metadata(*IDS, version=11).topics
                for each in (answers if nodes == 1 else hints)(release, client):
                    payload = each.payload
                    for topic in topics:
                        payload = payload.replace(topic.topic_id.bytes, IDS[topic.name])
                    yield each._replace(payload=payload)


def main() -> None:
    lines = [each.line() for release, nodes in CLUSTERS for each in of_cluster(release, nodes)]
    FILE.write_text("".join(lines), encoding="ascii")
    print(f"{len(lines)} responses")


if __name__ == "__main__":
    main()
