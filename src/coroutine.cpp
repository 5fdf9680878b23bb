// SPDX-License-Identifier: Apache-2.0
#include "coroutine.hpp"

#include <cassert>
#include <mutex>
#include <new>
#include <stdexcept>
#include <utility>

#include "pool_core.hpp"

namespace taskpool::detail {

namespace {

coroutine_job*& pointer_in(void* storage) noexcept { return *std::launder(reinterpret_cast<coroutine_job**>(storage)); }

/// Begins it in its lane, or brings it back there, as the current job.
void enter_lane(coroutine_job& c, const running_job& job) noexcept {
    lane& l = job.in;
    const std::lock_guard lock(l.head_lock);
    if (c.core == nullptr) {
        c.core = &job.core;
        c.in = &l;
        c.number = job.number;
        c.holds = 1;
        // relaxed: under head_lock, like cancel's write; as below.
        c.cancelled.store(l.cancelled.load(std::memory_order_relaxed), std::memory_order_relaxed);
    } else if (c.detached) {
        l.unlink_locked(c);
        c.detached = c.queued = false;
        l.cancelled.store(c.cancelled.load(std::memory_order_relaxed), std::memory_order_relaxed);
    } else {
        return; // it has held the lane
    }
    l.link_locked(c);
}

void run_stretch(void* storage, const running_job& job) {
    coroutine_job& c = *std::exchange(pointer_in(storage), nullptr);
    assert(!c.done && (c.core == nullptr || c.in == &job.in)); // I-COROUTINE-1
    enter_lane(c, job);
    std::exchange(c.innermost, nullptr).resume();
    if (!c.done)
        return;
    const std::exception_ptr error = c.result.error();
    const bool wanted = c.result.is_wanted();
    c.result.finish(error);
    {
        const std::lock_guard lock(job.in.head_lock);
        --c.holds; // its own; the job ends with this stretch, or with the last of others
    }
    if (error && !wanted)
        std::rethrow_exception(error);
    if (error)
        count_failure(job);
}

} // namespace

const job_ops coroutine_ops = {
    run_stretch,
    [](void* storage) {
        if (coroutine_job* const c = pointer_in(storage))
            c->discard();
    },
    nullptr,
    job_kind::once,
};

coroutine_job::coroutine_job(std::coroutine_handle<> whole, future_core& future, bool lets_others_run) noexcept
    : frame(whole), result(future), innermost(whole) {
    interleaves = lets_others_run;
    end = [](job_extras& self) noexcept {
        assert(static_cast<coroutine_job&>(self).done); // I-COROUTINE-2
        static_cast<coroutine_job&>(self).result.drop();
    };
    sleeps = &timer;
    timer.of = this;
    timer.fire = [](pool_core& core, pool_timer& t) noexcept {
        coroutine_job& c = *static_cast<sleep_timer&>(t).of;
        c.slept = true;
        core.resume(c);
    };
}

void make_resumption(job_slot& slot, job_extras& e, tick now) noexcept {
    slot.ops = &coroutine_ops;
    slot.age = now;
    slot.on_stop = resumption;
    slot.priority = priority::normal;
    new (slot.storage) coroutine_job*(static_cast<coroutine_job*>(&e));
}

coroutine_job& coroutine_in(job_slot& slot) noexcept { return *pointer_in(slot.storage); }

bool is_coroutine_of(job_slot& slot, const future_core& result) noexcept {
    return slot.ops == &coroutine_ops && &coroutine_in(slot).result == &result;
}

void coroutine_job::discard() noexcept {
    result.finish(std::make_exception_ptr(job_discarded()));
    result.drop();
}

coroutine_job* make_coroutine_job(void* room, std::coroutine_handle<> frame, future_core& result,
                                  bool interleaves) noexcept {
    return new (room) coroutine_job(frame, result, interleaves);
}
void destroy_coroutine_job(coroutine_job& job) noexcept { job.~coroutine_job(); }

submit_result submit_coroutine(pool_core& core, const key_view& key, coroutine_job& job, const job_options& how) {
    struct source final : job_source {
        coroutine_job& job;
        pool_core& core;
        source(coroutine_job& from, pool_core& to) noexcept : job(from), core(to) {
            ops = &coroutine_ops;
            store = [](job_source& self, void* storage) {
                auto& s = static_cast<source&>(self);
                new (storage) coroutine_job*(&s.job);
                s.job.result.set_place(s.core, *s.accepted_in);
                if (s.job.interleaves)
                    s.job.result.set_comes_again();
                else
                    s.job.result.set_number();
            };
        }
    } from(job, core);
    return core.submit(key, from, how, {patience::for_ever});
}

bool keeps_lane(const coroutine_job& job) noexcept {
    const std::lock_guard lock(job.in->head_lock);
    return !job.interleaves || job.holds > 1;
}

void set_done(coroutine_job& job) noexcept { job.done = true; }
void suspend_at(coroutine_job& job, std::coroutine_handle<> innermost) noexcept { job.innermost = innermost; }
void resume(coroutine_job& job) noexcept { job.core->resume(job); }

bool sleep_for(coroutine_job& job, std::chrono::nanoseconds time) {
    auto& core = *job.core;
    job.slept = false;
    if (stop_requested(static_cast<const job_extras&>(job)))
        return false;
    if (core.time.add(job.timer, later(core.time.now(), time)))
        core.poke_keeper();
    // Who asks it to stop sets the flag first and then looks for the timer; so one of the two sees the other.
    if (stop_requested(static_cast<const job_extras&>(job)) && core.time.remove(job.timer))
        return false;
    return true;
}
bool slept_through(coroutine_job& job) noexcept { return job.slept; }

bool stop_requested(const coroutine_job& job) noexcept { return stop_requested(static_cast<const job_extras&>(job)); }
std::stop_token stop_token(coroutine_job& job) { return stop_token(static_cast<job_extras&>(job)); }
job_extras* hold(coroutine_job& job) noexcept { return hold(static_cast<job_extras&>(job)); }
std::uint64_t number(const coroutine_job& job) noexcept { return job.number; }
const void* key(const coroutine_job& job) noexcept { return job.core->maker.key_of(*job.in); }

coroutine_job& required(coroutine_job* job) {
    if (job == nullptr)
        throw std::logic_error("taskpool: awaited in a coroutine that was not spawned");
    return *job;
}

meeting::meeting() noexcept {
    static_assert(sizeof(sync::atomic<bool>) == sizeof(room_));
    new (room_) sync::atomic<bool>(false);
}

bool meeting::is_second() noexcept {
    // acq_rel pairs with the other one's exchange.
    return std::launder(reinterpret_cast<sync::atomic<bool>*>(room_))->exchange(true, std::memory_order_acq_rel);
}

} // namespace taskpool::detail
