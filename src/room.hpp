// SPDX-License-Identifier: Apache-2.0
// Where submitters wait when a lane or the pool is full.
//
// Waking one submitter for each job that starts would cost a context switch a job. So a worker that takes a job from a
// lane somebody waits for wakes them once the lane is half empty; and the keeper looks once a tick and wakes whoever
// has any room at all. A submitter thus waits at most a tick longer than it must.
//
//   I-ROOM-1  A waiter enters before it looks whether there is still no room, so that either its look or the keeper's
//             next one finds the room.
#pragma once

#include <cstddef>

#include "lane.hpp"
#include "sync.hpp"

namespace taskpool::detail {

class room {
  public:
    struct waiter {
        waiter(lane* wanted, bool by_job) noexcept : for_lane(wanted), in_job(by_job) {}
        lane* const for_lane; // pinned; null: for room in the pool
        const bool in_job;    // the submitter is a job
        sync::event wake;
        waiter* next = nullptr;
        waiter* previous = nullptr;
    };

    void enter(waiter& w) noexcept;
    void leave(waiter& w) noexcept;

    /// Wakes up to `most` of those who wait for a lane (null: for room in the pool), the longest waiting first. Whether
    /// more of them wait.
    bool wake(const lane* for_lane, std::size_t most) noexcept;

    void wake_all() noexcept;

    /// For the keeper: wakes those whose lane has room, and up to `pool_room` of those who wait for the pool.
    void wake_where_room(std::uint32_t lane_capacity, std::size_t pool_room) noexcept;

    /// Wakes all submitters that are jobs, to ask again whether their wait can still end.
    void wake_jobs() noexcept;

    bool is_empty() const noexcept;

  private:
    mutable sync::mutex mutex_;
    waiter* first_ = nullptr; // under mutex_, as is the list
    waiter* last_ = nullptr;
};

} // namespace taskpool::detail
