// SPDX-License-Identifier: Apache-2.0
// Rates of keys. A lane of which some rate may be asked is marked (lane::attends), and the worker that is to take its
// next job asks for a token first. If there is none, the lane is suspended until a timer wakes it.
//
// A bucket is the one time at which it will be full: the generic cell rate algorithm (ITU-T I.371). Each token moves
// that on by the time in which one comes, and is there as long as the time is not too far ahead.
//
//   I-RATE-1  A bucket pins its lane, and exists from the first token, or from limit(), until its key has no rate of
//             its own, and it is full or there are no rates for all. Only the keeper ends it, when its timer fires, so
//             nobody's timer does so twice.
//   I-RATE-2  Of a bucket that waits the timer is linked, or in the keeper's hands, and due no later than its token:
//             so a lane that was suspended for a token is queued when that comes, or what its rate is has changed.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>

#include <taskpool/rate.hpp>

#include <taskpool/detail/core.hpp>

#include "lane.hpp"
#include "timers.hpp"

namespace taskpool::detail {

/// A rate, as it is reckoned with.
class pace {
  public:
    /// Throws std::invalid_argument for a rate that makes no sense.
    explicit pace(const rate& of);
    static pace without_limit() noexcept { return pace(); }

    bool is_unlimited() const noexcept { return interval_ == interval_.zero(); }
    /// In which a token comes, rounded down.
    std::chrono::nanoseconds interval() const noexcept { return interval_; }

  private:
    friend struct bucket;
    pace() noexcept = default;

    std::chrono::nanoseconds interval_{};
    std::chrono::nanoseconds ahead_{}; // how far a bucket's time may be when it has a token
};

struct bucket : pool_timer {
    using time_point = timers::time_point;

    bucket(lane& of, const pace& now_at) noexcept : in(of), at(now_at) {}

    // All under the shard's lock.
    lane& in;
    pace at;
    std::uint64_t version = 0;  // of the rates that yielded `at`
    bool is_own = false;        // `at` was set for this key
    bool waits = false;         // its lane was suspended for a token
    bool has_waited = false;    // what it is late by is not lost, while its lane is not idle:
    std::uint64_t last_job = 0; // the number of the one that took the last token
    bool armed = false;         // its timer is linked, or in the keeper's hands ...
    time_point fires_at{};      // ... for then
    time_point full_at = time_point::min();

    /// When there is, or was, a token.
    time_point next_token() const noexcept;
    /// Takes the token that there is.
    void take(time_point now) noexcept;
    void give_back() noexcept;
    bool is_full(time_point now) const noexcept { return full_at <= now; }
    /// From now on at another rate; what it lacks it lacks in tokens.
    void change(const pace& to, time_point now) noexcept;
};

/// What limits the keys that have no rate of their own.
struct common_rates {
    std::optional<rate> all;
    std::shared_ptr<const rate_function> by; // or null
};

/// The buckets of a shard. Under its lock.
struct rate_table {
    std::uint64_t version = 1;                                        // of the common rates
    bool all_attend = false;                                          // there are some
    std::unique_ptr<std::unordered_map<const lane*, bucket>> buckets; // null while there are none (G7)

    bucket* find(const lane& l) noexcept;
    bucket& find_or_make(lane& l, const pace& at); // throws std::bad_alloc
    void erase(const bucket& b) noexcept;
    /// Gives memory back after there were many.
    void shrink() noexcept;
    /// Whether a lane attends for their sake.
    bool concern(const lane& l) noexcept { return all_attend || find(l) != nullptr; }
};

/// Whose turn it is when a lane's worker asks for its next job.
enum class turn : std::uint8_t {
    unclear, ///< There is no job.
    own,     ///< The lane's: it is locked, and there is a job, for which there was a token if it wants one.
    others,  ///< The lane was suspended, and is the worker's no longer.
    holds,   ///< Likewise, for a job of several keys that has begun to wait for its other lanes.
    pinned,  ///< Likewise, and it is pinned until those who wait for room in it have been told.
};

} // namespace taskpool::detail
