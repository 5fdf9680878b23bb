// SPDX-License-Identifier: Apache-2.0
// From submit to the queue: find the lane, push, queue the lane if it was idle. And what happens when there is no room.
#include <cassert>
#include <mutex>
#include <utility>

#include "manual.hpp"
#include "pool_core.hpp"
#include "shared_job.hpp"
#include "submit.hpp"
#include "wait_graph.hpp"

namespace taskpool::detail {

namespace {

constexpr int spins_between_looks = sync::scaled(20, 1);   // a few empty jobs take as long
constexpr int looks_without_progress = sync::scaled(5, 1); // a lane of empty jobs takes as long
constexpr int looks_before_sleeping = sync::scaled(50, 2); // together some tens of microseconds

/// Spreads whatever the user's hash yields over all bits (the finalizer of MurmurHash3, Appleby 2011).
std::uint64_t mix(std::uint64_t h) noexcept {
    h ^= h >> 33;
    h *= 0xFF51AFD7ED558CCDU;
    h ^= h >> 33;
    h *= 0xC4CEB9FE1A85EC53U;
    return h ^ (h >> 33);
}

} // namespace

std::pair<shard&, std::uint32_t> pool_core::place_of(const key_view& key) noexcept {
    const auto h = mix(key.hash);
    return {shards[(h >> 32) & (shards.size() - 1)], static_cast<std::uint32_t>(h)};
}

submit_result pool_core::submit(const key_view& key, job_source& job, const job_options& how, const patience& wait) {
    const auto [s, hash] = place_of(key);
    return submit(
        s, [&, &table = s.table, hash = hash]() -> lane& { return table.find_or_make_locked(key, hash); }, job, how,
        wait);
}

/// Not called by the one above, so that the compiler puts the common path into a function of its own.
submit_result pool_core::submit_in(shard& s, std::uint32_t hash, const key_view& key, job_source& job,
                                   const job_options& how, const patience& wait) {
    return submit(
        s, [&, hash]() -> lane& { return s.table.find_or_make_locked(key, hash); }, job, how, wait);
}

submit_result pool_core::submit(lane& l, job_source& job, const job_options& how, const patience& wait) {
    return submit(
        shard_of(l), [&]() -> lane& { return l; }, job, how, wait);
}

/// Puts the job into the lane if there is room, or makes room by the pool's rule; of the pool's room that only once the
/// gate has refused. `ready` says that the lane was idle and is the caller's now, to be queued. Strong guarantee.
/// REQUIRES: the shard's lock; the shard is not closed.
pool_core::attempt pool_core::push_locked(shard& s, lane& l, job_source& job, const job_options& how, tick age,
                                          bool gate_refused, job_slot& dropped, bool& ready) {
    const auto limit = keeps_latest() ? 1 : static_cast<std::uint32_t>(settings.lane_capacity);
    const auto waiting = l.waiting_locked(limit);
    if (const bool lane_full = waiting >= limit; (lane_full && how.on_stop != posted) || s.budget == 0) {
        if (how.on_stop == posted)
            return attempt::pool_full;
        const bool drops = keeps_latest() || (drops_oldest() && (lane_full || gate_refused));
        if (!drops || waiting == 0)
            return lane_full ? attempt::lane_full : attempt::pool_full;
        // With the head locked no worker takes the oldest job meanwhile: one goes, one comes.
        const std::lock_guard lock(l.head_lock);
        if (const auto now_waiting = l.waiting(); now_waiting >= limit || (gate_refused && now_waiting > 0)) {
            if (const job_slot* const front = l.front_locked(); front != nullptr && never_dropped(front->on_stop))
                return attempt::lane_full;
            l.push_locked(job, age, how, s.era);
            l.front_locked();
            l.take_locked(dropped);
            unlist_tagged_locked(dropped);
            if (const auto woken = wake_for_shares_locked(s, l, shares_of_locked(l)))
                enqueue(l, *woken); // a ready queue's lock may be taken under others
            s.accepted += job.was_accepted ? 0 : 1;
            ++s.discarded;
            if (s.guarded)
                tell_drainers_locked(s);
            return attempt::accepted;
        }
        if (s.budget == 0)
            return attempt::pool_full;
    }
    assert(l.waiting() < limit || how.on_stop == posted); // I-LANE-5
    l.push_locked(job, age, how, s.era);
    --s.budget;
    s.accepted += job.was_accepted ? 0 : 1;
    if (l.state < lane_state::active)
        ready = activate_locked(s, l);
    return attempt::accepted;
}

/// There was no room: unless it is to be tried `again` at once, waits if that may help, or says in `refusal` why not.
/// Whether it is to be tried again. REQUIRES: the lane is pinned, which this ends. Throws std::bad_alloc.
bool pool_core::wait_or_refuse(lane& l, bool again, bool in_pool, bool sheds, bool may_wait, const patience& wait,
                               submit_result& refusal) {
    const unpin_at_end unpins{*this, l};
    if (again)
        return true;
    if (sheds) {
        refusal = submit_status::overloaded;
        return false;
    }
    if (may_wait && wait_for_room(l, in_pool, wait, refusal))
        return true;
    if (!in_pool && refusal == submit_status::full && is_limited(l))
        refusal = submit_status::rate_limited;
    return false;
}

/// Spins while the lane's jobs are being taken, but not for long. Whether there is plenty of room by then.
bool pool_core::spin_for_room(const lane& l) const noexcept {
    auto before = l.waiting();
    for (int looks = 1; looks <= looks_before_sleeping; ++looks) {
        for (int spins = 0; spins < spins_between_looks; ++spins) // a look takes the line of `taken` from the worker
            sync::pause();
        const auto now = l.waiting();
        if (now <= settings.lane_capacity / 2)
            return true;
        if (looks % looks_without_progress == 0 && std::exchange(before, now) == now)
            return false;
    }
    return false;
}

/// Waits until there may be room. False with the reason when it is not to be tried again, and once more true after the
/// time was up. REQUIRES: the lane is pinned. Throws std::bad_alloc.
bool pool_core::wait_for_room(lane& l, bool in_pool, const patience& wait, submit_result& refusal) {
    running_job* const job = current_job();
    if (!manual && !in_pool && job == nullptr && settings.threads > 0 && spin_for_room(l))
        return true;
    if (!manual && wait.kind == patience::until_deadline && std::chrono::steady_clock::now() >= wait.deadline) {
        refusal = submit_status::timed_out;
        return false;
    }
    try {
        const job_wait waits(job,
                             in_pool ? wait_graph::target{.room_in = this}
                                     : wait_graph::target{.for_lane = &l, .for_room = true, .in = this},
                             wait.kind == patience::until_deadline);
        if (manual) {
            if (!manual->wait(wait, in_pool ? nullptr : &l, [&] { return claim_room(l, in_pool); }))
                refusal = submit_status::timed_out;
            return true;
        }
        room::waiter waiter(in_pool ? nullptr : &l, job != nullptr);
        waiting_room.enter(waiter);
        bool in_time = true;
        if (!claim_room(l, in_pool)) {
            if (clock.asleep())
                poke_keeper(); // it looks for room once a tick while somebody waits
            if (wait.kind == patience::until_deadline)
                in_time = waiter.wake.wait_until(wait.deadline);
            else
                waiter.wake.wait();
        }
        waiting_room.leave(waiter);
        if (!in_time)
            refusal = submit_status::timed_out;
        return true;
    } catch (const deadlock_error& error) {
        refusal = {submit_status::would_deadlock,
                   std::string(to_string(submit_status::would_deadlock)) + ": " + error.what()};
        return false;
    }
}

/// Whether there is room after all (or no more hope of it); otherwise asks to be told. REQUIRES: entered in the room.
bool pool_core::claim_room(lane& l, bool in_pool) noexcept {
    assert(manual || !waiting_room.is_empty()); // I-ROOM-1
    shard& s = shard_of(l);
    if (in_pool) {
        // relaxed: if a worker sees it too late, the keeper's next tick wakes us.
        pool_room_wanted.store(true, std::memory_order_relaxed);
        if (gate.grant(shards, s, [&] { return taken_by_workers(); }) != pool_gate::answer::full)
            return true;
        const std::lock_guard lock(s.lock);
        return s.closed;
    }
    const std::lock_guard shard_lock(s.lock);
    if (s.closed || is_overloaded())
        return true;
    const std::lock_guard lock(l.head_lock);
    if (l.waiting() < settings.lane_capacity)
        return true;
    l.room_wanted = true;
    return false;
}

void pool_core::enqueue(lane& l, tick age) noexcept { enqueue(l, age, manual ? 0 : clock.now()); }

void pool_core::enqueue(lane& l, tick age, tick since) noexcept {
    queues[l.shard % queues.size()].push(l, age, manual ? manual->now() : since);
    if (workers_at.wants_waking())
        workers_at.unpark_one();
    if (clock.asleep())
        poke_keeper();
}

} // namespace taskpool::detail
