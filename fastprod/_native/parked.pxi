# A parked batch as the control plane sees it.


cdef class ParkedBatch:
    """A batch that waits for a verdict: what happened to it, and what its partition knows."""
    cdef Batch* batch
    cdef bint decided
    cdef readonly str topic
    cdef readonly int partition, node_id, error_code, attempts, record_count, size, codec
    cdef readonly object error_message, record_errors, leader_hint
    cdef readonly long long log_start_offset, base_timestamp, producer_id, last_acked_offset
    cdef readonly double created
    cdef readonly bint done, reached, unknown, split, overtaken, later_unknown, later_lost, settled
    cdef readonly int producer_epoch, base_sequence, last_acked_sequence, unresolved_sequence

    def __cinit__(self):
        self.batch = NULL

    def __dealloc__(self):
        if self.batch != NULL:
            release_held(self.batch)

    cdef void let_go(self) noexcept:
        """The verdict is carried out. Who keeps this object does not keep the batch, and with it the plane."""
        cdef Batch* batch = self.batch
        self.batch = NULL
        if batch != NULL:
            release_held(batch)

    def body(self) -> bytes:
        """The records as they were sealed: compressed when `codec` is not 0."""
        if self.batch == NULL or self.batch.data == NULL:
            raise errors.IllegalStateError("the batch has been decided upon; its bytes are gone")
        return PyBytes_FromStringAndSize(<char*>self.batch.data, self.batch.used)


cdef inline cbool same_identity(Batch* batch, Partition* partition) noexcept nogil:
    """Whether it is stamped, and by the identity that the partition has now."""
    return (batch.producer_id >= 0 and batch.producer_id == partition.producer_id
            and batch.producer_epoch == partition.producer_epoch)


cdef ParkedBatch parked_from(Event* event):
    cdef ParkedBatch parked = ParkedBatch.__new__(ParkedBatch)
    cdef Batch* batch = event.batch
    cdef Partition* partition = batch.partition
    cdef size_t i
    parked.batch = batch   # the event's reference becomes the object's
    parked.decided = False
    parked.topic, parked.partition = <object>partition.topic_partition
    parked.node_id = event.node
    parked.error_code = event.code
    parked.error_message = event.text.decode("utf-8", "replace") if event.has_text else None
    parked.record_errors = []
    for i in range(event.record_errors.size()):
        message = event.record_errors[i].second.decode("utf-8", "replace")
        parked.record_errors.append((event.record_errors[i].first, message or None))
    parked.leader_hint = None
    if event.has_hint:
        parked.leader_hint = (event.hint_node, event.hint_epoch,
                              event.hint_host.decode("utf-8", "replace") or None, event.hint_port)
    parked.log_start_offset = event.log_start_offset
    lock_detached(&partition.gate)
    parked.attempts = batch.attempts
    parked.record_count = batch.count
    parked.size = BATCH_HEADER + batch.used
    parked.codec = batch.codec
    parked.base_timestamp = batch.base_timestamp
    parked.created = batch.created / 1e9
    parked.done = batch.ended
    parked.reached = batch.reached
    parked.unknown = batch.unknown
    parked.settled = batch.settled
    parked.split = batch.split_product
    parked.producer_id = batch.producer_id
    parked.producer_epoch = batch.producer_epoch
    parked.base_sequence = batch.base_sequence
    parked.last_acked_sequence = partition.last_acked_sequence
    parked.last_acked_offset = partition.last_acked_offset
    parked.unresolved_sequence = partition.unresolved
    parked.overtaken = same_identity(batch, partition) and batch.ordinal < partition.last_acked_ordinal
    parked.later_lost = partition.unresolved != UNRESOLVED_NONE and partition.unresolved_ordinal > batch.ordinal
    parked.later_unknown = False
    for i in range(partition.queue.size()):
        if (partition.queue[i].unknown and not partition.queue[i].split_product
                and partition.queue[i].ordinal > batch.ordinal and same_identity(partition.queue[i], partition)):
            parked.later_unknown = True
    partition.gate.unlock()
    return parked
