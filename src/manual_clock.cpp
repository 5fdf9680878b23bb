// SPDX-License-Identifier: Apache-2.0
#include <taskpool/manual_clock.hpp>

#include <mutex>
#include <vector>

#include "sync.hpp"

namespace taskpool {

struct manual_clock::parts {
    struct listener {
        void* who;
        void (*wake)(void* who) noexcept;
    };
    detail::sync::mutex mutex;
    // Under mutex:
    time_point now;
    std::vector<listener> listeners;

    void advance_to_locked(time_point time) noexcept;
};

manual_clock::manual_clock(time_point start) : parts_(std::make_unique<parts>()) { parts_->now = start; }
manual_clock::~manual_clock() = default;

manual_clock::time_point manual_clock::now() const noexcept {
    const std::lock_guard lock(parts_->mutex);
    return parts_->now;
}

/// REQUIRES: mutex, which is held while pools are told: none of them may end meanwhile.
void manual_clock::parts::advance_to_locked(time_point time) noexcept {
    if (time <= now)
        return;
    now = time;
    for (const auto& l : listeners)
        l.wake(l.who);
}

void manual_clock::advance(duration by) noexcept {
    if (by <= by.zero())
        return;
    const std::lock_guard lock(parts_->mutex);
    const bool ends = parts_->now > time_point() && by > time_point::max() - parts_->now;
    parts_->advance_to_locked(ends ? time_point::max() : parts_->now + by);
}

void manual_clock::advance_to(time_point time) noexcept {
    const std::lock_guard lock(parts_->mutex);
    parts_->advance_to_locked(time);
}

void manual_clock::tell(void* who, void (*wake)(void* who) noexcept) {
    const std::lock_guard lock(parts_->mutex);
    parts_->listeners.push_back({who, wake});
}

void manual_clock::forget(void* who) noexcept {
    const std::lock_guard lock(parts_->mutex);
    std::erase_if(parts_->listeners, [&](const auto& l) { return l.who == who; });
}

} // namespace taskpool
