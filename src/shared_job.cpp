// SPDX-License-Identifier: Apache-2.0
#include "shared_job.hpp"

#include <cassert>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#include "pool_core.hpp"
#include "submit.hpp"

namespace taskpool::detail {

share::share(lane& of_key) noexcept {
    in = &of_key;
    end = [](job_extras&) noexcept {}; // not called; it tells a share from a group
    detached = true;
}

share_group::share_group(lane& of_key) noexcept {
    in = &of_key;
    detached = true;
}

void share_group::add(share& s) noexcept {
    s.next_share = first;
    if (first != nullptr)
        first->previous_share = &s;
    first = &s;
    ++running;
}

void share_group::remove(share& s) noexcept {
    (s.previous_share != nullptr ? s.previous_share->next_share : first) = s.next_share;
    if (s.next_share != nullptr)
        s.next_share->previous_share = s.previous_share;
    --running;
}

bool has_only_held_shares_locked(const lane& l) noexcept {
    bool all_held = l.state == lane_state::lingering && l.extras->next == nullptr && shares_of_locked(l) != nullptr;
    each_share_locked(l, [&](const lane& beside) {
        // Of a suspended one the extras stay as they are under the shard's lock.
        all_held = all_held && beside.state == lane_state::suspended && !beside.extras->is_coroutine();
    });
    return all_held;
}

// --- Before a job starts ---------------------------------------------------------------------------------------------

bool pool_core::attends_locked(shard& s, const lane& l) noexcept {
    return s.guarded || s.rates.concern(l) || attends_for_special_locked(l);
}

/// Whether the lane's next job may start beside those that run; if not, it is to be told when it may. What stop()
/// discards may go. REQUIRES: both locks; the caller owns the lane.
bool pool_core::may_start_locked(lane& l, const job_slot& next) const noexcept {
    share_group* const group = shares_of_locked(l);
    if (group == nullptr || (is_shared(next.on_stop) && group->running < settings.max_shared) ||
        (is_stopping() && !runs_in_stop(next.on_stop)))
        return true;
    group->wanted = true;
    return false;
}

// --- While it runs ---------------------------------------------------------------------------------------------------

/// Makes the lane in which the next job runs, or none where there is no memory. REQUIRES: head_lock; the job is shared
/// and may start, and the caller takes it before it releases the lock.
lane* pool_core::begin_share_locked(lane& l) noexcept {
    share_group* group = shares_of_locked(l);
    assert(group == nullptr || group->running < settings.max_shared); // I-SHARED-2
    lane* beside = nullptr;
    try {
        std::unique_ptr<share_group> made;
        if (group == nullptr)
            made = std::make_unique<share_group>(l);
        beside = maker.make_beside(l, sizeof(share));
        if (made)
            l.link_locked(*(group = made.release()));
    } catch (...) { // also of the key's copy
        return nullptr;
    }
    auto* const s = new (&share::of(*beside)) share(l);
    beside->beside = true;
    beside->state = lane_state::active; // the worker's, which made it
    beside->has_job = true;
    beside->link_locked(*s);
    group->add(*s);
    assert(shares_of_locked(l) == group); // I-SHARED-1
    return beside;
}

/// A shared job has been taken from the lane: others may go on with that. REQUIRES: the caller owned it.
void pool_core::pass_on(lane& l) noexcept {
    shard& s = shard_of(l);
    tick age = 0;
    {
        const std::lock_guard shard_lock(s.lock);
        const std::lock_guard lock(l.head_lock);
        ++s.shared;
        const job_slot* const front = l.front_locked();
        if (front == nullptr) {
            l.left_behind = false;
            if (l.state == lane_state::active) // as in let_go
                go_idle_locked(s, l);
            return;
        }
        if (!may_start_locked(l, *front)) {
            suspend_locked(l);
            return;
        }
        age = front->age;
    }
    enqueue(l, age);
}

/// Runs the lane's next job, a shared one, and has passed the lane on by then. False when there was no memory.
/// REQUIRES: head_lock, released where true.
bool worker::serve_beside(lane& l, job_slot& job) noexcept {
    job_slot& front = *l.front_locked();
    const bool discards = core.is_stopping() && !runs_in_stop(front.on_stop);
    front.on_stop = as_unshared(front.on_stop);
    lane* const beside = discards ? nullptr : core.begin_share_locked(l);
    if (beside == nullptr)
        return false;
    const auto number = l.take_locked(job);
    const bool lane_wanted = l.has_room_to_tell_locked(core.settings.lane_capacity);
    taken.add(); // see worker::next
    l.head_lock.unlock();
    // relaxed: see tell_submitters.
    if (const bool pool_wanted = core.pool_room_wanted.load(std::memory_order_relaxed); lane_wanted || pool_wanted)
        tell_submitters(l, lane_wanted, pool_wanted);
    core.pass_on(l); // not ours from here on
    if (!run(*beside, job, number) || end_job(*beside))
        core.let_go(*beside);
    ran_beside_ = true;
    return true;
}

/// For a request to stop. REQUIRES: both locks.
void pool_core::ask_shares_to_stop_locked(shard& s, lane& l) noexcept {
    each_share_locked(l, [&](lane& beside) {
        const std::lock_guard lock(beside.head_lock);
        beside.cancelled.store(true, std::memory_order_relaxed); // a request, as in cancel
        if (ask_to_stop_locked(s, beside))
            enqueue(beside, clock.now()); // a ready queue's lock may be taken under others
    });
}

const lane& pool_core::key_lane(const lane& l) noexcept {
    const std::lock_guard lock(shard_of(l).lock);
    return l.beside ? *share::of(l).in : l;
}

// --- When it has ended -----------------------------------------------------------------------------------------------

/// Has a lane that waits for its shares go on, if its next job may start now. If the caller must queue it, that job's
/// age. REQUIRES: both locks; the lane's group, or null.
std::optional<tick> pool_core::wake_for_shares_locked(shard& s, lane& l, share_group* group) noexcept {
    const job_slot* const front = group != nullptr && group->wanted ? l.front_locked() : nullptr;
    if (front == nullptr || !may_start_locked(l, *front))
        return std::nullopt;
    group->wanted = false;
    return wake_locked(s, l);
}

/// Frees the lane of a shared job that has ended, and has the key's lane go on if it waits for that. REQUIRES: the
/// shard's lock; ownership, and no head lock.
void pool_core::end_share_locked(shard& s, lane& beside) noexcept {
    share& ended = share::of(beside);
    lane& l = *ended.in;
    std::unique_ptr<share_group> last;
    std::optional<tick> ready;
    {
        const std::lock_guard lock(l.head_lock);
        share_group& group = *shares_of_locked(l);
        group.remove(ended);
        --s.shared;
        if (group.running == 0) {
            last.reset(&group);
            l.unlink_locked(group);
            if (l.state == lane_state::lingering && l.extras == nullptr)
                go_idle_locked(s, l);
        }
        ready = wake_for_shares_locked(s, l, &group);
        assert(!group.wanted || l.front_locked() == nullptr || group.running > 0); // I-SHARED-3
        tell_drainers_locked(s);
    }
    assert(!beside.has_job && beside.extras == &ended); // I-SHARED-4
    ended.~share();
    maker.free(&beside);
    if (ready)
        enqueue(l, *ready); // ours since it is active and in no queue
}

// --- Submitting ------------------------------------------------------------------------------------------------------

submit_result pool_core::submit_shared(const key_view& key, job_source& job, const job_options& how,
                                       const patience& wait) {
    const auto [s, hash] = place_of(key);
    const auto find = [&, &table = s.table, hash = hash]() -> lane& {
        lane& l = table.find_or_make_locked(key, hash);
        expect_special_locked(l);
        return l;
    };
    return submit(s, find, job, {as_shared(how.on_stop), how.priority}, wait);
}

submit_result pool_core::submit_shared(lane& l, job_source& job, const job_options& how, const patience& wait) {
    const auto find = [&]() -> lane& {
        expect_special_locked(l);
        return l;
    };
    return submit(shard_of(l), find, job, {as_shared(how.on_stop), how.priority}, wait);
}

} // namespace taskpool::detail
