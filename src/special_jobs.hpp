// SPDX-License-Identifier: Apache-2.0
// What only few jobs are, and what those have beside their slots.
#pragma once

#include <cstdint>
#include <stop_token>

#include <taskpool/detail/core.hpp>

#include "sync.hpp"

namespace taskpool::detail {

class pool_core;
struct lane;
struct pool_timer;
struct joint_job;

// In a slot's place for stop_action. The numbers make each of the questions below one or two comparisons.

/// The slot holds a detached coroutine that can go on. It is never discarded.
inline constexpr auto resumption = static_cast<stop_action>(3);
/// A place of a job of several keys (together.hpp), for `run` and `discard`.
inline constexpr auto joint_must_run = static_cast<stop_action>(4);
inline constexpr auto joint = static_cast<stop_action>(6); // 5 is `posted`
constexpr bool is_joint(stop_action what) noexcept { return what == joint || what == joint_must_run; }

/// A shared job (shared_job.hpp), for `run` and `discard`.
inline constexpr auto shared_run = static_cast<stop_action>(2);
inline constexpr auto shared_discard = static_cast<stop_action>(7);

constexpr bool is_shared(stop_action what) noexcept { return what == shared_run || what == shared_discard; }
constexpr stop_action as_shared(stop_action what) noexcept {
    return what == stop_action::run ? shared_run : shared_discard;
}
constexpr stop_action as_unshared(stop_action what) noexcept {
    return what == shared_run ? stop_action::run : stop_action::discard;
}

/// Whether such a job runs after stop() has begun.
constexpr bool runs_in_stop(stop_action what) noexcept { return what >= stop_action::run && what <= joint_must_run; }

/// Whether such a job stays in its lane when an overflow rule would drop it.
constexpr bool never_dropped(stop_action what) noexcept { return what >= resumption && what <= joint; }

/// Of jobs that were held, gave out a stop token, are coroutines, or places of one of several keys. It lies in its
/// lane's list from the first need to the job's end; the current job's is the first one there, unless that is detached.
/// Under head_lock, where nothing else is said. What stands for shared jobs lies there as if it were detached.
struct job_extras {
    // --- Constant from its entry into the list on
    pool_core* core = nullptr;
    lane* in = nullptr;
    std::uint64_t number = 0;                         // of the job
    void (*end)(job_extras& self) noexcept = nullptr; // called under no lock when the job has ended; null: no job's
    pool_timer* sleeps = nullptr;                     // a coroutine's timer: linked while it sleeps
    joint_job* joint = nullptr;                       // a place of this job's, of several keys
    bool interleaves = false;                         // a coroutine that lets other jobs run while it is suspended
    // ---
    bool detached = false;   // it is suspended so (also under the shard's lock)
    bool resumes = false;    // its coroutine can go on, and nobody has taken it up yet
    bool queued = false;     // ... or has its place in the lane's queue, for as long as it is detached
    bool counts = true;      // its end is that of a job
    std::uint32_t holds = 0; // a coroutine holds its lane until it is done
    job_extras* next = nullptr;
    job_extras* previous = nullptr;
    std::stop_source stop{std::nostopstate}; // has a state from the first stop_token() on
    sync::atomic<bool> cancelled{false};     // read by the job

    bool is_coroutine() const noexcept { return sleeps != nullptr; }
};

bool stop_requested(const job_extras& e) noexcept;
std::stop_token stop_token(job_extras& e);
/// The source of the job's tokens, if there is one that has not told them; else one without a state. REQUIRES:
/// head_lock.
std::stop_source source_to_request_locked(const job_extras& e) noexcept;
job_extras* hold(job_extras& e) noexcept;

} // namespace taskpool::detail
