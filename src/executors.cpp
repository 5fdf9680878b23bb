// SPDX-License-Identifier: Apache-2.0
// What executors of other libraries need (posting.hpp): the current lane, outstanding work, companions of a pool.
#include <taskpool/detail/posting.hpp>

#include <algorithm>
#include <exception>
#include <mutex>

#include "pool_core.hpp"

namespace taskpool::detail {

bool runs_here(const lane& l) noexcept {
    const running_job* const job = current_job();
    return job != nullptr && &job->in == &l;
}

void report_failure_here() noexcept {
    const running_job& job = *current_job();
    count_failure(job);
    job.core.report_failure(job.core.describe(job.in), std::current_exception());
}

// --- Outstanding work

void begin_work(pool_core& core, lane& l) noexcept {
    // relaxed: who begins work is a job, has begun some already, or is not ordered with the drain at all. The two
    // former publish this by their own end, through a lock or end_work.
    core.shard_of(l).work_begun.fetch_add(1, std::memory_order_relaxed);
}

void end_work(pool_core& core, lane& l) noexcept { core.end_work(core.shard_of(l)); }

void pool_core::end_work(shard& s) noexcept {
    if (is_forked())
        return;
    // release pairs with the acquire in is_busy_locked, and publishes what was begun before this end; acquire, so that
    // the count below includes what was begun before the ends that came earlier.
    const auto ended = s.work_ended.fetch_add(1, std::memory_order_acq_rel) + 1;
    // relaxed: see above. What begins at this moment makes the drainers look in vain, or ends later and tells them
    // itself.
    if (ended != s.work_begun.load(std::memory_order_relaxed))
        return;
    // A drainer that saw this work outstanding said so under this lock, before.
    const std::lock_guard lock(s.lock);
    tell_drainers_locked(s);
}

// --- Companions

companion& companion_of(pool_core& core, const void* kind, std::unique_ptr<companion> (*make)()) {
    return core.companion_of(kind, make);
}

companion& pool_core::companion_of(const void* kind, std::unique_ptr<companion> (*make)()) {
    const auto find_locked = [&] {
        return std::find_if(companions_.begin(), companions_.end(), [&](const auto& c) { return c.first == kind; });
    };
    std::unique_lock lock(companions_mutex_);
    if (const auto found = find_locked(); found != companions_.end())
        return *found->second;
    lock.unlock();
    auto made = make(); // under no lock
    lock.lock();
    if (const auto found = find_locked(); found != companions_.end())
        return *found->second; // somebody was quicker
    auto& added = *companions_.emplace_back(kind, std::move(made)).second;
    if (companions_know_) {
        lock.unlock();
        added.pool_has_stopped();
    }
    return added;
}

void pool_core::tell_companions() noexcept {
    for (std::size_t i = 0;; ++i) {
        companion* next = nullptr;
        {
            const std::lock_guard lock(companions_mutex_);
            if (i == companions_.size()) {
                companions_know_ = true;
                return;
            }
            next = companions_[i].second.get();
        }
        next->pool_has_stopped(); // under no lock: it may destroy what users have given it
    }
}

} // namespace taskpool::detail
