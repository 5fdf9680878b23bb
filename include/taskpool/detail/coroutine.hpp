// SPDX-License-Identifier: Apache-2.0
// The machinery behind task.hpp: promises, and the awaiters that know lanes. Nothing here is for users.
#pragma once

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include <taskpool/detail/core.hpp>
#include <taskpool/detail/future.hpp>
#include <taskpool/export.hpp>

namespace taskpool {

template <class T>
class task;

namespace detail {

struct task_access; // the compiled side's

// --- The compiled side -----------------------------------------------------------------------------------------------

/// Room for a coroutine_job in a promise, so that a spawned coroutine allocates nothing but its frame.
inline constexpr std::size_t coroutine_job_size = 176;

/// REQUIRES: `room` is aligned for pointers; lives until destroy_coroutine_job.
TASKPOOL_EXPORT coroutine_job* make_coroutine_job(void* room, std::coroutine_handle<> frame, future_core& result,
                                                  bool interleaves) noexcept;
TASKPOOL_EXPORT void destroy_coroutine_job(coroutine_job& job) noexcept;
/// The job that runs or resumes it, for the core to take.
TASKPOOL_EXPORT submit_result submit_coroutine(pool_core& core, const key_view& key, coroutine_job& job,
                                               const job_options& how);
/// It has come to its end; the promise holds the result.
TASKPOOL_EXPORT void set_done(coroutine_job& job) noexcept;
/// The handle to resume when it goes on. REQUIRES: called by the job's own coroutines, which then suspend.
TASKPOOL_EXPORT void suspend_at(coroutine_job& job, std::coroutine_handle<> innermost) noexcept;
/// Lets it go on in its lane's turn. REQUIRES: suspended, or about to be; called once for each time.
TASKPOOL_EXPORT void resume(coroutine_job& job) noexcept;

/// False: do not suspend, the job was asked to stop.
TASKPOOL_EXPORT bool sleep_for(coroutine_job& job, std::chrono::nanoseconds time);
TASKPOOL_EXPORT bool slept_through(coroutine_job& job) noexcept;

TASKPOOL_EXPORT bool stop_requested(const coroutine_job& job) noexcept;
TASKPOOL_EXPORT std::stop_token stop_token(coroutine_job& job);
TASKPOOL_EXPORT job_extras* hold(coroutine_job& job) noexcept;
TASKPOOL_EXPORT std::uint64_t number(const coroutine_job& job) noexcept;
TASKPOOL_EXPORT const void* key(const coroutine_job& job) noexcept;

/// The job that a coroutine is a part of. Throws std::logic_error when there is none.
TASKPOOL_EXPORT coroutine_job& required(coroutine_job* job);

/// Two threads meet: the second one sees what the first one did before.
class TASKPOOL_EXPORT meeting {
  public:
    meeting() noexcept;
    bool is_second() noexcept;

  private:
    std::byte room_[1]; // no atomics in this header
};

// --- Awaiting what belongs to others ---------------------------------------------------------------------------------

template <class T>
concept lane_aware = requires { typename std::remove_cvref_t<T>::is_lane_aware; };

template <class A>
decltype(auto) awaiter_of(A&& awaitable) {
    if constexpr (requires { std::forward<A>(awaitable).operator co_await(); })
        return std::forward<A>(awaitable).operator co_await();
    else if constexpr (requires { operator co_await(std::forward<A>(awaitable)); })
        return operator co_await(std::forward<A>(awaitable));
    else
        return std::forward<A>(awaitable);
}

template <class A>
using await_result = decltype(awaiter_of(std::declval<A>()).await_resume());

/// Awaits what knows nothing of lanes, and would go on wherever it is resumed: a small coroutine awaits it instead, and
/// at its end the job goes on in its lane. That costs one frame.
template <class A>
class foreign_awaiter {
    using result = await_result<A>;
    using stored =
        std::conditional_t<std::is_void_v<result>, std::monostate,
                           std::conditional_t<std::is_reference_v<result>, std::add_pointer_t<result>, result>>;

    struct bridge {
        struct promise_type {
            bridge get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
            std::suspend_always initial_suspend() noexcept { return {}; }
            auto final_suspend() noexcept {
                struct last {
                    bool await_ready() noexcept { return false; }
                    void await_suspend(std::coroutine_handle<promise_type> h) noexcept { h.promise().owner->ended(); }
                    void await_resume() noexcept {}
                };
                return last{};
            }
            void return_void() noexcept {}
            void unhandled_exception() noexcept { owner->error_ = std::current_exception(); }

            foreign_awaiter* owner = nullptr;
        };
        std::coroutine_handle<promise_type> frame;
    };

    static bridge await(foreign_awaiter& self) {
        auto&& awaiter = awaiter_of(std::forward<A>(self.awaitable_)); // named: g++ 12 copies what a call refers to
        if constexpr (std::is_void_v<result>) {
            co_await awaiter;
            self.value_.emplace();
        } else if constexpr (std::is_reference_v<result>) {
            auto&& value = co_await awaiter;
            self.value_.emplace(std::addressof(value));
        } else {
            self.value_.emplace(co_await awaiter);
        }
    }

  public:
    using is_lane_aware = void;

    explicit foreign_awaiter(A&& awaitable) : awaitable_(std::forward<A>(awaitable)) {}
    foreign_awaiter(const foreign_awaiter&) = delete;
    foreign_awaiter& operator=(const foreign_awaiter&) = delete;
    ~foreign_awaiter() {
        if (frame_)
            frame_.destroy();
    }

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> coroutine) {
        job_ = job_of(coroutine);
        coroutine_ = coroutine;
        auto started = await(*this);
        frame_ = started.frame;
        frame_.promise().owner = this;
        if (job_ != nullptr)
            suspend_at(*job_, coroutine);
        frame_.resume();
        return !ends_meet_.is_second(); // the end may have come already
    }
    result await_resume() {
        if (error_)
            std::rethrow_exception(error_);
        if constexpr (std::is_reference_v<result>)
            return static_cast<result>(**value_);
        else if constexpr (!std::is_void_v<result>)
            return std::move(*value_);
    }

  private:
    void ended() noexcept {
        auto* const job = job_;
        const auto coroutine = coroutine_;
        if (!ends_meet_.is_second())
            return; // it has not suspended yet, and does not
        if (job != nullptr)
            resume(*job);
        else
            coroutine.resume();
    }

    A awaitable_; // a reference for an lvalue
    std::coroutine_handle<typename bridge::promise_type> frame_;
    coroutine_job* job_ = nullptr;
    std::coroutine_handle<> coroutine_;
    std::optional<stored> value_;
    std::exception_ptr error_;
    meeting ends_meet_;
};

// --- Promises --------------------------------------------------------------------------------------------------------

class task_promise_base {
  public:
    task_promise_base() noexcept = default;
    task_promise_base(const task_promise_base&) = delete;
    task_promise_base& operator=(const task_promise_base&) = delete;
    ~task_promise_base() {
        if (owns_job_)
            destroy_coroutine_job(*job_);
    }

    std::suspend_always initial_suspend() noexcept { return {}; }

    struct last_awaiter {
        bool await_ready() noexcept { return false; }
        template <class Promise>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> coroutine) noexcept {
            const task_promise_base& self = coroutine.promise();
            if (self.owns_job_)
                set_done(*self.job_);
            return self.parent_ ? self.parent_ : std::noop_coroutine();
        }
        void await_resume() noexcept {}
    };
    last_awaiter final_suspend() noexcept { return {}; }

    template <class A>
    auto await_transform(A&& awaitable) {
        if constexpr (lane_aware<A>)
            return awaiter_of(std::forward<A>(awaitable));
        else
            return foreign_awaiter<A>(std::forward<A>(awaitable));
    }

    coroutine_job* job_of_task() const noexcept { return job_; }

    /// Makes it the job of a spawned coroutine.
    coroutine_job& become_job(std::coroutine_handle<> frame, future_core& result, bool interleaves) noexcept {
        job_ = make_coroutine_job(room_, frame, result, interleaves);
        owns_job_ = true;
        return *job_;
    }
    /// Takes that back: it was not accepted.
    void become_task() noexcept {
        destroy_coroutine_job(*std::exchange(job_, nullptr));
        owns_job_ = false;
    }
    /// Makes it a part of the coroutine that awaits it.
    void join(coroutine_job* job, std::coroutine_handle<> parent) noexcept {
        job_ = job;
        parent_ = parent;
    }

  private:
    coroutine_job* job_ = nullptr;
    std::coroutine_handle<> parent_;
    bool owns_job_ = false;
    alignas(void*) std::byte room_[coroutine_job_size];
};

template <class T>
class task_promise;

/// What the promise of every task has: the state of its result, which outlives the frame's end for a future.
template <class T, class Self>
class task_result : public task_promise_base, public future_state<T> {
  public:
    task_result() noexcept
        : future_state<T>(
              [](future_core& self) noexcept {
                  std::coroutine_handle<Self>::from_promise(static_cast<Self&>(self)).destroy();
              },
              2) {} // they count once it is spawned: the job, and its future

    task<T> get_return_object() noexcept;
    void unhandled_exception() noexcept { this->set_error(std::current_exception()); }
};

template <class T>
class task_promise final : public task_result<T, task_promise<T>> {
  public:
    template <class Value>
        requires std::is_constructible_v<T, Value&&>
    void return_value(Value&& value) {
        this->set_from([&]() -> Value&& { return std::forward<Value>(value); });
    }
};

template <>
class task_promise<void> final : public task_result<void, task_promise<void>> {
  public:
    void return_void() noexcept {}
};

} // namespace detail
} // namespace taskpool
