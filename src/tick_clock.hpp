// SPDX-License-Identifier: Apache-2.0
// The pool's coarse clock. The keeper moves it about once a millisecond while there is work; when the keeper sleeps,
// whoever reads the clock moves it.
#pragma once

#include <chrono>
#include <cstdint>

#include "sync.hpp"

namespace taskpool::detail {

/// Milliseconds since the pool began, modulo 2^32: compare with `older`, which is right for ages up to 24 days.
using tick = std::uint32_t;

inline bool older(tick a, tick b) noexcept { return static_cast<std::int32_t>(a - b) < 0; }

class tick_clock {
  public:
    tick now() noexcept {
        // relaxed: a reading that is a tick old is as good; nothing is published through it.
        return asleep_.load(std::memory_order_relaxed) ? refresh() : tick_.load(std::memory_order_relaxed);
    }

    tick refresh() noexcept {
        const auto passed = std::chrono::steady_clock::now() - begin_;
        const auto t = static_cast<tick>(std::chrono::duration_cast<std::chrono::milliseconds>(passed).count());
        // relaxed: as in now(). Two refreshes may cross; the older value stands for a tick at most.
        if (older(tick_.load(std::memory_order_relaxed), t))
            tick_.store(t, std::memory_order_relaxed);
        return t;
    }

    // relaxed: what must not be missed is argued where the keeper falls asleep (elastic.cpp), by the queues' locks.
    void set_asleep(bool asleep) noexcept { asleep_.store(asleep, std::memory_order_relaxed); }
    bool asleep() const noexcept { return asleep_.load(std::memory_order_relaxed); }

  private:
    const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
    alignas(64) sync::atomic<tick> tick_{0}; // on a line that is written once a tick
    sync::atomic<bool> asleep_{true};
};

} // namespace taskpool::detail
