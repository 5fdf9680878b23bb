// SPDX-License-Identifier: Apache-2.0
// A thread that runs jobs: take the oldest ready lane, run its jobs while it stays the oldest, pass it on, park.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <thread>

#include "lane.hpp"
#include "platform.hpp"
#include "sync.hpp"
#include "tick_clock.hpp"

namespace taskpool::detail {

struct worker;

/// What becomes of a job that has thrown: retry.hpp, deadline.cpp.
enum class verdict : std::uint8_t { none, again, given_up, late };

/// A job that runs, as its context and the waits in it see it. Lies on its worker's stack.
struct running_job {
    pool_core& core;
    lane& in;
    worker& by;
    const std::uint64_t number;
    // --- Its worker only
    mutable std::shared_ptr<const retry>* policy = nullptr; // of the verdict; settle() frees it
    mutable bool to_be_settled = false;                     // it came to no plain end
    mutable bool failed = false;
    mutable verdict after = verdict::none; // of this attempt
    mutable bool has_future = false;       // said by one that has thrown
    mutable joint_job* joint = nullptr;    // it is this one, of several keys (together.hpp)
    std::uint32_t earlier_attempts = 0;
};

/// The job that the calling thread runs, or null.
running_job* current_job() noexcept;
/// For who runs a job while another one waits on the same thread. What there was before.
running_job* exchange_current_job(running_job* job) noexcept;
/// For the child of a fork, in which no job runs on.
void forget_current_job() noexcept;

struct worker {
    worker(pool_core& core, unsigned index) noexcept;

    /// The thread's body: runs jobs until it is retired or the pool ends.
    void main() noexcept;

    /// Runs one job of a lane that the caller owns, and gives the lane up. False when it had none, or an older lane
    /// should go first (manual.hpp).
    bool serve_once(lane& l, bool even_before_older) noexcept;

    // --- Constant
    pool_core& core;
    const unsigned index;
    const unsigned home; // the ready queue it looks at first

    // --- The worker's thread writes, any thread may read
    sync::tally taken;     // jobs that it took out of lanes ...
    sync::tally finished;  // ... of which ran and were not held,
    sync::tally failed;    // ... threw,
    sync::tally discarded; // ... or were discarded during stop
    sync::tally expired;   // ... or came too late
    sync::tally high;      // jobs that came to their turn with a priority
    sync::tally low;
    sync::tally retries; // attempts after the first
    std::array<sync::tally, 24> wait_times;
    std::array<sync::tally, 24> run_times;
    sync::atomic<std::uint64_t> job_sequence{0}; // odd while a job runs
    // --- Any thread
    sync::atomic<bool> blocked{false}; // the job is known to block its thread

    // --- The worker's thread only
    unsigned blocking_depth = 0; // of blocking scopes

    // --- Under parking's mutex while parked, then whoever took it from there until `woken` is signalled, then the
    //     worker's thread
    sync::event woken;
    tick parked_since = 0;
    bool woken_to_search = false;
    bool retired = false;

    // --- The keeper's, but for `probe`, which the thread writes before its first job
    std::thread thread;
    platform::thread_probe probe;
    std::uint64_t sequence_seen = 0;
    std::chrono::nanoseconds cpu_time_seen{-1};
    tick still_since = 0; // when that was first seen
    bool marked = false;  // as blocked, by the keeper

  private:
    lane* find() noexcept;
    lane* take_any() noexcept;
    bool spin() const noexcept;
    bool more_comes(const lane& l) const noexcept;
    bool park() noexcept;
    void serve(lane& l) noexcept;
    template <bool MakesWay = true>
    bool next(lane& l, job_slot& job, std::uint64_t& number, bool ran) noexcept;
    bool serve_beside(lane& l, job_slot& job) noexcept;
    bool run_or_discard(lane& l, job_slot& job, std::uint64_t number) noexcept;
    void discard(lane& l, job_slot& job, std::uint64_t number) noexcept;
    bool end_job(lane& l) noexcept;
    void end_plain_job_locked(lane& l) noexcept; // REQUIRES: head_lock; it has no extras
    bool take_up(lane& l, job_slot& job) noexcept;
    bool should_yield(tick age) noexcept;
    bool run(lane& l, job_slot& job, std::uint64_t number) noexcept;
    void fail(job_slot& job, running_job& self) noexcept;
    bool settle(running_job& self) noexcept;
    void tell_submitters(lane& l, bool lane_wanted, bool pool_wanted) noexcept;
    void sample(const running_job& job, tick now) noexcept;

    // --- The worker's thread only
    bool searching_ = false;
    bool ran_beside_ = false; // for serve_once
    tick looked_at_ = 0;      // when it last compared its queue with the others ...
    tick age_seen_ = 0;       // ... and the age of the job for which it did
    unsigned jobs_since_look_ = 0;
    std::uint32_t until_sample_ = 1;
    std::uint64_t random_;
    std::uint64_t taken_since_wake_ = 0;
};

} // namespace taskpool::detail
