# send_arrow(): the columns of Arrow data become a call's; the rest is send_many()'s.


@cython.final
cdef class ArrowCall(Call):
    cdef ArrowTable table        # what the records point into
    cdef vector[const unsigned char*] values_at
    cdef vector[const unsigned char*] keys_at
    cdef Part partition

    cdef object number_given(self, Py_ssize_t index):
        cdef size_t i = 0
        cdef ArrowArray* batch
        cdef ArrowArray* column
        if self.partition is None or self.partition.layout == NULLS:
            return None
        while index >= self.table.batches[i].length:
            index -= self.table.batches[i].length
            i += 1
        batch = &self.table.batches[i]
        column = column_of(self.partition, batch)
        index += batch.offset + column.offset
        return None if is_null(bitmap_of(column), index) else number_at(self.partition, column, index)

    cdef tuple fields_given(self, Py_ssize_t index):
        cdef Placement placement = self.placement
        key = None
        if not self.keys_at.empty() and placement.key_sizes[index] >= 0:
            key = PyBytes_FromStringAndSize(<const char*>self.keys_at[index], placement.key_sizes[index])
        value = None
        if placement.value_sizes[index] >= 0:
            value = PyBytes_FromStringAndSize(<const char*>self.values_at[index], placement.value_sizes[index])
        return key, key, value, value


cdef object send_arrow(ProducerBase self, topic, data, tuple names):
    cdef ArrowTable table = ArrowTable.__new__(ArrowTable)
    if self.plane is None or self.plane.core.closing.load(memory_order_relaxed):
        self._begin_again()
    try:
        table.open(data)
        plan = arrow_types.plan(table.table(), *names)
        table.read_all()
        return accepted(self, topic, arrow_call(self, topic, table, plan))
    finally:
        table.release()   # every byte is encoded, or nothing will be


cdef ArrowCall arrow_call(ProducerBase self, topic, ArrowTable table, plan):
    cdef ArrowCall call = ArrowCall.__new__(ArrowCall)
    cdef Placement placement = Placement.__new__(Placement, str(topic))
    cdef Py_ssize_t count = table.count
    call.table = table
    call.placement = placement
    placement.expect(count)
    call.number = NO_NUMBER
    placement.timestamp = wall_ms()
    call.values_at.resize(count)
    call.values_from = call.values_at.data()
    call.keys_from = NULL
    call.inside = 0
    placement.value_sizes.resize(count)
    if plan.key is not None:
        call.keys_at.resize(count)
        call.keys_from = call.keys_at.data()
        placement.key_sizes.resize(count)
    if plan.headers or plan.header_map is not None:
        call.header_ends.reserve(count)
        placement.header_sizes.reserve(count)
    else:
        encode_headers([], call.headers)
    if plan.timestamp is not None:
        placement.timestamps.resize(count)
    if plan.partition is not None:
        call.partition = Part(plan.partition)
        call.numbers.resize(count)
    read_batches(call, plan)
    check_contents(placement)
    check_bounds(self.plane.core, call)
    return call


cdef int read_batches(ArrowCall call, plan) except -1:
    cdef Placement placement = call.placement
    cdef Part value = Part(plan.value)
    cdef Part key = None if plan.key is None else Part(plan.key)
    cdef Part timestamp = None if plan.timestamp is None else Part(plan.timestamp)
    cdef HeaderReader headers = None
    cdef ArrowArray* batch
    cdef size_t i
    cdef Py_ssize_t first = 0
    if plan.headers or plan.header_map is not None:
        headers = HeaderReader(plan.header_map, plan.headers)
    for i in range(call.table.batches.size()):
        batch = &call.table.batches[i]
        check_rows(batch, first)
        read_cells(value, column_of(value, batch), batch.offset, batch.length, first, "value",
                   call.values_at.data() + first, placement.value_sizes.data() + first)
        if key is not None:
            read_cells(key, column_of(key, batch), batch.offset, batch.length, first, "key",
                       call.keys_at.data() + first, placement.key_sizes.data() + first)
        if headers is not None:
            headers.read(batch, first, call)
        if timestamp is not None:
            read_times(timestamp, column_of(timestamp, batch), batch.offset, batch.length, first, placement.timestamp,
                       placement.timestamps.data() + first)
        if call.partition is not None:
            read_partitions(call.partition, column_of(call.partition, batch), batch.offset, batch.length,
                            call.numbers.data() + first)
        first += batch.length
        PyErr_CheckSignals()
    return 0


cdef int check_rows(ArrowArray* batch, Py_ssize_t first) except -1:
    """A struct array may have rows that are null as a whole."""
    cdef const unsigned char* valid = bitmap_of(batch)
    cdef int64_t i
    if valid == NULL:
        return 0
    for i in range(batch.length):
        if is_null(valid, batch.offset + i):
            raise failures.of_record(first + i, arrow_failures.null_record())
    return 0
