// SPDX-License-Identifier: Apache-2.0
// Shared jobs: neighbours in their lane run at the same time, up to options::max_shared; the others, which are
// exclusive, run alone. The order between the groups is that of the lane.
//
// A shared job runs as the current job of a lane of its own, *beside* its key's: made when the job starts, with a copy
// of the key, and ended with it. That is in no table, and no job is pushed to it. So what a job has (holds, a stop
// token, a coroutine once it is tried again) it has there, as any job has it in its lane; and jobs that are not shared
// know nothing of it.
//
//     in the key's lane ----its worker takes it----> running <----> suspended    (held, or between two attempts)
//                                                       |
//                                                    it ends, with its lane
//
// A lane to which a shared job was pushed attends (attend.cpp). Its worker asks there whether the next job may start
// beside those that run. If not, the lane is suspended until the end of one of these lets it. If so, and the job
// is shared, the worker passes the lane on, to its queue, suspended or without work, and then runs the job itself: so a
// shared job never waits for a worker outside its lane, and the lane's capacity bounds all that wait.
//
// A slot is marked as shared only in its key's lane (is_shared). Without memory for a lane a shared job runs in its
// key's, as if it were exclusive towards those that follow it.
//
//   I-SHARED-1  The shares of a key are in its lane's group, which is there while there are some: the first of the
//               lane's extras, but for the current job's. Both are under that lane's head lock.
//   I-SHARED-2  A job of a lane starts under its head lock, and an exclusive one only while there is no group, a shared
//               one while that has room; a share ends under the same lock, after its job. Hence exclusive jobs overlap
//               nothing of their key, and what ended before one starts happens-before it (G2).
//   I-SHARED-3  While a lane is suspended for its shares, `wanted` is set, and the group is there. Who ends a share,
//               or drops the job that waited, and so lets the next job start, makes the lane active under both locks,
//               and queues it.
//   I-SHARED-4  A lane beside another is freed by who lets it go, after its job has ended and under its shard's lock.
//               Others reach it through the group, under the head lock of the key's lane, or as a hold of its job.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>

#include "lane.hpp"

namespace taskpool::detail {

/// What a lane beside another one has; behind it in memory, and the last in its list of extras, so that it goes idle by
/// end_share_locked().
struct share : job_extras {
    explicit share(lane& of_key) noexcept;

    // Under the head lock of the key's lane, which is `in`:
    share* next_share = nullptr;
    share* previous_share = nullptr;

    lane& own_lane() noexcept { return reinterpret_cast<lane*>(this)[-1]; }
    static share& of(lane& beside) noexcept { return *reinterpret_cast<share*>(&beside + 1); }
    static const share& of(const lane& beside) noexcept { return *reinterpret_cast<const share*>(&beside + 1); }
};
static_assert(alignof(share) <= alignof(lane));

/// What runs beside a lane.
struct share_group : job_extras {
    explicit share_group(lane& of_key) noexcept;

    // Under the lane's head lock:
    std::size_t running = 0;
    bool wanted = false; // the lane is suspended until its next job may start
    share* first = nullptr;

    void add(share& s) noexcept;
    void remove(share& s) noexcept;
};

/// What runs beside a lane, or null. REQUIRES: head_lock.
inline share_group* shares_of_locked(const lane& l) noexcept {
    job_extras* e = l.extras;
    if (e != nullptr && !e->detached)
        e = e->next;
    return e != nullptr && e->end == nullptr ? static_cast<share_group*>(e) : nullptr;
}

/// Shows the lanes beside one. REQUIRES: head_lock.
template <class F>
void each_share_locked(const lane& l, F f) {
    if (const share_group* const group = shares_of_locked(l))
        for (share* s = group->first; s != nullptr; s = s->next_share)
            f(s->own_lane());
}

/// Whether a lane attends for the sake of shared jobs, or those of several keys. REQUIRES: both locks.
inline bool attends_for_special_locked(const lane& l) noexcept {
    return l.has_special || shares_of_locked(l) != nullptr;
}

/// Whether all that a lane has are shared jobs that are held with no thread. REQUIRES: both locks.
bool has_only_held_shares_locked(const lane& l) noexcept;

/// The lane of the key of a job in this one. REQUIRES: the shard's lock.
inline lane& key_lane_locked(lane& l) noexcept { return l.beside ? *share::of(l).in : l; }

/// A shared job, or a place of one of several keys, is about to be pushed. REQUIRES: the shard's lock.
inline void expect_special_locked(lane& l) noexcept {
    if (l.has_special)
        return; // it attends since
    l.has_special = true;
    const std::lock_guard lock(l.head_lock);
    l.attends = true;
}

} // namespace taskpool::detail
