// What is derived from this begins with a cache line of its own, so that the fields that stand first and are used
// together are read together, and are not thrown out of one core's cache by what another writes beside them.
#pragma once
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
