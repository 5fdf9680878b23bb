// SPDX-License-Identifier: Apache-2.0
#include "timers.hpp"

#include <algorithm>

namespace taskpool::detail {

namespace {
using tick_duration = std::chrono::milliseconds;
} // namespace

std::uint64_t timers::tick_of(time_point t) const noexcept {
    const auto passed = t - begin_;
    return passed <= passed.zero() ? 0 : static_cast<std::uint64_t>(std::chrono::ceil<tick_duration>(passed).count());
}

timers::time_point timers::time_of(std::uint64_t tick) const noexcept {
    const auto longest = std::chrono::floor<tick_duration>(time_point::max() - begin_);
    return begin_ + std::min(longest, tick_duration(static_cast<std::int64_t>(
                                          std::min<std::uint64_t>(tick, std::numeric_limits<std::int64_t>::max()))));
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
    const auto passed = static_cast<std::uint64_t>(
        std::chrono::floor<tick_duration>(std::max(now() - begin_, time_point::duration::zero())).count());
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
