// SPDX-License-Identifier: Apache-2.0
// The timed jobs of one shard, by the hash of their keys: so that to cancel or drain a key costs no look at all others.
//
// A hash table with chains through the jobs themselves, at most 4 to a bucket on average: a million timers cost it 2 to
// 4 bytes each. Without memory for more buckets the chains get longer. It never allocates for a single chain, and gives
// its buckets back when it is empty, or much too large when the keeper sweeps the shard (G7).
//
// All of it REQUIRES the shard's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace taskpool::detail {

struct timed_job;

class timed_index {
  public:
    void add(timed_job& t) noexcept;
    void remove(timed_job& t) noexcept; // moves no other

    bool is_empty() const noexcept { return count_ == 0; }

    /// The chain in which the jobs of a hash are, among others; the rest follow by `next_in_chain`.
    timed_job* chain_of(std::uint32_t hash) const noexcept { return buckets()[hash & mask_]; }

    /// All chains, from 0 on.
    std::size_t chains() const noexcept { return mask_ + std::size_t{1}; }
    timed_job* chain(std::size_t i) const noexcept { return buckets()[i]; }

    /// For the keeper: gives back memory that is no longer worth it.
    void shrink() noexcept;

  private:
    static constexpr std::size_t most_in_chain = 4; // on average

    timed_job* const* buckets() const noexcept { return many_ ? many_.get() : &one_; }
    timed_job** buckets() noexcept { return many_ ? many_.get() : &one_; }
    void resize(std::size_t to) noexcept;

    std::unique_ptr<timed_job*[]> many_; // a power of two of them, or null: there is only the one
    timed_job* one_ = nullptr;
    std::uint32_t mask_ = 0;
    std::uint32_t count_ = 0;
};

} // namespace taskpool::detail
