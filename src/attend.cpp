// SPDX-License-Identifier: Apache-2.0
// What a worker asks before each job of a lane that attends (lane.hpp): whether its turn has come, as far as barriers,
// pauses, shared jobs, rates and jobs of several keys are concerned. If not, the lane is suspended, and who lets it go
// on is the matter of the file that has made it wait.
#include <mutex>
#include <new>
#include <optional>

#include "barrier.hpp"
#include "pool_core.hpp"
#include "rate.hpp"
#include "shared_job.hpp"
#include "together.hpp"

namespace taskpool::detail {

/// For the lane's worker, which is to take its next job. Without memory for a bucket a job starts all the same.
turn pool_core::attend(lane& l) noexcept {
    shard& s = shard_of(l);
    std::optional<pace> common;
    for (std::uint64_t version = 0;;) {
        {
            const std::lock_guard shard_lock(s.lock);
            if (&l == &barrier->own)
                return attend_barrier(l);
            if (s.guarded && waits_for_barrier_locked(s, l)) {
                suspend_locked(l);
                tell_drainers_locked(s);
                return turn::others;
            }
            if (l.paused) {
                suspend_locked(l);
                return turn::others;
            }
            std::unique_lock lock(l.head_lock);
            job_slot* const front = l.front_locked();
            if (front == nullptr)
                return turn::unclear;
            bucket* b = s.rates.find(l);
            const bool asks_common = b == nullptr || (!b->is_own && b->version != s.rates.version);
            if (!may_start_locked(l, *front)) { // wakes it: who ends a shared job
                suspend_locked(l);
                return turn::others;
            }
            if ((b == nullptr && !s.rates.all_attend) || is_stopping() || front->on_stop == resumption ||
                front->on_stop == posted ||
                (is_joint(front->on_stop) && joint_in(*front).now_missing() == joint_job::over)) {
                l.attends = attends_locked(s, l);
                return begin_locked(s, l, *front, lock);
            }
            if (!asks_common || version == s.rates.version) {
                try {
                    if (b == nullptr && common->is_unlimited())
                        l.attends = s.guarded ||
                                    attends_for_special_locked(l); // until the rates change, or its lane is made anew
                    else if (b == nullptr)
                        b = &s.rates.find_or_make(l, *common);
                } catch (const std::bad_alloc&) { // NOLINT(bugprone-empty-catch): see above
                }
                if (b != nullptr) {
                    const auto now = time.now();
                    if (asks_common) {
                        b->change(*common, now);
                        b->version = version;
                    }
                    if (keep_waiting_locked(s, *b, now)) {
                        suspend_locked(l);
                        return turn::others;
                    }
                }
                return begin_locked(s, l, *front, lock);
            }
            version = s.rates.version;
        }
        // With no lock held. It may be newer than the version says: then it is asked for again.
        common = common_pace(l);
    }
}

/// The job at the front may start, as far as its lane is concerned. REQUIRES: both locks.
turn pool_core::begin_locked(shard& s, lane& l, job_slot& front, std::unique_lock<sync::spin_lock>& lock) noexcept {
    const turn whose = is_joint(front.on_stop) ? come_locked(s, l, front) : turn::own;
    if (whose == turn::own)
        lock.release();
    return whose;
}

/// Gives the lane up: from its worker's hands. REQUIRES: the shard's lock.
void pool_core::suspend_locked(lane& l) noexcept {
    l.left_behind = false;
    if (l.state == lane_state::active) // else its jobs were cut out; and others may have come, and suspended it
        l.state = lane_state::suspended;
}

} // namespace taskpool::detail
