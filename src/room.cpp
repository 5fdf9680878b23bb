// SPDX-License-Identifier: Apache-2.0
#include "room.hpp"

#include <mutex>

namespace taskpool::detail {

// A waiter's event lasts while the mutex is held: before it ends the waiter leaves.

void room::enter(waiter& w) noexcept {
    const std::lock_guard lock(mutex_);
    w.previous = last_;
    (last_ != nullptr ? last_->next : first_) = &w;
    last_ = &w;
}

void room::leave(waiter& w) noexcept {
    const std::lock_guard lock(mutex_);
    (w.previous != nullptr ? w.previous->next : first_) = w.next;
    (w.next != nullptr ? w.next->previous : last_) = w.previous;
}

bool room::wake(const lane* for_lane, std::size_t most) noexcept {
    const std::lock_guard lock(mutex_);
    for (waiter* w = first_; w != nullptr; w = w->next) {
        if (w->for_lane != for_lane)
            continue;
        if (most == 0)
            return true;
        w->wake.signal_lasting();
        --most;
    }
    return false;
}

void room::wake_all() noexcept {
    const std::lock_guard lock(mutex_);
    for (waiter* w = first_; w != nullptr; w = w->next)
        w->wake.signal_lasting();
}

void room::wake_where_room(std::uint32_t lane_capacity, std::size_t pool_room) noexcept {
    const std::lock_guard lock(mutex_);
    for (waiter* w = first_; w != nullptr; w = w->next) {
        if (w->for_lane != nullptr) {
            if (w->for_lane->waiting() < lane_capacity)
                w->wake.signal_lasting();
        } else if (pool_room > 0) {
            w->wake.signal_lasting();
            --pool_room;
        }
    }
}

void room::wake_jobs() noexcept {
    const std::lock_guard lock(mutex_);
    for (waiter* w = first_; w != nullptr; w = w->next)
        if (w->in_job)
            w->wake.signal_lasting();
}

bool room::is_empty() const noexcept {
    const std::lock_guard lock(mutex_);
    return first_ == nullptr;
}

} // namespace taskpool::detail
