# send_many(): what is checked, in which order chunks are gathered, and how each record gets its partition. What comes
# after the columns are known is send_arrow()'s as well.

from fastprod.batch_future import BatchFuture
from fastprod.columns import Columns, columns_of, serialized


cdef extern from *:
    """
    #define fp_list_items(list) ((const unsigned char**)((PyListObject*)(list))->ob_item)
    #define FP_BYTES_INSIDE offsetof(PyBytesObject, ob_sval)

    // How long a bytes object is; -1: it is None; FP_NEITHER: it is something else, or too long.
    enum { FP_NEITHER = -2 };
    static inline int32_t fp_bytes_size(const unsigned char* item) {
        PyObject* object = (PyObject*)item;
        if (PyBytes_CheckExact(object) && PyBytes_GET_SIZE(object) <= INT32_MAX)
            return (int32_t)PyBytes_GET_SIZE(object);
        return object == Py_None ? -1 : FP_NEITHER;
    }
    """
    object PyBytes_FromObject(object thing)
    int PyGC_Disable() noexcept
    int PyGC_Enable() noexcept
    const unsigned char** fp_list_items(list items) noexcept
    const int32_t FP_NEITHER
    int32_t fp_bytes_size(const unsigned char* item) noexcept
    const size_t FP_BYTES_INSIDE   # from where a bytes object stands to where its bytes are


cdef enum:
    AHEAD = 16      # how many items before one is looked at, its memory is asked for: objects lie anywhere


cdef class Call:
    # One call's columns, checked. Whoever fills them keeps what the records point into, and says what raises here.
    cdef const unsigned char** values_from    # a record's value is at `values_from[index] + inside`
    cdef const unsigned char** keys_from      # so its key; NULL: no record has one
    cdef size_t inside
    cdef vector[unsigned char] headers
    cdef vector[size_t] header_ends   # a record's headers end there; empty: all have all of `headers`
    cdef vector[int32_t] numbers      # partitions; empty: `number` is that of all, -1: none is given
    cdef int32_t number
    cdef bint by_partitioner
    cdef Placement placement
    cdef Py_ssize_t placed            # so many records are encoded: nothing of them is looked at again

    cdef int keep(self) except -1:
        """The interpreter is let go, or somebody's Python is run: nothing that others can change may be pointed at."""
        return 0

    # Each kind of call has its own of the next two: a method of C cannot be declared without a body.
    cdef object number_given(self, Py_ssize_t index):
        """The partition a record names, as it came; None where it names none."""
        raise NotImplementedError

    cdef tuple fields_given(self, Py_ssize_t index):
        """A record's key, serialized key, value and serialized value, for partitioners."""
        raise NotImplementedError


@cython.final
cdef class ListCall(Call):
    cdef object given            # the columns as they came
    cdef list values, keys       # of bytes or None; `keys` None: no record has one
    cdef bint lent               # these lists are the caller's; until keep() they are only read, in one go

    cdef int keep(self) except -1:
        if self.lent:
            self.copy_lists()
            self.point_at_lists()
        return 0

    cdef int copy_lists(self) except -1:
        """Have lists of its own of what is still to be encoded."""
        # A new list may start it, and finalizers change the ones that are copied. Without a GIL these are never lent,
        # and whoever turns the collector off meanwhile means it.
        cdef bint collects = GIL and PyGC_Disable()
        self.lent = False
        try:
            self.values = self.values[self.placed:]
            if self.keys is not None:
                self.keys = self.keys[self.placed:]
        finally:
            if collects:
                PyGC_Enable()
        return 0

    cdef void point_at_lists(self) noexcept:
        self.values_from = fp_list_items(self.values) - self.placed
        self.keys_from = NULL
        if self.keys is not None:
            self.keys_from = fp_list_items(self.keys) - self.placed

    cdef object number_given(self, Py_ssize_t index):
        return self.given.partition if self.given.partitions is None else self.given.partitions[index]

    cdef tuple fields_given(self, Py_ssize_t index):
        # For a partitioner of the caller's: these lists are never lent, so they have all records.
        return (None if self.given.keys is None else self.given.keys[index],
                None if self.keys is None else self.keys[index], self.given.values[index], self.values[index])


cdef object send_many(ProducerBase self, topic, columns, bint lent):
    if self.plane is None or self.plane.core.closing.load(memory_order_relaxed):
        self._begin_again()
    return accepted(self, topic, checked_call(self, topic, columns, lent))


cdef bint can_lend(ProducerBase self, values, keys):
    """Whether these lists need not be copied, since nobody else runs while they are read: they are looked at twice, and
    copying costs as much as that. Most calls end without letting the interpreter go; zlib's CRC of a long key does."""
    return (GIL and type(values) is list and (keys is None or (type(keys) is list and len(keys) == len(values)))
            and self.mode != C_CUSTOM and self.mode != C_CRC32
            and self.key_serializer is None and self.value_serializer is None)


cdef object accepted(ProducerBase self, topic, Call call):
    """The future of all the call's records, which are in batches now."""
    cdef TopicRoute route
    found = self.plane.routes.get(topic) if type(topic) is str else None
    if found is None:
        call.keep()
        found = self.engine.resolve_topic(topic, self.plane.core.max_block / 1e9)
    if isinstance(found, BaseException):
        call.placement.refusal = found
        return BatchFuture(call.placement)
    route = found
    note_used(route.topic_)
    if call.placement.count:
        choose_ahead(self, route, call)
        place_all(self, route, call)
    return BatchFuture(call.placement)


# --- Check: all of it, before the first record is accepted ---------------------------------------------------------

cdef Call checked_call(ProducerBase self, topic, columns, bint lent):
    cdef ListCall call = ListCall.__new__(ListCall)
    cdef Placement placement
    check_all_headers(columns)
    call.given = columns
    if not lent:
        columns = serialized(columns, topic, self.key_serializer, self.value_serializer)
    call.placement = placement = Placement.__new__(Placement, str(topic))
    call.values = columns.values
    call.keys = columns.keys
    call.lent = lent
    call.inside = FP_BYTES_INSIDE
    if not all_bytes(call):
        call.copy_lists()   # those that were given are the caller's, or shown to a partitioner
        take_all_bytes("value", call.values)
        if call.keys is not None:
            take_all_bytes("key", call.keys)
        all_bytes(call)
    placement.expect(len(call.values))
    call.point_at_lists()
    check_contents(placement)
    encode_all_headers(call, columns.shared_headers, columns.headers)
    check_bounds(self.plane.core, call)
    check_times(placement, columns.timestamp, columns.timestamps)
    check_numbers(call, columns.partition, columns.partitions)
    return call


cdef int check_all_headers(columns) except -1:
    cdef Py_ssize_t i = 0
    check_headers(columns.shared_headers)
    try:
        for each in columns.headers or ():
            check_headers(each)
            i += 1
    except TypeError as error:
        raise failures.of_record(i, error)
    return 0


cdef bint all_bytes(ListCall call) except -1:
    """Note how long values and keys are; False: some are neither bytes nor None."""
    cdef Placement placement = call.placement
    if call.keys is not None and len(call.keys) != len(call.values):   # lent ones that a finalizer has changed
        raise failures.uneven_column("keys", len(call.keys), len(call.values))
    return (bytes_sizes(call.values, placement.value_sizes)
            and (call.keys is None or bytes_sizes(call.keys, placement.key_sizes)))


cdef bint bytes_sizes(list column, vector[int32_t]& sizes) except -1:
    cdef Py_ssize_t i, count = len(column)
    cdef const unsigned char** items = fp_list_items(column)
    cdef int32_t* found
    sizes.resize(count)
    found = sizes.data()
    for i in range(count):
        if i + AHEAD < count:
            will_read(items[i + AHEAD], 1)
        found[i] = fp_bytes_size(items[i])
        if found[i] == FP_NEITHER:
            return False
    return True


cdef int take_all_bytes(str what, list column) except -1:
    """What is no bytes object becomes one, so that nobody can change it under our hands, or is refused."""
    cdef Py_ssize_t i
    for i in range(len(column)):
        item = column[i]
        if item is not None and (type(item) is not bytes or PyBytes_GET_SIZE(item) > INT32_MAX):
            try:
                check_bytes(what, item)
                column[i] = PyBytes_FromObject(item)   # bytes() would ask a subclass
            except Exception as error:
                raise failures.of_record(i, error)
    return 0


cdef int encode_all_headers(Call call, list shared, list own) except -1:
    cdef Placement placement = call.placement
    cdef Py_ssize_t i
    if own is None:
        encode_headers(shared, call.headers)
        if shared:
            placement.header_sizes.resize(placement.count, headers_payload(shared))
        return 0
    for i in range(placement.count):
        try:
            encode_headers(own[i], call.headers)
            placement.header_sizes.push_back(headers_payload(own[i]))
        except Exception as error:
            raise failures.of_record(i, error)
        call.header_ends.push_back(call.headers.size())
    return 0


cdef struct Fields:
    # Where a call's columns lie. Looked up once: after each byte that is written the compiler must believe that they
    # might have moved.
    const unsigned char** keys_from
    const unsigned char** values_from
    size_t inside
    const int32_t* key_sizes
    const int32_t* value_sizes
    const unsigned char* headers
    const size_t* header_ends          # NULL: all have all of `headers`
    size_t headers_size


cdef Fields fields_of(Call call) noexcept:
    cdef Fields fields
    fields.keys_from = call.keys_from
    fields.values_from = call.values_from
    fields.inside = call.inside
    fields.key_sizes = call.placement.key_sizes.data()
    fields.value_sizes = call.placement.value_sizes.data()
    fields.headers = call.headers.data()
    fields.header_ends = NULL
    if not call.header_ends.empty():
        fields.header_ends = call.header_ends.data()
    fields.headers_size = call.headers.size()
    return fields


cdef inline void take_fields(const Fields* fields, Py_ssize_t index, Record* record) noexcept nogil:
    """Everything of the record but its time."""
    cdef size_t begin = 0
    record.key_size = -1
    if fields.keys_from != NULL:
        record.key = fields.keys_from[index] + fields.inside
        record.key_size = fields.key_sizes[index]
    record.value = fields.values_from[index] + fields.inside
    record.value_size = fields.value_sizes[index]
    record.headers = fields.headers
    record.headers_size = fields.headers_size
    if fields.header_ends != NULL:
        begin = fields.header_ends[index - 1] if index else 0
        record.headers += begin
        record.headers_size = fields.header_ends[index] - begin
    frame(record)


cdef int32_t largest(const vector[int32_t]& sizes) noexcept nogil:
    cdef int32_t found = -1
    cdef size_t i
    for i in range(sizes.size()):
        found = max(found, sizes[i])
    return found


cdef int32_t smallest(const vector[int32_t]& sizes) noexcept nogil:
    cdef int32_t found = INT32_MAX
    cdef size_t i
    for i in range(sizes.size()):
        found = min(found, sizes[i])
    return found


cdef int check_contents(Placement placement) except -1:
    """That there is something in each record."""
    cdef Py_ssize_t i
    if smallest(placement.value_sizes) >= 0:
        return 0
    for i in range(placement.count):
        if placement.value_sizes[i] < 0 and (placement.key_sizes.empty() or placement.key_sizes[i] < 0):
            raise failures.of_record(i, failures.nothing_to_send())
    return 0


cdef int check_bounds(Core* core, Call call) except -1:
    cdef Placement placement = call.placement
    cdef size_t bound
    cdef Record record
    cdef Fields fields
    cdef Py_ssize_t i
    record.key_size = largest(placement.key_sizes)
    record.value_size = largest(placement.value_sizes)
    record.headers_size = call.headers.size()   # of one, or of all together
    frame(&record)
    if record_upper_bound(&record) <= core.record_limit:
        return 0
    fields = fields_of(call)
    for i in range(placement.count):
        take_fields(&fields, i, &record)
        bound = record_upper_bound(&record)
        if bound > core.record_limit:
            raise failures.of_record(i, over_limit(core, placement.topic, bound))
    return 0


cdef int64_t time_of(timestamp_ms) except? -1:
    if timestamp_ms is None:
        return wall_ms()
    if type(timestamp_ms) is not int:
        raise failures.bad_timestamp(timestamp_ms)
    if not INT64_MIN <= timestamp_ms <= INT64_MAX:
        raise failures.timestamp_out_of_range(timestamp_ms)
    return timestamp_ms


cdef int check_times(Placement placement, timestamp, list timestamps) except -1:
    cdef Py_ssize_t i = 0
    placement.timestamp = time_of(timestamp)
    if timestamps is None:
        return 0
    try:
        for i in range(placement.count):
            each = timestamps[i]
            placement.timestamps.push_back(placement.timestamp if each is None else time_of(each))
    except Exception as error:
        raise failures.of_record(i, error)
    return 0


cdef int check_numbers(Call call, partition, list partitions) except -1:
    """That they are numbers. Whether there are such partitions is known once there is a route."""
    cdef Py_ssize_t i = 0
    call.number = number_in(partition)
    try:
        for i in range(0 if partitions is None else call.placement.count):
            call.numbers.push_back(number_in(partitions[i]))
    except Exception as error:
        raise failures.of_record(i, error)
    return 0


cdef enum:
    NO_NUMBER = -1
    NO_PARTITION = -2        # no topic has a partition of that number


cdef int32_t number_in(partition) except -3:
    cdef Py_ssize_t number
    if partition is None:
        return NO_NUMBER
    if not is_index(partition):
        raise failures.bad_partition(partition)
    number = number_of(partition)
    return <int32_t>number if 0 <= number <= INT32_MAX else NO_PARTITION


# --- Partitions ----------------------------------------------------------------------------------------------------

cdef int choose_ahead(ProducerBase self, TopicRoute route, Call call) except -1:
    """Look whether the partitions that were named exist, and ask a partitioner of the caller's: what can be refused is
    refused before the first record is accepted."""
    cdef Py_ssize_t i = 0
    cdef Record record
    if call.number != NO_NUMBER:
        self.checked(route.topic_, call.number_given(0), call.number, False)
    try:
        for i in range(<Py_ssize_t>call.numbers.size()):
            if call.numbers[i] != NO_NUMBER and <size_t>call.numbers[i] >= route.topic_.partitions.size():
                self.checked(route.topic_, call.number_given(i), call.numbers[i], False)
        if self.mode == C_CUSTOM and self.on_new_batch is None and call.number == NO_NUMBER:
            call.by_partitioner = True
            call.numbers.resize(call.placement.count, NO_NUMBER)
            for i in range(call.placement.count):
                if call.numbers[i] == NO_NUMBER:
                    call.numbers[i] = ask(self, route, call, i, &record)
    except Exception as error:
        raise failures.of_record(i, error)
    return 0


cdef int ask(ProducerBase self, TopicRoute route, Call call, Py_ssize_t index, Record* record) except -1:
    key, serialized_key, value, serialized_value = call.fields_given(index)
    return self.asked(route.topic_, route.topic, key, serialized_key, value, serialized_value, record)


cdef int32_t target_of(ProducerBase self, TopicRoute route, Call call, Py_ssize_t index, Record* record) except -2:
    """The partition of a record, or STICKY_TARGET. What was chosen ahead may be gone by now."""
    cdef int32_t number = call.number if call.numbers.empty() else call.numbers[index]
    cdef bint sticky = False
    cdef int chosen
    if number != NO_NUMBER:
        if <size_t>number < route.topic_.partitions.size():
            return number
        if not call.by_partitioner or call.number_given(index) is not None:
            self.checked(route.topic_, number, number, False)
            return number
    if self.mode == C_CUSTOM:
        return ask(self, route, call, index, record)
    chosen = chosen_partition(self.mode, route.topic_, record, &sticky)
    return STICKY_TARGET if sticky else chosen


# --- Place: chunk by chunk -----------------------------------------------------------------------------------------

cdef inline Py_ssize_t chunk_for(Topic* topic) noexcept nogil:
    """How many records are shared out at once. With many partitions more of them, or each would get one at a time."""
    return min(max(<Py_ssize_t>CHUNK, <Py_ssize_t>(4 * topic.partitions.size())), <Py_ssize_t>LONGEST_CHUNK)


cdef int place_all(ProducerBase self, TopicRoute route, Call call) except -1:
    """An error before the first record was accepted is raised; after it, it is that of the records that are left."""
    cdef Chunk chunk
    cdef Py_ssize_t count = call.placement.count
    # A partitioner that is told of new batches must be asked when the records before are where they belong.
    cdef Py_ssize_t step_ = 1 if self.mode == C_CUSTOM and self.on_new_batch is not None else chunk_for(route.topic_)
    cdef int64_t last = now_ns(), now
    chunk.first = 0
    try:
        while chunk.first < count:
            gather_records(self, route, call, &chunk, min(step_, count - chunk.first))
            place_chunk(self, route, call, &chunk)
            chunk.first += chunk.records.size()
            call.placed = chunk.first
            now = now_ns()
            if now - last > YIELD_AFTER and chunk.first < count:   # else the call ends, and they have their turn
                last = now
                call.keep()
                with nogil:
                    pass   # other threads want to run, too
                PyErr_CheckSignals()
                if route.plane.core.forked.load(memory_order_relaxed):   # by a signal's handler
                    raise failures.closed()
    except (errors.KafkaError, ValueError, TypeError, MemoryError) as error:
        if call.placement.runs.empty():
            raise
        call.placement.refusal = failures.own(error.with_traceback(None))
    return 0


cdef int gather_records(ProducerBase self, TopicRoute route, Call call, Chunk* chunk, Py_ssize_t count) except -1:
    cdef Fields fields = fields_of(call)
    cdef const int64_t* times = NULL
    cdef int partitions = <int>route.topic_.partitions.size()
    # What nearly all calls are: nothing is said about partitions, and keys decide.
    cdef bint by_key = self.mode == C_DEFAULT and call.numbers.empty() and call.number == NO_NUMBER
    cdef Py_ssize_t i
    cdef Record* record
    if not call.placement.timestamps.empty():
        times = call.placement.timestamps.data()
    chunk.records.resize(count)
    chunk.targets.resize(count)
    chunk.next_.resize(count)
    for i in range(count):
        record = &chunk.records[i]
        take_fields(&fields, chunk.first + i, record)
        if fields.keys_from != NULL and i + AHEAD < count:
            will_read(fields.keys_from[chunk.first + i + AHEAD] + fields.inside, 1)
        will_read(record.value, record.value_size)   # when the chunk is encoded, it is here
        record.timestamp = call.placement.timestamp if times == NULL else times[chunk.first + i]
        if by_key and record.key_size >= 0:
            chunk.targets[i] = murmur2_partition(record.key, record.key_size, partitions)
        else:
            chunk.targets[i] = target_of(self, route, call, chunk.first + i, record)
    return 0


cdef int place_chunk(ProducerBase self, TopicRoute route, Call call, Chunk* chunk) except -1:
    """Keyless records go where the sticky slot is when they are placed, all others side by side; each partition gets
    its own in the order of the call."""
    cdef int32_t count = <int32_t>chunk.records.size(), at = 0, head
    while at < count:
        if chunk.targets[at] != STICKY_TARGET:
            link(chunk, at, chunk.targets[at])
            at += 1
            continue
        place_linked(self, route, call, chunk)
        head = at
        while at < count and chunk.targets[at] == STICKY_TARGET:
            chunk.next_[at] = at + 1
            at += 1
        chunk.next_[at - 1] = -1
        place_sticky(route, call, chunk, head)
    return place_linked(self, route, call, chunk)


cdef int place_sticky(TopicRoute route, Call call, Chunk* chunk, int32_t at) except -1:
    cdef int chosen
    while at >= 0:
        chosen = sticky_partition(route.topic_)
        if chosen < <int>route.topic_.partitions.size():
            at = append_linked(route.plane, route.topic_.partitions[chosen], chunk, at, True, call)
        else:
            move_sticky(route.topic_, chosen)
    return 0


cdef enum:
    PARTITIONS_AHEAD = 4


cdef int place_linked(ProducerBase self, TopicRoute route, Call call, Chunk* chunk) except -1:
    cdef int32_t at, following, target
    cdef size_t i, ahead
    for i in range(chunk.touched.size()):
        ahead = i + PARTITIONS_AHEAD
        if ahead < chunk.touched.size() and <size_t>chunk.touched[ahead] < route.topic_.partitions.size():
            will_read(<const unsigned char*>route.topic_.partitions[chunk.touched[ahead]], sizeof(Partition))
        target = chunk.touched[i]
        at = chunk.heads[target]
        chunk.heads[target] = -1
        while at >= 0:
            # Until append_linked has its lock, the topic may lose partitions whenever the interpreter is let go.
            if <size_t>target < route.topic_.partitions.size():
                at = append_linked(route.plane, route.topic_.partitions[target], chunk, at, False, call)
            if at >= 0:
                # It is gone: this record goes elsewhere, and then it is the next one's turn.
                following = chunk.next_[at]
                chunk.next_[at] = -1
                place_anew(self, route, call, chunk, at)
                at = following
    chunk.touched.clear()
    return 0


cdef int place_anew(ProducerBase self, TopicRoute route, Call call, Chunk* chunk, int32_t at) except -1:
    cdef int32_t target
    while at >= 0:
        target = target_of(self, route, call, chunk.first + at, &chunk.records[at])
        if target == STICKY_TARGET:
            place_sticky(route, call, chunk, at)
            return 0
        if <size_t>target < route.topic_.partitions.size():
            at = append_linked(route.plane, route.topic_.partitions[target], chunk, at, False, call)
    return 0
