"""Numbers and names that the whole data plane shares. No behaviour."""

from __future__ import annotations

import struct
from typing import Final

# Offsets in a record batch, format v2 (Kafka protocol guide, "Record Batch").
BASE_OFFSET_AT: Final = 0
BATCH_LENGTH_AT: Final = 8
LEADER_EPOCH_AT: Final = 12
MAGIC_AT: Final = 16
CRC_AT: Final = 17
ATTRIBUTES_AT: Final = 21
LAST_OFFSET_DELTA_AT: Final = 23
BASE_TIMESTAMP_AT: Final = 27
MAX_TIMESTAMP_AT: Final = 35
PRODUCER_ID_AT: Final = 43
PRODUCER_EPOCH_AT: Final = 51
BASE_SEQUENCE_AT: Final = 53
RECORD_COUNT_AT: Final = 57
BATCH_HEADER: Final = 61

MAGIC: Final = 2
NO_LEADER_EPOCH: Final = -1

# Base offset, batch length, leader epoch, magic, CRC: everything that the CRC does not cover.
PREAMBLE: Final = struct.Struct(">qiibI")
# Attributes to record count: everything of the header that the CRC covers.
STAMP: Final = struct.Struct(">hiqqqhii")

# What a record takes at most beside its framed key, value and headers:
# length 5, attributes 1, timestamp delta 10, offset delta 5.
RECORD_OVERHEAD: Final = 5 + 1 + 10 + 5

# What a registered callback takes, its future included: as measured on CPython 3.11.
CALLBACK_SIZE: Final = 330

# Sequences count from 0 to 2**31 - 1 and then from 0 again (KIP-98).
SEQUENCE_MASK: Final = 0x7FFFFFFF

# A broker recognizes a resent batch among the last five that it wrote of the producer (KIP-98).
BATCHES_REMEMBERED: Final = 5

# What take_events() yields: the first item of each tuple.
EVENT_NEED_CONNECTION: Final = 1
EVENT_CONNECTION_LOST: Final = 2
EVENT_PARKED: Final = 3
EVENT_NO_LEADER: Final = 4
EVENT_NEED_EPOCH: Final = 5

# How a record without an explicit partition finds one.
PARTITION_DEFAULT: Final = 0
PARTITION_ROUND_ROBIN: Final = 1
PARTITION_STICKY: Final = 2
PARTITION_RANDOM: Final = 3
PARTITION_MURMUR2: Final = 4
PARTITION_CRC32: Final = 5
PARTITION_CUSTOM: Final = 6

# The error codes with which the data plane itself reports a lost connection (Kafka protocol
# guide, "Error Codes").
REQUEST_TIMED_OUT: Final = 7
NETWORK_EXCEPTION: Final = 13

# Memory for batches is charged by size class: powers of two from here up to the batch size.
SIZE_CLASS_MIN: Final = 1024

# Every blocking wait wakes this often, so that Ctrl-C and other signals are served (seconds).
SIGNAL_SLICE: Final = 0.05

# The sticky slot of a topic (KIP-794): first quantum in bytes, longest stay in seconds.
STICKY_QUANTUM: Final = 16384
STICKY_HOLD: Final = 0.25

# With linger 0 and something in flight, a partial batch waits for this part of the measured
# round trip, but never longer than this many seconds.
CLOCK_PART: Final = 1 / 8
CLOCK_MAX: Final = 0.0005
# A request of at least so many records says that they come in a stream.
STREAM: Final = 16
# A stream spread over many partitions leaves at longer distances: so many seconds a batch of the
# last request, and at most so many.
PAUSE_A_BATCH: Final = 0.00002
LONGEST_PAUSE: Final = 0.01

# A broker may forget what it knows of an idle producer; after this many seconds without an
# acknowledgement a partition sends one batch alone before it fills its window again.
PROOF_SECONDS: Final = 60.0

# Callbacks of one batch that take longer than this many seconds are logged.
SLOW_CALLBACKS: Final = 1.0
