// SPDX-License-Identifier: Apache-2.0
// Jobs that are worth nothing if they start too late.
//
//     pool.submit("account-7", taskpool::with_deadline(pool.now() + 50ms, [] { answer(); }));
#pragma once

#include <chrono>
#include <type_traits>
#include <utility>

#include <taskpool/export.hpp>
#include <taskpool/job.hpp>
#include <taskpool/status.hpp>

namespace taskpool {

namespace detail {

/// Whether the job begins after `deadline`: then it is reported and counted as discarded, whatever becomes of the
/// exception that is to end it. REQUIRES: called by the job's thread.
TASKPOOL_EXPORT bool expire_if_late(const running_job& job, std::chrono::steady_clock::time_point deadline) noexcept;

/// The callable of with_deadline.
template <class F>
class with_deadline_job {
  public:
    with_deadline_job(std::chrono::steady_clock::time_point deadline, F f) : deadline_(deadline), f_(std::move(f)) {}

    template <class Key>
        requires is_job<Key, F>
    decltype(auto) operator()(const basic_job_context<Key>& context) {
        if (expire_if_late(context_access::job(context), deadline_))
            throw job_expired();
        return call_in_job<Key>(f_, context);
    }

  private:
    std::chrono::steady_clock::time_point deadline_;
    F f_;
};

} // namespace detail

/// A job that is discarded and reported (discard_reason::expired) if it has not started by `deadline`, by the clock of
/// the pool (basic_task_pool::now); for any function that takes a job. Its future says so: job_expired. It is found out
/// when the job's turn comes: until then it takes its room, and is reported no earlier. A job that has begun, and is
/// tried again (retry.hpp), is in time.
template <class F>
auto with_deadline(std::chrono::steady_clock::time_point deadline, F&& f) {
    return detail::with_deadline_job<std::decay_t<F>>(deadline, std::forward<F>(f));
}

} // namespace taskpool
