// SPDX-License-Identifier: Apache-2.0
// What happens to a job that throws, where somebody said that it is to be tried again (retry.hpp, options::retry).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <string_view>
#include <utility>

#include <taskpool/export.hpp>
#include <taskpool/job.hpp>

namespace taskpool {

namespace detail {
struct job_ops;
struct job_slot;
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

    const detail::job_ops* ops_ = nullptr;
    alignas(16) std::byte storage_[32]; // as a slot's
};

/// A job that has failed for the last time. Valid during the call of the handler only, but for what is moved from it.
struct dead_letter {
    std::string_view key;     ///< The key as text, as in a failure.
    std::exception_ptr error; ///< What the last attempt threw.
    std::uint32_t attempts;   ///< How many there were.
    stored_job job;           ///< Empty where the job has a future, which has the exception.
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

} // namespace taskpool
