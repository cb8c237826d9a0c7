"""The data plane in plain Python: the specification, the fallback, and the other half of every
parity test. Its compiled twin is `fastprod._core`, with the same names; what both mean is told in
DESIGN.md."""

from fastprod._pure.accumulator import TopicRoute
from fastprod._pure.batch import ParkedBatch
from fastprod._pure.codecs import linked_codecs
from fastprod._pure.crc32c import crc32c, crc32c_combine, crc32c_implementation
from fastprod._pure.delivery import FutureRecordMetadata
from fastprod._pure.layout import (
    EVENT_CONNECTION_LOST,
    EVENT_NEED_CONNECTION,
    EVENT_NEED_EPOCH,
    EVENT_NO_LEADER,
    EVENT_PARKED,
    PARTITION_CRC32,
    PARTITION_CUSTOM,
    PARTITION_DEFAULT,
    PARTITION_MURMUR2,
    PARTITION_RANDOM,
    PARTITION_ROUND_ROBIN,
    PARTITION_STICKY,
)
from fastprod._pure.live import live_objects
from fastprod._pure.murmur2 import murmur2, partition_for_key
from fastprod._pure.placement import Placement
from fastprod._pure.plane import DataPlane
from fastprod._pure.produce import decode_produce_response, encode_produce_request
from fastprod._pure.record_batch import RecordBatchBuilder, decode_records
from fastprod._pure.send_arrow import ProducerBase
from fastprod._pure.varint import (
    decode_uvarint,
    decode_varint,
    decode_varlong,
    encode_uvarint,
    encode_varint,
    encode_varlong,
)

__all__ = [
    "EVENT_CONNECTION_LOST",
    "EVENT_NEED_CONNECTION",
    "EVENT_NEED_EPOCH",
    "EVENT_NO_LEADER",
    "EVENT_PARKED",
    "PARTITION_CRC32",
    "PARTITION_CUSTOM",
    "PARTITION_DEFAULT",
    "PARTITION_MURMUR2",
    "PARTITION_RANDOM",
    "PARTITION_ROUND_ROBIN",
    "PARTITION_STICKY",
    "DataPlane",
    "FutureRecordMetadata",
    "ParkedBatch",
    "Placement",
    "ProducerBase",
    "RecordBatchBuilder",
    "TopicRoute",
    "crc32c",
    "crc32c_combine",
    "crc32c_implementation",
    "decode_produce_response",
    "decode_records",
    "decode_uvarint",
    "decode_varint",
    "decode_varlong",
    "encode_produce_request",
    "encode_uvarint",
    "encode_varint",
    "encode_varlong",
    "linked_codecs",
    "live_objects",
    "murmur2",
    "partition_for_key",
]
