# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# distutils: language = c++
"""The compiled data plane with two entries for libFuzzer: the parser of Produce responses alone, and a connection.

An input's first bytes choose; the others are what a broker says. `driver.cc` calls `fuzz_response` or
`fuzz_connection`.
"""

import socket

from fastprod.config import PlaneOptions

include "_core.pyx"

cdef extern from "<stdlib.h>" nogil:
    void abort()


cdef public int fuzz_response(const unsigned char* data, size_t size) noexcept:
    """The version, then a response. Whatever it says, what is handed on lies within it."""
    cdef vector[Answer] answers
    cdef int32_t correlation_id = 0, throttle_ms = 0
    cdef size_t i, j
    if size < 1:
        return -1
    if not read_response(data + 1, size - 1, 3 + data[0] % 11, &correlation_id, &throttle_ms, answers):
        return 0
    for i in range(answers.size()):
        _look_at(&answers[i].topic, data, size)
        _look_at(&answers[i].message, data, size)
        if answers[i].has_hint:
            _look_at(&answers[i].host, data, size)
        for j in range(answers[i].record_errors.size()):
            _look_at(&answers[i].record_errors[j].message, data, size)
    return 0


cdef void _look_at(Text* text, const unsigned char* data, size_t size) noexcept nogil:
    cdef const unsigned char* start = <const unsigned char*>text.data
    if text.size < 0:
        return
    if start < data or start + text.size > data + size:
        abort()


# --- A connection --------------------------------------------------------------------------------------------------

# What the requests carry: the topics and partitions that the recorded responses speak of.
TOPICS = [("fuzz", b"F" * 16, 2), ("more", b"M" * 16, 1)]
OPTIONS = PlaneOptions(
    client_id="fuzz", acks=-1, idempotent=False, strict_order=False, batch_size=1000, buffer_memory=64_000,
    max_request_size=20_000, receive_message_max_bytes=1_000_000, linger_ms=0, max_block_ms=0,
    request_timeout_ms=30_000, delivery_timeout_ms=120_000, retries=0, max_in_flight=5,
    connections_max_idle_ms=540_000, codec=0, compress=None,
)
NODE = 1


class Engine:
    """Knows its topics and never learns more."""

    def on_control_thread(self):
        return True


cdef int64_t later() noexcept nogil:
    """The time it is for the plane: no batch waits for company any more."""
    return now_ns() + SECOND


cdef class Peer:
    """A plane without its thread, which we are, and the broker's end of its connection."""
    cdef DataPlane plane
    cdef object producer, ours, theirs

    def __init__(self):
        self.ours = socket.socketpair()
        self.ours[1].setblocking(False)
        self.plane = DataPlane(OPTIONS, self.ours[1].fileno())
        self.producer = ProducerBase()
        self.producer._bind(self.plane, Engine(), None, None, PARTITION_DEFAULT, None, None)
        for name, topic_id, partitions in TOPICS:
            self.plane.set_topic(name, topic_id, [NODE] * partitions)

    cdef Outbox* connect(self, int version):
        """A connection with one request in flight for each of two records a partition."""
        cdef Core* core = self.plane.core
        cdef int64_t when = NEVER
        cdef Outbox* outbox = outbox_for(core, NODE)
        near, self.theirs = socket.socketpair()
        near.setblocking(False)
        attach_connection(core, outbox, near.detach(), version, now_ns())
        outbox.next_correlation_id = 0
        for _ in range(2):
            for name, _, partitions in TOPICS:
                for partition in range(partitions):
                    self.producer.send(name, b"v", partition=partition)
            admit(core)
            serve(core, outbox, later(), &when)
            self.theirs.recv(1 << 16)
        return outbox

    def end(self):
        """Everything has one fate, and nothing is left."""
        for event in self.plane.take_events():
            if event[0] == C_PARKED:
                # What the broker said of it, as the control plane reads it.
                repr((event[1].error_message, event[1].record_errors, event[1].leader_hint))
                self.plane.fail(event[1], RuntimeError("fuzz"), unknown=False)
        while self.plane.run_callbacks():
            pass
        self.plane.take_unread()
        if self.plane.incomplete() or self.plane.counters()["memory_used"]:
            raise AssertionError(f"{self.plane.incomplete()} batches left, {self.plane.counters()}")


cdef Peer peer = None


cdef public int fuzz_connection(const unsigned char* data, size_t size) noexcept:
    """The version, how many answers it is, the size of the pieces, then what the broker says."""
    try:
        return _converse(data, size)
    except BaseException:
        import traceback
        traceback.print_exc()
        abort()


cdef int _converse(const unsigned char* data, size_t size) except -2:
    global peer
    cdef Outbox* outbox
    cdef bytes said
    cdef size_t at = 0, piece, expected
    if size < 3 or size > 30_000:
        return -1
    if peer is None:
        peer = Peer()
    outbox = peer.connect(3 + data[0] % 11)
    expected = outbox.in_flight.size()
    if expected != 2:
        raise AssertionError(f"{expected} requests in flight")
    said = repaired(data[1], data[3:size])
    piece = data[2] or len(said)
    read_some(peer.plane.core, outbox, later())   # nothing yet
    while at < <size_t>len(said) and outbox.fd >= 0:
        peer.theirs.send(said[at:at + piece])
        at += piece
        read_some(peer.plane.core, outbox, later())
    if outbox.fd >= 0 and expected - outbox.in_flight.size() > 2:
        raise AssertionError("more answers than requests")
    peer.theirs.close()
    while outbox.fd >= 0:
        read_some(peer.plane.core, outbox, later())
    outbox.throttled_until = 0
    peer.end()
    return 0


cdef bytes repaired(int answers, bytes said):
    """So many responses (0 to 3), each with the right size and correlation id; with 0 the bytes as they are."""
    if answers % 4 == 0 or len(said) < 4:
        return said
    return b"".join([
        len(said).to_bytes(4, "big") + number.to_bytes(4, "big") + said[4:] for number in range(answers % 4)
    ])
