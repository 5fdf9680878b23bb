// SPDX-License-Identifier: Apache-2.0
// Runs a scenario of a few threads again and again, each time in another interleaving. docs/model-checking.md says how
// it is meant to be used, and what it covers.
//
// A scenario is a function; the threads that it starts, and those that the core starts in it, run one at a time: they
// are fibers (fiber.hpp), and who runs has the *baton*. At each *point*, before every operation on an atomic, a lock or
// a condition, the explorer decides who runs on, and at each load which of the stores that it may yield (memory.hpp).
// An *execution* is the list of these decisions, and the same list gives the same execution.
//
// Systematically: every decision other than the usual one (to run on; the newest store) costs one of a few
// *preemptions* or *stale reads*; all executions within these bounds are run, depth first. A thread that ends, blocks
// or yields makes way to any other at no cost.
//
// At random, after PCT (Burckhardt et al., ASPLOS 2010): threads have random priorities, the highest runs; at a few
// random points the one that runs gets the lowest. One load in a few that could be stale is.
//
// An execution fails when something was required in vain, threads wait for each other for ever, a plain cell is raced
// for, an atomic or a mutex is used after its end, or there is no end in sight. Then the report tells its schedule,
// which TASKPOOL_MODEL_SCHEDULE runs again, with a list of what happened. The threads of that execution, and what they
// have, stay as they are for good.
//
//   I-EXPLORER-1  Only who has the baton touches the scheduler's and the memory's state, or runs the core's code.
//   I-EXPLORER-2  A thread that has yielded runs when another has changed something since, when no other thread can
//                 run, or for a preemption. So a spin ends, or is a deadlock.
//   I-EXPLORER-3  Time stands still while anybody can run. Then it is that of the first deadline.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <source_location>
#include <string>
#include <thread>

namespace taskpool::model {

struct bounds {
    int preemptions = 2;                  // in one execution of the systematic search
    int stale_reads = 1;                  // likewise
    std::uint64_t systematic = 1'000'000; // executions at most; fewer when all within the bounds have run
    std::uint64_t random = 1'000;         // executions
    std::uint64_t steps = 20'000;         // an execution that takes more has no end in sight
    bool time_passes = false;             // a timed wait may end at any point, for a preemption
    std::string sleeper;                  // the thread of this name runs only when another one joins it
};

struct outcome {
    bounds within;                // with what the environment asks for
    std::uint64_t systematic = 0; // executions that were run ...
    bool complete = false;        // ... which are all within the bounds
    std::uint64_t random = 0;
    std::uint64_t longest = 0; // steps of the longest execution
    std::string failure;       // empty: none
    std::string schedule;      // of the execution that failed
};

/// Runs a scenario until it fails, or the bounds are reached. TASKPOOL_MODEL_EFFORT=N in the environment makes it N
/// times as many executions, with a preemption more if N > 1; TASKPOOL_MODEL_SCHEDULE is the only one that is run,
/// where it is set; TASKPOOL_MODEL_SEED chooses other random ones.
outcome explore(bounds within, const std::function<void()>& scenario);

// --- In a scenario ---------------------------------------------------------------------------------------------------

/// Starts a thread of the execution, which a std::thread's join() waits for.
std::thread start(std::function<void()> body, std::string name = "thread");

/// Ends the execution as failed unless it is so.
void require(bool condition, const char* what, std::source_location where = std::source_location::current());

// --- For what stands between the core and the explorer (model_sync.hpp, model_platform.cpp) --------------------------

/// Whether the calling thread belongs to an execution. All below REQUIRES it.
bool is_explored() noexcept;

/// A point, before an operation.
void point(const char* operation, const void* at) noexcept;
/// The same for one that yields to others.
void yield_point() noexcept;
/// Something has changed that a thread which spins may wait for.
void changed() noexcept;

void begin_atomic(const void* at, std::uint64_t value) noexcept;
void end_atomic(const void* at) noexcept;
std::uint64_t load(const void* at, std::uint64_t present, std::memory_order order) noexcept;
void store(const void* at, std::uint64_t present, std::uint64_t value, std::memory_order order) noexcept;
void exchange(const void* at, std::uint64_t present, std::uint64_t value, std::memory_order order) noexcept;
void read_cell(const void* at) noexcept;
void write_cell(const void* at) noexcept;

using model_time = std::chrono::steady_clock::time_point;
model_time time_now() noexcept;

/// Waits for wake_all or wake_one of the same place. False when the deadline came first.
bool block(const char* why, const void* on, std::optional<model_time> deadline = {}) noexcept;
void wake_all(const void* on) noexcept;
void wake_one(const void* on) noexcept; // any one

/// Starts a thread, and waits for the end of one, by its number.
std::uint64_t start_thread(std::function<void()> body, std::string name);
void await_end(std::uint64_t thread) noexcept;

/// What a mutex releases, by its address.
void acquire_from(const void* lock) noexcept;
void release_to(const void* lock) noexcept;

[[noreturn]] void fail(const std::string& what) noexcept;

std::uint64_t this_thread_number() noexcept;
std::uint64_t steps_of(std::uint64_t thread) noexcept;
bool is_blocked(std::uint64_t thread) noexcept;

} // namespace taskpool::model
