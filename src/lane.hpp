// SPDX-License-Identifier: Apache-2.0
// One key's FIFO of jobs, and its states. The only place with an ordering proof.
//
// States, and who moves a lane between them (always under its shard's lock):
//
//     idle ----push----> active ----last job done, or waiting ones cancelled----> idle
//                          |  ^
//             job returned |  | last hold released, jobs wait      (none wait: suspended -> idle)
//               but held   v  | or its coroutine can go on
//                       suspended    (also a lane with jobs that is paused, or waits for its rate, for shared
//                                      jobs or for a barrier)
//
// A lane without jobs is *lingering* instead of idle while coroutines of it are suspended that let other jobs of the
// key run (they are *detached*), or shared jobs of its key run beside it (shared_job.hpp): it has work, so it is not
// forgotten; a push makes it active like an idle one.
//
// An active lane is *ready* while it lies in a ready queue and *running* while a worker has it; the difference is in
// who holds the pointer, not in the lane.
//
// The FIFO has two ends with a lock each, after Michael and Scott's two-lock queue (PODC 1996). The *tail* belongs to
// whoever holds the shard's lock (producers, who hold it anyway for the look-up). The *head* belongs to whoever holds
// `head_lock` (the worker that owns the lane; now and then somebody who discards). The ends meet only in two counters,
// each written by one end: `pushed`, which publishes slots, and `taken`, which tells how much room there is. Each end
// keeps its last reading of the other's counter and looks again only when that says empty, or full: so a producer and a
// worker that both have something to do move no line between their cores but those of the jobs themselves.
//
// The first job after idle lies in the lane itself, further ones in chunks. The oldest chunk is freed when its last
// slot has been taken and there is another; the last one when the lane goes idle, which rewinds the FIFO to the lane's
// own slot.
//
// Invariants:
//   I-LANE-1  An idle lane has no jobs, no chunks and no extras, a lingering one only those of detached coroutines and
//             shared jobs. It lies in no queue and nobody's hands, unless it is marked as left behind; then a push
//             makes it active again where it is.
//   I-LANE-2  An active lane is in exactly one place: one ready queue, or the hands of one worker, or of the thread
//             that made it active and has not queued it yet. Hence at most one worker runs jobs of a key (G2), but for
//             shared ones, each of which is the job of a lane of its own.
//   I-LANE-3  Jobs leave at the head in the order in which they were pushed (G1): slots are filled in order under the
//             shard's lock and published by `pushed` in order.
//   I-LANE-4  The end of a job happens-before the start of the next of its lane (G2): both are done by the same worker,
//             or the first worker passed the lane on through a queue's lock, or through the shard's lock by way of idle
//             or suspended. [checked by: ThreadSanitizer, in the tests of G2 and in the soak]
//   I-LANE-5  taken <= pushed, and pushed - taken <= lane_capacity whenever the shard's lock is free (G6), detached
//             coroutines that wait for their turn and jobs that an executor must not lose (`posted`) left out.
//   I-LANE-6  A lane is freed only under its shard's lock, while idle, unpinned and not left behind (G7). Who uses a
//             lane without that lock owns it (I-LANE-2), has pinned it, or is the current job or a hold of it.
//   I-LANE-7  Locks are taken in the order shard, head. Of users' code only what looks keys up, copies and destroys
//             them, and what moves a job into or out of its slot, runs under a lock. [checked by: the tests that
//             call the pool from all threads, which would hang]
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include <taskpool/detail/core.hpp>

#include "special_jobs.hpp"
#include "sync.hpp"
#include "tick_clock.hpp"

namespace taskpool::detail {

/// How many barriers came before, modulo 2^16.
using barrier_era = std::uint16_t;

/// A stored job: what to do with the callable, and the callable or a pointer to it.
struct job_slot {
    const job_ops* ops;
    tick age; // when it was submitted, as its priority counts that
    stop_action on_stop;
    taskpool::priority priority;
    barrier_era era; // in which it was pushed (barrier.hpp)
    alignas(inline_job_alignment) std::byte storage[inline_job_size];
};
static_assert(sizeof(job_slot) == 48 && std::is_trivially_copyable_v<job_slot>);

/// Moves a stored callable; `from` holds none afterwards.
void move_callable(const job_ops& ops, void* to, void* from) noexcept;

/// The same for all of a stored job.
void relocate(job_slot& to, job_slot& from) noexcept;

struct chunk {
    static constexpr std::uint8_t slots_in_all = sync::scaled<std::uint8_t>(21, 2); // 21 make a chunk 1 KiB

    chunk* next;
    alignas(inline_job_alignment) job_slot slots[slots_in_all];
};
static_assert(sizeof(chunk) == 16 + sizeof(job_slot) * chunk::slots_in_all);

enum class lane_state : std::uint8_t { idle, lingering, active, suspended }; // a push queues those before active

/// Jobs cut out of a lane, to be destroyed under no lock.
struct cut_jobs {
    bool has_inline = false;
    job_slot inline_slot;
    chunk* head = nullptr;
    std::uint8_t head_index = 0;
    std::uint32_t count = 0;
    std::uint32_t uncounted = 0; // of them: resumptions, and places of jobs that count elsewhere

    /// Moves the oldest one to `to`; false when none is left. Frees chunks as it goes.
    bool next(job_slot& to) noexcept;
};

struct lane {
    static constexpr std::uint8_t at_inline_slot = 255; // a value of tail_index and head_index

    // --- The tail: under the shard's lock, but for next_ready, which belongs to the lane's owner (I-LANE-2).
    lane* next_ready = nullptr;
    chunk* tail = nullptr;
    std::uint16_t shard = 0; // constant
    lane_state state : 3 = lane_state::idle;
    bool paused : 1 = false;       // no job starts (pause.cpp); written under both locks, like its twin at the head
    bool has_must_run : 1 = false; // a job with stop_action::run, or a resumption, was pushed since idle
    bool left_behind : 1 = false;  // went idle by a cancel, while in a queue or a worker's hands: still there
    bool has_special : 1 = false;  // a shared job, or a place of one of several keys, was pushed since idle
    bool beside : 1 = false;       // constant: it is a shared job's, and no key's (shared_job.hpp)
    std::uint8_t tail_index = at_inline_slot; // next slot to fill
    std::uint32_t pins = 0;                   // handles, and calls that wait: they keep an idle lane from being freed
    sync::atomic<std::uint32_t> pushed{0};    // modulo 2^32; read by the head
    std::uint32_t taken_seen = 0;

    job_slot inline_slot; // also keeps the two ends' counters on different cache lines

    // --- The head: under head_lock, by the owner and by those who discard.
    sync::spin_lock head_lock;
    std::uint8_t head_index = at_inline_slot; // next slot to take
    bool has_job : 1 = false;                 // a job runs or is held
    bool room_wanted : 1 = false;             // a submitter sleeps until there is room
    bool attends : 1 = false;                 // none of its jobs starts without pool_core::attend()
    sync::atomic<bool> cancelled{false};      // asks the current job to stop; read by it
    std::uint32_t pushed_seen = 0;
    sync::atomic<std::uint64_t> taken{0}; // since idle; the tail reads its low half
    chunk* head = nullptr;
    job_extras* extras = nullptr;

    // The stored key lies before it (lane_table.hpp).

    /// Makes room for a slot and lets `source` fill it. Strong guarantee: when it throws, nothing has changed.
    /// REQUIRES: the shard's lock; room (waiting_locked). The state is the caller's to see to.
    void push_locked(job_source& source, tick age, const job_options& how, barrier_era era = 0);

    /// Jobs that wait, as the tail sees it: at least `limit` only if that is true. REQUIRES: the shard's lock.
    std::uint32_t waiting_locked(std::uint32_t limit) noexcept;

    /// Jobs that wait, for those who look from outside and can bear a wrong answer. REQUIRES: pinned or the shard's
    /// lock.
    std::uint32_t waiting() const noexcept;

    /// Whether there is room again of which a submitter is to be told, as who asks then does. REQUIRES: head_lock.
    bool has_room_to_tell_locked(std::size_t capacity) noexcept {
        const bool tells = room_wanted && waiting() <= capacity / 2;
        if (tells)
            room_wanted = false;
        return tells;
    }

    /// The oldest waiting job's slot or null. REQUIRES: head_lock.
    job_slot* front_locked() noexcept;

    /// Moves the front to `to`. REQUIRES: head_lock; front_locked() was not null. Returns the job's number, from 1.
    std::uint64_t take_locked(job_slot& to) noexcept;

    /// A chunk more, if the next push needs one; only a push that cannot fail may follow. REQUIRES: the shard's lock.
    bool needs_chunk_locked() const noexcept {
        return tail_index != at_inline_slot && tail_index >= chunk::slots_in_all;
    }
    void add_chunk_locked(std::unique_ptr<chunk> added) noexcept;

    /// Cuts all waiting jobs out. REQUIRES: the shard's lock and head_lock.
    cut_jobs cut_locked() noexcept;

    /// Shows the slots of all waiting jobs, the oldest first. REQUIRES: the shard's lock and head_lock.
    template <class F>
    void each_waiting_locked(F f);

    /// What the current job has of extras, or null. REQUIRES: head_lock.
    job_extras* current_extras_locked() const noexcept {
        return extras == nullptr || extras->detached ? nullptr : extras;
    }

    /// Whether there may be a current job that has extras. REQUIRES: ownership. Its job has had them since before the
    /// lane came into the owner's hands; what stands for shared jobs comes and goes under head_lock meanwhile.
    bool may_have_extras() noexcept {
        // relaxed: asks only whether to look under head_lock. Pairs with the stores in link_locked and unlink_locked.
        return sync::atomic_ref(extras).load(std::memory_order_relaxed) != nullptr;
    }

    /// Puts a job's extras first in the list, and takes them out. REQUIRES: head_lock.
    void link_locked(job_extras& e) noexcept;
    void unlink_locked(job_extras& e) noexcept;

    /// Ends the current job. Returns its extras, if any, to be ended under no lock. REQUIRES: head_lock.
    job_extras* end_job_locked() noexcept;

    /// It has work now, and lies in no worker's hands unless it was left behind. Whether the caller must queue it: not
    /// where it still has its place, or is paused. REQUIRES: the shard's lock.
    bool become_active_locked() noexcept {
        assert(state != lane_state::active); // I-LANE-2
        state = paused ? lane_state::suspended : lane_state::active;
        return !paused && !left_behind;
    }

    /// Frees the last chunk and begins anew. REQUIRES: the shard's lock; no jobs; ownership, or head_lock, too.
    void rewind_locked() noexcept;

    /// The same for a lane that is lingering then: jobs are numbered on. REQUIRES: as before.
    void linger_locked() noexcept;
};

static_assert(sizeof(lane) == 112);

template <class F>
void lane::each_waiting_locked(F f) {
    chunk* c = head;
    std::uint8_t i = head_index;
    for (auto count = waiting(); count > 0; --count) {
        if (i == chunk::slots_in_all) {
            c = c->next;
            i = 0;
        }
        f(i == at_inline_slot ? inline_slot : c->slots[i]);
        i = i == at_inline_slot ? 0 : static_cast<std::uint8_t>(i + 1);
    }
}

} // namespace taskpool::detail
