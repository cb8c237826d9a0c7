# The one API the data plane speaks: Produce, versions 3 to 13 (Kafka protocol guide, "Produce API").

cdef enum:
    PRODUCE_KEY = 0
    FLEXIBLE_FROM = 9      # KIP-482: compact lengths, tagged fields
    RECORD_ERRORS_FROM = 8
    LOG_START_FROM = 5
    TOPIC_IDS_FROM = 13    # KIP-516
    LEADER_HINT_TAG = 0
    NODE_ENDPOINTS_TAG = 0


cdef cppclass WireBatch:
    # One partition's part of a request.
    const char* topic
    size_t topic_size
    const unsigned char* topic_id     # 16 bytes, version 13
    int32_t partition
    unsigned char header[BATCH_HEADER]
    const unsigned char* body
    size_t body_size


cdef void append_bytes(vector[unsigned char]& out, const void* data, size_t size) noexcept nogil:
    out.insert(out.end(), <const unsigned char*>data, <const unsigned char*>data + size)


cdef void append16(vector[unsigned char]& out, uint16_t value) noexcept nogil:
    cdef unsigned char buffer[2]
    put16(buffer, value)
    append_bytes(out, buffer, 2)


cdef void append32(vector[unsigned char]& out, uint32_t value) noexcept nogil:
    cdef unsigned char buffer[4]
    put32(buffer, value)
    append_bytes(out, buffer, 4)


cdef void append_uvarint(vector[unsigned char]& out, uint64_t value) noexcept nogil:
    cdef unsigned char buffer[10]
    append_bytes(out, buffer, put_uvarint(buffer, value) - buffer)


cdef void append_count(vector[unsigned char]& out, bint flexible, size_t count) noexcept nogil:
    if flexible:
        append_uvarint(out, count + 1)
    else:
        append32(out, <uint32_t>count)


cdef size_t run_length(const vector[WireBatch]& batches, size_t start) noexcept nogil:
    cdef size_t end = start + 1
    while end < batches.size() and batches[start].topic == batches[end].topic:
        end += 1
    return end - start


cdef void write_request(Request* request, const string& client_id, int acks, int32_t timeout_ms,
                        const vector[WireBatch]& batches) noexcept nogil:
    """Fill head, segments and size. Batches of one topic stand together; bodies are pointed at, not copied."""
    cdef vector[unsigned char]* out = &request.head
    cdef vector[size_t] cuts
    cdef bint flexible = request.version >= FLEXIBLE_FROM
    cdef size_t topics = 0, at = 0, run, i
    while at < batches.size():
        at += run_length(batches, at)
        topics += 1
    out.reserve(64 + client_id.size() + batches.size() * (BATCH_HEADER + 16))   # topics are little beside that
    cuts.reserve(batches.size())
    append32(out[0], 0)                                     # size, filled in below
    append16(out[0], PRODUCE_KEY)
    append16(out[0], <uint16_t>request.version)
    append32(out[0], <uint32_t>request.correlation_id)
    append16(out[0], <uint16_t>client_id.size())
    append_bytes(out[0], client_id.data(), client_id.size())
    if flexible:
        append_uvarint(out[0], 0)                           # header tags
        append_uvarint(out[0], 0)                           # transactional_id: null
    else:
        append16(out[0], 0xFFFF)                            # transactional_id: null
    append16(out[0], <uint16_t>acks)
    append32(out[0], <uint32_t>timeout_ms)
    append_count(out[0], flexible, topics)
    at = 0
    while at < batches.size():
        run = run_length(batches, at)
        if request.version >= TOPIC_IDS_FROM:
            append_bytes(out[0], batches[at].topic_id, 16)
        elif flexible:
            append_uvarint(out[0], batches[at].topic_size + 1)
            append_bytes(out[0], batches[at].topic, batches[at].topic_size)
        else:
            append16(out[0], <uint16_t>batches[at].topic_size)
            append_bytes(out[0], batches[at].topic, batches[at].topic_size)
        append_count(out[0], flexible, run)
        for i in range(at, at + run):
            append32(out[0], <uint32_t>batches[i].partition)
            append_count(out[0], flexible, BATCH_HEADER + batches[i].body_size)
            append_bytes(out[0], batches[i].header, BATCH_HEADER)
            cuts.push_back(out.size())
            if flexible:
                append_uvarint(out[0], 0)                   # partition tags
        if flexible:
            append_uvarint(out[0], 0)                       # topic tags
        at += run
    if flexible:
        append_uvarint(out[0], 0)                           # request tags
    cut_segments(request, batches, cuts)


cdef void cut_segments(Request* request, const vector[WireBatch]& batches, const vector[size_t]& cuts) noexcept nogil:
    cdef Segment segment
    cdef size_t start = 0, i
    request.segments.reserve(2 * batches.size() + 1)
    request.size = request.head.size()
    for i in range(batches.size()):
        segment.data = request.head.data() + start
        segment.size = cuts[i] - start
        request.segments.push_back(segment)
        start = cuts[i]
        segment.data = batches[i].body
        segment.size = batches[i].body_size
        if segment.size:   # writing nothing would never get past it
            request.segments.push_back(segment)
        request.size += batches[i].body_size
    if start < request.head.size():
        segment.data = request.head.data() + start
        segment.size = request.head.size() - start
        request.segments.push_back(segment)
    put32(request.head.data(), <uint32_t>(request.size - 4))


# Reading: a cursor that turns to `ok = False` at the first byte that is missing and then yields zeros.

cdef cppclass Cursor:
    const unsigned char* at
    const unsigned char* end
    cbool ok


cdef cppclass Text:
    const char* data
    int64_t size          # -1: null


cdef cppclass Endpoint:
    Text host
    int32_t port


cdef cppclass RecordError:
    int32_t index
    Text message


cdef cppclass Answer:
    # What the broker says of one partition; texts point into the frame.
    Text topic
    const unsigned char* topic_id
    int32_t partition
    int16_t error_code
    int64_t base_offset
    int64_t log_append_time
    int64_t log_start_offset
    vector[RecordError] record_errors
    Text message
    cbool has_hint
    int32_t leader
    int32_t leader_epoch
    Text host
    int32_t port


cdef inline const unsigned char* taken(Cursor* cursor, int64_t size) noexcept nogil:
    cdef const unsigned char* at = cursor.at
    if size < 0 or size > cursor.end - at:
        cursor.ok = False
        cursor.at = cursor.end
        return NULL
    cursor.at += size
    return at


cdef inline int64_t taken_uvarint(Cursor* cursor) noexcept nogil:
    cdef uint64_t value = 0
    cdef const unsigned char* after = take_uvarint(cursor.at, cursor.end, 32, &value)
    if after == NULL:
        cursor.ok = False
        cursor.at = cursor.end
        return 0
    cursor.at = after
    return value


cdef inline int16_t taken16(Cursor* cursor) noexcept nogil:
    cdef const unsigned char* at = taken(cursor, 2)
    return 0 if at == NULL else <int16_t>get16(at)


cdef inline int32_t taken32(Cursor* cursor) noexcept nogil:
    cdef const unsigned char* at = taken(cursor, 4)
    return 0 if at == NULL else <int32_t>get32(at)


cdef inline int64_t taken64(Cursor* cursor) noexcept nogil:
    cdef const unsigned char* at = taken(cursor, 8)
    return 0 if at == NULL else <int64_t>get64(at)


cdef int64_t taken_count(Cursor* cursor, bint flexible) noexcept nogil:
    """An array's length; null counts as empty. No element is shorter than a byte, which bounds it."""
    cdef int64_t count = taken_uvarint(cursor) - 1 if flexible else taken32(cursor)
    if count > cursor.end - cursor.at or count < -1:
        cursor.ok = False
    return count if cursor.ok and count > 0 else 0


cdef void taken_text(Cursor* cursor, bint flexible, Text* text) noexcept nogil:
    cdef int64_t size = taken_uvarint(cursor) - 1 if flexible else taken16(cursor)
    text.size = -1
    text.data = NULL
    if size < -1:
        cursor.ok = False
    if cursor.ok and size >= 0:
        text.data = <const char*>taken(cursor, size)
        text.size = size if cursor.ok else -1


cdef void skip_tags(Cursor* cursor) noexcept nogil:
    cdef int64_t count = taken_uvarint(cursor)
    while count > 0 and cursor.ok:
        taken_uvarint(cursor)
        taken(cursor, taken_uvarint(cursor))
        count -= 1


cdef void taken_answer_tags(Cursor* cursor, Answer* answer) noexcept nogil:
    cdef int64_t count = taken_uvarint(cursor), tag, size
    cdef Cursor inner
    cdef const unsigned char* start
    while count > 0 and cursor.ok:
        tag = taken_uvarint(cursor)
        size = taken_uvarint(cursor)
        start = taken(cursor, size)
        if start != NULL and tag == LEADER_HINT_TAG:        # KIP-951
            inner.at = start
            inner.end = start + size
            inner.ok = True
            answer.leader = taken32(&inner)
            answer.leader_epoch = taken32(&inner)
            answer.has_hint = inner.ok
        count -= 1


cdef void taken_answer(Cursor* cursor, int version, Answer* answer) noexcept nogil:
    cdef bint flexible = version >= FLEXIBLE_FROM
    cdef RecordError record_error
    cdef int64_t count
    answer.partition = taken32(cursor)
    answer.error_code = taken16(cursor)
    answer.base_offset = taken64(cursor)
    answer.log_append_time = taken64(cursor)
    answer.log_start_offset = taken64(cursor) if version >= LOG_START_FROM else -1
    answer.message.size = -1
    answer.has_hint = False
    answer.host.size = -1
    answer.port = -1
    answer.record_errors.clear()
    if version >= RECORD_ERRORS_FROM:
        count = taken_count(cursor, flexible)
        while count > 0 and cursor.ok:
            record_error.index = taken32(cursor)
            taken_text(cursor, flexible, &record_error.message)
            if flexible:
                skip_tags(cursor)
            answer.record_errors.push_back(record_error)
            count -= 1
        taken_text(cursor, flexible, &answer.message)
    if flexible:
        taken_answer_tags(cursor, answer)


cdef void taken_endpoints(Cursor* cursor, vector[Answer]& answers) noexcept nogil:
    """Give each hint its address. By way of a map: answers and addresses may each be as many as bytes allow."""
    cdef int64_t tags = taken_uvarint(cursor), tag, size, count = 0
    cdef Cursor inner
    cdef const unsigned char* start
    cdef ordered_map[int32_t, Endpoint] endpoints
    cdef Endpoint endpoint
    cdef int32_t node
    cdef Text rack
    cdef size_t i
    inner.at = inner.end = NULL
    while tags > 0 and cursor.ok:
        tag = taken_uvarint(cursor)
        size = taken_uvarint(cursor)
        start = taken(cursor, size)
        if start != NULL and tag == NODE_ENDPOINTS_TAG:
            inner.at = start
            inner.end = start + size
        tags -= 1
    inner.ok = inner.at != NULL
    if inner.ok:
        count = taken_count(&inner, True)
    while count > 0 and inner.ok:
        node = taken32(&inner)
        taken_text(&inner, True, &endpoint.host)
        endpoint.port = taken32(&inner)
        taken_text(&inner, True, &rack)
        skip_tags(&inner)
        if inner.ok:
            endpoints[node] = endpoint
        count -= 1
    for i in range(answers.size()):
        if answers[i].has_hint and endpoints.count(answers[i].leader):
            endpoint = endpoints[answers[i].leader]
            answers[i].host = endpoint.host
            answers[i].port = endpoint.port


cdef cbool read_response(const unsigned char* frame, size_t size, int version, int32_t* correlation_id,
                         int32_t* throttle_ms, vector[Answer]& answers) noexcept nogil:
    """Parse a Produce response (without its size). False when the bytes are not one, whole and nothing more."""
    cdef bint flexible = version >= FLEXIBLE_FROM
    cdef Cursor cursor
    cdef Answer answer
    cdef int64_t topics, partitions
    cursor.at = frame
    cursor.end = frame + size
    cursor.ok = True
    answers.clear()
    correlation_id[0] = taken32(&cursor)
    if flexible:
        skip_tags(&cursor)
    topics = taken_count(&cursor, flexible)
    while topics > 0 and cursor.ok:
        answer.topic.size = -1
        answer.topic_id = NULL
        if version >= TOPIC_IDS_FROM:
            answer.topic_id = taken(&cursor, 16)
        else:
            taken_text(&cursor, flexible, &answer.topic)
        partitions = taken_count(&cursor, flexible)
        while partitions > 0 and cursor.ok:
            taken_answer(&cursor, version, &answer)
            answers.push_back(answer)
            partitions -= 1
        if flexible:
            skip_tags(&cursor)
        topics -= 1
    throttle_ms[0] = taken32(&cursor)
    if flexible:
        taken_endpoints(&cursor, answers)
    return cursor.ok and cursor.at == cursor.end


def encode_produce_request(version: int, correlation_id: int, client_id: str, acks: int, timeout_ms: int,
                           topics) -> bytes:
    """A whole Produce request with its 4-byte size, written by what writes the real ones.

    `topics`: a list of (name, topic_id or None, [(partition, batch bytes)]); version 3 to 13.
    """
    cdef Request request
    cdef vector[WireBatch] batches
    cdef WireBatch batch
    cdef list keep = []
    cdef bytes name, records, out
    cdef string client = client_id.encode()
    cdef size_t i
    if not 3 <= version <= 13:
        raise ValueError(f"Produce version {version} is not one of 3 to 13")
    for topic, topic_id, partitions in topics:
        name = topic.encode()
        if version >= TOPIC_IDS_FROM and (topic_id is None or len(topic_id) != 16):
            raise ValueError(f"version {version} needs a topic id of 16 bytes, not {topic_id!r}")
        keep.append((name, topic_id))
        batch.topic = PyBytes_AS_STRING(name)
        batch.topic_size = len(name)
        batch.topic_id = <const unsigned char*>PyBytes_AS_STRING(topic_id) if topic_id is not None else NULL
        for partition, records in partitions:
            if len(records) < BATCH_HEADER:
                raise ValueError(f"a batch of {len(records)} bytes is shorter than its {BATCH_HEADER}-byte header")
            keep.append(records)
            batch.partition = partition
            memcpy(batch.header, PyBytes_AS_STRING(records), BATCH_HEADER)
            batch.body = <const unsigned char*>PyBytes_AS_STRING(records) + BATCH_HEADER
            batch.body_size = len(records) - BATCH_HEADER
            batches.push_back(batch)
    request.version = version
    request.correlation_id = correlation_id
    write_request(&request, client, acks, timeout_ms, batches)
    pieces = []
    for i in range(request.segments.size()):
        pieces.append(PyBytes_FromStringAndSize(<const char*>request.segments[i].data, request.segments[i].size))
    return b"".join(pieces)


cdef object text_of(Text* text):
    return None if text.size < 0 else PyUnicode_DecodeUTF8(text.data, text.size, "replace")


def decode_produce_response(version: int, payload) -> tuple:
    """(correlation_id, throttle_ms, answers) of a Produce response without its size; see DESIGN.md for an answer.

    ValueError when the bytes are not exactly one response of this version (3 to 13).
    """
    cdef const unsigned char[::1] view = payload
    cdef vector[Answer] answers
    cdef int32_t correlation_id = 0, throttle_ms = 0
    cdef size_t i, j
    if not 3 <= version <= 13:
        raise ValueError(f"Produce version {version} is not one of 3 to 13")
    if not view.shape[0] or not read_response(&view[0], view.shape[0], version, &correlation_id, &throttle_ms,
                                              answers):
        raise ValueError(f"{view.shape[0]} bytes are not a Produce response of version {version}")
    decoded = []
    for i in range(answers.size()):
        record_errors = []
        for j in range(answers[i].record_errors.size()):
            record_errors.append((answers[i].record_errors[j].index, text_of(&answers[i].record_errors[j].message)))
        decoded.append((
            text_of(&answers[i].topic),
            None if answers[i].topic_id == NULL else PyBytes_FromStringAndSize(<const char*>answers[i].topic_id, 16),
            answers[i].partition, answers[i].error_code, answers[i].base_offset, answers[i].log_append_time,
            answers[i].log_start_offset, record_errors, text_of(&answers[i].message),
            (answers[i].leader, answers[i].leader_epoch, text_of(&answers[i].host), answers[i].port)
            if answers[i].has_hint else None,
        ))
    return correlation_id, throttle_ms, decoded
