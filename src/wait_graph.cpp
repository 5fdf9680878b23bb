// SPDX-License-Identifier: Apache-2.0
#include "wait_graph.hpp"

#include <algorithm>
#include <mutex>

namespace taskpool::detail {

wait_graph& wait_graph::instance() noexcept {
    // Never destroyed: static pools may outlive other static objects.
    alignas(wait_graph) static std::byte memory[sizeof(wait_graph)];
    static auto* const graph = new (memory) wait_graph;
    return *graph;
}

/// The stuck wait of a lane's job, or null.
const wait_graph::wait* wait_graph::stuck_wait_of(const lane* l) const noexcept {
    const auto at =
        std::find_if(waits_.begin(), waits_.end(), [&](const wait& w) { return w.stuck && &w.job->in == l; });
    return at == waits_.end() ? nullptr : &*at;
}

/// Marks the waits that cannot end: all of them at first, less those that can, until no more is found.
void wait_graph::find_stuck() {
    for (wait& w : waits_)
        w.stuck = true;
    for (bool changed = true; changed;) {
        changed = false;
        for (wait& w : waits_) {
            if (w.stuck && can_end(w.what)) {
                w.stuck = false;
                changed = true;
            }
        }
    }
}

/// Whether a wait can end if all that are not marked as stuck do.
bool wait_graph::can_end(const target& what) const {
    if (is_over(what))
        return true;
    if (what.for_lane != nullptr)
        return stuck_wait_of(what.for_lane) == nullptr;
    if (what.for_pool != nullptr)
        return std::none_of(waits_.begin(), waits_.end(),
                            [&](const wait& w) { return w.stuck && &w.job->core == what.for_pool; });
    bool any_waits = false;
    for (auto& s : what.room_in->shards) {
        const std::lock_guard lock(s.lock);
        for (const lane* const l : s.table.places_locked()) {
            if (l == nullptr || l->waiting() == 0)
                continue;
            any_waits = true;
            if (stuck_wait_of(l) == nullptr)
                return true;
        }
    }
    return !any_waits; // then there is room by now
}

/// Whether what is waited for has come already, though the waiting job may not have woken up yet.
bool wait_graph::is_over(const target& what) noexcept {
    return (what.future != nullptr && what.future->is_ready()) ||
           (what.for_room && what.for_lane->waiting() < what.in->settings.lane_capacity);
}

/// The jobs' keys from one stuck wait to the next, until they repeat.
std::vector<std::string> wait_graph::keys_from(const running_job& job) const {
    std::vector<std::string> keys;
    std::vector<const wait*> path;
    for (const wait* w = stuck_wait_of(&job.in); w != nullptr;) {
        path.push_back(w);
        keys.push_back(w->job->core.describe(w->job->in));
        const auto is_new = [&](const wait& next) {
            return next.stuck && std::find(path.begin(), path.end(), &next) == path.end();
        };
        const auto next = std::find_if(waits_.begin(), waits_.end(), [&, &what = w->what](const wait& other) {
            return is_new(other) && (&other.job->in == what.for_lane || &other.job->core == what.for_pool ||
                                     &other.job->core == what.room_in);
        });
        w = next == waits_.end() ? nullptr : &*next;
    }
    return keys;
}

bool wait_graph::enter(running_job& job, const target& what, bool has_deadline, refusal& because) {
    const std::lock_guard lock(mutex_);
    const auto take_out = [&] { std::erase_if(waits_, [&](const wait& w) { return w.job == &job; }); };
    waits_.push_back({&job, what});
    try {
        find_stuck();
        if (stuck_wait_of(&job.in) != nullptr) {
            because.keys = keys_from(job);
            because.why = what.room_in != nullptr    ? "jobs of these keys fill the pool and wait for room in it"
                          : because.keys.size() == 1 ? "a job waits for its own key"
                                                     : "jobs of these keys wait for each other";
        } else if (!has_deadline && what.needs_thread && (what.in == &job.core || what.room_in == &job.core) &&
                   !is_over(what)) {
            const auto threads = std::count_if(waits_.begin(), waits_.end(), [&](const wait& w) {
                return &w.job->core == &job.core && !is_over(w.what);
            });
            if (threads >= static_cast<std::ptrdiff_t>(job.core.settings.max_threads)) {
                because.keys.push_back(job.core.describe(job.in));
                because.why = "all threads of the pool would wait";
            }
        }
    } catch (...) {
        take_out();
        throw;
    }
    if (!because.why.empty() || has_deadline)
        take_out();
    return because.why.empty();
}

void wait_graph::leave(const running_job& job) noexcept {
    const std::lock_guard lock(mutex_);
    std::erase_if(waits_, [&](const wait& w) { return w.job == &job; });
}

void wait_graph::forget(const future_core* future) noexcept {
    const std::lock_guard lock(mutex_);
    std::erase_if(waits_, [&](const wait& w) { return w.what.future == future; });
}

job_wait::job_wait(running_job* job, const wait_graph::target& what, bool has_deadline)
    : job_(job), recorded_(job != nullptr && !has_deadline) {
    if (job_ == nullptr)
        return;
    wait_graph::refusal because;
    if (!wait_graph::instance().enter(*job_, what, has_deadline, because)) {
        std::string text = because.why + ": ";
        for (const auto& key : because.keys)
            text += (&key == because.keys.data() ? "\"" : ", \"") + key.substr(0, 200) + "\"";
        throw deadlock_error(text, std::move(because.keys));
    }
    job_->core.enter_blocking(job_->by);
}

job_wait::~job_wait() {
    if (job_ == nullptr)
        return;
    job_->core.leave_blocking(job_->by);
    if (recorded_)
        wait_graph::instance().leave(*job_);
}

} // namespace taskpool::detail
