// SPDX-License-Identifier: Apache-2.0
// The way into its lane of every job that has one lane. Ordinary ones begin it in submit.cpp, those of other kinds
// where their kind is; jobs of several keys have a way of their own (together.cpp).
#pragma once

#include <mutex>

#include "pool_core.hpp"

namespace taskpool::detail {

/// The locks under which a job is pushed.
template <class Find>
auto lock_for(const Find& find, shard& s) {
    if constexpr (requires { find.lock(); })
        return find.lock();
    else
        return std::lock_guard(s.lock);
}

/// `find` gives the lane, under the shard's lock or what its lock() takes; its has_pushed_locked(), if it has one, is
/// called there after a push. A source's replace_locked(), if it has one, may put the job in another's place instead.
template <class Find, class Source>
submit_result pool_core::submit(shard& s, Find find, Source& job, const job_options& how, const patience& wait) {
    submit_result refusal = submit_status::full;
    bool gate_refused = false;
    for (bool may_wait = wait.kind != patience::none && settings.when_full == overflow::block;;) {
        if (is_forked()) {
            refusal = submit_status::stopped;
            break;
        }
        lane* l = nullptr;
        auto result = attempt::accepted;
        job_slot dropped;
        dropped.ops = nullptr;
        bool ready = false;
        bool replaces = false;
        const tick now = clock.now();
        const tick age = aged(now, how.priority);
        {
            const auto lock = lock_for(find, s);
            if (s.closed && !job.was_accepted) {
                result = attempt::stopped;
            } else {
                l = &find();
                if constexpr (requires { job.replace_locked(*l, dropped); })
                    replaces = job.replace_locked(*l, dropped);
                if (!replaces)
                    result = push_locked(s, *l, job, how, age, gate_refused, dropped, ready);
                if constexpr (requires { find.has_pushed_locked(); })
                    if (result == attempt::accepted)
                        find.has_pushed_locked();
                if (result != attempt::accepted || dropped.ops != nullptr)
                    ++l->pins; // it is used below, with the lock released
            }
        }
        if (result == attempt::accepted) {
            if (ready)
                enqueue(*l, age, now);
            if (dropped.ops != nullptr) {
                discard_job(*l, dropped,
                            replaces || keeps_latest() ? discard_reason::replaced : discard_reason::dropped_oldest);
                unpin(*l);
            }
            return submit_status::accepted;
        }
        if (result == attempt::stopped) {
            refusal = submit_status::stopped;
            break;
        }
        const bool in_pool = result == attempt::pool_full;
        if (manual && settings.max_wait)
            watch_load();
        const auto gets_past = how.on_stop == posted || job.exists ? pool_gate::past::all
                               : job.was_accepted                  ? pool_gate::past::being_shut
                                                                   : pool_gate::past::nothing;
        bool sheds = is_overloaded() && gets_past == pool_gate::past::nothing;
        bool again = false;
        if (in_pool) {
            const auto answer = gate.grant(
                shards, s, [&] { return taken_by_workers(); }, gets_past);
            again = answer == pool_gate::answer::granted;
            sheds = answer == pool_gate::answer::shut;
        }
        if (in_pool && !again && !gate_refused && (drops_oldest() || keeps_latest()))
            again = gate_refused = true; // once more: now it may make room by dropping
        again = wait_or_refuse(*l, again, in_pool, sheds, may_wait, wait, refusal);
        if (!again)
            break;
        may_wait = may_wait && refusal != submit_status::timed_out; // then one last look
    }
    if (job.tries_again && refusal == submit_status::rate_limited)
        refusal = submit_status::full; // it waits for the one as for the other
    if (!job.tries_again || refusal == submit_status::stopped)
        s.rejected.fetch_add(1, std::memory_order_relaxed); // a figure by itself
    return refusal;
}

} // namespace taskpool::detail
