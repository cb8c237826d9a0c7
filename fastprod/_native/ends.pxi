# Ends that the control plane decides upon. Those that the I/O thread does are in delivery.pxi.

cdef int end_claimed(Batch* batch, int outcome, error, record_errors) except -1:
    """Publish the end of a batch that was claimed, and drop the accumulator's hold on it."""
    if error is not None:
        Py_INCREF(error)
        batch.error.store(<PyObject*>error)
    if record_errors:
        Py_INCREF(record_errors)
        batch.record_errors = <PyObject*>record_errors
    end_batch(batch, outcome)
    free_body(batch)
    release_held(batch)
    return 0


cdef int end_parked(Batch* batch, int outcome, error, record_errors, bint unknown) except -1:
    """End a parked batch; when its futures ended before (it expired) only the bookkeeping is left."""
    cdef Partition* partition = batch.partition
    cdef vector[Batch*] behind
    cdef size_t i
    cdef bint claimed
    lock_detached(&partition.gate)
    remove_from(partition.parked, batch)
    claimed = not batch.ended
    batch.ended = True
    if claimed:
        batch.maybe_written = unknown or batch.doubted
    if batch.producer_id >= 0:
        lose_stamped(batch.core, partition, batch, unknown, behind)
    activate(partition)
    partition.gate.unlock()
    if claimed:
        end_claimed(batch, outcome, error, record_errors)
    else:
        free_body(batch)
        release_held(batch)
    for i in range(behind.size()):
        end_claimed(behind[i], OUT_OF_ORDER, None, None)
    return 0


cdef int fail_queue(Partition* partition, int outcome, error, bint unsent_only) except -1:
    """End what is in the queue of a partition: all of it, or only what was never sent."""
    cdef vector[Batch*] gone
    cdef vector[Batch*] behind
    cdef Batch* batch
    cdef size_t i, kept = 0
    lock_detached(&partition.gate)
    while kept < partition.queue.size():
        batch = partition.queue[kept]
        if unsent_only and batch.attempts:
            kept += 1
            continue
        refuse_records(batch)
        batch.ended = True
        batch.maybe_written = batch.doubted
        gone.push_back(batch)
        partition.queue.erase(partition.queue.begin() + kept)
        if batch.producer_id >= 0:
            lose_stamped(batch.core, partition, batch, batch.unknown, behind)
    partition.queue_length.store(<int>partition.queue.size())
    partition.gate.unlock()
    topic, number = <object>partition.topic_partition
    for i in range(gone.size()):
        batch = gone[i]
        mine = None
        if error is not None:
            batch.leader = partition.leader.load()
            batch.elapsed_ms = (now_ns() - batch.created) / 1e6
            mine = failures.with_history(error, topic, number, history_of(batch, batch.elapsed_ms))
            mine = failures.flagged(mine, batch.maybe_written)
        end_claimed(batch, outcome, mine, None)
    for i in range(behind.size()):
        end_claimed(behind[i], OUT_OF_ORDER, None, None)
    return 0


cdef int abort_partition(Partition* partition, error, list left) except -1:
    """End what is left of a partition, each with an `error()`; `left` gets a tuple for each (DESIGN.md, `abort`)."""
    cdef vector[Batch*] gone
    cdef Batch* batch
    cdef size_t i
    cdef bint claimed
    lock_detached(&partition.gate)
    gone.insert(gone.end(), partition.in_flight.begin(), partition.in_flight.end())
    gone.insert(gone.end(), partition.parked.begin(), partition.parked.end())
    stable_sort(gone.begin(), gone.end(), &by_ordinal)
    for i in range(partition.queue.size()):
        refuse_records(partition.queue[i])
        gone.push_back(partition.queue[i])
    partition.in_flight.clear()
    partition.parked.clear()
    partition.queue.clear()
    partition.queue_length.store(0)
    partition.gate.unlock()
    topic, number = <object>partition.topic_partition
    for i in range(gone.size()):
        batch = gone[i]
        claimed = not batch.ended
        batch.ended = True
        if claimed:
            batch.maybe_written = batch.doubted or (batch.reached and batch.attempts > 0)
            batch.leader = partition.leader.load()
            batch.elapsed_ms = (now_ns() - batch.created) / 1e6
            mine = failures.with_history(error(), topic, number, history_of(batch, batch.elapsed_ms))
            mine.maybe_written = batch.maybe_written
            left.append((topic, number, batch.codec if batch.sealed else 0,
                         PyBytes_FromStringAndSize(<char*>batch.data, batch.used), batch.base_timestamp,
                         batch.count, batch.maybe_written))
            end_claimed(batch, FAILED, mine, None)
        else:
            free_body(batch)
            release_held(batch)
    return 0
