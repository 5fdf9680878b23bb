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
#include <string_view>
#include <type_traits>
#include <utility>

#include <taskpool/export.hpp>
#include <taskpool/job.hpp>

namespace taskpool {

namespace detail {
struct job_ops;
struct stored_job_access;
} // namespace detail

/// How long a failed job waits for its next attempt: `first`, then each time `factor` times as long, up to `max`, less
/// a part of it that is left to chance, so that keys that failed together do not come back together. (The waits of one
/// key need no more than that: they are not drawn from zero, as in Brooker's "full jitter" of 2015.)
struct backoff {
    std::chrono::nanoseconds first = std::chrono::milliseconds(100); ///< Not negative. In steps of a tick of 1 ms.
    double factor = 2.0;                                             ///< At least 1.
    std::chrono::nanoseconds max = std::chrono::seconds(30);         ///< Not less than `first`.
    double jitter = 0.5; ///< From 0 to 1: each wait is from (1 - jitter) times to once what it would be.
};

/// What becomes of the key of a job that has failed for the last time.
enum class given_up : std::uint8_t {
    skip,  ///< Its next job runs.
    pause, ///< It is paused, until basic_task_pool::resume.
};

/// A job that was taken out of its lane. Movable, not copyable; owns the callable, and destroys it, in a job or on any
/// thread. May be submitted again, to a pool with keys of the same type. Not thread-safe.
class TASKPOOL_EXPORT stored_job {
  public:
    stored_job() noexcept = default;
    stored_job(stored_job&& other) noexcept;
    stored_job& operator=(stored_job other) noexcept;
    ~stored_job();

    /// Whether there is a job.
    explicit operator bool() const noexcept { return ops_ != nullptr; }

    /// Runs it, as a pool does. REQUIRES: there is a job, of a pool with the same type of keys.
    template <class Key>
    void operator()(const basic_job_context<Key>& context) {
        run(detail::context_access::job(context));
    }

  private:
    friend struct detail::stored_job_access;

    void run(const detail::running_job& job);
    void take(stored_job& from) noexcept;
    void clear() noexcept;

    const detail::job_ops* ops_ = nullptr;
    alignas(16) std::byte storage_[32]; // as a slot's
};

/// A job that has failed for the last time. Valid during the call of the handler only, but for what is moved from it.
struct dead_letter {
    std::string_view key;     ///< The key as text, as in a failure.
    std::exception_ptr error; ///< What the last attempt threw.
    std::uint32_t attempts;   ///< How many there were.
    stored_job job;           ///< Empty where the job has a future, or repeats (submit_every).
};

/// When a job that throws is tried again, and what happens when it is not. The functions are called on the thread that
/// ran the job, from several threads at once; what they throw counts as false.
struct retry {
    std::uint32_t max_attempts = 3;                           ///< In all, the first included. At least 1.
    taskpool::backoff backoff = {};                           ///< How long the key waits between two of them.
    std::function<bool(const std::exception_ptr&)> when = {}; ///< Whether this exception is worth it. Default: all.
    given_up then = given_up::skip;                           ///< What the key does after the last attempt.
    std::function<void(dead_letter&&)> handler = {};          ///< Gets the job then, instead of options::on_failure.
};

namespace detail {

/// The job has thrown: decides what becomes of it, unless that has been decided. REQUIRES: called by the job's thread,
/// in a handler of the exception.
TASKPOOL_EXPORT void judge(const running_job& job, const std::shared_ptr<const retry>& policy) noexcept;

/// Throws a std::invalid_argument that says what is wrong with a policy, or that there is none.
TASKPOOL_EXPORT void check(const retry* policy);

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
            judge(context_access::job(context), policy_);
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
    detail::check(policy.get());
    return detail::retried<std::decay_t<F>>(std::move(policy), std::forward<F>(f));
}
template <class F>
auto with_retry(retry policy, F&& f) {
    return with_retry(std::make_shared<const retry>(std::move(policy)), std::forward<F>(f));
}

} // namespace taskpool
