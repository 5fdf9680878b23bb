// SPDX-License-Identifier: Apache-2.0
// What the tests of the core share. None of them sleeps to bring threads into an order: they use gates, latches and
// eventually(), which polls what can be observed. Every test runs under a watchdog, so a hang is a failure with a name.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <future>
#include <latch>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <taskpool/taskpool.hpp>

#include "../sanitizers.hpp"

namespace taskpool {

// gtest prints what it compares.
inline void PrintTo(submit_status status, std::ostream* out) { *out << to_string(status); }
inline void PrintTo(const submit_result& result, std::ostream* out) { *out << result.message(); }

namespace testing {

using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

/// Gives the running test this long from now, instead of 60 s (110 s under a sanitizer) from its start, before the
/// watchdog aborts the process with the test's name.
void allow_time(std::chrono::seconds time);

/// Polls until `holds()`, up to `limit`; says whether it came true.
template <class Predicate>
bool eventually(Predicate holds, steady::duration limit = 20s) {
    const auto end = steady::now() + limit * slowness;
    while (!holds()) {
        if (steady::now() >= end)
            return holds();
        std::this_thread::sleep_for(200us);
    }
    return true;
}

/// Polls until what has waited longest in the pool has waited so long, by the pool's own clock: of that, real time says
/// nothing on a busy machine. Says whether it came true.
template <class Pool>
bool oldest_waits(const Pool& pool, std::chrono::milliseconds so_long) {
    return eventually([&] { return pool.stats().oldest_wait >= so_long; });
}

/// Polls for `time` that `holds()` does not cease; says whether it held. It cannot fail by accident: a machine that is
/// slow only sees less of what it looks for.
template <class Predicate>
bool for_a_while(Predicate holds, steady::duration time = 20ms) {
    const auto end = steady::now() + time;
    do {
        if (!holds())
            return false;
        std::this_thread::sleep_for(200us);
    } while (steady::now() < end);
    return true;
}

/// Uses the processor for this long.
inline void burn(steady::duration time) {
    const auto end = steady::now() + time;
    while (steady::now() < end) {
    }
}

/// Makes what is submitted next clearly younger than what was submitted before. The pool tells ages apart by ticks of
/// 1 ms, so time has to pass here: this does not wait for any thread.
inline void let_ticks_pass(steady::duration time = 10ms) { burn(time); }

/// Closed until somebody opens it; then open for ever. Jobs wait at it: their threads are blocked meanwhile. Declared
/// before the pool whose jobs wait at it: it has to outlive them.
class gate {
  public:
    void open() {
        const std::lock_guard lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }
    void wait() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return open_; });
    }
    bool wait_for(steady::duration time) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, time, [this] { return open_; });
    }
    bool is_open() {
        const std::lock_guard lock(mutex_);
        return open_;
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool open_ = false;
};

/// Opens a gate at the end of its scope: declared after the pool, so that a failed assertion does not leave jobs
/// waiting for ever in the pool's destructor.
class opener {
  public:
    explicit opener(gate& which) : gate_(which) {}
    ~opener() { gate_.open(); }
    opener(const opener&) = delete;
    opener& operator=(const opener&) = delete;

  private:
    gate& gate_;
};

/// A list that several threads append to.
template <class T>
class journal {
  public:
    void add(T entry) {
        const std::lock_guard lock(mutex_);
        entries_.push_back(std::move(entry));
    }
    std::vector<T> entries() const {
        const std::lock_guard lock(mutex_);
        return entries_;
    }
    std::size_t size() const {
        const std::lock_guard lock(mutex_);
        return entries_.size();
    }

  private:
    mutable std::mutex mutex_;
    std::vector<T> entries_;
};

/// Occupies a key: submits a job that runs until the gate opens, and returns once it runs.
template <class Pool, class Key>
void occupy(Pool& pool, const Key& key, gate& until) {
    auto started = std::make_shared<gate>();
    ASSERT_EQ(pool.submit(key,
                          [started, &until] {
                              started->open();
                              until.wait();
                          }),
              submit_status::accepted);
    started->wait();
}

/// 0, 1, ..., n - 1.
inline std::vector<int> count_up(int n) {
    std::vector<int> numbers(static_cast<std::size_t>(n));
    for (int i = 0; i < n; ++i)
        numbers[static_cast<std::size_t>(i)] = i;
    return numbers;
}

/// What one thread has allocated with operator new since it began.
std::uint64_t allocations_of_this_thread() noexcept;

/// The names of a vector in a defined order, to compare sets.
inline std::vector<std::string> sorted(std::vector<std::string> names) {
    std::sort(names.begin(), names.end());
    return names;
}

/// A key that knows how many of it exist.
class counted_key {
  public:
    explicit counted_key(std::uint64_t value) : value_(value) { ++alive; }
    counted_key(const counted_key& other) : value_(other.value_) {
        ++alive;
        ++copies;
    }
    counted_key& operator=(const counted_key&) = default;
    ~counted_key() { --alive; }

    std::uint64_t value() const noexcept { return value_; }
    friend bool operator==(const counted_key& a, const counted_key& b) noexcept { return a.value_ == b.value_; }

    struct hash {
        std::size_t operator()(const counted_key& key) const noexcept { return std::hash<std::uint64_t>()(key.value_); }
    };

    static inline std::atomic<std::int64_t> alive = 0;
    static inline std::atomic<std::int64_t> copies = 0;

  private:
    std::uint64_t value_;
};

using counted_pool = basic_task_pool<counted_key, counted_key::hash>;

} // namespace testing
} // namespace taskpool
