# Which batch may leave, and as what: readiness, order, idempotence, and the stamp.

cdef int32_t last_sequence(Batch* batch) noexcept nogil:
    return <int32_t>((<uint32_t>batch.base_sequence + <uint32_t>batch.count - 1) & 0x7FFFFFFFU)


cdef void adopt_identity(Core* core, Partition* partition) noexcept nogil:
    """Start at sequence 0 under the producer's current id and epoch; what was stamped before is unwritten for sure
    and will be stamped anew, in the same order."""
    cdef size_t i
    for i in range(partition.queue.size()):
        if partition.queue[i].producer_id < 0:
            break
        partition.queue[i].producer_id = -1
        partition.queue[i].producer_epoch = -1
        partition.queue[i].base_sequence = -1
        partition.queue[i].unknown = False
    forget_identity(partition)
    partition.producer_id = core.producer_id
    partition.producer_epoch = core.producer_epoch


cdef void ask_for_epoch(Core* core, Partition* partition) noexcept nogil:
    cdef Event event
    if partition.asked_id == partition.producer_id and partition.asked_epoch == partition.producer_epoch:
        return
    partition.asked_id = partition.producer_id
    partition.asked_epoch = partition.producer_epoch
    clear_event(&event, C_NEED_EPOCH)
    event.topic = partition.topic
    event.partition = partition
    event.producer_id = partition.producer_id
    event.producer_epoch = partition.producer_epoch
    push_event(core, event)


cdef inline cbool denied(Partition* partition) noexcept nogil:
    """Whether its leader did not recognize what may be in its log, so that a pause was made."""
    return partition.forgetful >= 0 and partition.forgetful == partition.leader.load()


cdef size_t place_that_may_leave(Core* core, Partition* partition, int64_t now,
                                 vector[Batch*]& behind) noexcept nogil:
    """The place in the queue of the batch that the rules of idempotence let leave next, or the queue's size.

    The partition's lock is held, its queue is not empty, nothing is parked. `behind`: gets those that strict_order lets
    fail now.
    """
    cdef size_t none = partition.queue.size(), found = none, i
    cdef Batch* head = partition.queue.front()
    cdef cbool idle = partition.in_flight.empty()
    cdef cbool current = (partition.producer_id == core.producer_id and
                          partition.producer_epoch == core.producer_epoch)
    if core.producer_id < 0:
        return none
    if partition.broken:
        if not idle:
            return none
        # A batch that may be in the log goes first, under its old stamp: only then is its fate known. A broker that
        # was started again may recognize the last one alone, so there they go from the last to the first.
        for i in range(partition.queue.size()):
            if partition.queue[i].producer_id >= 0 and partition.queue[i].unknown:
                if found == none or not partition.queue[i].split_product:   # a part is recognized by none
                    found = i
                if not denied(partition):
                    break
        if found != none:
            return found
        if core.strict_order and partition.unresolved != UNRESOLVED_NONE:
            # It is not in the log, or nobody will know any more: it has failed for good.
            take_behind(partition, partition.unresolved_first, behind)
            if partition.queue.empty():
                return 0
            none = partition.queue.size()
        if current:
            ask_for_epoch(core, partition)
            return none
        adopt_identity(core, partition)
        return 0
    if head.producer_id >= 0:
        # A stamped batch leaves when it is the oldest without an answer: who retries catches up one by one.
        return 0 if idle or head.ordinal < partition.in_flight[0].ordinal else none
    if partition.unresolved != UNRESOLVED_NONE or not current:
        if not idle:
            return none
        if current:
            ask_for_epoch(core, partition)
            return none
        adopt_identity(core, partition)
        return 0
    if idle:
        return 0
    if partition.proven_at == 0 or now - partition.proven_at > PROOF_LASTS:
        return none
    # However many later ones were acknowledged meanwhile: a batch that the broker wrote six batches ago is no longer
    # recognized when it is resent, and what is in the log would be taken for refused.
    return 0 if partition.stamps - partition.in_flight[0].place < BATCHES_REMEMBERED else none


cdef int64_t clock_due(Core* core, Outbox* outbox, Batch* batch) noexcept nogil:
    """When a partial batch leaves behind requests without an answer."""
    cdef int64_t due = batch.created + min(outbox.round_trip // CLOCK_SHARE, CLOCK_BOUND)
    if 2 * outbox.in_flight.size() <= <size_t>core.max_in_flight:
        return due
    # Requests are what is scarce now. A stream would use up the last ones within a small part of a long round trip,
    # and wait for the rest of it; so they leave at even distances.
    return max(due, outbox.last_write + outbox.round_trip // core.max_in_flight)


cdef int64_t pause_after(Core* core, Request* request, int64_t now) noexcept nogil:
    """Until when partial batches wait after this request, however idle the connection is."""
    cdef int64_t records = 0
    cdef size_t i
    if core.linger > 0:
        return 0
    for i in range(request.batches.size()):
        records += request.batches[i].count
    # A broker that answers at once would get a stream of records a few at a time. Without answers the socket is the
    # clock.
    if records < STREAM and core.acks:
        return 0
    return now + min(max(CLOCK_BOUND, <int64_t>request.batches.size() * PAUSE_A_BATCH), LONGEST_PAUSE)


cdef inline cbool pauses(Core* core, Outbox* outbox, int64_t now) noexcept nogil:
    """Whether nothing that is only opened now could leave for this broker: its queues need not be looked at unless
    there is ANYTHING else."""
    return (now < outbox.pause_until and not outbox.held and not core.closing.load()
            and not core.memory_waiters.load() and not core.flush_waiters.load())


cdef cbool is_ready(Core* core, Partition* partition, Outbox* outbox, Batch* batch, int64_t now,
                    int64_t* when) noexcept nogil:
    """Whether a batch that was never sent may leave now; else `when` is lowered to the time it may."""
    cdef int64_t due
    if (not batch.accepts or partition.queue.size() > 1 or core.closing.load() or core.memory_waiters.load()
            or batch.flush_epoch <= core.flush_target.load()):
        return True
    if core.linger > 0:
        due = batch.created + core.linger
    else:
        due = outbox.pause_until
        if core.acks and (not outbox.in_flight.empty() or core.compressing.load(memory_order_relaxed)):
            due = max(due, clock_due(core, outbox, batch))
    if now >= due:
        return True
    when[0] = min(when[0], due)
    return False


cdef void stamp(Core* core, Partition* partition, Batch* batch) noexcept nogil:
    if batch.ordinal == 0:
        core.next_ordinal += 1
        batch.ordinal = core.next_ordinal << ORDINAL_SPAN_BITS
        batch.span = <uint64_t>1 << ORDINAL_SPAN_BITS
        partition.last_ordinal = batch.ordinal
    if core.idempotent.load(memory_order_relaxed) and batch.producer_id < 0:
        batch.producer_id = partition.producer_id
        batch.producer_epoch = partition.producer_epoch
        batch.base_sequence = partition.next_sequence
        batch.place = partition.stamps
        partition.stamps += 1
        partition.next_sequence = <int32_t>((<uint32_t>partition.next_sequence + <uint32_t>batch.count) & 0x7FFFFFFFU)


cdef Batch* leaving(Core* core, Partition* partition, Outbox* outbox, int64_t now, size_t room, int64_t* when,
                    cbool* too_large, vector[Batch*]& behind) noexcept nogil:
    """Take the batch that may leave for this broker now out of the queue, stamped; NULL: none.

    `room`: bytes the request still takes (0: it is empty and takes any). `behind`: see `place_that_may_leave`. The
    partition's lock is held.
    """
    cdef size_t place = 0
    cdef Batch* batch
    if partition.queue.empty() or not partition.parked.empty():
        return NULL
    if partition.retry_at > now:
        when[0] = min(when[0], partition.retry_at)
        return NULL
    if partition.in_flight.size() >= <size_t>core.max_in_flight:
        outbox.held = True
        return NULL
    if core.idempotent.load(memory_order_relaxed):
        place = place_that_may_leave(core, partition, now, behind)
        if place == partition.queue.size():
            outbox.held = True
            return NULL
    batch = partition.queue[place]
    if batch.attempts == 0 and not is_ready(core, partition, outbox, batch, now, when):
        return NULL
    if waits_for_compressor(core, batch):
        return NULL
    if room and BATCH_HEADER + batch.used > room:
        outbox.held = too_large[0] = True
        return NULL
    partition.queue.erase(partition.queue.begin() + place)
    partition.queue_length.store(<int>partition.queue.size(), memory_order_relaxed)
    note_fill(core, partition, batch)
    refuse_records(batch)
    if not partition.queue.empty() and (partition.queue.size() > 1 or not partition.queue.front().accepts):
        outbox.held = True   # the one behind may leave with the next request, and nobody will wake us for it again
    batch.reached = False
    batch.settled = denied(partition)
    batch.in_request = True
    batch.attempts += 1
    stamp(core, partition, batch)
    insert_by_ordinal(partition.in_flight, batch)
    return batch


cdef void note_fill(Core* core, Partition* partition, Batch* batch) noexcept nogil:
    """What the batch reached is what the next one starts with, and how far keyless records stick."""
    cdef Topic* topic = partition.topic
    cdef int64_t quantum = topic.quantum.load(memory_order_relaxed)
    cdef size_t size = batch.raw_size if batch.sealed else batch.used
    if batch.attempts or batch.split_product:
        return
    partition.last_capacity.store(size, memory_order_relaxed)
    # A batch that holds a quantum is as full as it gets: keyless records move on at twice that at the latest.
    if batch.full or <int64_t>size >= quantum:
        quantum = max(min(2 * quantum, <int64_t>core.batch_size), <int64_t>1)
    else:
        quantum = first_quantum(core)
    topic.quantum.store(quantum, memory_order_relaxed)


cdef void insert_by_ordinal(vector[Batch*]& batches, Batch* batch) noexcept nogil:
    cdef size_t at = batches.size()
    while at > 0 and batches[at - 1].ordinal > batch.ordinal:
        at -= 1
    batches.insert(batches.begin() + at, batch)


cdef void remove_from(vector[Batch*]& batches, Batch* batch) noexcept nogil:
    cdef size_t i
    for i in range(batches.size()):
        if batches[i] == batch:
            batches.erase(batches.begin() + i)
            return
