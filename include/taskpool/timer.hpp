// SPDX-License-Identifier: Apache-2.0
// The handle to a job that was submitted for a later time.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include <taskpool/export.hpp>
#include <taskpool/status.hpp>

namespace taskpool {

namespace detail {
class pool_core;
struct timed_job;
} // namespace detail

/// The answer to submit_after, submit_at and submit_every: whether the job was accepted, and the way to take it back.
/// Destroying it changes nothing: the job runs at its time all the same. Movable; one object is not safe to use from
/// two threads at once, but for cancel(). May outlive the pool.
class TASKPOOL_EXPORT timer {
  public:
    timer() noexcept : timer(submit_status::stopped) {}
    timer(submit_result answer) noexcept : answer_(std::move(answer)) {} // NOLINT: a status is a result
    timer(std::shared_ptr<detail::pool_core> core, detail::timed_job* job) noexcept;
    timer(timer&& other) noexcept
        : answer_(std::move(other.answer_)), core_(std::move(other.core_)), job_(std::exchange(other.job_, nullptr)) {}
    timer& operator=(timer&& other) noexcept;
    ~timer();

    /// accepted; full, when the pool has options::timer_capacity of them; stopped. If it was not accepted, the job is
    /// still the caller's, unmoved.
    submit_status status() const noexcept { return answer_.status(); }
    explicit operator bool() const noexcept { return answer_.accepted(); }

    /// Takes the job back: true when it will not be run (again), false when it has been handed to its lane already, or
    /// had ended. It counts as discarded and is reported (discard_reason::cancelled), unless it repeats; a beat of one
    /// that repeats which runs at this moment runs to its end. Its callable ends with the job, not with the handle: in
    /// this call, or, where the job was due and waited for room, or a beat runs, soon after. Takes microseconds at
    /// most, however many jobs wait. Thread-safe.
    bool cancel() noexcept;

    /// Of one that repeats: beats that were passed over, because the one before had not ended, its lane was full, the
    /// pool was full or overloaded, or the time was missed.
    std::uint64_t missed() const noexcept;

  private:
    submit_result answer_;
    std::shared_ptr<detail::pool_core> core_;
    detail::timed_job* job_ = nullptr;
};

} // namespace taskpool
