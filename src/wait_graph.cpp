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

const wait_graph::wait* wait_graph::wait_of(const lane* l) const noexcept {
    const auto at = std::find_if(waits_.begin(), waits_.end(), [&](const wait& w) { return &w.job->in == l; });
    return at == waits_.end() ? nullptr : &*at;
}

/// Whether the lane's current job, if it waits, can go on. `path` collects the lanes that were passed and cannot: the
/// cycle.
bool wait_graph::can_go_on(const lane* l, std::vector<const lane*>& path) const {
    if (std::find(path.begin(), path.end(), l) != path.end())
        return false;
    const wait* const w = wait_of(l);
    if (w == nullptr)
        return true;
    path.push_back(l);
    if (!can_end(w->what, path))
        return false;
    path.pop_back();
    return true;
}

bool wait_graph::can_end(const target& what, std::vector<const lane*>& path) const {
    if (what.for_room && what.for_lane->waiting() < what.in->settings.lane_capacity)
        return true; // there is room by now
    if (what.for_lane != nullptr)
        return can_go_on(what.for_lane, path);
    if (what.for_pool != nullptr)
        return std::all_of(waits_.begin(), waits_.end(), [&](const wait& other) {
            return &other.job->core != what.for_pool || can_go_on(&other.job->in, path);
        });
    // Room in the pool: any lane with waiting jobs will do. Those that wait themselves are looked at without the locks.
    std::vector<const lane*> others;
    for (auto& s : what.room_in->shards) {
        const std::lock_guard lock(s.lock);
        for (const lane* const other : s.table.places_locked()) {
            if (other == nullptr || other->waiting() == 0)
                continue;
            if (wait_of(other) == nullptr)
                return true;
            others.push_back(other);
        }
    }
    // None at all: there is room by now.
    return others.empty() ||
           std::any_of(others.begin(), others.end(), [&](const lane* other) { return can_go_on(other, path); });
}

bool wait_graph::enter(running_job& job, const target& what, bool has_deadline, refusal& because) {
    const std::lock_guard lock(mutex_);
    const auto take_out = [&] { std::erase_if(waits_, [&](const wait& w) { return w.job == &job; }); };
    waits_.push_back({&job, what});
    try {
        std::vector<const lane*> path;
        const bool over = what.future != nullptr && what.future->is_ready();
        if (!over && !can_go_on(&job.in, path)) {
            for (const lane* const l : path)
                if (const wait* const w = wait_of(l))
                    because.keys.push_back(w->job->core.describe(*l));
            because.why = what.room_in != nullptr ? "jobs of these keys fill the pool and wait for room in it"
                          : path.size() == 1      ? "a job waits for its own key"
                                                  : "jobs of these keys wait for each other";
        } else if (!over && !has_deadline && what.needs_thread &&
                   (what.in == &job.core || what.room_in == &job.core) &&
                   // relaxed: changed under mutex_ only.
                   job.core.waiting_workers.load(std::memory_order_relaxed) + 1 >=
                       static_cast<int>(job.core.settings.max_threads)) {
            because.keys.push_back(job.core.describe(job.in));
            because.why = "all threads of the pool would wait";
        }
    } catch (...) {
        take_out();
        throw;
    }
    if (!because.why.empty() || has_deadline) {
        take_out();
        return because.why.empty();
    }
    job.core.waiting_workers.fetch_add(1, std::memory_order_relaxed); // as above
    return true;
}

void wait_graph::leave(const running_job& job) noexcept {
    const std::lock_guard lock(mutex_);
    job.core.waiting_workers.fetch_sub(1, std::memory_order_relaxed); // as above
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
