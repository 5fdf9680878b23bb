// SPDX-License-Identifier: Apache-2.0
// Paused keys. A worker that finds its lane paused when it would take the next job suspends it (attend.cpp); a push to
// a paused lane that was idle suspends it, too. It is suspended without a current job then.
//
// A paused lane is pinned: it is not forgotten though it may be idle.
#include <mutex>

#include "barrier.hpp"
#include "pool_core.hpp"
#include "shared_job.hpp"

namespace taskpool::detail {

/// False when it was paused. REQUIRES: the shard's lock.
static bool pause_locked(shard& s, lane& l) noexcept {
    if (l.paused)
        return false;
    const std::lock_guard lock(l.head_lock);
    l.paused = l.attends = true;
    if (bucket* const b = s.rates.find(l))
        b->has_waited = false; // from now on it waits for something else
    ++l.pins;
    ++s.paused;
    return true;
}

bool pool_core::pause(const key_view& key) {
    if (is_forked())
        return false;
    const auto [s, hash] = place_of(key);
    const std::lock_guard shard_lock(s.lock);
    if (s.frozen)
        return false;
    return pause_locked(s, s.table.find_or_make_locked(key, hash));
}

void pool_core::pause(lane& l) noexcept {
    shard& s = shard_of(l);
    const std::lock_guard shard_lock(s.lock);
    if (!s.frozen && &l != &barrier->own) // nobody could resume that
        pause_locked(s, key_lane_locked(l));
}

bool pool_core::resume(const key_view& key) {
    if (is_forked())
        return false;
    const auto [s, hash] = place_of(key);
    lane* l = nullptr;
    std::optional<tick> ready;
    {
        const std::lock_guard shard_lock(s.lock);
        l = s.table.find_locked(key, hash);
        if (l == nullptr || !l->paused)
            return false;
        const std::lock_guard lock(l->head_lock);
        unpause_locked(s, *l);
        ready = wake_locked(s, *l);
    }
    if (ready)
        enqueue(*l, *ready); // ours since it is active and in no queue
    else if (clock.asleep())
        poke_keeper(); // it may be idle, and to be swept
    return true;
}

/// REQUIRES: both locks.
void pool_core::unpause_locked(shard& s, lane& l) noexcept {
    if (!l.paused)
        return;
    l.paused = false;
    l.attends = attends_locked(s, l);
    --l.pins;
    --s.paused;
}

/// Has a suspended lane that nobody holds go on, unless it is paused. If the caller must queue it, its next job's age.
/// REQUIRES: both locks.
std::optional<tick> pool_core::wake_locked(shard& s, lane& l) noexcept {
    if (bucket* const b = s.rates.find(l))
        end_waiting_locked(s, *b);
    if (l.has_job || l.state != lane_state::suspended || !l.become_active_locked())
        return std::nullopt; // its worker, or who holds it, goes on with it; or there is no work
    return l.front_locked()->age;
}

} // namespace taskpool::detail
