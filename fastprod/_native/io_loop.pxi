# The I/O thread: drain, seal, write, read, and everything that is due by the clock. It enters the interpreter only to
# compress with a package codec; everything else goes on while Python computes. With a linked codec other threads
# compress (compressors.pxi).


# --- Seal ----------------------------------------------------------------------------------------------------------

cdef int compress_sealed(Core* core, Batch* batch) noexcept with gil:
    """Replace the body by its compressed form where that is smaller. 0, or -1: the batch's `error` is set."""
    cdef bytes body
    try:
        body = compressed_body(<object>core.compress, batch.data, batch.used)
        if body is None:
            batch.codec = 0
            return 0
        memcpy(batch.data, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
        batch.used = PyBytes_GET_SIZE(body)
        return 0
    except BaseException as error:
        Py_INCREF(error)
        batch.error.store(<PyObject*>error)
        return -1


cdef cbool seal(Core* core, Batch* batch) noexcept nogil:
    """Make the body what goes over the wire, once. False: it could not be compressed, the batch has ended."""
    if batch.sealed:
        return True
    if batch.codec and core.compress == NULL:
        note_sealed(batch, sealed_body(core, &core.compressor, batch))
        return True
    batch.raw_size = batch.used
    batch.sealed = True
    if batch.codec and compress_sealed(core, batch) < 0:
        abandon_unsent(core, batch)
        return False
    batch.body_crc = body_crc_of(batch.data, batch.used)
    return True


cdef void abandon_unsent(Core* core, Batch* batch) noexcept nogil:
    """A batch fails before it was ever sent. Stamped a moment ago, its sequence is given back; a part of a split one
    has others behind it that were numbered before, so its own is a gap."""
    cdef Partition* partition = batch.partition
    cdef vector[Batch*] behind
    cdef cbool claimed
    partition.gate.lock()
    remove_from(partition.in_flight, batch)
    batch.in_request = False
    if batch.producer_id >= 0:
        if batch.split_product:
            lose_stamped(core, partition, batch, batch.unknown, behind)
        else:
            partition.next_sequence = batch.base_sequence
    claimed = not batch.ended
    batch.ended = True
    partition.gate.unlock()
    if claimed:
        end_batch(batch, FAILED)
    free_body(batch)
    release(batch)
    end_behind(behind)


# --- Drain ---------------------------------------------------------------------------------------------------------

cdef cbool by_topic(Batch* const& a, Batch* const& b) noexcept nogil:
    return <size_t>a.partition.topic < <size_t>b.partition.topic


cdef void gather(Core* core, Outbox* outbox, int64_t now, int64_t* when, vector[Batch*]& batches) noexcept nogil:
    """Take what may leave for this broker: at most one batch a partition, as much as max_request_size allows, the
    first in any case; begin where the last request ended, so that nobody starves."""
    cdef size_t count = outbox.partitions.size(), step, at, room = 0, size, total = 0
    cdef vector[Batch*] behind
    cdef Partition* partition
    cdef Batch* batch
    cdef cbool too_large = False
    outbox.held = False
    for step in range(count):
        at = (outbox.rotate + step) % count
        partition = outbox.partitions[at]
        partition.gate.lock()
        batch = leaving(core, partition, outbox, now, room, when, &too_large, behind)
        partition.gate.unlock()
        if not behind.empty():
            end_behind(behind)
            behind.clear()
        if too_large:
            outbox.rotate = at
            return
        if batch == NULL:
            continue
        size = batch.used
        if not seal(core, batch):
            continue
        batches.push_back(batch)
        total += BATCH_HEADER + batch.used
        room = core.max_request_size - total if total < core.max_request_size else 1
        if room == 1:
            outbox.held = True
            outbox.rotate = (at + 1) % count
            return
    if count:
        outbox.rotate = (outbox.rotate + 1) % count


cdef Request* build_request(Core* core, Outbox* outbox, vector[Batch*]& batches, int64_t now) noexcept nogil:
    cdef Request* request = new Request()
    cdef vector[WireBatch] wire
    cdef WireBatch part
    cdef Batch* batch
    cdef Topic* topic
    cdef size_t i
    stable_sort(batches.begin(), batches.end(), &by_topic)
    wire.reserve(batches.size())
    request.version = outbox.version
    request.correlation_id = outbox.next_correlation_id
    request.segment_at = request.segment_offset = 0
    outbox.next_correlation_id = (outbox.next_correlation_id + 1) & 0x7FFFFFFF
    core.gate.lock()   # topic ids are written by the control thread
    for i in range(batches.size()):
        if request.version >= TOPIC_IDS_FROM and batches[i].partition.topic.id.size() != 16:
            request.version = TOPIC_IDS_FROM - 1
    if request.version >= TOPIC_IDS_FROM:
        request.topic_ids.reserve(batches.size())
        for i in range(batches.size()):
            request.topic_ids.push_back(batches[i].partition.topic.id)
    core.gate.unlock()
    for i in range(batches.size()):
        batch = batches[i]
        topic = batch.partition.topic
        part.topic = topic.name.data()
        part.topic_size = topic.name.size()
        part.topic_id = NULL
        if request.version >= TOPIC_IDS_FROM:
            part.topic_id = <const unsigned char*>request.topic_ids[i].data()
        part.partition = batch.partition.index
        part.body = batch.data
        part.body_size = batch.used
        put_batch_header(part.header, batch.data, batch.used, batch.body_crc, batch.codec, batch.count,
                         batch.base_timestamp, batch.max_timestamp, batch.producer_id, batch.producer_epoch,
                         batch.base_sequence)
        wire.push_back(part)
    write_request(request, core.client_id, core.acks, <int32_t>(core.request_timeout // MILLISECOND), wire)
    request.batches = batches
    request.sent_at = now
    request.deadline = now + core.request_timeout
    count_request(core, outbox, request, now)
    return request


cdef void count_request(Core* core, Outbox* outbox, Request* request, int64_t now) noexcept nogil:
    cdef Batch* batch
    cdef Topic* topic
    cdef size_t i
    core.gate.lock()
    outbox.totals.requests += 1
    outbox.totals.request_size_max = max(outbox.totals.request_size_max, <double>request.size)
    core.totals.request_size_max = max(core.totals.request_size_max, <double>request.size)
    for i in range(request.batches.size()):
        batch = request.batches[i]
        topic = batch.partition.topic
        core.totals.batches_sent += 1
        core.totals.records_sent += batch.count
        topic.totals.records_sent += batch.count
        topic.totals.batches_sent += 1
        topic.totals.largest_batch = max(topic.totals.largest_batch, <double>(BATCH_HEADER + batch.used))
        core.totals.batch_bytes += BATCH_HEADER + batch.used
        topic.totals.batch_bytes += BATCH_HEADER + batch.used
        core.totals.batch_size_max = max(core.totals.batch_size_max, <double>(BATCH_HEADER + batch.used))
        core.totals.uncompressed_bytes += BATCH_HEADER + batch.raw_size
        topic.totals.uncompressed_bytes += BATCH_HEADER + batch.raw_size
        core.totals.compressed_bytes += BATCH_HEADER + batch.used
        topic.totals.compressed_bytes += BATCH_HEADER + batch.used
        batch.in_flight = True
        batch.last_node = outbox.node
        core.totals.records_in_flight += batch.count
        core.totals.bytes_in_flight += batch.raw_size
        if batch.attempts > 1:
            core.totals.bytes_retried += batch.raw_size
            core.totals.records_retried += batch.count
            topic.totals.records_retried += batch.count
        else:
            core.totals.queue_time += (now - batch.created) / 1e6
            core.totals.queue_time_max = max(core.totals.queue_time_max, (now - batch.created) / 1e6)
    core.gate.unlock()


cdef void serve(Core* core, Outbox* outbox, cbool anything, int64_t now, int64_t* when) noexcept nogil:
    """Write as many requests as this connection may have in flight. `anything`: a pause is no reason not to look."""
    cdef vector[Batch*] batches
    if anything:
        outbox.held = True   # until `gather` has looked, which may be only when an answer has come
    while (outbox.fd >= 0 and outbox.writing == NULL and outbox.in_flight.size() < <size_t>core.max_in_flight):
        if now < outbox.throttled_until:
            when[0] = min(when[0], outbox.throttled_until)
            return
        if not anything and pauses(core, outbox, now):
            when[0] = min(when[0], outbox.pause_until)
            return
        batches.clear()
        gather(core, outbox, now, when, batches)
        if batches.empty():
            return
        outbox.last_use = now
        outbox.writing = build_request(core, outbox, batches, now)
        outbox.unanswered.store(<int>outbox.in_flight.size() + 1)   # before the broker can know of it
        when[0] = min(when[0], outbox.writing.deadline)
        write_some(core, outbox, now)


# --- The clock -----------------------------------------------------------------------------------------------------

cdef void count_waiting(vector[Batch*]& batches, int64_t now, int64_t timeout, vector[Batch*]& over,
                        int64_t* next_) noexcept nogil:
    cdef size_t i
    for i in range(batches.size()):
        if batches[i].ended:
            continue
        if batches[i].created + timeout <= now:
            over.push_back(batches[i])
        else:
            next_[0] = min(next_[0], batches[i].created + timeout)


cdef void expire_partition(Core* core, Partition* partition, int64_t now, int64_t* next_) noexcept nogil:
    """End what is older than delivery_timeout_ms, oldest first: in flight and parked ones keep their place and their
    bytes until their request ends; queued ones go, and leave a trace only if they were stamped."""
    cdef vector[Batch*] over
    cdef vector[Batch*] gone
    cdef vector[Batch*] behind
    cdef Batch* batch
    cdef int leader = partition.leader.load()
    cdef cbool throttled = core.outboxes.count(leader) and core.outboxes[leader].throttled_until > now
    cdef size_t i
    partition.gate.lock()
    count_waiting(partition.in_flight, now, core.delivery_timeout, over, next_)
    count_waiting(partition.parked, now, core.delivery_timeout, over, next_)
    stable_sort(over.begin(), over.end(), &by_ordinal)
    while not partition.queue.empty():
        batch = partition.queue.front()
        if batch.created + core.delivery_timeout > now:
            next_[0] = min(next_[0], batch.created + core.delivery_timeout)
            break
        partition.queue.pop_front()
        refuse_records(batch)
        over.push_back(batch)
        gone.push_back(batch)
        if batch.producer_id >= 0:
            lose_stamped(core, partition, batch, batch.unknown, behind)
    partition.queue_length.store(<int>partition.queue.size(), memory_order_relaxed)
    for i in range(over.size()):
        over[i].ended = True
        over[i].elapsed_ms = (now - over[i].created) / 1e6
        over[i].maybe_written = over[i].doubted or over[i].reached or over[i].in_request
        over[i].throttled = throttled
        # Without the lock the control plane may decide on a parked one and drop what it holds, the last of it maybe.
        retain(over[i])
    partition.gate.unlock()
    for i in range(over.size()):
        end_batch(over[i], EXPIRED)
        release(over[i])
    for i in range(gone.size()):
        free_body(gone[i])
        release(gone[i])
    end_behind(behind)


cdef cbool by_ordinal(Batch* const& a, Batch* const& b) noexcept nogil:
    return a.ordinal < b.ordinal


cdef void lose_stamped(Core* core, Partition* partition, Batch* batch, cbool unknown,
                       vector[Batch*]& behind) noexcept nogil:
    """A stamped batch ends without being acknowledged: it may be in the log, or there is a gap where it should be.

    The partition's lock is held. `behind`: gets those that strict_order takes out of the queue; the caller ends them
    when it has let the lock go."""
    if batch.producer_id != partition.producer_id or batch.producer_epoch != partition.producer_epoch:
        return   # of an identity that is left behind already
    if unknown:
        if batch.ordinal < partition.last_acked_ordinal:
            return   # a later one is in the log, so this one is, too
        if partition.unresolved == UNRESOLVED_NONE or batch.ordinal < partition.unresolved_first:
            partition.unresolved_first = batch.ordinal
        if partition.unresolved == UNRESOLVED_NONE or batch.ordinal > partition.unresolved_ordinal:
            partition.unresolved = <int32_t>((<uint32_t>last_sequence(batch) + 1) & 0x7FFFFFFFU)
            partition.unresolved_ordinal = batch.ordinal
        return
    partition.broken = True
    if core.strict_order:
        take_behind(partition, batch.ordinal, behind)


cdef void take_behind(Partition* partition, uint64_t ordinal, vector[Batch*]& behind) noexcept nogil:
    """strict_order: those behind a batch that has failed. The queued ones are taken out now, and the caller ends them
    when it has let the partition's lock go; the others fail when they are answered."""
    cdef size_t i = 0
    partition.fail_after = min(partition.fail_after, ordinal)
    while i < partition.queue.size():
        if partition.queue[i].producer_id < 0 or partition.queue[i].ordinal <= partition.fail_after:
            i += 1
            continue
        partition.queue[i].ended = True
        partition.queue[i].maybe_written = partition.queue[i].doubted
        behind.push_back(partition.queue[i])
        partition.queue.erase(partition.queue.begin() + i)
    partition.queue_length.store(<int>partition.queue.size(), memory_order_relaxed)


cdef void end_behind(vector[Batch*]& behind) noexcept nogil:
    cdef size_t i
    for i in range(behind.size()):
        end_batch(behind[i], OUT_OF_ORDER)
        free_body(behind[i])
        release(behind[i])


cdef void expire(Core* core, int64_t now) noexcept nogil:
    cdef size_t i
    if now < core.next_expiry:
        return
    core.next_expiry = now + core.delivery_timeout
    for i in range(core.active.size()):
        expire_partition(core, core.active[i], now, &core.next_expiry)


cdef void check_connection(Core* core, Outbox* outbox, int64_t now, int64_t* when) noexcept nogil:
    """Close a connection whose oldest request has no answer in time, or that nobody needs."""
    cdef int64_t deadline
    if outbox.fd < 0:
        return
    if outbox.in_flight.empty() and outbox.writing == NULL:
        deadline = outbox.last_use + core.max_idle
        if now >= deadline:
            lose_connection(core, outbox, 0, string(b"idle for connections_max_idle_ms"))
            return
    else:
        deadline = outbox.in_flight.front().deadline if not outbox.in_flight.empty() else outbox.writing.deadline
        if now >= deadline:
            lose_connection(core, outbox, REQUEST_TIMED_OUT, string(b"no answer within request_timeout_ms"))
            return
    when[0] = min(when[0], deadline)


# --- Who is to be served -------------------------------------------------------------------------------------------

cdef void admit(Core* core) noexcept nogil:
    """Take in partitions that became active and leaders that changed; sort all by leader."""
    cdef vector[Partition*] arrivals
    cdef cbool resort = core.routes_changed.exchange(0) != 0
    cdef pair[int, Outbox*] entry
    cdef size_t i
    if core.old_arrived.exchange(0):
        core.next_expiry = 0
    core.gate.lock()
    arrivals.swap(core.arrivals)
    core.producer_id = core.told_id
    core.producer_epoch = core.told_epoch
    core.gate.unlock()
    for i in range(arrivals.size()):
        core.active.push_back(arrivals[i])
        core.next_expiry = min(core.next_expiry, now_ns() + core.delivery_timeout)
        if not resort:
            place(core, arrivals[i])
    if resort:
        for entry in core.outboxes:
            entry.second.partitions.clear()
        core.homeless.clear()
        for i in range(core.active.size()):
            place(core, core.active[i])


cdef void place(Core* core, Partition* partition) noexcept nogil:
    cdef int leader = partition.leader.load()
    if leader < 0:
        core.homeless.push_back(partition)
    else:
        outbox_for(core, leader).partitions.push_back(partition)


cdef void retire(Core* core) noexcept nogil:
    """Forget partitions that have nothing to send and nothing under way."""
    cdef size_t i, kept = 0
    cdef Partition* partition
    cdef cbool gone
    for i in range(core.active.size()):
        partition = core.active[i]
        partition.gate.lock()
        gone = partition.queue.empty() and partition.in_flight.empty() and partition.parked.empty()
        if gone:
            partition.active = False
        partition.gate.unlock()
        if not gone:
            core.active[kept] = partition
            kept += 1
    if kept != core.active.size():
        core.active.resize(kept)
        core.routes_changed.store(1)


cdef cbool has_queued(vector[Partition*]& partitions) noexcept nogil:
    cdef size_t i
    for i in range(partitions.size()):
        if partitions[i].queue_length.load(memory_order_relaxed):
            return True
    return False


cdef void report_needs(Core* core) noexcept nogil:
    """Tell the control plane, once each, which brokers need a connection and which topics a leader."""
    cdef Event event
    cdef pair[int, Outbox*] entry
    cdef size_t i
    for entry in core.outboxes:
        if entry.second.fd < 0 and not entry.second.connection_asked and has_queued(entry.second.partitions):
            entry.second.connection_asked = True
            clear_event(&event, C_NEED_CONNECTION)
            event.node = entry.first
            push_event(core, event)
    for i in range(core.homeless.size()):
        if core.homeless[i].queue_length.load() and not core.homeless[i].topic.leaderless_told.exchange(1):
            clear_event(&event, C_NO_LEADER)
            event.topic = core.homeless[i].topic
            push_event(core, event)


cdef void obey(Core* core, int64_t now) noexcept nogil:
    """Carry out what the control plane asked for."""
    cdef vector[Command] commands
    cdef Outbox* outbox
    cdef size_t i
    core.gate.lock()
    commands.swap(core.commands)
    core.gate.unlock()
    for i in range(commands.size()):
        outbox = outbox_for(core, commands[i].node)
        if commands[i].kind == COMMAND_ATTACH:
            attach_connection(core, outbox, commands[i].fd, commands[i].version, now)
        elif commands[i].kind == COMMAND_DETACH:
            lose_connection(core, outbox, 0, commands[i].reason)
        else:
            outbox.connection_asked = False


# --- The loop ------------------------------------------------------------------------------------------------------

cdef void sleep_until(Core* core, int64_t when, vector[fp_pollfd]& fds, vector[Outbox*]& owners) noexcept nogil:
    """Wait for a socket, for `when`, or for somebody who wakes us."""
    cdef pair[int, Outbox*] entry
    cdef fp_pollfd fd
    cdef int64_t nanos = now_ns(), until = NEVER
    cdef int work
    cdef cbool pause = not core.outboxes.empty()
    fds.clear()
    owners.clear()
    fd.fd = core.wake_read
    fd.events = POLLIN
    fd.revents = 0
    fds.push_back(fd)
    for entry in core.outboxes:
        pause = pause and entry.second.fd >= 0 and pauses(core, entry.second, nanos)
        until = min(until, entry.second.pause_until)
        if entry.second.fd >= 0:
            fd.fd = entry.second.fd
            fd.events = <short>(POLLIN | (POLLOUT if entry.second.writing != NULL else 0))
            fds.push_back(fd)
            owners.push_back(entry.second)
    core.sleeping.store(PAUSES if pause else SLEEPS)
    if pause:
        when = min(when, until)   # nobody will wake us for what is opened meanwhile
    nanos = -1 if when == NEVER else max(when - nanos, <int64_t>0)
    work = core.work.load()
    if work & ANYTHING or (work and not pause) or core.stopping.load():
        nanos = 0
    fp_poll(fds.data(), fds.size(), nanos)
    core.sleeping.store(0)


cdef extern from *:
    """
    static thread_local void* fp_io_core = nullptr;
    """
    void* fp_io_core   # on an I/O thread its Core, elsewhere NULL


cdef void run_io(void* argument) noexcept nogil:
    global fp_io_core
    cdef Core* core = <Core*>argument
    cdef vector[fp_pollfd] fds
    cdef vector[Outbox*] owners
    cdef unsigned char scratch[64]
    cdef pair[int, Outbox*] entry
    cdef int64_t now, when, next_retire = 0
    cdef cbool anything
    cdef size_t i
    fp_io_core = core
    while not core.stopping.load():
        anything = (core.work.exchange(0) & ANYTHING) != 0
        core.compressed_here = 0
        now = now_ns()
        when = NEVER
        obey(core, now)
        admit(core)
        expire(core, now)
        for entry in core.outboxes:
            check_connection(core, entry.second, now, &when)
        for entry in core.outboxes:
            serve(core, entry.second, anything, now, &when)
        report_needs(core)
        if now >= next_retire:
            retire(core)
            next_retire = now + SECOND
        if not core.active.empty():
            when = min(when, min(core.next_expiry, next_retire))
        sleep_until(core, when, fds, owners)
        if fds[0].revents:
            while fp_read(core.wake_read, scratch, sizeof(scratch)) == <ptrdiff_t>sizeof(scratch):
                pass
        now = now_ns()
        for i in range(owners.size()):
            if fds[i + 1].revents == 0 or owners[i].fd < 0:
                continue
            if owners[i].writing != NULL and fds[i + 1].revents & POLLOUT:
                write_some(core, owners[i], now)
            if fds[i + 1].revents & ~POLLOUT:
                read_some(core, owners[i], now)
    for entry in core.outboxes:
        lose_connection(core, entry.second, 0, string(b"the producer is closing"))
