# What `KafkaProducer.stats()` is made of, and the failures that nobody has seen.

cdef tuple stats_of(DataPlane plane):
    """(totals by name, totals by topic, broker -> (totals, latency buckets)); the names are in DESIGN.md."""
    cdef Core* core = plane.core
    cdef Totals totals
    cdef size_t memory
    core.gate.lock()
    totals = core.totals
    core.gate.unlock()
    core.pool_gate.lock()
    memory = core.charged
    core.pool_gate.unlock()
    # The ends first: what is appended and acknowledged in between is then queued, and not less than nothing.
    records, encoded = appended_of(plane)
    return {
        "records_accepted": records,
        "records_queued": records - totals.records_ended - totals.records_in_flight,
        "records_in_flight": totals.records_in_flight,
        "records_acked": totals.records_acked,
        "records_failed": totals.records_failed,
        "records_retried": totals.records_retried,
        "bytes_queued": encoded - totals.bytes_ended - totals.bytes_in_flight,
        "bytes_in_flight": totals.bytes_in_flight,
        "bytes_acked": totals.bytes_acked,
        "bytes_failed": totals.bytes_failed,
        "bytes_retried": totals.bytes_retried,
        "memory_used": <double>memory,
        "unread_failures": <double>core.unread.load(),
    }, topic_counters_of(core, plane.known), node_stats_of(plane)


cdef tuple appended_of(DataPlane plane):
    """(records, encoded bytes) that were ever accepted."""
    cdef TopicRoute route
    cdef vector[Partition*] partitions
    cdef size_t i
    cdef double records = 0, encoded = 0
    for route in list(plane.known.values()):
        partitions = ever_of(route.topic_)
        for i in range(partitions.size()):
            lock_detached(&partitions[i].gate)
            records += partitions[i].records_appended
            encoded += partitions[i].record_bytes
            partitions[i].gate.unlock()
    return records, encoded


cdef dict node_stats_of(DataPlane plane):
    cdef vector[Outbox*] outboxes
    cdef uint64_t buckets[LATENCY_BUCKETS]
    cdef size_t i
    cdef int k
    cdef dict counters = node_counters_of(plane.core, False)
    cdef dict result = {}
    plane.core.gate.lock()
    outboxes = plane.core.outbox_list
    plane.core.gate.unlock()
    for i in range(outboxes.size()):
        plane.core.gate.lock()
        memcpy(buckets, outboxes[i].totals.latency_buckets, sizeof(buckets))
        plane.core.gate.unlock()
        node = outboxes[i].node
        if node in counters:
            result[node] = counters[node], tuple([buckets[k] for k in range(LATENCY_BUCKETS)])
    return result


cdef void note_unread(Batch* batch) noexcept:
    """The last one who could have looked at this batch's failures is gone. Only here is that known for good, and no
    batch that succeeds pays for it. One of them is kept to be shown, and made only where none is kept."""
    cdef Core* core = batch.core
    cdef PyObject* mine
    core.unread_dropped.fetch_add(batch.unread.load())
    core.gate.lock()
    mine = core.unread_example
    core.gate.unlock()
    if mine != NULL:
        return
    try:
        # Of a record that was at fault, where only some were.
        error = failure_of(batch, min(<dict>batch.record_errors) if batch.record_errors != NULL else 0)
    except BaseException:
        return   # no memory, or the interpreter ends
    Py_INCREF(error)
    mine = <PyObject*>error
    core.gate.lock()
    if core.unread_example == NULL:
        core.unread_example = mine
        mine = NULL
    core.gate.unlock()
    Py_XDECREF(mine)


cdef tuple unread_of(Core* core):
    cdef PyObject* example
    cdef int64_t count = core.unread_dropped.exchange(0)
    core.gate.lock()
    example = core.unread_example
    core.unread_example = NULL
    core.gate.unlock()
    if example == NULL:
        return count, None
    error = <object>example
    Py_DECREF(error)
    return count, error
