"""Metadata: brokers, topics, partitions and their leaders."""

from typing import Annotated, NamedTuple

from fastprod.protocol import versions
from fastprod.protocol.schema import (
    IGNORABLE,
    ZERO_UUID,
    Array,
    Bool,
    Int16,
    Int32,
    String,
    Uuid,
    between,
    message_of,
    nullable_since,
    since,
)

# What brokers send for "operations were not asked for".
OPERATIONS_UNKNOWN = -(2**31)


class MetadataRequestTopic(NamedTuple):
    """A topic by name, or from version 12 on by id with a null name."""

    topic_id: Annotated[Uuid, since(10), IGNORABLE] = ZERO_UUID
    name: Annotated[String | None, nullable_since(10)] = ""


@message_of(versions.METADATA)
class MetadataRequest(NamedTuple):
    """`topics`: None asks for all, an empty array for none (just the brokers)."""

    topics: Array[MetadataRequestTopic] | None = ()
    allow_auto_topic_creation: Bool = True
    include_cluster_authorized_operations: Annotated[Bool, between(8, 10)] = False
    include_topic_authorized_operations: Annotated[Bool, since(8)] = False


class MetadataBroker(NamedTuple):
    """A broker and the address of its listener of the name that the request came through."""

    node_id: Int32 = 0
    host: String = ""
    port: Int32 = 0
    rack: String | None = None


class MetadataPartition(NamedTuple):
    """`leader_epoch` is -1 where unknown; before version 9 brokers sent stale ones during reassignments."""

    error_code: Int16 = 0
    partition_index: Int32 = 0
    leader_id: Int32 = 0
    leader_epoch: Annotated[Int32, since(7), IGNORABLE] = -1
    replica_nodes: Array[Int32] = ()
    isr_nodes: Array[Int32] = ()
    offline_replicas: Annotated[Array[Int32], since(5), IGNORABLE] = ()


class MetadataTopic(NamedTuple):
    """`name` is null only where a topic was asked for by an id that the broker does not know."""

    error_code: Int16 = 0
    name: Annotated[String | None, nullable_since(12)] = ""
    topic_id: Annotated[Uuid, since(10), IGNORABLE] = ZERO_UUID
    is_internal: Bool = False
    partitions: Array[MetadataPartition] = ()
    topic_authorized_operations: Annotated[Int32, since(8)] = OPERATIONS_UNKNOWN


@message_of(versions.METADATA)
class MetadataResponse(NamedTuple):
    """`error_code` can be REBOOTSTRAP_REQUIRED (KIP-1102)."""

    throttle_time_ms: Int32 = 0
    brokers: Array[MetadataBroker] = ()
    cluster_id: String | None = None
    controller_id: Int32 = -1
    topics: Array[MetadataTopic] = ()
    cluster_authorized_operations: Annotated[Int32, between(8, 10), IGNORABLE] = OPERATIONS_UNKNOWN
    error_code: Annotated[Int16, since(13), IGNORABLE] = 0
