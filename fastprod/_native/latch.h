// A lock for a few instructions. It is taken by one atomic step and given back by a plain store: unlike a mutex it does
// not wait until what was written under it (mostly a whole record) has left the processor's write buffer. Whoever finds
// it held spins, then yields, then sleeps: the holder may have lost its processor.
#pragma once
#include <atomic>
#include <chrono>
#include <thread>
#if defined(_MSC_VER)
#include <intrin.h>
#endif

class fp_latch {
    std::atomic<bool> held{false};

    static void spin() noexcept {
#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
        _mm_pause();
#elif defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
        __asm__ __volatile__("yield");
#endif
    }

public:
    bool try_lock() noexcept {
        return !held.load(std::memory_order_relaxed) && !held.exchange(true, std::memory_order_acquire);
    }

    // For about a microsecond.
    bool try_longer() noexcept {
        for (int tries = 0; tries < 30; tries++) {
            if (try_lock())
                return true;
            spin();
        }
        return false;
    }

    void lock() noexcept {
        for (int tries = 0; !try_lock(); tries++) {
            if (tries < 100)
                spin();
            else if (tries < 200)
                std::this_thread::yield();
            else
                std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
    }

    void unlock() noexcept { held.store(false, std::memory_order_release); }
};
