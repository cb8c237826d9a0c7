"""What an honest broker says: the responses to the APIs that a producer uses, as kio's messages."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from fastprod.testing.scripted.cluster import NO_LEADER, Cluster, Topic, is_topic_name
from fastprod.testing.scripted.log import Verdict
from fastprod.testing.scripted.records import Batch
from fastprod.testing.scripted.releases import Api, Release
from fastprod.testing.scripted.requests import Request
from fastprod.testing.scripted.wire import NO_TIME, Maker, error_code, moment

LEADER_NOT_AVAILABLE: Final = 5
INVALID_TOPIC: Final = 17
UNSUPPORTED_VERSION: Final = 35
INVALID_REQUEST: Final = 42
UNKNOWN_TOPIC_ID: Final = 100
REBOOTSTRAP_REQUIRED: Final = 129
# What ApiVersionsRequest of Apache Kafka takes as a client's software name and version (KIP-511).
_SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
_LARGEST_EPOCH: Final = 32767


class Honest:
    """Answers ApiVersions, Metadata and InitProducerId, and puts verdicts into Produce responses.

    `offered`: API key -> lowest and highest version. `addresses`: tells the nodes to name, id -> (host, port).
    `next_identity`: producer id and epoch to give next. `auto_create`: partitions of topics that a client asks for and
    nobody has made; 0: they are unknown.
    """

    def __init__(
        self,
        cluster: Cluster,
        release: Release,
        addresses: Callable[[], dict[int, tuple[str, int]]],
        auto_create: int,
    ) -> None:
        self.offered = dict(release.ranges)
        self.next_identity: tuple[int, int] | None = None
        self.auto_create = auto_create
        self._cluster = cluster
        self._release = release
        self._addresses = addresses
        self._ids = itertools.count(1000)
        self._transactional: dict[str, tuple[int, int]] = {}

    def answers(self, api: int) -> bool:
        """Say whether there is an answer to this API, apart from Produce."""
        return api in (Api.METADATA, Api.API_VERSIONS, Api.INIT_PRODUCER_ID)

    def answer(self, request: Request, code: int = 0) -> Any:
        """Return the response to any API but Produce; an error where `code` is not 0."""
        make = Maker(request.api, request.version)
        with self._cluster.lock:
            if request.api == Api.METADATA:
                return self._metadata(make, request, code)
            if request.api == Api.INIT_PRODUCER_ID:
                return self._identity(make, request, code)
            return self.versions(request.version, code or self._software_problem(request.message))

    def produced(self, request: Request, told: list[tuple[Batch, Verdict]]) -> Any:
        """Return the response to a Produce request."""
        make = Maker(Api.PRODUCE, request.version)
        with self._cluster.lock:
            topics: dict[tuple[str, Any], list[Any]] = {}
            for batch, verdict in told:
                answers = topics.setdefault((batch.topic, batch.topic_id), [])
                answers.append(self._partition_answer(make, batch, verdict))
            responses = tuple(
                make("TopicProduceResponse", name=name, topic_id=topic_id, partition_responses=tuple(parts))
                for (name, topic_id), parts in topics.items()
            )
            hinted = {verdict.leader for _, verdict in told if verdict.leader is not None}
            nodes = self._addresses()
            endpoints = tuple(
                make("NodeEndpoint", node_id=node, host=nodes[node][0], port=nodes[node][1], rack=None)
                for node in sorted(hinted & set(nodes))
                if make.has("NodeEndpoint")
            )
        return make("ProduceResponse", responses=responses, throttle_time=NO_TIME, node_endpoints=endpoints)

    def versions(self, version: int, code: int = 0) -> Any:
        """Return an ApiVersions response."""
        make = Maker(Api.API_VERSIONS, version)
        offered = dict(self.offered)
        if code == UNSUPPORTED_VERSION:
            offered = {key: range_ for key, range_ in offered.items() if key == Api.API_VERSIONS}
            offered = offered if self._release.names_itself else {}
        elif code:
            offered = {}
        keys = tuple(
            make("ApiVersion", api_key=key, min_version=low, max_version=high)
            for key, (low, high) in sorted(offered.items())
        )
        return make("ApiVersionsResponse", error_code=error_code(code), api_keys=keys, throttle_time=NO_TIME)

    def _partition_answer(self, make: Maker, batch: Batch, verdict: Verdict) -> Any:
        record_errors: tuple[Any, ...] = ()
        if make.has("BatchIndexAndErrorMessage"):
            record_errors = tuple(
                make("BatchIndexAndErrorMessage", batch_index=index, batch_index_error_message=why)
                for index, why in verdict.record_errors
            )
        hint = {}
        if verdict.leader is not None and make.has("LeaderIdAndEpoch"):
            epoch = verdict.leader_epoch
            if epoch is None:
                epoch = self._cluster.leader_epoch(batch.topic, batch.partition)
            hint["current_leader"] = make("LeaderIdAndEpoch", leader_id=verdict.leader, leader_epoch=epoch)
        return make(
            "PartitionProduceResponse",
            index=batch.partition,
            error_code=error_code(verdict.code),
            base_offset=verdict.offset,
            log_append_time=moment(verdict.log_append_time_ms),
            log_start_offset=verdict.log_start_offset,
            record_errors=record_errors,
            error_message=verdict.message,
            **hint,
        )

    def _software_problem(self, message: Any) -> int:
        for name in ("client_software_name", "client_software_version"):
            if not _SOFTWARE.fullmatch(getattr(message, name, "any")):
                return INVALID_REQUEST
        return 0

    def _metadata(self, make: Maker, request: Request, code: int) -> Any:
        brokers = tuple(
            make("MetadataResponseBroker", node_id=node, host=host, port=port, rack=None)
            for node, (host, port) in self._addresses().items()
        )
        top_level = code == REBOOTSTRAP_REQUIRED
        topics = () if top_level else tuple(self._asked_topics(make, request, code))
        return make(
            "MetadataResponse",
            throttle_time=NO_TIME,
            error_code=error_code(code if top_level else 0),
            brokers=brokers,
            cluster_id="scripted",
            controller_id=min(self._addresses(), default=-1),
            topics=topics,
        )

    def _asked_topics(self, make: Maker, request: Request, code: int) -> Iterable[Any]:
        asked = request.message.topics
        if asked is None or (request.version == 0 and not asked):
            names: list[tuple[Any, Any]] = [(name, None) for name in self._cluster.topics]
        else:
            names = [(each.name, getattr(each, "topic_id", None)) for each in asked]
        may_create = getattr(request.message, "allow_auto_topic_creation", True)
        for name, topic_id in names:
            topic = self._cluster.find_topic(name, topic_id)
            if code or topic is None:
                problem = code or self._missing(name, may_create)
                known = None if topic is None else topic.id
                yield make(
                    "MetadataResponseTopic",
                    error_code=error_code(problem),
                    name=name,
                    topic_id=topic_id if name is None else known,
                    partitions=(),
                )
            else:
                yield self._topic(make, topic)

    def _missing(self, name: str | None, may_create: bool) -> int:
        if name is None:
            return UNKNOWN_TOPIC_ID
        if not is_topic_name(name):
            return INVALID_TOPIC
        if self.auto_create and may_create:
            self._cluster.create_topic(name, self.auto_create)
            # As on a real one it is there when it is asked for again.
            return self._release.being_created
        return 3

    def _topic(self, make: Maker, topic: Topic) -> Any:
        partitions = tuple(
            make(
                "MetadataResponsePartition",
                error_code=error_code(LEADER_NOT_AVAILABLE if each.leader == NO_LEADER else 0),
                partition_index=number,
                leader_id=each.leader,
                leader_epoch=each.epoch,
                replica_nodes=tuple(self._addresses()),
                isr_nodes=tuple(self._addresses()),
                offline_replicas=(),
            )
            for number, each in enumerate(topic.partitions)
        )
        topic_id = topic.id if self._release.topic_ids else None
        return make(
            "MetadataResponseTopic",
            error_code=error_code(0),
            name=topic.name,
            topic_id=topic_id,
            is_internal=False,
            partitions=partitions,
        )

    def _identity(self, make: Maker, request: Request, code: int) -> Any:
        producer_id, epoch = (-1, -1) if code else self._new_identity(request.message)
        return make(
            "InitProducerIdResponse",
            throttle_time=NO_TIME,
            error_code=error_code(code),
            producer_id=producer_id,
            producer_epoch=epoch,
        )

    def _new_identity(self, message: Any) -> tuple[int, int]:
        name = message.transactional_id
        known = self._transactional.get(name) if name is not None else None
        if self.next_identity is not None:
            identity = self.next_identity
        elif known is not None and known[1] < _LARGEST_EPOCH - 1:
            identity = (known[0], known[1] + 1)
        else:
            identity = (next(self._ids), 0)
        if name is not None:
            self._transactional[name] = identity
        return identity
