// SPDX-License-Identifier: Apache-2.0
// The ready lanes of one home, by the age of their next job (G4). Any worker may take from it; one that serves this
// home looks here first.
//
// Lanes of one tick form a *bucket*, a list through lane::next_ready in order of arrival. The oldest bucket, often the
// only one, lies in the queue's own cache line, which moves between cores for each lane; later ones lie in a ring. A
// lane that comes to have work goes to the last bucket; one that is put back with older work goes where its tick
// belongs. There are as many buckets as different ticks wait, so a few thousand even with seconds of backlog.
//
//   I-QUEUE-1  Ticks of the buckets strictly increase from front to back, and none is empty.
//   I-QUEUE-2  `front_` tells the front's tick whenever the lock is free.
//   I-QUEUE-3  A bucket's `since` is that of the lane that had waited longest of all that came to lie in it. So it may
//              tell too much while the lanes of one tick are being taken; never too little.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "lane.hpp"
#include "sync.hpp"
#include "tick_clock.hpp"

namespace taskpool::detail {

class alignas(64) ready_queue {
  public:
    ready_queue() : ring_(64) {}

    /// Queues a lane by its age; it has waited `since` then, for a worker. Never fails: where the ring cannot grow, the
    /// lane joins the bucket next in age.
    void push(lane& l, tick age, tick since) noexcept;

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

    /// Since when the lanes that have waited longest do, if there are any. A look at each bucket.
    std::optional<tick> oldest_since() const noexcept;

    /// Shows up to `most` of the lanes that have waited since then, with the lock held.
    template <class F>
    void each_since(tick since, std::size_t most, F f) const;

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
        tick since;
        lane* first;
        lane* last;
    };
    static constexpr std::uint64_t none = std::uint64_t{1} << 32;

    bucket& at(std::size_t i) noexcept { return i == 0 ? oldest_ : ring_[(begin_ + i) & (ring_.size() - 1)]; }
    const bucket& at(std::size_t i) const noexcept {
        return i == 0 ? oldest_ : ring_[(begin_ + i) & (ring_.size() - 1)];
    }
    void insert_bucket(std::size_t place, const bucket& added) noexcept;
    bool grow() noexcept;
    void publish_front() noexcept;

    mutable sync::spin_lock lock_;
    sync::atomic<std::uint64_t> front_{none}; // written under lock_
    // Under lock_. What each push and pop writes makes one line with it.
    bucket oldest_{};
    std::size_t lanes_ = 0;
    std::uint64_t pops_ = 0;
    std::uint32_t begin_ = 0; // where the oldest one would lie in the ring
    std::uint32_t buckets_ = 0;
    std::vector<bucket> ring_; // a power of two
};

template <class F>
void ready_queue::each_since(tick since, std::size_t most, F f) const {
    const std::lock_guard lock(lock_);
    for (std::size_t i = 0; i < buckets_; ++i)
        if (at(i).since == since)
            for (const lane* l = at(i).first; l != nullptr && most > 0; l = l->next_ready, --most)
                f(*l);
}

} // namespace taskpool::detail
