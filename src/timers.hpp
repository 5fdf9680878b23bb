// SPDX-License-Identifier: Apache-2.0
// What happens at a time: sleeping coroutines, and jobs submitted for later. The keeper fires what is due, and sleeps
// no longer than until the next of it.
//
//   I-TIMER-1  Who unlinks a timer, the keeper to fire it or somebody who takes it back, is the one who goes on with
//              what it stands for.
//   I-TIMER-2  While the keeper sleeps, no timer is due before `wakes_at_`: who adds an earlier one wakes it.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>

#include <taskpool/manual_clock.hpp>

#include "sync.hpp"
#include "timer_wheel.hpp"

namespace taskpool::detail {

class pool_core;

struct pool_timer : timer_node {
    void (*fire)(pool_core& core, pool_timer& self) noexcept = nullptr; // called by the keeper, under no lock
};

class timers {
  public:
    using time_point = std::chrono::steady_clock::time_point;

    explicit timers(std::shared_ptr<manual_clock> clock) : manual_(std::move(clock)), begin_(now()) {}

    /// The pool's time: that of the system's steady clock, unless it was given another.
    time_point now() const noexcept { return manual_ ? manual_->now() : std::chrono::steady_clock::now(); }
    bool is_manual() const noexcept { return manual_ != nullptr; }

    /// Whether the keeper must be woken. REQUIRES: not linked.
    [[nodiscard]] bool add(pool_timer& t, time_point due) noexcept;
    /// Takes a timer back; false when it is not there: fired, about to be, or never added.
    bool remove(pool_timer& t) noexcept;

    /// Fires what is due; how much that was.
    std::size_t fire_due(pool_core& core) noexcept;

    /// From now on all timers are due, in their order; the caller pokes the keeper.
    void bring_forward() noexcept;

    /// Until when the keeper may sleep, from now on. For ever: nothing.
    std::optional<time_point> begin_sleep() noexcept;
    void end_sleep() noexcept;

    /// When the next timer is due, or something like it, but not later.
    std::optional<time_point> next() const noexcept;

  private:
    std::uint64_t since_begin(time_point t) const noexcept;
    std::uint64_t tick_of(time_point t) const noexcept; // the first one that is not before t
    time_point time_of(std::uint64_t tick) const noexcept;

    static constexpr std::size_t batch_size = 256; // fired between two locks
    static constexpr std::uint64_t awake = 0;
    static constexpr std::uint64_t for_ever = std::numeric_limits<std::uint64_t>::max();

    const std::shared_ptr<manual_clock> manual_;
    const time_point begin_;
    mutable sync::spin_lock lock_;
    // Under lock_:
    timer_wheel wheel_;
    std::uint64_t wakes_at_ = awake;
    bool all_due_ = false;
};

} // namespace taskpool::detail
