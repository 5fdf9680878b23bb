// SPDX-License-Identifier: Apache-2.0
// How far the run is, in words and as JSON. No effects: the runner fills in a picture and shows the text.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "options.hpp"

namespace taskpool::cli {

/// The run at one moment.
struct picture {
    double seconds = 0; ///< Since the start.
    std::uint64_t done = 0;
    std::uint64_t ok = 0;
    std::uint64_t failed = 0; ///< Timed out ones included.
    std::uint64_t skipped = 0;
    std::size_t running = 0;
    std::size_t slots = 0;
    std::uint64_t waiting = 0;          ///< Read and not started.
    std::size_t keys = 0;               ///< With records that wait or run.
    std::string hottest;                ///< The key with the most that wait ...
    std::size_t hottest_waiting = 0;    ///< ... and how many those are; 0: none.
    std::optional<std::uint64_t> total; ///< Records in all, once they are read.
    double rate = 0;                    ///< Records done each second of late.
    std::optional<double> seconds_left;
};

std::string progress_line(const picture& now, std::size_t width); ///< Of at most `width` columns.
std::string progress_plain(const picture& now);
std::string progress_json(const picture& now, bool final);

/// When to show what. Terminal: a line in place, at most ten times a second; plain and JSON: a line each second.
class progress {
  public:
    using clock = std::chrono::steady_clock;
    enum class kind { none, line, plain, json };

    progress(kind what, clock::time_point start) : kind_(what), start_(start), next_(start + interval()) {}

    kind what() const noexcept { return kind_; }
    clock::time_point next() const noexcept { return kind_ == kind::none ? clock::time_point::max() : next_; }

    /// Adds the time, the rate and the time left, and puts the next showing off.
    void complete(picture& now, clock::time_point time);

  private:
    std::chrono::milliseconds interval() const noexcept {
        return std::chrono::milliseconds(kind_ == kind::line ? 100 : 1000);
    }

    const kind kind_;
    const clock::time_point start_;
    clock::time_point next_;
    struct sample {
        double seconds;
        std::uint64_t done;
    };
    std::deque<sample> samples_{{0, 0}}; // of the last ten seconds and one before, for the rate
};

} // namespace taskpool::cli
