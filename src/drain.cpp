// SPDX-License-Identifier: Apache-2.0
// Waiting until a key, or all of them, have no work. Who takes the last of it away tells those who wait, if any do.
#include <mutex>

#include "manual.hpp"
#include "pool_core.hpp"
#include "shared_job.hpp"
#include "wait_graph.hpp"

namespace taskpool::detail {

/// Some key, or the last one of the shard, has no work any more. REQUIRES: the shard's lock.
void pool_core::tell_drainers_locked(shard& s) noexcept {
    if (!s.idle_wanted && (!s.drained_wanted || s.is_busy_locked()))
        return;
    s.idle_wanted = s.drained_wanted = false;
    tell_drainers();
}

void pool_core::tell_drainers() noexcept {
    {
        const std::lock_guard lock(quiet_);
        ++quiet_epoch_;
        quiet_changed_.notify_all();
    }
    if (has_barriers()) // else nobody waits for lanes to come to one
        poke_keeper();
}

/// Waits until `is_quiet` says so, a look that asks to be told of changes where it says no. False when the time is up.
/// `wanted`: the lane that is waited for, or null.
template <class Look>
bool pool_core::wait_until_quiet(const patience& wait, const lane* wanted, Look is_quiet) {
    if (manual)
        return manual->wait(wait, wanted, is_quiet);
    for (;;) {
        std::unique_lock lock(quiet_);
        const auto epoch = quiet_epoch_;
        lock.unlock();
        if (is_quiet())
            return true;
        lock.lock();
        const auto changed = [&] { return quiet_epoch_ != epoch; };
        if (wait.kind == patience::for_ever)
            quiet_changed_.wait(lock, changed);
        else if (!quiet_changed_.wait_until(lock, wait.deadline, changed))
            return false;
    }
}

bool pool_core::drain(const patience& wait) {
    if (is_forked())
        return true;
    if (const running_job* const job = current_job(); job != nullptr && &job->core == this)
        throw deadlock_error("drain() inside a job waits for the job itself, of key \"" + describe(job->in) + "\"",
                             {describe(job->in)});
    refuse_where_it_discards("drain()");
    const job_wait waits(current_job(), {.for_pool = this}, wait.kind == patience::until_deadline);
    return wait_until_drained(wait);
}

bool pool_core::wait_until_drained(const patience& wait) {
    // Idle twice with nothing accepted in between: then all shards were idle at one moment.
    const auto look = [&](std::uint64_t& accepted) {
        bool idle = undelivered_.load(std::memory_order_acquire) == 0; // see retry_deliveries
        accepted = 0;
        for (auto& s : shards) {
            const std::lock_guard lock(s.lock);
            // relaxed, and before it is asked whether the shard is busy: if this is the same at the second look,
            // nothing began between the question at the first look and this one. What was begun before an end that the
            // first look saw is seen at the second (is_busy_locked acquires it).
            accepted += s.accepted + s.work_begun.load(std::memory_order_relaxed);
            const bool busy = s.is_busy_locked();
            idle &= !busy;
            s.drained_wanted = busy;
        }
        return idle;
    };
    return wait_until_quiet(wait, nullptr, [&] {
        std::uint64_t first = 0;
        std::uint64_t second = 0;
        while (look(first))
            if (look(second) && first == second)
                return true;
        return false;
    });
}

bool pool_core::drain(const key_view& key, const patience& wait) {
    if (is_forked())
        return true;
    const auto [s, hash] = place_of(key);
    lane* l = nullptr;
    bool needs_thread = true;
    bool timed = false;
    {
        const std::lock_guard lock(s.lock);
        timed = has_timed_locked(s, key, hash);
        l = timed ? &s.table.find_or_make_locked(key, hash) : s.table.find_locked(key, hash);
        if (l == nullptr || (l->state == lane_state::idle && !timed))
            return true;
        const std::lock_guard head_lock(l->head_lock);
        needs_thread = (l->state != lane_state::suspended && !has_only_held_shares_locked(*l)) || l->waiting() > 0 ||
                       (l->extras != nullptr && (l->extras->is_coroutine() || l->extras->joint != nullptr));
        ++l->pins;
    }
    const unpin_at_end unpins{*this, *l};
    wait_graph::target lane_of_it{.for_lane = l, .in = this, .for_timed = timed, .needs_thread = needs_thread};
    const auto look = [&, &s = s, hash = hash] {
        const std::lock_guard lock(s.lock);
        lane_of_it.for_timed = has_timed_locked(s, key, hash);
        const bool is_quiet = l->state == lane_state::idle && !lane_of_it.for_timed;
        s.idle_wanted |= !is_quiet;
        return is_quiet;
    };
    const bool has_deadline = wait.kind == patience::until_deadline;
    // What is submitted meanwhile may be a job of this key and of the waiting job's: now and then it asks again.
    while (current_job() != nullptr && !manual && !has_deadline) {
        const job_wait waits(current_job(), lane_of_it, false);
        if (wait_until_quiet({patience::until_deadline, 0, std::chrono::steady_clock::now() + doubt_interval}, l, look))
            return true;
    }
    const job_wait waits(current_job(), lane_of_it, has_deadline);
    return wait_until_quiet(wait, l, look);
}

} // namespace taskpool::detail
