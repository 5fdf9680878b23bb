// SPDX-License-Identifier: Apache-2.0
// What drives a pool without threads: whoever waits for it, or steps it. The core's side of testing.hpp.
//
// Lanes, ready queue, timers and all the rest are as in any pool. What is different:
//
//   - There is neither a keeper nor a worker's thread. A *step* does what the keeper does in a tick and then what a
//     worker does with one job. One thread at a time uses such a pool.
//   - Ages are numbers, or random (tick_clock::use_stamps): so the ready queue gives the lane whose next job was
//     submitted first, exactly, or some lane that only the seed decides.
//   - Who waits (future.cpp, submit.cpp, drain.cpp) calls wait() instead of sleeping. It steps while anything is ready;
//     when nothing is, it moves the clock to the next timer; when there is none either, the wait would never end.
//
// A wait inside a job runs other jobs on top of it, on the same stack, each level with a worker of its own, so that
// what the pool counts of running and blocked jobs is right. A job can then only go on when those above it have ended.
// So that none of them comes to wait for one below it, the lane that the waiting job waits for goes first; and since
// the wait graph holds no cycles, a chain of such waits ends. Other lanes' jobs run only where that lane is not ready.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <taskpool/detail/core.hpp>

#include "tick_clock.hpp"

namespace taskpool::detail {

class pool_core;
struct worker;

class manual_driver {
  public:
    explicit manual_driver(pool_core& core) noexcept : core_(core) {}

    /// Runs one job; false when nothing is ready. Throws std::bad_alloc before anything has happened.
    bool step();
    /// Both give the number of jobs that were run.
    std::size_t run_until_idle();
    std::size_t run_until(clock::time_point time);

    /// Runs jobs, and lets time pass, until `done()`; false when the time was up first. Inside a job the jobs of
    /// `lane`, if any, go first. Throws deadlock_error when nothing is left that could bring it about.
    template <class Done>
    bool wait(const patience& how_long, const lane* wanted, Done done) {
        waiting w(*this, how_long, wanted);
        while (!done())
            if (!w.step() && !done() && !w.let_time_pass()) // done: by what a step does besides
                return done();
        return true;
    }

    /// The pool's time: how long lanes wait is measured by that, not by what numbers them.
    tick now() const noexcept;

    /// Whether it does what the keeper does otherwise; what is discarded by that must not wait for the pool.
    bool is_settling() const noexcept { return settling_; }

    /// While one lives, stop() is at work: a second one, on the same stack, would wait for the first. Throws
    /// deadlock_error. REQUIRES: a driver or null.
    class stop_scope {
      public:
        explicit stop_scope(manual_driver* driver);
        ~stop_scope();
        stop_scope(const stop_scope&) = delete;
        stop_scope& operator=(const stop_scope&) = delete;

      private:
        manual_driver* const driver_;
    };

  private:
    class waiting {
      public:
        waiting(manual_driver& driver, const patience& how_long, const lane* wanted);
        /// Runs one job; false when nothing is ready.
        bool step() { return driver_.step(wanted_); }
        /// False when the time is up. Throws deadlock_error.
        bool let_time_pass();

      private:
        manual_driver& driver_;
        const std::shared_ptr<pool_core> alive_; // a job may destroy the pool
        const lane* const wanted_;
        std::optional<clock::time_point> deadline_;
        std::size_t moves_ = 0; // of the clock
    };

    bool step(const lane* wanted);
    lane* take(const lane* wanted);
    bool move_clock(const std::optional<clock::time_point>& last);
    worker& worker_of_this_level();
    void settle() noexcept;
    bool doubt();
    template <class F>
    void as_keeper(F f) noexcept;
    void end_abandoned() noexcept;
    [[noreturn]] void give_up(const char* why) const;

    pool_core& core_;
    std::size_t level_ = 0; // jobs that run, each on top of the one before
    bool in_stop_ = false;
    bool settling_ = false;
    clock::time_point swept_{};
    struct ready_lane {
        lane* l;
        tick age;
    };
    std::vector<ready_lane> passed_over_; // by take(); empty between two calls
};

} // namespace taskpool::detail
