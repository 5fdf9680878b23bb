// SPDX-License-Identifier: Apache-2.0
// How often jobs of one key may start: a token bucket for each key.
//
//     taskpool::task_pool pool({.rate = taskpool::rate{10, taskpool::per_second}}); // each key, one in 100 ms
//     pool.limit("customer-7", {100, taskpool::per_second, 20});                    // this one more, and 20 at once
//
// A key that has no token waits for the next one with no thread, and other keys go on. It takes its token when a job
// starts. What has begun takes none: further attempts (retry.hpp), coroutines that go on, and what executors of other
// libraries post; nor does a job that came too late (deadline.hpp).
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>

namespace taskpool {

inline constexpr std::chrono::nanoseconds per_second = std::chrono::seconds(1);
inline constexpr std::chrono::nanoseconds per_minute = std::chrono::minutes(1);
inline constexpr std::chrono::nanoseconds per_hour = std::chrono::hours(1);

/// A token bucket: of a key's jobs at most `burst` + t * `jobs` / `per` start in any time t. Keys wake at ticks of 1
/// ms, so what one that waits is late by, up to 20 ms, it makes good. Tokens come in whole nanoseconds, rounded down;
/// no bucket takes longer to fill than 36 years.
struct rate {
    double jobs;                               ///< Positive; of infinity the key is not limited.
    std::chrono::nanoseconds per = per_second; ///< Positive.
    std::uint32_t burst = 1;                   ///< How many may start at once after a rest. At least 1.
};

/// For a key that is exempt from the rate of the others.
inline constexpr rate unlimited{std::numeric_limits<double>::infinity()};

} // namespace taskpool
