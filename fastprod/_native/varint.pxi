# Base-128 numbers: zigzag in records (Kafka protocol guide, "Record"), plain in flexible requests (KIP-482).


cdef inline uint64_t zigzag(int64_t value) noexcept nogil:
    return (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)


cdef inline int64_t unzigzag(uint64_t value) noexcept nogil:
    return <int64_t>((value >> 1) ^ (~(value & 1) + 1))


cdef inline int uvarint_size(uint64_t value) noexcept nogil:
    cdef int size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline int varint_size(int64_t value) noexcept nogil:
    return uvarint_size(zigzag(value))


cdef inline unsigned char* put_uvarint(unsigned char* at, uint64_t value) noexcept nogil:
    while value >= 0x80:
        at[0] = <unsigned char>(value | 0x80)
        at += 1
        value >>= 7
    at[0] = <unsigned char>value
    return at + 1


cdef inline unsigned char* put_varint(unsigned char* at, int64_t value) noexcept nogil:
    return put_uvarint(at, zigzag(value))


cdef const unsigned char* take_uvarint(const unsigned char* at, const unsigned char* end, int bits,
                                       uint64_t* value) noexcept nogil:
    """The position after the number, or NULL when it is cut short or does not fit `bits`."""
    cdef uint64_t result = 0
    cdef int shift = 0
    while at < end:
        if shift == 63 and at[0] > 1:
            return NULL
        result |= <uint64_t>(at[0] & 0x7F) << shift
        if at[0] < 0x80:
            if bits == 32 and result > 0xFFFFFFFFULL:
                return NULL
            value[0] = result
            return at + 1
        at += 1
        shift += 7
        if shift > 63 or (bits == 32 and shift > 28):
            return NULL
    return NULL


cdef object _encoded(uint64_t value):
    cdef unsigned char buffer[10]
    cdef unsigned char* end = put_uvarint(buffer, value)
    return PyBytes_FromStringAndSize(<char*>buffer, end - buffer)


def encode_varint(value: int) -> bytes:
    """`value` (a signed 32-bit number) as a zigzag varint. ValueError when it does not fit."""
    if not -0x80000000 <= value <= 0x7FFFFFFF:
        raise ValueError(f"{value} does not fit a varint's signed 32 bits")
    return _encoded(zigzag(value))


def encode_varlong(value: int) -> bytes:
    """`value` (a signed 64-bit number) as a zigzag varint. ValueError when it does not fit."""
    if not -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        raise ValueError(f"{value} does not fit a varlong's signed 64 bits")
    return _encoded(zigzag(value))


def encode_uvarint(value: int) -> bytes:
    """`value` (an unsigned 32-bit number) as a plain varint. ValueError when it does not fit."""
    if not 0 <= value <= 0xFFFFFFFF:
        raise ValueError(f"{value} does not fit an unsigned varint's 32 bits")
    return _encoded(value)


cdef tuple _decoded(data, Py_ssize_t position, int bits, bint signed):
    cdef const unsigned char[::1] view = data
    cdef Py_ssize_t size = view.shape[0]
    cdef uint64_t value = 0
    cdef const unsigned char* start
    cdef const unsigned char* after
    if not 0 <= position < size:
        raise ValueError(f"varint at {position} is cut short: there are {size} bytes")
    start = &view[0]
    after = take_uvarint(start + position, start + size, bits, &value)
    if after == NULL:
        raise ValueError(f"varint at {position} is cut short or longer than {bits} bits")
    return (unzigzag(value) if signed else value), after - start


def decode_varint(data, position: int) -> tuple[int, int]:
    """The signed 32-bit number at `position` and the position after it. ValueError when cut short or too long."""
    return _decoded(data, position, 32, True)


def decode_varlong(data, position: int) -> tuple[int, int]:
    """The signed 64-bit number at `position` and the position after it. ValueError when cut short or too long."""
    return _decoded(data, position, 64, True)


def decode_uvarint(data, position: int) -> tuple[int, int]:
    """The unsigned 32-bit number at `position` and the position after it. ValueError when cut short or too long."""
    return _decoded(data, position, 32, False)
