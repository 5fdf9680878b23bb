// SPDX-License-Identifier: Apache-2.0
// Which executions are run: who makes the decisions of an execution, and which execution comes next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace taskpool::model {

/// What a decision against the usual costs.
enum class cost : std::uint8_t { preemption, stale_read };

/// A decision between `options`, of which the first `free` cost nothing.
struct decision {
    unsigned free;
    unsigned options;
    cost price;

    bool operator==(const decision&) const = default;
};

/// All executions within the bounds, depth first. The first one takes the usual way everywhere.
class systematic_search {
  public:
    systematic_search(int preemptions, int stale_reads) noexcept : most_{preemptions, stale_reads} {}

    void begin() noexcept { at_ = 0; }
    /// The next decision of this execution.
    unsigned decide(const decision& d);
    /// Goes on to the next execution; false when there is none.
    bool advance();
    /// An execution took another way than one with the same decisions before it.
    bool has_diverged() const noexcept { return diverged_; }

  private:
    struct step {
        decision what;
        unsigned chosen;
    };

    const std::array<int, 2> most_;
    std::vector<step> path_;
    std::size_t at_ = 0;
    bool diverged_ = false;
};

/// Random numbers (SplitMix64, Steele et al. 2014).
class random_numbers {
  public:
    explicit random_numbers(std::uint64_t seed) noexcept : state_(seed) {}
    std::uint64_t next() noexcept;
    std::uint64_t below(std::uint64_t limit) noexcept { return next() % limit; }

  private:
    std::uint64_t state_;
};

/// The decisions of one execution, as text: "7:1 12:2", the number of each that was not the usual one and what was
/// chosen.
class schedule {
  public:
    schedule() = default;
    explicit schedule(const std::string& text);

    void add(unsigned chosen) { chosen_.push_back(chosen); }
    unsigned at(std::size_t number) const noexcept { return number < chosen_.size() ? chosen_[number] : 0; }
    std::size_t size() const noexcept { return chosen_.size(); }
    std::string text() const;

  private:
    std::vector<unsigned> chosen_;
};

} // namespace taskpool::model
