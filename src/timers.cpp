// SPDX-License-Identifier: Apache-2.0
#include "timers.hpp"

#include <cassert>

namespace taskpool::detail {

namespace {
constexpr std::uint64_t tick_length =
    timers::time_point::duration(std::chrono::milliseconds(1)).count(); // of the clock's
} // namespace

/// What has passed since the pool's begin: 0 before it.
std::uint64_t timers::since_begin(time_point t) const noexcept {
    // Unsigned: a clock that is moved by hand may begin long before 0.
    return t <= begin_ ? 0
                       : static_cast<std::uint64_t>(t.time_since_epoch().count()) -
                             static_cast<std::uint64_t>(begin_.time_since_epoch().count());
}

std::uint64_t timers::tick_of(time_point t) const noexcept {
    const auto passed = since_begin(t);
    return passed / tick_length + (passed % tick_length != 0 ? 1 : 0);
}

timers::time_point timers::time_of(std::uint64_t tick) const noexcept {
    const auto left = since_begin(time_point::max());
    return tick > left / tick_length
               ? time_point::max()
               : time_point(time_point::duration(static_cast<std::int64_t>(
                     static_cast<std::uint64_t>(begin_.time_since_epoch().count()) + tick * tick_length)));
}

bool timers::add(pool_timer& t, time_point due) noexcept {
    const std::lock_guard lock(lock_);
    t.due = tick_of(due);
    wheel_.insert(t);
    return t.due < wakes_at_;
}

bool timers::remove(pool_timer& t) noexcept {
    const std::lock_guard lock(lock_);
    if (!t.is_linked())
        return false;
    wheel_.remove(t);
    return true;
}

std::size_t timers::fire_due(pool_core& core) noexcept {
    const auto passed = since_begin(now()) / tick_length;
    std::size_t fired = 0;
    for (bool more = true; more;) {
        timer_wheel::batch due{};
        {
            const std::lock_guard lock(lock_);
            if (wheel_.size() == 0)
                break;
            due = wheel_.advance(all_due_ ? for_ever : passed, batch_size);
        }
        more = due.more;
        for (timer_node* n = due.first; n != nullptr; ++fired) {
            assert(!n->is_linked()); // I-TIMER-1
            auto& t = static_cast<pool_timer&>(*n);
            n = n->next; // firing it may end it
            t.fire(core, t);
        }
    }
    return fired;
}

void timers::bring_forward() noexcept {
    const std::lock_guard lock(lock_);
    all_due_ = true;
}

std::optional<timers::time_point> timers::begin_sleep() noexcept {
    const std::lock_guard lock(lock_);
    const auto wake = wheel_.next_wake();
    assert(wakes_at_ == awake); // I-TIMER-2: only the keeper sleeps
    wakes_at_ = wake.value_or(for_ever);
    return wake ? std::optional(time_of(*wake)) : std::nullopt;
}

void timers::end_sleep() noexcept {
    const std::lock_guard lock(lock_);
    wakes_at_ = awake;
}

std::optional<timers::time_point> timers::next() const noexcept {
    const std::lock_guard lock(lock_);
    const auto wake = wheel_.next_wake();
    return wake ? std::optional(time_of(*wake)) : std::nullopt;
}

} // namespace taskpool::detail
