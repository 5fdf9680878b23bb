// SPDX-License-Identifier: Apache-2.0
// The keeper: one thread that looks after the pool once a tick while there is work, and sleeps when there is none.
//
// It moves the clock, notices blocked workers and puts others in their place, wakes submitters that have room, and
// sweeps idle keys. A worker is taken for blocked when its job has been running for more than a tick, the thread's
// processor time stood still meanwhile, and the system says that the thread sleeps (a thread that merely lost its
// processor does not use any either). One that waits for a page of memory, perhaps only for another thread to be done
// with the address space, is given more time: computing jobs do that, too. This is asked only while there are ready
// lanes that nobody takes. Then so many are added that as many work as are blocked in all, at least `threads`: so
// their number doubles each time while all block. When they return and more than `threads` work, the surplus is told to
// park, and after a second threads beyond `threads` end. Jobs that compute never add a worker.
//
// It fires timers, conducts barriers, tries again what found no room, and refuses new work while ready keys wait for
// too long.
//
// The keeper falls asleep when a few dozen ticks saw no job start, no ready lane, no waiting submitter and no timer,
// until the next timer is due. Who pushes a lane while it sleeps wakes it; why that is not missed is argued in
// parking.hpp.
#include <algorithm>
#include <cassert>
#include <chrono>
#include <mutex>
#include <system_error>

#include "barrier.hpp"
#include "pool_core.hpp"

namespace taskpool::detail {

namespace {

using namespace std::chrono_literals;

constexpr auto tick_length = 1ms;
constexpr auto doze_length = 1000ms; // between looks while idle keys or threads are still to be cleared away
constexpr unsigned ticks_until_doze = sync::scaled(50U, 2U);
constexpr unsigned ticks_until_doubt = 20; // between the doubts of jobs that wait for room
constexpr tick memory_patience = 50;       // ticks of waiting for a page: beyond that it comes from a disk, or slower
constexpr tick recheck_interval = 4;       // ticks between looks at whether blocked workers run again
constexpr tick thread_retirement = 1000;   // ticks that a thread beyond `threads` stays parked
constexpr tick sweep_interval = 8;         // ticks from shard to shard while there is work
constexpr std::size_t sweep_stride = 512;  // table places under one hold of a shard's lock

} // namespace

void pool_core::enter_blocking(worker& w) noexcept {
    if (w.blocking_depth++ > 0 ||
        w.blocked.exchange(true, std::memory_order_relaxed)) // relaxed: counts, see parking.hpp
        return;
    workers_at.add_blocked(1);
    workers_at.add_working(-1);
    // Lanes whose pushers found enough workers at work are looked for now (parking.hpp).
    if (!any_ready())
        return;
    if (workers_at.wants_waking())
        workers_at.unpark_one();
    else
        poke_keeper();
}

void pool_core::leave_blocking(worker& w) noexcept {
    if (--w.blocking_depth == 0)
        unblock(w);
}

void pool_core::unblock(worker& w) noexcept {
    // relaxed: whoever turns it back owns the change of the counts.
    if (!w.blocked.exchange(false, std::memory_order_relaxed))
        return;
    workers_at.add_blocked(-1);
    workers_at.add_working(1);
    if (clock.asleep() && workers_at.working() > static_cast<int>(settings.threads))
        poke_keeper();
}

void pool_core::keep(void* self) noexcept {
    auto& core = *static_cast<pool_core*>(self);
    core.be_keeper_here();
    core.clock.set_asleep(false);
    // relaxed: set before the event is signalled, whose lock orders it.
    while (!core.keeper_ends_.load(std::memory_order_relaxed)) {
        core.clock.refresh();
        if (core.keeper_tick()) {
            core.quiet_ticks_ = 0;
            core.clock.set_asleep(false);
        } else if (++core.quiet_ticks_ >= ticks_until_doze) {
            if (core.doze())
                core.quiet_ticks_ = 0;
            continue;
        }
        core.keeper_woken_.wait_until(std::chrono::steady_clock::now() + tick_length);
    }
}

/// One look at everything. Whether there was anything that needs the next look in a tick.
bool pool_core::keeper_tick() noexcept {
    std::size_t ready = 0;
    bool stuck = false;
    if (std::lock_guard lock(workers_mutex_); threads_running_ == 0)
        return true; // start() is still at it
    const bool due = do_what_is_due();
    const auto time_now = std::chrono::steady_clock::now();
    const bool in_a_tick = time_now - ticked_ >= tick_length; // else it was poked
    if (in_a_tick)
        ticked_ = time_now;
    for (std::size_t i = 0; i < queues.size(); ++i) {
        const auto state = queues[i].state();
        ready += state.lanes;
        if (in_a_tick) {
            stuck |= state.lanes > 0 && state.pops == pops_seen_[i];
            pops_seen_[i] = state.pops;
        }
    }
    const int limit = static_cast<int>(settings.threads);
    const unsigned found = stuck ? find_blocked() : 0;
    if (found > 0) {
        workers_at.set_surplus(0);
        const int enough = std::max(limit, workers_at.blocked());
        const auto missing = static_cast<std::size_t>(std::max(0, enough - workers_at.working()));
        add_workers(std::min(ready, missing), settings.max_threads);
    } else if (const int working = workers_at.working(); ready > 0 && working < limit) {
        // One that was parked just now may have come back by itself: no thread is started in its place.
        const auto threads = static_cast<std::size_t>(limit + std::max(0, workers_at.blocked()));
        add_workers(std::min<std::size_t>(ready, static_cast<std::size_t>(limit - working)), threads);
    } else {
        workers_at.set_surplus(std::max(0, working - limit));
    }

    if (settings.max_wait)
        watch_load();
    const bool submitters = !waiting_room.is_empty();
    const auto taken = taken_by_workers();
    const bool moved = std::exchange(taken_seen_, taken) != taken;
    if (submitters && is_overloaded()) {
        waiting_room.wake_all(); // to be refused
    } else if (submitters) {
        waiting_room.wake_where_room(static_cast<std::uint32_t>(settings.lane_capacity), gate.free(shards, taken));
        // A push from outside may have filled the room that a job was about to be told of, behind that very job: now
        // and then the jobs ask again whether their wait can end (wait_graph.hpp).
        if (in_a_tick && ++submitter_ticks_ % ticks_until_doubt == 0)
            waiting_room.wake_jobs();
    }
    const tick now = clock.now();
    if (workers_at.blocked() > 0 && now - rechecked_ >= recheck_interval) {
        rechecked_ = now;
        recheck_blocked();
    }
    if (now - swept_ >= sweep_interval) {
        swept_ = now;
        sweep(std::max<std::size_t>(1, shards.size() / 64));
        retire_workers();
    }
    return ready > 0 || submitters || moved || due || is_overloaded() || workers_at.working() > limit;
}

/// Fires timers, and tries again what found no room. Whether there was a timer, or something has to be tried once more.
bool pool_core::do_what_is_due() noexcept {
    const bool fired = time.fire_due(*this) > 0;
    const bool due = deliver_due();
    const bool delivering = retry_deliveries();
    retry_resumptions();
    barrier->conduct();
    doubt_joint_jobs();
    return fired || due || delivering;
}

/// Marks workers that have come to be blocked; how many.
unsigned pool_core::find_blocked() noexcept {
    unsigned found = 0;
    const std::lock_guard lock(workers_mutex_);
    for (const auto& w : workers_) {
        // acquire pairs with the release in worker::run: the thread's probe and figures are there.
        const auto sequence = w->job_sequence.load(std::memory_order_acquire);
        // relaxed: see enter_blocking.
        if (sequence % 2 == 0 || w->blocked.load(std::memory_order_relaxed))
            continue;
        const auto cpu_time = w->probe.cpu_time();
        if (!cpu_time)
            continue; // only blocking_scope tells here
        const bool stood_still = w->sequence_seen == sequence && w->cpu_time_seen == *cpu_time;
        w->sequence_seen = sequence;
        w->cpu_time_seen = *cpu_time;
        if (!stood_still) {
            w->still_since = clock.now();
            w->marked = false; // that was of another job, or of a wait that is over
            continue;
        }
        using sleep = platform::thread_probe::sleep;
        const auto asleep = w->probe.asleep();
        // relaxed: a hint; whether the mark is right is asked once more after it is set.
        if (asleep == sleep::no || (asleep == sleep::for_memory && clock.now() - w->still_since < memory_patience) ||
            w->job_sequence.load(std::memory_order_relaxed) != sequence)
            continue;
        if (!w->blocked.exchange(true, std::memory_order_relaxed)) { // relaxed: see enter_blocking
            workers_at.add_blocked(1);
            workers_at.add_working(-1);
            w->marked = true;
            ++found;
            // If the job ended just now, its worker may not have seen the mark.
            if (w->job_sequence.load(std::memory_order_relaxed) != sequence)
                unblock(*w);
        }
    }
    return found;
}

/// Takes the mark from workers whose job uses its processor again.
void pool_core::recheck_blocked() noexcept {
    const std::lock_guard lock(workers_mutex_);
    for (const auto& w : workers_) {
        // relaxed: see enter_blocking. What blocking_scope says, it takes back itself.
        w->marked = w->marked && w->blocked.load(std::memory_order_relaxed) &&
                    w->job_sequence.load(std::memory_order_relaxed) == w->sequence_seen;
        if (!w->marked || w->probe.cpu_time() == w->cpu_time_seen)
            continue;
        w->marked = false;
        unblock(*w);
    }
}

/// Unparks so many workers, and starts threads for those that are missing, up to `most_threads` in all.
void pool_core::add_workers(std::size_t count, std::size_t most_threads) noexcept {
    count -= workers_at.unpark(count);
    const std::lock_guard lock(workers_mutex_);
    try {
        for (; count > 0 && threads_running_ < std::min<std::size_t>(most_threads, settings.max_threads); --count)
            add_worker_locked();
    } catch (const std::exception&) {
        threads_refused_.fetch_add(1, std::memory_order_relaxed); // a figure by itself
    }
}

/// Starts one thread, which counts as working. Throws std::system_error, std::bad_alloc. REQUIRES: workers_mutex_.
void pool_core::add_worker_locked() {
    auto at = std::find_if(workers_.begin(), workers_.end(), [](const auto& w) { return !w->thread.joinable(); });
    if (at == workers_.end())
        at = workers_.insert(at, std::make_unique<worker>(*this, static_cast<unsigned>(workers_.size())));
    worker& w = **at;
    w.retired = false;
    w.thread =
        platform::start_thread([](void* self) { static_cast<worker*>(self)->main(); }, &w, settings.name, w.index);
    workers_at.add_working(1);
    ++threads_running_;
}

void pool_core::retire_workers() noexcept {
    for (;;) {
        std::thread leaving;
        {
            const std::lock_guard lock(workers_mutex_);
            if (threads_running_ <= settings.threads)
                return;
            worker* const w = workers_at.retire_one(clock.now() - thread_retirement);
            if (w == nullptr)
                return;
            leaving = std::move(w->thread);
            --threads_running_;
        }
        leaving.join(); // with no lock held: destructors of users' thread_local objects run now
    }
}

/// Sweeps so many shards, going round. Whether every lane of theirs is gone.
bool pool_core::sweep(std::size_t shards_to_do) noexcept {
    bool empty = true;
    for (; shards_to_do > 0; --shards_to_do) {
        shard& s = shards[sweep_shard_];
        sweep_shard_ = (sweep_shard_ + 1) & (shards.size() - 1);
        {
            const std::lock_guard lock(s.lock);
            s.timed_jobs.shrink();
            s.rates.shrink();
            s.spare_joints.shrink();
        }
        for (bool more = true; more;) {
            const std::lock_guard lock(s.lock);
            more = !s.frozen && s.table.sweep_locked(sweep_stride) > 0;
            empty &= s.table.size_locked() == 0;
        }
    }
    return empty;
}

/// Sleeps until poked, after a last look; whether it was poked. With something left to clear away, only for a while.
bool pool_core::doze() noexcept {
    clock.set_asleep(true);
    // Pushers poke from here on; what was pushed before is looked for now (parking.hpp).
    bool woken = any_ready() || !waiting_room.is_empty() || retry_deliveries() ||
                 resumptions_wait_.load(std::memory_order_relaxed); // see resume_locked
    if (!woken) {
        assert(!is_overloaded()); // I-OVERLOAD-1, I-OVERLOAD-2
        const bool clear = sweep(shards.size());
        retire_workers();
        bool all_retired = false;
        {
            const std::lock_guard lock(workers_mutex_);
            all_retired = threads_running_ <= settings.threads;
        }
        // Timers are looked at last: who adds an earlier one from here on pokes (timers.hpp).
        auto until = time.begin_sleep();
        if (time.is_manual()) // whoever moves that clock pokes
            until.reset();
        // With jobs of several keys there may be coroutines that one of them stops.
        if (!clear || !all_retired || has_barriers() || has_joint_jobs())
            until = std::min(until.value_or(std::chrono::steady_clock::time_point::max()),
                             std::chrono::steady_clock::now() + doze_length);
        if (until) {
            woken = keeper_woken_.wait_until(*until);
        } else {
            keeper_woken_.wait();
            woken = true;
        }
        time.end_sleep();
    }
    if (woken)
        clock.set_asleep(false);
    return woken;
}

} // namespace taskpool::detail
