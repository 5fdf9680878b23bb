// SPDX-License-Identifier: Apache-2.0
// The ready lanes of one home, by the age of their next job (G4). Any worker may take from it; one that serves this
// home looks here first.
//
// Lanes of one tick form a *bucket*, a list through lane::next_ready in order of arrival; the buckets lie in a ring,
// oldest first. A lane that comes to have work goes to the last bucket; one that is put back with older work goes where
// its tick belongs. There are as many buckets as different ticks wait, so a few thousand even with seconds of backlog.
//
//   I-QUEUE-1  Ticks of the buckets strictly increase from front to back, and none is empty.
//   I-QUEUE-2  `front_` tells the front's tick whenever the lock is free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "lane.hpp"
#include "sync.hpp"
#include "tick_clock.hpp"

namespace taskpool::detail {

class alignas(64) ready_queue {
  public:
    ready_queue() : ring_(64) {}

    /// Never fails: where the ring cannot grow, the lane joins the bucket next in age.
    void push(lane& l, tick age) noexcept;

    /// The oldest lane, or null.
    lane* pop() noexcept;

    /// The age of the oldest lane, without the lock: a hint.
    std::optional<tick> front() const noexcept {
        // relaxed: a hint; who must not miss a lane asks is_empty() (see parking.hpp).
        const auto front = front_.load(std::memory_order_relaxed);
        if (front == none)
            return std::nullopt;
        return static_cast<tick>(front);
    }

    /// With the lock: sees every push that has ended.
    bool is_empty() const noexcept { return state().lanes == 0; }

    struct state_t {
        std::size_t lanes;  // that lie here
        std::uint64_t pops; // that there ever were
    };
    state_t state() const noexcept;

  private:
    struct bucket {
        tick age;
        lane* first;
        lane* last;
    };
    static constexpr std::uint64_t none = std::uint64_t{1} << 32;

    bucket& at(std::size_t i) noexcept { return ring_[(begin_ + i) & (ring_.size() - 1)]; }
    void insert_bucket(std::size_t at, lane& l, tick age) noexcept;
    bool grow() noexcept;
    void publish_front() noexcept;

    mutable sync::spin_lock lock_;
    sync::atomic<std::uint64_t> front_{none}; // written under lock_
    // Under lock_:
    std::vector<bucket> ring_; // a power of two
    std::size_t begin_ = 0;
    std::size_t buckets_ = 0;
    std::size_t lanes_ = 0;
    std::uint64_t pops_ = 0;
};

} // namespace taskpool::detail
