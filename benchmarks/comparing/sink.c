// A server that speaks enough Kafka for a producer to deliver to it, and acknowledges everything at once.
//
//     sink PARTITIONS [KEEP | -a ARRIVALS]
//
// Every topic exists and has PARTITIONS partitions on one node, this one. Without KEEP a batch's header is read and the
// rest is thrown away unseen. With KEEP (a file) every batch is checked - lengths, CRC-32C, records counted one by one,
// the producer's sequence - and written to that file, for others to decode: topic length (2 bytes), topic, partition
// (4), batch. All numbers are big-endian.
//
// With ARRIVALS (a file) nothing is checked. Of each record, which must not be compressed, two numbers are written
// there: the first 8 bytes of its value, and when the last bytes read of its batch came, in nanoseconds since 1970.
//
// It prints "port N", then answers each line of its input with "records batches bytes connections problems cpu_us text",
// where `text` is the first problem. The end of its input ends it. A thread a connection: a producer has one or two.
//
// Protocol: one version an API, the newest without tagged fields that all clients know, and lengths read from the
// network are never trusted beyond the request that holds them.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "crc32c.h"

enum { PRODUCE = 0, FETCH = 1, METADATA = 3, FIND_COORDINATOR = 10, API_VERSIONS = 18, INIT_PRODUCER_ID = 22 };
enum { NODE = 1, UNSUPPORTED_VERSION = 35, BUFFER = 65536, REQUEST_MAX = 256 << 20, HEADER = 61 };
// Where a batch's header has what.
enum { LENGTH_AT = 8, MAGIC_AT = 16, CRC_AT = 17, ATTRIBUTES_AT = 21, LAST_DELTA_AT = 23, ID_AT = 43, EPOCH_AT = 51,
       SEQUENCE_AT = 53, COUNT_AT = 57 };

// Fetch and FindCoordinator are only listed: librdkafka takes their versions for a sign that a broker knows format v2,
// lz4 and zstd.
static const int16_t offered[][3] = {{PRODUCE, 7, 7}, {FETCH, 4, 10}, {METADATA, 4, 4}, {FIND_COORDINATOR, 0, 1},
                                     {API_VERSIONS, 0, 0}, {INIT_PRODUCER_ID, 0, 0}};

typedef struct {
    int fd;
    unsigned char* in;   // bytes received: [at, end) of `room`
    size_t at, end, room;
    size_t left;         // of the request being read
    int gone;            // the connection has ended
    struct timespec came;  // when the bytes read last did, with ARRIVALS
    unsigned char* out;  // the answer being written
    size_t size, out_room;
} Link;

typedef struct Progress {  // of one producer in one partition
    struct Progress* next;
    char* topic;
    int32_t partition;
    int64_t id;
    int16_t epoch;
    uint32_t sequence;  // the next one
} Progress;

static int32_t partitions;
static int port;
static FILE *keep, *arrivals;
static pthread_mutex_t checking = PTHREAD_MUTEX_INITIALIZER;  // also of who writes to a file
static Progress* progress;
static char first_problem[256];
static atomic_long records, batches, bytes, connections, problems, producers;

static void problem(const char* what, const char* topic, int32_t partition, long found, long wanted) {
    if (atomic_fetch_add(&problems, 1) == 0)
        snprintf(first_problem, sizeof first_problem, "%s: %s, partition %d: %ld, not %ld", what, topic, partition, found,
                 wanted);
}

static int64_t number(const unsigned char* at, int size) {
    uint64_t value = at[0] & 0x80 ? ~0ull : 0;
    while (size--) value = value << 8 | *at++;
    return (int64_t)value;
}

// --- Reading a request

// Where it is asked when bytes came, the kernel tells when it put them into the socket: when this thread gets a processor
// to read them is the server's affair, not the client's.
static ssize_t receive(Link* link, void* into, size_t size) {
    if (!arrivals) return recv(link->fd, into, size, 0);
    char room[CMSG_SPACE(sizeof link->came)] __attribute__((aligned(sizeof(size_t))));
    struct iovec part = {into, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    ssize_t got = recvmsg(link->fd, &message, 0);
    clock_gettime(CLOCK_REALTIME, &link->came);
#if defined(__linux__)
    for (struct cmsghdr* head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head))
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_TIMESTAMPNS)
            memcpy(&link->came, CMSG_DATA(head), sizeof link->came);
#endif
    return got;
}

// `size` bytes of it, together; NULL if it has no more or the connection ends.
static const unsigned char* take(Link* link, size_t size) {
    if (size > link->left) return NULL;
    if (link->end - link->at < size) {
        memmove(link->in, link->in + link->at, link->end - link->at);
        link->end -= link->at;
        link->at = 0;
        if (size > link->room) link->in = realloc(link->in, link->room = size);
        if (!link->in) abort();
    }
    while (link->end < link->at + size) {
        ssize_t got = receive(link, link->in + link->end, link->room - link->end);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return link->gone = 1, NULL;
        link->end += (size_t)got;
    }
    const unsigned char* found = link->in + link->at;
    link->at += size;
    link->left -= size;
    return found;
}

// Pass `size` bytes of it; 0 if it has no more or the connection ends.
static int skip(Link* link, size_t size) {
    if (size > link->left) return 0;
    link->left -= size;
    size_t here = link->end - link->at < size ? link->end - link->at : size;
    link->at += here;
    for (size -= here; size;) {
#if defined(__linux__)  // the kernel drops them and copies nothing
        ssize_t got = recv(link->fd, NULL, size, MSG_TRUNC);
#else
        ssize_t got = recv(link->fd, link->in, size < link->room ? size : link->room, 0);
#endif
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return link->gone = 1, 0;
        size -= (size_t)got;
    }
    return 1;
}

static int take_number(Link* link, int size, int64_t* value) {
    const unsigned char* at = take(link, (size_t)size);
    if (at) *value = number(at, size);
    return at != NULL;
}

// A string, as a C string to be freed; NULL if there is none.
static char* take_string(Link* link) {
    int64_t size;
    const unsigned char* at;
    if (!take_number(link, 2, &size) || size < 0 || !(at = take(link, (size_t)size))) return NULL;
    return strndup((const char*)at, (size_t)size);
}

static int skip_string(Link* link) {
    int64_t size;
    return take_number(link, 2, &size) && (size < 0 || skip(link, (size_t)size));
}

// --- Writing an answer

static void put_bytes(Link* link, const void* data, size_t size) {
    if (link->size + size > link->out_room) link->out = realloc(link->out, link->out_room = 2 * (link->size + size));
    if (!link->out) abort();
    memcpy(link->out + link->size, data, size);
    link->size += size;
}

static void put(Link* link, int size, int64_t value) {
    unsigned char at[8];
    for (int byte = 0; byte < size; byte++) at[byte] = (unsigned char)(value >> 8 * (size - 1 - byte));
    put_bytes(link, at, (size_t)size);
}

static void put_string(Link* link, const char* text) {
    put(link, 2, (int64_t)strlen(text));
    put_bytes(link, text, strlen(text));
}

static int send_answer(Link* link) {
    for (int byte = 0; byte < 4; byte++) link->out[byte] = (unsigned char)((link->size - 4) >> (24 - 8 * byte));
    for (size_t at = 0; at < link->size;) {
        ssize_t sent = send(link->fd, link->out + at, link->size - at, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return 0;
        at += (size_t)sent;
    }
    return 1;
}

// --- Checking a batch

static int varint(const unsigned char** at, const unsigned char* end, int64_t* value) {
    uint64_t bits = 0;
    for (int shift = 0; *at < end && shift < 70; shift += 7) {
        unsigned char byte = *(*at)++;
        bits |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *value = (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
            return 1;
        }
    }
    return 0;
}

static int sized(const unsigned char** at, const unsigned char* end, int null) {
    int64_t size;
    if (!varint(at, end, &size) || size < -null || size > end - *at) return 0;
    if (size > 0) *at += size;
    return 1;
}

// One record, whose offset delta must be `delta`.
static int whole_record(const unsigned char** at, const unsigned char* end, int64_t delta) {
    int64_t size, value, headers;
    if (!varint(at, end, &size) || size < 1 || size > end - *at) return 0;
    end = *at + size;
    (*at)++;  // attributes
    if (!varint(at, end, &value) || !varint(at, end, &value) || value != delta) return 0;
    if (!sized(at, end, 1) || !sized(at, end, 1) || !varint(at, end, &headers) || headers < 0) return 0;
    while (headers--)
        if (!sized(at, end, 0) || !sized(at, end, 1)) return 0;
    return *at == end;
}

static int64_t count_records(const unsigned char* at, const unsigned char* end) {
    int64_t count = 0;
    while (at < end && whole_record(&at, end, count)) count++;
    return at == end ? count : -1;
}

static void check_sequence(const unsigned char* batch, const char* topic, int32_t partition, uint32_t count) {
    int64_t id = number(batch + ID_AT, 8);
    int16_t epoch = (int16_t)number(batch + EPOCH_AT, 2);
    uint32_t sequence = (uint32_t)number(batch + SEQUENCE_AT, 4);
    if (id < 0) return;
    Progress* found = progress;
    while (found && (found->id != id || found->partition != partition || strcmp(found->topic, topic))) found = found->next;
    if (!found) {
        found = calloc(1, sizeof *found);
        *found = (Progress){progress, strdup(topic), partition, id, epoch, 0};
        progress = found;
    }
    if (epoch != found->epoch) *found = (Progress){found->next, found->topic, partition, id, epoch, 0};
    if (sequence != found->sequence) problem("sequence", topic, partition, sequence, found->sequence);
    found->sequence = (sequence + count) & 0x7FFFFFFF;
}

static void check(const unsigned char* batch, size_t size, const char* topic, int32_t partition) {
    int64_t count = number(batch + COUNT_AT, 4), last = number(batch + LAST_DELTA_AT, 4);
    uint32_t crc = crc32c(batch + ATTRIBUTES_AT, size - ATTRIBUTES_AT), said = (uint32_t)number(batch + CRC_AT, 4);
    if (partition < 0 || partition >= partitions) problem("partition", topic, partition, partition, partitions - 1);
    if (number(batch + LENGTH_AT, 4) != (int64_t)size - 12)
        problem("length", topic, partition, number(batch + LENGTH_AT, 4), (long)size - 12);
    if (batch[MAGIC_AT] != 2) problem("magic", topic, partition, batch[MAGIC_AT], 2);
    if (crc != said) problem("CRC-32C", topic, partition, said, crc);
    if (last != count - 1) problem("last offset delta", topic, partition, last, count - 1);
    if (!(batch[ATTRIBUTES_AT + 1] & 7)) {  // those of compressed ones are counted by whoever decodes what was kept
        int64_t counted = count_records(batch + HEADER, batch + size);
        if (counted != count) problem("records", topic, partition, count, counted);
    }
    check_sequence(batch, topic, partition, (uint32_t)count);
    unsigned char head[6] = {0, 0, (unsigned char)(partition >> 24), (unsigned char)(partition >> 16),
                             (unsigned char)(partition >> 8), (unsigned char)partition};
    head[0] = (unsigned char)(strlen(topic) >> 8);
    head[1] = (unsigned char)strlen(topic);
    fwrite(head, 2, 1, keep);
    fwrite(topic, strlen(topic), 1, keep);
    fwrite(head + 2, 4, 1, keep);
    fwrite(batch, size, 1, keep);
    fflush(keep);
}

// --- When records came

// Of one record: the first bytes of its value. NULL: it is broken, or its value is shorter.
static const unsigned char* value_of(const unsigned char** at, const unsigned char* end) {
    int64_t size, value;
    if (!varint(at, end, &size) || size < 1 || size > end - *at) return NULL;
    const unsigned char* here = *at + 1;  // behind the attributes
    *at = end = *at + size;
    if (!varint(&here, end, &value) || !varint(&here, end, &value) || !sized(&here, end, 1)) return NULL;
    return varint(&here, end, &size) && size >= 8 && size <= end - here ? here : NULL;
}

static void note_arrivals(const unsigned char* batch, size_t size, const char* topic, int32_t partition,
                          struct timespec came) {
    uint64_t nanos = (uint64_t)came.tv_sec * 1000000000 + (uint64_t)came.tv_nsec;
    const unsigned char *at = batch + HEADER, *end = batch + size, *value;
    for (long record = 0; at < end; record++) {
        unsigned char row[16];
        if (!(value = value_of(&at, end))) {
            problem("value without a time", topic, partition, record, -1);
            return;
        }
        memcpy(row, value, 8);
        for (int byte = 0; byte < 8; byte++) row[8 + byte] = (unsigned char)(nanos >> (56 - 8 * byte));
        fwrite(row, sizeof row, 1, arrivals);
    }
    fflush(arrivals);
}

// --- The requests

static int batch_of(Link* link, const char* topic, int32_t partition, size_t size) {
    const unsigned char* batch = size < HEADER ? NULL : take(link, keep || arrivals ? size : HEADER);
    if (!batch) return 0;
    long count = (long)number(batch + COUNT_AT, 4);
    long before = atomic_fetch_add_explicit(&records, count, memory_order_relaxed);
    atomic_fetch_add_explicit(&batches, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&bytes, (long)size, memory_order_relaxed);
    if (keep || arrivals) {
        pthread_mutex_lock(&checking);
        if (keep) check(batch, size, topic, partition);
        else note_arrivals(batch, size, topic, partition, link->came);
        pthread_mutex_unlock(&checking);
    } else if (!skip(link, size - HEADER)) {
        return 0;
    }
    put(link, 4, partition);
    put(link, 2, 0);
    put(link, 8, before);  // an offset that grows
    put(link, 8, -1);      // no log append time
    put(link, 8, 0);
    return 1;
}

static int produce(Link* link, int* silent) {
    int64_t acks, topics, many, partition, size;
    if (!skip_string(link) || !take_number(link, 2, &acks) || !skip(link, 4) || !take_number(link, 4, &topics)) return 0;
    *silent = acks == 0;
    for (put(link, 4, topics); topics > 0; topics--) {
        char* topic = take_string(link);
        int fine = topic && take_number(link, 4, &many);
        if (fine) put_string(link, topic), put(link, 4, many);
        for (; fine && many > 0; many--)
            fine = take_number(link, 4, &partition) && take_number(link, 4, &size) && size >= 0 &&
                   batch_of(link, topic, (int32_t)partition, (size_t)size);
        free(topic);
        if (!fine) return 0;
    }
    put(link, 4, 0);
    return 1;
}

static int metadata(Link* link) {
    int64_t topics;
    if (!take_number(link, 4, &topics)) return 0;
    put(link, 4, 0);
    put(link, 4, 1);
    put(link, 4, NODE);
    put_string(link, "127.0.0.1");
    put(link, 4, port);
    put(link, 2, -1);  // no rack
    put_string(link, "sink");
    put(link, 4, NODE);
    for (put(link, 4, topics < 0 ? 0 : topics); topics > 0; topics--) {
        char* topic = take_string(link);
        if (!topic) return 0;
        put(link, 2, 0);
        put_string(link, topic);
        put(link, 1, 0);
        put(link, 4, partitions);
        free(topic);
        for (int32_t partition = 0; partition < partitions; partition++) {
            put(link, 2, 0);
            put(link, 4, partition);
            put(link, 4, NODE);
            for (int list = 0; list < 2; list++) put(link, 4, 1), put(link, 4, NODE);  // replicas, in sync
        }
    }
    return skip(link, 1);
}

static int init_producer_id(Link* link) {
    if (!skip_string(link) || !skip(link, 4)) return 0;
    put(link, 4, 0);
    put(link, 2, 0);
    put(link, 8, 1000 + atomic_fetch_add(&producers, 1));
    put(link, 2, 0);
    return 1;
}

// KIP-511: whoever asks in another version is answered in version 0, with an error and the list all the same.
static int api_versions(Link* link, int64_t version) {
    put(link, 2, version ? UNSUPPORTED_VERSION : 0);
    put(link, 4, sizeof offered / sizeof *offered);
    for (size_t row = 0; row < sizeof offered / sizeof *offered; row++)
        for (int column = 0; column < 3; column++) put(link, 2, offered[row][column]);
    return skip(link, link->left);
}

static int serve_one(Link* link) {
    int64_t size, api, version, correlation;
    int silent = 0, fine = 0;
    link->left = 4;
    if (!take_number(link, 4, &size) || size < 8 || size > REQUEST_MAX) return 0;
    link->left = (size_t)size;
    if (!take_number(link, 2, &api) || !take_number(link, 2, &version) || !take_number(link, 4, &correlation)) return 0;
    link->size = 0;
    put(link, 4, 0);  // the size, known in the end
    put(link, 4, correlation);
    if (api == API_VERSIONS) return api_versions(link, version) && send_answer(link);
    int16_t spoken = api == PRODUCE ? 7 : api == METADATA ? 4 : api == INIT_PRODUCER_ID ? 0 : -1;
    if (version == spoken && skip_string(link)) {
        if (api == PRODUCE) fine = produce(link, &silent);
        if (api == METADATA) fine = metadata(link);
        if (api == INIT_PRODUCER_ID) fine = init_producer_id(link);
    }
    if (!fine || link->left) {
        if (!link->gone) problem("unreadable request", "bytes left", (int32_t)api, (long)link->left, 0);
        return 0;
    }
    return silent || send_answer(link);
}

static void* serve(void* argument) {
    int one = 1;
    Link link = {.fd = *(int*)argument, .in = malloc(BUFFER), .room = BUFFER};
    free(argument);
    setsockopt(link.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
#if defined(__linux__)
    if (arrivals) setsockopt(link.fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
#endif
    atomic_fetch_add(&connections, 1);
    while (link.in && serve_one(&link)) continue;
    close(link.fd);
    free(link.in);
    free(link.out);
    return NULL;
}

static void* tell(void* unused) {
    char line[64];
    struct rusage usage;
    (void)unused;
    while (fgets(line, sizeof line, stdin)) {
        pthread_mutex_lock(&checking);
        getrusage(RUSAGE_SELF, &usage);
        printf("%ld %ld %ld %ld %ld %ld %s\n", records, batches, bytes, connections, problems,
               (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec,
               first_problem);
        fflush(stdout);
        pthread_mutex_unlock(&checking);
    }
    exit(0);
}

int main(int count, char** arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    pthread_t thread;
    if (count < 2 || (partitions = atoi(arguments[1])) < 1)
        return fputs("sink PARTITIONS [KEEP | -a ARRIVALS]\n", stderr), 2;
    if (count > 2) {
        int times = count > 3 && !strcmp(arguments[2], "-a");
        FILE* file = fopen(arguments[count - 1], "wb");
        if (!file) return perror(arguments[count - 1]), 1;
        *(times ? &arrivals : &keep) = file;
    }
    crc32c_prepare();
    if (bind(listener, (struct sockaddr*)&address, size) || listen(listener, 64) ||
        getsockname(listener, (struct sockaddr*)&address, &size))
        return perror("sink"), 1;
    printf("port %d\n", port = ntohs(address.sin_port));
    fflush(stdout);
    if (pthread_create(&thread, NULL, tell, NULL)) return perror("sink"), 1;
    for (;;) {
        int* fd = malloc(sizeof *fd);
        *fd = accept(listener, NULL, NULL);
        if (*fd < 0 || pthread_create(&thread, NULL, serve, fd)) free(fd);
        else pthread_detach(thread);
    }
}
