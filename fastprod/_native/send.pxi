# send(): check, serialize, choose the partition, append. One compiled call a record.

import zlib

from cpython.dict cimport PyDict_GetItemWithError
from cpython.number cimport PyIndex_Check, PyNumber_AsSsize_t
from libc.string cimport memcmp

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text) noexcept
    void* PyUnicode_DATA(object text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object text) noexcept
    Py_ssize_t PyObject_Hash(object thing) noexcept


cdef int check_headers(headers) except -1:
    cdef Py_ssize_t i = 0
    if not isinstance(headers, list):
        raise failures.headers_not_a_list(headers)
    for header in headers:
        if (not isinstance(header, tuple) or len(header) != 2 or not isinstance(header[0], str)
                or not isinstance(header[1], bytes)):
            raise failures.bad_header(i, header)
        i += 1
    return 0


cdef int32_t headers_payload(list headers) except -2:
    """What RecordMetadata calls serialized_header_size: names in UTF-8 and values; -1 without headers."""
    cdef Py_ssize_t total = 0, size
    if not headers:
        return -1
    for name, value in headers:
        PyUnicode_AsUTF8AndSize(name, &size)
        total += size + (0 if value is None else len(value))
    return <int32_t>total


cdef inline int check_bytes(str what, data) except -1:
    if data is None:
        return 0
    if type(data) is not bytes and type(data) is not bytearray and type(data) is not memoryview:
        raise failures.not_bytes(what, data)
    size = data.nbytes if type(data) is memoryview else len(data)
    if size > INT32_MAX:
        raise failures.too_long(what, size)
    return 0


cdef inline Py_ssize_t index_of(value) except? -1:
    return PyNumber_AsSsize_t(value, OverflowError)


cdef inline Py_ssize_t number_of(value) except? -2:
    """A partition's number, asked for once: whose __index__ says something else the second time does no harm. -1: too
    large for any."""
    try:
        return index_of(value)
    except OverflowError:
        return -1


cdef inline bint is_index(value):
    return type(value) is int or (PyIndex_Check(value) and type(value) is not bool)


cdef class ProducerBase:
    """The compiled base of KafkaProducer: holds `send` and what it needs, nothing else."""
    cdef DataPlane plane
    cdef object engine, key_serializer, value_serializer, partitioner, on_new_batch
    cdef int mode
    cdef tuple former   # what was bound before: `send` borrows its plane, and other threads may just be looking at it

    def _bind(self, plane, engine, key_serializer, value_serializer, partition_mode: int, partitioner,
              compression_name=None) -> None:
        """Connect this object to its planes; see DESIGN.md for what each is."""
        if self.plane is not None:   # in a forked child
            self.former = (self.former, self.plane, self.engine, self.partitioner, self.on_new_batch)
        self.plane = plane
        self.engine = engine
        self.plane.engine = engine
        self.key_serializer = key_serializer
        self.value_serializer = value_serializer
        self.mode = partition_mode
        self.partitioner = partitioner
        self.on_new_batch = getattr(partitioner, "on_new_batch", None)

    def _begin_again(self) -> None:
        """Bind to new planes where there is a reason to (a forked child), or raise IllegalStateError."""
        raise failures.closed()

    # A method of C, not one of Cython's function objects: each call of those counts the producer and the function anew,
    # and without a GIL that is an atomic step on memory that all threads share.
    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def send(self, topic, value=None, key=None, headers=None, partition=None, timestamp_ms=None):
        """Accept one record for delivery and return its FutureRecordMetadata at once.

        topic: str. value, key: what the serializers take, or bytes, bytearray, memoryview or None without one (not
        both None; an empty key is a key). headers: a list of (str, bytes) tuples. partition: int, or None to let the
        partitioner choose. timestamp_ms: int, milliseconds since 1970-01-01 UTC, or None for now.

        Raises at once: IllegalStateError when closed; TypeError or ValueError for bad arguments;
        MessageSizeTooLargeError above max_request_size; KafkaTimeoutError when the topic is unknown or
        buffer_memory is full for max_block_ms (the record was not accepted). Everything that happens to an accepted
        record arrives through the future.
        """
        cdef Record record
        cdef vector[unsigned char] encoded
        cdef FutureRecordMetadata future
        cdef Core* core
        cdef Topic* into   # neither plane nor route are counted anew for each record: all threads have the same ones
        cdef Partition* target
        cdef int64_t budget
        cdef Py_ssize_t number = -1
        cdef int chosen
        cdef bint sticky = False
        if self.plane is None or self.plane.core.closing.load(memory_order_relaxed):
            self._begin_again()
        core = self.plane.core
        if value is None and key is None:
            raise failures.nothing_to_send()
        if headers is not None:
            check_headers(headers)
        serialized_key, serialized_value = key, value
        if self.key_serializer is not None or self.value_serializer is not None:
            if headers is None:
                headers = []
            if self.key_serializer is not None:
                serialized_key = self.key_serializer(topic, headers, key)
            if self.value_serializer is not None:
                serialized_value = self.value_serializer(topic, headers, value)
        held_key = held_value = None
        if not take_bytes(serialized_key, &record.key, &record.key_size):
            check_bytes("key", serialized_key)
            held_key = point_at(serialized_key, &record.key, &record.key_size)
        if not take_bytes(serialized_value, &record.value, &record.value_size):
            check_bytes("value", serialized_value)
            held_value = point_at(serialized_value, &record.value, &record.value_size)
        budget = core.max_block
        into = recent_topic(core, topic)
        if into == NULL:
            resolved = resolved_topic(self, core, topic, &budget)
            if isinstance(resolved, BaseException):
                return FutureRecordMetadata.failed_with(topic, -1, resolved)
            into = (<TopicRoute>resolved).topic_
        note_used(into)

        record.headers = NO_HEADERS
        record.headers_size = 1
        frame(&record)
        if partition is not None:
            if not is_index(partition):
                raise failures.bad_partition(partition)
            number = number_of(partition)
            into = self.checked(into, partition, number, False)
            chosen = <int>number
        elif self.mode == C_CUSTOM:
            chosen = self.asked(into, topic, key, serialized_key, value, serialized_value, &record)
        else:
            chosen = chosen_partition(self.mode, into, &record, &sticky)

        future = new_future()
        future.key_size = <int32_t>record.key_size
        future.value_size = <int32_t>record.value_size
        future.header_size = -1
        if headers:   # only now: a serializer may have added to the list
            headers = list(headers)
            encode_headers(headers, encoded)
            record.headers = encoded.data()
            record.headers_size = encoded.size()
            frame(&record)
            future.header_size = headers_payload(headers)
        if record_upper_bound(&record) > core.record_limit:
            raise over_limit(core, (<TopicRoute>into.route).topic, record_upper_bound(&record))
        if timestamp_ms is None:
            record.timestamp = wall_ms()
        elif type(timestamp_ms) is not int:
            raise failures.bad_timestamp(timestamp_ms)
        elif not INT64_MIN <= timestamp_ms <= INT64_MAX:
            raise failures.timestamp_out_of_range(timestamp_ms)
        else:
            record.timestamp = timestamp_ms
        future.told.store(record.timestamp, memory_order_relaxed)
        while True:
            # Until append has its lock, the topic may lose partitions whenever the interpreter is let go.
            if chosen < <int>into.partitions.size():
                target = into.partitions[chosen]
                if append(core, target, &record, sticky, &budget, &future.batch, &future.place) == APPENDED:
                    return future
            elif sticky:
                move_sticky(into, chosen)
            if partition is not None:
                into = self.checked(into, partition, number, False)
            elif self.mode == C_CUSTOM:
                chosen = self.asked(into, topic, key, serialized_key, value, serialized_value, &record)
            else:
                chosen = chosen_partition(self.mode, into, &record, &sticky)

    def send_many(self, topic, values, keys=None, *, headers=None, partition=None, timestamp_ms=None):
        """Accept one record a value for delivery and return the BatchFuture of them all at once.

        topic: str. values: a sequence or iterable of what the value serializer takes, or of bytes, bytearray,
        memoryview or None without one. keys: None, or as many of them. headers: None, a list of (str, bytes) tuples
        for all, or one such list (or None) a record. partition, timestamp_ms: None, an int for all, or one a record;
        without a time it is that of the call. Records of a partition are written in the order of the call.

        All is checked before the first record is accepted, so a bad item raises TypeError, ValueError or
        MessageSizeTooLargeError that name its index, and nothing was sent. Where buffer_memory is full it waits as
        `send` does, up to max_block_ms for each new batch. If that runs out, or the producer is closed, before the
        first record was accepted, it raises what `send` raises; after it, the records that were not accepted fail in
        the BatchFuture and the others go on.
        """
        if (headers is None and partition is None and (timestamp_ms is None or type(timestamp_ms) is int)
                and can_lend(self, values, keys)):
            return send_many(self, topic, Columns(values, keys, None, [], None, None, timestamp_ms, None), True)
        return send_many(self, topic, columns_of(values, keys, headers, partition, timestamp_ms), False)

    def send_arrow(self, topic, data, *, value, key=None, headers=None, partition=None, timestamp=None):
        """Accept one record a row of Arrow data for delivery and return the BatchFuture of them all at once.

        topic: str. data: what offers `__arrow_c_stream__` or `__arrow_c_array__`: tables, record batches and data
        frames of PyArrow, Polars, DuckDB and pandas. A stream is read to its end, all its batches are one call. The
        other arguments are names of its columns. value, key: (large_)binary, (large_)utf8, views of these, fixed-size
        binary, or a dictionary of one of these; a null is a null, and not both may be. headers: a `map<utf8, binary>`
        (or list of structs of two; a null map is no headers), or a list of columns, whose names become the headers'; a
        header's value may be null. partition: any integers; null: the partitioner chooses. timestamp: `timestamp[*]`,
        rounded down to milliseconds since 1970-01-01 UTC, or int64 in milliseconds; null: the time of the call.

        Serializers are not applied: the columns hold what the records shall hold, and a partitioner of the caller's is
        given bytes. All is checked before the first record is accepted. TypeError: data without Arrow, a column of
        another type; ValueError: no such column, a partition there is none of, nulls as key and value, data that breaks
        Arrow's format; MessageSizeTooLargeError; RuntimeError with the words of a stream that fails. Then nothing was
        sent. After that, `send_many` tells what happens. How long buffers are is not told by the interface: a wrong
        length is believed, as everybody has to.
        """
        return send_arrow(self, topic, data, (value, key, headers, partition, timestamp))

    cdef Topic* checked(self, Topic* topic, partition, Py_ssize_t number, bint by_partitioner) except NULL:
        """The topic with this partition in it; metadata is refreshed once if it is old enough to be wrong."""
        cdef TopicRoute route
        if 0 <= number < <Py_ssize_t>topic.partitions.size():
            return topic
        route = <TopicRoute>topic.route
        if number >= 0 and not by_partitioner:
            route = self.engine.refresh_partitions(route.topic, number, self.plane.core.max_block / 1e9)
            if number < <Py_ssize_t>route.topic_.partitions.size():
                return route.topic_
        if by_partitioner:
            raise failures.bad_partitioner_result(route.topic, partition, route.topic_.partitions.size())
        raise failures.partition_out_of_range(route.topic, partition, route.topic_.partitions.size())

    cdef int asked(self, Topic* into, topic, key, serialized_key, value, serialized_value, Record* record) except -1:
        """The caller's own partitioner, and its on_new_batch hook where a keyless record would open a batch."""
        cdef int number
        result = self.partitioner(topic, key, serialized_key, value, serialized_value)
        number = self.valid(into, result)
        if serialized_key is None and self.on_new_batch is not None:
            if would_open(into.partitions[number], record):
                self.on_new_batch(topic, number)
                number = self.valid(into, self.partitioner(topic, key, serialized_key, value, serialized_value))
        return number

    cdef int valid(self, Topic* topic, result) except -1:
        cdef Py_ssize_t number
        if not is_index(result):
            raise failures.bad_partitioner_result((<TopicRoute>topic.route).topic, result, topic.partitions.size())
        number = number_of(result)
        self.checked(topic, result, number, True)
        return <int>number


cdef inline Topic* recent_topic(Core* core, topic) noexcept:
    """The topic of that name if it was looked up a while ago; NULL if `routes` must be asked. Nothing is counted or
    stored here, so threads on other cores are not held up."""
    cdef Topic* found
    cdef atomic[Topic*]* slot = recent_slot(core, topic)
    if slot == NULL:
        return NULL
    found = slot.load(memory_order_acquire)
    if (found == NULL or found.name.size() != <size_t>PyUnicode_GET_LENGTH(topic)
            or memcmp(found.name.data(), PyUnicode_DATA(topic), found.name.size()) != 0
            or not found.in_use.load(memory_order_relaxed)):
        return NULL
    return found


cdef inline atomic[Topic*]* recent_slot(Core* core, topic) noexcept:
    """Where a topic is remembered; NULL for what is no plain str in ASCII, whose characters are its UTF-8."""
    if type(topic) is not str or not PyUnicode_IS_COMPACT_ASCII(topic):
        return NULL
    return &core.recent[<size_t>PyObject_Hash(topic) & (RECENT_TOPICS - 1)]   # a str knows its hash


cdef inline void note_used(Topic* topic) noexcept nogil:
    if not topic.used.load(memory_order_relaxed):
        topic.used.store(1, memory_order_relaxed)


cdef object resolved_topic(ProducerBase self, Core* core, topic, int64_t* budget):
    """The topic's route, or the error that its records fail with; what waiting took is taken off the budget."""
    cdef int64_t began
    cdef PyObject* found = NULL
    cdef atomic[Topic*]* slot
    if type(topic) is str:
        found = PyDict_GetItemWithError((<DataPlane>core.plane).routes, topic)
    if found != NULL:
        slot = recent_slot(core, topic)
        if slot != NULL:
            slot.store((<TopicRoute>found).topic_, memory_order_release)
        return <TopicRoute>found
    began = now_ns()
    resolved = self.engine.resolve_topic(topic, budget[0] / 1e9)
    budget[0] = max(budget[0] - (now_ns() - began), <int64_t>0)
    return resolved


cdef inline int chosen_partition(int mode, Topic* topic, Record* record, bint* sticky) except -1:
    """The built-in partitioners' choice."""
    if record.key_size >= 0 and (mode == C_DEFAULT or mode == C_MURMUR2):
        return murmur2_partition(record.key, record.key_size, <int>topic.partitions.size())
    return chosen_otherwise(mode, topic, record, sticky)


cdef int chosen_otherwise(int mode, Topic* topic, Record* record, bint* sticky) except -1:
    cdef int count = <int>topic.partitions.size()
    cdef const unsigned char* nothing = <const unsigned char*>b""
    if mode == C_ROUND_ROBIN:
        return round_robin_partition(topic)
    if mode == C_CRC32:
        key = PyBytes_FromStringAndSize(<const char*>record.key, max(record.key_size, 0))
        return <int>(<uint32_t>zlib.crc32(key) % <uint32_t>count)
    if record.key_size >= 0 and mode != C_STICKY:
        return murmur2_partition(record.key, record.key_size, count)
    if mode == C_MURMUR2:
        return murmur2_partition(nothing, 0, count)
    if mode == C_RANDOM:
        return random_partition(topic)
    sticky[0] = True
    return sticky_partition(topic)


cdef object over_limit(Core* core, topic, size_t bound):
    """The error of a record that is larger than `record_limit`."""
    if bound > core.max_request_size:
        return failures.record_too_large(topic, bound, core.max_request_size)
    return failures.record_exceeds_buffer(topic, bound, core.memory_limit)


cdef bint would_open(Partition* partition, Record* record) noexcept:
    """Whether the record does not fit the partition's open batch."""
    cdef Batch* batch
    cdef size_t size = record_body_size(record, 0, 0)
    cdef bint opens
    lock_detached(&partition.gate)
    batch = partition.tail
    opens = batch == NULL or BATCH_HEADER + batch.used + size + RECORD_OVERHEAD > batch.limit
    partition.gate.unlock()
    return opens
