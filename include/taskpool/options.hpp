// SPDX-License-Identifier: Apache-2.0
// How a pool is set up, and what may be said of one job.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <taskpool/rate.hpp>
#include <taskpool/retry.hpp>

namespace taskpool {

class manual_clock;

/// What a submit does when `lane_capacity` jobs wait under its key. When the whole pool is full, `block` waits and
/// `reject` refuses; the other two first give up the key's own oldest waiting job and refuse when it has none.
enum class overflow : std::uint8_t {
    block,       ///< submit waits for room; try_submit answers `full`, submit_for and submit_until give up in time.
    reject,      ///< Every submit answers `full` at once.
    drop_oldest, ///< The key's oldest waiting job is discarded and reported; the new one is accepted.
    keep_latest, ///< At most one job waits under a key: a new one discards and replaces it, full or not.
};

/// Why an accepted job was discarded without being run.
enum class discard_reason : std::uint8_t {
    stopped,        ///< by stop() or the destructor
    cancelled,      ///< by cancel(key)
    dropped_oldest, ///< by overflow::drop_oldest
    replaced,       ///< by overflow::keep_latest, or by a job of the same tag
    no_room,        ///< its time came while there was no room, with overflow::reject
    expired,        ///< its turn came after its deadline (deadline.hpp)
    would_deadlock, ///< a barrier, or a job of several keys: jobs before it wait for jobs after it
};

/// A job, or the destructor of a job's callable, that threw. Valid during the call of the handler only.
struct failure {
    std::string_view key;     ///< The key as text: itself for a string, its digits for a number.
    std::exception_ptr error; ///< What was thrown.
};

/// A job that was accepted and then discarded. Valid during the call of the handler only.
struct discard {
    std::string_view key;  ///< The key as text: itself for a string, its digits for a number. A barrier's: "(barrier)".
    discard_reason reason; ///< Why.
};

/// How a pool is set up. Every field has a default; a value that makes no sense is a std::invalid_argument.
struct options {
    /// Workers that run jobs at the same time, not counting blocked ones. 0: as many as this process may use (its
    /// affinity mask, and the quota of its control group rounded up).
    unsigned threads = 0;

    /// Threads in all, when jobs block theirs (G3). 0: 1,024, or `threads` where that is more.
    unsigned max_threads = 0;

    /// Jobs that may wait under one key, the running one not counted (G6). From 1 to 1,000,000,000. It binds
    /// submitters, not executors of other libraries (asio.hpp), which can neither wait nor be refused; nor does
    /// pool_capacity.
    std::size_t lane_capacity = 100;

    /// Jobs that may wait under all keys together (G6). At least 1. It binds submitters, not the calls of `run` and
    /// `then`: they exist already when they are submitted, so they are, as soon as their lane has room.
    std::size_t pool_capacity = std::size_t{1} << 20;

    /// Jobs that may wait for their time (submit_after, submit_at, submit_every) in all.
    std::size_t timer_capacity = std::size_t{1} << 20;

    /// Shared jobs of one key (submit_shared) that may run or be held at the same time. At least 1.
    std::size_t max_shared = 1024;

    /// What a submit does when there is no room.
    overflow when_full = overflow::block;

    /// When a job that throws is tried again, if with_retry says nothing else for it: one of any submit or of async.
    /// Coroutines, the calls of `run` and `then`, and what executors of other libraries post are not.
    std::optional<taskpool::retry> retry = std::nullopt;

    /// How often jobs of each key may start, unless limit() or limit_by() says otherwise for one. Default: as often as
    /// they can.
    std::optional<taskpool::rate> rate = std::nullopt;

    /// While a ready key has waited for a worker for longer than this (pool_stats::oldest_wait), new work is refused:
    /// every submit answers submit_status::overloaded at once, whatever when_full says. Not refused is what exists
    /// already: jobs whose time has come, the calls of `run` and `then`, what executors of other libraries post; nor
    /// what takes the place of a waiting job, by its tag or by drop_oldest or keep_latest; nor jobs for a later time.
    /// It begins and ends within two ticks. From 1 ms to 24 h. Default: nothing is refused for that.
    std::optional<std::chrono::milliseconds> max_wait = std::nullopt;

    /// How much older than it is a job of priority::high counts, and how much younger one of priority::low, when ready
    /// keys take turns (G4). So the longest that a job waits for later ones of a higher class is twice that. In steps
    /// of 1 ms, up to an hour.
    std::chrono::milliseconds ageing = std::chrono::seconds(1);

    /// Whether the constructor starts the threads. If not, jobs are accepted and wait for start().
    bool autostart = true;

    /// The clock by which timers and sleeping coroutines go; null: the system's steady clock.
    std::shared_ptr<manual_clock> clock = nullptr;

    /// Threads are named after it ("name-3"); what the system's limit leaves of it (15 bytes in all on Linux).
    std::string name = "taskpool";

    /// Called for each job that throws and has no future, on the thread that ran it, from several threads at once.
    /// Must not throw: what it throws is dropped. Default: a line on stderr with the key and what().
    std::function<void(const failure&)> on_failure = {};

    /// Called for each accepted job that is discarded, on the thread that discards it, from several threads at once,
    /// before the callable is destroyed. Must not throw: what it throws is dropped; must not wait for the pool, as the
    /// destructor of a callable must not (a stop() inside a stop() is refused). Default: it is only counted.
    std::function<void(const discard&)> on_discard = {};
};

/// What stop() does with a job that still waits.
enum class stop_action : std::uint8_t {
    discard, ///< It is discarded and reported.
    run,     ///< It must not be lost: it runs during stop, with its context already stopped.
};

/// Which of two ready keys goes first. Jobs of one key run in their order, whatever their priorities: a key counts by
/// its next job. A coroutine that goes on counts as normal. A key that waits for its turn keeps that when what it was
/// given for is cancelled, dropped or replaced.
enum class priority : std::uint8_t {
    normal, ///< By age (G4).
    high,   ///< As if it had been submitted options::ageing earlier.
    low,    ///< As if it had been submitted options::ageing later.
};

/// What a job is about, within its key: of those of one tag at most one waits, the latest.
struct tag {
    std::string_view name;
};

/// What may be said of one job when it is submitted.
struct job_options {
    stop_action on_stop = stop_action::discard;               ///< What stop() does with it while it waits.
    taskpool::priority priority = taskpool::priority::normal; ///< How its key takes turns with others, when it is next.
};

} // namespace taskpool
