// A topic's partitions by number. One thread makes, shows and hides them; any thread looks them up, without a lock.
//
// A slot is filled once, before the count that shows it is raised, and is neither moved nor emptied: who has read a
// count may use every slot below it, whatever happens meanwhile. What became too small stays until the topic ends, as
// somebody may just be reading there; all of it together is no larger than the one in use.

#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

template <class T>
class fp_table {
    std::atomic<T**> slots{nullptr};
    std::atomic<size_t> shown{0};
    std::atomic<size_t> filled{0};
    std::vector<std::unique_ptr<T*[]>> kept;
    size_t room = 0;

public:
    // How many there are now.
    size_t size() const noexcept { return shown.load(std::memory_order_acquire); }

    // How many there ever were; those from size() on are hidden.
    size_t made() const noexcept { return filled.load(std::memory_order_acquire); }

    T* operator[](size_t at) const noexcept { return slots.load(std::memory_order_acquire)[at]; }

    // The next one; hidden until it is shown.
    void add(T* made_now) {
        size_t count = filled.load(std::memory_order_relaxed);
        if (count == room) {
            room = room ? 2 * room : 8;
            kept.emplace_back(new T*[room]());
            T** before = slots.load(std::memory_order_relaxed);
            for (size_t i = 0; i < count; ++i)
                kept.back()[i] = before[i];
            slots.store(kept.back().get(), std::memory_order_release);
        }
        slots.load(std::memory_order_relaxed)[count] = made_now;
        filled.store(count + 1, std::memory_order_release);
    }

    void show(size_t count) noexcept { shown.store(count, std::memory_order_release); }
};
