// SPDX-License-Identifier: Apache-2.0
// The result of a job submitted with async or spawn, which a job of another key may wait for without the risk of a
// deadlock, a coroutine may await, and another job may follow.
#pragma once

#include <chrono>
#include <coroutine>
#include <exception>
#include <future>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <taskpool/detail/future.hpp>
#include <taskpool/export.hpp>
#include <taskpool/status.hpp>

namespace taskpool {

/// The result of one job of a pool with keys of type `Key`. Movable, not copyable; one object is not safe to use from
/// two threads at once. Destroying it neither waits nor cancels the job. What a job throws after its future was dropped
/// goes to the pool's failure handler, as that of any job does (G10); dropped later, the exception goes with it, so who
/// wants no result had better submit.
///
/// Waiting from inside a job is allowed where it can end: a wait for a job of the waiting job's own key, or one that
/// closes a cycle of waits between keys, throws deadlock_error at once (G9). A waiting job counts as blocked, so that
/// another thread may take its place; a waiting coroutine needs no thread.
///
///     pool.async("a", [] { return 20; });               // a job whose result nobody wants
///     int n = pool.async("a", [] { return 20; }).get(); // waits
///     int m = co_await pool.async("a", [] { return 20; }); // in a coroutine: waits with no thread
///     auto next = pool.async("a", [] { return 20; }).then("b", [](int n) { return n + 1; });
template <class T, class Key = std::string>
class future {
  public:
    future() noexcept = default;
    future(detail::future_ref<T> state, std::shared_ptr<detail::pool_core> core) noexcept
        : state_(std::move(state)), core_(std::move(core)) {}

    /// Whether there is a result to wait for: not after get(), then() or a conversion, not when default-constructed.
    bool valid() const noexcept { return state_ != nullptr; }

    /// Whether get() would return at once. REQUIRES: valid().
    bool is_ready() const noexcept { return state_->is_ready(); }

    /// Waits until the job has ended or was discarded. Throws deadlock_error. REQUIRES: valid().
    void wait() const { state_->wait({detail::patience::for_ever}); }

    /// The same up to a time; whether the result is there. Throws deadlock_error. REQUIRES: valid().
    template <class Rep, class Period>
    [[nodiscard]] bool wait_for(const std::chrono::duration<Rep, Period>& time) const {
        return state_->wait(detail::patience_for(time));
    }
    template <class Duration>
    [[nodiscard]] bool wait_until(const std::chrono::time_point<detail::clock, Duration>& time) const {
        return state_->wait(detail::patience_until(time));
    }

    /// Waits, then moves the value out or throws what the job threw; job_discarded when it was discarded, job_rejected
    /// when it was never accepted, deadlock_error when waiting would never end (then the future stays valid).
    /// REQUIRES: valid().
    T get() {
        wait();
        return std::exchange(state_, nullptr)->take();
    }

    /// Submits `f` under `key` of the same pool once the result is there, with the value as its argument (with none for
    /// void), and gives a future for what it returns. If the job failed or was discarded, `f` is not called, and that
    /// exception is the result. Nobody waits: where the lane is full at that time, the pool submits `f` as soon as
    /// there is room; once the pool is closed, the result is job_rejected. `key` is copied. `f` may take the context or
    /// a std::stop_token before the value. One allocation. Throws std::bad_alloc. REQUIRES: valid().
    template <class F>
    auto then(detail::view_of<Key> key, F&& f) && {
        const detail::key_view view{&key, detail::hash_of(*core_, &key)};
        auto after = detail::continue_with<Key>(core_, view, std::move(state_), std::forward<F>(f));
        return future<detail::continuation_result<Key, T, F>, Key>(std::move(after), std::move(core_));
    }

    /// `co_await future`: the same as get(), with no thread waiting; a coroutine of a pool goes on in its own lane, any
    /// other one on the thread that ended the job. Throws what get() throws; the future is given up even then.
    /// REQUIRES: valid().
    auto operator co_await() && { return detail::future_awaiter<T>(std::move(state_)); }
    using is_lane_aware = void; // for the coroutines of task.hpp

    /// For interfaces that want one. One allocation more. REQUIRES: valid().
    operator std::future<T>() && { return detail::to_std_future(std::move(state_)); } // NOLINT: a conversion

  private:
    detail::future_ref<T> state_;
    std::shared_ptr<detail::pool_core> core_;
};

} // namespace taskpool
