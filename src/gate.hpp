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
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "sync.hpp"

namespace taskpool::detail {

class pool_gate {
  public:
    explicit pool_gate(std::uint64_t capacity) noexcept : capacity_(capacity) {}

    /// Grants a budget to `asking`; false when the pool is full, unless room for one job is wanted `in_any_case`.
    /// `taken` yields what workers have taken so far. REQUIRES: no shard's lock held.
    template <class Shards, class Shard, class Taken>
    bool grant(Shards& shards, Shard& asking, Taken&& taken, bool in_any_case = false) {
        const std::lock_guard lock(mutex_);
        auto free = free_locked(taken());
        if (free == 0) {
            take_back_locked(shards);
            free = free_locked(taken());
            if (free == 0 && !in_any_case)
                return false;
        }
        // A share that leaves as much again for the other shards; 1 near the limit.
        const auto share = std::clamp<std::uint64_t>(free / (2 * shards.size()), 1, 1024);
        granted_ += share;
        const std::lock_guard shard_lock(asking.lock);
        asking.budget += static_cast<std::uint32_t>(share);
        return true;
    }

    /// Jobs for which there is room, budgets of shards included: for the keeper, while submitters wait.
    template <class Shards>
    std::uint64_t free(Shards& shards, std::uint64_t taken) noexcept {
        const std::lock_guard lock(mutex_);
        take_back_locked(shards);
        return free_locked(taken);
    }

  private:
    template <class Shards>
    void take_back_locked(Shards& shards) noexcept {
        for (auto& s : shards) {
            const std::lock_guard shard_lock(s.lock);
            granted_ -= s.budget;
            s.budget = 0;
        }
    }

    std::uint64_t free_locked(std::uint64_t taken) const noexcept {
        const auto used = granted_ - taken;
        return used < capacity_ ? capacity_ - used : 0;
    }

    const std::uint64_t capacity_;
    sync::mutex mutex_;
    std::uint64_t granted_ = 0; // under mutex_
};

} // namespace taskpool::detail
