// What is derived from this begins with a cache line of its own, so that the fields that stand first and are used
// together are read together, and are not thrown out of one core's cache by what another writes beside them.
#pragma once
#include <cstdint>
#if defined(_MSC_VER)
#include <intrin.h>
#endif

struct alignas(64) fp_cache_line {};

// Have the two lines behind `data` on their way here before they are written, wherever they are now.
static inline void fp_will_write(const unsigned char* data) noexcept {
#if defined(_MSC_VER) && defined(_M_X64)
    _m_prefetchw(data + 64);
    _m_prefetchw(data + 128);
#elif defined(__x86_64__)
    // __builtin_prefetch asks for them to be read unless it is compiled for newer processors; others take this for a nop.
    __asm__ volatile("prefetchw 64(%0)\n\tprefetchw 128(%0)" : : "r"(data));
#elif defined(__GNUC__)
    __builtin_prefetch(data + 64, 1);
    __builtin_prefetch(data + 128, 1);
#else
    (void)data;
#endif
}

// Have the lines of `size` bytes on their way here before they are read; the processor itself sees ahead in long ones.
static inline void fp_will_read(const unsigned char* data, int64_t size) noexcept {
    if (size > 512)
        size = 512;
    for (int64_t at = 0; at < size; at += 64) {
#if defined(_MSC_VER) && defined(_M_X64)
        _mm_prefetch(reinterpret_cast<const char*>(data + at), _MM_HINT_T0);
#elif defined(__GNUC__)
        __builtin_prefetch(data + at);
#else
        (void)data;
#endif
    }
}
