// The least a producer can do: copy keys and values into a batch with varints between them, CRC-32C, write. One thread,
// a plain loop. And beside it what no encoding can beat: the same batch by one memcpy, CRC-32C, write.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "crc32c.h"

enum { CLOSED = -1, STRANGE = -2, REFUSED = -3 };
enum { HEADER = 61, SLACK = 64, ROOM = 1000000, AROUND = 32, ANSWER_MAX = 1024 };
// Where a request has what; its topic's name makes the rest of the positions.
enum { CORRELATION_AT = 8 };

typedef struct {
    int fd;  // -1: nothing is written
    const char* topic;
    int partitions, in_flight;
} Wire;

// Records are taken in order, from the start again after `page` of them; both columns have SLACK bytes behind them.
typedef struct {
    const unsigned char *values, *keys;
    size_t value_size, key_size;
    long value_count, key_count, page;
} Records;

static unsigned char* put(unsigned char* at, uint64_t value, int size) {
    while (size--) *at++ = (unsigned char)(value >> 8 * size);
    return at;
}

static inline unsigned char* put_varint(unsigned char* at, uint32_t value) {
    value <<= 1;
    if (value < 1 << 14) {  // two bytes are written for one as well: what follows writes over the second
        at[0] = (unsigned char)(value | (value >> 7 ? 0x80 : 0));
        at[1] = (unsigned char)(value >> 7);
        return at + 1 + (value >> 7 != 0);
    }
    for (; value >= 0x80; value >>= 7) *at++ = (unsigned char)(value | 0x80);
    *at++ = (unsigned char)value;
    return at;
}

static inline int varint_size(uint32_t value) {
    return 1 + (value >= 1 << 6) + (value >= 1 << 13) + (value >= 1 << 20) + (value >= 1 << 27);
}

// Short ones in whole words past the end, which costs less than asking how many there are.
static inline unsigned char* put_copy(unsigned char* at, const unsigned char* from, size_t size) {
    if (size > 512) return (unsigned char*)memcpy(at, from, size) + size;
    for (size_t done = 0; done < size; done += 32) memcpy(at + done, from + done, 32);
    return at + size;
}

// What all records of the same sizes share: their size, but for that of the offset.
static uint32_t fixed_size(const Records* records) {
    const uint32_t key_size = (uint32_t)records->key_size, value_size = (uint32_t)records->value_size;
    return 3 + (uint32_t)(varint_size(key_size) + varint_size(value_size)) + key_size + value_size;
}

// One record, the `offset`th of its batch.
static inline unsigned char* put_record(unsigned char* at, const Records* records, uint32_t fixed, uint32_t offset,
                                        long key, long value) {
    const uint32_t key_size = (uint32_t)records->key_size, value_size = (uint32_t)records->value_size;
    at = put_varint(at, fixed + (uint32_t)varint_size(offset));
    *at++ = 0;  // attributes
    *at++ = 0;  // timestamp: that of the batch
    at = put_varint(at, offset);
    at = put_varint(at, key_size);
    at = put_copy(at, records->keys + (size_t)key * key_size, key_size);
    at = put_varint(at, value_size);
    at = put_copy(at, records->values + (size_t)value * value_size, value_size);
    *at++ = 0;  // headers
    return at;
}

// Records from `*next` on, as many as fit into ROOM bytes; at least one, at most `most`. Returns where they end.
static unsigned char* encode(unsigned char* at, const Records* from, long* next, long most, uint32_t* count) {
    const Records records = *from;  // what is written through `at` could be anything, but not this
    const uint32_t fixed = fixed_size(&records);
    const unsigned char* end = at + (HEADER + fixed + AROUND < ROOM ? ROOM - HEADER - fixed - AROUND : 0);
    long place = *next % records.page, key = place % records.key_count, value = place % records.value_count;
    uint32_t done = 0;
    for (; done < most && (!done || at <= end); done++) {
        at = put_record(at, &records, fixed, done, key, value);
        if (++key == records.key_count) key = 0;
        if (++value == records.value_count) value = 0;
        if (++place == records.page) place = key = value = 0;
    }
    *count = done;
    *next += done;
    return at;
}

// The 61 bytes of format v2, without a producer id.
static void put_header(unsigned char* batch, unsigned char* end, uint32_t count, int64_t now) {
    unsigned char* at = put(batch, 0, 8);           // base offset
    at = put(at, (uint64_t)(end - batch - 12), 4);  // length
    at = put(at, UINT32_MAX, 4);                    // leader epoch
    *at++ = 2;                                      // magic
    at = put(at + 4, 0, 2);                         // CRC in the end; attributes
    at = put(at, count - 1, 4);                     // last offset delta
    at = put(at, (uint64_t)now, 8);                 // first timestamp
    at = put(at, (uint64_t)now, 8);                 // largest timestamp
    at = put(at, UINT64_MAX, 8);                    // producer id
    at = put(at, UINT64_MAX, 2);                    // epoch
    at = put(at, UINT64_MAX, 4);                    // base sequence
    put(at, count, 4);
    put(batch + 17, crc32c(batch + 21, (size_t)(end - batch - 21)), 4);
}

// What stands before the batch in a Produce request of version 7.
static unsigned char* put_request(unsigned char* at, const char* topic) {
    size_t size = strlen(topic);
    at = put(at + 4, 7, 4);                 // size in the end; API 0, version 7
    at = put(at + 4, 0xFFFF, 2);            // correlation id in the end; no client id
    at = put(at, 0xFFFF, 2);                // no transactional id
    at = put(put(at, 0xFFFF, 2), 30000, 4); // acks, timeout in ms
    at = put(put(at, 1, 4), size, 2);
    memcpy(at, topic, size);
    return put(at + size, 1, 4) + 8;        // one partition: its number and the batch's size in the end
}

static int write_all(int fd, const unsigned char* data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return CLOSED;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

// The answer to request number `expected`.
static int read_answer(const Wire* wire, long expected) {
    unsigned char answer[ANSWER_MAX];
    size_t size = 4 + 4 + 4 + 2 + strlen(wire->topic) + 4 + 4 + 2 + 8 + 8 + 8 + 4, got = 0;
    if (size > sizeof answer) return STRANGE;
    while (got < size) {
        ssize_t part = recv(wire->fd, answer + got, size - got, 0);
        if (part < 0 && errno == EINTR) continue;
        if (part <= 0) return CLOSED;
        got += (size_t)part;
    }
    uint32_t correlation = (uint32_t)answer[4] << 24 | answer[5] << 16 | answer[6] << 8 | answer[7];
    const unsigned char* error = answer + size - 4 - 8 - 8 - 8 - 2;
    if (correlation != (uint32_t)expected) return STRANGE;
    return error[0] || error[1] ? REFUSED : 0;
}

// Send `wanted` records (whole batches of the first ones if `copied`); how many were acknowledged, or what went wrong.
long deliver(const Wire* wire, const Records* records, long wanted, int copied, int64_t now) {
    size_t room = ROOM + records->value_size + strlen(wire->topic) + 2 * SLACK;
    unsigned char *request = malloc(room), *batch = put_request(request, wire->topic), *body = batch + HEADER, *end;
    unsigned char* ready = copied ? malloc(ROOM + records->value_size + 2 * SLACK) : NULL;
    uint32_t count = 0;
    long next = 0, sent = 0, answered = 0, delivered = 0;
    int failed = 0;
    size_t body_size = copied ? (size_t)(encode(ready, records, &next, wanted, &count) - ready) : 0;
    for (next = 0; delivered < wanted && !failed; delivered += count) {
        if (copied)
            end = (unsigned char*)memcpy(body, ready, body_size) + body_size;
        else
            end = encode(body, records, &next, wanted - delivered, &count);
        put_header(batch, end, count, now);
        if (wire->fd < 0) continue;
        put(request, (uint64_t)(end - request - 4), 4);
        put(request + CORRELATION_AT, (uint64_t)sent, 4);
        put(put(batch - 8, (uint64_t)(sent % wire->partitions), 4), (uint64_t)(end - batch), 4);
        failed = write_all(wire->fd, request, (size_t)(end - request));
        sent++;
        if (!failed && sent - answered == wire->in_flight) failed = read_answer(wire, answered++);
    }
    while (!failed && answered < sent) failed = read_answer(wire, answered++);
    free(ready);
    free(request);
    return failed ? failed : delivered;
}

// Kafka's hash of keys.
static inline uint32_t murmur2(const unsigned char* data, size_t size) {
    const uint32_t m = 0x5BD1E995;
    uint32_t hash = 0x9747B28C ^ (uint32_t)size, word;
    for (; size >= 4; data += 4, size -= 4) {
        memcpy(&word, data, 4);
        word *= m;
        word = (word ^ word >> 24) * m;
        hash = hash * m ^ word;
    }
    if (size == 3) hash ^= (uint32_t)data[2] << 16;
    if (size >= 2) hash ^= (uint32_t)data[1] << 8;
    if (size) hash = (hash ^ data[0]) * m;
    hash = (hash ^ hash >> 13) * m;
    return hash ^ hash >> 15;
}

typedef struct {
    unsigned char *batch, *at, *full;
    uint32_t count;
} Open;

static void seal(Open* open, int64_t now) {
    if (open->count) put_header(open->batch, open->at, open->count, now);
    open->at = open->batch + HEADER;
    open->count = 0;
}

// Share `wanted` records out over `partitions` by their keys, and seal all that is open whenever there are `per` records
// for each: what many small batches cost when there is nothing but the work. How many batches; -1: no memory.
long scatter(const Records* from, int partitions, int per, long wanted, int64_t now) {
    const Records records = *from;
    const uint32_t fixed = fixed_size(&records);
    const size_t largest = fixed + 10 + AROUND, room = HEADER + 2 * (size_t)per * largest + SLACK;
    Open* opens = malloc(sizeof(Open) * (size_t)partitions);
    unsigned char* memory = malloc(room * (size_t)partitions);
    long batches = 0, place = 0, key = 0, value = 0;
    if (!opens || !memory) batches = -1;
    for (int i = 0; i < partitions && batches >= 0; i++) {
        opens[i].batch = memory + room * (size_t)i;
        opens[i].full = opens[i].batch + room - largest - SLACK;
        opens[i].count = 0;
        seal(&opens[i], now);
    }
    for (long done = 0; done < wanted && batches >= 0;) {
        const uint32_t hash = murmur2(records.keys + (size_t)key * records.key_size, records.key_size);
        Open* open = &opens[(hash & 0x7FFFFFFF) % (uint32_t)partitions];
        if (open->at > open->full) {
            batches++;
            seal(open, now);
        }
        open->at = put_record(open->at, &records, fixed, open->count++, key, value);
        if (++key == records.key_count) key = 0;
        if (++value == records.value_count) value = 0;
        if (++place == records.page) place = key = value = 0;
        if (++done % ((long)partitions * per) && done < wanted) continue;
        for (int i = 0; i < partitions; i++) {
            batches += opens[i].count != 0;
            seal(&opens[i], now);
        }
    }
    free(memory);
    free(opens);
    return batches;
}

// When the library is loaded.
__attribute__((constructor)) static void prepare(void) { crc32c_prepare(); }
