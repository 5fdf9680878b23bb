// SPDX-License-Identifier: Apache-2.0
// What the pool tells: figures, keys, failures and discarded jobs.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <mutex>
#include <string>

#include "barrier.hpp"
#include "pool_core.hpp"
#include "timed_job.hpp"
#include "together.hpp"

namespace taskpool::detail {

/// Lanes with work that are a key's. REQUIRES: the shard's lock.
static std::size_t busy_keys_locked(const pool_core& core, const shard& s) noexcept {
    return s.active - (&s == &core.shards.front() && core.barrier->own.state != lane_state::idle ? 1 : 0);
}

/// Shows the keys of a shard's lanes that are wanted. REQUIRES: its lock.
template <class Wanted>
static void visit_lanes_locked(const pool_core& core, const shard& s, key_visitor visitor, Wanted wanted) {
    for (const lane* const l : s.table.places_locked())
        if (l != nullptr && wanted(*l))
            visitor.visit(visitor.self, core.maker.key_of(*l), 0, 0);
}

namespace {

constexpr std::size_t longest_shown_key = 200; // bytes, in the default line for a failure

} // namespace

std::size_t pool_core::active_keys() const noexcept {
    std::size_t count = 0;
    if (is_forked())
        return count;
    for (auto& s : shards) {
        const std::lock_guard lock(s.lock);
        count += busy_keys_locked(*this, s);
    }
    return count;
}

void pool_core::visit_paused_keys(key_visitor visitor) {
    if (is_forked())
        return;
    for (auto& s : shards) {
        const std::lock_guard lock(s.lock);
        visit_lanes_locked(*this, s, visitor, [](const lane& l) { return l.paused; });
    }
}

/// The keys with work, those included for which jobs only wait for their time.
void pool_core::visit_active_keys(key_visitor visitor) {
    if (is_forked())
        return;
    for (auto& s : shards) {
        const std::lock_guard lock(s.lock);
        visit_lanes_locked(*this, s, visitor, [](const lane& l) { return l.state != lane_state::idle; });
        visit_timed_keys_locked(maker, s, visitor);
    }
}

std::uint64_t pool_core::taken_by_workers() const noexcept {
    const std::lock_guard lock(workers_mutex_);
    return taken_by_workers_locked();
}

std::uint64_t pool_core::taken_by_workers_locked() const noexcept {
    std::uint64_t taken = 0;
    for (const auto& w : workers_)
        taken += w->taken.get();
    return taken;
}

pool_stats pool_core::stats() const {
    pool_stats all;
    if (is_forked())
        return all;
    std::uint64_t taken = 0;
    {
        const std::lock_guard lock(workers_mutex_);
        for (const auto& w : workers_) {
            all.finished += w->finished.get();
            all.failed += w->failed.get();
            all.high += w->high.get();
            all.low += w->low.get();
            all.retries += w->retries.get();
            all.expired += w->expired.get();
            all.discarded += w->discarded.get();
            taken += w->taken.get();
            all.running += w->job_sequence.load(std::memory_order_relaxed) % 2; // a figure by itself
            for (std::size_t i = 0; i < w->wait_times.size(); ++i) {
                all.wait_time.counts[i] += w->wait_times[i].get();
                all.run_time.counts[i] += w->run_times[i].get();
            }
        }
        all.threads = threads_running_;
    }
    std::uint64_t discarded_in_lanes = 0;
    std::uint64_t left = 0; // accepted jobs that do not wait in a lane
    for (auto& s : shards) {
        const std::lock_guard lock(s.lock);
        all.accepted += s.accepted;
        discarded_in_lanes += s.discarded;
        all.finished += s.finished_held;
        all.replaced += s.replaced;
        all.together += s.together;
        all.rejected += s.rejected.load(std::memory_order_relaxed); // a figure by itself
        all.active_keys += busy_keys_locked(*this, s);
        all.suspended_lanes += s.suspended;
        all.paused_keys += s.paused;
        all.limited_keys += s.limited;
        all.shared += s.shared;
        left += s.timed;
    }
    if (manual)
        all.wait_time = all.run_time = {}; // its clock does not go with the time
    all.discarded += discarded_in_lanes + all.expired;
    left += taken + discarded_in_lanes;
    all.waiting = all.accepted > left ? all.accepted - left : 0;
    all.timers = timed_jobs();
    all.barriers = barriers();
    for (const auto& queue : queues)
        all.ready_lanes += queue.state().lanes;
    all.oldest_wait = oldest_wait();
    all.blocked_threads = static_cast<std::size_t>(std::max(0, workers_at.blocked()));
    all.threads_refused = threads_refused_.load(std::memory_order_relaxed); // a figure by itself
    return all;
}

// --- Reporting -------------------------------------------------------------------------------------------------------

std::string pool_core::describe(const void* stored_key) const noexcept {
    try {
        if (stored_key == maker.key_of(barrier->own))
            return "(barrier)";
        return maker.keys.describe(stored_key);
    } catch (...) {
        return {};
    }
}

void pool_core::report_failure(std::string_view key, const std::exception_ptr& error) const noexcept {
    try {
        if (settings.on_failure) {
            settings.on_failure({key, error});
            return;
        }
        std::string what = "an exception that is not a std::exception";
        try {
            std::rethrow_exception(error);
        } catch (const std::exception& exception) {
            what = exception.what();
        } catch (...) { // NOLINT(bugprone-empty-catch): said above
        }
        const auto shown = static_cast<int>(std::min<std::size_t>(key.size(), longest_shown_key));
        std::fprintf(stderr, "taskpool: a job of key \"%.*s\" failed: %s\n", shown, key.data(), what.c_str());
    } catch (...) { // NOLINT(bugprone-empty-catch): a handler must not throw; see options.hpp
    }
}

void pool_core::report_discard(const void* stored_key, discard_reason why) noexcept {
    if (!settings.on_discard)
        return;
    const auto key = describe(stored_key);
    try {
        settings.on_discard({key, why});
    } catch (...) { // NOLINT(bugprone-empty-catch): a handler must not throw; see options.hpp
    }
}

bool pool_core::destroy_callable(const void* stored_key, const job_ops* ops, void* storage) noexcept {
    if (ops->destroy == nullptr)
        return true;
    try {
        ops->destroy(storage);
        return true;
    } catch (...) {
        report_failure(describe(stored_key), std::current_exception());
        return false;
    }
}

void pool_core::discard_job(const lane& l, job_slot& job, discard_reason why) noexcept {
    if (is_joint(job.on_stop)) {
        const joint_place& place = place_in(job);
        joint_job& whole = *place.joint;
        if (place.kills)
            discard_joint(l, whole, why);
        whole.drop_references(1);
        return;
    }
    report_discard(maker.key_of(l), why);
    destroy_job(l, job);
}

/// Counts so many jobs, of which this is one, for its keys.
void pool_core::count_hot(const running_job& job, std::uint64_t jobs, tick now) noexcept {
    const auto count = [&](const lane& l) { hottest.count(maker.key_of(l), jobs, now); };
    if (job.joint != nullptr) {
        for (const auto& place : job.joint->places())
            count(*place.in);
    } else if (&job.in != &barrier->own) {
        count(job.in);
    }
}

} // namespace taskpool::detail
