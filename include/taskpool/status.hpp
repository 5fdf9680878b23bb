// SPDX-License-Identifier: Apache-2.0
// What a submit answers, and the errors that waits throw.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <taskpool/export.hpp>

namespace taskpool {

/// The answer to a submit. Only `accepted` means that the pool has taken the job; in every other case the job is still
/// the caller's, unmoved (G5).
enum class submit_status : std::uint8_t {
    accepted,       ///< The job will run exactly once, or be discarded by stop or cancel and reported.
    full,           ///< The key's lane or the pool holds as many waiting jobs as it may, and the call does not wait.
    timed_out,      ///< It was still full when the caller's time was up.
    stopped,        ///< The pool was closed or stopped, or this is the child of a fork.
    would_deadlock, ///< Waiting for room would never end: submit_result::message() names the keys of the cycle.
    rate_limited,   ///< As `full`: the lane is, and its key waits for its rate (rate.hpp).
    overloaded,     ///< Ready keys wait for a worker for longer than options::max_wait. No call waits for that to end.
};

/// The status in words: "accepted", "full", "timed out", "stopped", "would deadlock", "rate limited",
/// "overloaded".
TASKPOOL_EXPORT std::string_view to_string(submit_status status) noexcept;

/// A submit_status, with the reason where there is more to say. Converts to the status, and to true when accepted.
class submit_result {
  public:
    submit_result(submit_status status) noexcept : status_(status) {} // NOLINT: a status is a result

    submit_result(submit_status status, std::string why)
        : status_(status), why_(std::make_shared<const std::string>(std::move(why))) {}

    submit_status status() const noexcept { return status_; }

    bool accepted() const noexcept { return status_ == submit_status::accepted; }

    explicit operator bool() const noexcept { return accepted(); }

    friend bool operator==(const submit_result& result, submit_status status) noexcept {
        return result.status_ == status;
    }

    /// The status in words, followed by the keys of the cycle where it is would_deadlock.
    std::string_view message() const noexcept { return why_ ? std::string_view(*why_) : to_string(status_); }

  private:
    submit_status status_;
    std::shared_ptr<const std::string> why_;
};

/// Thrown by a wait inside a job that could never end (G9): for the job's own key, for keys whose jobs wait for this
/// one, for the whole pool, or when every thread the pool may have waits already.
class TASKPOOL_EXPORT deadlock_error : public std::logic_error {
  public:
    deadlock_error(const std::string& what, std::vector<std::string> keys);

    /// The keys of the cycle in the order in which they wait, beginning with the key of the job that asked.
    const std::vector<std::string>& keys() const noexcept { return *keys_; }

  private:
    std::shared_ptr<const std::vector<std::string>> keys_;
};

/// What a future holds when its job was accepted and then discarded by stop, cancel or an overflow rule.
class TASKPOOL_EXPORT job_discarded : public std::exception {
  public:
    const char* what() const noexcept override;
};

/// The same when its turn came after its deadline (deadline.hpp).
class TASKPOOL_EXPORT job_expired : public job_discarded {
  public:
    const char* what() const noexcept override;
};

/// What a future holds when its job was never accepted.
class TASKPOOL_EXPORT job_rejected : public std::runtime_error {
  public:
    explicit job_rejected(const submit_result& result);

    submit_status status() const noexcept { return status_; }

  private:
    submit_status status_;
};

} // namespace taskpool
