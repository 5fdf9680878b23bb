// SPDX-License-Identifier: Apache-2.0
// Who waits for whom among jobs (G9): the graph of waits inside jobs, over all pools of the process, and the search in
// it before a wait is added. Only waits inside jobs come here, so it costs other calls nothing.
//
// At most one wait of a lane is recorded: that of its current job, which waits for one thing at a time. A coroutine
// that holds its lane waits like a job; one that lets others run holds nobody up, so its waits are not recorded, and
// count no longer once the hold is released for which they were.
//
// A shared job waits in a lane of its own (shared_job.hpp), so its wait is recorded beside that of its key's lane. Who
// waits for a lane waits for all of these: a key's shared jobs are one to the search, so that none may wait for
// another, though that might run beside it; what is refused does not depend on which of them happen to run.
//
// A job that waits for a lane's room, for a future of a lane or for a lane to drain waits for that lane's jobs, one
// after the other (AND), and one that waits for another pool for all jobs of that. A job that waits for room in the
// pool waits for any lane with waiting jobs to start one (OR). A lane can go on if no job of it is in the graph, or if
// what that job waits for can go on. A wait that could not go on is refused, so the graph never holds a cycle, and the
// last one that would close it gets the error.
//
// Jobs of several keys (together.hpp) that wait join lanes: who waits for something in a lane waits also for the lanes
// of those before it (AND). They are looked for anew each time, in pools that ever had any.
//
// A future of then() is that of a job not yet submitted: who waits for it waits also for the lanes of all jobs that it
// follows (AND), and what is submitted meanwhile may come before it: a thread that waits asks again now and then. A
// coroutine cannot be told, since its wait may lie in its frame: the keeper asks for it, and discards the job of
// several keys that has come before (kill_what_stops_coroutines).
//
// A wait with a deadline is checked but not recorded: it ends by itself.
//
// A barrier waits for all jobs before it. When one of these waits for what comes after it, the barrier is discarded:
// the keeper asks for that (holds_up_barriers), since it may come about without a new wait. The barrier's own job may
// wait for nothing in its pool.
//
// Most waits form chains, from lane to lane, and one that ends at a lane without a wait can end: that is looked at
// first, and costs a look-up for each link. The search over all waits is for the others.
//
//   I-GRAPH-1  Every recorded wait is of a lane's current job, or of what was that and is detached; it is taken out
//              before that job goes on, or, for a future, by whoever finishes it, while the lane it names is still
//              there.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include <taskpool/detail/core.hpp>
#include <taskpool/future.hpp>

#include "pool_core.hpp"

namespace taskpool::detail {

/// How much of a lane's queue is before something.
struct reach {
    enum kind_t : std::uint8_t { none, before, all } kind = none;
    std::uint32_t number = 0; // before the job of this number, from 1, modulo 2^32
};

// Of jobs of several keys (together_waits.cpp) and barriers (barrier.cpp). All REQUIRE all shards' locks.

/// The lanes whose current jobs must end before the lane comes to that place of its queue: itself, and those of the
/// jobs of several keys that are before it, and before those. Throws std::bad_alloc.
std::vector<const lane*> lanes_before_locked(const lane& l, reach how_far);
/// Kills one of those jobs, if it waits for such a lane. It, or null. Throws std::bad_alloc.
joint_job* kill_before_locked(const lane& l, reach how_far, const std::function<bool(const lane*)>& is_stuck);
/// Whether a lane's room, or the end of all that it has, comes after a barrier.
bool is_behind_barrier_locked(const pool_core& core, const lane& of, reach how_far) noexcept;
/// Whether a future's job, which is not over and follows no other, comes after a barrier.
bool is_behind_barrier_locked(const pool_core& core, const lane& of, const future_core& job) noexcept;

/// Between two looks at whether a wait can still end that jobs submitted meanwhile may come before.
inline constexpr std::chrono::milliseconds doubt_interval{20};

class wait_graph {
  public:
    static wait_graph& instance() noexcept;

    struct target {
        // One of these:
        const lane* for_lane = nullptr;      // room in a lane, its drain, a future of a job in it
        bool for_room = false;               // ... room in it
        const pool_core* in = nullptr;       // ... the lane's pool
        bool for_timed = false;              // ... and what its key has for later, which needs room in the pool
        const pool_core* for_pool = nullptr; // the drain or stop of another pool
        const pool_core* room_in = nullptr;  // room in the pool
        const future_core* future = nullptr; // with for_lane: which one
        const coroutine_job* by = nullptr;   // the one that waits
        bool needs_thread = true;            // whether a thread of that pool must be free for it to end
    };

    /// Records a wait of `job` and says nothing, or says why it could never end. Throws std::bad_alloc.
    struct refusal {
        std::string why;
        std::vector<std::string> keys;
    };
    bool enter(pool_core& core, const lane& waiting, const target& what, bool holds_thread, bool has_deadline,
               refusal& because);
    /// With a future only if that is what is waited for: else the wait is another job's by now.
    void leave(const lane& waiting, const future_core* of = nullptr) noexcept;

    /// The same for callers who want the refusal as a deadlock_error.
    void enter_or_throw(pool_core& core, const lane& waiting, const target& what, bool holds_thread, bool has_deadline);

    /// Whether jobs before the first barrier of a pool wait for what comes after it, so that it could never run. False
    /// without memory to tell.
    bool holds_up_barriers(const pool_core& pool) noexcept;

    /// Kills a job of several keys that has come before what a coroutine waits for, and waits for that coroutine. It,
    /// to be discarded, or null.
    joint_job* kill_what_stops_coroutines(pool_core& pool) noexcept;

    /// Held across fork(); the child has no waits.
    void before_fork() noexcept { mutex_.lock(); }
    void after_fork(bool in_child) noexcept {
        if (in_child) {
            waits_.clear();
            beside_.clear();
        }
        mutex_.unlock();
    }

  private:
    struct wait {
        pool_core* core;
        target what;
        bool holds_thread;
        const lane* of;     // of the key: the one in which it waits, or beside which
        bool stuck = false; // as of the last find_stuck()
    };
    bool chain_ends(const target& what) const;
    void find_stuck();
    const wait* stuck_wait_of(const lane* l) const noexcept;
    bool can_end(const target& what) const;
    bool is_free(const std::vector<const lane*>& lanes) const noexcept;
    bool none_is_stuck(const pool_core& in) const noexcept;
    bool holds_up_what_is_behind(const pool_core& in) const noexcept;
    bool makes_room(const pool_core& in) const;
    bool one_can_start(const pool_core& in, bool all_locked) const;
    static bool is_behind_barrier(const target& what);
    static bool never_ends(const pool_core& core, const lane& waiting, const target& what);
    template <class F>
    static void each_part(const target& what, F f);
    static std::vector<const lane*> lanes_before(const target& what);
    static bool waits_for(const target& what, const lane* l);
    static bool is_over(const target& what) noexcept;
    std::vector<std::string> keys_from(const lane& waiting) const;

    using waits = std::unordered_map<const lane*, wait>;
    void erase(waits::iterator at) noexcept;
    void add(const lane& waiting, const wait& w);

    sync::mutex mutex_;
    bool for_barriers_ = false; // under mutex_: barriers wait for what is before them; else only those that run count
    waits waits_;               // under mutex_; by the waiting job's lane
    std::unordered_multimap<const lane*, const lane*> beside_; // of those, the ones beside a key's lane, by that
};

/// A wait inside a job, from before it begins to after it has ended: recorded, and its thread counted as blocked.
/// Outside jobs it is nothing.
class job_wait {
  public:
    /// Throws deadlock_error.
    job_wait(running_job* job, const wait_graph::target& what, bool has_deadline);
    ~job_wait();
    job_wait(const job_wait&) = delete;
    job_wait& operator=(const job_wait&) = delete;

  private:
    running_job* const job_;
    const bool recorded_;
};

} // namespace taskpool::detail
