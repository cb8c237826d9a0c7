// The wall clock in milliseconds, as each record that brings no time of its own gets it. It is not read again while the
// millisecond that it said cannot be over: the processor's counter, which costs half as much, tells how many
// nanoseconds have passed at most. On x86-64 it counts at a gigahertz or more; it is believed where the processor says
// that it never stands still.
#pragma once
#include <stdint.h>
#include <chrono>

static inline int64_t fp_wall_ns() noexcept {
    using namespace std::chrono;
    return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
}

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#include <x86intrin.h>
#endif

static inline bool fp_counter_never_stops() noexcept {
    enum { POWER_MANAGEMENT = 0x80000007u };
#if defined(_MSC_VER)
    int registers[4];
    __cpuid(registers, (int)0x80000000u);
    if ((unsigned)registers[0] < POWER_MANAGEMENT) return false;
    __cpuid(registers, (int)POWER_MANAGEMENT);
    return (registers[3] >> 8) & 1;
#else
    unsigned a, b, c, d;
    return __get_cpuid(POWER_MANAGEMENT, &a, &b, &c, &d) && ((d >> 8) & 1);
#endif
}

struct fp_wall_clock { uint64_t read_at, lasts; int64_t ms; };

static int64_t fp_read_wall_clock(fp_wall_clock* clock, uint64_t counter) noexcept {
    static const bool believed = fp_counter_never_stops();
    // The counter may be read a little out of turn.
    const int64_t MILLISECOND = 1000000, SLACK = 1000;
    int64_t ns = fp_wall_ns(), within = ns % MILLISECOND;
    clock->read_at = counter;
    clock->lasts = believed && within >= 0 && within < MILLISECOND - SLACK ? MILLISECOND - SLACK - within : 0;
    return clock->ms = ns / MILLISECOND;
}

static inline int64_t fp_wall_ms() noexcept {
    static thread_local fp_wall_clock clock = {0, 0, 0};
    uint64_t counter = __rdtsc();
    return counter - clock.read_at < clock.lasts ? clock.ms : fp_read_wall_clock(&clock, counter);
}
#else
static inline int64_t fp_wall_ms() noexcept { return fp_wall_ns() / 1000000; }
#endif
