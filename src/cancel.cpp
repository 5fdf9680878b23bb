// SPDX-License-Identifier: Apache-2.0
// Cancelling a key: what waits is discarded, what runs is asked to stop. stop() asks in the same way.
#include <mutex>
#include <new>

#include "coroutine.hpp"
#include "pool_core.hpp"
#include "shared_job.hpp"
#include "together.hpp"

namespace taskpool::detail {

/// Waiting jobs were discarded, and have given their room back to their shard. REQUIRES: no lock held.
void pool_core::tell_of_room(shard& s, std::size_t count) noexcept {
    if (settings.max_wait)
        gate.take_back(s); // its room would let new work past a gate that is shut
    waiting_room.wake(nullptr, count);
}

std::size_t pool_core::cancel(const key_view& key) {
    if (is_forked())
        return 0;
    const auto [s, hash] = place_of(key);
    const auto timed = cancel_timed(s, key, hash);
    if (is_forked())
        return timed;
    lane* l = nullptr;
    cut_jobs cut;
    joint_job* killed = nullptr; // for which the key is held, while it waits for others
    bool ready = false;
    {
        const std::lock_guard shard_lock(s.lock);
        l = s.table.find_locked(key, hash);
        if (l == nullptr || l->state == lane_state::idle)
            return timed;
        ++l->pins;
        const std::lock_guard lock(l->head_lock);
        cut = cut_waiting_locked(s, *l);
        killed = kill_current_locked(s, *l);
        if (l->has_job)
            l->cancelled.store(true, std::memory_order_relaxed); // a request; see lane::end_job_locked for its end
        ready = ask_to_stop_locked(s, *l);
    }
    if (ready)
        enqueue(*l, clock.now());
    const std::size_t count = cut.count - cut.uncounted + (killed != nullptr ? 1 : 0);
    tell_of_room(s, count);
    request_stops(*l);
    waiting_room.wake(l, count);
    discard_all(*l, cut, discard_reason::cancelled);
    if (killed != nullptr)
        discard_joint(*l, *killed, discard_reason::cancelled);
    unpin(*l);
    return timed + count;
}

void pool_core::discard_all(lane& l, cut_jobs& cut, discard_reason why) noexcept {
    job_slot job;
    while (cut.next(job)) {
        if (job.on_stop == resumption)
            resume(coroutine_in(job)); // it has begun: it goes on
        else
            discard_job(l, job, why);
    }
}

/// Tells a lane's jobs that they are asked to stop, and ends the sleep of its coroutines. Whether the caller must queue
/// the lane. REQUIRES: both locks.
bool pool_core::ask_to_stop_locked(shard& s, lane& l) noexcept {
    bool ready = false;
    ask_shares_to_stop_locked(s, l);
    for (job_extras* e = l.extras; e != nullptr; e = e->next) {
        e->cancelled.store(true, std::memory_order_relaxed); // a request; the timers' lock orders it for who sleeps
        if (e->joint != nullptr)
            e->joint->cancelled.store(true, std::memory_order_relaxed); // as above
        if (e->sleeps != nullptr && time.remove(*e->sleeps))
            ready |= resume_locked(s, l, *e);
    }
    return ready;
}

/// A stop that is to be requested, of one of a lane's own jobs. REQUIRES: the lane's lock.
static std::stop_source find_stop_locked(const pool_core& core, lane& l) noexcept {
    std::stop_source stop{std::nostopstate};
    for (const job_extras* e = l.extras; e != nullptr && !stop.stop_possible(); e = e->next)
        // relaxed: written under both locks.
        if (core.is_stopping() || e->cancelled.load(std::memory_order_relaxed))
            stop = source_to_request_locked(*e);
    return stop;
}

/// Makes the stop tokens of a lane's jobs tell of it. REQUIRES: no lock held; the lane is pinned; asked to stop.
void pool_core::request_stops(lane& l) noexcept {
    for (;;) {
        std::stop_source stop{std::nostopstate};
        {
            const std::lock_guard lock(l.head_lock);
            stop = find_stop_locked(*this, l);
            each_share_locked(l, [&](lane& beside) {
                const std::lock_guard lock_beside(beside.head_lock);
                if (!stop.stop_possible())
                    stop = find_stop_locked(*this, beside);
            });
        }
        if (!stop.stop_possible())
            return;
        stop.request_stop();
    }
}

} // namespace taskpool::detail
