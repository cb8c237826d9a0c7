# Structures that everything below shares. No behaviour.

cdef cppclass Topic
cdef cppclass Partition
cdef cppclass Batch
cdef cppclass Outbox
cdef cppclass Core


# Counters apart, so that who reads them can copy them under the lock and build Python objects without it.
cdef cppclass Totals:
    double records_ended
    double bytes_ended
    double batches_sent
    double batch_bytes
    double batch_size_max
    double uncompressed_bytes
    double compressed_bytes
    double records_sent
    double records_acked
    double records_failed
    double records_retried
    double records_in_flight
    double bytes_acked         # these four: encoded, before compression, without the batch's header
    double bytes_failed
    double bytes_retried
    double bytes_in_flight
    double queue_time
    double queue_time_max
    double connections_opened
    double connections_closed
    double request_size_max
    double latency_max
    double throttle_max


cdef cppclass TopicTotals:
    double batches_sent
    double largest_batch       # on the wire
    double records_sent
    double batch_bytes
    double uncompressed_bytes
    double compressed_bytes
    double records_retried
    double records_failed


cdef cppclass NodeTotals:
    double requests
    double responses
    double request_bytes
    double request_size_max
    double response_bytes
    double latency
    double latency_max
    double throttle
    double throttle_max
    uint64_t latency_buckets[LATENCY_BUCKETS]


cdef struct Facts:
    # What RecordMetadata says of a record that its batch does not know.
    int64_t timestamp
    int32_t index          # in the batch
    int32_t key_size       # -1: None; so the others
    int32_t value_size
    int32_t header_size


cdef cppclass CallbackEntry:
    # One registered callback. The references are owned; the future is not needed, and mostly gone.
    PyObject* function
    PyObject* extra    # (args, kwargs), NULL: none
    Facts facts
    int32_t kind       # 0 callback, 1 errback, 2 both
    cbool reads        # getting the error makes it read: the first errback of a record


cdef cppclass Child:
    int32_t first
    Batch* batch


cdef cppclass Batch(cache_line):
    # What an append needs, in one cache line. Records lie in `data` from offset 61 of the batch on: a header is written
    # anew for each transmission.
    unsigned char* data
    size_t capacity
    size_t used
    size_t limit               # uncompressed size, header included, up to which it takes records
    int64_t base_timestamp
    int64_t max_timestamp
    int32_t count
    int32_t lent               # so many references were taken out of LENT
    int codec
    cbool accepts              # still the tail that appends go to
    cbool full
    cbool split_product
    cbool sealed
    # What futures and callbacks need, in the next one.
    atomic[int] refs           # while it accepts records: and LENT, from which each append takes one
    atomic[int] outcome
    Core* core
    Partition* partition
    latch gate                 # guards callbacks, and changes of error and callback_state
    atomic[int] callback_state
    vector[CallbackEntry] callbacks
    size_t entries_charge      # bytes of `callbacks`, counted as owed
    atomic[int] waiters
    atomic[int] unread         # records that failed and whose error nobody has seen
    PyObject* plane            # owned: keeps core and partition alive as long as somebody may look at this batch
    atomic[PyObject*] error    # owned
    PyObject* record_errors    # owned dict or NULL
    PyObject* value            # owned: what a future was given by hand (FutureRecordMetadata.success)
    size_t charge              # bytes taken from the pool's budget
    size_t raw_size            # used before compression
    int64_t created            # monotonic ns
    int64_t flush_epoch
    atomic[int] compressing    # NOT_GIVEN, ...
    uint32_t body_crc
    # The stamp: ordinal 0 = never drained, producer_id -1 = none.
    uint64_t ordinal
    uint64_t span              # ordinals from here to the next batch's: children of a split share them out
    uint64_t place             # how many stamps its partition had given before
    int64_t producer_id
    int16_t producer_epoch
    int32_t base_sequence
    int attempts
    int last_error
    int last_node              # the broker of the last attempt
    int leader                 # of the partition when it failed
    cbool reached              # the last attempt was handed to a socket in full
    cbool unknown              # an earlier attempt may be in the log
    cbool doubted              # is unknown, or was: what a broker said since is true of that moment
    cbool settled              # left when its leader had denied what may be in the log, and a while had passed
    cbool ended                # outcome is set (under the partition's lock)
    cbool in_request           # a request still refers to its bytes
    cbool in_flight            # counted as in flight (under core.gate)
    # The outcome.
    int64_t base_offset
    int64_t log_append_time
    double elapsed_ms
    cbool maybe_written
    cbool throttled            # its leader had asked for a pause when it expired
    vector[Child] children     # written before outcome becomes SPLIT


cdef cppclass Acknowledged:
    # An answer that a batch is in the log, and what is to be done about it.
    Batch* batch
    int64_t base_offset
    int64_t log_append_time
    cbool claimed              # it had not ended before
    cbool due                  # it has callbacks


cdef cppclass Partition(cache_line):
    # What an append needs, in one cache line.
    latch gate
    cbool active               # known to the I/O thread
    cbool vanished
    int32_t index
    Topic* topic
    Batch* tail                # the last of the queue while it accepts records, or NULL
    int64_t records_appended   # counters
    int64_t record_bytes       # as they lie in batches
    int64_t record_size_max
    atomic[int] queue_length
    atomic[int] leader
    atomic[size_t] last_capacity   # looked at by senders before they take the lock
    deque[Batch*] queue        # stamped ones first, by ordinal; the tail may accept appends
    vector[Batch*] in_flight   # by ordinal
    vector[Batch*] parked
    PyObject* topic_name       # these three are borrowed from the route
    PyObject* topic_partition
    PyObject* number
    int64_t retry_at
    # Idempotence.
    int64_t producer_id
    int16_t producer_epoch
    int32_t next_sequence
    int32_t last_acked_sequence
    int64_t last_acked_offset
    uint64_t last_acked_ordinal
    int64_t proven_at          # 0: no batch acknowledged yet under this identity
    uint64_t last_ordinal      # of the newest stamp
    uint64_t stamps            # given so far
    int32_t unresolved         # the sequence after the last batch whose fate is not known, or -1
    uint64_t unresolved_ordinal
    uint64_t unresolved_first  # of the oldest such one
    cbool broken               # there is a gap: nothing goes under this identity but what may be in the log already
    int forgetful              # the broker that did not recognize what may be in its log; -1: none
    int64_t asked_id           # the identity for which a newer one was asked
    int16_t asked_epoch
    uint64_t fail_after        # strict_order: stamped batches after this ordinal fail unless they succeeded


cdef cppclass Topic:
    Core* core
    PyObject* route            # borrowed from `DataPlane.known`
    string name
    string id                  # 16 bytes, or empty
    partition_table[Partition] partitions   # hidden: of a topic that was made anew with fewer
    atomic[int] in_use         # it is in `routes`
    atomic[int] used           # stored only where it changes: senders on other cores read what lies beside it
    atomic[int] leaderless_told
    # The sticky slot and the round-robin counter.
    mutex gate
    atomic[int] sticky
    atomic[int64_t] sticky_produced
    atomic[int64_t] sticky_since
    atomic[int64_t] quantum
    vector[int] rotation
    size_t rotation_at
    atomic[uint32_t] counter
    atomic[size_t] wire_limit
    TopicTotals totals         # under core.gate


cdef cppclass Segment:
    const unsigned char* data
    size_t size


cdef cppclass Request:
    int32_t correlation_id
    int version
    vector[Batch*] batches
    vector[string] topic_ids        # as they were when the request was built, one a batch; version 13 only
    vector[unsigned char] head      # everything but the bodies
    vector[Segment] segments        # what goes to the socket, in order
    size_t segment_at
    size_t segment_offset
    size_t size
    int64_t sent_at
    int64_t deadline


cdef cppclass Outbox:
    # What one broker is to be sent, and its connection while there is one. The I/O thread's alone.
    int node
    int fd                          # -1: none
    int version
    cbool connection_asked
    cbool connecting
    deque[Request*] in_flight
    Request* writing
    vector[unsigned char] inbox
    size_t inbox_used
    int32_t next_correlation_id
    int64_t throttled_until
    int64_t round_trip
    int64_t last_write
    int64_t pause_until             # no partial batch of a stream leaves before
    cbool held                      # there is, or may be, a batch that waits for an answer, not for the time
    int64_t last_use
    vector[Partition*] partitions
    size_t rotate
    NodeTotals totals               # under core.gate
    atomic[int] unanswered


cdef cppclass Event:
    int kind
    int node
    int code
    Topic* topic
    Partition* partition
    Batch* batch                    # holds a reference
    string text
    # Of a parked batch: the answer.
    cbool has_text
    int64_t log_start_offset
    vector[pair[int32_t, string]] record_errors
    cbool has_hint
    int32_t hint_node
    int32_t hint_epoch
    string hint_host
    int32_t hint_port
    int64_t producer_id
    int16_t producer_epoch


cdef cppclass Command:
    int kind                        # COMMAND_*
    int node
    int fd
    int version
    string reason


cdef enum:
    COMMAND_ATTACH = 1
    COMMAND_DETACH = 2
    COMMAND_FAILED = 3


cdef struct Sealed:
    # What a body has become.
    size_t size
    int codec
    uint32_t crc


cdef cppclass Compressor:
    # What one thread compresses with: its library's tables, and room for a compressed batch.
    void* state
    unsigned char* out
    size_t room


cdef cppclass Core:
    # Options.
    string client_id
    int acks
    atomic[int] idempotent
    cbool strict_order
    size_t batch_size
    size_t memory_limit
    size_t max_request_size
    size_t record_limit             # the smaller of the two
    size_t receive_max
    int64_t linger
    int64_t max_block
    int64_t request_timeout
    int64_t delivery_timeout
    int64_t max_idle
    int retries
    int max_in_flight
    int codec
    PyObject* plane                 # its owner
    PyObject* compress              # borrowed from the plane; NULL: the codec is linked
    int level                       # for a linked codec
    int event_fd
    int wake_read
    int wake_write
    # Memory.
    mutex pool_gate
    condition_variable pool_freed
    size_t charged
    size_t cached
    size_t owed                     # bytes of ended batches whose callbacks have not run
    vector[size_t] classes
    vector[vector[void*]] spare
    uint64_t pool_changes           # counts what may let a sender that waits for memory go on
    deque[uint64_t] memory_queue
    uint64_t memory_ticket
    atomic[int] memory_waiters
    atomic[Topic*] recent[RECENT_TOPICS]   # what was looked up in `routes` last, by a few bits of the hash
    # What the threads hand to each other.
    mutex gate
    vector[Partition*] arrivals
    vector[Command] commands
    vector[Event] events
    deque[Batch*] due               # ended, callbacks to run; holds a reference
    vector[Batch*] trash            # last reference dropped without the interpreter
    atomic[int] trashed             # there is some
    atomic[int] work                # OPENED, ANYTHING
    atomic[int] sleeping            # SLEEPS, PAUSES
    atomic[int] told                # a byte lies in event_fd
    atomic[int] stopping
    atomic[int] closing             # no appends
    atomic[int] routes_changed
    # This process is a forked child, and the threads of this core are not here: whoever held its locks holds them for
    # good. Nothing of it is touched any more but what is atomic.
    atomic[int] forked
    atomic[int] sockets[SOCKETS_SHOWN]   # the connections, for a forked child to close; -1: none
    atomic[int] old_arrived         # batches that were not looked at may be due to expire
    atomic[int64_t] flush_target    # batches of this epoch or older leave now
    # Ends.
    mutex done_gate
    condition_variable done
    atomic[int] flush_waiters
    int64_t flush_epoch
    unordered_map[int64_t, int64_t] incomplete   # batches not done, by epoch
    # Identity as the control plane set it, under gate: an id must never be seen with the epoch of another.
    int64_t told_id
    int16_t told_epoch
    # The I/O thread's alone; the identity is taken over at the beginning of a pass.
    int64_t producer_id
    int16_t producer_epoch
    vector[Partition*] active
    unordered_map[int, Outbox*] outboxes
    vector[Outbox*] outbox_list     # the same, under gate, for whoever reads the counters
    vector[Partition*] homeless
    Compressor compressor
    size_t compressed_here          # bytes, in this pass
    # What is given to the threads that compress; each holds a reference.
    mutex compress_gate
    condition_variable compress_more
    deque[Batch*] to_compress
    atomic[int] compressing         # batches that are given and not compressed
    int64_t next_expiry
    uint64_t next_ordinal
    Totals totals                   # under gate; the appenders' own are in their partitions
    # Failures that nobody has seen: all, and those whose futures are gone; one of the latter (owned, under gate).
    atomic[int64_t] unread
    atomic[int64_t] unread_dropped
    PyObject* unread_example
