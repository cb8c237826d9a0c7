# Counters for metrics; their names are in DESIGN.md. Maxima are those since they were last asked for.

cdef dict counters_of(Core* core, dict known):
    """Totals of the whole producer. `known`: its routes, by topic."""
    cdef Totals totals
    cdef size_t due, memory
    result = append_counters_of(known)
    core.gate.lock()
    totals = core.totals
    due = core.due.size()
    core.totals.batch_size_max = core.totals.queue_time_max = 0
    core.totals.request_size_max = core.totals.latency_max = core.totals.throttle_max = 0
    core.gate.unlock()
    core.pool_gate.lock()
    memory = core.charged
    core.pool_gate.unlock()
    result.update({
        "batches_sent": totals.batches_sent, "batch_bytes": totals.batch_bytes,
        "batch_size_max": totals.batch_size_max, "uncompressed_bytes": totals.uncompressed_bytes,
        "compressed_bytes": totals.compressed_bytes, "records_sent": totals.records_sent,
        "records_acked": totals.records_acked, "records_failed": totals.records_failed,
        "records_retried": totals.records_retried, "queue_time_ms": totals.queue_time,
        "queue_time_max_ms": totals.queue_time_max, "connections_opened": totals.connections_opened,
        "connections_closed": totals.connections_closed, "callbacks_waiting": <double>due,
        "memory_used": <double>memory, "request_size_max": totals.request_size_max,
        "latency_max_ms": totals.latency_max, "throttle_max_ms": totals.throttle_max,
        "connections": totals.connections_opened - totals.connections_closed,
    })
    result["records_queued"] = result["records_appended"] - totals.records_ended
    result["bytes_queued"] = result["record_bytes"] - totals.bytes_ended
    nodes = node_counters_of(core, False)
    for name in ("requests", "responses", "request_bytes", "response_bytes", "latency_ms", "throttle_ms"):
        result[name] = sum(node[name] for node in nodes.values())
    result["requests_in_flight"] = sum(node["in_flight"] for node in nodes.values())
    return result


cdef dict append_counters_of(dict known):
    """What senders count, in their partitions."""
    cdef TopicRoute route
    cdef vector[Partition*] partitions
    cdef Partition* partition
    cdef size_t i
    cdef double records = 0, size = 0, largest = 0
    for route in list(known.values()):
        partitions = ever_of(route.topic_)
        for i in range(partitions.size()):
            partition = partitions[i]
            lock_detached(&partition.gate)
            records += partition.records_appended
            size += partition.record_bytes
            largest = max(largest, <double>partition.record_size_max)
            partition.record_size_max = 0
            partition.gate.unlock()
    return {"records_appended": records, "record_bytes": size, "record_size_max": largest}


cdef dict topic_counters_of(Core* core, dict known):
    """Totals by topic."""
    cdef TopicRoute route
    cdef TopicTotals totals
    result = {}
    for name, route in list(known.items()):
        core.gate.lock()
        totals = route.topic_.totals
        core.gate.unlock()
        result[name] = {
            "records_sent": totals.records_sent, "batch_bytes": totals.batch_bytes,
            "uncompressed_bytes": totals.uncompressed_bytes, "compressed_bytes": totals.compressed_bytes,
            "records_retried": totals.records_retried, "records_failed": totals.records_failed,
            "batches_sent": totals.batches_sent, "largest_batch": totals.largest_batch,
        }
    return result


cdef dict node_counters_of(Core* core, bint reset):
    """Totals by broker. `reset`: maxima begin anew."""
    cdef vector[Outbox*] outboxes
    cdef NodeTotals totals
    cdef Outbox* outbox
    cdef size_t i
    cdef dict result = {}
    core.gate.lock()
    outboxes = core.outbox_list
    core.gate.unlock()
    for i in range(outboxes.size()):
        outbox = outboxes[i]
        core.gate.lock()
        totals = outbox.totals
        if reset:
            outbox.totals.request_size_max = outbox.totals.latency_max = outbox.totals.throttle_max = 0
        core.gate.unlock()
        result[outbox.node] = {
            "requests": totals.requests, "responses": totals.responses, "request_bytes": totals.request_bytes,
            "request_size_max": totals.request_size_max, "response_bytes": totals.response_bytes,
            "latency_ms": totals.latency, "latency_max_ms": totals.latency_max,
            "throttle_ms": totals.throttle, "throttle_max_ms": totals.throttle_max,
            "in_flight": <double>outbox.unanswered.load(),
        }
    return result
