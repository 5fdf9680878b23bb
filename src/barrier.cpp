// SPDX-License-Identifier: Apache-2.0
#include "barrier.hpp"

#include <algorithm>
#include <cassert>
#include <mutex>

#include "coroutine.hpp"
#include "pool_core.hpp"
#include "shared_job.hpp"
#include "submit.hpp"
#include "together.hpp"
#include "wait_graph.hpp"

namespace taskpool::detail {

namespace {

constexpr std::size_t stride = 512;       // table places under one hold of a shard's lock
constexpr tick doubt = 20;                // between two looks at whether a barrier can ever run
constexpr barrier_era eras_to_mark = 500; // long past ones, before their jobs are marked anew

} // namespace

barrier_line::barrier_line(pool_core& owner) : core(owner), own(*core.maker.make_without_key(0)) {
    own.attends = true;
    own.pins = 1;
}

barrier_line::~barrier_line() { core.maker.free_without_key(&own); }

barrier_line::coming::coming(pool_core& core) noexcept : core_(core) {
    barrier_line& line = *core.barrier;
    const std::lock_guard lock(line.mutex);
    ++line.brought;
    // relaxed: see has_barriers.
    if (line.pending.exchange(true, std::memory_order_relaxed))
        return;
    for (auto& s : core.shards) {
        const std::lock_guard shard_lock(s.lock);
        s.guarded = true;
        s.table.have_new_ones_attend_locked(true);
        for (lane* const l : s.table.places_locked()) {
            if (l == nullptr)
                continue;
            const std::lock_guard head_lock(l->head_lock);
            l->attends = true;
        }
    }
}

barrier_line::coming::~coming() {
    barrier_line& line = *core_.barrier;
    {
        const std::lock_guard lock(line.mutex);
        --line.brought;
    }
    core_.poke_keeper(); // it may have come to nothing
}

std::size_t pool_core::barriers() const noexcept {
    if (is_forked())
        return 0;
    const std::lock_guard shard_lock(shards.front().lock);
    const std::lock_guard lock(barrier->own.head_lock);
    return barrier->own.waiting() + (barrier->own.has_job ? 1 : 0);
}

// --- In the lanes ----------------------------------------------------------------------------------------------------

submit_result pool_core::submit_barrier(job_source& job, const job_options& how, const patience& wait) {
    if (is_forked())
        return submit_status::stopped;
    const barrier_line::coming comes(*this);
    shard& s = shards.front();
    {
        const std::lock_guard lock(s.lock);
        if (static_cast<barrier_era>(s.era - barrier->oldest) >= most_eras) {
            s.rejected.fetch_add(1, std::memory_order_relaxed); // a figure by itself
            return submit_status::full;
        }
    }
    struct in_line {
        pool_core& core;
        lane& operator()() const noexcept { return core.barrier->own; }
        all_shards_lock lock() const noexcept { return all_shards_lock(core); }
        void has_pushed_locked() const noexcept {
            for (auto& each : core.shards) {
                ++each.era;
                assert(each.guarded && each.era == core.shards.front().era); // I-BARRIER-1, I-BARRIER-4
            }
            assert(!later(core.barrier->oldest, core.shards.front().era)); // I-BARRIER-5
        }
    };
    return submit(s, in_line{*this}, job, how, wait);
}

/// What stop() discards waits for nothing. REQUIRES: the shard's lock; the caller owns the lane.
bool pool_core::waits_for_barrier_locked(const shard& s, lane& l) const noexcept {
    const std::lock_guard lock(l.head_lock);
    const job_slot* const front = l.front_locked();
    return front != nullptr && later(front->era, s.open_era) && (!is_stopping() || runs_in_stop(front->on_stop));
}

/// For the worker that has the barriers' lane. REQUIRES: the first shard's lock.
turn pool_core::attend_barrier(lane& l) noexcept {
    std::unique_lock lock(l.head_lock);
    const job_slot* const front = l.front_locked();
    if (front == nullptr)
        return turn::unclear;
    if (barrier->due == front->era || (is_stopping() && !runs_in_stop(front->on_stop))) {
        barrier->due.reset();
        lock.release();
        return turn::own;
    }
    barrier->due.reset(); // of one that was dropped
    suspend_locked(l);
    poke_keeper();
    return turn::others;
}

namespace {

/// Whether a lane has no work of this era, or of an earlier one. Coroutines that lend it wait for the barrier like what
/// comes after it. REQUIRES: the shard's lock.
bool is_done_locked(lane& l, barrier_era era) noexcept {
    if (l.state == lane_state::idle)
        return true;
    const std::lock_guard lock(l.head_lock);
    if (l.has_job || shares_of_locked(l) != nullptr)
        return false;
    const job_slot* const front = l.front_locked();
    return front == nullptr || later(front->era, era);
}

} // namespace

// --- The keeper ------------------------------------------------------------------------------------------------------

void barrier_line::conduct() noexcept {
    if (!core.has_barriers())
        return;
    const auto next = look();
    if (!next)
        return;
    if (first != next->era) {
        open_era(next->era);
        first = next->era;
        at_shard = at_place = 0;
    }
    if (next->waits && !all_are_done(next->era)) {
        const bool asks = doubted.exchange(false, std::memory_order_relaxed); // as `pending`
        if (asks || (!core.manual && core.clock.now() - asked >= doubt)) {
            asked = core.manual ? 0 : core.clock.now();
            if (wait_graph::instance().holds_up_barriers(core))
                discard_first(next->era);
        }
        return;
    }
    std::optional<tick> ready;
    {
        const std::lock_guard shard_lock(core.shards.front().lock);
        const std::lock_guard lock(own.head_lock);
        const job_slot* const front = own.front_locked();
        if (front == nullptr || front->era != next->era)
            return core.poke_keeper(); // another one is the first now
        due = next->era;
        assert(opened == next->era);                            // I-BARRIER-2
        assert(!next->waits || at_shard == core.shards.size()); // I-BARRIER-3
        ready = core.wake_locked(core.shards.front(), own);
    }
    if (ready)
        core.enqueue(own, *ready); // ours since it is active and in no queue
}

/// The first barrier that waits for the keeper, if any. Where there is none at all, all lanes go on.
std::optional<barrier_line::first_one> barrier_line::look() noexcept {
    shard& s = core.shards.front();
    const std::lock_guard lock(mutex);
    barrier_era latest = 0;
    {
        const std::lock_guard shard_lock(s.lock);
        const std::lock_guard head_lock(own.head_lock);
        if (own.has_job || own.state == lane_state::active)
            return std::nullopt; // its worker, or who holds the job, says when that is over
        if (const job_slot* const front = own.front_locked())
            return first_one{front->era, !core.is_stopping() || runs_in_stop(front->on_stop)};
        latest = s.era;
    }
    first.reset();
    open_era(latest);
    if (brought > 0)
        return std::nullopt;
    // With the mutex held no barrier comes meanwhile.
    for (auto& each : core.shards) {
        const std::lock_guard shard_lock(each.lock);
        each.guarded = false; // its lanes find out one by one (attend)
        each.table.have_new_ones_attend_locked(each.rates.all_attend);
    }
    pending.store(false, std::memory_order_relaxed); // see has_barriers
    return std::nullopt;
}

/// Lets jobs of this era start.
void barrier_line::open_era(barrier_era era) noexcept {
    if (opened == era)
        return;
    opened = era;
    const bool marks = static_cast<barrier_era>(era - oldest) > eras_to_mark; // only the keeper writes it
    for (auto& s : core.shards) {
        const std::lock_guard shard_lock(s.lock);
        const auto before = s.open_era;
        assert(!later(era, s.era)); // I-BARRIER-2
        s.open_era = era;
        for (lane* const l : s.table.places_locked()) {
            if (l == nullptr || (!marks && l->state != lane_state::suspended))
                continue;
            std::optional<tick> ready;
            {
                const std::lock_guard lock(l->head_lock);
                const job_slot* const front = l->has_job ? nullptr : l->front_locked();
                if (front != nullptr && later(front->era, before) && !later(front->era, era))
                    ready = core.wake_locked(s, *l);
                if (marks)
                    l->each_waiting_locked([era](job_slot& job) { job.era = later(job.era, era) ? job.era : era; });
            }
            if (ready)
                core.enqueue(*l, *ready); // a ready queue's lock may be taken under a shard's
        }
    }
    if (marks) {
        const std::lock_guard lock(core.shards.front().lock);
        oldest = era;
    }
}

/// Whether no lane has work of this era, or an earlier one. If one has, the keeper is poked when that may be over.
bool barrier_line::all_are_done(barrier_era era) noexcept {
    while (at_shard < core.shards.size()) {
        shard& s = core.shards[at_shard];
        const std::lock_guard lock(s.lock);
        const auto& places = s.table.places_locked();
        if (changes != s.table.changes_locked())
            at_place = 0;
        changes = s.table.changes_locked();
        const auto end = std::min(at_place + stride, places.size());
        for (; at_place < end; ++at_place) {
            if (lane* const l = places[at_place]; l != nullptr && !is_done_locked(*l, era)) {
                s.idle_wanted = true;
                return false;
            }
        }
        if (at_place >= places.size()) {
            ++at_shard;
            at_place = 0;
        }
    }
    return true;
}

/// The first barrier, if it is still of this era, could never run.
void barrier_line::discard_first(barrier_era era) noexcept {
    shard& s = core.shards.front();
    job_slot job;
    {
        const std::lock_guard shard_lock(s.lock);
        const std::lock_guard lock(own.head_lock);
        const job_slot* const front = own.front_locked();
        if (own.has_job || own.state != lane_state::suspended || front == nullptr || front->era != era)
            return;
        own.take_locked(job);
        ++s.discarded;
        ++s.budget;
        if (own.front_locked() == nullptr)
            core.go_idle_locked(s, own);
    }
    core.waiting_room.wake(&own, 1);
    core.tell_of_room(s, 1);
    core.discard_job(own, job, discard_reason::would_deadlock);
    core.poke_keeper();
}

bool pool_core::has_barriers() const noexcept {
    // relaxed: whoever brings a barrier pokes the keeper afterwards, which orders it; others ask it to ask again.
    return barrier->pending.load(std::memory_order_relaxed);
}

void pool_core::doubt_barriers() noexcept {
    if (!has_barriers()) // the keeper asks at its first look at one
        return;
    barrier->doubted.store(true, std::memory_order_relaxed); // the event orders it
    poke_keeper();
}

// --- In the wait graph -----------------------------------------------------------------------------------------------

/// Whether it is a coroutine that has lent its lane: it goes on after the barrier. REQUIRES: the lane's lock.
static bool comes_behind_barrier_locked(const job_extras& e) noexcept {
    return e.is_coroutine() && e.detached && !e.queued;
}

bool is_behind_barrier_locked(const pool_core& core, const lane& of, reach how_far) noexcept {
    auto& l = const_cast<lane&>(of); // as whoever waits for it has it
    if (&l == &core.barrier->own)
        return true;
    const shard& s = core.shards[l.shard];
    const std::lock_guard lock(l.head_lock);
    const job_slot* const front = l.front_locked();
    if (how_far.kind == reach::none) // until it takes its next job
        return front != nullptr && later(front->era, s.open_era);
    bool found = false;
    l.each_waiting_locked([&](const job_slot& job) { found |= later(job.era, s.open_era); });
    for (const job_extras* e = l.extras; e != nullptr; e = e->next)
        found |= comes_behind_barrier_locked(*e);
    return found;
}

bool is_behind_barrier_locked(const pool_core& core, const lane& of, const future_core& job) noexcept {
    auto& l = const_cast<lane&>(of);
    if (&l == &core.barrier->own)
        return true;
    const shard& s = core.shards[l.shard];
    const std::lock_guard lock(l.head_lock);
    bool found = false; // what is not in the queue has been taken, to be run or to be discarded
    if (job.comes_again()) {
        l.each_waiting_locked(
            [&](job_slot& slot) { found |= is_coroutine_of(slot, job) && later(slot.era, s.open_era); });
        for (const job_extras* e = l.extras; e != nullptr; e = e->next)
            found |= comes_behind_barrier_locked(*e) && &static_cast<const coroutine_job*>(e)->result == &job;
        return found;
    }
    if (job.number() == 0)
        return true;                                                                   // it is still to be submitted
    auto number = static_cast<std::uint32_t>(l.taken.load(std::memory_order_relaxed)); // under the lane's lock
    l.each_waiting_locked(
        [&](const job_slot& slot) { found |= ++number == job.number() && later(slot.era, s.open_era); });
    return found;
}

} // namespace taskpool::detail
