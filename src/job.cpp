// SPDX-License-Identifier: Apache-2.0
// What jobs call: their context, their holds, blocking_scope.
#include <taskpool/blocking_scope.hpp>
#include <taskpool/job.hpp>

#include <mutex>

#include "pool_core.hpp"

namespace taskpool {

namespace detail {

/// The lane's extras, made if need be. REQUIRES: head_lock. Throws std::bad_alloc.
static lane_extras& extras_locked(pool_core& core, lane& l) {
    if (l.extras == nullptr) {
        l.extras = new lane_extras;
        l.extras->core = &core;
    }
    return *l.extras;
}

static bool lane_stop_requested(const pool_core& core, const lane& l) noexcept {
    // relaxed: a request, which publishes nothing.
    return core.is_stopping() || l.cancelled.load(std::memory_order_relaxed);
}

/// A token that tells of what has been requested already, too: stop and cancel look for the source under the same lock
/// after they have set their flags.
static std::stop_token lane_stop_token(pool_core& core, lane& l) {
    std::stop_source source{std::nostopstate};
    {
        const std::lock_guard lock(l.head_lock);
        auto& extras = extras_locked(core, l);
        if (!extras.stop.stop_possible())
            extras.stop = std::stop_source();
        source = extras.stop;
    }
    if (lane_stop_requested(core, l))
        source.request_stop();
    return source.get_token();
}

bool stop_requested(const running_job& job) noexcept { return lane_stop_requested(job.core, job.in); }
std::stop_token stop_token(const running_job& job) { return lane_stop_token(job.core, job.in); }
std::uint64_t number(const running_job& job) noexcept { return job.number; }
const void* key(const running_job& job) noexcept { return job.core.maker.key_of(job.in); }
void count_failure(const running_job& job) noexcept { job.failed = true; }

lane* hold(const running_job& job) {
    const std::lock_guard lock(job.in.head_lock);
    ++extras_locked(job.core, job.in).holds;
    return &job.in;
}

} // namespace detail

held::held(const held& other) noexcept : lane_(other.lane_) {
    if (lane_ != nullptr) {
        const std::lock_guard lock(lane_->head_lock);
        ++lane_->extras->holds;
    }
}

void held::release() noexcept {
    if (detail::lane* const l = std::exchange(lane_, nullptr))
        l->extras->core->release_hold(*l); // the extras stay while a hold is there
}

bool held::stop_requested() const noexcept { return detail::lane_stop_requested(*lane_->extras->core, *lane_); }
std::stop_token held::stop_token() const { return detail::lane_stop_token(*lane_->extras->core, *lane_); }

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
