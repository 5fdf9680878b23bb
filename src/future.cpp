// SPDX-License-Identifier: Apache-2.0
#include <taskpool/future.hpp>

#include <mutex>
#include <utility>

#include "pool_core.hpp"
#include "sync.hpp"
#include "wait_graph.hpp"

namespace taskpool::detail {

struct future_core::parts {
    sync::mutex mutex;
    sync::condition_variable changed;
    // Under mutex:
    bool ready = false;
    bool jobs_wait = false; // some wait may be recorded in the wait graph
};

future_core::future_core() : parts_(std::make_unique<parts>()) {}
future_core::~future_core() = default;

void future_core::finish(std::exception_ptr error) noexcept {
    bool jobs_wait = false;
    {
        const std::lock_guard lock(parts_->mutex);
        error_ = std::move(error);
        parts_->ready = true;
        jobs_wait = parts_->jobs_wait;
        parts_->changed.notify_all();
    }
    // The lane that the waits name is there until this call returns (I-GRAPH-1).
    if (jobs_wait)
        wait_graph::instance().forget(this);
}

bool future_core::is_ready() const noexcept {
    const std::lock_guard lock(parts_->mutex);
    return parts_->ready;
}

bool future_core::wait(patience how_long) const {
    const auto is_ready = [&] { return parts_->ready; };
    std::unique_lock lock(parts_->mutex);
    if (parts_->ready)
        return true;
    const auto sleep = [&] {
        if (how_long.kind == patience::until_deadline)
            return parts_->changed.wait_until(lock, how_long.deadline, is_ready);
        parts_->changed.wait(lock, is_ready);
        return true;
    };
    running_job* const job = current_job();
    if (job == nullptr || lane_ == nullptr)
        return sleep();
    parts_->jobs_wait = true;
    lock.unlock();
    // If it is finished from here on, either enter() sees that it is ready, or forget() comes after it.
    const job_wait waits(job, {.for_lane = lane_, .in = pool_, .future = this},
                         how_long.kind == patience::until_deadline);
    lock.lock();
    const bool came = sleep();
    lock.unlock(); // the wait graph's lock comes before a future's, and the wait leaves it now
    return came;
}

} // namespace taskpool::detail
