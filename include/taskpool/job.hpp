// SPDX-License-Identifier: Apache-2.0
// What a job sees while it runs: its context, and the hold by which it keeps its key after it has returned.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <type_traits>
#include <utility>

#include <taskpool/export.hpp>

namespace taskpool {

namespace detail {
struct running_job; // the core's side of a job that runs
struct job_extras;

struct context_access;

TASKPOOL_EXPORT bool stop_requested(const running_job& job) noexcept;
TASKPOOL_EXPORT std::stop_token stop_token(const running_job& job);
TASKPOOL_EXPORT std::uint64_t number(const running_job& job) noexcept;
TASKPOOL_EXPORT std::uint32_t attempt(const running_job& job) noexcept;
TASKPOOL_EXPORT const void* key(const running_job& job) noexcept;
TASKPOOL_EXPORT job_extras* hold(const running_job& job);
TASKPOOL_EXPORT void count_failure(const running_job& job) noexcept; // of a job whose future took the exception
} // namespace detail

/// Keeps a key busy with no thread: while one lives, the next job of the key does not start, although the job that made
/// it has returned. Copies hold as well; the key goes on when the last is released or destroyed, on any thread. The
/// pool counts the job as running until then: drain() and stop() wait for it. One object is not safe to use from two
/// threads at once; two copies are.
class TASKPOOL_EXPORT held {
  public:
    held() noexcept = default;
    held(const held& other) noexcept;
    held(held&& other) noexcept : job_(std::exchange(other.job_, nullptr)) {}
    held& operator=(held other) noexcept {
        std::swap(job_, other.job_);
        return *this;
    }
    ~held() { release(); }

    /// Gives this hold up. Does nothing on one that is empty.
    void release() noexcept;

    /// Whether this object holds a key.
    explicit operator bool() const noexcept { return job_ != nullptr; }

    /// Whether the pool is stopping or the key was cancelled. REQUIRES: not empty.
    bool stop_requested() const noexcept;

    /// Tells of the same, with callbacks; see basic_job_context::stop_token(). REQUIRES: not empty.
    std::stop_token stop_token() const;

  private:
    template <class Key>
    friend class basic_job_context;
    friend class coroutine_context;
    explicit held(detail::job_extras* job) noexcept : job_(job) {}

    detail::job_extras* job_ = nullptr;
};

/// What a job is told. Valid during the call of the job only; all members may be used from any thread meanwhile.
template <class Key>
class basic_job_context {
  public:
    explicit basic_job_context(const detail::running_job& job) noexcept : job_(job) {}
    basic_job_context(const basic_job_context&) = delete;
    basic_job_context& operator=(const basic_job_context&) = delete;

    /// Whether the pool is stopping or the key was cancelled while this job ran. Two loads: fit for a loop.
    bool stop_requested() const noexcept { return detail::stop_requested(job_); }

    /// Tells of the same, with callbacks, which stop() and cancel() call before they return. They tell stop_requested()
    /// first, so a token that was taken before may follow a moment later. Throws std::bad_alloc on its first use for
    /// this job.
    std::stop_token stop_token() const { return detail::stop_token(job_); }

    /// The key. The reference is valid until the key has no work, so beyond the call while the key is held.
    const Key& key() const noexcept { return *static_cast<const Key*>(detail::key(job_)); }

    /// The place of this job among those accepted under its key since the key last had no work: 1, 2, 3, ...
    std::uint64_t number() const noexcept { return detail::number(job_); }

    /// Which attempt this is: 1, and more for a job that threw and is tried again (retry.hpp).
    std::uint32_t attempt() const noexcept { return detail::attempt(job_); }

    /// Keeps the key busy beyond the end of this job. Throws std::bad_alloc.
    [[nodiscard]] held hold() const { return held(detail::hold(job_)); }

  private:
    friend struct detail::context_access;

    const detail::running_job& job_;
};

using job_context = basic_job_context<std::string>;

namespace detail {
struct context_access {
    template <class Key>
    static const running_job& job(const basic_job_context<Key>& context) noexcept {
        return context.job_;
    }
};

template <class Key, class F>
inline constexpr bool is_job = std::is_invocable_v<F&, const basic_job_context<Key>&> ||
                               std::is_invocable_v<F&, std::stop_token> || std::is_invocable_v<F&>;

/// Calls a user's callable in a job, with what it wants to know.
template <class Key, class F, class... Arguments>
decltype(auto) call_in_job(F& f, const basic_job_context<Key>& context, Arguments&&... arguments) {
    if constexpr (std::is_invocable_v<F&, const basic_job_context<Key>&, Arguments...>)
        return std::invoke(f, context, std::forward<Arguments>(arguments)...);
    else if constexpr (std::is_invocable_v<F&, std::stop_token, Arguments...>)
        return std::invoke(f, context.stop_token(), std::forward<Arguments>(arguments)...);
    else
        return std::invoke(f, std::forward<Arguments>(arguments)...);
}
} // namespace detail

} // namespace taskpool
