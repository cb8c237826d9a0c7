// Sends prebuilt Produce requests over a connected socket, a fixed number in flight, and reads the answers.
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { CORRELATION_ID_AT = 8, CLOSED = -1, STRANGE = -2, REFUSED = -3, FRAME_MAX = 65536 };

static int32_t read_int32(const unsigned char* at) {
    return (int32_t)((uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]);
}

static int write_all(int fd, const unsigned char* data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static int read_all(int fd, unsigned char* data, size_t size) {
    while (size) {
        ssize_t got = recv(fd, data, size, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return -1;
        data += got;
        size -= (size_t)got;
    }
    return 0;
}

// Requests go round robin until `count` were answered. `error_at`: where a response without its size, which holds one
// partition, has that partition's error code. Returns `count`, CLOSED, STRANGE, or REFUSED minus the error code.
long transmit(int fd, unsigned char** requests, const size_t* sizes, int kinds, long count, int in_flight,
              size_t error_at) {
    unsigned char frame[FRAME_MAX];
    long sent = 0, answered = 0;
    while (answered < count) {
        if (sent < count && sent - answered < in_flight) {
            unsigned char* request = requests[sent % kinds];
            for (int i = 0; i < 4; i++) request[CORRELATION_ID_AT + i] = (unsigned char)(sent >> (24 - 8 * i));
            if (write_all(fd, request, sizes[sent % kinds])) return CLOSED;
            sent++;
            continue;
        }
        if (read_all(fd, frame, 4)) return CLOSED;
        int32_t size = read_int32(frame);
        if (size < (int32_t)error_at + 2 || size > FRAME_MAX) return STRANGE;
        if (read_all(fd, frame, (size_t)size)) return CLOSED;
        if (read_int32(frame) != (int32_t)answered) return STRANGE;
        int code = frame[error_at] << 8 | frame[error_at + 1];
        if (code) return REFUSED - code;
        answered++;
    }
    return answered;
}
