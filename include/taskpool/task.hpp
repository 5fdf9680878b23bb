// SPDX-License-Identifier: Apache-2.0
// Coroutines whose lane waits with them: tasks, and what they may await. basic_task_pool::spawn starts one under a key,
// basic_task_pool::run calls a function under another key from inside one.
//
// A spawned coroutine is a job. It runs on the pool's workers, and its lane is held, with no thread, while it is
// suspended (or lends the lane to the key's other jobs meanwhile: suspension::interleave). Whatever it awaits, it goes
// on in its lane: two of its stretches, or a stretch and another job of the key, never overlap (G2), and the end of one
// happens-before the start of the next.
//
//     taskpool::task<int> balance(account& a) {
//         co_await taskpool::sleep_for(10ms); // no thread waits
//         co_return a.total;
//     }
//     pool.spawn("account-7", balance(a));
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <optional>
#include <stop_token>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <taskpool/detail/coroutine.hpp>
#include <taskpool/future.hpp>
#include <taskpool/job.hpp>
#include <taskpool/options.hpp>

namespace taskpool {

/// A coroutine that yields a `T` or throws, and does not begin before it is awaited or spawned. Movable, not copyable;
/// owns the coroutine's frame and destroys it, wherever it is suspended, unless a spawn has taken it over. Not to be
/// destroyed while it is being awaited. Not thread-safe.
///
/// Mind what every coroutine in C++ must mind: it copies its parameters, and keeps nothing else alive. A lambda's
/// captures are not parameters: pass them as such, or spawn the lambda itself.
template <class T = void>
class [[nodiscard]] task {
  public:
    using promise_type = detail::task_promise<T>;

    task() noexcept = default;
    explicit task(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}
    task(task&& other) noexcept : frame_(std::exchange(other.frame_, {})) {}
    task& operator=(task other) noexcept {
        std::swap(frame_, other.frame_);
        return *this;
    }
    ~task() {
        if (frame_)
            frame_.destroy();
    }

    /// Whether there is a coroutine: not when default-constructed, moved from, or taken over by a spawn.
    bool valid() const noexcept { return static_cast<bool>(frame_); }

    /// `co_await task`: runs it on the spot, as a part of the awaiting coroutine; gives its value or throws what it
    /// threw. REQUIRES: valid().
    auto operator co_await() && noexcept { return awaiter{std::move(*this)}; }

    using is_lane_aware = void;

  private:
    template <class, class, class>
    friend class basic_task_pool;
    friend struct detail::task_access;

    struct awaiter {
        using is_lane_aware = void;
        task of;

        bool await_ready() const noexcept { return false; }
        template <class Promise>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> parent) noexcept {
            of.frame_.promise().join(detail::job_of(parent), parent);
            return of.frame_;
        }
        T await_resume() { return of.frame_.promise().take(); }
    };

    std::coroutine_handle<promise_type> frame_;
};

/// What happens to the lane of a coroutine while the coroutine is suspended.
enum class suspension : std::uint8_t {
    hold,       ///< The key waits: its next job starts when the coroutine has ended.
    interleave, ///< Other jobs of the key run. When the coroutine can go on, it queues behind those that wait then.
};

/// What may be said of a coroutine when it is spawned.
struct spawn_options {
    suspension while_suspended = suspension::hold;            ///< What the key does meanwhile.
    stop_action on_stop = stop_action::discard;               ///< What stop() does with it while it has not begun.
    taskpool::priority priority = taskpool::priority::normal; ///< How its key takes turns until it begins.
};

/// What a coroutine is told of its job: `const auto job = co_await taskpool::this_job();`. Small and copyable, valid
/// until the coroutine ends; thread-safe.
class coroutine_context {
  public:
    explicit coroutine_context(detail::coroutine_job& job) noexcept : job_(&job) {}

    /// Whether the pool is stopping or the key was cancelled since this coroutine began.
    bool stop_requested() const noexcept { return detail::stop_requested(*job_); }

    /// Tells of the same, with callbacks; see basic_job_context::stop_token().
    std::stop_token stop_token() const { return detail::stop_token(*job_); }

    /// The key. REQUIRES: `Key` is the pool's.
    template <class Key = std::string>
    const Key& key() const noexcept {
        return *static_cast<const Key*>(detail::key(*job_));
    }

    /// The place of the job among those accepted under its key since the key last had no work, as basic_job_context
    /// tells it. Each time an interleaving coroutine goes on takes a place, too.
    std::uint64_t number() const noexcept { return detail::number(*job_); }

    /// Keeps the key busy beyond the coroutine's end.
    [[nodiscard]] held hold() const noexcept { return held(detail::hold(*job_)); }

  private:
    detail::coroutine_job* job_;
};

namespace detail {

template <class Task>
struct task_value {};
template <class T>
struct task_value<task<T>> {
    using type = T;
};

struct context_awaiter {
    using is_lane_aware = void;
    coroutine_job* job = nullptr;

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> coroutine) noexcept {
        job = job_of(coroutine);
        return false;
    }
    coroutine_context await_resume() const { return coroutine_context(required(job)); }
};

struct sleep_awaiter {
    using is_lane_aware = void;
    std::chrono::nanoseconds time;
    coroutine_job* job = nullptr;

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> coroutine) {
        job = &required(job_of(coroutine));
        suspend_at(*job, coroutine);
        return detail::sleep_for(*job, time);
    }
    bool await_resume() const noexcept { return slept_through(*job); }
};

struct yield_awaiter {
    using is_lane_aware = void;

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> coroutine) {
        auto& job = required(job_of(coroutine));
        suspend_at(job, coroutine);
        resume(job);
    }
    void await_resume() const noexcept {}
};

/// A relative time as nanoseconds; what lies beyond their end is as long as they can tell.
template <class Rep, class Period>
std::chrono::nanoseconds clamped(const std::chrono::duration<Rep, Period>& time) noexcept {
    using seconds = std::chrono::duration<double>;
    constexpr auto longest = std::chrono::nanoseconds::max() / 2;
    if (time <= time.zero())
        return {};
    return seconds(time) >= seconds(longest) ? longest : std::chrono::ceil<std::chrono::nanoseconds>(time);
}

/// The same for a time of the clock: the first one of its ticks that is not before, or its first or last one of all.
template <class Duration>
clock::time_point clamped(const std::chrono::time_point<clock, Duration>& time) noexcept {
    using seconds = std::chrono::duration<double>;
    constexpr auto longest = clock::duration::max() / 2;
    const auto since = time.time_since_epoch();
    if (seconds(since) >= seconds(longest))
        return clock::time_point::max();
    return seconds(since) <= -seconds(longest) ? clock::time_point::min()
                                               : clock::time_point(std::chrono::ceil<clock::duration>(since));
}

/// basic_task_pool::run: a call whose state lies in the awaiting coroutine's frame.
template <class Key, class F>
class run_operation {
    using result = job_result<Key, F>;
    struct caller {
        F f;
        decltype(auto) operator()(const basic_job_context<Key>& context) { return call_in_job<Key>(f, context); }
    };
    using call = job_call<Key, result, caller>;

  public:
    using is_lane_aware = void;

    run_operation(std::shared_ptr<pool_core> core, const key_view& key, F&& f)
        : state_(std::in_place, std::move(core), key, caller{std::move(f)}, nullptr) {}
    run_operation(const run_operation&) = delete;
    run_operation& operator=(const run_operation&) = delete;

    auto operator co_await() && noexcept { return awaiter{*this}; }

  private:
    struct awaiter {
        run_operation& of; // it outlives the co_await that it stands in

        bool await_ready() const noexcept { return false; }
        template <class Promise>
        void await_suspend(std::coroutine_handle<Promise> coroutine) {
            of.waiter_.job = job_of(coroutine);
            of.waiter_.coroutine = coroutine;
            await_future(*of.state_, of.waiter_); // before it can end; throws before it has begun
            of.state_->start();
        }
        result await_resume() { return of.state_->take(); }
    };

    std::optional<call> state_;
    coroutine_waiter waiter_;
};

/// What a callable's task yields.
template <class F>
using made_by = typename task_value<std::decay_t<std::invoke_result_t<std::decay_t<F>&>>>::type;

/// A callable that makes a task, to be kept as long as the coroutine.
template <class F>
concept task_maker = !std::is_lvalue_reference_v<F> && requires { typename made_by<F>; };

/// Whether a callable that takes what jobs take would make a task.
template <class Key, class F>
concept makes_task = requires { typename task_value<job_result<Key, F>>::type; };

template <class T, class F>
task<T> make_and_await(F make) {
    F used(std::move(make)); // ends with the coroutine, before its job does: what it owns may hold the key
    co_return co_await used();
}

/// What when_all keeps of a result: the value, std::monostate for void.
template <class T>
using kept = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

} // namespace detail

/// `co_await this_job()`: the context of the coroutine's job. Throws std::logic_error in a coroutine that was not
/// spawned, like the next two.
inline detail::context_awaiter this_job() noexcept { return {}; }

/// `co_await sleep_for(d)`: lets `d` pass on the pool's clock, in steps of its tick of 1 ms and never less, with no
/// thread waiting. True when it has passed; false, at once, when the job was asked to stop.
template <class Rep, class Period>
detail::sleep_awaiter sleep_for(const std::chrono::duration<Rep, Period>& time) noexcept {
    return {detail::clamped(time)};
}

/// `co_await yield()`: lets older work go first; with suspension::interleave also the key's own waiting jobs.
inline detail::yield_awaiter yield() noexcept { return {}; }

namespace detail {

template <class T, class Key>
task<> keep_result(future<T, Key>& from, std::optional<kept<T>>& to, std::exception_ptr& first_error) {
    try {
        if constexpr (std::is_void_v<T>) {
            co_await std::move(from);
            to.emplace();
        } else {
            to.emplace(co_await std::move(from));
        }
    } catch (...) {
        if (!first_error)
            first_error = std::current_exception();
    }
}

} // namespace detail

/// Awaits all futures, and gives their values in the same order (std::monostate for void). When some failed, throws the
/// first one's exception after all have ended. Nothing is started here: the futures' jobs run already.
template <class... T, class... Key>
task<std::tuple<detail::kept<T>...>> when_all(future<T, Key>... futures) {
    std::exception_ptr error;
    std::tuple<std::optional<detail::kept<T>>...> values;
    std::tuple<future<T, Key>&...> all(futures...);
    auto tasks = [&]<std::size_t... I>(std::index_sequence<I...>) {
        return std::array<task<>, sizeof...(T)>{detail::keep_result(std::get<I>(all), std::get<I>(values), error)...};
    }(std::index_sequence_for<T...>());
    for (auto& one : tasks) // one after the other: the jobs run at the same time all the same
        co_await std::move(one);
    if (error)
        std::rethrow_exception(error);
    co_return std::apply([](auto&... value) { return std::tuple<detail::kept<T>...>(std::move(*value)...); }, values);
}

/// The same for any number of one kind.
template <class T, class Key>
task<std::vector<detail::kept<T>>> when_all(std::vector<future<T, Key>> futures) {
    std::exception_ptr error;
    std::vector<detail::kept<T>> values;
    values.reserve(futures.size());
    for (auto& one : futures) {
        try {
            if constexpr (std::is_void_v<T>) {
                co_await std::move(one);
                values.emplace_back();
            } else {
                values.push_back(co_await std::move(one));
            }
        } catch (...) {
            if (!error)
                error = std::current_exception();
        }
    }
    if (error)
        std::rethrow_exception(error);
    co_return values;
}

template <class T, class Self>
task<T> detail::task_result<T, Self>::get_return_object() noexcept {
    return task<T>(std::coroutine_handle<Self>::from_promise(static_cast<Self&>(*this)));
}

} // namespace taskpool
