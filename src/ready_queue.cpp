// SPDX-License-Identifier: Apache-2.0
#include "ready_queue.hpp"

#include <cassert>
#include <mutex>
#include <new>

namespace taskpool::detail {

void ready_queue::push(lane& l, tick age, tick since) noexcept {
    const std::lock_guard lock(lock_);
    l.next_ready = nullptr;
    ++lanes_;
    // The first bucket that is not older. Mostly the last one, or the end.
    std::size_t i = buckets_;
    while (i > 0 && buckets_ - i < 2 && !older(at(i - 1).age, age))
        --i;
    if (i > 0 && !older(at(i - 1).age, age)) {
        std::size_t low = 0;
        while (low < i) {
            const auto middle = (low + i) / 2;
            if (older(at(middle).age, age))
                low = middle + 1;
            else
                i = middle;
        }
    }
    const bool exists = i < buckets_ && at(i).age == age;
    if (!exists && (buckets_ < ring_.size() || grow())) {
        insert_bucket(i, {age, since, &l, &l});
    } else {
        bucket& b = at(i < buckets_ ? i : i - 1);
        assert(b.last->next_ready == nullptr); // pop() does not look
        b.last->next_ready = &l;
        b.last = &l;
        if (older(since, b.since))
            b.since = since;
        assert(!older(since, b.since)); // I-QUEUE-3
    }
    publish_front();
}

lane* ready_queue::pop() noexcept {
    const std::lock_guard lock(lock_);
    if (buckets_ == 0)
        return nullptr;
    bucket& b = at(0);
    lane* const l = b.first;
    // The last one's link leads nowhere, and its line is mostly still with who pushed it: others would wait for the
    // lock until it has come.
    b.first = l == b.last ? nullptr : l->next_ready;
    --lanes_;
    ++pops_;
    if (b.first == nullptr) {
        if (--buckets_ > 0) {
            begin_ = static_cast<std::uint32_t>((begin_ + 1) & (ring_.size() - 1));
            oldest_ = ring_[begin_]; // at(1) until now
        }
        publish_front();
    } else {
        // Who takes the next lane will find it in the cache: of many keys a lane is mostly cold when its turn comes.
        const auto* const next = reinterpret_cast<const std::byte*>(b.first);
        sync::prefetch(next);
        sync::prefetch(next + 64);
        sync::prefetch(next + sizeof(lane) - 1); // lanes need not begin with a line
    }
    // relaxed: under the lock.
    assert(front_.load(std::memory_order_relaxed) == (buckets_ == 0 ? none : at(0).age)); // I-QUEUE-2
    return l;
}

ready_queue::state_t ready_queue::state() const noexcept {
    const std::lock_guard lock(lock_);
    return {lanes_, pops_};
}

std::optional<tick> ready_queue::oldest_since() const noexcept {
    const std::lock_guard lock(lock_);
    std::optional<tick> oldest;
    for (std::size_t i = 0; i < buckets_; ++i)
        if (!oldest || older(at(i).since, *oldest))
            oldest = at(i).since;
    return oldest;
}

void ready_queue::insert_bucket(std::size_t place, const bucket& added) noexcept {
    for (std::size_t i = buckets_; i > place; --i)
        at(i) = at(i - 1);
    ++buckets_;
    at(place) = added;
    assert(place == 0 || older(at(place - 1).age, added.age));            // I-QUEUE-1
    assert(place + 1 == buckets_ || older(added.age, at(place + 1).age)); // I-QUEUE-1
}

bool ready_queue::grow() noexcept {
    try {
        std::vector<bucket> larger(ring_.size() * 2);
        for (std::size_t i = 0; i < buckets_; ++i)
            larger[i] = at(i);
        ring_.swap(larger);
        begin_ = 0;
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

void ready_queue::publish_front() noexcept {
    const std::uint64_t front = buckets_ == 0 ? none : at(0).age;
    // relaxed: written under the lock only, and read as a hint.
    if (front_.load(std::memory_order_relaxed) != front)
        front_.store(front, std::memory_order_relaxed);
}

} // namespace taskpool::detail
