# What is in the columns of Arrow data (Arrow specification, "Columnar format"): where an item's bytes are, how many
# they are; integers; which entries of a map are a record's. Nothing in the buffers is followed to where it cannot lead.

cdef enum Layout:
    NULLS
    OFFSETS
    VIEWS
    FIXED
    INTEGERS
    CODES        # into a dictionary
    LISTS

LAYOUTS = {"null": NULLS, "offsets": OFFSETS, "views": VIEWS, "fixed": FIXED, "integers": INTEGERS, "dictionary": CODES,
           "lists": LISTS}

cdef enum:
    VIEW_SIZE = 16
    VIEW_INLINE = 12         # bytes at most that lie in the view itself
    VIEW_INLINE_AT = 4
    VIEW_BUFFER_AT = 8
    VIEW_OFFSET_AT = 12


@cython.final
cdef class Part:
    # An `arrow_types.Column`, compiled.
    cdef object told
    cdef str what, type_name
    cdef Layout layout
    cdef int64_t place, width, multiplier, divisor
    cdef bint signed, of_records
    cdef Part first, second      # its dictionary, or names and values

    def __cinit__(self, column):
        self.told = column
        self.what = column.what
        self.type_name = column.type
        self.layout = LAYOUTS[column.layout]
        self.place = column.place
        self.width = column.width
        self.multiplier = column.multiplier
        self.divisor = column.divisor
        self.signed = column.signed
        self.of_records = column.of_records
        inner = [Part(each) for each in column.inner]
        self.first = inner[0] if inner else None
        self.second = inner[1] if len(inner) > 1 else None


cdef cppclass Cells:
    # Items: where they are, and their sizes; -1: null.
    vector[const unsigned char*] at
    vector[int32_t] sizes


cdef object error_at(Part part, int64_t index, error):
    """`error`, of an item that is a record's or an entry of something."""
    if part.of_records:
        return failures.of_record(index, error)
    return arrow_failures.at_entry(index, part.what, error)


cdef object broken(Part part, str how):
    return arrow_failures.broken(part.what, part.type_name, how)


# --- Bytes ---------------------------------------------------------------------------------------------------------

cdef int read_cells(Part part, ArrowArray* array, int64_t start, int64_t count, int64_t first, str field,
                    const unsigned char** at, int32_t* sizes) except -1:
    """The items from `start` on. `first`: what errors count from; `field`: what too large an item is called."""
    cdef const unsigned char* valid
    cdef int64_t bad = -1
    if part.layout == NULLS:
        for bad in range(count):
            at[bad] = NULL
            sizes[bad] = -1
        return 0
    check_part(part, array)
    if count == 0:
        return 0
    if part.layout == CODES:
        return read_coded(part, array, start, count, first, field, at, sizes)
    valid = bitmap_of(array)
    start += array.offset
    if array.buffers[1] == NULL and (part.layout != FIXED or part.width):
        raise broken(part, "its second buffer is missing")
    with nogil:
        if part.layout == OFFSETS:
            bad = cells_by_offsets(<const unsigned char*>array.buffers[1], part.width == 8,
                                   <const unsigned char*>array.buffers[2], valid, start, count, at, sizes)
        elif part.layout == VIEWS:
            bad = cells_by_views(array, valid, start, count, at, sizes)
        else:
            cells_of_one_size(<const unsigned char*>array.buffers[1], <int32_t>part.width, valid, start, count, at,
                              sizes)
    if bad >= 0:
        raise error_at(part, first + bad, cell_error(part, array, start + bad, field))
    return 0


cdef int check_part(Part part, ArrowArray* array) except -1:
    cdef int64_t buffers = 2, width = part.width
    if part.layout == OFFSETS:
        buffers = 3
    elif part.layout == VIEWS:
        buffers = -3   # how many more there are is only known here
    check_array(array, part.what, part.type_name, buffers, 1 if part.layout == LISTS else 0, width)
    if part.layout == CODES and array.dictionary == NULL:
        raise broken(part, "its dictionary is missing")
    return 0


cdef inline int64_t offset_at(const unsigned char* offsets, bint wide, int64_t index) noexcept nogil:
    """Buffers need not be aligned."""
    cdef int64_t large
    cdef int32_t small
    if wide:
        memcpy(&large, offsets + 8 * index, 8)
        return large
    memcpy(&small, offsets + 4 * index, 4)
    return small


cdef inline int64_t cells_by_offsets(const unsigned char* offsets, bint wide, const unsigned char* data,
                                     const unsigned char* valid, int64_t start, int64_t count,
                                     const unsigned char** at, int32_t* sizes) noexcept nogil:
    """The first that is not right; -1: all are."""
    cdef int64_t i, begin, end = offset_at(offsets, wide, start)
    for i in range(count):
        begin = end
        end = offset_at(offsets, wide, start + i + 1)
        if is_null(valid, start + i):
            at[i] = NULL
            sizes[i] = -1
            continue
        # Negative ones, as unsigned numbers, are too large.
        if begin < 0 or <uint64_t>end - <uint64_t>begin > INT32_MAX or (data == NULL and end != begin):
            return i
        at[i] = data + begin if data != NULL else NO_HEADERS
        sizes[i] = <int32_t>(end - begin)
    return -1


cdef int64_t cells_by_views(ArrowArray* array, const unsigned char* valid, int64_t start, int64_t count,
                            const unsigned char** at, int32_t* sizes) noexcept nogil:
    cdef const unsigned char* view = <const unsigned char*>array.buffers[1] + VIEW_SIZE * start
    cdef int64_t i
    for i in range(count):
        if is_null(valid, start + i):
            at[i] = NULL
            sizes[i] = -1
        else:
            memcpy(&sizes[i], view, 4)
            at[i] = view + VIEW_INLINE_AT if 0 <= sizes[i] <= VIEW_INLINE else viewed(array, view, sizes[i])
            if at[i] == NULL:
                return i
        view += VIEW_SIZE
    return -1


cdef inline const unsigned char* viewed(ArrowArray* array, const unsigned char* view, int32_t size) noexcept nogil:
    """Where a long item's bytes are; NULL where they cannot be: here the lengths of the buffers are known."""
    cdef int32_t buffer, offset
    cdef int64_t length
    cdef const unsigned char* lengths = <const unsigned char*>array.buffers[array.n_buffers - 1]
    memcpy(&buffer, view + VIEW_BUFFER_AT, 4)
    memcpy(&offset, view + VIEW_OFFSET_AT, 4)
    if size < 0 or offset < 0 or lengths == NULL or not 0 <= buffer < array.n_buffers - 3:
        return NULL
    memcpy(&length, lengths + 8 * <int64_t>buffer, 8)
    if <int64_t>offset + size > length or array.buffers[2 + buffer] == NULL:
        return NULL
    return <const unsigned char*>array.buffers[2 + buffer] + offset


cdef inline void cells_of_one_size(const unsigned char* data, int32_t size, const unsigned char* valid, int64_t start,
                                   int64_t count, const unsigned char** at, int32_t* sizes) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        sizes[i] = -1 if is_null(valid, start + i) else size
        at[i] = data + (start + i) * size if size else NO_HEADERS


cdef object cell_error(Part part, ArrowArray* array, int64_t index, str field):
    """Why this item was refused."""
    cdef const unsigned char* data = <const unsigned char*>array.buffers[1]
    cdef int64_t begin, end
    cdef int32_t size, buffer = 0, offset = 0
    if part.layout == VIEWS:
        data += VIEW_SIZE * index
        memcpy(&size, data, 4)
        memcpy(&buffer, data + VIEW_BUFFER_AT, 4)
        memcpy(&offset, data + VIEW_OFFSET_AT, 4)
        return broken(part, f"a view of {size} bytes at {offset} of buffer {buffer} leads out of what is there")
    begin = offset_at(data, part.width == 8, index)
    end = offset_at(data, part.width == 8, index + 1)
    if begin < 0 or end < begin:
        return broken(part, f"its offsets go from {begin} to {end}")
    if array.buffers[2] == NULL:
        return broken(part, f"it has {end - begin} bytes in a buffer that is missing")
    return failures.too_long(field, end - begin)


cdef int read_coded(Part part, ArrowArray* array, int64_t start, int64_t count, int64_t first, str field,
                    const unsigned char** at, int32_t* sizes) except -1:
    """By a dictionary; a null may be in either."""
    cdef Cells words
    cdef int64_t i, code, bad = -1, known = array.dictionary.length
    cdef const unsigned char* codes = <const unsigned char*>array.buffers[1]
    cdef const unsigned char* valid = bitmap_of(array)
    if part.first.layout == NULLS:
        check_array(array.dictionary, part.first.what, part.first.type_name, array.dictionary.n_buffers, 0, 0)
    else:
        check_part(part.first, array.dictionary)
    if codes == NULL:
        raise broken(part, "its second buffer is missing")
    if known > INT32_MAX:
        raise broken(part.first, f"{known} entries")
    words.at.resize(known)
    words.sizes.resize(known)
    read_cells(part.first, array.dictionary, 0, known, 0, field, words.at.data(), words.sizes.data())
    start += array.offset
    with nogil:
        for i in range(count):
            sizes[i] = -1
            at[i] = NULL
            if is_null(valid, start + i):
                continue
            code = integer_at(codes, part.width, part.signed, start + i)
            if not 0 <= code < known:
                bad = i
                break
            at[i] = words.at[code]
            sizes[i] = words.sizes[code]
    if bad >= 0:
        code_ = number_at(part, array, start + bad)
        raise error_at(part, first + bad, broken(part, f"code {code_} of a dictionary of {known}"))
    return 0


# --- Integers ------------------------------------------------------------------------------------------------------

cdef inline int64_t integer_at(const unsigned char* data, int64_t width, bint signed, int64_t index) noexcept nogil:
    """Of uint64, what does not fit is negative."""
    cdef int64_t large
    cdef int32_t middle
    cdef int16_t small
    if width == 8:
        memcpy(&large, data + 8 * index, 8)
        return large
    if width == 4:
        memcpy(&middle, data + 4 * index, 4)
        return middle if signed else <int64_t><uint32_t>middle
    if width == 2:
        memcpy(&small, data + 2 * index, 2)
        return small if signed else <int64_t><uint16_t>small
    return <int64_t><signed char>data[index] if signed else <int64_t>data[index]


cdef object number_at(Part part, ArrowArray* array, int64_t index):
    """As it is in the buffer."""
    cdef int64_t number = integer_at(<const unsigned char*>array.buffers[1], part.width, part.signed, index)
    return number if part.signed else <uint64_t>number


cdef const unsigned char* integers_of(Part part, ArrowArray* array, int64_t count) except? NULL:
    """The buffer, checked; NULL: there is nothing but nulls."""
    if part.layout == NULLS:
        return NULL
    check_part(part, array)
    if count and array.buffers[1] == NULL:
        raise broken(part, "its second buffer is missing")
    return <const unsigned char*>array.buffers[1]


cdef int read_partitions(Part part, ArrowArray* array, int64_t start, int64_t count, int32_t* numbers) except -1:
    cdef const unsigned char* data = integers_of(part, array, count)
    cdef const unsigned char* valid = NULL
    cdef int64_t i, number
    if data != NULL:
        valid = bitmap_of(array)
        start += array.offset
    with nogil:
        for i in range(count):
            if data == NULL or is_null(valid, start + i):
                numbers[i] = NO_NUMBER
                continue
            number = integer_at(data, part.width, part.signed, start + i)
            numbers[i] = <int32_t>number if 0 <= number <= INT32_MAX else NO_PARTITION
    return 0


cdef int read_times(Part part, ArrowArray* array, int64_t start, int64_t count, int64_t first, int64_t now,
                    int64_t* times) except -1:
    """In milliseconds, rounded down as clocks are."""
    cdef const unsigned char* data = integers_of(part, array, count)
    cdef const unsigned char* valid = NULL
    cdef int64_t i, time, bad = -1
    if data != NULL:
        valid = bitmap_of(array)
        start += array.offset
    with nogil:
        for i in range(count):
            if data == NULL or is_null(valid, start + i):
                times[i] = now
                continue
            time = integer_at(data, 8, True, start + i)
            if not INT64_MIN // part.multiplier <= time <= INT64_MAX // part.multiplier:
                bad = i
                break
            times[i] = time * part.multiplier // part.divisor
            if time < 0 and time % part.divisor:
                times[i] -= 1
    if bad >= 0:
        told = number_at(part, array, start + bad)
        raise failures.of_record(first + bad, arrow_failures.time_out_of_range(part.what, part.type_name, told))
    return 0


# --- Headers -------------------------------------------------------------------------------------------------------

cdef class HeaderReader:
    """The headers of a batch: columns of values under names that all records share, or a map of both."""
    cdef vector[string] names          # of the columns; each with its size before it, as in a record
    cdef vector[int32_t] name_sizes
    cdef list columns                  # of Part
    cdef Part entries

    def __cinit__(self, header_map, headers):
        cdef unsigned char buffer[10]
        cdef bytes name
        self.entries = None if header_map is None else Part(header_map)
        self.columns = []
        for name, column in headers:
            self.columns.append(Part(column))
            size = put_varint(buffer, len(name)) - buffer
            self.names.push_back((<char*>buffer)[:size] + name)
            self.name_sizes.push_back(<int32_t>len(name))

    cdef int read(self, ArrowArray* batch, Py_ssize_t first, Call call) except -1:
        if self.entries is None:
            self.read_columns(batch, first, call)
        else:
            self.read_map(batch, first, call)
        return 0

    cdef int read_columns(self, ArrowArray* batch, Py_ssize_t first, Call call) except -1:
        """A null is a header whose value is null."""
        cdef vector[Cells] values
        cdef ArrowArray* column
        cdef Part part
        cdef unsigned char count[10]
        cdef size_t count_size = put_varint(count, len(self.columns)) - count, i, size
        cdef unsigned char* end
        cdef int32_t payload
        cdef int64_t row
        values.resize(self.names.size())
        for i in range(values.size()):
            part = self.columns[i]
            column = column_of(part, batch)
            values[i].at.resize(batch.length)
            values[i].sizes.resize(batch.length)
            read_cells(part, column, batch.offset, batch.length, first, "header", values[i].at.data(),
                       values[i].sizes.data())
        for row in range(batch.length):
            size = count_size
            payload = 0
            for i in range(values.size()):
                size += self.names[i].size() + field_size(values[i].sizes[row])
                payload = added(payload, self.name_sizes[i], values[i].sizes[row])
            end = room_for(call, size)
            memcpy(end, count, count_size)
            end += count_size
            for i in range(values.size()):
                memcpy(end, self.names[i].data(), self.names[i].size())
                end = put_field(end + self.names[i].size(), values[i].at[row], values[i].sizes[row])
            call.header_ends.push_back(call.headers.size())
            call.placement.header_sizes.push_back(payload)
        return 0

    cdef int read_map(self, ArrowArray* batch, Py_ssize_t first, Call call) except -1:
        """A null map is no headers, a null value a header whose value is null."""
        cdef ArrowArray* lists = column_of(self.entries, batch)
        cdef ArrowArray* pairs
        cdef const unsigned char* offsets
        cdef const unsigned char* valid
        cdef bint wide = self.entries.width == 8
        cdef int64_t row, start, begin, end, low
        cdef Cells names, values
        check_part(self.entries, lists)
        pairs = child_of(lists, 0, 0, self.entries.what, self.entries.type_name)
        check_array(pairs, self.entries.what, "struct", 1, 2, 0)
        if batch.length == 0:
            return 0
        offsets = <const unsigned char*>lists.buffers[1]
        if offsets == NULL:
            raise broken(self.entries, "its second buffer is missing")
        valid = bitmap_of(lists)
        start = batch.offset + lists.offset
        for row in range(batch.length):
            begin = offset_at(offsets, wide, start + row)
            end = offset_at(offsets, wide, start + row + 1)
            if not 0 <= begin <= end <= pairs.length:
                error = broken(self.entries, f"its offsets go from {begin} to {end} of {pairs.length}")
                raise failures.of_record(first + row, error)
        low = offset_at(offsets, wide, start)
        end = offset_at(offsets, wide, start + batch.length)
        if end - low > INT32_MAX:
            raise broken(self.entries, f"{end - low} entries")
        read_side(self.entries.first, pairs, low, end, names)
        read_side(self.entries.second, pairs, low, end, values)
        for row in range(batch.length):
            begin = offset_at(offsets, wide, start + row)
            end = begin if is_null(valid, start + row) else offset_at(offsets, wide, start + row + 1)
            if not low <= begin <= end <= low + <int64_t>names.at.size():
                raise broken(self.entries, "its offsets change while they are read")
            try:
                self.put_entries(pairs, begin, end, low, names, values, call)
            except ValueError as error:
                raise failures.of_record(first + row, error)
        return 0

    cdef int put_entries(self, ArrowArray* pairs, int64_t begin, int64_t end, int64_t low, Cells& names,
                         Cells& values, Call call) except -1:
        cdef const unsigned char* valid = bitmap_of(pairs)
        cdef size_t size = varint_size(end - begin)
        cdef unsigned char* to
        cdef int32_t payload = 0
        cdef int64_t i
        for i in range(begin, end):
            if is_null(valid, pairs.offset + i) or names.sizes[i - low] < 0:
                raise arrow_failures.null_header(self.entries.what)
            check_name(self.entries, names.at[i - low], names.sizes[i - low])
            size += field_size(names.sizes[i - low]) + field_size(values.sizes[i - low])
            payload = added(payload, names.sizes[i - low], values.sizes[i - low])
        to = put_varint(room_for(call, size), end - begin)
        for i in range(begin, end):
            to = put_field(to, names.at[i - low], names.sizes[i - low])
            to = put_field(to, values.at[i - low], values.sizes[i - low])
        call.header_ends.push_back(call.headers.size())
        call.placement.header_sizes.push_back(payload if end > begin else -1)
        return 0


cdef ArrowArray* column_of(Part part, ArrowArray* batch) except NULL:
    """A column that has all of the batch's rows."""
    return child_of(batch, part.place, batch.offset + batch.length, part.what, part.type_name)


cdef int read_side(Part part, ArrowArray* pairs, int64_t low, int64_t end, Cells& cells) except -1:
    """Names or values, from the entry `low` on."""
    cdef ArrowArray* side = child_of(pairs, part.place, pairs.offset + end, part.what, part.type_name)
    cells.at.resize(end - low)
    cells.sizes.resize(end - low)
    read_cells(part, side, pairs.offset + low, end - low, low, "header", cells.at.data(), cells.sizes.data())
    return 0


cdef unsigned char* room_for(Call call, size_t size) except NULL:
    cdef size_t used = call.headers.size()
    call.headers.resize(used + size)
    return call.headers.data() + used


cdef inline int32_t added(int32_t payload, int32_t name_size, int32_t value_size) noexcept nogil:
    """What RecordMetadata says of headers. Above its limit the record is refused in a moment."""
    return <int32_t>min(<int64_t>payload + name_size + max(value_size, 0), <int64_t>INT32_MAX)


cdef int check_name(Part entries, const unsigned char* at, int32_t size) except -1:
    cdef int32_t i
    for i in range(size):
        if at[i] >= 0x80:
            break
    else:
        return 0
    try:
        PyUnicode_DecodeUTF8(<const char*>at, size, NULL)
    except UnicodeDecodeError:
        name = PyBytes_FromStringAndSize(<const char*>at, size)
        raise arrow_failures.header_name_not_utf8(entries.what, name) from None
    return 0
