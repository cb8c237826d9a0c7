# What comes from C, C++ and Python; clocks, and a lock that holds nobody up.

import logging

cimport cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, Py_XINCREF
from libc.stdint cimport (
    INT32_MAX, INT64_MAX, INT64_MIN,
    int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strlen
from libcpp cimport bool as cbool
from libcpp.algorithm cimport stable_sort
from libcpp.deque cimport deque
from libcpp.map cimport map as ordered_map
from libcpp.string cimport string
from libcpp.unordered_map cimport unordered_map
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from fastprod import errors, failures
from fastprod.types import RecordMetadata, TopicPartition
from fastprod.waiting import seconds_of

cdef extern from "<mutex>" namespace "std" nogil:
    cppclass mutex:
        void lock() noexcept
        cbool try_lock() noexcept
        void unlock() noexcept

    cppclass unique_lock[T]:
        unique_lock(T&) noexcept

cdef extern from "wall_clock.h" nogil:
    int64_t wall_ms "fp_wall_ms"() noexcept

cdef extern from "cache_line.h" nogil:
    cppclass cache_line "fp_cache_line":
        cache_line() noexcept
    void will_read "fp_will_read"(const unsigned char* data, int64_t size) noexcept
    void will_write "fp_will_write"(const unsigned char* data) noexcept

cdef extern from "latch.h" nogil:
    cppclass latch "fp_latch":
        void lock() noexcept
        cbool try_lock() noexcept
        cbool try_longer() noexcept
        void unlock() noexcept

cdef extern from "<chrono>" namespace "std::chrono" nogil:
    cppclass nanoseconds:
        nanoseconds(int64_t)
        int64_t count()

    cppclass time_point:
        nanoseconds time_since_epoch()

    nanoseconds as_nanoseconds "std::chrono::duration_cast<std::chrono::nanoseconds>"(nanoseconds)
    time_point steady_now "std::chrono::steady_clock::now"()

cdef extern from "<condition_variable>" namespace "std" nogil:
    cppclass condition_variable:
        void notify_all() noexcept
        void notify_one() noexcept
        void wait(unique_lock[mutex]&) noexcept
        void wait_for(unique_lock[mutex]&, const nanoseconds&) noexcept

cdef extern from "<atomic>" namespace "std" nogil:
    cdef enum memory_order:
        memory_order_relaxed
        memory_order_acquire
        memory_order_release
        memory_order_acq_rel
        memory_order_seq_cst

    cppclass atomic[T]:
        atomic()
        T load() noexcept
        T load(memory_order) noexcept
        void store(T) noexcept
        void store(T, memory_order) noexcept
        T exchange(T) noexcept
        cbool compare_exchange_strong(T&, T) noexcept
        T fetch_or(T) noexcept
        T fetch_add(T) noexcept
        T fetch_add(T, memory_order) noexcept
        T fetch_sub(T) noexcept
        T fetch_sub(T, memory_order) noexcept

cdef extern from "<thread>" namespace "std" nogil:
    cppclass thread:
        thread(void (*)(void*) noexcept nogil, void*) except +
        void join() noexcept

    unsigned int hardware_threads "std::thread::hardware_concurrency"() noexcept

cdef extern from "partition_table.h" nogil:
    cppclass partition_table "fp_table"[T]:
        size_t size() noexcept
        size_t made() noexcept
        T* operator[](size_t) noexcept
        void add(T*) except +
        void show(size_t) noexcept

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define FASTPROD_GIL 0
    #else
    #define FASTPROD_GIL 1
    #endif
    """
    bint GIL "FASTPROD_GIL"   # whether threads that hold the interpreter exclude each other

cdef extern from "<cstring>" nogil:
    void* memmove(void*, const void*, size_t)

log = logging.getLogger("fastprod")


cdef inline int64_t now_ns() noexcept nogil:
    return as_nanoseconds(steady_now().time_since_epoch()).count()


cdef inline void lock_detached(latch* gate) noexcept:
    """Take a lock from a thread that holds the interpreter. It is hardly waited for, nor is the interpreter waited for
    while holding it: the I/O thread must not stand still because some Python thread computes."""
    if not gate.try_lock():
        lock_contended(gate)


cdef void lock_contended(latch* gate) noexcept:
    """Most locks are given back sooner than the interpreter is left and entered."""
    while not gate.try_longer():
        with nogil:
            gate.lock()
            gate.unlock()


cdef inline void wait_for(condition_variable* condition, unique_lock[mutex]& held, int64_t nanos) noexcept nogil:
    condition.wait_for(held, nanoseconds(nanos))
