# Record batches, format v2 (Kafka protocol guide, "Record Batch").

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ
from cpython.unicode cimport PyUnicode_DecodeUTF8

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


cdef cppclass Record:
    # A record as it is appended: pointers into the caller's objects. A size of -1 is null.
    const unsigned char* key
    int64_t key_size
    const unsigned char* value
    int64_t value_size
    const unsigned char* headers     # encoded, with their count
    size_t headers_size
    size_t framed                    # bytes of the three as they will lie in the record, see `frame`
    int64_t timestamp


cdef const unsigned char* NO_HEADERS = <const unsigned char*>b"\0"


cdef inline size_t field_size(int64_t size) noexcept nogil:
    return 1 if size < 0 else <size_t>(varint_size(size) + size)


cdef inline unsigned char* put_field(unsigned char* at, const unsigned char* data, int64_t size) noexcept nogil:
    at = put_varint(at, size)
    if size > 0:
        memcpy(at, data, size)
        at += size
    return at


cdef inline void frame(Record* record) noexcept nogil:
    """Key, value and headers are there: count what they take. Nothing else of the record needs to be counted twice."""
    record.framed = field_size(record.key_size) + field_size(record.value_size) + record.headers_size


cdef inline size_t record_upper_bound(Record* record) noexcept nogil:
    """What the record takes at most in a batch of its own."""
    return BATCH_HEADER + RECORD_OVERHEAD + record.framed


cdef inline size_t record_body_size(Record* record, int64_t timestamp_delta, int32_t offset_delta) noexcept nogil:
    return 1 + varint_size(timestamp_delta) + varint_size(offset_delta) + record.framed


cdef inline unsigned char* put_record(unsigned char* at, Record* record, size_t body_size, int64_t timestamp_delta,
                                      int32_t offset_delta) noexcept nogil:
    cdef Record mine = record[0]   # a byte that is written cannot change this one, and the compiler knows
    at = put_varint(at, body_size)
    at[0] = 0  # attributes
    at = put_varint(at + 1, timestamp_delta)
    at = put_varint(at, offset_delta)
    at = put_field(at, mine.key, mine.key_size)
    at = put_field(at, mine.value, mine.value_size)
    if mine.headers_size == 1:   # mostly there are none, but for their count
        at[0] = mine.headers[0]
        return at + 1
    memcpy(at, mine.headers, mine.headers_size)
    return at + mine.headers_size


cdef void put_batch_header(unsigned char* at, const unsigned char* body, size_t body_size, uint32_t body_crc, int codec,
                           int32_t count, int64_t base_timestamp, int64_t max_timestamp, int64_t producer_id,
                           int16_t producer_epoch, int32_t base_sequence) noexcept nogil:
    put64(at + BASE_OFFSET_AT, 0)
    put32(at + BATCH_LENGTH_AT, <uint32_t>(BATCH_HEADER + body_size - LEADER_EPOCH_AT))
    put32(at + LEADER_EPOCH_AT, 0xFFFFFFFFU)
    at[MAGIC_AT] = 2
    put16(at + ATTRIBUTES_AT, <uint16_t>codec)
    put32(at + LAST_OFFSET_DELTA_AT, <uint32_t>(count - 1))
    put64(at + BASE_TIMESTAMP_AT, <uint64_t>base_timestamp)
    put64(at + MAX_TIMESTAMP_AT, <uint64_t>max_timestamp)
    put64(at + PRODUCER_ID_AT, <uint64_t>producer_id)
    put16(at + PRODUCER_EPOCH_AT, <uint16_t>producer_epoch)
    put32(at + BASE_SEQUENCE_AT, <uint32_t>base_sequence)
    put32(at + RECORD_COUNT_AT, <uint32_t>count)
    # A stamp that changes for a new transmission does not cost the CRC of a long body again.
    put32(at + CRC_AT, crc_with_body(crc_of(0, at + ATTRIBUTES_AT, BATCH_HEADER - ATTRIBUTES_AT), body, body_size,
                                     body_crc))


cdef int encode_headers(list headers, vector[unsigned char]& out) except -1:
    """Append the headers (a list of (str, bytes-like or None) tuples) in the record format, count first."""
    cdef unsigned char buffer[10]
    cdef Py_ssize_t size
    cdef const char* text
    cdef const unsigned char[::1] view
    cdef unsigned char* end = put_varint(buffer, len(headers))
    append_bytes(out, buffer, end - buffer)
    for name, value in headers:
        text = PyUnicode_AsUTF8AndSize(name, &size)
        end = put_varint(buffer, size)
        append_bytes(out, buffer, end - buffer)
        append_bytes(out, text, size)
        if value is None:
            out.push_back(1)  # zigzag of -1
            continue
        view = value
        size = view.shape[0]
        end = put_varint(buffer, size)
        append_bytes(out, buffer, end - buffer)
        if size:
            append_bytes(out, &view[0], size)
    return 0


cdef class _Bytes:
    # A bytes-like object held still while its bytes are read.
    cdef Py_buffer buffer
    cdef bint held

    def __cinit__(self, data):
        self.held = False
        if isinstance(data, memoryview) and not data.c_contiguous:
            data = data.tobytes()
        PyObject_GetBuffer(data, &self.buffer, PyBUF_SIMPLE)
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)


cdef inline bint take_bytes(object data, const unsigned char** at, int64_t* size) noexcept:
    """`point_at` for what is mostly given: bytes that a record can hold, or None. False: it is something else."""
    if type(data) is bytes:
        at[0] = <const unsigned char*>PyBytes_AS_STRING(data)
        size[0] = PyBytes_GET_SIZE(data)
        return size[0] <= INT32_MAX
    size[0] = -1
    return data is None


cdef _Bytes point_at(object data, const unsigned char** at, int64_t* size):
    """Set `at` and `size` to the bytes of `data` (None: null); what it returns must live as long as they are used."""
    cdef _Bytes held
    if data is None:
        at[0] = NULL
        size[0] = -1
        return None
    if type(data) is bytes:
        at[0] = <const unsigned char*>PyBytes_AS_STRING(data)
        size[0] = PyBytes_GET_SIZE(data)
        return None
    held = _Bytes(data)
    at[0] = <const unsigned char*>held.buffer.buf
    size[0] = held.buffer.len
    return held


cdef bytes compressed_body(object compress, const unsigned char* body, size_t size):
    """The compressed body, or None when it would not be smaller."""
    cdef bytes result
    view = PyMemoryView_FromMemory(<char*>body, size, PyBUF_READ)
    try:
        result = compress(view)
    finally:
        view.release()   # a traceback may keep it, and the bytes are ours to free
    return result if <size_t>len(result) < size else None


cdef class RecordBatchBuilder:
    """One record batch built record by record, as the accumulator builds its batches. Not for two threads at once.

    `limit`: the size in bytes, header included, above which `append` refuses; the first record always fits.
    """
    cdef vector[unsigned char] body
    cdef size_t limit
    cdef int32_t records
    cdef int64_t base_timestamp, max_timestamp

    def __init__(self, limit: int = 1_000_000):
        if limit < 0:
            raise ValueError(f"limit must not be negative: {limit}")
        self.limit = limit
        self.records = 0
        self.base_timestamp = self.max_timestamp = -1

    @property
    def count(self) -> int:
        """Records in the batch."""
        return self.records

    @property
    def size(self) -> int:
        """Bytes of the uncompressed batch, header included."""
        return BATCH_HEADER + self.body.size()

    def append(self, timestamp_ms: int, key, value, headers) -> int | None:
        """Add a record and return its index, or None when there is no room left.

        `key`, `value`: bytes-like or None; `headers`: a list of (str, bytes-like or None) tuples.
        """
        cdef Record record
        cdef vector[unsigned char] encoded
        cdef int64_t delta
        cdef size_t body_size, at
        cdef _Bytes held_key = point_at(key, &record.key, &record.key_size)
        cdef _Bytes held_value = point_at(value, &record.value, &record.value_size)
        record.timestamp = timestamp_ms
        encode_headers(headers, encoded)
        record.headers = encoded.data()
        record.headers_size = encoded.size()
        frame(&record)
        delta = <int64_t>(<uint64_t>record.timestamp - <uint64_t>self.base_timestamp) if self.records else 0
        body_size = record_body_size(&record, delta, self.records)
        at = self.body.size()
        if self.records and BATCH_HEADER + at + varint_size(body_size) + body_size > self.limit:
            return None
        self.body.resize(at + varint_size(body_size) + body_size)
        put_record(self.body.data() + at, &record, body_size, delta, self.records)
        if self.records == 0:
            self.base_timestamp = self.max_timestamp = record.timestamp
        self.max_timestamp = max(self.max_timestamp, record.timestamp)
        self.records += 1
        return self.records - 1

    def build(self, codec: int = 0, compress=None, producer_id: int = -1, producer_epoch: int = -1,
              base_sequence: int = -1) -> bytes:
        """The whole batch: base offset 0, leader epoch -1; the compressed body only where it is smaller."""
        cdef unsigned char header[BATCH_HEADER]
        cdef bytes body = None
        cdef const unsigned char* at
        cdef int used = 0
        if codec and compress is not None:
            body = compressed_body(compress, self.body.data(), self.body.size())
            used = codec
        if body is None:
            body = PyBytes_FromStringAndSize(<char*>self.body.data(), self.body.size())
            used = 0
        at = <const unsigned char*>PyBytes_AS_STRING(body)
        put_batch_header(header, at, len(body), body_crc_of(at, len(body)), used, self.records, self.base_timestamp,
                         self.max_timestamp, producer_id, producer_epoch, base_sequence)
        return PyBytes_FromStringAndSize(<char*>header, BATCH_HEADER) + body


cdef bytes _taken_field(const unsigned char** at, const unsigned char* end):
    cdef uint64_t raw = 0
    cdef int64_t size
    cdef const unsigned char* start = take_uvarint(at[0], end, 32, &raw)
    size = unzigzag(raw)
    if start == NULL or size < -1 or size > end - start:
        raise ValueError("a record's field is cut short")
    if size < 0:
        at[0] = start
        return None
    at[0] = start + size
    return PyBytes_FromStringAndSize(<const char*>start, size)


cdef tuple _taken_record(const unsigned char* at, const unsigned char* end, int64_t base_timestamp, int32_t index):
    cdef uint64_t raw = 0
    cdef int64_t timestamp, count
    cdef list headers = []
    if at == end or at[0] != 0:
        raise ValueError(f"record {index} has unknown attributes")
    at = take_uvarint(at + 1, end, 64, &raw)
    if at == NULL:
        raise ValueError(f"record {index} is cut short")
    timestamp = <int64_t>(<uint64_t>base_timestamp + <uint64_t>unzigzag(raw))
    at = take_uvarint(at, end, 32, &raw)
    if at == NULL or unzigzag(raw) != index:
        raise ValueError(f"record {index} has another offset delta")
    key = _taken_field(&at, end)
    value = _taken_field(&at, end)
    at = take_uvarint(at, end, 32, &raw)
    count = unzigzag(raw)
    if at == NULL or count < 0 or count > end - at:
        raise ValueError(f"record {index} has a broken header count")
    for _ in range(count):
        name = _taken_field(&at, end)
        if name is None:
            raise ValueError(f"record {index} has a header without a name")
        content = _taken_field(&at, end)
        headers.append((name.decode(), content))
    if at != end:
        raise ValueError(f"record {index} has {end - at} bytes too many")
    return timestamp, key, value, headers


def decode_records(body, base_timestamp: int, count: int) -> list:
    """The records of an uncompressed body: a list of (timestamp_ms, key, value, headers).

    `headers` is a list of (str, bytes or None). ValueError when the bytes are not exactly `count` records.
    """
    cdef const unsigned char[::1] view = body
    cdef const unsigned char* at = &view[0] if view.shape[0] else <const unsigned char*>b""
    cdef const unsigned char* end = at + view.shape[0]
    cdef uint64_t raw = 0
    cdef int64_t size
    cdef int32_t index
    cdef list records = []
    for index in range(count):
        at = take_uvarint(at, end, 32, &raw)
        size = unzigzag(raw)
        if at == NULL or size < 0 or size > end - at:
            raise ValueError(f"record {index} is cut short")
        records.append(_taken_record(at, at + size, base_timestamp, index))
        at += size
    if at != end:
        raise ValueError(f"{end - at} bytes follow the last record")
    return records
