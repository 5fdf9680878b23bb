// SPDX-License-Identifier: Apache-2.0
// Paused keys. A worker that finds its lane paused when it would take the next job suspends it; a push to a paused lane
// that was idle suspends it, too. So such a lane lies in no queue, and is suspended without a current job.
//
// A paused lane is pinned: it is not forgotten though it may be idle.
#include <mutex>

#include "pool_core.hpp"

namespace taskpool::detail {

bool pool_core::pause(const key_view& key) {
    if (is_forked())
        return false;
    const auto [s, hash] = place_of(key);
    const std::lock_guard shard_lock(s.lock);
    if (s.frozen)
        return false;
    return pause_locked(s, s.table.find_or_make_locked(key, hash, static_cast<std::uint16_t>(&s - shards.data())));
}

void pool_core::pause(lane& l) noexcept {
    shard& s = shard_of(l);
    const std::lock_guard shard_lock(s.lock);
    if (!s.frozen)
        pause_locked(s, l);
}

/// False when it was paused. REQUIRES: the shard's lock.
bool pool_core::pause_locked(shard& s, lane& l) noexcept {
    if (l.paused)
        return false;
    const std::lock_guard lock(l.head_lock);
    l.paused = l.starts_none = true;
    ++l.pins;
    ++s.paused;
    return true;
}

bool pool_core::resume(const key_view& key) {
    if (is_forked())
        return false;
    const auto [s, hash] = place_of(key);
    lane* l = nullptr;
    bool ready = false;
    tick age = 0;
    {
        const std::lock_guard shard_lock(s.lock);
        l = s.table.find_locked(key, hash);
        if (l == nullptr || !l->paused)
            return false;
        const std::lock_guard lock(l->head_lock);
        ready = unpause_locked(s, *l);
        if (const job_slot* const front = ready ? l->front_locked() : nullptr)
            age = front->age;
    }
    if (ready)
        enqueue(*l, age); // ours since it is active and in no queue
    else if (clock.asleep())
        poke_keeper(); // it may be idle, and to be swept
    return true;
}

/// Whether the caller must queue the lane. REQUIRES: both locks.
bool pool_core::unpause_locked(shard& s, lane& l) noexcept {
    if (!l.paused)
        return false;
    l.paused = l.starts_none = false;
    --l.pins;
    --s.paused;
    if (l.has_job || l.state != lane_state::suspended)
        return false; // its worker, or who holds it, goes on with it; or there is no work
    return l.become_active_locked();
}

/// For the lane's worker, which is to take a job: gives the lane up, unless it is paused no longer.
bool pool_core::suspend_paused(lane& l) noexcept {
    const std::lock_guard shard_lock(shard_of(l).lock);
    if (!l.paused)
        return false;
    l.left_behind = false;
    if (l.state == lane_state::active) // else its jobs were cut out; and others may have come, and suspended it
        l.state = lane_state::suspended;
    return true;
}

} // namespace taskpool::detail
