# Verdicts after which a batch goes on: sent again as it is, or split into several.

cdef inline size_t place_of(Batch* batch) noexcept nogil:
    """Where in its partition's queue a stamped batch belongs: by its ordinal, before all that have none."""
    cdef Partition* partition = batch.partition
    cdef size_t at = 0
    while at < partition.queue.size() and partition.queue[at].ordinal \
            and partition.queue[at].ordinal < batch.ordinal:
        at += 1
    return at


cdef int send_again(Batch* batch, int64_t delay, bint unknown, bint renumber, int node) except -1:
    """Put a parked batch back into its queue, to leave `delay` ns from now at the earliest; end it instead where it may
    not be sent again. `node`: the broker whose answer the verdict is about."""
    cdef Partition* partition = batch.partition
    cdef size_t at
    cdef int outcome = PENDING
    lock_detached(&partition.gate)
    if batch.ended or partition.vanished:
        outcome = VANISHED
    elif batch.producer_id >= 0 and batch.ordinal > partition.fail_after:
        outcome = OUT_OF_ORDER
    if outcome == PENDING:
        remove_from(partition.parked, batch)
        batch.unknown = unknown
        batch.doubted = batch.doubted or unknown
        batch.reached = False   # `unknown` says all there is to say about the attempts so far
        partition.retry_at = max(partition.retry_at, now_ns() + delay)
        at = place_of(batch)
        partition.queue.insert(partition.queue.begin() + at, batch)
        partition.queue_length.store(<int>partition.queue.size())
        if renumber:
            partition.broken = True
            partition.forgetful = node if unknown else partition.forgetful
        elif batch.last_error == NETWORK_EXCEPTION or batch.last_error == REQUEST_TIMED_OUT:
            # This attempt may lie unread as well. A broker says 7 itself, too; asking once more is no harm.
            partition.forgetful = -1
        activate(partition)
    partition.gate.unlock()
    if outcome != PENDING:
        end_parked(batch, outcome, None, None, unknown)
    return 0


cdef int split_up(Batch* batch, list groups) except -1:
    """Replace a parked batch by one a group of decoded records, in order, in its old place. What raises has changed
    nothing."""
    cdef Core* core = batch.core
    cdef Partition* partition = batch.partition
    cdef vector[Child] children
    cdef size_t i, at
    cdef bint claimed
    # Claimed before anything else: from now on the clock lets it be.
    lock_detached(&partition.gate)
    claimed = not batch.ended
    batch.ended = True
    partition.gate.unlock()
    if not claimed:
        return end_parked(batch, FAILED, None, None, batch.unknown)
    try:
        make_children(batch, groups, children)
    except BaseException:
        for i in range(children.size()):
            release_held(children[i].batch)
        lock_detached(&partition.gate)
        batch.ended = False
        partition.gate.unlock()
        raise
    hand_down(batch, children)
    lock_detached(&partition.gate)
    # Only now: while it is parked nothing that belongs behind it can leave.
    remove_from(partition.parked, batch)
    partition.stamps += children.size() - 1   # the broker will remember each of them
    at = place_of(batch)
    for i in range(children.size()):
        partition.queue.insert(partition.queue.begin() + at + i, children[i].batch)
    partition.queue_length.store(<int>partition.queue.size())
    activate(partition)
    # The clock let the parent be: its children may be overdue.
    core.old_arrived.store(1)
    partition.gate.unlock()
    free_body(batch)
    release_held(batch)
    return 0


cdef int make_children(Batch* parent, list groups, vector[Child]& children) except -1:
    """Encode each group anew. Memory is charged past the budget if need be: the parent's is about to be freed."""
    cdef RecordBatchBuilder builder
    cdef Batch* batch
    cdef Child child
    cdef unsigned char* memory
    cdef int32_t first = 0
    cdef size_t size, n = len(groups), i = 0
    if not all(groups) or sum(map(len, groups)) != parent.count:
        raise ValueError(f"a batch of {parent.count} records cannot be split into {list(map(len, groups))}")
    for group in groups:
        builder = RecordBatchBuilder(INT32_MAX)
        for timestamp, key, value, headers in group:
            builder.append(timestamp, key, value, headers)
        size = builder.body.size()
        memory = <unsigned char*>malloc(max(size, <size_t>1))
        if memory == NULL:
            raise MemoryError
        live_buffers.fetch_add(1, memory_order_relaxed)
        batch = new_batch()
        batch.core = parent.core
        batch.partition = parent.partition
        Py_INCREF(<object>parent.plane)
        batch.plane = parent.plane
        batch.data = memory
        memcpy(batch.data, builder.body.data(), size)
        batch.capacity = batch.charge = batch.used = size
        parent.core.pool_gate.lock()
        parent.core.charged += size
        parent.core.pool_gate.unlock()
        batch.count = builder.records
        batch.base_timestamp = builder.base_timestamp
        batch.max_timestamp = builder.max_timestamp
        batch.created = parent.created
        batch.flush_epoch = parent.flush_epoch
        batch.codec = parent.core.codec
        batch.split_product = True
        batch.unknown = parent.unknown
        batch.doubted = parent.doubted
        batch.span = max(parent.span // n, <uint64_t>1)
        batch.ordinal = parent.ordinal + i * batch.span
        batch.producer_id = parent.producer_id
        batch.producer_epoch = parent.producer_epoch
        batch.place = parent.place
        if parent.producer_id >= 0:
            batch.base_sequence = <int32_t>((<uint32_t>parent.base_sequence + <uint32_t>first) & 0x7FFFFFFFU)
        child.first = first
        child.batch = batch
        children.push_back(child)
        first += batch.count
        i += 1
    return 0


cdef void hand_down(Batch* parent, vector[Child]& children) noexcept:
    """Let futures, callbacks and waiters of the parent look at the children. They are in no queue yet, so none
    can end before everything is in place."""
    cdef Core* core = parent.core
    cdef CallbackEntry entry
    cdef Batch* batch
    cdef size_t i, encoded = 0
    core.done_gate.lock()
    core.incomplete[parent.flush_epoch] += children.size()
    core.done_gate.unlock()
    for i in range(children.size()):
        encoded += children[i].batch.used
    core.gate.lock()
    # Encoded anew they take another number of bytes, which will be counted as ended.
    core.totals.bytes_ended += <double>parent.raw_size - <double>encoded
    core.gate.unlock()
    parent.gate.lock()
    for i in range(children.size()):
        retain(children[i].batch)
        parent.children.push_back(children[i])
    for i in range(parent.callbacks.size()):
        entry = parent.callbacks[i]
        batch = child_with(parent, &entry.facts.index)
        batch.callbacks.push_back(entry)
        charge_entries(batch)
    parent.callbacks.clear()
    parent.outcome.store(SPLIT)   # only now: whoever sees it goes to the children
    parent.callback_state.store(CALLBACKS_FINISHED)
    parent.gate.unlock()
    pay_back(parent, 0)
    settle(parent)
