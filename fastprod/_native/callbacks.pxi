# Delivery callbacks: how those of a batch that has ended are run, on the control thread or at once on the user's.

cdef struct Spare:
    # The metadata of the record before, to be filled anew; its topic and partition live as long as the plane.
    PyObject* metadata   # NULL or owned
    Partition* partition
    cbool log_append_time
    Facts facts


cdef inline void replace_item(object row, Py_ssize_t at, object item) noexcept:
    cdef PyObject* old = PyTuple_GET_ITEM(row, at)
    Py_INCREF(item)
    PyTuple_SET_ITEM(row, at, item)
    Py_DECREF(<object>old)


cdef void refill_metadata(object metadata, Batch* batch, Facts* facts, Spare* before) noexcept:
    """Turn the metadata of another record, which nobody else holds, into this one's; most of it is mostly the same."""
    cdef cbool same = before.partition == batch.partition
    fp_forget_hash(metadata)
    if not same:
        replace_item(metadata, 0, <object>batch.partition.topic_name)
        replace_item(metadata, 1, <object>batch.partition.number)
        replace_item(metadata, 2, <object>batch.partition.topic_partition)
    replace_item(metadata, 3, offset_of(batch, facts.index))
    if batch.log_append_time >= 0 or before.log_append_time or facts.timestamp != before.facts.timestamp:
        replace_item(metadata, 4, timestamp_of(batch, facts))
    if facts.key_size != before.facts.key_size:
        replace_item(metadata, 6, facts.key_size)
    if facts.value_size != before.facts.value_size:
        replace_item(metadata, 7, facts.value_size)
    if facts.header_size != before.facts.header_size:
        replace_item(metadata, 8, facts.header_size)


cdef inline void remember(Spare* spare, Batch* batch, Facts* facts) noexcept nogil:
    spare.partition = batch.partition
    spare.log_append_time = batch.log_append_time >= 0
    spare.facts = facts[0]


cdef object failure_for(CallbackEntry* entry, Batch* batch):
    """The copy of the error that an errback gets whose future may be gone."""
    error = failures.own(failure_of(batch, entry.facts.index))
    if entry.reads:
        entry.reads = False
        mark_read(batch, 1)
    return error


cdef inline int call_with(CallbackEntry* entry, object value) except -1:
    cdef tuple args
    cdef dict kwargs
    if entry.extra == NULL:
        PyObject_CallOneArg(<object>entry.function, value)
    else:
        args, kwargs = <tuple>entry.extra
        (<object>entry.function)(*args, value, **kwargs)
    return 0


cdef object call_back(CallbackEntry* entry, Batch* batch, FutureRecordMetadata future):
    """Call one registered function on the user's thread, if it is for this outcome. What it raises is logged; a
    KeyboardInterrupt or the like is returned. `future` is that of the record."""
    cdef bint succeeded = outcome_of(batch) == SUCCEEDED
    if entry.kind == (1 if succeeded else 0):
        return None
    try:
        call_with(entry, new_metadata(batch, &entry.facts) if succeeded
                  else own_failure(future, batch, entry.facts.index))
    except BaseException as raised:
        interrupted = log_raised()
        return interrupted if isinstance(raised, Exception) else raised
    return None


cdef object log_raised():
    """Tell of what a callback raised: it must not take the producer with it, not even by SystemExit. A logging filter
    of the user's may raise as well; a KeyboardInterrupt or the like is returned."""
    try:
        log.exception("a delivery callback raised; the record's outcome stands")
    except BaseException as raised:
        return None if isinstance(raised, Exception) else raised
    return None


cdef inline int call_succeeded(CallbackEntry* entry, Batch* batch, Spare* spare) except -1:
    """Call one function of an acknowledged record, with metadata that is filled anew, as zip() does with its tuples,
    when the callback before did not keep it. `spare`: NULL, or what keeps it."""
    cdef object value
    if spare != NULL and spare.metadata != NULL and Py_REFCNT(spare.metadata) == 1:
        value = <object>spare.metadata
        refill_metadata(value, batch, &entry.facts, spare)
        remember(spare, batch, &entry.facts)
    else:
        value = new_metadata(batch, &entry.facts)
        if spare != NULL:
            Py_XDECREF(spare.metadata)
            Py_INCREF(value)
            spare.metadata = <PyObject*>value
            remember(spare, batch, &entry.facts)
    return call_with(entry, value)


cdef int call_all(vector[CallbackEntry]& entries, size_t* i, Batch* batch, Spare* spare) except -1:
    """Call the registered functions from `i` on that are for this outcome. One that raises ends it; `i` is past it."""
    cdef bint succeeded = outcome_of(batch) == SUCCEEDED
    cdef CallbackEntry* entry
    while i[0] < entries.size():
        entry = &entries[i[0]]
        i[0] += 1
        if entry.kind == (1 if succeeded else 0):
            continue
        if succeeded:
            call_succeeded(entry, batch, spare)
        else:
            call_with(entry, failure_for(entry, batch))
        if is_inherited(batch):
            break   # that callback forked, and this is the child
    return 0


cdef cbool by_index(const CallbackEntry& a, const CallbackEntry& b) noexcept nogil:
    return a.facts.index < b.facts.index


cdef void sort_callbacks(vector[CallbackEntry]& entries) noexcept nogil:
    cdef size_t i
    for i in range(1, entries.size()):
        if entries[i].facts.index < entries[i - 1].facts.index:
            stable_sort(entries.begin(), entries.end(), &by_index)
            return


cdef void run_due(Batch* batch, Spare* spare) noexcept:
    """Run the callbacks of an ended batch, in record order, until none is left; then wake its waiters."""
    cdef vector[CallbackEntry] entries
    cdef size_t i
    cdef int64_t began = now_ns()
    while True:
        batch.gate.lock()
        entries.swap(batch.callbacks)
        if entries.empty():
            batch.callback_state.store(CALLBACKS_FINISHED)
        batch.gate.unlock()
        if entries.empty():
            break
        sort_callbacks(entries)
        i = 0
        while i < entries.size():
            try:
                # Without a GIL a reference count does not say that nobody else holds the metadata.
                call_all(entries, &i, batch, spare if GIL else NULL)
            except BaseException:
                log_raised()
            if is_inherited(batch):
                return
        drop_callbacks(entries)
    pay_back(batch, batch.charge)
    settle(batch)
    release_held(batch)
    began = now_ns() - began
    if began > SECOND:
        try:
            log.warning("the delivery callbacks of one batch took %.1f s; they delay other callbacks and decisions",
                        began / 1e9)
        except Exception:
            pass
