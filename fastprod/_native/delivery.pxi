# How a batch ends, and who is told: futures that look, callbacks that are run, waiters that are woken.
#
# A batch is counted by references: one for the accumulator, one for each future, one while callbacks are due. The I/O
# thread may drop the last one without the interpreter; then the batch waits in `trash` until somebody holds it.

from cpython.tuple cimport PyTuple_SET_ITEM

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        pass
    object PyType_GenericAlloc(PyTypeObject* type, Py_ssize_t items)
    object PyObject_CallOneArg(object function, object argument)
    PyObject* PyTuple_GET_ITEM(object row, Py_ssize_t at)
    Py_ssize_t Py_REFCNT(object thing)
    void PyObject_GC_Track(PyObject* thing)
    void PyObject_GC_UnTrack(PyObject* thing)

cdef extern from *:
    """
    #ifndef FASTPROD_DEBUG
    #define FASTPROD_DEBUG 0
    #endif
    #ifdef Py_GIL_DISABLED
    #define FASTPROD_REUSE 0
    #else
    #define FASTPROD_REUSE 1
    #endif
    /* From 3.14 on a tuple remembers its hash; -1: not computed yet. */
    #if PY_VERSION_HEX >= 0x030E0000
    #define fp_forget_hash(row) (((PyTupleObject*)(row))->ob_hash = -1)
    #else
    #define fp_forget_hash(row) ((void)0)
    #endif
    """
    void fp_forget_hash(object row) noexcept
    bint REUSE_METADATA "FASTPROD_REUSE"  # a reference count says "nobody else" only under the interpreter's lock
    bint COUNT_FUTURES "FASTPROD_DEBUG"   # two atomic steps a record: debug builds only

cdef atomic[int64_t] live_batches
cdef atomic[int64_t] live_futures
live_batches.store(0)
live_futures.store(0)


cdef Batch* new_batch() noexcept nogil:
    cdef Batch* batch = new Batch()
    live_batches.fetch_add(1)
    batch.refs.store(1)
    batch.outcome.store(PENDING)
    batch.waiters.store(0)
    batch.core = NULL
    batch.partition = NULL
    batch.plane = NULL
    batch.data = NULL
    batch.capacity = batch.used = batch.charge = batch.raw_size = 0
    batch.count = 0
    batch.base_timestamp = batch.max_timestamp = -1
    batch.created = 0
    batch.flush_epoch = 0
    batch.accepts = batch.full = batch.split_product = batch.sealed = False
    batch.codec = 0
    batch.body_crc = 0
    batch.ordinal = batch.span = batch.place = 0
    batch.producer_id = -1
    batch.producer_epoch = -1
    batch.base_sequence = -1
    batch.attempts = batch.last_error = 0
    batch.last_node = batch.leader = -1
    batch.reached = batch.unknown = batch.ended = batch.in_request = batch.maybe_written = False
    batch.base_offset = batch.log_append_time = -1
    batch.elapsed_ms = 0
    batch.error = batch.record_errors = batch.value = NULL
    batch.in_flight = False
    batch.unread.store(0)
    batch.callback_state.store(CALLBACKS_OPEN)
    return batch


cdef inline void retain(Batch* batch) noexcept nogil:
    batch.refs.fetch_add(1, memory_order_relaxed)


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
        batch.core.gate.unlock()


cdef inline void release_held(Batch* batch) noexcept:
    """Drop a reference while holding the interpreter."""
    if batch.refs.fetch_sub(1, memory_order_acq_rel) == 1:
        destroy(batch)


cdef void drop_callbacks(vector[CallbackEntry]& entries) noexcept:
    cdef size_t i
    for i in range(entries.size()):
        Py_XDECREF(entries[i].future)
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
    Py_XDECREF(batch.error)
    Py_XDECREF(batch.record_errors)
    Py_XDECREF(batch.value)
    del batch
    live_batches.fetch_sub(1)
    Py_XDECREF(plane)


cdef void empty_trash(Core* core) noexcept:
    cdef vector[Batch*] trash
    cdef size_t i
    core.gate.lock()
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


cdef inline cbool settled(Batch* batch) noexcept nogil:
    return batch.callback_state.load() == CALLBACKS_FINISHED or is_inherited(batch)


cdef void end_batch(Batch* batch, int outcome) noexcept nogil:
    """Publish how the batch ended. The caller has claimed it (`ended`, under the partition's lock) and written the
    fields of the outcome; a callback registered from now on finds it ended or is found by whoever runs them."""
    cdef Core* core = batch.core
    cdef cbool due
    cdef size_t size = batch.raw_size if batch.sealed else batch.used
    if outcome != SUCCEEDED:
        batch.unread.store(batch.count)   # until a future or an errback gets the error (`own_failure`)
        core.unread.fetch_add(batch.count)
        batch.leader = batch.partition.leader.load()
        if batch.elapsed_ms == 0:
            batch.elapsed_ms = (now_ns() - batch.created) / 1e6
    batch.gate.lock()
    batch.outcome.store(outcome)
    due = not batch.callbacks.empty()
    batch.callback_state.store(CALLBACKS_DUE if due else CALLBACKS_FINISHED)
    batch.gate.unlock()
    if due:
        # Before it is due: once it is, the control thread may have run the callbacks and taken this off again.
        core.pool_gate.lock()
        core.owed += batch.charge
        core.pool_gate.unlock()
    core.gate.lock()
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
    if due:
        retain(batch)
        core.due.push_back(batch)
    core.gate.unlock()
    if due:
        tell(core)
    else:
        settle(batch)


cdef inline void land(Batch* batch) noexcept nogil:
    """Count the batch as in flight no more, if it was. The core's lock is held."""
    if batch.in_flight:
        batch.in_flight = False
        batch.core.totals.records_in_flight -= batch.count
        batch.core.totals.bytes_in_flight -= batch.raw_size


cdef void settle(Batch* batch) noexcept nogil:
    """The batch ended and its callbacks have run: wake who waits for it."""
    cdef Core* core = batch.core
    cdef int64_t left
    core.done_gate.lock()
    left = core.incomplete[batch.flush_epoch] - 1
    if left:
        core.incomplete[batch.flush_epoch] = left
    else:
        core.incomplete.erase(batch.flush_epoch)
    core.done_gate.unlock()
    if batch.waiters.load() or core.flush_waiters.load():
        core.done.notify_all()


cdef void wait_for_end(Core* core, Batch* batch, int64_t nanos) noexcept nogil:
    cdef unique_lock[mutex]* held = new unique_lock[mutex](core.done_gate)
    if not settled(batch):
        core.done.wait_for(held[0], nanoseconds(nanos))
    del held


cdef inline void put_item(object row, Py_ssize_t at, object item) noexcept:
    Py_INCREF(item)
    PyTuple_SET_ITEM(row, at, item)


cdef inline void replace_item(object row, Py_ssize_t at, object item) noexcept:
    cdef PyObject* old = PyTuple_GET_ITEM(row, at)
    Py_INCREF(item)
    PyTuple_SET_ITEM(row, at, item)
    Py_DECREF(<object>old)


cdef object new_metadata(Batch* batch, FutureRecordMetadata future, int32_t index):
    """A RecordMetadata, its fields put in place one by one: building it by a call would cost three times as much."""
    cdef object metadata
    if batch.value != NULL:
        return <object>batch.value
    metadata = PyType_GenericAlloc(<PyTypeObject*>RecordMetadata, 9)
    fp_forget_hash(metadata)
    put_item(metadata, 0, <object>batch.partition.topic_name)
    put_item(metadata, 1, <object>batch.partition.number)
    put_item(metadata, 2, <object>batch.partition.topic_partition)
    put_item(metadata, 3, offset_of(batch, index))
    put_item(metadata, 4, timestamp_of(batch, future))
    put_item(metadata, 5, None)
    put_item(metadata, 6, future.key_size)
    put_item(metadata, 7, future.value_size)
    put_item(metadata, 8, future.header_size)
    return metadata


cdef inline object offset_of(Batch* batch, int32_t index):
    if batch.base_offset < 0:
        return -1
    return <int64_t>(<uint64_t>batch.base_offset + <uint64_t>index)   # a broker may say anything


cdef inline object timestamp_of(Batch* batch, FutureRecordMetadata future):
    return batch.log_append_time if batch.log_append_time >= 0 else future.timestamp


cdef void refill_metadata(object metadata, Batch* batch, FutureRecordMetadata future, int32_t index) noexcept:
    """Turn the metadata of another record of this batch, which nobody else holds, into this one's."""
    fp_forget_hash(metadata)
    replace_item(metadata, 3, offset_of(batch, index))
    replace_item(metadata, 4, timestamp_of(batch, future))
    replace_item(metadata, 6, future.key_size)
    replace_item(metadata, 7, future.value_size)
    replace_item(metadata, 8, future.header_size)


cdef object history_of(Batch* batch, elapsed_ms):
    """What was tried with a batch that has failed, in words; what is known against its leader is as of now."""
    trouble = (<DataPlane>batch.plane).troubles.get(batch.leader, "")
    return failures.history(batch.attempts, batch.last_node, batch.last_error, batch.leader, trouble,
                            <bint>batch.maybe_written, elapsed_ms)


cdef object failure_of(Batch* batch, int32_t index):
    """The exception of a failed batch, or of one record of it. Futures hand out copies (`own_failure`)."""
    cdef object error, chosen
    cdef PyObject* mine
    cdef int outcome = outcome_of(batch)
    if batch.record_errors != NULL:
        chosen = (<dict>batch.record_errors).get(index)
        if chosen is not None:
            return chosen
    if batch.error != NULL:
        return <object>batch.error
    if batch.partition == NULL:
        return None   # ended by hand, with None
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
    if batch.error == NULL:
        batch.error = mine
        mine = NULL
    batch.gate.unlock()
    Py_XDECREF(mine)
    return <object>batch.error


cdef int call_with(CallbackEntry* entry, object value) except -1:
    cdef tuple args
    cdef dict kwargs
    if entry.extra == NULL:
        PyObject_CallOneArg(<object>entry.function, value)
    else:
        args, kwargs = <tuple>entry.extra
        (<object>entry.function)(*args, value, **kwargs)
    return 0


cdef void call_back(CallbackEntry* entry, Batch* batch, list spare) noexcept:
    """Call one registered function, if it is for this outcome; what it raises is logged and goes no further.

    `spare`: None, or a list that keeps the metadata of the record before this one in the same batch. When its callback
    did not keep it, it is filled anew, as zip() does with its tuples.
    """
    cdef bint succeeded = outcome_of(batch) == SUCCEEDED
    cdef object value
    if entry.kind == (1 if succeeded else 0):
        return
    try:
        if not succeeded:
            call_with(entry, (<FutureRecordMetadata>entry.future).own_failure(batch, entry.index))
            return
        if spare is not None and batch.value == NULL:
            value = spare[0]
            if value is not None and Py_REFCNT(value) == 2:
                refill_metadata(value, batch, <FutureRecordMetadata>entry.future, entry.index)
            else:
                value = new_metadata(batch, <FutureRecordMetadata>entry.future, entry.index)
                spare[0] = value
        else:
            value = new_metadata(batch, <FutureRecordMetadata>entry.future, entry.index)
        call_with(entry, value)
    except BaseException:
        # A callback must not take the producer with it, not even by SystemExit.
        try:
            log.exception("a delivery callback raised; the record's outcome stands")
        except Exception:   # so may a logging filter of the user's
            pass


cdef cbool by_index(const CallbackEntry& a, const CallbackEntry& b) noexcept nogil:
    return a.index < b.index


cdef void sort_callbacks(vector[CallbackEntry]& entries) noexcept nogil:
    cdef size_t i
    for i in range(1, entries.size()):
        if entries[i].index < entries[i - 1].index:
            stable_sort(entries.begin(), entries.end(), &by_index)
            return


cdef void run_due(Batch* batch) noexcept:
    """Run the callbacks of an ended batch, in record order, until none is left; then wake its waiters."""
    cdef vector[CallbackEntry] entries
    cdef size_t i
    cdef int64_t began = now_ns()
    cdef list spare = [None] if REUSE_METADATA else None
    while True:
        batch.gate.lock()
        entries.swap(batch.callbacks)
        if entries.empty():
            batch.callback_state.store(CALLBACKS_FINISHED)
        batch.gate.unlock()
        if entries.empty():
            break
        sort_callbacks(entries)
        for i in range(entries.size()):
            call_back(&entries[i], batch, spare)
            if is_inherited(batch):
                return   # that callback forked, and this is the child
        drop_callbacks(entries)
    batch.core.pool_gate.lock()
    batch.core.owed -= batch.charge
    batch.core.pool_changes += 1
    batch.core.pool_gate.unlock()
    batch.core.pool_freed.notify_all()
    settle(batch)
    release_held(batch)
    began = now_ns() - began
    if began > SECOND:
        try:
            log.warning("the delivery callbacks of one batch took %.1f s; they delay other callbacks and decisions",
                        began / 1e9)
        except Exception:
            pass


cdef inline Batch* leaf_of(Batch* batch, int32_t* index) noexcept nogil:
    """The batch that decides record `index` of `batch` now: itself, or a child once it was split."""
    cdef size_t i
    while batch.outcome.load() == SPLIT:
        i = batch.children.size() - 1
        while batch.children[i].first > index[0]:
            i -= 1
        index[0] -= batch.children[i].first
        batch = batch.children[i].batch
    return batch


cdef class FutureRecordMetadata:
    """What `send` returns: the outcome of one record.

    `is_done` (bool), `value` (RecordMetadata or None) and `exception` (or None) are attributes. Callbacks run in
    record order on the producer's network thread, or at once, on the registering thread, when the record's batch is
    done. The future keeps the outcome of its batch, never its bytes.
    """
    cdef Batch* batch
    cdef int64_t timestamp
    cdef int32_t index
    cdef int32_t key_size
    cdef int32_t value_size
    cdef int32_t header_size
    # What this future failed with. An exception that is raised gets the frames it passed through, and those mostly
    # hold this very future: a ring that only the garbage collector breaks. It sees no batches, so the exception must
    # be the future's own, not the batch's, and the future tracked; but only from now on, as few futures ever fail.
    cdef object error

    def __cinit__(self):
        PyObject_GC_UnTrack(<PyObject*>self)
        self.batch = NULL
        if COUNT_FUTURES:
            live_futures.fetch_add(1, memory_order_relaxed)

    def __init__(self):
        raise TypeError("FutureRecordMetadata is made by KafkaProducer.send()")

    def __dealloc__(self):
        if COUNT_FUTURES:
            live_futures.fetch_sub(1, memory_order_relaxed)
        if self.batch != NULL:
            release_held(self.batch)

    @staticmethod
    def failed_with(topic: str, partition: int, error: BaseException) -> FutureRecordMetadata:
        """A future that has already failed with `error`."""
        cdef FutureRecordMetadata future = FutureRecordMetadata.__new__(FutureRecordMetadata)
        future.batch = detached(FAILED, None)
        future.keep(error)
        return future

    cdef void keep(self, error) noexcept:
        self.error = error
        PyObject_GC_Track(<PyObject*>self)

    cdef object own_failure(self, Batch* batch, int32_t index):
        if self.error is None:
            error = failures.own(failure_of(batch, index))
            if self.error is None and error is not None:   # making it ran Python: another thread may have been faster
                self.keep(error)
                if batch.core != NULL and not is_inherited(batch) and batch.unread.load():
                    batch.unread.fetch_sub(1)
                    batch.core.unread.fetch_sub(1)
        return self.error

    cdef Batch* leaf(self, int32_t* index) except NULL:
        if self.batch == NULL:   # made by __new__ alone
            self.__init__()
        index[0] = self.index
        return leaf_of(self.batch, index)

    @property
    def is_done(self) -> bool:
        """Whether the record was acknowledged or has failed."""
        cdef int32_t index
        return outcome_of(self.leaf(&index)) != PENDING

    @property
    def value(self):
        """The RecordMetadata once acknowledged, else None."""
        cdef int32_t index
        cdef Batch* batch = self.leaf(&index)
        return new_metadata(batch, self, index) if outcome_of(batch) == SUCCEEDED else None

    @property
    def exception(self):
        """The error once failed, else None; always the same object."""
        cdef int32_t index
        cdef Batch* batch = self.leaf(&index)
        return self.own_failure(batch, index) if outcome_of(batch) > SUCCEEDED else None

    def succeeded(self) -> bool:
        """Whether the record was acknowledged."""
        cdef int32_t index
        cdef Batch* batch = self.leaf(&index)
        if outcome_of(batch) > SUCCEEDED:
            self.own_failure(batch, index)   # whoever asks has seen the failure
        return outcome_of(batch) == SUCCEEDED

    def failed(self) -> bool:
        """Whether the record has failed."""
        cdef int32_t index
        cdef Batch* batch = self.leaf(&index)
        if outcome_of(batch) <= SUCCEEDED:
            return False
        self.own_failure(batch, index)
        return True

    def retriable(self) -> bool:
        """Whether the record has failed with an error that sending it again may mend."""
        return bool(getattr(self.exception, "retriable", False))

    def get(self, timeout=None):
        """The RecordMetadata; waits up to `timeout` seconds (None: without bound) for it.

        Raises the record's error, or KafkaTimeoutError when it is not done in time (it is still on its way then).
        """
        cdef int32_t index
        cdef Batch* batch = self.leaf(&index)
        if not settled(batch):
            batch = self.awaited(timeout, &index)
        if outcome_of(batch) == SUCCEEDED:
            return new_metadata(batch, self, index)
        raise self.own_failure(batch, index)

    cdef Batch* awaited(self, timeout, int32_t* index) except NULL:
        cdef int64_t deadline = NEVER, left
        cdef Batch* batch = self.leaf(index)
        cdef DataPlane plane = <DataPlane>batch.plane
        cdef bint inside = plane.on_control_thread()
        if timeout is not None:
            deadline = now_ns() + <int64_t>(min(max(<double>seconds_of(timeout), 0.0), 1e9) * 1e9)
        while True:
            batch = self.leaf(index)
            if settled(batch) or (inside and outcome_of(batch) != PENDING):
                return batch
            left = min(deadline - now_ns(), SIGNAL_SLICE)
            if left <= 0:
                raise failures.not_done_in_time(timeout)
            if inside:
                plane.engine.pump(left / 1e9)
                continue
            retain(batch)
            batch.waiters.fetch_add(1)
            with nogil:
                wait_for_end(batch.core, batch, left)
            batch.waiters.fetch_sub(1)
            release_held(batch)
            PyErr_CheckSignals()

    def add_callback(self, function, /, *args, **kwargs):
        """Call `function(*args, record_metadata, **kwargs)` once the record is acknowledged. Returns the future."""
        self.register(0, function, args, kwargs)
        return self

    def add_errback(self, function, /, *args, **kwargs):
        """Call `function(*args, error, **kwargs)` once the record has failed. Returns the future."""
        self.register(1, function, args, kwargs)
        return self

    def add_both(self, function, /, *args, **kwargs):
        """Call `function(*args, metadata_or_error, **kwargs)` once the record is done. Returns the future."""
        self.register(2, function, args, kwargs)
        return self

    cdef int register(self, int kind, function, tuple args, dict kwargs) except -1:
        cdef CallbackEntry entry
        cdef Batch* batch
        cdef bint kept
        if not callable(function):
            raise TypeError(f"a callback must be callable, not {type(function).__name__}: {function!r:.80}")
        self.leaf(&entry.index)   # before anything is counted: it may raise
        entry.kind = kind
        entry.future = <PyObject*>self
        entry.function = <PyObject*>function
        entry.extra = NULL
        Py_INCREF(self)
        Py_INCREF(function)
        if args or kwargs:
            extra = (args, kwargs)
            Py_INCREF(extra)
            entry.extra = <PyObject*>extra
        while True:
            batch = self.leaf(&entry.index)
            if is_inherited(batch):
                break
            batch.gate.lock()
            kept = batch.callback_state.load() != CALLBACKS_FINISHED
            if kept:
                batch.callbacks.push_back(entry)
            batch.gate.unlock()
            if kept:
                return 0
            if batch.outcome.load() != SPLIT:
                break
        call_back(&entry, batch, None)
        Py_DECREF(self)
        Py_DECREF(function)
        Py_XDECREF(entry.extra)
        return 0

    def chain(self, future):
        """Let `future` end as this one does. Returns this future."""
        self.add_callback(future.success)
        self.add_errback(future.failure)
        return self

    def success(self, value):
        """End this future by hand with `value`; whatever becomes of the record no longer touches it."""
        self.resolve(detached(SUCCEEDED, value), None)
        return self

    def failure(self, error):
        """End this future by hand with `error` (an exception or an exception class)."""
        self.resolve(detached(FAILED, None), error() if isinstance(error, type) else error)
        return self

    cdef int resolve(self, Batch* outcome, error) except -1:
        cdef vector[CallbackEntry] mine
        cdef size_t i, kept = 0
        cdef int32_t index
        cdef Batch* batch
        cdef Batch* old
        if self.batch == NULL:
            release_held(outcome)
        batch = self.leaf(&index)
        old = self.batch
        if outcome_of(batch) != PENDING:
            release_held(outcome)
            raise errors.IllegalStateError("This future is already complete; success() and failure() come too late.")
        batch.gate.lock()
        for i in range(batch.callbacks.size()):
            if batch.callbacks[i].future == <PyObject*>self:
                mine.push_back(batch.callbacks[i])
            else:
                batch.callbacks[kept] = batch.callbacks[i]
                kept += 1
        batch.callbacks.resize(kept)
        batch.gate.unlock()
        self.batch = outcome
        self.index = 0
        if error is not None:
            self.keep(error)
        for i in range(mine.size()):
            call_back(&mine[i], outcome, None)
        drop_callbacks(mine)
        release_held(old)
        return 0

    def __repr__(self) -> str:
        state = "succeeded" if self.succeeded() else "failed" if self.failed() else "pending"
        return f"<FutureRecordMetadata {state}>"


cdef Batch* detached(int outcome, value) except NULL:
    """An outcome of its own, for a future that no batch decides."""
    cdef Batch* batch = new_batch()
    batch.outcome.store(outcome)
    batch.callback_state.store(CALLBACKS_FINISHED)
    if outcome == SUCCEEDED:
        Py_INCREF(value)
        batch.value = <PyObject*>value
    return batch


def live_objects() -> dict:
    """How many batches exist in this process, and in a debug build how many futures: what leak tests look at."""
    live = {"batches": live_batches.load()}
    if COUNT_FUTURES:
        live["futures"] = live_futures.load()
    return live
