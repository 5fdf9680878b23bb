// SPDX-License-Identifier: Apache-2.0
// A pool for tests: no threads and no real time, and the same order of jobs in every run.
//
//     taskpool::testing::manual_pool pool;
//     session s(pool);                   // the code under test, which takes a task_pool&
//     s.log_in("user-7");                // nothing has run yet
//     pool.run_for(30min);               // runs all that comes due within half an hour, in no time
//     EXPECT_FALSE(s.is_logged_in("user-7"));
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include <taskpool/export.hpp>
#include <taskpool/manual_clock.hpp>
#include <taskpool/task_pool.hpp>

namespace taskpool {

namespace detail {

TASKPOOL_EXPORT bool step(pool_core& core);
TASKPOOL_EXPORT std::size_t run_until_idle(pool_core& core);
TASKPOOL_EXPORT std::size_t run_until(pool_core& core, clock::time_point time);
TASKPOOL_EXPORT manual_clock& clock_of(pool_core& core) noexcept;

TASKPOOL_EXPORT std::optional<std::uint64_t> seed_to_replay();
TASKPOOL_EXPORT void report_seed(std::uint64_t seed) noexcept;

} // namespace detail

namespace testing {

/// A pool whose jobs run when its user says so, on the user's thread: a basic_task_pool in all else, with the same
/// guarantees, to be handed to the code under test as one. One thread at a time may use it.
///
/// Order. Without a seed jobs run in the order in which they were submitted, exactly (G4), and G1 and G2 as ever; a
/// coroutine that goes on, and a job whose time has come, count from then. Under a seed each of them takes a random
/// place instead, though none before an older one of its key: so which ready key goes next is random, but the same seed
/// gives the same order in every run and on every machine (but for what stop() does at once, which goes by hashes).
///
/// Time. now() stands still but for run_for(), run_until(), clock() and waits. A time that is waited for passes at
/// once.
///
/// Waits. What would block the thread (future::get and wait, a submit to a full lane, drain, stop, the destructor) runs
/// jobs instead, one by one, until it is fulfilled. When nothing is ready it lets time pass, up to the next timer, or
/// to its own deadline. When there is no timer either, or after a hundred thousand of them, a wait without a deadline
/// throws deadlock_error, with the keys that still have work (a submit answers would_deadlock; the destructor says so
/// on stderr and leaves the pool's memory be). What the pool does not see, such as a std::future or a latch that a job
/// waits at, blocks for ever.
///
/// Jobs that wait. A wait inside a job runs other jobs on top of it, on the same stack: first those that it waits for,
/// and others where these are not ready. Where one of the others comes to wait for a job below it, it gets
/// deadlock_error, which threads would not need.
///
/// Options: `threads` and `name` mean nothing; `clock` may be given. stats().threads is 0, and the histograms are
/// empty.
template <class Key, class Hash = detail::default_hash<Key>, class Equal = std::equal_to<>>
class basic_manual_pool : public basic_task_pool<Key, Hash, Equal> {
    using base = basic_task_pool<Key, Hash, Equal>;

  public:
    /// Throws std::invalid_argument and std::bad_alloc, as the base does.
    explicit basic_manual_pool(options settings = {}, std::optional<std::uint64_t> seed = {}, Hash hash = {},
                               Equal equal = {})
        : base(detail::manual_mode{seed}, std::move(settings), std::move(hash), std::move(equal)) {}

    /// Runs one job, or one stretch of a coroutine. False when nothing was ready. May be called inside a job, like the
    /// next three. All throw std::bad_alloc.
    bool step() { return detail::step(this->core()); }

    /// Runs jobs until nothing is ready, and no time passes. How many ran. A pool with a job that always submits
    /// another is never idle.
    std::size_t run_until_idle() { return detail::run_until_idle(this->core()); }

    /// Runs what is ready, then lets time pass from one timer to the next, and runs what becomes ready each time, up to
    /// `time` and what is due then; now() is `time` afterwards, unless it was later before. How many jobs ran.
    std::size_t run_until(std::chrono::steady_clock::time_point time) { return detail::run_until(this->core(), time); }

    /// The same for so long from now().
    template <class Rep, class Period>
    std::size_t run_for(const std::chrono::duration<Rep, Period>& time) {
        return run_until(this->now() + detail::clamped(time));
    }

    /// The clock, which begins at zero unless options::clock says otherwise. Who moves it by hand, instead of
    /// run_for(), leaps over the timers on the way: they are late, and beats are missed. The next step fires them.
    manual_clock& clock() noexcept { return detail::clock_of(this->core()); }
};

/// A manual pool whose keys are strings.
using manual_pool = basic_manual_pool<std::string>;

/// Calls `test` with each seed from 1 to `count`: a callable that takes one, makes a pool under it, and fails by an
/// exception or by returning false. At the first failure it prints the seed on stderr and stops: it throws the
/// exception on, or returns false. With TASKPOOL_SEED=N in the environment it runs only that seed. Throws
/// std::invalid_argument where that is not a number.
///
///     EXPECT_TRUE(taskpool::testing::for_each_seed(1000, [](std::uint64_t seed) {
///         taskpool::testing::manual_pool pool({}, seed);
///         return transfers_keep_the_total(pool);
///     }));
template <class F>
bool for_each_seed(std::uint64_t count, F&& test) {
    const auto only = detail::seed_to_replay();
    for (std::uint64_t i = 0; i < (only ? 1 : count); ++i) {
        const std::uint64_t seed = only.value_or(i + 1);
        bool passed = true;
        try {
            if constexpr (std::is_void_v<std::invoke_result_t<F&, std::uint64_t>>)
                std::invoke(test, seed);
            else
                passed = static_cast<bool>(std::invoke(test, seed));
        } catch (...) {
            detail::report_seed(seed);
            throw;
        }
        if (!passed) {
            detail::report_seed(seed);
            return false;
        }
    }
    return true;
}

} // namespace testing

} // namespace taskpool
