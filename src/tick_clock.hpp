// SPDX-License-Identifier: Apache-2.0
// The pool's coarse clock. The keeper moves it about once a millisecond while there is work; when the keeper sleeps,
// whoever reads the clock moves it. In a pool without threads it does not go with the time: it numbers what comes.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

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
        if (stamps_) [[unlikely]]
            return next_stamp();
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

    /// For a pool without threads (manual.hpp): from now on each reading is another one, later than all before, or,
    /// under a seed, a random one. REQUIRES: asleep, for good; one thread at a time reads it.
    void use_stamps(std::optional<std::uint64_t> seed) noexcept {
        stamps_ = true;
        seeded_ = seed.has_value();
        random_ = seed.value_or(0);
    }

  private:
    tick next_stamp() noexcept; // in manual.cpp: apart from what every pool runs

    bool stamps_ = false;
    bool seeded_ = false;
    std::uint64_t random_ = 0;
    const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
    alignas(64) sync::atomic<tick> tick_{0}; // on a line that is written once a tick
    sync::atomic<bool> asleep_{true};
};

} // namespace taskpool::detail
