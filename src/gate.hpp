// SPDX-License-Identifier: Apache-2.0
// The pool's capacity (G6), without a counter that every job touches.
//
// The gate grants budgets to shards; a push spends one from its shard's budget, under the shard's lock; a job that is
// discarded gives one back there. Workers give nothing back: each counts the jobs it takes, and the gate reads these
// counts when it is asked for a grant.
//
//   I-GATE-1  granted = budgets that lie in shards + accepted - discarded (not by workers); hence
//             waiting <= granted - taken by workers <= capacity, since a count read late only makes the gate stricter.
//             Jobs of executors (`posted`), and of run() and then(), whose state exists already, are granted beyond
//             the capacity; others wait until these are fewer, too.
//   I-GATE-2  The gate refuses only when no shard has a budget left over: it takes them back first.
//   I-GATE-3  While it is shut (overload.cpp), no shard has a budget, but for moments: a cancel takes back what it puts
//             there; who may pass (what was accepted before, or exists) is granted room for one job, and uses it. So
//             all others come here, and are refused.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <mutex>

#include "sync.hpp"

namespace taskpool::detail {

class pool_gate {
  public:
    /// Grants up to so much at once.
    pool_gate(std::uint64_t capacity, std::uint64_t largest_share) noexcept
        : capacity_(capacity), largest_share_(largest_share) {}

    enum class answer : std::uint8_t { granted, full, shut };
    enum class past : std::uint8_t { nothing, being_shut, all }; // what does not keep out who asks

    /// Grants a budget to `asking`, or says why not. `taken` yields what workers have taken so far. REQUIRES: no
    /// shard's lock held.
    template <class Shards, class Shard, class Taken>
    answer grant(Shards& shards, Shard& asking, Taken&& taken, past gets_past = past::nothing) {
        const std::lock_guard lock(mutex_);
        if (shut_ && gets_past == past::nothing)
            return answer::shut;
        auto free = free_locked(taken());
        if (free == 0) {
            take_back_locked(shards);
            free = free_locked(taken());
            if (free == 0 && gets_past != past::all)
                return answer::full;
        }
        // A share that leaves as much again for the other shards; 1 near the limit.
        const auto share = std::clamp<std::uint64_t>(free / (2 * shards.size()), 1, shut_ ? 1 : largest_share_);
        assert(share > 0 && (share <= free || gets_past == past::all)); // I-GATE-1, I-GATE-2
        assert(!shut_ || (share == 1 && gets_past != past::nothing));   // I-GATE-3
        granted_ += share;
        const std::lock_guard shard_lock(asking.lock);
        asking.budget += static_cast<std::uint32_t>(share);
        return answer::granted;
    }

    template <class Shards>
    void shut(Shards& shards) noexcept {
        const std::lock_guard lock(mutex_);
        shut_ = true;
        take_back_locked(shards);
    }
    void open() noexcept {
        const std::lock_guard lock(mutex_);
        shut_ = false;
    }

    /// The next submit to the shard has to ask. REQUIRES: its lock is not held.
    template <class Shard>
    void take_back(Shard& s) noexcept {
        const std::lock_guard lock(mutex_);
        take_back_from_locked(s);
    }

    /// Jobs for which there is room, budgets of shards included: for the keeper, while submitters wait.
    template <class Shards>
    std::uint64_t free(Shards& shards, std::uint64_t taken) noexcept {
        const std::lock_guard lock(mutex_);
        take_back_locked(shards);
        return free_locked(taken);
    }

    std::unique_lock<sync::mutex> lock() const noexcept { return std::unique_lock(mutex_); }

    /// Whether there is room, budgets of shards included. `taken` as for grant(). REQUIRES: lock(), and all shards'.
    template <class Shards, class Taken>
    bool has_room_locked(const Shards& shards, Taken&& taken) const noexcept {
        std::uint64_t used = granted_;
        for (auto& s : shards)
            used -= s.budget;
        used -= taken();
        assert(static_cast<std::int64_t>(used) >= 0); // I-GATE-1
        return used < capacity_;
    }

  private:
    template <class Shards>
    void take_back_locked(Shards& shards) noexcept {
        for (auto& s : shards)
            take_back_from_locked(s);
    }
    template <class Shard>
    void take_back_from_locked(Shard& s) noexcept {
        const std::lock_guard shard_lock(s.lock);
        granted_ -= s.budget;
        s.budget = 0;
    }

    std::uint64_t free_locked(std::uint64_t taken) const noexcept {
        const auto used = granted_ - taken;
        return used < capacity_ ? capacity_ - used : 0;
    }

    const std::uint64_t capacity_;
    const std::uint64_t largest_share_;
    mutable sync::mutex mutex_;
    // Under mutex_:
    std::uint64_t granted_ = 0;
    bool shut_ = false;
};

} // namespace taskpool::detail
