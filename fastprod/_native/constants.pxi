# Names and numbers that everything below shares.

# Offsets in a record batch, format v2 (Kafka protocol guide, "Record Batch").
cdef enum:
    BASE_OFFSET_AT = 0
    BATCH_LENGTH_AT = 8
    LEADER_EPOCH_AT = 12
    MAGIC_AT = 16
    CRC_AT = 17
    ATTRIBUTES_AT = 21
    LAST_OFFSET_DELTA_AT = 23
    BASE_TIMESTAMP_AT = 27
    MAX_TIMESTAMP_AT = 35
    PRODUCER_ID_AT = 43
    PRODUCER_EPOCH_AT = 51
    BASE_SEQUENCE_AT = 53
    RECORD_COUNT_AT = 57
    BATCH_HEADER = 61
    # What a record takes at most beside its framed key, value and headers (their count included):
    # length 5, attributes 1, timestamp delta 10, offset delta 5.
    RECORD_OVERHEAD = 21

# What take_events() yields.
cdef enum:
    C_NEED_CONNECTION = 1
    C_CONNECTION_LOST = 2
    C_PARKED = 3
    C_NO_LEADER = 4
    C_NEED_EPOCH = 5

EVENT_NEED_CONNECTION = C_NEED_CONNECTION
EVENT_CONNECTION_LOST = C_CONNECTION_LOST
EVENT_PARKED = C_PARKED
EVENT_NO_LEADER = C_NO_LEADER
EVENT_NEED_EPOCH = C_NEED_EPOCH

cdef enum:
    C_DEFAULT = 0
    C_ROUND_ROBIN = 1
    C_STICKY = 2
    C_RANDOM = 3
    C_MURMUR2 = 4
    C_CRC32 = 5
    C_CUSTOM = 6

PARTITION_DEFAULT = C_DEFAULT
PARTITION_ROUND_ROBIN = C_ROUND_ROBIN
PARTITION_STICKY = C_STICKY
PARTITION_RANDOM = C_RANDOM
PARTITION_MURMUR2 = C_MURMUR2
PARTITION_CRC32 = C_CRC32
PARTITION_CUSTOM = C_CUSTOM

# Error codes the data plane itself reports for a lost connection (Kafka protocol guide, "Error Codes").
cdef enum:
    REQUEST_TIMED_OUT = 7
    NETWORK_EXCEPTION = 13

# How a batch ended. The exception of a failure that the I/O thread decides is built when somebody looks.
cdef enum:
    PENDING = 0
    SUCCEEDED = 1
    FAILED = 2        # with a Python exception
    EXPIRED = 3       # by delivery_timeout_ms
    OUT_OF_ORDER = 4  # strict_order, behind a failed batch
    VANISHED = 5      # its partition is gone
    SPLIT = 6         # its records live on in children
    BY_HAND = 8       # as FAILED; FutureRecordMetadata.failure()
    INHERITED = 7     # never stored: what a batch looks like that was on its way when this process was forked

# Round trips are counted in buckets that grow with them, eight to a doubling: the first 16 are a microsecond wide, the
# last takes what lasted longer (four minutes). fastprod/stats.py knows the bounds.
cdef enum:
    LATENCY_BUCKETS = 208

# Where a batch stands with its delivery callbacks.
cdef enum:
    CALLBACKS_OPEN = 0      # not ended: registered ones are kept
    CALLBACKS_DUE = 1       # ended: the control thread runs what is kept, and what still comes
    CALLBACKS_FINISHED = 2  # none left: later ones run inline

# Where a batch stands with the threads that compress.
cdef enum:
    NOT_GIVEN = 0
    GIVEN = 1
    BUSY = 2                # one of them reads and writes its bytes
    COMPRESSED = 3
    DROPPED = 4             # ended while it was BUSY: who compresses gives its bytes back

cdef enum:
    # Fewer bytes than this are compressed by the I/O thread: that is sooner done than another thread is awake. In one
    # pass it compresses no more than this in all.
    COMPRESS_HERE = 16384
    COMPRESSORS_MOST = 4
    SOCKETS_SHOWN = 64
    RECENT_TOPICS = 256     # a power of two
    UNRESOLVED_NONE = -1
    ORDINAL_SPAN_BITS = 32
    # A broker recognizes a producer's last five batches in a partition when they come again (KIP-98).
    BATCHES_REMEMBERED = 5
    # More references than a batch has records.
    LENT = 1 << 30
    # What the I/O thread has to look at (bits): batches that were opened, or anything at all.
    OPENED = 1
    ANYTHING = 2
    # It waits for whatever comes, or until a time before which no batch that is opened now would leave.
    SLEEPS = 1
    PAUSES = 2
    SIZE_CLASS_MIN = 1024
    STICKY_QUANTUM = 16384
    RETRIES_UNBOUNDED = 2147483647

cdef int64_t MILLISECOND = 1000000
cdef int64_t SECOND = 1000000000
cdef int64_t NEVER = INT64_MAX
cdef uint64_t FAIL_NONE = 0xFFFFFFFFFFFFFFFFULL
# A blocking wait looks for signals this often.
cdef int64_t SIGNAL_SLICE = 50 * MILLISECOND
# The share of the round trip, and the bound, for which a partial batch waits while another is in flight.
cdef int64_t CLOCK_SHARE = 8
cdef int64_t CLOCK_BOUND = 500000
# A request of at least so many records says that they come in a stream.
cdef int64_t STREAM = 16
# A stream spread over many partitions leaves at longer distances: so much a batch of the last request, at most that.
cdef int64_t PAUSE_A_BATCH = 20000
cdef int64_t LONGEST_PAUSE = 10 * MILLISECOND
# A keyless stream moves on after this long even when it has not filled its quantum.
cdef int64_t STICKY_HOLD = 250 * MILLISECOND
# The broker may forget a quiet producer; after this long the next batch goes alone again.
cdef int64_t PROOF_LASTS = 60 * SECOND
