# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
# distutils: language = c++
"""The compiled data plane: the table of contents of one compiled unit, in order of dependence.

Its readable twin is `fastprod._pure`, with the same names; what both mean is told in DESIGN.md.
"""

include "_native/imports.pxi"
include "_native/constants.pxi"
include "_native/layout.pxi"
include "_native/endian.pxi"
include "_native/varint.pxi"
include "_native/murmur2.pxi"
include "_native/crc32c.pxi"
include "_native/record_batch.pxi"
include "_native/produce.pxi"
include "_native/codecs.pxi"
include "_native/drain.pxi"
include "_native/outbox.pxi"
include "_native/live.pxi"
include "_native/delivery.pxi"
include "_native/future.pxi"
include "_native/callbacks.pxi"
include "_native/wakeup.pxi"
include "_native/pool.pxi"
include "_native/accumulator.pxi"
include "_native/compressors.pxi"
include "_native/io_loop.pxi"
include "_native/parked.pxi"
include "_native/ends.pxi"
include "_native/verdicts.pxi"
include "_native/partitions.pxi"
include "_native/counters.pxi"
include "_native/plane.pxi"
include "_native/stats.pxi"
include "_native/placement.pxi"
include "_native/scatter.pxi"
include "_native/send.pxi"
include "_native/send_many.pxi"
include "_native/arrow.pxi"
include "_native/arrow_cells.pxi"
include "_native/send_arrow.pxi"

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
