// SPDX-License-Identifier: Apache-2.0
// A part of the keys, by hash: their table, the lock under which lanes are found and change state, and their counters.
#pragma once

#include <cstdint>
#include <utility>

#include "lane_table.hpp"
#include "rate.hpp"
#include "sync.hpp"
#include "tagged_job.hpp"
#include "timed_index.hpp"
#include "together.hpp"

namespace taskpool::detail {

struct alignas(64) shard {
    mutable sync::spin_lock lock;
    // --- Under lock
    bool closed = false;         // no job is accepted
    bool frozen = false;         // stop() has begun: no lane is freed, and nobody waits for outstanding work
    bool drained_wanted = false; // tell drainers when `active` becomes 0 ...
    bool idle_wanted = false;    // ... or when any lane goes idle, or comes to a barrier
    bool guarded = false;        // its lanes attend, for barriers (barrier.hpp)
    barrier_era era = 0;         // of jobs that are pushed now
    barrier_era open_era = 0;    // the latest whose jobs may start
    std::uint32_t budget = 0;    // jobs that may be accepted before asking the gate
    std::uint32_t active = 0;    // lanes that are not idle ...
    std::uint32_t suspended = 0; // ... of which are held with no worker
    std::uint32_t paused = 0;    // lanes that were paused
    std::uint32_t limited = 0;   // lanes that wait for a token
    std::uint32_t shared = 0;    // shared jobs that have begun
    std::uint32_t timed = 0;     // jobs that wait for their time, but for those that repeat
    std::uint64_t accepted = 0;
    std::uint64_t discarded = 0;     // not by workers
    lane_table table;                // not in the lock's line, which who waits for the lock takes away meanwhile
    std::uint64_t finished_held = 0; // jobs that ended with their last hold
    std::uint64_t replaced = 0;      // of the discarded, by a job of the same tag
    std::uint64_t together = 0;      // of the accepted, jobs of several keys
    timed_index timed_jobs;          // those whose time has not come, or that found no room yet
    tag_index tags;                  // jobs that wait and may be replaced
    rate_table rates;
    joint_memory spare_joints; // of jobs of several keys
    // --- Any thread
    sync::atomic<std::uint64_t> rejected{0};
    sync::atomic<std::uint64_t> work_begun{0}; // outstanding work of executors (executors.cpp) ...
    sync::atomic<std::uint64_t> work_ended{0}; // ... never more than has begun

    /// Whether drain() has to wait for something here. REQUIRES: lock.
    bool is_busy_locked() const noexcept {
        if (active > 0 || timed > 0)
            return true;
        // acquire pairs with the release in end_work: all begun before that end is seen. `ended` is read first, so that
        // the two are equal only if no work was outstanding at that moment.
        const auto ended = work_ended.load(std::memory_order_acquire);
        return !frozen && ended != work_begun.load(std::memory_order_relaxed); // relaxed: see above
    }
};

/// A bucket's lane waits for a token no longer. REQUIRES: the shard's lock.
inline void end_waiting_locked(shard& s, bucket& b) noexcept {
    if (std::exchange(b.waits, false))
        --s.limited;
}

} // namespace taskpool::detail
