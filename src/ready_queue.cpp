// SPDX-License-Identifier: Apache-2.0
#include "ready_queue.hpp"

#include <cassert>
#include <mutex>
#include <new>
#include <utility>

namespace taskpool::detail {

void ready_queue::append(bucket& to, lane& l, tick since) noexcept {
    to.last->next_ready = &l;
    to.last = &l;
    if (older(since, to.since))
        to.since = since;
    assert(!older(since, to.since)); // I-QUEUE-3
}

void ready_queue::push(lane& l, tick age, tick since) noexcept {
    const std::lock_guard lock(lock_);
    l.next_ready = nullptr;
    const bucket added{age, since, &l, &l};
    if (lanes_++ == 0) {
        oldest_ = added;
    } else if (age == oldest_.age) {
        append(oldest_, l, since);
    } else if (older(age, oldest_.age)) {
        if (buckets_ < ring_.size() || grow()) {
            insert_bucket(0, std::exchange(oldest_, added));
        } else {
            append(oldest_, l, since);
        }
    } else {
        // The first bucket in the ring that is not older. Mostly the last one, or the end.
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
        if (!exists && (buckets_ < ring_.size() || grow()))
            insert_bucket(i, added);
        else
            append(at(i < buckets_ ? i : i - 1), l, since);
    }
    publish_front();
}

lane* ready_queue::pop() noexcept {
    const std::lock_guard lock(lock_);
    lane* const l = oldest_.first;
    if (l == nullptr)
        return nullptr;
    oldest_.first = l->next_ready;
    --lanes_;
    ++pops_;
    if (oldest_.first == nullptr) {
        if (buckets_ > 0) {
            oldest_ = at(0);
            begin_ = static_cast<std::uint32_t>((begin_ + 1) & (ring_.size() - 1));
            --buckets_;
        }
        publish_front();
    } else {
        // Who takes the next lane will find it in the cache: of many keys a lane is mostly cold when its turn comes.
        const auto* const next = reinterpret_cast<const std::byte*>(oldest_.first);
        sync::prefetch(next);
        sync::prefetch(next + 64);
        sync::prefetch(next + sizeof(lane) - 1); // lanes need not begin with a line
    }
    // relaxed: under the lock.
    assert(front_.load(std::memory_order_relaxed) == (lanes_ == 0 ? none : oldest_.age)); // I-QUEUE-2
    return l;
}

ready_queue::state_t ready_queue::state() const noexcept {
    const std::lock_guard lock(lock_);
    return {lanes_, pops_};
}

std::optional<tick> ready_queue::oldest_since() const noexcept {
    const std::lock_guard lock(lock_);
    if (lanes_ == 0)
        return std::nullopt;
    tick oldest = oldest_.since;
    for (std::size_t i = 0; i < buckets_; ++i)
        if (older(at(i).since, oldest))
            oldest = at(i).since;
    return oldest;
}

void ready_queue::insert_bucket(std::size_t place, const bucket& added) noexcept {
    for (std::size_t i = buckets_; i > place; --i)
        at(i) = at(i - 1);
    ++buckets_;
    at(place) = added;
    assert(older(place == 0 ? oldest_.age : at(place - 1).age, added.age)); // I-QUEUE-1
    assert(place + 1 == buckets_ || older(added.age, at(place + 1).age));   // I-QUEUE-1
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
    const std::uint64_t front = lanes_ == 0 ? none : oldest_.age;
    // relaxed: written under the lock only, and read as a hint.
    if (front_.load(std::memory_order_relaxed) != front)
        front_.store(front, std::memory_order_relaxed);
}

} // namespace taskpool::detail
