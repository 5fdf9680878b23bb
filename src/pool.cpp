// SPDX-License-Identifier: Apache-2.0
// The life of a pool: start, close, drain, cancel, stop; lanes going idle and suspended.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <mutex>
#include <stdexcept>

#include <taskpool/detail/posting.hpp>

#include "coroutine.hpp"
#include "fork.hpp"
#include "manual.hpp"
#include "pool_core.hpp"
#include "wait_graph.hpp"

namespace taskpool::detail {

namespace {

options checked(options settings) {
    const auto refuse = [](const char* why) { throw std::invalid_argument(std::string("taskpool::options: ") + why); };
    constexpr unsigned most_threads = 1U << 16;
    if (settings.threads == 0)
        settings.threads = platform::available_processors();
    if (settings.max_threads == 0)
        settings.max_threads = std::max(1024U, settings.threads);
    if (settings.threads > most_threads || settings.max_threads > most_threads)
        refuse("more than 65,536 threads");
    if (settings.max_threads < settings.threads)
        refuse("max_threads is less than threads");
    if (settings.lane_capacity < 1 || settings.lane_capacity > 1'000'000'000)
        refuse("lane_capacity is not from 1 to 1,000,000,000");
    if (settings.pool_capacity < 1)
        refuse("pool_capacity is 0");
    if (settings.when_full > overflow::keep_latest)
        refuse("when_full is not one of its values");
    return settings;
}

thread_local const pool_core* stopping_here = nullptr; // whose jobs this thread discards
thread_local const pool_core* kept_here = nullptr;     // whose keeper this thread is

std::size_t shards_for(unsigned threads) { return std::clamp<std::size_t>(std::bit_ceil(threads * 16U), 64, 1024); }

} // namespace

// --- Construction and destruction
// --------------------------------------------------------------------------------------

pool_core::pool_core(options given, const key_type& keys, std::shared_ptr<const void> functions,
                     const manual_mode* mode)
    : settings(checked(std::move(given))), maker(keys, std::move(functions)), shards(shards_for(settings.threads)),
      manual(mode != nullptr ? std::make_unique<manual_driver>(*this) : nullptr), queues(settings.threads),
      time(settings.clock), workers_at(settings.threads, settings.max_threads), gate(settings.pool_capacity),
      hottest(maker), queues_seen_(settings.threads) {
    for (auto& s : shards)
        s.table.use(maker);
    if (mode != nullptr)
        clock.use_stamps(mode->seed);
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
        std::this_thread::yield();
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

// --- Closing and stopping
// ----------------------------------------------------------------------------------------------

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
    // relaxed: a request; what must not be missed goes through the shards' locks below.
    if (stopping.exchange(true, std::memory_order_relaxed))
        return;
    close();
    for (auto& s : shards) {
        s.lock.lock();
        s.frozen = true;
        tell_drainers_locked(s);
        auto changes = s.table.changes_locked();
        for (std::size_t i = 0; i < s.table.places_locked().size(); ++i) {
            lane* const l = s.table.places_locked()[i];
            if (l == nullptr || l->state == lane_state::idle)
                continue;
            cut_jobs cut;
            bool ready = false;
            {
                const std::lock_guard lock(l->head_lock);
                if (!l->has_must_run) // else the lane's workers tell the jobs apart
                    cut = cut_waiting_locked(s, *l);
                ready = ask_to_stop_locked(s, *l);
            }
            ++l->pins;
            s.lock.unlock();
            if (ready)
                enqueue(*l, clock.now());
            discarded_by_stop_.fetch_add(cut.count, std::memory_order_relaxed); // a figure, read after the join
            request_stops(*l);
            discard_all(*l, cut, discard_reason::stopped);
            s.lock.lock();
            --l->pins;
            // A new handle may have moved lanes about; to meet one of them twice does no harm.
            if (std::exchange(changes, s.table.changes_locked()) != changes)
                i = static_cast<std::size_t>(-1);
        }
        s.lock.unlock();
        discard_all_timed(s);
    }
    time.bring_forward(); // jobs that must run
    poke_keeper();
    try_deliveries(); // they are refused now
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
    if (!started_ && (active_keys() > 0 || timed_jobs() > 0))
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
    }
    stopping_here = this;
    tell_companions();
    stopping_here = outer;
    const auto now = stats();
    report_ = {now.finished, now.discarded, discarded_by_stop_.load(std::memory_order_relaxed)};
    for (const auto& w : workers_)
        report_.discarded_by_stop += w->discarded.get();
    ended_ = true;
    return report_;
}

std::size_t pool_core::cancel(const key_view& key) {
    if (is_forked())
        return 0;
    const auto [s, hash] = place_of(key);
    const auto timed = cancel_timed(s, key, hash);
    lane* l = nullptr;
    cut_jobs cut;
    bool ready = false;
    {
        const std::lock_guard shard_lock(s.lock);
        l = s.table.find_locked(key, hash);
        if (l == nullptr || l->state == lane_state::idle)
            return timed;
        ++l->pins;
        const std::lock_guard lock(l->head_lock);
        cut = cut_waiting_locked(s, *l);
        if (l->has_job)
            l->cancelled.store(true, std::memory_order_relaxed); // a request; see lane::end_job_locked for its end
        ready = ask_to_stop_locked(s, *l);
    }
    if (ready)
        enqueue(*l, clock.now());
    const std::size_t count = cut.count - cut.resumptions;
    request_stops(*l);
    waiting_room.wake(l, count);
    waiting_room.wake(nullptr, count);
    discard_all(*l, cut, discard_reason::cancelled);
    unpin(*l);
    return timed + count;
}

void pool_core::discard_all(lane& l, cut_jobs& cut, discard_reason why) noexcept {
    job_slot job;
    while (cut.next(job)) {
        if (job.on_stop == resumption)
            resume(**std::launder(reinterpret_cast<coroutine_job**>(job.storage))); // it has begun: it goes on
        else
            discard_job(l, job, why);
    }
}

/// Tells a lane's jobs that they are asked to stop, and ends the sleep of its coroutines. Whether the caller must queue
/// the lane. REQUIRES: both locks.
bool pool_core::ask_to_stop_locked(shard& s, lane& l) noexcept {
    bool ready = false;
    for (job_extras* e = l.extras; e != nullptr; e = e->next) {
        e->cancelled.store(true, std::memory_order_relaxed); // a request; the timers' lock orders it for who sleeps
        if (e->sleeps != nullptr && time.remove(*e->sleeps))
            ready |= resume_locked(s, l, *e);
    }
    return ready;
}

/// Makes the stop tokens of a lane's jobs tell of it. REQUIRES: no lock held; the lane is pinned; asked to stop.
void pool_core::request_stops(lane& l) noexcept {
    for (;;) {
        std::stop_source stop{std::nostopstate};
        {
            const std::lock_guard lock(l.head_lock);
            for (const job_extras* e = l.extras; e != nullptr && !stop.stop_possible(); e = e->next)
                // relaxed: written under both locks.
                if (e->stop.stop_possible() && !e->stop.stop_requested() &&
                    (is_stopping() || e->cancelled.load(std::memory_order_relaxed)))
                    stop = e->stop;
        }
        if (!stop.stop_possible())
            return;
        stop.request_stop();
    }
}

// --- Idle and suspended lanes
// ------------------------------------------------------------------------------------------

bool pool_core::any_ready() const noexcept {
    return std::any_of(queues.begin(), queues.end(), [](const ready_queue& queue) { return !queue.is_empty(); });
}

void pool_core::wake_if_ready() noexcept {
    if (any_ready() && workers_at.wants_waking()) // in this order, see parking.hpp
        workers_at.unpark_one();
}

bool pool_core::let_go(lane& l) noexcept {
    shard& s = shard_of(l);
    const std::lock_guard lock(s.lock);
    // relaxed: `pushed` under the shard's lock, `taken` as the owner.
    if (l.pushed.load(std::memory_order_relaxed) != static_cast<std::uint32_t>(l.taken.load(std::memory_order_relaxed)))
        return false;
    l.left_behind = false;
    if (l.state == lane_state::active) // else it went idle when its jobs were cut out
        go_idle_locked(s, l);
    return true;
}

/// Cuts all waiting jobs out, to be destroyed under no lock. A lane without a current job goes idle at once, though it
/// still lies in a queue or in a worker's hands. REQUIRES: the shard's lock and the lane's; the lane is not idle.
cut_jobs pool_core::cut_waiting_locked(shard& s, lane& l) noexcept {
    const cut_jobs cut = l.cut_locked();
    const auto discarded = cut.count - cut.resumptions;
    s.discarded += discarded;
    s.budget += discarded;
    if (!l.has_job && l.state == lane_state::active) {
        l.left_behind = true;
        go_idle_locked(s, l);
    }
    return cut;
}

/// The lane's last job is gone. REQUIRES: the shard's lock; no jobs; ownership, or the lane's lock, too.
void pool_core::go_idle_locked(shard& s, lane& l) noexcept {
    l.rewind_locked();
    if (l.extras != nullptr) {
        l.state = lane_state::lingering; // its detached coroutines go on from here (resume)
        return;
    }
    l.state = lane_state::idle;
    --s.active;
    tell_drainers_locked(s);
}

/// Some key, or the last one of the shard, has no work any more. REQUIRES: the shard's lock.
void pool_core::tell_drainers_locked(shard& s) noexcept {
    if (!s.idle_wanted && (!s.drained_wanted || s.is_busy_locked()))
        return;
    s.idle_wanted = s.drained_wanted = false;
    tell_drainers();
}

void pool_core::tell_drainers() noexcept {
    const std::lock_guard lock(quiet_);
    ++quiet_epoch_;
    quiet_changed_.notify_all();
}

void pool_core::release_hold(job_extras& e) noexcept {
    if (is_forked())
        return;
    // Once the lane is queued or idle, a stop that waited for this hold may come to its end.
    const auto alive = shared_from_this();
    lane& l = *e.in;
    shard& s = shard_of(l);
    job_extras* ended = nullptr;
    tick age = 0;
    bool ready = false;
    {
        const std::lock_guard shard_lock(s.lock);
        const std::lock_guard lock(l.head_lock);
        --e.holds;
        if (l.state != lane_state::suspended || (e.holds > 0 && !can_detach(e)))
            return; // the job has not returned, or others hold it
        --s.suspended;
        if (e.sleeps != nullptr) {
            age = clock.now();
            ready = true; // a coroutine: a worker ends it, or detaches it (worker::take_up)
        } else {
            ended = l.end_job_locked();
            ++s.finished_held;
            if (const job_slot* const front = l.front_locked()) {
                age = front->submitted;
                ready = true;
            }
        }
        if (ready)
            l.state = lane_state::active;
        else
            go_idle_locked(s, l);
    }
    if (ended != nullptr)
        ended->end(*ended);
    if (ready)
        enqueue(l, age); // ours since it is active and in no queue
}

bool pool_core::end_job_with_extras(lane& l, worker& by) noexcept {
    shard& s = shard_of(l);
    job_extras* ended = nullptr;
    bool was_recorded = false;
    bool requeue = false;
    {
        const std::lock_guard shard_lock(s.lock);
        const std::lock_guard lock(l.head_lock);
        job_extras* const e = l.current_extras_locked();
        if (e == nullptr || e->holds == 0) {
            ended = l.end_job_locked();
            by.finished.add();
        } else if (can_detach(*e)) {
            e->detached = true;
            l.has_job = false;
            l.cancelled.store(false, std::memory_order_relaxed); // under head_lock
            by.taken.add(-1ULL);                                 // it waits again, in the pool's room (gate.hpp)
            was_recorded = static_cast<coroutine_job*>(e)->wait_recorded;
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
    if (was_recorded)
        wait_graph::instance().leave(l); // it held the key when the wait began (I-GRAPH-1)
    if (requeue)
        enqueue(l, clock.now());
    return !requeue;
}

/// Whether the current job lets others of its key run. REQUIRES: the lane's lock; its stretch has ended.
bool pool_core::can_detach(const job_extras& e) noexcept {
    return e.interleaves && e.holds == 1 && !static_cast<const coroutine_job&>(e).done;
}

/// A coroutine of the lane can go on. Whether the caller must queue the lane. REQUIRES: both locks; nobody else resumes
/// it.
bool pool_core::resume_locked(shard& s, lane& l, job_extras& e) noexcept {
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
        l.push_locked(from, clock.now(), resumption);
    } catch (...) {
        // relaxed: the keeper tries again at a tick, or when it is poked, which orders it.
        resumptions_wait_.store(true, std::memory_order_relaxed);
        if (clock.asleep())
            poke_keeper();
        return false;
    }
    e.resumes = false;
    if (l.state != lane_state::lingering)
        return false;
    l.state = lane_state::active;
    return !l.left_behind;
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

// --- Deliveries
// -------------------------------------------------------------------------------------------------------

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

/// Tries all deliveries again, in order; whether some are left. Now and then it is asked whether there can be room for
/// them at all: not if all jobs that would have to make it wait, one of them for such a delivery (G9).
bool pool_core::retry_deliveries() noexcept {
    bool left = try_deliveries();
    if (!left)
        delivery_tries_ = 0;
    else if ((manual || delivery_tries_++ % ticks_until_doubt == 0) && wait_graph::instance().refuse_delivery(*this))
        left = try_deliveries(); // that one ends
    return left;
}

bool pool_core::try_deliveries() noexcept {
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

bool pool_core::drain(patience wait) {
    if (is_forked())
        return true;
    if (const running_job* const job = current_job(); job != nullptr && &job->core == this)
        throw deadlock_error("drain() inside a job waits for the job itself, of key \"" + describe(job->in) + "\"",
                             {describe(job->in)});
    refuse_where_it_discards("drain()");
    const job_wait waits(current_job(), {.for_pool = this}, wait.kind == patience::until_deadline);
    return wait_until_drained(wait);
}

bool pool_core::wait_until_drained(patience wait) {
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
    if (manual)
        return manual->wait(wait, nullptr, [&, accepted = std::uint64_t{0}]() mutable { return look(accepted); });
    for (;;) {
        std::unique_lock lock(quiet_);
        const auto epoch = quiet_epoch_;
        lock.unlock();
        std::uint64_t first = 0;
        std::uint64_t second = 0;
        if (look(first)) {
            if (look(second) && first == second)
                return true;
            continue;
        }
        lock.lock();
        const auto changed = [&] { return quiet_epoch_ != epoch; };
        if (wait.kind == patience::for_ever)
            quiet_changed_.wait(lock, changed);
        else if (!quiet_changed_.wait_until(lock, wait.deadline, changed))
            return false;
    }
}

bool pool_core::drain(const key_view& key, patience wait) {
    if (is_forked())
        return true;
    const auto [s, hash] = place_of(key);
    lane* l = nullptr;
    bool needs_thread = true;
    {
        const std::lock_guard lock(s.lock);
        const bool timed = has_timed_locked(s, key, hash);
        l = timed ? &s.table.find_or_make_locked(key, hash, static_cast<std::uint16_t>(&s - shards.data()))
                  : s.table.find_locked(key, hash);
        if (l == nullptr || (l->state == lane_state::idle && !timed))
            return true;
        const std::lock_guard head_lock(l->head_lock);
        needs_thread = l->state != lane_state::suspended || l->waiting() > 0 ||
                       (l->extras != nullptr && l->extras->sleeps != nullptr); // a coroutine
        ++l->pins;
    }
    struct unpin_at_end {
        pool_core& core;
        lane& l;
        ~unpin_at_end() { core.unpin(l); }
    } unpins{*this, *l};
    const job_wait waits(current_job(), {.for_lane = l, .in = this, .needs_thread = needs_thread},
                         wait.kind == patience::until_deadline);
    if (manual)
        return manual->wait(wait, l, [&, &s = s, hash = hash] {
            const std::lock_guard lock(s.lock);
            return l->state == lane_state::idle && !has_timed_locked(s, key, hash);
        });
    for (;;) {
        std::unique_lock lock(quiet_);
        const auto epoch = quiet_epoch_;
        lock.unlock();
        {
            const std::lock_guard shard_lock(s.lock);
            if (l->state == lane_state::idle && !has_timed_locked(s, key, hash))
                return true;
            s.idle_wanted = true;
        }
        lock.lock();
        const auto changed = [&] { return quiet_epoch_ != epoch; };
        if (wait.kind == patience::for_ever)
            quiet_changed_.wait(lock, changed);
        else if (!quiet_changed_.wait_until(lock, wait.deadline, changed))
            return false;
    }
}

// --- Handles
// -----------------------------------------------------------------------------------------------------------

lane* pool_core::acquire_lane(const key_view& key) {
    if (is_forked())
        throw std::logic_error("taskpool: a pool does not survive fork()");
    const auto [s, hash] = place_of(key);
    const std::lock_guard lock(s.lock);
    lane& l = s.table.find_or_make_locked(key, hash, static_cast<std::uint16_t>(&s - shards.data()));
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
    bool to_be_swept = false;
    {
        const std::lock_guard lock(shard_of(l).lock);
        to_be_swept = --l.pins == 0 && l.state == lane_state::idle;
    }
    if (to_be_swept && clock.asleep())
        poke_keeper();
}

} // namespace taskpool::detail
