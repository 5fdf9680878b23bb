// SPDX-License-Identifier: Apache-2.0
// What jobs call: their context, their holds, blocking_scope.
#include <taskpool/blocking_scope.hpp>
#include <taskpool/job.hpp>

#include <mutex>

#include "pool_core.hpp"
#include "together.hpp"

namespace taskpool {

namespace detail {

/// What the running job has of extras, made if need be. REQUIRES: head_lock. Throws std::bad_alloc.
static job_extras& extras_locked(const running_job& job) {
    if (job_extras* const e = job.in.current_extras_locked())
        return *e;
    auto* const e = new job_extras;
    e->core = &job.core;
    e->in = &job.in;
    e->number = job.number;
    e->end = [](job_extras& self) noexcept { delete &self; };
    // relaxed: under head_lock, like cancel's write.
    e->cancelled.store(job.in.cancelled.load(std::memory_order_relaxed), std::memory_order_relaxed);
    job.in.link_locked(*e);
    return *e;
}

/// A token that tells of what has been requested already, too: stop and cancel look for the source under the same lock
/// after they have set their flags. REQUIRES: the lane's lock, which it releases.
static std::stop_token stop_token(job_extras& e, std::unique_lock<sync::spin_lock> lock) {
    std::stop_source source{std::nostopstate};
    if (e.joint != nullptr) {
        const std::lock_guard joint_lock(e.joint->lock);
        if (!e.joint->stop.stop_possible())
            e.joint->stop = std::stop_source();
        source = e.joint->stop;
    } else {
        if (!e.stop.stop_possible())
            e.stop = std::stop_source();
        source = e.stop;
    }
    lock.unlock();
    if (stop_requested(e))
        source.request_stop();
    return source.get_token();
}

bool stop_requested(const job_extras& e) noexcept {
    // relaxed: a request, which publishes nothing.
    return e.core->is_stopping() || e.cancelled.load(std::memory_order_relaxed) ||
           (e.joint != nullptr && e.joint->cancelled.load(std::memory_order_relaxed));
}
std::stop_source source_to_request_locked(const job_extras& e) noexcept {
    const auto wanted = [](const std::stop_source& stop) {
        return stop.stop_possible() && !stop.stop_requested() ? stop : std::stop_source(std::nostopstate);
    };
    if (e.joint == nullptr)
        return wanted(e.stop);
    const std::lock_guard joint_lock(e.joint->lock);
    return wanted(e.joint->stop);
}
std::stop_token stop_token(job_extras& e) { return stop_token(e, std::unique_lock(e.in->head_lock)); }

job_extras* hold(job_extras& e) noexcept {
    const std::lock_guard lock(e.in->head_lock);
    ++e.holds;
    return &e;
}

bool stop_requested(const running_job& job) noexcept {
    // relaxed: a request, which publishes nothing.
    return job.core.is_stopping() || job.in.cancelled.load(std::memory_order_relaxed) ||
           (job.joint != nullptr && is_cancelled(*job.joint));
}
std::stop_token stop_token(const running_job& job) {
    std::unique_lock lock(job.in.head_lock);
    auto& e = extras_locked(job);
    return stop_token(e, std::move(lock));
}
std::uint64_t number(const running_job& job) noexcept { return job.number; }
const void* key(const running_job& job) noexcept { return job.core.maker.key_of(job.in); }
void count_failure(const running_job& job) noexcept { job.failed = job.to_be_settled = true; }

job_extras* hold(const running_job& job) {
    const std::lock_guard lock(job.in.head_lock);
    auto& e = extras_locked(job);
    ++e.holds;
    return &e;
}

} // namespace detail

held::held(const held& other) noexcept : job_(other.job_) {
    if (job_ != nullptr)
        detail::hold(*job_);
}

void held::release() noexcept {
    if (detail::job_extras* const job = std::exchange(job_, nullptr))
        job->core->release_hold(*job); // the extras stay while a hold is there
}

bool held::stop_requested() const noexcept { return detail::stop_requested(*job_); }
std::stop_token held::stop_token() const { return detail::stop_token(*job_); }

blocking_scope::blocking_scope() noexcept : worker_(nullptr) {
    if (const auto* const job = detail::current_job()) {
        worker_ = &job->by;
        job->core.enter_blocking(job->by);
    }
}

blocking_scope::~blocking_scope() {
    if (worker_ != nullptr) {
        auto& worker = *static_cast<detail::worker*>(worker_);
        worker.core.leave_blocking(worker);
    }
}

} // namespace taskpool
