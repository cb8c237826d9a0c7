// Sockets and waiting for them, alike on POSIX and Windows: poll()/WSAPoll(), one gathering write, one read.
// Results: >= 0 bytes, FP_AGAIN (nothing now), FP_CLOSED (the other side hung up), FP_BROKEN (see fp_error).
#pragma once
#include <stdint.h>
#include <stddef.h>

#define FP_AGAIN (-1)
#define FP_CLOSED (-2)
#define FP_BROKEN (-3)

struct fp_piece { const unsigned char* data; size_t size; };

#if defined(_WIN32)
#include <winsock2.h>
#include <stdio.h>
typedef WSAPOLLFD fp_pollfd;
static inline int fp_error(void) { return WSAGetLastError(); }
static inline const char* fp_error_text(int code) {
    static thread_local char text[32];
    snprintf(text, sizeof text, "winsock error %d", code);
    return text;
}
static inline void fp_close(int fd) { closesocket((SOCKET)fd); }
static inline int fp_would_block(int code) { return code == WSAEWOULDBLOCK; }
// Milliseconds are all WSAPoll knows: rounded up, so that nothing wakes before its time.
static inline int fp_poll(fp_pollfd* fds, size_t count, int64_t nanos) {
    int ms = nanos < 0 ? -1 : nanos > 3600000000000LL ? 3600000 : (int)((nanos + 999999) / 1000000);
    return WSAPoll(fds, (ULONG)count, ms);
}
static inline ptrdiff_t fp_write(int fd, const struct fp_piece* pieces, int count) {
    WSABUF buffers[64];
    DWORD sent = 0;
    if (count > 64) count = 64;
    for (int i = 0; i < count; i++) {
        buffers[i].buf = (CHAR*)pieces[i].data;
        buffers[i].len = pieces[i].size > 0x7fffffff ? 0x7fffffff : (ULONG)pieces[i].size;
    }
    if (WSASend((SOCKET)fd, buffers, (DWORD)count, &sent, 0, NULL, NULL) == 0) return (ptrdiff_t)sent;
    return fp_would_block(WSAGetLastError()) ? FP_AGAIN : FP_BROKEN;
}
static inline ptrdiff_t fp_read(int fd, unsigned char* data, size_t size) {
    int got = recv((SOCKET)fd, (char*)data, size > 0x7fffffff ? 0x7fffffff : (int)size, 0);
    if (got > 0) return got;
    if (got == 0) return FP_CLOSED;
    return fp_would_block(WSAGetLastError()) ? FP_AGAIN : FP_BROKEN;
}
#else
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
typedef struct pollfd fp_pollfd;
static inline int fp_error(void) { return errno; }
static inline const char* fp_error_text(int code) { return strerror(code); }
static inline void fp_close(int fd) { close(fd); }
static inline int fp_would_block(int code) { return code == EAGAIN || code == EWOULDBLOCK || code == EINTR; }
static inline int fp_poll(fp_pollfd* fds, size_t count, int64_t nanos) {
    if (nanos > 3600000000000LL) nanos = 3600000000000LL;
#if defined(__linux__)
    struct timespec limit = {(time_t)(nanos / 1000000000), (long)(nanos % 1000000000)};
    return ppoll(fds, (nfds_t)count, nanos < 0 ? NULL : &limit, NULL);
#else
    // Milliseconds are all poll knows: rounded up, so that nothing wakes before its time.
    return poll(fds, (nfds_t)count, nanos < 0 ? -1 : (int)((nanos + 999999) / 1000000));
#endif
}
static inline ptrdiff_t fp_write(int fd, const struct fp_piece* pieces, int count) {
    struct iovec vectors[64];
    struct msghdr message;
    if (count > 64) count = 64;
    for (int i = 0; i < count; i++) {
        vectors[i].iov_base = (void*)pieces[i].data;
        vectors[i].iov_len = pieces[i].size;
    }
    memset(&message, 0, sizeof message);
    message.msg_iov = vectors;
    message.msg_iovlen = count;
#if defined(MSG_NOSIGNAL)
    ptrdiff_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);  // a reset must be an error here, not a SIGPIPE
#else
    ptrdiff_t sent = sendmsg(fd, &message, 0);
#endif
    if (sent >= 0) return sent;
    return fp_would_block(errno) ? FP_AGAIN : FP_BROKEN;
}
static inline ptrdiff_t fp_read(int fd, unsigned char* data, size_t size) {
    ptrdiff_t got = recv(fd, data, size, 0);
    if (got > 0) return got;
    if (got == 0) return FP_CLOSED;
    return fp_would_block(errno) ? FP_AGAIN : FP_BROKEN;
}
#endif
