// SPDX-License-Identifier: Apache-2.0
// Which keys have the most jobs, in bounded memory: the space-saving summary of Metwally, Agrawal and El Abbadi
// ("Efficient computation of frequent and top-k elements in data streams", ICDT 2005), fed with a sample.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "lane_table.hpp"
#include "sync.hpp"
#include "tick_clock.hpp"

namespace taskpool::detail {

class hot_keys {
  public:
    static constexpr std::size_t capacity = 256;
    static constexpr std::size_t longest_key = 4096; // bytes; longer ones are not counted, to bound the memory
    static constexpr tick half_life = 10'000;        // ticks

    explicit hot_keys(const lane_maker& maker) noexcept : maker_(maker) {}
    hot_keys(const hot_keys&) = delete;
    hot_keys& operator=(const hot_keys&) = delete;
    ~hot_keys();

    /// Counts `jobs` for a key. A sample that meets another one, or for which there is no memory, is passed over.
    void count(const void* stored_key, std::uint64_t jobs, tick now) noexcept;

    /// The keys with the highest counts, highest first. Throws what the visitor throws.
    void visit(std::size_t most, key_visitor visitor) const;

  private:
    struct counter {
        void* key; // owned
        std::uint64_t jobs;
        std::uint64_t error; // the count that was here when the key came: at most so much of `jobs` is not its own
    };
    void halve() noexcept;
    /// Where the lowest count is. REQUIRES: all counters are used.
    std::size_t find_lowest() noexcept;
    void free_key(void* key) noexcept;

    const lane_maker& maker_;
    mutable sync::mutex mutex_;
    // Under mutex_:
    std::array<counter, capacity> counters_{};
    std::array<std::uint32_t, capacity> hashes_{}; // of the same keys, apart: so a search reads few lines
    std::size_t used_ = 0;
    std::uint64_t lowest_ = 0;  // no count is lower while all are used
    std::size_t lowest_at_ = 0; // where one was found last: those of equal counts follow in turn
    tick halved_ = 0;
};

} // namespace taskpool::detail
