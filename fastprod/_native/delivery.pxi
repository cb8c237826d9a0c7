# How a batch ends, and who is told: futures that look, callbacks that become due (callbacks.pxi), waiters that wake.
#
# A batch is counted by references: one for the accumulator, one for each future, one while callbacks are due. The I/O
# thread may drop the last one without the interpreter; then the batch waits in `trash` until somebody holds it.

from cpython.tuple cimport PyTuple_SET_ITEM

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        void (*tp_dealloc)(PyObject*) noexcept
        unsigned long tp_flags
    const unsigned long Py_TPFLAGS_HEAPTYPE
    object PyType_GenericAlloc(PyTypeObject* type, Py_ssize_t items)
    object _PyObject_New(PyTypeObject* type)
    void PyObject_Free(void* memory)
    object PyObject_CallOneArg(object function, object argument)
    PyObject* PyTuple_GET_ITEM(object row, Py_ssize_t at)
    Py_ssize_t Py_REFCNT(PyObject* thing)

cdef extern from *:
    """
    /* From 3.14 on a tuple remembers its hash; -1: not computed yet. */
    #if PY_VERSION_HEX >= 0x030E0000
    #define fp_forget_hash(row) (((PyTupleObject*)(row))->ob_hash = -1)
    #else
    #define fp_forget_hash(row) ((void)0)
    #endif
    """
    void fp_forget_hash(object row) noexcept

cdef class FutureRecordMetadata


cdef Batch* new_batch() noexcept nogil:
    cdef Batch* batch = new Batch()
    live_batches.fetch_add(1)
    batch.refs.store(1)
    batch.lent = 0
    batch.outcome.store(PENDING)
    batch.waiters.store(0)
    batch.core = NULL
    batch.partition = NULL
    batch.plane = NULL
    batch.data = NULL
    batch.capacity = batch.used = batch.charge = batch.entries_charge = batch.raw_size = 0
    batch.count = 0
    batch.base_timestamp = batch.max_timestamp = -1
    batch.created = 0
    batch.flush_epoch = 0
    batch.accepts = batch.full = batch.split_product = batch.sealed = False
    batch.codec = 0
    batch.compressing.store(NOT_GIVEN)
    batch.body_crc = 0
    batch.ordinal = batch.span = batch.place = 0
    batch.producer_id = -1
    batch.producer_epoch = -1
    batch.base_sequence = -1
    batch.attempts = batch.last_error = 0
    batch.last_node = batch.leader = -1
    batch.reached = batch.unknown = batch.doubted = batch.ended = batch.in_request = batch.maybe_written = False
    batch.settled = batch.throttled = False
    batch.base_offset = batch.log_append_time = -1
    batch.elapsed_ms = 0
    batch.error.store(NULL)
    batch.record_errors = batch.value = NULL
    batch.in_flight = False
    batch.unread.store(0)
    batch.callback_state.store(CALLBACKS_OPEN)
    return batch


cdef inline void retain(Batch* batch) noexcept nogil:
    batch.refs.fetch_add(1, memory_order_relaxed)


cdef inline void accept_records(Batch* batch) noexcept nogil:
    """Make it the tail that appends go to. Each append takes a reference for its future out of what is put in store
    here, which costs no atomic step; what is left goes back when it takes no more (`refuse_records`)."""
    batch.refs.fetch_add(LENT, memory_order_relaxed)
    batch.accepts = True
    batch.partition.tail = batch


cdef inline void refuse_records(Batch* batch) noexcept nogil:
    """No appends any more. The partition's lock is held, and somebody has a reference."""
    if batch.accepts:
        batch.accepts = False
        batch.partition.tail = NULL
        batch.refs.fetch_sub(LENT - batch.lent, memory_order_acq_rel)


cdef inline cbool is_inherited(Batch* batch) noexcept nogil:
    """Whether it belongs to a core whose threads are in the parent of this process."""
    return batch.core != NULL and batch.core.forked.load(memory_order_relaxed) != 0


cdef inline int outcome_of(Batch* batch) noexcept nogil:
    cdef int outcome = batch.outcome.load()
    return INHERITED if outcome == PENDING and is_inherited(batch) else outcome


cdef inline void release(Batch* batch) noexcept nogil:
    """Drop a reference without the interpreter."""
    if batch.refs.fetch_sub(1, memory_order_acq_rel) == 1:
        batch.core.gate.lock()
        batch.core.trash.push_back(batch)
        batch.core.trashed.store(1, memory_order_relaxed)
        batch.core.gate.unlock()


cdef inline void release_held(Batch* batch) noexcept:
    """Drop a reference while holding the interpreter."""
    if batch.refs.fetch_sub(1, memory_order_acq_rel) == 1:
        destroy(batch)


cdef void drop_callbacks(vector[CallbackEntry]& entries) noexcept:
    cdef size_t i
    for i in range(entries.size()):
        Py_XDECREF(entries[i].function)
        Py_XDECREF(entries[i].extra)
    entries.clear()


cdef void destroy(Batch* batch) noexcept:
    cdef size_t i
    cdef PyObject* plane = batch.plane
    if is_inherited(batch):
        return   # the pool's lock may be held for good; the pages are the parent's anyway
    if batch.unread.load():
        note_unread(batch)
    if batch.data != NULL:
        free_body(batch)
    for i in range(batch.children.size()):
        release_held(batch.children[i].batch)
    drop_callbacks(batch.callbacks)
    Py_XDECREF(batch.error.load())
    Py_XDECREF(batch.record_errors)
    Py_XDECREF(batch.value)
    del batch
    live_batches.fetch_sub(1)
    Py_XDECREF(plane)


cdef void empty_trash(Core* core) noexcept:
    cdef vector[Batch*] trash
    cdef size_t i
    if not core.trashed.load(memory_order_relaxed):
        return
    core.gate.lock()
    core.trashed.store(0, memory_order_relaxed)
    trash.swap(core.trash)
    core.gate.unlock()
    for i in range(trash.size()):
        destroy(trash[i])


cdef void tell(Core* core) noexcept nogil:
    """One byte in event_fd, unless one lies there that nobody has answered yet."""
    cdef fp_piece piece
    if core.told.exchange(1) == 0:
        piece.data = <const unsigned char*>b"!"
        piece.size = 1
        fp_write(core.event_fd, &piece, 1)


cdef inline cbool no_callback_left(Batch* batch) noexcept nogil:
    return batch.callback_state.load() == CALLBACKS_FINISHED or is_inherited(batch)


cdef inline cbool settled(Batch* batch) noexcept nogil:
    """Whether it is known what became of the batch, and its callbacks have run. One that was split since it was looked
    up has handed them down, and knows nothing."""
    return no_callback_left(batch) and batch.outcome.load() != SPLIT


cdef void end_batch(Batch* batch, int outcome) noexcept nogil:
    """Publish how the batch ended. The caller has claimed it (`ended`, under the partition's lock) and written the
    fields of the outcome; a callback registered from now on finds it ended or is found by whoever runs them."""
    cdef Core* core = batch.core
    cdef cbool due
    if outcome != SUCCEEDED:
        batch.unread.store(batch.count)   # until a future or an errback gets the error (`own_failure`)
        core.unread.fetch_add(batch.count)
        batch.leader = batch.partition.leader.load()
        if batch.elapsed_ms == 0:
            batch.elapsed_ms = (now_ns() - batch.created) / 1e6
    due = publish(batch, outcome)
    if due:
        # Before it is due: once it is, the control thread may have run the callbacks and taken this off again.
        core.pool_gate.lock()
        core.owed += batch.charge
        core.pool_gate.unlock()
    core.gate.lock()
    count_ended(core, batch, outcome)
    if due:
        retain(batch)
        core.due.push_back(batch)
    core.gate.unlock()
    if due:
        tell(core)
    else:
        pay_back(batch, 0)
        settle(batch)


cdef inline cbool publish(Batch* batch, int outcome) noexcept nogil:
    """Let futures see how it ended; whether it has callbacks to run."""
    cdef cbool due
    batch.gate.lock()
    batch.outcome.store(outcome)
    due = not batch.callbacks.empty()
    batch.callback_state.store(CALLBACKS_DUE if due else CALLBACKS_FINISHED)
    batch.gate.unlock()
    return due


cdef inline void count_ended(Core* core, Batch* batch, int outcome) noexcept nogil:
    """The core's lock is held."""
    cdef size_t size = batch.raw_size if batch.sealed else batch.used
    core.totals.records_ended += batch.count
    core.totals.bytes_ended += size
    land(batch)
    if outcome == SUCCEEDED:
        core.totals.records_acked += batch.count
        core.totals.bytes_acked += size
    else:
        core.totals.records_failed += batch.count
        core.totals.bytes_failed += size
        batch.partition.topic.totals.records_failed += batch.count


cdef void end_acknowledged(Core* core, vector[Acknowledged]& batches) noexcept nogil:
    """What `end_batch` and `free_body` do for one, for batches that are in the log; those that were not claimed have
    ended before, and only give back their bytes."""
    cdef Batch* batch
    cdef cbool any_due = False, waited_for = False
    cdef size_t i
    core.gate.lock()
    for i in range(batches.size()):
        if batches[i].claimed:
            count_ended(core, batches[i].batch, SUCCEEDED)
    core.gate.unlock()
    for i in range(batches.size()):
        if batches[i].claimed:
            batches[i].due = publish(batches[i].batch, SUCCEEDED)
            any_due = any_due or batches[i].due
    free_bodies(core, batches)
    if any_due:
        core.gate.lock()
        for i in range(batches.size()):
            if batches[i].due:
                retain(batches[i].batch)
                core.due.push_back(batches[i].batch)
        core.gate.unlock()
        tell(core)
    for i in range(batches.size()):
        if batches[i].claimed and not batches[i].due:
            pay_back(batches[i].batch, 0)
    core.done_gate.lock()
    for i in range(batches.size()):
        batch = batches[i].batch
        if batches[i].claimed and not batches[i].due:
            count_settled(core, batch)
            waited_for = waited_for or batch.waiters.load()
    core.done_gate.unlock()
    if waited_for or core.flush_waiters.load():
        core.done.notify_all()


cdef void charge_entries(Batch* batch) noexcept nogil:
    """Registered callbacks take memory, too: it is owed until they have run. The batch's lock is held."""
    cdef size_t size = batch.callbacks.capacity() * sizeof(CallbackEntry)
    if size > batch.entries_charge:
        batch.core.pool_gate.lock()
        batch.core.owed += size - batch.entries_charge
        batch.core.pool_gate.unlock()
        batch.entries_charge = size


cdef void pay_back(Batch* batch, size_t charge) noexcept nogil:
    """No callback is left: neither they nor `charge` bytes of the batch are owed any more."""
    cdef Core* core = batch.core
    charge += batch.entries_charge
    if not charge:
        return
    batch.entries_charge = 0
    core.pool_gate.lock()
    core.owed -= charge
    core.pool_changes += 1
    core.pool_gate.unlock()
    core.pool_freed.notify_all()


cdef inline void land(Batch* batch) noexcept nogil:
    """Count the batch as in flight no more, if it was. The core's lock is held."""
    if batch.in_flight:
        batch.in_flight = False
        batch.core.totals.records_in_flight -= batch.count
        batch.core.totals.bytes_in_flight -= batch.raw_size


cdef void settle(Batch* batch) noexcept nogil:
    """The batch ended and its callbacks have run: wake who waits for it."""
    cdef Core* core = batch.core
    core.done_gate.lock()
    count_settled(core, batch)
    core.done_gate.unlock()
    if batch.waiters.load() or core.flush_waiters.load():
        core.done.notify_all()


cdef inline void count_settled(Core* core, Batch* batch) noexcept nogil:
    """done_gate is held."""
    cdef int64_t* left = &core.incomplete[batch.flush_epoch]
    left[0] -= 1
    if left[0] == 0:
        core.incomplete.erase(batch.flush_epoch)


cdef void wait_for_end(Core* core, Batch* batch, int64_t nanos) noexcept nogil:
    cdef unique_lock[mutex]* held = new unique_lock[mutex](core.done_gate)
    if not no_callback_left(batch):
        core.done.wait_for(held[0], nanoseconds(nanos))
    del held


cdef inline void put_item(object row, Py_ssize_t at, object item) noexcept:
    Py_INCREF(item)
    PyTuple_SET_ITEM(row, at, item)


cdef object new_metadata(Batch* batch, Facts* facts):
    """A RecordMetadata, its fields put in place one by one: building it by a call would cost three times as much."""
    cdef object metadata
    if batch.value != NULL:
        return <object>batch.value
    metadata = PyType_GenericAlloc(<PyTypeObject*>RecordMetadata, 9)
    fp_forget_hash(metadata)
    put_item(metadata, 0, <object>batch.partition.topic_name)
    put_item(metadata, 1, <object>batch.partition.number)
    put_item(metadata, 2, <object>batch.partition.topic_partition)
    put_item(metadata, 3, offset_of(batch, facts.index))
    put_item(metadata, 4, timestamp_of(batch, facts))
    put_item(metadata, 5, None)
    put_item(metadata, 6, facts.key_size)
    put_item(metadata, 7, facts.value_size)
    put_item(metadata, 8, facts.header_size)
    return metadata


cdef inline object offset_of(Batch* batch, int32_t index):
    if batch.base_offset < 0:
        return -1
    return <int64_t>(<uint64_t>batch.base_offset + <uint64_t>index)   # a broker may say anything


cdef inline object timestamp_of(Batch* batch, Facts* facts):
    return batch.log_append_time if batch.log_append_time >= 0 else facts.timestamp


cdef object history_of(Batch* batch, elapsed_ms):
    """What was tried with a batch that has failed, in words; what is known against its leader is as of now."""
    cdef dict troubles = (<DataPlane>batch.plane).troubles
    held_by = troubles.get(None, "") or (failures.throttled(batch.leader) if batch.throttled else "")
    return failures.history(batch.attempts, batch.last_node, batch.last_error, batch.leader,
                            troubles.get(batch.leader, ""), <bint>batch.maybe_written, elapsed_ms, held_by)


cdef object failure_of(Batch* batch, int32_t index):
    """The exception of a failed batch, or of one record of it. What is handed out are copies (`own_failure`)."""
    cdef object error, chosen
    cdef PyObject* mine
    cdef int outcome = outcome_of(batch)
    if batch.record_errors != NULL:
        chosen = (<dict>batch.record_errors).get(index)
        if chosen is not None:
            return chosen
    mine = batch.error.load(memory_order_acquire)
    if mine != NULL:
        return <object>mine
    topic, number = <object>batch.partition.topic_partition
    if outcome == INHERITED:
        return failures.inherited(topic, number)
    if outcome == EXPIRED:
        error = failures.expired(topic, number, batch.count, batch.elapsed_ms,
                                 batch.core.delivery_timeout / 1e6, history_of(batch, None), batch.maybe_written)
    elif outcome == OUT_OF_ORDER:
        error = failures.behind_a_failed_batch(topic, number, history_of(batch, batch.elapsed_ms))
    else:
        error = failures.partition_vanished(topic, number, batch.partition.topic.partitions.size(),
                                            history_of(batch, batch.elapsed_ms))
    error.maybe_written = <bint>batch.maybe_written
    if is_inherited(batch):
        return error   # the batch's lock may be held for good
    Py_INCREF(error)
    mine = <PyObject*>error
    batch.gate.lock()
    if batch.error.load() == NULL:
        batch.error.store(mine)
        mine = NULL
    batch.gate.unlock()
    Py_XDECREF(mine)
    return <object>batch.error.load()


cdef void mark_read(Batch* batch, int count) noexcept:
    """Somebody has got the errors of so many records."""
    if batch.core != NULL and not is_inherited(batch) and batch.unread.load():
        batch.unread.fetch_sub(count)
        batch.core.unread.fetch_sub(count)


cdef inline Batch* child_with(Batch* batch, int32_t* index) noexcept nogil:
    """The child that has record `index` of a batch, whose place there `index` becomes."""
    cdef size_t i = batch.children.size() - 1
    while batch.children[i].first > index[0]:
        i -= 1
    index[0] -= batch.children[i].first
    return batch.children[i].batch


cdef inline int look(Batch** batch, int32_t* index) noexcept nogil:
    """How record `index` of `batch` has ended; both become those of the batch that decides it now: itself, or a child
    once it was split. Never SPLIT: who asks the batch again may find that it was split meanwhile."""
    cdef int outcome = batch[0].outcome.load()
    while outcome == SPLIT:
        batch[0] = child_with(batch[0], index)
        outcome = batch[0].outcome.load()
    return INHERITED if outcome == PENDING and is_inherited(batch[0]) else outcome


cdef inline Batch* leaf_of(Batch* batch, int32_t* index) noexcept nogil:
    """The batch that decides record `index` of `batch` now."""
    look(&batch, index)
    return batch


cdef Batch* detached(int outcome, value) except NULL:
    """An outcome of its own, for a future that no batch decides."""
    cdef Batch* batch = new_batch()
    batch.outcome.store(outcome)
    batch.callback_state.store(CALLBACKS_FINISHED)
    Py_INCREF(value)
    if outcome == SUCCEEDED:
        batch.value = <PyObject*>value
    else:
        batch.error.store(<PyObject*>value)
    return batch
