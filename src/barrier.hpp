// SPDX-License-Identifier: Apache-2.0
// Barriers: jobs of no key that run when all that was submitted before them is done, and before anything submitted
// after them starts.
//
// They wait in a lane of their own, which belongs to no key and lies in no table: so they run one after the other, and
// whatever can become of a job in a lane can become of them. Each begins a new *era*: its submit takes the locks of all
// shards, so that at one instant all lanes go over to that, and every job is marked with the era in which it was
// pushed. While barriers wait or run, all lanes attend (attend.cpp), and none takes a job of a later era than the open
// one: it is suspended.
//
// The keeper conducts. It opens the era before the first barrier, looks through the lanes for one that still has work
// of it (each lane that has none never has any again, so it goes through them once, and is told when the one that it
// has come to may be done), and then has the barrier's lane go on. When that has run its last job, it opens the rest.
//
//     suspended ----the keeper finds all lanes done----> active ----its worker comes to the next barrier----> suspended
//         ^__________________ submit _________ idle <----or there is none_____|
//
//   I-BARRIER-1  The eras of all shards are equal whenever nobody has the locks of all; that of a barrier is the one
//                before it.
//   I-BARRIER-2  While a barrier waits or runs, no shard's open era is later than that of the first one. So what starts
//                meanwhile is not later than that.
//   I-BARRIER-3  A barrier's job starts when it is due: after the keeper, under each lane's lock, has seen that it has
//                no current job, and none of an open era. So all that ended before it happens-before it; and it
//                happens-before what waits for it, by way of its lane's lock and the keeper (G2, for all keys).
//   I-BARRIER-4  Lanes are guarded from before a barrier is pushed until there is none, and nobody brings one.
//   I-BARRIER-5  The jobs that wait are of no more than `most_eras`: who opens an era marks those of long past ones
//                anew, and no barrier is accepted that would be too far from the rest.
#pragma once

#include <cstdint>
#include <optional>

#include "lane_table.hpp"
#include "sync.hpp"

namespace taskpool::detail {

class pool_core;

inline constexpr barrier_era most_eras = 10'000; // of jobs that wait: eras are told apart over half their range

constexpr bool later(barrier_era a, barrier_era b) noexcept { return static_cast<std::int16_t>(a - b) > 0; }

struct barrier_line {
    explicit barrier_line(pool_core& core);
    ~barrier_line();
    barrier_line(const barrier_line&) = delete;
    barrier_line& operator=(const barrier_line&) = delete;

    /// Somebody brings a barrier: every lane attends.
    class coming {
      public:
        explicit coming(pool_core& core) noexcept;
        ~coming();
        coming(const coming&) = delete;
        coming& operator=(const coming&) = delete;

      private:
        pool_core& core_;
    };

    /// For the keeper: lets the first barrier run if its turn has come, and jobs behind the last one that has run.
    void conduct() noexcept;

    // --- Constant
    pool_core& core;
    lane& own; // in the first shard, pinned; attends

    // --- Under the first shard's lock
    std::optional<barrier_era> due; // a barrier of this era may start
    barrier_era oldest = 0;         // no job that waits is marked with an earlier one

    // --- Under `mutex`, which is locked before shards
    sync::mutex mutex;
    std::size_t brought = 0; // by calls under way
    // Whether there are, or may be, barriers: written under `mutex`. Read by those who change what barriers wait for,
    // after their shard's lock has told them that somebody waits for that.
    sync::atomic<bool> pending{false};
    // A job waits for something in the pool: the keeper asks at once whether the first barrier can ever run.
    sync::atomic<bool> doubted{false};

    // --- The keeper's
    barrier_era opened = 0;           // in all shards
    std::optional<barrier_era> first; // the barrier that the search is for
    std::size_t at_shard = 0;         // the next lane to look at: those before it are done
    std::size_t at_place = 0;
    std::uint64_t changes = 0; // of the table, when it was looked at
    tick asked = 0;            // when it was asked last whether that barrier can ever run

  private:
    struct first_one {
        barrier_era era;
        bool waits; // for what was submitted before it
    };
    std::optional<first_one> look() noexcept;
    void open_era(barrier_era era) noexcept;
    bool all_are_done(barrier_era era) noexcept;
    void discard_first(barrier_era era) noexcept;
};

} // namespace taskpool::detail
