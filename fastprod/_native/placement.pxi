# Where the records of one call went, and what became of them: runs of records in batches, no object a record.

from array import array


cdef struct Run:
    # Records of a call that lie side by side in a batch, in the order of the call.
    Batch* batch       # a reference is held
    int32_t first      # place in the batch
    int32_t count


cdef FutureRecordMetadata handle_of(Batch* batch, int32_t index):
    """A future of one of the records, which is not counted among those that look at failures."""
    cdef FutureRecordMetadata handle = FutureRecordMetadata.__new__(FutureRecordMetadata)
    retain(batch)
    handle.batch.store(batch, memory_order_relaxed)
    handle.place.store(<uint32_t>index | IS_READ, memory_order_relaxed)
    return handle


cdef inline int32_t piece(Run* run, int32_t at) noexcept nogil:
    """How many of the run's records, from `at` on, one batch decides: all, unless it was split."""
    cdef int32_t index = run.first + at
    cdef Batch* leaf_ = leaf_of(run.batch, &index)
    return run.count - at if leaf_ == run.batch else min(leaf_.count - index, run.count - at)


cdef cppclass Walk:
    # Where collect() is among the records of a partition.
    vector[Run] runs
    size_t at          # the run
    int32_t within     # records of it that were passed
    int32_t left       # records of `leaf` that are still to come
    Batch* leaf        # who decides them
    int32_t index      # of the record in there
    cbool failed


cdef void walks_of(const vector[Run]& runs, vector[Walk]& walks) noexcept:
    cdef size_t i, number
    for i in range(runs.size()):
        number = runs[i].batch.partition.index
        if number >= walks.size():
            walks.resize(number + 1)
        walks[number].runs.push_back(runs[i])
    for i in range(walks.size()):
        walks[i].at = 0
        walks[i].within = walks[i].left = 0


cdef inline void step(Walk* walk, bint first_look) noexcept:
    """Go on to the partition's next record."""
    cdef Run* run
    if walk.left == 0:
        if walk.within == walk.runs[walk.at].count:
            walk.at += 1
            walk.within = 0
        run = &walk.runs[walk.at]
        walk.left = piece(run, walk.within)
        walk.index = run.first + walk.within
        walk.leaf = leaf_of(run.batch, &walk.index)
        walk.failed = outcome_of(walk.leaf) != SUCCEEDED
        if walk.failed and first_look:
            mark_read(walk.leaf, walk.left)
    else:
        walk.index += 1
    walk.left -= 1
    walk.within += 1


cdef object failure_at(Walk* walk, dict known):
    """The error of the record. Those of a batch share one, unless the broker told apart which of them it refused."""
    if walk.leaf.record_errors != NULL:
        return failures.own(failure_of(walk.leaf, walk.index))
    error = known.get(<size_t>walk.leaf)
    if error is None:
        error = known[<size_t>walk.leaf] = failures.own(failure_of(walk.leaf, walk.index))
    return error


@cython.final
cdef class Placement:
    """What a BatchFuture looks at; see `fastprod.batch_future.Placement`."""
    cdef readonly str topic
    cdef Py_ssize_t count
    cdef vector[Run] runs             # as they were appended: those of a partition in the order of the call
    cdef atomic[size_t] first_pending   # all runs before it have ended
    cdef vector[int32_t] partitions   # -1: not accepted
    cdef int64_t timestamp            # of all records, where there is no column of them
    cdef vector[int64_t] timestamps
    cdef vector[int32_t] key_sizes    # these three: no column where none has any
    cdef vector[int32_t] value_sizes
    cdef vector[int32_t] header_sizes
    cdef object refusal               # why records were not accepted
    cdef atomic[int] read             # who looked at the failures has been counted

    def __cinit__(self, str topic):
        self.topic = topic
        self.count = 0
        self.first_pending.store(0)
        self.timestamp = -1
        self.refusal = None
        self.read.store(0)

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.runs.size()):
            release_held(self.runs[i].batch)

    cdef int expect(self, Py_ssize_t count) except -1:
        """So many records; MemoryError where they are too many."""
        self.partitions.resize(count, -1)
        self.count = count
        return 0

    def __len__(self) -> int:
        return self.count

    def pending(self) -> FutureRecordMetadata | None:
        """A record that has not ended yet; None: all have."""
        cdef int32_t index, at
        cdef size_t i = self.first_pending.load(memory_order_relaxed)
        cdef Batch* batch
        cdef Run run
        while i < self.runs.size():
            run = self.runs[i]
            at = 0
            while at < run.count:
                index = run.first + at
                batch = run.batch
                if look(&batch, &index) == PENDING:
                    return handle_of(run.batch, run.first + at)
                at += piece(&run, at)
            i += 1
            self.first_pending.store(i, memory_order_relaxed)   # a step back, beside another thread, does no harm
        return None

    def watch(self, record: FutureRecordMetadata, function) -> bool:
        """Call `function` once that record has ended. False: it has, and nothing will be called."""
        cdef CallbackEntry entry
        cdef Batch* decides
        entry.facts = facts_of(record, 0)
        entry.kind = 2
        entry.reads = False
        entry.function = <PyObject*>function
        entry.extra = NULL
        return enlisted(record, &entry, &decides)

    def wait(self, timeout) -> None:
        """Until all have ended and their callbacks have run; KafkaTimeoutError after `timeout` seconds."""
        cdef int64_t deadline = deadline_after(timeout)
        cdef int32_t index, at
        cdef Run run
        cdef size_t i
        for i in range(self.runs.size()):
            run = self.runs[i]
            at = 0
            while at < run.count:
                index = run.first + at
                if not settled(leaf_of(run.batch, &index)):
                    awaited(handle_of(run.batch, run.first + at), timeout, deadline, &index)
                at += piece(&run, at)

    def sizes(self, index: int) -> tuple:
        """Of a record's key, value and headers, in bytes; -1: none."""
        return (self.key_sizes[index] if not self.key_sizes.empty() else -1,
                self.value_sizes[index] if not self.value_sizes.empty() else -1,
                self.header_sizes[index] if not self.header_sizes.empty() else -1)

    def collect(self) -> tuple:
        """Partitions, offsets, timestamps and errors of what has ended.

        Each partition's runs are walked in step with the records: they are in the same order.
        """
        cdef object partitions = array("i", [-1]) * self.count
        cdef object offsets = array("q", [-1]) * self.count
        cdef object timestamps = array("q", [-1]) * self.count
        cdef dict errors_ = {}
        cdef dict known = {}
        cdef int[::1] partition_at = partitions
        cdef long long[::1] offset_at = offsets
        cdef long long[::1] timestamp_at = timestamps
        cdef vector[Walk] walks
        cdef Walk* walk
        cdef bint first_look = self.read.exchange(1) == 0
        cdef Py_ssize_t i
        walks_of(self.runs, walks)
        for i in range(self.count):
            if self.partitions[i] < 0:
                errors_[i] = self.refusal
                continue
            walk = &walks[self.partitions[i]]
            step(walk, first_look)
            if walk.failed:
                errors_[i] = failure_at(walk, known)
                continue
            partition_at[i] = self.partitions[i]
            if walk.leaf.base_offset >= 0:   # a broker may say anything
                offset_at[i] = <int64_t>(<uint64_t>walk.leaf.base_offset + <uint64_t>walk.index)
            if walk.leaf.log_append_time >= 0:
                timestamp_at[i] = walk.leaf.log_append_time
            else:
                timestamp_at[i] = self.timestamp if self.timestamps.empty() else self.timestamps[i]
        return partitions, offsets, timestamps, errors_
