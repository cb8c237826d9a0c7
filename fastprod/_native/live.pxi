# What lives, counted for tests that look for leaks. One atomic step a batch or buffer, none of them for each record.

cdef extern from *:
    """
    #ifndef FASTPROD_DEBUG
    #define FASTPROD_DEBUG 0
    #endif
    """
    bint COUNT_FUTURES "FASTPROD_DEBUG"   # two atomic steps a record: debug builds only

cdef atomic[int64_t] live_batches
cdef atomic[int64_t] live_buffers
cdef atomic[int64_t] live_futures
live_batches.store(0)
live_buffers.store(0)
live_futures.store(0)


def live_objects() -> dict:
    """How many batches exist in this process, how many buffers hold records (not those kept for the next ones), and in
    a debug build how many futures: what leak tests look at."""
    live = {"batches": live_batches.load(), "buffers": live_buffers.load()}
    if COUNT_FUTURES:
        live["futures"] = live_futures.load()
    return live
