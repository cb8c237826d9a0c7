# Waking the I/O thread.

cdef inline void wake(Core* core) noexcept nogil:
    """Let the I/O thread look again. It is only written to when it sleeps: it raises `sleeping`, then looks at
    `work` once more, and sleeps; whoever sets `work` before that look is seen, whoever sets it after it writes."""
    core.work.store(ANYTHING)
    if core.sleeping.load() and core.sleeping.exchange(0):
        write_wake(core)


cdef inline void wake_for_opened(Core* core) noexcept nogil:
    """The same where all there is to see is a batch that was opened: who pauses will see it in time."""
    cdef int expected = SLEEPS
    core.work.fetch_or(OPENED)
    if core.sleeping.load() == SLEEPS and core.sleeping.compare_exchange_strong(expected, 0):
        write_wake(core)


cdef inline void write_wake(Core* core) noexcept nogil:
    cdef fp_piece piece
    piece.data = <const unsigned char*>b"!"
    piece.size = 1
    fp_write(core.wake_write, &piece, 1)
