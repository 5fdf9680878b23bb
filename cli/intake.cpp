// SPDX-License-Identifier: Apache-2.0
#include "intake.hpp"

#include <utility>

namespace taskpool::cli {

bool intake::admit(std::string_view key) {
    std::unique_lock lock(mutex_);
    reader_waits_ = true;
    room_or_closed_.wait(lock, [this] { return closed_ || outstanding_ < room_; });
    reader_waits_ = false;
    if (closed_)
        return false;
    if (const auto known = of_key_.find(key); known != of_key_.end())
        ++known->second;
    else
        of_key_.emplace(key, 1);
    ++outstanding_;
    ++report_.admitted;
    return true;
}

void intake::withdraw(std::string_view key) {
    const std::lock_guard lock(mutex_);
    ended_locked(key);
    --report_.admitted;
}

void intake::push(arrival what, std::unique_lock<std::mutex>& lock) {
    const bool first = report_.arrivals.empty();
    report_.arrivals.push_back(std::move(what));
    lock.unlock();
    if (first)
        wake_();
}

void intake::leave_out(std::uint64_t number) {
    std::unique_lock lock(mutex_);
    arrival what;
    what.number = number;
    push(std::move(what), lock);
}

void intake::finish(std::optional<std::string> error) {
    {
        const std::lock_guard lock(mutex_);
        report_.input_ended = true;
        if (error && !report_.error)
            report_.error = std::move(error);
    }
    wake_();
}

void intake::offer(std::unique_ptr<work> what, const job_context& context) {
    arrival result;
    result.number = what->record.number;
    result.key = &context.key();
    std::unique_lock lock(mutex_);
    if (closed_) {
        ended_locked(*result.key);
        ++report_.dropped;
        lock.unlock();
        wake_(); // each time: the engine may have taken its report before this one, and ended its own last one since
        return;
    }
    if (!skipped_keys_.empty() && skipped_keys_.contains(*result.key)) {
        ended_locked(*result.key);
        result.key = nullptr;
        result.skipped = true;
    } else {
        result.held = context.hold();
        result.work = std::move(what);
    }
    push(std::move(result), lock);
}

void intake::lose(std::string reason) {
    {
        const std::lock_guard lock(mutex_);
        // Which key's it was does not matter any more: the run ends.
        ++report_.dropped;
        report_.error = std::move(reason);
    }
    wake_();
}

void intake::take(report& into) {
    into.arrivals.clear();
    const std::lock_guard lock(mutex_);
    std::swap(into.arrivals, report_.arrivals);
    into.input_ended = report_.input_ended;
    into.error = std::exchange(report_.error, std::nullopt);
    into.admitted = report_.admitted;
    into.dropped = report_.dropped;
}

std::size_t intake::ended_locked(std::string_view key) {
    std::size_t left = 0;
    if (const auto known = of_key_.find(key); known != of_key_.end()) {
        left = --known->second;
        if (left == 0)
            of_key_.erase(known);
    }
    --outstanding_;
    if (reader_waits_ && outstanding_ < room_)
        room_or_closed_.notify_one();
    return left;
}

std::size_t intake::ended(std::string_view key) {
    const std::lock_guard lock(mutex_);
    return ended_locked(key);
}

void intake::skip_key(std::string_view key) {
    const std::lock_guard lock(mutex_);
    skipped_keys_.emplace(key);
}

void intake::close() {
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
    }
    room_or_closed_.notify_one();
}

void intake::set_room(std::size_t room) {
    {
        const std::lock_guard lock(mutex_);
        room_ = room;
    }
    room_or_closed_.notify_one();
}

intake::load intake::look() const {
    const std::lock_guard lock(mutex_);
    load result;
    result.keys = of_key_.size();
    for (const auto& [key, records] : of_key_)
        if (records - 1 > result.waiting) {
            result.waiting = records - 1;
            result.hottest = key;
        }
    return result;
}

} // namespace taskpool::cli
