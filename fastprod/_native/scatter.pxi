# Many records at once: a chunk of them is shared out over the partitions, and each is locked once for its own.

cdef enum:
    CHUNK = 512             # records: what is gathered of them stays in the cache until it is encoded
    LONGEST_CHUNK = 4096
    HOLD = 65536             # bytes encoded at most while a partition's lock is held
    STICKY_TARGET = -1

cdef int64_t YIELD_AFTER = 5 * MILLISECOND   # as long as Python code keeps the interpreter beside others


cdef cppclass Chunk:
    vector[Record] records
    vector[int32_t] targets    # a record's partition, or STICKY_TARGET
    Py_ssize_t first           # of its records in the call
    vector[int32_t] next_      # the next record of the same partition, -1: none
    vector[int32_t] heads      # by partition: its first record, -1: none
    vector[int32_t] tails
    vector[int32_t] touched    # the partitions that have any


cdef inline void link(Chunk* chunk, int32_t at, int32_t target) noexcept nogil:
    if <size_t>target >= chunk.heads.size():
        chunk.heads.resize(target + 1, -1)
        chunk.tails.resize(target + 1, -1)
    if chunk.heads[target] < 0:
        chunk.heads[target] = at
        chunk.touched.push_back(target)
    else:
        chunk.next_[chunk.tails[target]] = at
    chunk.tails[target] = at
    chunk.next_[at] = -1


cdef int32_t fill_tail(Partition* partition, Chunk* chunk, int32_t at, int64_t quota, Placement placement,
                       int64_t* taken) noexcept nogil:
    """Append the records from `at` on to the open batch while it has room, for `quota` bytes or HOLD. The record that
    is next; -1: none is left. `taken`: gets how many bytes they are.

    The partition's lock is held."""
    cdef Batch* batch = partition.tail
    cdef Run run
    cdef size_t before, limit
    if batch == NULL:
        return at
    run.batch = batch
    run.first = batch.count
    before = batch.used
    limit = before + min(<size_t>quota, <size_t>HOLD)
    while at >= 0 and batch.used < limit:
        if put_in(partition, batch, &chunk.records[at]) == NO_ROOM:
            break
        placement.partitions[chunk.first + at] = partition.index
        at = chunk.next_[at]
    taken[0] = batch.used - before
    if BATCH_HEADER + batch.used >= batch.limit:
        close_tail(batch)
    run.count = batch.count - run.first
    if run.count:
        retain(batch)
        placement.runs.push_back(run)
    return at


cdef int32_t append_linked(DataPlane plane, Partition* partition, Chunk* chunk, int32_t at, cbool sticky,
                           Call call) except -2:
    """What `append` does for one record, for the record `at` and those linked to it. The first that is to be placed
    anew, because the sticky slot moved or the partition vanished; -1: all were appended."""
    cdef Core* core = plane.core
    cdef Topic* topic = partition.topic
    cdef Batch* fresh = NULL
    cdef int64_t quota = NEVER, taken, budget
    cdef int32_t begun, prepared = -1
    cdef cbool opened, full, stuck, closing = False, may_move = sticky
    while at >= 0:
        if sticky:
            quota = 2 * topic.quantum.load(memory_order_relaxed) - topic.sticky_produced.load(memory_order_relaxed)
            quota = max(quota, <int64_t>1)
        if fresh != NULL and prepared != at:
            # That record has found room elsewhere meanwhile. This one may be larger, and find none in an empty batch.
            release_held(fresh)
            fresh = NULL
        begun = at
        taken = 0
        opened = full = False
        if not partition.gate.try_longer():
            try:
                call.keep()
            except MemoryError:
                if fresh != NULL:
                    release_held(fresh)
                raise
            lock_contended(&partition.gate)
        closing = core.closing.load(memory_order_relaxed) != 0
        if closing or partition.vanished or (sticky and topic.sticky.load(memory_order_relaxed) != partition.index):
            partition.gate.unlock()
            break
        if fresh != NULL and partition.tail == NULL:
            open_batch(partition, fresh)
            fresh = NULL
            opened = True
            full = partition.queue.size() > 1   # the one before may leave
            may_move = sticky
        at = fill_tail(partition, chunk, at, quota, call.placement, &taken)
        stuck = partition.tail == NULL
        partition.gate.unlock()
        if full or (stuck and at != begun):
            wake(core)
        elif opened:
            wake_for_opened(core)
        if sticky and taken:
            count_sticky(topic, partition, taken)
        if at < 0 or not stuck:
            continue
        if may_move and sticky_should_move(topic):
            move_sticky(topic, partition.index)
            wake(core)   # the batch left behind may be full
            may_move = False
        elif fresh == NULL:
            if core.trashed.load(memory_order_relaxed):
                call.keep()   # what is destroyed may be anybody's
                empty_trash(core)
            budget = core.max_block
            fresh = prepare_batch(plane.core, partition, &chunk.records[at], &budget, call)
            prepared = at
    if fresh != NULL:
        release_held(fresh)
        wake(core)   # the batch that had no room may be full
    if at >= 0 and closing:
        raise failures.closed()
    return at
