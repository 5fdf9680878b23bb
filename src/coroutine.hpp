// SPDX-License-Identifier: Apache-2.0
// A spawned coroutine: a job that holds its lane until it is done, with no thread while it is suspended.
//
// Its stretches are run by whoever owns the lane. A stretch ends when the coroutine suspends or is done; then
// pool_core::end_job_with_extras decides: the lane is suspended with it, or goes on without it (the coroutine is
// *detached*), or it is queued again at once, because what the coroutine waited for has come meanwhile. resume() may be
// called at any time after the coroutine made known where it can be called from; it never runs the coroutine itself.
//
//     waiting -> running -> held ------resume------> running ... -> done
//                        -> detached --resume--> in the lane's queue -> running
//
//   I-COROUTINE-1  A coroutine's stretches are run by an owner of its lane, one at a time (G2): `resumes` is set by
//                  resume() under the lane's lock, once for each suspension, and taken by the owner.
//   I-COROUTINE-2  The frame, which holds this object, lives until the job has ended and its future is gone.
#pragma once

#include <coroutine>
#include <new>

#include <taskpool/detail/coroutine.hpp>

#include "lane.hpp"
#include "timers.hpp"

namespace taskpool::detail {

struct coroutine_job : job_extras {
    coroutine_job(std::coroutine_handle<> whole, future_core& future, bool lets_others_run) noexcept;

    // --- Constant
    const std::coroutine_handle<> frame;
    future_core& result; // in the frame's promise

    // --- Its stretches, one after the other
    std::coroutine_handle<> innermost; // where it goes on
    bool done = false;
    bool slept = false; // the last sleep's time has passed; written by who unlinked the timer

    struct sleep_timer : pool_timer {
        coroutine_job* of = nullptr;
    } timer; // linked while it sleeps

    /// Not to be run: it was discarded before it began.
    void discard() noexcept;
};
static_assert(sizeof(coroutine_job) <= coroutine_job_size);

/// Whether its lane waits with it while it is suspended.
bool keeps_lane(const coroutine_job& job) noexcept;

/// A slot whose storage points at a coroutine_job: begins it, or goes on with it.
extern const job_ops coroutine_ops;

/// Fills a slot with what goes on with a coroutine. REQUIRES: `e` is a coroutine's.
void make_resumption(job_slot& slot, job_extras& e, tick now) noexcept;

/// REQUIRES: the slot's job is a coroutine.
coroutine_job& coroutine_in(job_slot& slot) noexcept;

/// Whether the slot's job is the coroutine with this result.
bool is_coroutine_of(job_slot& slot, const future_core& result) noexcept;

} // namespace taskpool::detail
