// SPDX-License-Identifier: Apache-2.0
// What became of the records, and what --on-fail makes of it. No effects.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "options.hpp"

namespace taskpool::cli {

enum class outcome {
    ok,
    failed,    ///< It ended with an exit code other than 0, or its output could not be kept.
    signalled, ///< A signal that was not ours ended it.
    timed_out,
    cancelled, ///< It was running when the run was broken off, and was ended.
    skipped,   ///< skip-key: an earlier record of its key failed.
    not_run    ///< It was read, and the run ended before its turn.
};

class tally {
  public:
    enum class verdict { go_on, skip_key, halt_soon, halt_now };

    explicit tally(const fail_policy& policy) : policy_(policy) {}

    /// Counts, and says what the policy asks for after this one. skip_key is about this key.
    verdict add(outcome what, std::string_view key);
    void add_not_run(std::uint64_t count) noexcept { counts_[static_cast<std::size_t>(outcome::not_run)] += count; }

    void add_left_out() noexcept {
        ++left_out_;
    } ///< A record without a key that need not have one; none of the counts.

    std::uint64_t count(outcome what) const noexcept { return counts_[static_cast<std::size_t>(what)]; }
    std::uint64_t failures() const noexcept; ///< failed, signalled or timed out
    std::uint64_t finished() const noexcept; ///< ok or a failure
    std::uint64_t done() const noexcept;     ///< all of them

    /// Two lines at most: the counts, and the keys that failed (at most 20).
    std::string summary(double seconds) const;

    /// 0; 125 when a job died by a signal; 123 when any other is not ok.
    int exit_code() const noexcept;

  private:
    // Beyond this many, keys that fail are only counted as jobs, so that memory stays bounded (skip_key needs them
    // all).
    static constexpr std::size_t most_keys = 10'000;

    const fail_policy policy_;
    std::uint64_t counts_[7] = {};
    struct failed_key {
        std::uint64_t failures = 0;
        std::uint64_t order = 0; // in which it failed first, to list the first ones
    };
    std::unordered_map<std::string, failed_key> failed_;
    bool more_keys_ = false;
    std::uint64_t left_out_ = 0;
};

} // namespace taskpool::cli
