// SPDX-License-Identifier: Apache-2.0
// Applies operations to a pool without threads and to the model, and compares them after each.
#pragma once

#include <cstdint>
#include <string>

#include "operation.hpp"

namespace taskpool::random {

/// What is broken on purpose between the operations and the pool, or in the model, to see that it is found.
enum class fault : std::uint8_t {
    none,
    swaps_two_jobs,   ///< two jobs that wait under one key run in each other's place
    loses_a_job,      ///< every third job neither runs nor is reported
    runs_a_job_twice, ///< every third one
    hides_a_discard,  ///< of those by cancel
    miscounts_room,   ///< the model thinks that lanes are larger by one than they are
    forgets_pauses,   ///< pause() does not reach the pool
    wakes_early,      ///< timed jobs are submitted for a millisecond earlier
};

/// The first operation says how the pool is set up. What differs, in words; empty: nothing.
std::string run_manual(const operations& all, fault broken = fault::none);

} // namespace taskpool::random
