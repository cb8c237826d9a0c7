# What send returns: the outcome of one record, looked at, waited for, told of. Its functions stand outside of the
# class, which so has no table of methods, eight bytes a record.

from weakref import ref as weak_reference

from cpython.exc cimport PyErr_Fetch, PyErr_Restore


cdef enum:
    # `place` of a future: the record's index in its batch, below these bits.
    HAS_ERROR = 1 << 30      # `told` is an owned weak reference to what it failed with, and not the record's timestamp
    IS_READ = 1 << 31        # who looks at the failure has been counted, or will be: an errback reads it


# Its methods are C's, not Cython's function objects: a call takes fifty to a hundred instructions less.
@cython.final
@cython.binding(False)
@cython.embedsignature(True)
@cython.embedsignature.format("clinic")
cdef class FutureRecordMetadata:
    """What `send` returns: the outcome of one record.

    `is_done` (bool), `value` (RecordMetadata or None) and `exception` (or None) are attributes. Callbacks run in
    record order on the producer's network thread, or at once, on the registering thread, when the callbacks of the
    record's batch have run. The future keeps the outcome of its batch, never its bytes.
    """
    # 48 bytes with the object's head: programs keep millions of these. So nothing in it is for the garbage collector,
    # which would take a third more, and what only one of two states needs shares its room.
    cdef atomic[Batch*] batch
    cdef atomic[int64_t] told
    cdef atomic[uint32_t] place
    cdef int32_t key_size, value_size, header_size

    def __cinit__(self):
        self.batch.store(NULL, memory_order_relaxed)
        self.told.store(0, memory_order_relaxed)
        self.place.store(0, memory_order_relaxed)
        if COUNT_FUTURES:
            live_futures.fetch_add(1, memory_order_relaxed)

    def __init__(self):
        raise TypeError("FutureRecordMetadata is made by KafkaProducer.send()")

    def __dealloc__(self):
        empty_future(self.batch.load(memory_order_relaxed), self.place.load(memory_order_relaxed),
                     self.told.load(memory_order_relaxed))

    @staticmethod
    def failed_with(topic: str, partition: int, error: BaseException) -> FutureRecordMetadata:
        """A future that has already failed with `error`. `topic` and `partition` say whose record it was."""
        cdef FutureRecordMetadata future = FutureRecordMetadata.__new__(FutureRecordMetadata)
        future.batch.store(detached(FAILED, error))
        return future

    @property
    def is_done(self) -> bool:
        """Whether the record was acknowledged or has failed."""
        cdef int32_t index
        cdef Batch* batch
        return outcome_now(self, &batch, &index) != PENDING

    @property
    def value(self):
        """The RecordMetadata once acknowledged, else None."""
        cdef int32_t index
        cdef Batch* batch
        return metadata_of(self, batch, index) if outcome_now(self, &batch, &index) == SUCCEEDED else None

    @property
    def exception(self):
        """The error once failed, else None; the same object for as long as somebody holds it."""
        cdef int32_t index
        cdef Batch* batch
        return own_failure(self, batch, index) if outcome_now(self, &batch, &index) > SUCCEEDED else None

    def succeeded(self) -> bool:
        """Whether the record was acknowledged."""
        cdef int32_t index
        cdef Batch* batch
        cdef int outcome = outcome_now(self, &batch, &index)
        if outcome > SUCCEEDED:
            own_failure(self, batch, index)   # whoever asks has seen the failure
        return outcome == SUCCEEDED

    def failed(self) -> bool:
        """Whether the record has failed."""
        cdef int32_t index
        cdef Batch* batch
        if outcome_now(self, &batch, &index) <= SUCCEEDED:
            return False
        own_failure(self, batch, index)
        return True

    def retriable(self) -> bool:
        """Whether the record has failed with an error that sending it again may mend."""
        return bool(getattr(self.exception, "retriable", False))

    def get(self, timeout=None):
        """The RecordMetadata; waits up to `timeout` seconds (None: without bound) for it.

        Raises the record's error, or KafkaTimeoutError when it is not done in time (it is still on its way then). It
        wakes when all callbacks of the record's batch have run.
        """
        cdef int32_t index
        cdef Batch* batch = leaf(self, &index)
        if not settled(batch):
            batch = awaited(self, timeout, deadline_after(timeout), &index)
        if outcome_of(batch) == SUCCEEDED:
            return metadata_of(self, batch, index)
        raise raised_failure(self, batch, index)

    def add_callback(self, function, /, *args, **kwargs):
        """Call `function(*args, record_metadata, **kwargs)` once the record is acknowledged. Returns the future."""
        register(self, 0, function, args, kwargs)
        return self

    def add_errback(self, function, /, *args, **kwargs):
        """Call `function(*args, error, **kwargs)` once the record has failed. Returns the future."""
        register(self, 1, function, args, kwargs)
        return self

    def add_both(self, function, /, *args, **kwargs):
        """Call `function(*args, metadata_or_error, **kwargs)` once the record is done. Returns the future."""
        register(self, 2, function, args, kwargs)
        return self

    def chain(self, future):
        """Let `future`, anything with `success` and `failure`, end as this one does. Returns this future."""
        self.add_callback(future.success)
        self.add_errback(future.failure)
        return self

    def success(self, value):
        """End this future by hand with `value`; whatever becomes of the record no longer touches it.

        Raises IllegalStateError when it is done already. Returns the future.
        """
        resolve(self, detached(SUCCEEDED, value))
        return self

    def failure(self, error):
        """End this future by hand with `error` (an exception or an exception class).

        Raises IllegalStateError when it is done already, TypeError for what is no exception. Returns the future.
        """
        mine = error() if isinstance(error, type) else error
        if not isinstance(mine, BaseException):
            raise failures.not_an_exception(error)
        resolve(self, detached(BY_HAND, mine))
        return self

    def __repr__(self) -> str:
        state = "succeeded" if self.succeeded() else "failed" if self.failed() else "pending"
        return f"<FutureRecordMetadata {state}>"


cdef inline FutureRecordMetadata new_future():
    """One that is filled by whoever asked: no memory is cleared, and nothing is looked up."""
    cdef FutureRecordMetadata future = <FutureRecordMetadata>_PyObject_New(<PyTypeObject*>FutureRecordMetadata)
    if COUNT_FUTURES:
        live_futures.fetch_add(1, memory_order_relaxed)
    future.batch.store(NULL, memory_order_relaxed)
    future.place.store(0, memory_order_relaxed)
    return future


cdef inline void empty_future(Batch* batch, uint32_t place, int64_t told) noexcept:
    cdef PyObject* kind
    cdef PyObject* value
    cdef PyObject* trace
    if COUNT_FUTURES:
        live_futures.fetch_sub(1, memory_order_relaxed)
    if place & HAS_ERROR:
        Py_DECREF(<object>reference_in(told))
    if batch != NULL and batch.refs.fetch_sub(1, memory_order_acq_rel) == 1:
        PyErr_Fetch(&kind, &value, &trace)   # it may run Python, and be run while an exception is on its way
        destroy(batch)
        PyErr_Restore(kind, value, trace)


cdef void drop_future(PyObject* thing) noexcept:
    """In place of what Cython writes, which puts an exception aside whether there is a reason to or not."""
    empty_future((<FutureRecordMetadata>thing).batch.load(memory_order_relaxed),
                 (<FutureRecordMetadata>thing).place.load(memory_order_relaxed),
                 (<FutureRecordMetadata>thing).told.load(memory_order_relaxed))
    PyObject_Free(thing)


# Without a GIL it is a static type, too. One on the heap is owned by its instances, which Cython's own function knows.
if not (<PyTypeObject*>FutureRecordMetadata).tp_flags & Py_TPFLAGS_HEAPTYPE:
    (<PyTypeObject*>FutureRecordMetadata).tp_dealloc = drop_future


cdef inline int outcome_now(FutureRecordMetadata self, Batch** batch, int32_t* index) except -1:
    """How its record has ended; with the batch that decides it now, and the record's place in there."""
    batch[0] = self.batch.load(memory_order_acquire)
    if batch[0] == NULL:   # made by __new__ alone
        self.__init__()
    index[0] = <int32_t>(self.place.load(memory_order_relaxed) & ~(HAS_ERROR | IS_READ))
    return look(batch, index)


cdef Batch* leaf(FutureRecordMetadata self, int32_t* index) except NULL:
    cdef Batch* batch
    outcome_now(self, &batch, index)
    return batch


cdef object metadata_of(FutureRecordMetadata self, Batch* batch, int32_t index):
    cdef Facts facts = facts_of(self, index)
    return new_metadata(batch, &facts)


cdef inline Facts facts_of(FutureRecordMetadata self, int32_t index) noexcept:
    cdef Facts facts
    facts.timestamp = self.told.load(memory_order_relaxed)
    facts.index = index
    facts.key_size = self.key_size
    facts.value_size = self.value_size
    facts.header_size = self.header_size
    return facts


# What a future failed with is its own copy of the batch's error, and it holds it weakly. An exception that is raised
# gets the frames it passed through, and those mostly hold this very future: a ring that nobody would break. Who wants
# the error once it is gone gets a new copy.

cdef inline PyObject* reference_in(int64_t told) noexcept:
    return <PyObject*><size_t>told


cdef inline object reference_held(FutureRecordMetadata self):
    """The weak reference to what it failed with, or None. Without a GIL its critical section is needed."""
    if not self.place.load(memory_order_relaxed) & HAS_ERROR:
        return None
    return <object>reference_in(self.told.load(memory_order_relaxed))


cdef object own_failure(FutureRecordMetadata self, Batch* batch, int32_t index):
    cdef object error, old, mine, held = None
    cdef Batch* now
    with cython.critical_section(self):
        old = reference_held(self)
    if old is not None:
        held = old()
    if held is not None:
        return held
    error = failure_of(batch, index)
    if batch.outcome.load() == BY_HAND:
        return error
    error = failures.own(error)
    try:
        mine = weak_reference(error)
    except TypeError:   # an exception class of the user's
        mine = None
    with cython.critical_section(self):
        # Making it ran Python: another thread may have been faster, or has ended the future by hand meanwhile.
        old = reference_held(self)
        held = None if old is None else old()
        outcome_now(self, &now, &index)
        if held is None and mine is not None and now == batch:
            Py_INCREF(mine)
            self.told.store(<int64_t><size_t><PyObject*>mine, memory_order_relaxed)
            self.place.fetch_or(HAS_ERROR)
            if old is not None:
                Py_DECREF(old)
    if held is not None:
        return held
    if reads_first(self):
        mark_read(batch, 1)
    return error


cdef inline bint reads_first(FutureRecordMetadata self) noexcept:
    """Whether nobody has been counted yet who looks at the failure; the caller is, from now on."""
    cdef uint32_t place
    if not GIL:
        return not self.place.fetch_or(IS_READ) & IS_READ
    place = self.place.load(memory_order_relaxed)
    self.place.store(place | IS_READ, memory_order_relaxed)   # an atomic step less with each errback
    return not place & IS_READ


cdef object raised_failure(FutureRecordMetadata self, Batch* batch, int32_t index):
    """The error to be raised. One that was given by hand is held by its batch, and so must not hold the future."""
    error = own_failure(self, batch, index)
    return failures.own(error) if batch.outcome.load() == BY_HAND else error


cdef int64_t deadline_after(timeout) except? -1:
    """In `timeout` seconds; None: never."""
    if timeout is None:
        return NEVER
    return now_ns() + <int64_t>(min(max(<double>seconds_of(timeout), 0.0), 1e9) * 1e9)


cdef Batch* awaited(FutureRecordMetadata self, timeout, int64_t deadline, int32_t* index) except NULL:
    cdef int64_t left
    cdef Batch* batch = leaf(self, index)
    cdef DataPlane plane = <DataPlane>batch.plane
    cdef bint inside = plane.on_control_thread()
    while True:
        batch = leaf(self, index)
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


cdef int register(FutureRecordMetadata self, int kind, function, tuple args, dict kwargs) except -1:
    """Have `function` called when the record's batch has ended: then, or at once if that has been done already."""
    cdef CallbackEntry entry
    cdef Batch* batch
    if not callable(function):
        raise TypeError(f"a callback must be callable, not {type(function).__name__}: {function!r:.80}")
    entry.facts = facts_of(self, 0)
    entry.kind = kind
    entry.reads = False
    entry.function = <PyObject*>function
    extra = (args, kwargs) if args or kwargs else None
    entry.extra = NULL
    if extra is not None:
        entry.extra = <PyObject*>extra
    if not enlisted(self, &entry, &batch):
        raised = call_back(&entry, batch, self)
        if raised is not None:
            raise raised
    return 0


cdef bint enlisted(FutureRecordMetadata self, CallbackEntry* entry, Batch** decides) except -1:
    """Put the entry among the callbacks of the record's batch, `decides`; False when that is done with them."""
    cdef Batch* root
    cdef Batch* batch
    cdef bint kept = False
    while True:
        root = self.batch.load(memory_order_acquire)
        outcome_now(self, &batch, &entry.facts.index)
        decides[0] = batch
        if is_inherited(batch):
            return False
        batch.gate.lock()
        if self.batch.load(memory_order_acquire) != root:
            # It was just ended by hand, and the callbacks that were here have been taken out (`resolve`).
            batch.gate.unlock()
            continue
        if batch.callback_state.load() != CALLBACKS_FINISHED:
            entry.reads = entry.kind != 0 and reads_first(self)
            if batch.callbacks.empty():
                batch.callbacks.reserve(16)
            batch.callbacks.push_back(entry[0])
            Py_XINCREF(entry.function)
            Py_XINCREF(entry.extra)
            charge_entries(batch)
            kept = True
        batch.gate.unlock()
        if kept or batch.outcome.load() != SPLIT:
            return kept


# Mostly a callback is given alone. For what may come with it Cython makes a tuple and a dictionary each time, so that
# case is told apart before.

cdef extern from *:
    """
    typedef PyObject *(*fp_method)(PyObject *self, PyObject *const *given, Py_ssize_t count, PyObject *names);

    /* Put `quick` in the place of a method's function, which is kept in `full`. A module that is imported again after
       its import has failed finds it there. */
    static void fp_replace(PyObject *method, fp_method quick, fp_method *full)
    {
        PyMethodDef *definition;
        if (!Py_IS_TYPE(method, &PyMethodDescr_Type))
            return;
        definition = ((PyMethodDescrObject *)method)->d_method;
        if (definition->ml_flags != (METH_FASTCALL | METH_KEYWORDS) || *full != NULL)
            return;
        *full = (fp_method)(void (*)(void))definition->ml_meth;
        definition->ml_meth = (PyCFunction)(void (*)(void))quick;
    }
    """
    ctypedef object (*fp_method)(object self, PyObject *const *given, Py_ssize_t count, PyObject* names)
    void fp_replace(object method, fp_method quick, fp_method* full)


cdef fp_method add_with_more[3]


cdef inline object add(FutureRecordMetadata self, int kind, PyObject *const *given, Py_ssize_t count, PyObject* names):
    if count != 1 or names != NULL:
        return add_with_more[kind](self, given, count, names)
    register(self, kind, <object>given[0], None, None)
    return self


cdef object quick_callback(object self, PyObject *const *given, Py_ssize_t count, PyObject* names):
    return add(<FutureRecordMetadata>self, 0, given, count, names)


cdef object quick_errback(object self, PyObject *const *given, Py_ssize_t count, PyObject* names):
    return add(<FutureRecordMetadata>self, 1, given, count, names)


cdef object quick_both(object self, PyObject *const *given, Py_ssize_t count, PyObject* names):
    return add(<FutureRecordMetadata>self, 2, given, count, names)


fp_replace(FutureRecordMetadata.add_callback, quick_callback, &add_with_more[0])
fp_replace(FutureRecordMetadata.add_errback, quick_errback, &add_with_more[1])
fp_replace(FutureRecordMetadata.add_both, quick_both, &add_with_more[2])


cdef int resolve(FutureRecordMetadata self, Batch* outcome) except -1:
    cdef vector[CallbackEntry] mine
    cdef size_t i
    cdef int32_t index
    cdef Batch* batch
    cdef Batch* old = self.batch.load()
    cdef Child replaced
    cdef bint late
    raised = None
    if old == NULL:
        release_held(outcome)
    if not GIL and old != NULL:
        # Other threads may be looking at it, so it lives as long as the future.
        replaced.first = 0
        replaced.batch = old
        outcome.children.push_back(replaced)
    with cython.critical_section(self):
        late = outcome_now(self, &batch, &index) != PENDING
        if not late:
            self.batch.store(outcome)   # the record's place stays as it is: there all have the same outcome
    if late:
        outcome.children.clear()
        release_held(outcome)
        raise errors.IllegalStateError("This future is already complete; success() and failure() come too late.")
    take_callbacks(batch, index, mine)
    for i in range(mine.size()):
        error = call_back(&mine[i], outcome, self)
        raised = error if raised is None else raised
    drop_callbacks(mine)
    if GIL:
        release_held(old)
    if raised is not None:
        raise raised
    return 0


cdef void take_callbacks(Batch* batch, int32_t index, vector[CallbackEntry]& mine) noexcept nogil:
    """Take what is registered for a record out of its batch."""
    cdef size_t i, kept = 0
    batch.gate.lock()
    while batch.outcome.load() == SPLIT:
        batch.gate.unlock()
        batch = child_with(batch, &index)
        batch.gate.lock()
    for i in range(batch.callbacks.size()):
        if batch.callbacks[i].facts.index == index:
            mine.push_back(batch.callbacks[i])
        else:
            batch.callbacks[kept] = batch.callbacks[i]
            kept += 1
    batch.callbacks.resize(kept)
    batch.gate.unlock()
