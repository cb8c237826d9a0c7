# Topics, partitions, and the append: a record is encoded once, straight into the bytes that will be sent.


# --- Topics and partitions -----------------------------------------------------------------------------------------

cdef inline void activate(Partition* partition) noexcept nogil:
    """Make the partition known to the I/O thread. Its lock is held."""
    cdef Core* core = partition.topic.core
    if not partition.active:
        partition.active = True
        core.gate.lock()
        core.arrivals.push_back(partition)
        core.gate.unlock()


cdef Partition* new_partition(Topic* topic, int32_t index, PyObject* topic_name, PyObject* topic_partition,
                              PyObject* number) noexcept:
    cdef Partition* partition = new Partition()
    partition.topic = topic
    partition.index = index
    partition.tail = NULL
    partition.leader.store(-1)
    partition.queue_length.store(0)
    partition.topic_name = topic_name
    partition.topic_partition = topic_partition
    partition.number = number
    partition.last_capacity.store(SIZE_CLASS_MIN)
    partition.active = partition.vanished = False
    partition.retry_at = 0
    partition.last_ordinal = partition.stamps = 0
    partition.records_appended = partition.record_bytes = partition.record_size_max = 0
    forget_identity(partition)
    return partition


cdef void forget_identity(Partition* partition) noexcept nogil:
    partition.producer_id = -1
    partition.producer_epoch = -1
    partition.next_sequence = 0
    partition.last_acked_sequence = -1
    partition.last_acked_offset = -1
    partition.last_acked_ordinal = 0
    partition.fail_after = FAIL_NONE
    partition.proven_at = 0
    partition.unresolved = UNRESOLVED_NONE
    partition.unresolved_ordinal = partition.unresolved_first = 0
    partition.broken = False
    partition.forgetful = -1
    partition.asked_id = -1
    partition.asked_epoch = -1


cdef inline int64_t first_quantum(Core* core) noexcept nogil:
    """Never 0, as batch_size can be: a record must be able to stay where it was put."""
    return max(min(<int64_t>STICKY_QUANTUM, <int64_t>core.batch_size), <int64_t>1)


cdef Topic* new_topic(Core* core, string name) noexcept:
    cdef Topic* topic = new Topic()
    topic.core = core
    topic.route = NULL
    topic.name = name
    topic.in_use.store(0)
    topic.used.store(1)
    topic.leaderless_told.store(0)
    topic.sticky.store(-1)
    topic.sticky_produced.store(0)
    topic.sticky_since.store(0)
    topic.quantum.store(first_quantum(core))
    topic.rotation_at = 0
    topic.counter.store(<uint32_t>random_number())
    topic.wire_limit.store(0)
    return topic


cdef class TopicRoute:
    """What `send` knows of a topic: its partitions and the open batches in them."""
    cdef Topic* topic_
    cdef readonly str topic
    cdef readonly object topic_id
    cdef readonly object leaders
    cdef list partitions        # (TopicPartition, int) pairs that the structs borrow from
    cdef DataPlane plane

    @property
    def partition_count(self) -> int:
        """How many partitions the topic has."""
        return 0 if self.topic_ == NULL else self.topic_.partitions.size()

    def take_used(self) -> bool:
        """Whether a record was sent to the topic since this was last asked."""
        return self.topic_ != NULL and self.topic_.used.exchange(0) != 0

    def __dealloc__(self):
        cdef Partition* partition
        cdef size_t i
        if self.topic_ != NULL:
            for i in range(self.topic_.partitions.made()):
                partition = self.topic_.partitions[i]
                del partition
            del self.topic_


# --- Which partition -----------------------------------------------------------------------------------------------

cdef atomic[uint64_t] random_state
random_state.store(<uint64_t>now_ns() ^ <uint64_t>wall_ms())


cdef inline uint64_t random_number() noexcept nogil:
    """splitmix64: spreads load, guards nothing."""
    cdef uint64_t z = random_state.fetch_add(0x9E3779B97F4A7C15ULL, memory_order_relaxed)
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL
    return z ^ (z >> 31)


cdef void available_partitions(Topic* topic, vector[int]& out) noexcept nogil:
    """The partitions with a leader; all of them when none has one."""
    cdef size_t i
    for i in range(topic.partitions.size()):
        if topic.partitions[i].leader.load(memory_order_relaxed) >= 0:
            out.push_back(<int>i)
    if out.empty():
        for i in range(topic.partitions.size()):
            out.push_back(<int>i)


cdef int weighted_partition(Topic* topic, const vector[int]& choices) noexcept nogil:
    """A random partition, the likelier the shorter its queue (KIP-794); -1 when all queues are alike."""
    cdef vector[int] table
    cdef int longest = 0, shortest = INT32_MAX, length, total = 0
    cdef size_t i
    for i in range(choices.size()):
        length = topic.partitions[choices[i]].queue_length.load(memory_order_relaxed)
        longest = max(longest, length)
        shortest = min(shortest, length)
    if longest == shortest:
        return -1
    for i in range(choices.size()):
        total += longest + 1 - topic.partitions[choices[i]].queue_length.load(memory_order_relaxed)
        table.push_back(total)
    length = <int>(random_number() % <uint64_t>max(total, 1))
    for i in range(choices.size()):
        if table[i] > length:
            return choices[i]
    return choices.back()


cdef int next_in_rotation(Topic* topic, const vector[int]& choices) noexcept nogil:
    """Every available partition once, in random order, then again: uniform over minutes and over seconds."""
    cdef size_t i, j
    cdef int last = topic.sticky.load()
    cdef int chosen
    while topic.rotation_at < topic.rotation.size():
        chosen = topic.rotation[topic.rotation_at]
        topic.rotation_at += 1
        for i in range(choices.size()):
            if choices[i] == chosen and chosen != last:
                return chosen
    topic.rotation = choices
    for i in range(topic.rotation.size() - 1, 0, -1):
        j = random_number() % (i + 1)
        chosen = topic.rotation[i]
        topic.rotation[i] = topic.rotation[j]
        topic.rotation[j] = chosen
    if topic.rotation.size() > 1 and topic.rotation[0] == last:
        topic.rotation[0] = topic.rotation.back()
        topic.rotation[topic.rotation.size() - 1] = last
    topic.rotation_at = 1
    return topic.rotation[0]


cdef void move_sticky(Topic* topic, int from_partition) noexcept nogil:
    """Choose the next partition for keyless records, unless another thread just did."""
    cdef vector[int] choices
    cdef int chosen
    topic.gate.lock()
    if topic.sticky.load() == from_partition:
        available_partitions(topic, choices)
        chosen = weighted_partition(topic, choices)
        if chosen < 0:
            chosen = next_in_rotation(topic, choices)
        topic.sticky_produced.store(0, memory_order_relaxed)
        topic.sticky_since.store(now_ns(), memory_order_relaxed)
        topic.sticky.store(chosen)
    topic.gate.unlock()


cdef inline int sticky_partition(Topic* topic) noexcept nogil:
    cdef int chosen = topic.sticky.load(memory_order_acquire)
    if chosen < 0:
        move_sticky(topic, -1)
        chosen = topic.sticky.load()
    return chosen


cdef int round_robin_partition(Topic* topic) noexcept nogil:
    cdef vector[int] choices
    available_partitions(topic, choices)
    return choices[(topic.counter.fetch_add(1) & 0x7FFFFFFFU) % choices.size()]


cdef int random_partition(Topic* topic) noexcept nogil:
    cdef vector[int] choices
    available_partitions(topic, choices)
    return choices[random_number() % choices.size()]


# --- Append --------------------------------------------------------------------------------------------------------

cdef enum:
    APPENDED = 0
    NO_ROOM = 1            # a new batch is needed
    MOVED_ON = 2           # the sticky partition changed: choose again


cdef inline size_t partition_limit(Core* core, Topic* topic) noexcept nogil:
    cdef size_t limit = topic.wire_limit.load(memory_order_relaxed)
    return limit if limit and limit < core.batch_size else core.batch_size


cdef cbool grow(Batch* batch, size_t needed) noexcept nogil:
    """A larger buffer for the open batch, or False: nobody waits for memory under a partition's lock."""
    cdef Core* core = batch.core
    cdef size_t capacity = 0
    cdef unsigned char* larger = NULL
    core.pool_gate.lock()
    if core.memory_queue.empty():
        larger = try_memory(core, needed, max(needed, min(2 * batch.capacity, core.classes.back())), &capacity, False)
    core.pool_gate.unlock()
    if larger == NULL:
        return False
    memcpy(larger, batch.data, batch.used)
    return_memory(core, batch.data, batch.capacity)
    batch.data = larger
    batch.capacity = batch.charge = capacity
    return True


cdef inline void close_tail(Batch* batch) noexcept nogil:
    refuse_records(batch)
    batch.full = True
    if batch.codec and batch.core.compress == NULL and batch.used > COMPRESS_HERE:
        give_to_compressors(batch.core, batch)


cdef inline void count_append(Partition* partition, int64_t size) noexcept nogil:
    partition.records_appended += 1
    partition.record_bytes += size
    if size > partition.record_size_max:
        partition.record_size_max = size


cdef inline int put_in(Partition* partition, Batch* batch, Record* record) noexcept nogil:
    """Append to the open batch if it has room. The partition's lock is held."""
    cdef int64_t delta = 0
    cdef size_t body_size, size
    if batch.count:
        delta = <int64_t>(<uint64_t>record.timestamp - <uint64_t>batch.base_timestamp)
    body_size = record_body_size(record, delta, batch.count)
    size = body_size + varint_size(body_size)
    if batch.count and BATCH_HEADER + batch.used + size > batch.limit:
        close_tail(batch)
        return NO_ROOM
    if batch.used + size > batch.capacity and not grow(batch, batch.used + size):
        close_tail(batch)
        return NO_ROOM
    put_record(batch.data + batch.used, record, body_size, delta, batch.count)
    batch.used += size
    will_write(batch.data + batch.used)   # by the next append to this batch, many of others later, they are here
    if batch.count == 0:
        batch.base_timestamp = batch.max_timestamp = record.timestamp
    elif record.timestamp > batch.max_timestamp:
        batch.max_timestamp = record.timestamp
    batch.count += 1
    count_append(partition, size)
    return APPENDED


cdef inline int try_append(Partition* partition, Record* record, Batch** into,
                           atomic[uint32_t]* index) noexcept nogil:
    """Append to the tail batch if there is one with room. The partition's lock is held."""
    cdef Batch* batch = partition.tail
    if batch == NULL or put_in(partition, batch, record) == NO_ROOM:
        return NO_ROOM
    index.store(<uint32_t>(batch.count - 1), memory_order_relaxed)
    batch.lent += 1   # for the future
    into[0] = batch
    return APPENDED


cdef void open_batch(Partition* partition, Batch* batch) noexcept nogil:
    """Put a new, empty batch at the tail. The partition's lock is held."""
    cdef Core* core = partition.topic.core
    batch.created = now_ns()
    batch.limit = partition_limit(core, partition.topic)
    accept_records(batch)
    core.done_gate.lock()
    batch.flush_epoch = core.flush_epoch
    core.incomplete[batch.flush_epoch] += 1
    core.done_gate.unlock()
    partition.queue.push_back(batch)
    partition.queue_length.store(<int>partition.queue.size(), memory_order_relaxed)
    activate(partition)


cdef Batch* prepare_batch(Core* core, Partition* partition, Record* record, int64_t* budget, Call call) except NULL:
    """A new batch with memory for at least this record, got while no lock is held."""
    cdef Batch* batch
    cdef size_t capacity = 0
    cdef size_t size = record_body_size(record, 0, 0)
    cdef unsigned char* memory
    size += varint_size(size)
    memory = memory_in_turn(core, size, max(size, partition.last_capacity.load(memory_order_relaxed)), &capacity,
                            budget, call)
    if memory == NULL:
        raise failures.closed()
    batch = new_batch()
    batch.core = core
    batch.partition = partition
    batch.data = memory
    batch.capacity = batch.charge = capacity
    batch.codec = core.codec
    Py_INCREF(<DataPlane>core.plane)
    batch.plane = core.plane
    return batch


cdef inline cbool sticky_should_move(Topic* topic) noexcept nogil:
    """Whether a keyless record that needs a new batch moves on: after a quantum of bytes (KIP-794), or a while."""
    return (topic.sticky_produced.load(memory_order_relaxed) >= topic.quantum.load(memory_order_relaxed)
            or now_ns() - topic.sticky_since.load(memory_order_relaxed) > STICKY_HOLD)


cdef int append(Core* core, Partition* partition, Record* record, cbool sticky, int64_t* budget,
                atomic[Batch*]* into, atomic[uint32_t]* index) except -1:
    """Append one record; waits for memory for `budget` ns at most, all tries together. MOVED_ON: choose again, because
    the sticky slot moved or the partition vanished."""
    cdef Topic* topic = partition.topic
    cdef Batch* fresh = NULL
    cdef Batch* taker = NULL
    cdef int result
    cdef cbool opened, full, closing
    cdef cbool may_move = sticky
    while True:
        opened = full = False
        lock_detached(&partition.gate)
        closing = core.closing.load(memory_order_relaxed) != 0
        if closing or partition.vanished or (sticky and topic.sticky.load(memory_order_relaxed) != partition.index):
            partition.gate.unlock()
            if fresh != NULL:
                release_held(fresh)
                wake(core)   # the batch that had no room may be full
            if closing:
                raise failures.closed()
            return MOVED_ON
        result = try_append(partition, record, &taker, index)
        if result == NO_ROOM and may_move and sticky_should_move(topic):
            partition.gate.unlock()
            move_sticky(topic, partition.index)
            wake(core)   # the batch left behind may be full
            may_move = False
            continue
        if result == NO_ROOM and fresh != NULL:
            open_batch(partition, fresh)
            fresh = NULL
            opened = True
            full = partition.queue.size() > 1   # the one before may leave
            result = try_append(partition, record, &taker, index)
        if result == APPENDED and BATCH_HEADER + taker.used >= taker.limit:
            close_tail(taker)
            full = True
        partition.gate.unlock()
        if result == APPENDED:
            into.store(taker, memory_order_relaxed)   # nobody else knows the future yet
            if full:
                wake(core)
            elif opened:
                wake_for_opened(core)
            if fresh != NULL:
                release_held(fresh)
            if sticky:
                count_sticky(topic, partition, sticky_size(record))
            return APPENDED
        empty_trash(core)
        fresh = prepare_batch(core, partition, record, budget, None)


cdef inline int64_t sticky_size(Record* record) noexcept nogil:
    """What a keyless record counts for its stay in a partition."""
    return (max(record.key_size, <int64_t>0) + max(record.value_size, <int64_t>0)
            + <int64_t>record.headers_size + 7)


cdef inline void count_sticky(Topic* topic, Partition* partition, int64_t size) noexcept nogil:
    """At twice the quantum a keyless stream moves on even when it leaves a batch half filled (KIP-794)."""
    cdef int64_t produced = topic.sticky_produced.fetch_add(size, memory_order_relaxed) + size
    if produced >= 2 * topic.quantum.load(memory_order_relaxed):
        move_sticky(topic, partition.index)
