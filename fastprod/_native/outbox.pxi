# One broker's outbox: its requests in flight, its socket, and what becomes of a batch that was sent. The I/O thread
# alone is here, without the interpreter; it holds a partition's lock for pointer work only. What leaves is drain.pxi's
# to say.

cdef extern from "readiness.h" nogil:
    enum:
        FP_AGAIN
        FP_CLOSED
        FP_BROKEN
        POLLIN
        POLLOUT
    cppclass fp_piece:
        const unsigned char* data
        size_t size
    ctypedef struct fp_pollfd:
        int fd
        short events
        short revents
    int fp_error() noexcept
    const char* fp_error_text(int code) noexcept
    void fp_close(int fd) noexcept
    int fp_poll(fp_pollfd* fds, size_t count, int64_t nanos) noexcept
    ptrdiff_t fp_write(int fd, const fp_piece* pieces, int count) noexcept
    ptrdiff_t fp_read(int fd, unsigned char* data, size_t size) noexcept

cdef enum:
    PIECES = 64
    READ_CHUNK = 65536
    THROTTLE_FROM = 6       # KIP-219: from this version on the client is the one that waits


cdef Outbox* outbox_for(Core* core, int node) noexcept nogil:
    cdef Outbox* outbox
    if core.outboxes.count(node):
        return core.outboxes[node]
    outbox = new Outbox()
    outbox.node = node
    outbox.fd = -1
    outbox.version = 3
    outbox.connection_asked = False
    outbox.writing = NULL
    outbox.inbox_used = 0
    outbox.next_correlation_id = 0
    outbox.throttled_until = outbox.round_trip = outbox.last_write = outbox.last_use = 0
    outbox.pause_until = 0
    outbox.held = False
    outbox.rotate = 0
    outbox.unanswered.store(0)
    core.outboxes[node] = outbox
    core.gate.lock()
    core.outbox_list.push_back(outbox)
    core.gate.unlock()
    return outbox


# --- What becomes of a batch that was sent -------------------------------------------------------------------------

cdef void note_acknowledged(Partition* partition, Batch* batch, int64_t base_offset, int64_t now) noexcept nogil:
    """The bookkeeping of a stamped batch that is in the log. The partition's lock is held."""
    cdef size_t i
    if batch.producer_id != partition.producer_id or batch.producer_epoch != partition.producer_epoch:
        return
    partition.proven_at = now
    if batch.ordinal >= partition.last_acked_ordinal:
        # An older one may be acknowledged later: resent to a new leader while the old one still answered for others.
        partition.last_acked_ordinal = batch.ordinal
        partition.last_acked_sequence = last_sequence(batch)
        if base_offset >= 0:
            partition.last_acked_offset = <int64_t>(<uint64_t>base_offset + <uint64_t>batch.count - 1)
    if partition.unresolved != UNRESOLVED_NONE and batch.ordinal >= partition.unresolved_ordinal:
        partition.unresolved = UNRESOLVED_NONE   # the broker takes no gap: what came before is in the log
    if partition.broken:
        # It may have lain unread when those behind it were denied, and they with it.
        for i in range(partition.queue.size()):
            if (partition.queue[i].doubted and partition.queue[i].ordinal > batch.ordinal
                    and not partition.queue[i].split_product):
                partition.queue[i].unknown = True


cdef void add_acknowledged(vector[Acknowledged]& batches, Batch* batch, int64_t base_offset,
                           int64_t log_append_time) noexcept nogil:
    cdef Acknowledged one
    one.batch = batch
    one.base_offset = base_offset
    one.log_append_time = log_append_time
    one.claimed = one.due = False
    batches.push_back(one)


cdef void acknowledge(Core* core, vector[Acknowledged]& batches, int64_t now) noexcept nogil:
    """These batches are in the log; take them out of flight or out of the parked ones, and tell whoever asked. An
    answer may be about hundreds: what is guarded by a lock of the core is done for all of them at once."""
    cdef Acknowledged* one
    cdef Partition* partition
    cdef Batch* batch
    cdef size_t i
    for i in range(batches.size()):
        one = &batches[i]
        batch = one.batch
        partition = batch.partition
        partition.gate.lock()
        remove_from(partition.in_flight, batch)
        remove_from(partition.parked, batch)
        batch.in_request = False
        if batch.producer_id >= 0:
            note_acknowledged(partition, batch, one.base_offset, now)
        one.claimed = not batch.ended
        batch.ended = True
        partition.gate.unlock()
        if one.claimed:
            batch.base_offset = one.base_offset
            batch.log_append_time = one.log_append_time
    end_acknowledged(core, batches)
    for i in range(batches.size()):
        release(batches[i].batch)


cdef void clear_event(Event* event, int kind) noexcept nogil:
    event.kind = kind
    event.node = -1
    event.code = 0
    event.topic = NULL
    event.partition = NULL
    event.batch = NULL
    event.has_text = event.has_hint = False
    event.log_start_offset = -1
    event.hint_node = event.hint_epoch = event.hint_port = -1
    event.producer_id = -1
    event.producer_epoch = -1


cdef void push_event(Core* core, const Event& event) noexcept nogil:
    core.gate.lock()
    core.events.push_back(event)
    core.gate.unlock()
    tell(core)


cdef void park(Core* core, Batch* batch, int node, int code, Answer* answer) noexcept nogil:
    """Hold the batch, and with it its partition, until the control plane has decided. `answer`: NULL for none."""
    cdef Partition* partition = batch.partition
    cdef Event event
    cdef size_t i
    cdef Text* text
    clear_event(&event, C_PARKED)
    event.node = node
    event.code = code
    event.batch = batch
    if answer != NULL:
        event.log_start_offset = answer.log_start_offset
        if answer.message.size >= 0:
            event.has_text = True
            event.text = string(answer.message.data, answer.message.size)
        for i in range(answer.record_errors.size()):
            text = &answer.record_errors[i].message
            event.record_errors.push_back(pair[int32_t, string](
                answer.record_errors[i].index,
                string(text.data, text.size) if text.size >= 0 else string()))
        if answer.has_hint:
            event.has_hint = True
            event.hint_node = answer.leader
            event.hint_epoch = answer.leader_epoch
            if answer.host.size >= 0:
                event.hint_host = string(answer.host.data, answer.host.size)
            event.hint_port = answer.port
    partition.gate.lock()
    remove_from(partition.in_flight, batch)
    batch.in_request = False
    if not batch.ended:   # else somebody may be reading why it failed
        batch.last_error = code
    insert_by_ordinal(partition.parked, batch)
    partition.gate.unlock()
    core.gate.lock()
    land(batch)
    core.gate.unlock()
    retain(batch)
    push_event(core, event)


# --- The connection ------------------------------------------------------------------------------------------------

cdef void show_socket(Core* core, int fd) noexcept nogil:
    """Let a forked child know of the descriptor: while it holds a copy, closing ours does not end the connection."""
    cdef int i
    for i in range(SOCKETS_SHOWN):
        if core.sockets[i].load() < 0:
            core.sockets[i].store(fd)
            return


cdef void hide_socket(Core* core, int fd) noexcept nogil:
    """Before it is closed: its number may be another file's the moment after."""
    cdef int i
    for i in range(SOCKETS_SHOWN):
        if core.sockets[i].load() == fd:
            core.sockets[i].store(-1)
            return


cdef void lose_connection(Core* core, Outbox* outbox, int code, const string& reason) noexcept nogil:
    """Close the connection; everything on it is parked, oldest first, then the loss is reported."""
    cdef Event event
    cdef Request* request
    cdef size_t i
    if outbox.fd < 0:
        return
    hide_socket(core, outbox.fd)
    fp_close(outbox.fd)
    outbox.fd = -1
    outbox.inbox_used = 0
    outbox.connection_asked = False
    if outbox.writing != NULL:
        outbox.in_flight.push_back(outbox.writing)
        outbox.writing = NULL
    while not outbox.in_flight.empty():
        request = outbox.in_flight.front()
        outbox.in_flight.pop_front()
        for i in range(request.batches.size()):
            if request.batches[i] != NULL:
                park(core, request.batches[i], outbox.node, code if code else NETWORK_EXCEPTION, NULL)
        del request
    outbox.unanswered.store(0)
    core.gate.lock()
    core.totals.connections_closed += 1
    core.gate.unlock()
    clear_event(&event, C_CONNECTION_LOST)
    event.node = outbox.node
    event.code = code
    event.text = reason
    push_event(core, event)


cdef void attach_connection(Core* core, Outbox* outbox, int fd, int version, int64_t now) noexcept nogil:
    if outbox.fd >= 0:
        lose_connection(core, outbox, 0, string(b"replaced by a new connection"))
    show_socket(core, fd)
    outbox.fd = fd
    outbox.version = version
    outbox.throttled_until = 0
    outbox.last_use = now
    outbox.connection_asked = False
    core.gate.lock()
    core.totals.connections_opened += 1
    core.gate.unlock()


cdef void request_written(Core* core, Outbox* outbox, int64_t now) noexcept nogil:
    cdef Request* request = outbox.writing
    cdef vector[Acknowledged] acknowledged
    cdef size_t i
    outbox.writing = NULL
    outbox.last_write = now
    outbox.pause_until = pause_after(core, request, now)
    if not core.acks:
        outbox.unanswered.store(0)
    for i in range(request.batches.size()):
        request.batches[i].reached = True
    if core.acks:
        outbox.in_flight.push_back(request)
        return
    core.gate.lock()
    outbox.totals.responses += 1
    core.gate.unlock()
    acknowledged.reserve(request.batches.size())
    for i in range(request.batches.size()):
        add_acknowledged(acknowledged, request.batches[i], -1, -1)
    acknowledge(core, acknowledged, now)
    del request


cdef void write_some(Core* core, Outbox* outbox, int64_t now) noexcept nogil:
    """Write until the request is out or the socket takes no more."""
    cdef Request* request = outbox.writing
    cdef fp_piece pieces[PIECES]
    cdef int count
    cdef size_t at, step
    cdef ptrdiff_t sent
    while True:
        count = 0
        at = request.segment_at
        while at < request.segments.size() and count < PIECES:
            pieces[count].data = request.segments[at].data
            pieces[count].size = request.segments[at].size
            count += 1
            at += 1
        if count == 0:
            request_written(core, outbox, now)
            return
        pieces[0].data += request.segment_offset
        pieces[0].size -= request.segment_offset
        sent = fp_write(outbox.fd, pieces, count)
        if sent == FP_AGAIN:
            return
        if sent < 0:
            lose_connection(core, outbox, NETWORK_EXCEPTION, string(fp_error_text(fp_error())))
            return
        core.gate.lock()
        outbox.totals.request_bytes += sent
        core.gate.unlock()
        while sent > 0:
            step = request.segments[request.segment_at].size - request.segment_offset
            if <size_t>sent < step:
                request.segment_offset += sent
                break
            sent -= step
            request.segment_at += 1
            request.segment_offset = 0


cdef Batch* claimed_by(Request* request, Answer* answer, size_t guess) noexcept nogil:
    """The batch of the request that this answer is for; it is taken out of the request. NULL: none."""
    cdef size_t i, n = request.batches.size()
    cdef Batch* batch
    cdef Topic* topic
    for i in range(n):
        batch = request.batches[(guess + i) % n]
        if batch == NULL or batch.partition.index != answer.partition:
            continue
        topic = batch.partition.topic
        if answer.topic_id != NULL:
            if string(<const char*>answer.topic_id, 16) != request.topic_ids[(guess + i) % n]:
                continue
        elif answer.topic.size < 0 or topic.name != string(answer.topic.data, answer.topic.size):
            continue
        request.batches[(guess + i) % n] = NULL
        return batch
    return NULL


cdef void lose_with_answered(Core* core, Outbox* outbox, vector[Batch*]& answered, const char* reason) noexcept nogil:
    """The oldest request's answer does not fit it: give back what was taken out of the request, and lose all."""
    cdef Request* request = outbox.in_flight.front()
    request.batches.insert(request.batches.end(), answered.begin(), answered.end())
    lose_connection(core, outbox, NETWORK_EXCEPTION, string(reason))


cdef cbool handle_answer(Core* core, Outbox* outbox, const unsigned char* frame, size_t size,
                         int64_t now) noexcept nogil:
    """One response; False when the connection was lost over it."""
    cdef vector[Answer] answers
    cdef vector[Batch*] answered
    cdef vector[Acknowledged] acknowledged
    cdef int32_t correlation_id = 0, throttle_ms = 0
    cdef Request* request
    cdef size_t i
    cdef int64_t latency
    if outbox.in_flight.empty():
        lose_connection(core, outbox, NETWORK_EXCEPTION, string(b"the broker answered a request that was not made"))
        return False
    request = outbox.in_flight.front()
    answers.reserve(request.batches.size())
    answered.reserve(request.batches.size())
    acknowledged.reserve(request.batches.size())
    if not read_response(frame, size, request.version, &correlation_id, &throttle_ms, answers):
        lose_connection(core, outbox, NETWORK_EXCEPTION, string(b"the broker's answer is not a Produce response"))
        return False
    if correlation_id != request.correlation_id:
        lose_connection(core, outbox, NETWORK_EXCEPTION, string(b"the broker's answer has another correlation id"))
        return False
    # Nothing of an answer is believed before all of it fits.
    for i in range(answers.size()):
        answered.push_back(claimed_by(request, &answers[i], i))
        if answered.back() == NULL:
            answered.pop_back()
            lose_with_answered(core, outbox, answered, b"the broker's answer names a partition that was not sent")
            return False
    for i in range(request.batches.size()):
        if request.batches[i] != NULL:
            lose_with_answered(core, outbox, answered, b"the broker's answer misses a partition that was sent")
            return False
    latency = now - request.sent_at
    outbox.round_trip = latency if outbox.round_trip == 0 else (7 * outbox.round_trip + latency) // 8
    outbox.in_flight.pop_front()
    outbox.unanswered.store(<int>outbox.in_flight.size())
    count_response(core, outbox, latency / 1e6, max(throttle_ms, 0))
    if throttle_ms > 0 and request.version >= THROTTLE_FROM:
        # Not longer than anything that waits could wait: a broken number must not silence a broker for weeks.
        hold_back(outbox, min(throttle_ms * MILLISECOND, core.delivery_timeout), now)
    # Last: whoever waits for a record finds its answer counted.
    for i in range(answers.size()):
        if answers[i].error_code == 0:
            add_acknowledged(acknowledged, answered[i], answers[i].base_offset, answers[i].log_append_time)
        else:
            park(core, answered[i], outbox.node, answers[i].error_code, &answers[i])
    acknowledge(core, acknowledged, now)
    del request
    return True


cdef inline int latency_bucket(uint64_t micros) noexcept nogil:
    """The bucket of a round trip; fastprod/stats.py tells its bounds."""
    cdef int shift = 0
    while micros >> shift >= 16:
        shift += 1
    return min(<int>(8 * shift + (micros >> shift)), <int>LATENCY_BUCKETS - 1)


cdef void count_response(Core* core, Outbox* outbox, double latency_ms, double throttle_ms) noexcept nogil:
    core.gate.lock()
    outbox.totals.responses += 1
    outbox.totals.latency_buckets[latency_bucket(<uint64_t>(latency_ms * 1000))] += 1
    outbox.totals.latency += latency_ms
    outbox.totals.latency_max = max(outbox.totals.latency_max, latency_ms)
    core.totals.latency_max = max(core.totals.latency_max, latency_ms)
    outbox.totals.throttle += throttle_ms
    outbox.totals.throttle_max = max(outbox.totals.throttle_max, throttle_ms)
    core.totals.throttle_max = max(core.totals.throttle_max, throttle_ms)
    core.gate.unlock()


cdef void hold_back(Outbox* outbox, int64_t nanos, int64_t now) noexcept nogil:
    """KIP-219: send nothing for so long; what is under way has that much longer."""
    cdef size_t i
    outbox.throttled_until = max(outbox.throttled_until, now + nanos)
    for i in range(outbox.in_flight.size()):
        outbox.in_flight[i].deadline += nanos


cdef void read_some(Core* core, Outbox* outbox, int64_t now) noexcept nogil:
    """Read what there is and handle every whole response in it."""
    cdef ptrdiff_t got
    cdef size_t at, size
    while outbox.fd >= 0:
        if outbox.inbox.size() - outbox.inbox_used < READ_CHUNK:
            outbox.inbox.resize(outbox.inbox_used + READ_CHUNK)
        got = fp_read(outbox.fd, outbox.inbox.data() + outbox.inbox_used, outbox.inbox.size() - outbox.inbox_used)
        if got == FP_AGAIN:
            return
        if got == FP_CLOSED:
            lose_connection(core, outbox, NETWORK_EXCEPTION, string(b"the broker closed the connection"))
            return
        if got < 0:
            lose_connection(core, outbox, NETWORK_EXCEPTION, string(fp_error_text(fp_error())))
            return
        core.gate.lock()
        outbox.totals.response_bytes += got
        core.gate.unlock()
        outbox.inbox_used += got
        outbox.last_use = now
        at = 0
        while outbox.inbox_used - at >= 4:
            size = get32(outbox.inbox.data() + at)
            if size > core.receive_max:
                lose_connection(core, outbox, NETWORK_EXCEPTION,
                                string(b"the broker announced an answer longer than receive_message_max_bytes"))
                return
            if outbox.inbox_used - at - 4 < size:
                break
            if not handle_answer(core, outbox, outbox.inbox.data() + at + 4, size, now):
                return
            at += 4 + size
        outbox.inbox_used -= at
        memmove(outbox.inbox.data(), outbox.inbox.data() + at, outbox.inbox_used)
        if <size_t>got < READ_CHUNK:
            return
