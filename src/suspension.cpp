// SPDX-License-Identifier: Apache-2.0
// What becomes of a lane between two jobs: it goes idle, is suspended, goes on (lane.hpp has the states). And of work
// that is to be submitted but finds no room.
#include <algorithm>
#include <cassert>
#include <mutex>
#include <utility>

#include "barrier.hpp"
#include "coroutine.hpp"
#include "pool_core.hpp"
#include "together.hpp"

namespace taskpool::detail {

bool pool_core::any_ready() const noexcept {
    return std::any_of(queues.begin(), queues.end(), [](const ready_queue& queue) { return !queue.is_empty(); });
}

bool pool_core::any_front() const noexcept {
    return std::any_of(queues.begin(), queues.end(),
                       [](const ready_queue& queue) { return queue.front().has_value(); });
}

void pool_core::wake_if_ready() noexcept {
    if (any_ready() && workers_at.wants_waking()) // in this order, see parking.hpp
        workers_at.unpark_one();
}

/// REQUIRES: as go_idle_locked().
inline void pool_core::become_idle_locked(shard& s, lane& l) noexcept {
    assert(l.extras == nullptr && !l.has_job); // I-LANE-1
    l.rewind_locked();
    l.state = lane_state::idle;
    --s.active;
    tell_drainers_locked(s);
    if (&l == &barrier->own)
        poke_keeper(); // for what waits behind the last barrier
}

bool pool_core::let_go(lane& l) noexcept {
    shard& s = shard_of(l);
    const std::lock_guard lock(s.lock);
    // relaxed: `pushed` under the shard's lock, `taken` as the owner.
    if (l.pushed.load(std::memory_order_relaxed) != static_cast<std::uint32_t>(l.taken.load(std::memory_order_relaxed)))
        return false;
    l.left_behind = false;
    if (l.state == lane_state::active) { // else it went idle when its jobs were cut out
        if (l.extras != nullptr) [[unlikely]]
            rest_locked(s, l);
        else
            become_idle_locked(s, l);
    }
    return true;
}

/// Cuts all waiting jobs out, to be destroyed under no lock. A lane without a current job goes idle at once, though it
/// still lies in a queue or in a worker's hands. REQUIRES: the shard's lock and the lane's; the lane is not idle.
cut_jobs pool_core::cut_waiting_locked(shard& s, lane& l) noexcept {
    std::uint32_t uncounted = 0;
    l.each_waiting_locked([&](job_slot& slot) {
        unlist_tagged_locked(slot);
        if (is_joint(slot.on_stop)) {
            place_in(slot).kills = kill(place_in(slot));
            uncounted += place_in(slot).kills ? 0U : 1U;
        } else if (slot.on_stop == resumption) {
            coroutine_in(slot).queued = false; // until it is there again (discard_all)
            ++uncounted;
        }
    });
    cut_jobs cut = l.cut_locked();
    cut.uncounted = uncounted;
    const auto discarded = cut.count - uncounted;
    s.discarded += discarded;
    s.budget += discarded;
    if (!l.has_job && l.state >= lane_state::active) {
        if (l.state == lane_state::active) // else it is paused, or limited, and suspended
            l.left_behind = true;
        if (bucket* const b = s.rates.find(l))
            end_waiting_locked(s, *b);
        go_idle_locked(s, l);
    }
    return cut;
}

/// The lane's last job is gone. REQUIRES: the shard's lock; no jobs; ownership, or the lane's lock, too. One beside
/// another ends: ownership, and not its lock.
void pool_core::go_idle_locked(shard& s, lane& l) noexcept {
    if (l.extras != nullptr) [[unlikely]]
        rest_locked(s, l);
    else
        become_idle_locked(s, l);
}

/// Likewise, of a lane with extras that are not the last job's. REQUIRES: as before.
void pool_core::rest_locked(shard& s, lane& l) noexcept {
    if (l.beside) {
        end_share_locked(s, l);
    } else {
        l.linger_locked(); // its detached coroutines go on from here (resume), its shared jobs beside it
        tell_drainers_locked(s);
    }
}

/// Whether the current job lets others of its key run. REQUIRES: the lane's lock; its stretch has ended.
static bool can_detach(const job_extras& e) noexcept {
    return e.interleaves && !e.detached && e.holds == 1 && !static_cast<const coroutine_job&>(e).done;
}

void pool_core::release_hold(job_extras& e) noexcept {
    if (is_forked())
        return;
    // Once the lane is queued or idle, a stop that waited for this hold may come to its end.
    const auto alive = shared_from_this();
    lane& l = *e.in;
    shard& s = shard_of(l);
    job_extras* ended = nullptr;
    tick age = clock.now();
    bool ready = false;
    bool beside = false;
    {
        const std::lock_guard shard_lock(s.lock);
        const std::lock_guard lock(l.head_lock);
        --e.holds;
        if (l.state != lane_state::suspended || (e.holds > 0 && !can_detach(e)))
            return; // the job has not returned, or others hold it
        --s.suspended;
        if (e.is_coroutine()) {
            ready = true; // a worker ends it, or detaches it (worker::take_up)
        } else {
            ended = l.end_job_locked();
            s.finished_held += e.counts ? 1 : 0;
            if (e.joint != nullptr) // before this lane is seen without it, see end_joint
                e.joint->set_over();
        }
        if (const job_slot* const front = l.front_locked()) {
            if (!e.is_coroutine() || older(front->age, age))
                age = front->age;
            ready = true;
        }
        beside = l.beside;
        if (ready || beside)
            l.state = lane_state::active;
        else
            go_idle_locked(s, l);
    }
    if (ended != nullptr)
        ended->end(*ended);
    if (ready)
        enqueue(l, age); // ours since it is active and in no queue
    else if (beside)
        let_go(l); // likewise
}

/// Ends the current job, unless it is held, which is told by `false`. REQUIRES: the lane's lock.
static bool end_unless_held_locked(lane& l, worker& by, job_extras*& ended) noexcept {
    const job_extras* const e = l.current_extras_locked();
    if (e != nullptr && e->holds > 0)
        return false;
    if (e == nullptr || e->counts)
        by.finished.add();
    ended = l.end_job_locked();
    l.has_job = ended != nullptr; // until that has ended, too: a barrier does not come before
    return true;
}

bool pool_core::end_job_with_extras(lane& l, worker& by, std::unique_lock<sync::spin_lock>& lock) noexcept {
    job_extras* ended = nullptr;
    bool requeue = false;
    const bool is_held = !end_unless_held_locked(l, by, ended);
    if (!is_held && ended == nullptr)
        return true;
    lock.unlock();
    if (is_held) {
        shard& s = shard_of(l);
        const std::lock_guard shard_lock(s.lock);
        const std::lock_guard lane_lock(l.head_lock);
        job_extras* const e = l.current_extras_locked();
        if (end_unless_held_locked(l, by, ended)) {
            // The last hold was released meanwhile.
        } else if (can_detach(*e)) {
            e->detached = true;
            l.has_job = false;
            l.cancelled.store(false, std::memory_order_relaxed); // under head_lock
            by.taken.add(-1ULL);                                 // it waits again, in the pool's room (gate.hpp)
            if (e->resumes)
                resume_locked(s, l, *e); // the lane is ours, and stays so
        } else if (!e->resumes) {
            l.state = lane_state::suspended; // the last hold, or resume(), goes on from here
            l.left_behind = false;
            ++s.suspended;
            return false;
        } else {
            requeue = true; // what the coroutine waited for has come meanwhile
        }
    }
    if (ended != nullptr) {
        // What a coroutine leaves behind ends as a part of its job.
        running_job self{*this, l, by, ended->number};
        running_job* const outer = exchange_current_job(&self);
        ended->end(*ended);
        exchange_current_job(outer);
    }
    if (requeue) {
        enqueue(l, clock.now());
        return false;
    }
    lock.lock();
    if (ended != nullptr) {
        l.has_job = false;
        l.cancelled.store(false, std::memory_order_relaxed); // under head_lock
    }
    return true;
}

/// A coroutine of the lane can go on. Whether the caller must queue the lane. REQUIRES: both locks; nobody else resumes
/// it.
bool pool_core::resume_locked(shard& s, lane& l, job_extras& e) noexcept {
    assert(!e.resumes || e.detached); // I-COROUTINE-1: once, but for tries without memory
    e.resumes = true;
    if (!e.detached) {
        if (l.state != lane_state::suspended)
            return false; // its worker goes on with it (end_job_with_extras)
        l.state = lane_state::active;
        --s.suspended;
        return true;
    }
    struct source final : job_source {
        job_extras& e;
        explicit source(job_extras& from) noexcept : e(from) {
            ops = &coroutine_ops;
            store = [](job_source& self, void* storage) {
                new (storage) coroutine_job*(static_cast<coroutine_job*>(&static_cast<source&>(self).e));
            };
        }
    } from(e);
    try {
        l.push_locked(from, clock.now(), {.on_stop = resumption}, s.era);
    } catch (...) {
        // relaxed: the keeper tries again at a tick, or when it is poked, which orders it.
        resumptions_wait_.store(true, std::memory_order_relaxed);
        if (clock.asleep())
            poke_keeper();
        return false;
    }
    e.resumes = false;
    e.queued = true;
    return l.state == lane_state::lingering && l.become_active_locked();
}

void pool_core::resume(job_extras& e) noexcept {
    if (is_forked())
        return;
    const auto alive = shared_from_this(); // as in release_hold
    lane& l = *e.in;
    shard& s = shard_of(l);
    bool ready = false;
    {
        const std::lock_guard shard_lock(s.lock);
        const std::lock_guard lock(l.head_lock);
        ready = resume_locked(s, l, e);
    }
    if (ready)
        enqueue(l, clock.now());
}

/// For the keeper: resumes the coroutines for which there was no memory.
void pool_core::retry_resumptions() noexcept {
    if (!resumptions_wait_.exchange(false, std::memory_order_relaxed)) // see resume_locked
        return;
    for (auto& s : shards) {
        s.lock.lock();
        for (std::size_t i = 0; i < s.table.places_locked().size(); ++i) {
            lane* const l = s.table.places_locked()[i];
            if (l == nullptr || l->state == lane_state::idle)
                continue;
            bool ready = false;
            {
                const std::lock_guard lock(l->head_lock);
                for (job_extras* e = l->extras; e != nullptr; e = e->next)
                    if (e->detached && e->resumes)
                        ready |= resume_locked(s, *l, *e);
            }
            if (ready)
                enqueue(*l, clock.now()); // a ready queue's lock may be taken under a shard's
        }
        s.lock.unlock();
    }
}

// --- Deliveries ------------------------------------------------------------------------------------------------------

void pool_core::deliver(delivery& what) noexcept {
    if (!what.attempt(what))
        postpone(what);
}

void pool_core::postpone(delivery& what) noexcept {
    // relaxed: what drain() must not miss is ordered by the shards' locks, in which the job that leads here ends later.
    undelivered_.fetch_add(1, std::memory_order_relaxed);
    {
        const std::lock_guard lock(deliveries_mutex_);
        what.next = nullptr;
        (last_delivery_ != nullptr ? last_delivery_->next : first_delivery_) = &what;
        last_delivery_ = &what;
    }
    if (clock.asleep())
        poke_keeper();
}

void deliver(pool_core& core, delivery& what) noexcept { core.deliver(what); }

/// Tries all deliveries again, in order; whether some are left.
bool pool_core::retry_deliveries() noexcept {
    delivery* all = nullptr;
    {
        const std::lock_guard lock(deliveries_mutex_);
        all = std::exchange(first_delivery_, nullptr);
        last_delivery_ = nullptr;
    }
    delivery* first = nullptr;
    delivery* last = nullptr;
    std::size_t delivered = 0;
    while (all != nullptr) {
        delivery& d = *std::exchange(all, all->next);
        if (d.attempt(d)) {
            ++delivered;
            continue;
        }
        d.next = nullptr;
        (last != nullptr ? last->next : first) = &d;
        last = &d;
    }
    // release pairs with the acquire in wait_until_drained: what was delivered is in its lane.
    if (delivered > 0 && undelivered_.fetch_sub(delivered, std::memory_order_release) == delivered)
        tell_drainers();
    const std::lock_guard lock(deliveries_mutex_);
    if (first != nullptr) { // before those that have come meanwhile
        last->next = first_delivery_;
        if (first_delivery_ == nullptr)
            last_delivery_ = last;
        first_delivery_ = first;
    }
    return first_delivery_ != nullptr;
}

} // namespace taskpool::detail
