// SPDX-License-Identifier: Apache-2.0
// The result of a job submitted with async, which a job of another key may wait for without the risk of a deadlock.
#pragma once

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include <taskpool/detail/core.hpp>
#include <taskpool/export.hpp>
#include <taskpool/status.hpp>

namespace taskpool {

namespace detail {

/// The untyped half of a future's shared state. Compiled: it takes part in the search for cycles of waits.
class TASKPOOL_EXPORT future_core {
  public:
    future_core();
    future_core(const future_core&) = delete;
    future_core& operator=(const future_core&) = delete;

    /// Where the job was accepted. REQUIRES: called once, before the job can run.
    void set_place(const pool_core& pool, const lane& where) noexcept {
        pool_ = &pool;
        lane_ = &where;
    }
    /// REQUIRES: called at most once.
    void finish(std::exception_ptr error) noexcept;
    bool is_ready() const noexcept;
    /// Waits; false when the time was up first. Throws deadlock_error.
    bool wait(patience how_long) const;
    /// REQUIRES: ready.
    const std::exception_ptr& error() const noexcept { return error_; }

  protected:
    ~future_core();

  private:
    struct parts; // mutex and condition, not for this header
    const std::unique_ptr<parts> parts_;
    std::exception_ptr error_;        // written before ready, read after it
    const pool_core* pool_ = nullptr; // these two are valid until ready
    const lane* lane_ = nullptr;
};

template <class T>
struct future_state final : future_core {
    std::optional<T> value;
};
template <>
struct future_state<void> final : future_core {};

/// The job's end of a future: finishes it when the job ran, and as discarded when it is destroyed without.
template <class T>
class promise {
  public:
    explicit promise(std::shared_ptr<future_state<T>> state) noexcept : state_(std::move(state)) {}
    promise(promise&&) noexcept = default;
    promise& operator=(promise&&) = delete;
    ~promise() {
        if (state_)
            state_->finish(std::make_exception_ptr(job_discarded()));
    }

    /// Runs `f`, which yields the value or throws; says whether it threw.
    template <class F>
    bool fulfil(F&& f) noexcept {
        const auto state = std::move(state_);
        std::exception_ptr error;
        try {
            if constexpr (std::is_void_v<T>)
                std::forward<F>(f)();
            else
                state->value.emplace(std::forward<F>(f)());
        } catch (...) {
            error = std::current_exception();
        }
        state->finish(error);
        return error != nullptr;
    }

  private:
    std::shared_ptr<future_state<T>> state_;
};

} // namespace detail

/// The result of one job. Movable, not copyable; one object is not safe to use from two threads at once.
///
/// Waiting from inside a job is allowed where it can end: a wait for a job of the waiting job's own key, or one that
/// closes a cycle of waits between keys, throws deadlock_error at once (G9). A waiting job counts as blocked, so that
/// another thread may take its place.
template <class T>
class [[nodiscard]] future {
  public:
    future() noexcept = default;
    explicit future(std::shared_ptr<detail::future_state<T>> state) noexcept : state_(std::move(state)) {}

    /// Whether there is a result to wait for: not after get(), not when default-constructed.
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
        const auto state = std::move(state_);
        if (state->error())
            std::rethrow_exception(state->error());
        if constexpr (!std::is_void_v<T>)
            return std::move(*state->value);
    }

  private:
    std::shared_ptr<detail::future_state<T>> state_;
};

} // namespace taskpool
