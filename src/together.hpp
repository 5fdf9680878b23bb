// SPDX-License-Identifier: Apache-2.0
// Jobs of several keys. Such a job has a *place* in each of its lanes, all taken at one instant, under the locks of all
// their shards. A place that comes to its turn holds its lane; the last one to come runs the job, and its end releases
// the others. So of two such jobs one is before the other in every lane that they share, and no order of submits can
// have them wait for each other.
//
//     waits ----the last place comes to its turn----> runs ----> over
//       |____ a place is discarded, or its key cancelled _________^     what is left of its places does nothing
//
// It counts as one job: accepted, and in the pool's room, by the shard of its first place; taken, finished or discarded
// by whoever begins or kills it.
//
//   I-TOGETHER-1  A place is in its lane's queue until it comes to its turn; from then on it is the extras of the
//                 current job of its lane, until the job has ended or was killed. So under the lane's lock it is found
//                 in one of them. A lane that has one attends, so that others pay nothing for that. One that arrives
//                 and is not the last suspends its lane in the same instant, with a hold.
//   I-TOGETHER-2  `missing` counts the places that have not arrived while the job waits. The last one to arrive makes
//                 it `runs`, or who kills the job makes it `over`. A place arrives under both locks of its lane, so
//                 with all shards locked none does. Its lanes are pinned until the job is over: who ends or kills it
//                 looks at all of them, and a future of it names the first. (The lane in which it runs is
//                 pinned only until it begins: from then on it is that lane's current job.)
//   I-TOGETHER-3  Each place has a reference, from the submit until it has done its part, and so has who kills the job;
//                 the last one frees it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <stop_token>

#include "lane.hpp"
#include "spare_blocks.hpp"

namespace taskpool::detail {

struct shard;

struct joint_place : job_extras {
    bool runs = false;  // the job, in its lane
    bool kills = false; // its discard is the job's; of who discards it
};

/// Memory of jobs of one or two keys that are over, for the next ones. By way of the allocator it would go round from
/// the workers to the submitters, who are in each other's way there. One in each shard, under its lock.
class joint_memory {
  public:
    joint_memory() = default;
    joint_memory(const joint_memory&) = delete;
    joint_memory& operator=(const joint_memory&) = delete;
    ~joint_memory() { shrink(); }

    /// For a job of so many places. Throws std::bad_alloc.
    void* allocate(std::size_t places);
    /// Asks for the cache lines of what allocate() will give: the worker that gave it back has them.
    void prefetch(std::size_t places) const noexcept;
    /// Takes such memory back. Whether it is kept; if not, it is the caller's to delete.
    bool keep(void* block, std::size_t places) noexcept;
    /// Frees what is kept.
    void shrink() noexcept;

  private:
    static constexpr std::size_t places_in_kept = 2;
    static constexpr std::size_t most_kept = 128;

    static std::size_t size(std::size_t places) noexcept; // of a block, in bytes
    spare_blocks spares_;
};

struct joint_job {
    static constexpr std::int32_t runs = 0, over = -1; // of `missing`, which is greater while the job waits

    /// With room for so many places, and none. Throws std::bad_alloc. REQUIRES: the lock of that shard.
    static joint_job* make(pool_core& core, shard& of_first, std::size_t places);
    void add_place(lane& l) noexcept;
    std::span<joint_place> places() noexcept { return {std::launder(reinterpret_cast<joint_place*>(this + 1)), count}; }
    // relaxed: a hint. What changes it decides by a compare-exchange; `over` is for ever, and publishes nothing.
    std::int32_t now_missing() const noexcept { return missing.load(std::memory_order_relaxed); }
    /// REQUIRES: the job runs, or was killed, and is the caller's.
    void set_over() noexcept {
        missing.store(over, std::memory_order_relaxed); // who looks at its lanes next sees it, by their locks
    }
    /// Where they are the last ones, its memory is kept for another job, or freed. REQUIRES: no lock held.
    void drop_references(std::uint32_t how_many) noexcept;
    void drop_reference_locked() noexcept; // one, whatever locks are held
    void free() noexcept { ::operator delete(unmake()); }

    // --- Constant once it is in its lanes, but for the callable, which belongs to who runs or kills the job
    pool_core& core;
    shard& first_shard;      // that of its first place
    std::uint32_t count = 0; // of places, which lie behind this
    const job_ops* ops = nullptr;
    alignas(inline_job_alignment) std::byte storage[inline_job_size];
    // --- Any thread
    sync::atomic<std::uint32_t> references{0};
    sync::atomic<std::int32_t> missing{0};
    sync::atomic<bool> cancelled{false}; // a request, as that of a lane
    // --- Under `lock`, which is taken last
    sync::spin_lock lock;
    std::stop_source stop{std::nostopstate};
    // --- Under the lock of that lane's shard
    lane* runs_in = nullptr;

  private:
    bool gives_up(std::uint32_t of_caller) noexcept; // whether they were the last ones
    void* unmake() noexcept;                         // returns its memory
    joint_job(pool_core& owner, shard& of_first) noexcept : core(owner), first_shard(of_first) {}
    ~joint_job() = default;
};

joint_place& place_in(job_slot& slot) noexcept; // REQUIRES: it is one's
joint_job& joint_in(job_slot& slot) noexcept;   // that of the place, whose lines this does not touch

/// Whether the caller has killed the place's job, and must discard it (pool_core::discard_joint). REQUIRES: the place
/// is the caller's, or the lock of its lane.
bool kill(joint_place& place) noexcept;

/// For looking at all lanes at one moment.
class all_shards_lock {
  public:
    explicit all_shards_lock(const pool_core& of) noexcept;
    ~all_shards_lock();
    all_shards_lock(const all_shards_lock&) = delete;
    all_shards_lock& operator=(const all_shards_lock&) = delete;

  private:
    const pool_core& core_;
};

/// Whether one of its keys was cancelled. REQUIRES: called by the job's thread, or while it runs.
bool is_cancelled(const joint_job& job) noexcept;

} // namespace taskpool::detail
