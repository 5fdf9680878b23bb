// SPDX-License-Identifier: Apache-2.0
// Jobs that are tried again when they throw. The failed job keeps its place at the head of its key: no other job of the
// key starts before it has succeeded or been given up, other keys go on, and no thread waits.
//
//     pool.submit("account-7", taskpool::with_retry({.max_attempts = 5}, [](const taskpool::job_context& context) {
//         send(context.key(), context.attempt()); // may throw
//     }));
//
// options::retry does the same for all jobs of a pool.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

#include <taskpool/detail/future.hpp>
#include <taskpool/export.hpp>
#include <taskpool/job.hpp>
#include <taskpool/retry_policy.hpp>

namespace taskpool {

namespace detail {

/// The job has thrown: decides what becomes of it, unless that has been decided. REQUIRES: called by the job's thread,
/// in a handler of the exception.
TASKPOOL_EXPORT void judge(const running_job& job, const retry& policy) noexcept;

/// A policy, or a std::invalid_argument that says what is wrong with it.
TASKPOOL_EXPORT const retry& checked_policy(const retry& policy);

/// The callable of with_retry.
template <class F>
class retried {
  public:
    retried(std::shared_ptr<const retry> policy, F f) : policy_(std::move(policy)), f_(std::move(f)) {}

    template <class Key>
        requires is_job<Key, F>
    decltype(auto) operator()(const basic_job_context<Key>& context) {
        try {
            return call_in_job<Key>(f_, context);
        } catch (...) {
            judge(context_access::job(context), *policy_);
            throw;
        }
    }

  private:
    std::shared_ptr<const retry> policy_;
    F f_;
};

} // namespace detail

/// A job that is tried again as `policy` says when `f` throws; for any function that takes a job. `f` is kept for the
/// next attempt, so it must not give its captures away. An attempt after which a hold lives on is not repeated, nor one
/// that was asked to stop. Throws std::invalid_argument for a policy that makes no sense, std::bad_alloc.
template <class F>
auto with_retry(std::shared_ptr<const retry> policy, F&& f) {
    detail::checked_policy(*policy);
    return detail::retried<std::decay_t<F>>(std::move(policy), std::forward<F>(f));
}
template <class F>
auto with_retry(retry policy, F&& f) {
    return with_retry(std::make_shared<const retry>(std::move(policy)), std::forward<F>(f));
}

} // namespace taskpool
