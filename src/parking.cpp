// SPDX-License-Identifier: Apache-2.0
#include "parking.hpp"

#include <algorithm>
#include <mutex>

#include "worker.hpp"

namespace taskpool::detail {

bool parking::begin_search() noexcept {
    // relaxed: the searcher's looks at the queues are ordered by their locks.
    return !searching_.load(std::memory_order_relaxed) && !searching_.exchange(true, std::memory_order_relaxed);
}

void parking::end_search() noexcept {
    // relaxed: ordered by the queues' locks, which the caller takes next.
    searching_.store(false, std::memory_order_relaxed);
}

worker* parking::take_parked() noexcept {
    const std::lock_guard lock(mutex_);
    if (parked_workers_.empty())
        return nullptr;
    worker* const w = parked_workers_.back();
    parked_workers_.pop_back();
    // relaxed: `parked_` and `working_` are ordered for pushers by the queues' locks, which the woken worker takes.
    parked_.store(static_cast<unsigned>(parked_workers_.size()), std::memory_order_relaxed);
    add_working(1);
    return w;
}

void parking::unpark_one() noexcept {
    if (!begin_search())
        return;
    worker* const w = take_parked();
    if (w == nullptr) {
        // The worker that was seen parked is awake, and looks at the queues before it parks again.
        end_search();
        return;
    }
    w->woken_to_search = true;
    w->woken.signal_lasting();
}

std::size_t parking::unpark(std::size_t most) noexcept {
    std::size_t count = 0;
    for (; count < most; ++count) {
        worker* const w = take_parked();
        if (w == nullptr)
            break;
        w->woken.signal_lasting();
    }
    return count;
}

void parking::park(worker& w, tick now) noexcept {
    const std::lock_guard lock(mutex_);
    w.parked_since = now;
    parked_workers_.push_back(&w); // reserved: does not throw
    add_working(-1);
    parked_.store(static_cast<unsigned>(parked_workers_.size()), std::memory_order_relaxed); // see take_parked
}

bool parking::unpark_self(worker& w) noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = std::find(parked_workers_.begin(), parked_workers_.end(), &w);
    if (at == parked_workers_.end())
        return false;
    parked_workers_.erase(at);
    parked_.store(static_cast<unsigned>(parked_workers_.size()), std::memory_order_relaxed); // see take_parked
    add_working(1);
    return true;
}

bool parking::sleep(worker& w) noexcept {
    w.woken.wait();
    return std::exchange(w.woken_to_search, false);
}

bool parking::take_surplus() noexcept {
    // relaxed: a count; whether one worker more or less parks is settled at the keeper's next tick.
    int surplus = surplus_.load(std::memory_order_relaxed);
    while (surplus > 0)
        if (surplus_.compare_exchange_weak(surplus, surplus - 1, std::memory_order_relaxed))
            return true;
    return false;
}

worker* parking::retire_one(tick since) noexcept {
    const std::lock_guard lock(mutex_);
    if (parked_workers_.empty() || !older(parked_workers_.front()->parked_since, since))
        return nullptr;
    worker* const w = parked_workers_.front();
    parked_workers_.erase(parked_workers_.begin());
    parked_.store(static_cast<unsigned>(parked_workers_.size()), std::memory_order_relaxed); // see take_parked
    w->retired = true;
    w->woken.signal();
    return w;
}

void parking::close() noexcept {
    // relaxed: a worker reads it after it was signalled, which the event's lock orders, or after it has parked under
    // the mutex, later than the last look below.
    closed_.store(true, std::memory_order_relaxed);
    unpark(static_cast<std::size_t>(-1));
}

} // namespace taskpool::detail
