// SPDX-License-Identifier: Apache-2.0
// What a pool says of itself.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <taskpool/export.hpp>

namespace taskpool {

/// Durations counted by powers of two, at the pool's clock of one tick (1 ms).
struct histogram {
    /// counts[0] counts durations under 1 ms, counts[i] those from 2^(i-1) up to 2^i ms; the last one all that is
    /// longer.
    std::array<std::uint64_t, 24> counts{};

    /// How many durations were counted.
    TASKPOOL_EXPORT std::uint64_t total() const noexcept;

    /// An upper bound of the q-quantile (0 <= q <= 1): the end of the bucket that it falls in. Zero when empty.
    TASKPOOL_EXPORT std::chrono::milliseconds quantile(double q) const noexcept;
};

/// A picture of the pool. Counters only grow; each is exact, but they are read one after the other while work goes on.
/// What has become of a job is counted at its end: that may be a moment after its future is ready, and is before a
/// drain() that waits for it returns.
struct pool_stats {
    std::uint64_t accepted = 0; ///< Jobs that the pool took.
    std::uint64_t finished =
        0;                     ///< Jobs that ran to their end, failed ones included; held ones when they were released.
    std::uint64_t failed = 0;  ///< Jobs that threw (where a future took the exception, too).
    std::uint64_t retries = 0; ///< Attempts after the first one of a job that threw (retry.hpp).
    std::uint64_t discarded = 0; ///< Accepted jobs that never ran: see discard_reason.
    std::uint64_t expired = 0;   ///< Those of them that came to their turn after their deadline (deadline.hpp).
    std::uint64_t replaced = 0;  ///< Those of them that made way for a job of the same tag.
    std::uint64_t together = 0;  ///< Accepted jobs of several keys.
    std::uint64_t rejected = 0;  ///< Submits that were not accepted, whatever their status.

    std::uint64_t high = 0; ///< Jobs of priority::high that came to their turn.
    std::uint64_t low = 0;  ///< The same of priority::low.

    std::size_t waiting = 0;     ///< Jobs that wait in lanes, suspended coroutines that lent their lane included.
    std::size_t timers = 0;      ///< Jobs that wait for their time, repeating ones included.
    std::size_t running = 0;     ///< Jobs that a thread runs now.
    std::size_t shared = 0;      ///< Shared jobs that run, are held or are between two attempts (submit_shared).
    std::size_t barriers = 0;    ///< Barriers that wait or run.
    std::size_t active_keys = 0; ///< Keys with work: ready, running, suspended or paused.
    std::size_t ready_lanes = 0; ///< Lanes that wait for a worker.
    std::chrono::milliseconds oldest_wait{}; ///< For how long the one of them has that has waited longest: about the
                                             ///< age of the oldest job that only waits for a worker. In ticks of 1 ms.
    std::size_t suspended_lanes = 0;         ///< Lanes that are held with no thread.
    std::size_t paused_keys = 0;             ///< Keys that are paused, with or without work.
    std::size_t limited_keys = 0;            ///< Keys with work that wait for their rate (rate.hpp).
    std::size_t threads = 0;                 ///< Threads that the pool has now, blocked ones included.
    std::size_t blocked_threads = 0;         ///< Threads whose job is known to be blocked.
    std::size_t threads_refused = 0;         ///< Times the system refused a thread; the pool went on with those it had.

    histogram wait_time; ///< From submit to start (or to its late turn), each job that came to its turn.
    histogram run_time;  ///< From start to return, each job that returned.
};

/// A key and how many jobs ran under it.
template <class Key>
struct hot_key {
    Key key;
    std::uint64_t jobs; ///< An estimate; at most `error` above the truth, apart from what sampling adds.
    std::uint64_t error;
};

/// What stop() did.
struct stop_report {
    std::uint64_t finished = 0;          ///< Jobs that ran to their end in the pool's whole life, failed ones included.
    std::uint64_t discarded = 0;         ///< Accepted jobs that never ran in the pool's whole life.
    std::uint64_t discarded_by_stop = 0; ///< Those of them that this stop discarded.
};

/// What drain_for() found when it returned.
template <class Key>
struct drain_report {
    bool drained = true;   ///< Whether nothing accepted was left.
    std::vector<Key> keys; ///< The keys that still had work when the time was up, in no particular order.

    explicit operator bool() const noexcept { return drained; }
};

} // namespace taskpool
