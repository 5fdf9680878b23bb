// SPDX-License-Identifier: Apache-2.0
// Jobs submitted for a later time: the callable and the key wait in an object of their own until the time has come;
// then the keeper submits the callable to its lane. So a key with nothing but timers has no lane.
//
// A job that runs once is handed to the lane as it is. One that repeats stays here, and the lane gets a *beat*, which
// points to it; a beat that is due while the one before has not ended is passed over and counted.
//
//     pending --due--> due --room in the lane--> delivered          pending --taken back--> (discarded)
//                       |__ no room: tried again each tick __|
//
//   I-TIMED-1  Each is in its shard's list from the submit until it is delivered or discarded; `shard::timed` counts
//              those that run once, so drain() waits for them.
//   I-TIMED-2  Who takes one back unlinks its timer and discards it; if the keeper has unlinked it already, he marks
//              it, and the keeper discards it unless it was delivered before (I-TIMER-1).
//   I-TIMED-3  Those that the keeper has unlinked are in its list of what is due, in the order of their times, until
//              they are delivered, discarded or linked again: of two jobs of a key that which is due first is handed
//              over first, though it may find no room at first. stop() has the keeper take all that must run for due.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "lane.hpp"
#include "timers.hpp"

namespace taskpool::detail {

class lane_maker;
struct shard;

/// What one that repeats has beside the rest.
struct repetition {
    const std::chrono::nanoseconds period;
    timers::time_point next;
    const job_ops* ops = nullptr; // the user's
    alignas(inline_job_alignment) std::byte storage[inline_job_size];
    sync::atomic<std::uint64_t> missed{0};
};

struct timed_job : pool_timer {
    // --- Under the shard's lock: timed_index
    timed_job* next_in_chain = nullptr;
    timed_job* previous_in_chain = nullptr;
    // --- The owner's: who made it, then who unlinked the timer
    alignas(inline_job_alignment) std::byte storage[inline_job_size]; // of one that repeats: its repetition*
    const job_ops* ops = nullptr; // null from its delivery on, which happens under the shard's lock
    // --- Constant
    std::uint32_t hash = 0; // as for the lane table
    std::uint16_t shard = 0;
    stop_action on_stop : 2 = stop_action::discard;
    taskpool::priority priority : 2 = taskpool::priority::normal;
    bool repeats : 1 = false;
    std::uint8_t : 0; // what follows may be written while those are read
    // --- Under the shard's lock
    std::uint8_t users : 2 = 1;  // of the callable: the list, and a beat
    bool beat_waits : 1 = false; // a beat is in the lane or runs
    bool has_handle : 1 = false;
    bool listed : 1 = false;
    bool taken_back : 1 = false;
    bool by_stop : 1 = false; // taken back by stop()
    // The stored key follows.

    repetition& repeated() const noexcept { return **reinterpret_cast<repetition* const*>(storage); }
};
static_assert(sizeof(timed_job) == 96);

/// The keys that have timed jobs, but for those that repeat, and no lane with work. REQUIRES: the shard's lock.
void visit_timed_keys_locked(const lane_maker& maker, const shard& s, key_visitor visitor);

} // namespace taskpool::detail
