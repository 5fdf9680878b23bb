// SPDX-License-Identifier: Apache-2.0
// The loop: find a lane, serve it, park. See lane.hpp for what a lane's owner may do, parking.hpp for why no lane is
// left lying.
#include "worker.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <mutex>
#include <utility>

#include "coroutine.hpp"
#include "pool_core.hpp"
#include "shared_job.hpp"
#include "together.hpp"

namespace taskpool::detail {

namespace {

thread_local running_job* current = nullptr;

constexpr unsigned jobs_between_looks = 32;               // how often a busy worker moves the clock and compares queues
constexpr int spins_before_parking = sync::scaled(64, 1); // some microseconds
constexpr int spins_between_looks = sync::scaled(64, 1);  // a dozen pushes take as long
constexpr int looks_before_idle = sync::scaled(4, 1);     // together some microseconds, too

/// The histogram's bucket for a duration; one below zero, of a clock that was read by two threads, counts as none.
std::size_t bucket_of(tick duration) noexcept {
    return older(duration, 0) ? 0 : std::min<std::size_t>(std::bit_width(duration), 23);
}

} // namespace

running_job* current_job() noexcept { return current; }
running_job* exchange_current_job(running_job* job) noexcept { return std::exchange(current, job); }
void forget_current_job() noexcept { current = nullptr; }

worker::worker(pool_core& owner, unsigned number) noexcept
    : core(owner), index(number), home(number % static_cast<unsigned>(owner.queues.size())),
      random_(0x9E3779B97F4A7C15U * (number + 1)) {}

void worker::main() noexcept {
    probe = platform::thread_probe::of_this_thread();
    while (lane* const l = find())
        serve(*l);
}

// --- Finding ---------------------------------------------------------------------------------------------------------

lane* worker::find() noexcept {
    for (;;) {
        if (searching_ || !core.workers_at.take_surplus()) {
            lane* l = take_any();
            if (l == nullptr && (searching_ || (searching_ = core.workers_at.begin_search())) && spin())
                l = take_any();
            if (std::exchange(searching_, false)) {
                core.workers_at.end_search();
                if (l != nullptr)
                    core.wake_if_ready(); // lanes whose pushers relied on this search
            }
            if (l != nullptr)
                return l;
        }
        if (!park())
            return nullptr;
    }
}

/// A few microseconds' wait for work, so that a steady stream of it costs no sleep. Whether some may have come.
bool worker::spin() const noexcept {
    for (int spins = 0; spins < spins_before_parking; ++spins) {
        if (spins % 16 == 0 && core.any_front()) // a look takes the queues' lines from those who push
            return true;
        sync::pause();
    }
    return false;
}

/// Sleeps until there may be work. False when the worker is to end.
bool worker::park() noexcept {
    // relaxed: the keeper may have marked the last job when it had just ended.
    if (blocked.load(std::memory_order_relaxed))
        core.unblock(*this);
    core.workers_at.park(*this, core.clock.now());
    // From here on pushers see this worker as parked; what they pushed before is looked for now (parking.hpp).
    const bool ends = core.workers_at.closed();
    if ((ends || (core.any_ready() && core.workers_at.working() < static_cast<int>(core.queues.size()))) &&
        core.workers_at.unpark_self(*this)) {
        if (!ends || core.any_ready()) {
            // Pushers of several lanes may have relied on the search that this worker has ended: it searches on.
            searching_ = core.workers_at.begin_search();
            return true;
        }
        core.workers_at.add_working(-1);
        return false;
    }
    searching_ = core.workers_at.sleep(*this);
    return !retired;
}

/// The oldest lane of the own queue, or of another one that is older by more than a tick or when the own one is empty.
lane* worker::take_any() noexcept {
    auto& queues = core.queues;
    const tick now = core.clock.now();
    const auto own_front = queues[home].front();
    bool own = own_front.has_value();
    while (queues.size() > 1 && (!own || now != looked_at_ || *own_front != age_seen_)) {
        looked_at_ = now;
        age_seen_ = own_front.value_or(now);
        // Of two queues of one age the own one wins, for its warm lanes.
        ready_queue* oldest = own ? &queues[home] : nullptr;
        tick age = own ? queues[home].front().value_or(now) - 1 : 0;
        for (auto& queue : queues) {
            const auto front = queue.front();
            if (front && (oldest == nullptr || older(*front, age))) {
                oldest = &queue;
                age = *front;
            }
        }
        if (oldest == nullptr)
            return nullptr;
        if (lane* const l = oldest->pop())
            return l;
        own = false; // somebody was quicker: look again
    }
    return queues[home].pop();
}

// --- Serving ---------------------------------------------------------------------------------------------------------

/// Runs jobs of a lane that this worker owns until it gives the lane up.
void worker::serve(lane& l) noexcept {
    job_slot job;
    std::uint64_t number = 0;
    bool ran = l.may_have_extras() && take_up(l, job);
    while (next(l, job, number, ran))
        ran = run_or_discard(l, job, number);
}

/// The same for one job, for a pool without threads: as if this worker were one too many, so that next() gives the lane
/// up.
bool worker::serve_once(lane& l, bool even_before_older) noexcept {
    job_slot job;
    std::uint64_t number = 0;
    bool ran = true;
    core.workers_at.set_surplus(0);
    if (!l.may_have_extras() || !take_up(l, job)) {
        if (even_before_older ? !next<false>(l, job, number, false) : !next(l, job, number, false))
            return std::exchange(ran_beside_, false);
        ran = run_or_discard(l, job, number);
    }
    if (!ran || end_job(l)) {
        core.workers_at.set_surplus(1); // not before the job has ended: that may drive the pool, too
        next(l, job, number, false);
    }
    return true;
}

/// Whether there is a job that has to be ended.
bool worker::run_or_discard(lane& l, job_slot& job, std::uint64_t number) noexcept {
    if (!core.is_stopping() || runs_in_stop(job.on_stop))
        return run(l, job, number);
    discard(l, job, number);
    return false;
}

/// Discards the lane's current job, for stop().
void worker::discard(lane& l, job_slot& job, std::uint64_t number) noexcept {
    if (is_joint(job.on_stop)) {
        const bool kills = place_in(job).kills = kill(place_in(job));
        discarded.add(kills ? 1 : 0);
        taken.add(kills ? 1 : 0);
        const std::lock_guard lock(l.head_lock);
        l.unlink_locked(place_in(job));
    } else {
        discarded.add();
    }
    running_job self{core, l, *this, number}; // so that no wait in a destructor waits for this lane
    current = &self;
    core.discard_job(l, job, discard_reason::stopped);
    current = nullptr;
    const std::lock_guard lock(l.head_lock);
    l.has_job = false;
}

/// The lane is empty, but has had several jobs since it was idle: waits for a moment for more while no other lane is
/// ready. So a lane into which somebody pushes steadily gathers some jobs, instead of going idle after each of them,
/// which costs both sides the shard's lock, a ready queue's and a wake-up. Whether some have come.
bool worker::more_comes(const lane& l) const noexcept {
    if (core.manual)
        return false;
    for (int looks = 0; looks < looks_before_idle; ++looks) {
        for (int spins = 0; spins < spins_between_looks; ++spins) {
            if (core.queues[home].front() || (spins % 16 == 0 && core.any_front()))
                return false;
            sync::pause();
        }
        if (l.waiting() > 0) // takes the line of `pushed` from the pusher
            return true;
    }
    return false;
}

/// Ends the lane's job if one `ran`, and takes the next under the same lock. False when there is none, the job is held,
/// or an older lane should go first: then the lane is this worker's no longer.
template <bool MakesWay>
bool worker::next(lane& l, job_slot& job, std::uint64_t& number, bool ran) noexcept {
    for (;;) {
        l.head_lock.lock();
        if (std::exchange(ran, false)) {
            if (l.extras != nullptr) [[unlikely]] {
                std::unique_lock lock(l.head_lock, std::adopt_lock);
                if (!core.end_job_with_extras(l, *this, lock))
                    return false;
                lock.release();
            } else {
                end_plain_job_locked(l);
            }
        }
        job_slot* const front = l.front_locked();
        if (front == nullptr) {
            l.head_lock.unlock();
            if (number > 1 && more_comes(l))
                continue;
            if (core.let_go(l))
                return false;
            continue;
        }
        const tick age = front->age;
        // What only holds its lane need not make way. Should it be the last by then, it runs before an older one, once.
        const auto only_holds = [&] {
            return is_joint(front->on_stop) && joint_in(*front).now_missing() > 1 && !core.workers_at.has_surplus();
        };
        if (MakesWay && should_yield(age) && !only_holds()) {
            const tick submitted = core.submitted(*front);
            const bool waited_for_itself = l.attends || core.workers_at.has_surplus();
            l.head_lock.unlock();
            if (waited_for_itself)
                core.enqueue(l, age);
            else
                core.enqueue(l, age, submitted);
            return false;
        }
        bool counts = true;
        if (l.attends) [[unlikely]] {
            l.head_lock.unlock();
            const turn whose = core.attend(l);
            if (whose == turn::unclear)
                continue;
            if (whose == turn::pinned) {
                tell_submitters(l, true, false);
                core.unpin(l);
            }
            if (whose != turn::own) {
                ran_beside_ |= whose >= turn::holds;
                return false;
            }
            job_slot& next = *l.front_locked();
            assert(is_shared(next.on_stop) || shares_of_locked(l) == nullptr || core.is_stopping()); // I-SHARED-2
            if (is_shared(next.on_stop) && serve_beside(l, job))
                return false;
            counts = !is_joint(next.on_stop) || place_in(next).runs;
        }
        number = l.take_locked(job);
        assert(!l.has_job); // I-LANE-2
        l.has_job = true;
        const bool lane_wanted = l.has_room_to_tell_locked(core.settings.lane_capacity);
        taken.add(counts ? 1 : 0); // under the lock: who looks into the lane afterwards finds its room, too (room_lock)
        l.head_lock.unlock();
        // relaxed: see tell_submitters.
        if (const bool pool_wanted = core.pool_room_wanted.load(std::memory_order_relaxed); lane_wanted || pool_wanted)
            tell_submitters(l, lane_wanted, pool_wanted);
        return true;
    }
}

/// Wakes those who wait for the room that was just made (room.hpp). A flag that is seen too late costs a tick: the
/// keeper looks, too.
void worker::tell_submitters(lane& l, bool lane_wanted, bool pool_wanted) noexcept {
    if (lane_wanted) {
        const auto room = core.settings.lane_capacity - std::min<std::size_t>(l.waiting(), core.settings.lane_capacity);
        if (core.waiting_room.wake(&l, room)) {
            const std::lock_guard lock(l.head_lock);
            l.room_wanted = true;
        }
    }
    if (pool_wanted) {
        const auto stride = std::clamp<std::uint64_t>(core.settings.pool_capacity / 4, 1, 256);
        if (++taken_since_wake_ >= stride && !core.waiting_room.wake(nullptr, std::exchange(taken_since_wake_, 0)))
            core.pool_room_wanted.store(false, std::memory_order_relaxed); // see above
    }
}

/// Ends the current job of the lane. False when it is held: then the lane is suspended and no longer this worker's.
bool worker::end_job(lane& l) noexcept {
    std::unique_lock lock(l.head_lock);
    if (l.extras != nullptr)
        return core.end_job_with_extras(l, *this, lock);
    end_plain_job_locked(l);
    return true;
}

void worker::end_plain_job_locked(lane& l) noexcept {
    l.has_job = false;
    // relaxed: under head_lock, like the write in cancel.
    if (l.cancelled.load(std::memory_order_relaxed))
        l.cancelled.store(false, std::memory_order_relaxed);
    finished.add();
}

/// Goes on with the lane's current job, if it has one: a coroutine that can go on, or one that has to be ended or
/// detached now that others hold it no longer. False when there is none.
bool worker::take_up(lane& l, job_slot& job) noexcept {
    std::uint64_t number = 0;
    {
        const std::lock_guard lock(l.head_lock);
        job_extras* const e = l.current_extras_locked();
        if (e == nullptr)
            return false;
        if (!std::exchange(e->resumes, false))
            return true;
        make_resumption(job, *e, core.clock.now());
        number = e->number;
    }
    run(l, job, number); // in time: it has begun, or is a coroutine
    return true;
}

/// Whether a lane with a next job of this age must make way (G4).
bool worker::should_yield(tick age) noexcept {
    auto& queues = core.queues;
    if (const auto front = queues[home].front(); front && older(*front, age))
        return true;
    if (core.workers_at.has_surplus())
        return true;
    // The other queues are looked at when there is something new to compare with: another age here, or another tick.
    if (age == age_seen_ && ++jobs_since_look_ < jobs_between_looks && core.clock.now() == looked_at_)
        return false;
    age_seen_ = age;
    jobs_since_look_ = 0;
    looked_at_ = core.clock.refresh();
    const bool yields = std::any_of(queues.begin(), queues.end(), [&](const ready_queue& queue) {
        const auto front = queue.front();
        return front && older(*front + 1, age);
    });
    if (yields)
        --looked_at_; // so that take_any looks at all queues, too
    return yields;
}

/// Runs the lane's current job, or a stretch of it. False when it came too late: then it is the current job no more.
bool worker::run(lane& l, job_slot& job, std::uint64_t number) noexcept {
    running_job self{core, l, *this, number};
    const tick start = core.clock.now();
    tick waited = start - job.age;
    if (job.priority != priority::normal) [[unlikely]] {
        (job.priority == priority::high ? high : low).add();
        waited = core.aged(start, job.priority) - job.age;
    }
    wait_times[bucket_of(waited)].add();
    // release pairs with the keeper's acquire: who sees the sequence change sees the counters above.
    job_sequence.store(job_sequence.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    current = &self;
    try {
        job.ops->run(job.storage, self);
    } catch (...) {
        fail(job, self);
    }
    if (!core.destroy_job(l, job))
        count_failure(self);
    current = nullptr;
    // relaxed: who looks at more than the sequence does so while it is odd, and has acquired it then.
    job_sequence.store(job_sequence.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    // relaxed: whoever set it did so for this job; a late sight is mended at the next job or by the keeper.
    if (blocked.load(std::memory_order_relaxed))
        core.unblock(*this);
    if (self.to_be_settled && settle(self)) [[unlikely]]
        return false;
    const tick end = core.clock.now();
    run_times[bucket_of(end - start)].add();
    if (--until_sample_ == 0)
        sample(self, end);
    return true;
}

/// Counts the job's keys among the hot ones, after a random number of jobs so that no pattern hides from it.
void worker::sample(const running_job& job, tick now) noexcept {
    random_ ^= random_ << 13; // xorshift64, Marsaglia 2003
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    until_sample_ = 1 + static_cast<std::uint32_t>(random_ % 63); // 32 on average
    core.count_hot(job, 32, now);
}

} // namespace taskpool::detail
