// SPDX-License-Identifier: Apache-2.0
// The life of a pool: start, close, stop. And handles, which outlive it.
#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdio>
#include <mutex>
#include <stdexcept>

#include <taskpool/detail/posting.hpp>

#include "barrier.hpp"
#include "fork.hpp"
#include "manual.hpp"
#include "pool_core.hpp"
#include "wait_graph.hpp"

namespace taskpool::detail {

namespace {

constexpr tick manual_ageing = 1U << 14; // more than all that its clock, which numbers what comes, is likely to tell

thread_local const pool_core* stopping_here = nullptr; // whose jobs this thread discards
thread_local const pool_core* kept_here = nullptr;     // whose keeper this thread is

std::size_t shards_for(unsigned threads) {
    return sync::scaled(std::clamp<std::size_t>(std::bit_ceil(threads * 16U), 64, 1024),
                        std::size_t{std::bit_ceil(threads)});
}

} // namespace

// --- Construction and destruction ------------------------------------------------------------------------------------

pool_core::pool_core(options given, const key_type& keys, std::shared_ptr<const void> functions,
                     const manual_mode* mode)
    : settings(checked(std::move(given))),
      ageing(mode != nullptr && settings.ageing.count() > 0 ? manual_ageing
                                                            : static_cast<tick>(settings.ageing.count())),
      maker(keys, std::move(functions)), shards(shards_for(settings.threads)),
      manual(mode != nullptr ? std::make_unique<manual_driver>(*this) : nullptr), queues(settings.threads),
      time(settings.clock), workers_at(settings.threads, settings.max_threads),
      gate(settings.pool_capacity, mode != nullptr && settings.max_wait ? 1 : 1024), hottest(maker),
      barrier(std::make_unique<barrier_line>(*this)), pops_seen_(settings.threads) {
    for (std::size_t i = 0; i < shards.size(); ++i)
        shards[i].table.use(maker, static_cast<std::uint16_t>(i), shards.size());
    if (mode != nullptr)
        clock.use_stamps(mode->seed);
    if (settings.rate)
        limit_all(settings.rate);
    pool_registry::add(this);
    if (settings.clock)
        settings.clock->tell(this, [](void* self) noexcept { static_cast<pool_core*>(self)->poke_keeper(); });
}

pool_core::~pool_core() {
    if (settings.clock)
        settings.clock->forget(this);
    pool_registry::remove(this);
}

std::shared_ptr<pool_core> make_core(options settings, const key_type& keys, std::shared_ptr<const void> functions) {
    auto core = std::make_shared<pool_core>(std::move(settings), keys, std::move(functions));
    if (core->settings.autostart)
        core->start();
    return core;
}

void pool_core::destroy() noexcept {
    if (is_forked()) {
        self_ = shared_from_this(); // its memory is left be: another thread may have been changing it
        return;
    }
    const running_job* const job = current_job();
    if ((job == nullptr || &job->core != this) && kept_here != this && !(manual && manual->is_settling())) {
        try {
            stop();
        } catch (const std::exception& error) {
            // Only starting threads for jobs that must run can fail: then there is nobody to run them.
            std::fprintf(stderr, "taskpool: a pool could not be stopped: %s\n", error.what());
            self_ = shared_from_this();
        }
        return;
    }
    // One of the pool's own threads destroys it: somebody else waits for the end of what it does.
    {
        const std::lock_guard lock(lifecycle_);
        begin_stop();
    }
    self_ = shared_from_this(); // kept for ever if not even one thread can be had
    if (manual)
        return; // the driver ends the pool after that job
    try {
        platform::start_thread(
            [](void* core) {
                const auto last = std::move(static_cast<pool_core*>(core)->self_);
                last->stop();
            },
            this, settings.name, 0)
            .detach();
    } catch (const std::exception&) { // NOLINT(bugprone-empty-catch): see above
    }
}

void pool_core::start() {
    if (is_stopping())
        return;
    std::unique_lock lock(lifecycle_, std::defer_lock);
    // Not simply locked: a stop() that has it may wait for the job that calls this.
    while (!is_forked() && !lock.try_lock()) {
        if (is_stopping())
            return;
        sync::yield();
    }
    if (!is_forked() && !started_ && !is_stopping())
        start_locked();
}

void pool_core::start_locked() {
    if (manual) {
        started_ = true;
        return;
    }
    keeper_ends_.store(false, std::memory_order_relaxed); // read by a thread that does not run yet
    keeper_ = platform::start_thread(keep, this, settings.name, settings.max_threads);
    std::unique_lock lock(workers_mutex_); // the keeper's first look at the workers comes after this
    try {
        while (threads_running_ < settings.threads)
            add_worker_locked();
    } catch (const std::exception&) {
        threads_refused_.fetch_add(1, std::memory_order_relaxed); // a figure by itself
        if (threads_running_ == 0) {
            lock.unlock();
            keeper_ends_.store(true, std::memory_order_relaxed); // ordered by the event's lock
            poke_keeper();
            keeper_.join();
            clock.set_asleep(true);
            throw;
        }
        // It works with what it has; the keeper goes on trying.
    }
    started_ = true;
}

// --- Closing and stopping --------------------------------------------------------------------------------------------

void pool_core::close() noexcept {
    if (is_forked())
        return;
    for (auto& s : shards) {
        const std::lock_guard lock(s.lock);
        s.closed = true;
    }
    waiting_room.wake_all();
}

/// Everything of stop() that does not wait. REQUIRES: lifecycle_.
void pool_core::begin_stop() noexcept {
    if (is_stopping())
        return;
    close();
    // Only now, so that who sees it finds every shard closed. relaxed: who found one open had its lock before close()
    // did, so that look happened before this store. What must not be missed goes through the shards' locks below.
    stopping.store(true, std::memory_order_relaxed);
    for (auto& s : shards) {
        s.lock.lock();
        s.frozen = true;
        tell_drainers_locked(s);
        auto changes = s.table.changes_locked();
        for (std::size_t i = 0; i < s.table.places_locked().size(); ++i) {
            lane* const l = s.table.places_locked()[i];
            if (l == nullptr || (l->state == lane_state::idle && !l->paused))
                continue;
            begin_stop_locked(s, *l);
            // A new handle may have moved lanes about; to meet one of them twice does no harm.
            if (std::exchange(changes, s.table.changes_locked()) != changes)
                i = static_cast<std::size_t>(-1);
        }
        s.lock.unlock();
        discard_all_timed(s);
    }
    {
        shard& s = shards.front();
        const std::lock_guard lock(s.lock);
        begin_stop_locked(s, barrier->own);
    }
    time.bring_forward(); // jobs that must run
    poke_keeper();
    retry_deliveries(); // they are refused now
}

/// The same for one lane. REQUIRES: the shard's lock, which is released meanwhile.
void pool_core::begin_stop_locked(shard& s, lane& l) noexcept {
    cut_jobs cut;
    bool ready = false;
    {
        const std::lock_guard lock(l.head_lock);
        if (l.state != lane_state::idle && !l.has_must_run) // else the lane's workers tell the jobs apart
            cut = cut_waiting_locked(s, l);
        unpause_locked(s, l);
        ready = wake_locked(s, l).has_value(); // tokens are wanted no longer
        ready |= ask_to_stop_locked(s, l);
    }
    ++l.pins;
    s.lock.unlock();
    if (ready)
        enqueue(l, clock.now());
    discarded_by_stop_.fetch_add(cut.count - cut.uncounted,
                                 std::memory_order_relaxed); // a figure, read after the join
    request_stops(l);
    discard_all(l, cut, discard_reason::stopped);
    s.lock.lock();
    --l.pins;
}

/// Throws where a job that is discarded, or a handler, would wait for who discards it.
void pool_core::refuse_where_it_discards(const char* wait) const {
    if (stopping_here == this)
        throw deadlock_error(std::string(wait) + " inside a stop(), by a job that it discards or a handler", {});
    if (kept_here == this)
        throw deadlock_error(std::string(wait) + " by a timed job that is discarded, or a handler that is told", {});
}

void pool_core::be_keeper_here() const noexcept { kept_here = this; }

stop_report pool_core::stop() {
    if (is_forked())
        return {};
    if (const running_job* const job = current_job(); job != nullptr && &job->core == this)
        throw deadlock_error("stop() inside a job waits for the job itself, of key \"" + describe(job->in) + "\"",
                             {describe(job->in)});
    refuse_where_it_discards("stop()");
    const job_wait waits(current_job(), {.for_pool = this}, false);
    const manual_driver::stop_scope once(manual.get());
    const std::lock_guard lock(lifecycle_);
    if (ended_)
        return report_;
    const auto* const outer = std::exchange(stopping_here, this);
    begin_stop();
    stopping_here = outer;
    if (!started_ && (active_keys() > 0 || barriers() > 0 || timed_jobs() > 0))
        start_locked(); // jobs that must run
    if (started_) {
        wait_until_drained({patience::for_ever});
        workers_at.close();
        keeper_ends_.store(true, std::memory_order_relaxed); // ordered by the event's lock
        poke_keeper();
        if (keeper_.joinable()) // not where there are no threads
            keeper_.join();
        for (;;) {
            std::unique_lock workers_lock(workers_mutex_);
            const auto at =
                std::find_if(workers_.begin(), workers_.end(), [](auto& w) { return w->thread.joinable(); });
            if (at == workers_.end())
                break;
            std::thread leaving = std::move((*at)->thread);
            --threads_running_;
            workers_lock.unlock();
            leaving.join(); // see retire_workers
        }
        assert(workers_at.working() == 0 && workers_at.blocked() == 0 && workers_at.parked() == 0); // I-PARK-2
    }
    stopping_here = this;
    tell_companions();
    stopping_here = outer;
    const auto now = stats();
    // relaxed: all who count have ended, or did so under a shard's lock.
    report_ = {now.finished, now.discarded, discarded_by_stop_.load(std::memory_order_relaxed)};
    for (const auto& w : workers_)
        report_.discarded_by_stop += w->discarded.get();
    ended_ = true;
    return report_;
}

// --- Handles ---------------------------------------------------------------------------------------------------------

lane* pool_core::acquire_lane(const key_view& key) {
    if (is_forked())
        throw std::logic_error("taskpool: a pool does not survive fork()");
    const auto [s, hash] = place_of(key);
    const std::lock_guard lock(s.lock);
    lane& l = s.table.find_or_make_locked(key, hash);
    ++l.pins;
    return &l;
}

void pool_core::share_lane(lane& l) noexcept {
    if (is_forked())
        return;
    const std::lock_guard lock(shard_of(l).lock);
    ++l.pins;
}

void pool_core::unpin(lane& l) noexcept {
    if (is_forked())
        return;
    bool wakes_keeper = false;
    {
        const std::lock_guard lock(shard_of(l).lock);
        wakes_keeper = unpin_locked(l);
    }
    if (wakes_keeper)
        poke_keeper();
}

/// Whether the lane is to be swept, and the keeper must be woken for that, under no lock. REQUIRES: the shard's lock.
bool pool_core::unpin_locked(lane& l) const noexcept {
    return --l.pins == 0 && l.state == lane_state::idle && clock.asleep();
}

} // namespace taskpool::detail
