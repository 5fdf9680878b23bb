// SPDX-License-Identifier: Apache-2.0
// What stands in the place of the first half of src/sync.hpp in the build that explores schedules. Outside an execution
// all of it works as if there were one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>

#include "explorer.hpp"

namespace taskpool::detail::sync {

/// The operations on an atomic location, which holds the newest store.
template <class T>
class atomic_access {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));

  public:
    static T load(const T& at, std::memory_order order) noexcept {
        if (!model::is_explored())
            return at;
        model::point("load", &at);
        return seen(at, order);
    }

    static void store(T& at, T value, std::memory_order order) noexcept {
        if (model::is_explored()) {
            model::point("store", &at);
            model::store(&at, bits_of(at), bits_of(value), order);
            if (value != at)
                model::changed();
        }
        at = value;
    }

    template <class F>
    static T modify(T& at, std::memory_order order, F f) noexcept {
        if (model::is_explored())
            model::point("modify", &at);
        const T before = at;
        const T after = f(before);
        if (model::is_explored()) {
            model::exchange(&at, bits_of(before), bits_of(after), order);
            if (before != after)
                model::changed();
        }
        at = after;
        return before;
    }

    static bool compare_exchange(T& at, T& expected, T desired, std::memory_order order) noexcept {
        if (model::is_explored())
            model::point("compare-exchange", &at);
        if (at != expected) {
            expected = model::is_explored() ? seen(at, std::memory_order_relaxed) : at;
            return false;
        }
        if (model::is_explored()) {
            model::exchange(&at, bits_of(at), bits_of(desired), order);
            model::changed();
        }
        at = desired;
        return true;
    }

    static std::uint64_t bits_of(T value) noexcept {
        std::uint64_t bits = 0;
        std::memcpy(&bits, &value, sizeof(T));
        return bits;
    }

  private:
    static T seen(const T& at, std::memory_order order) noexcept {
        const std::uint64_t bits = model::load(&at, bits_of(at), order);
        T value;
        std::memcpy(&value, &bits, sizeof(T));
        return value;
    }
};

template <class T>
class atomic {
  public:
    atomic() noexcept : atomic(T()) {}
    atomic(T value) noexcept : value_(value) { // NOLINT: as std::atomic's
        if (model::is_explored())
            model::begin_atomic(&value_, access::bits_of(value));
    }
    atomic(const atomic&) = delete;
    atomic& operator=(const atomic&) = delete;
    ~atomic() {
        if (model::is_explored())
            model::end_atomic(&value_);
    }

    T load(std::memory_order order) const noexcept { return access::load(value_, order); }
    void store(T value, std::memory_order order) noexcept { access::store(value_, value, order); }
    T exchange(T value, std::memory_order order) noexcept {
        return access::modify(value_, order, [&](T) { return value; });
    }
    T fetch_add(T by, std::memory_order order) noexcept {
        return access::modify(value_, order, [&](T before) { return static_cast<T>(before + by); });
    }
    T fetch_sub(T by, std::memory_order order) noexcept {
        return access::modify(value_, order, [&](T before) { return static_cast<T>(before - by); });
    }
    bool compare_exchange_weak(T& expected, T desired, std::memory_order order) noexcept {
        return access::compare_exchange(value_, expected, desired, order);
    }

  private:
    using access = atomic_access<T>;

    T value_;
};

template <class T>
class atomic_ref {
  public:
    explicit atomic_ref(T& value) noexcept : value_(value) {}

    T load(std::memory_order order) const noexcept { return atomic_access<T>::load(value_, order); }
    void store(T value, std::memory_order order) const noexcept { atomic_access<T>::store(value_, value, order); }

  private:
    T& value_;
};

class mutex {
  public:
    mutex() = default;
    mutex(const mutex&) = delete;
    mutex& operator=(const mutex&) = delete;
    ~mutex() { alive_ = false; }

    void lock() noexcept {
        if (model::is_explored())
            model::point("lock", this);
        while (!take()) {
            if (model::is_explored())
                model::block("a mutex", this);
        }
    }
    bool try_lock() noexcept {
        if (model::is_explored())
            model::point("try_lock", this);
        return take();
    }
    void unlock() noexcept {
        must_live();
        locked_ = false;
        if (model::is_explored()) {
            model::release_to(this);
            model::wake_all(this);
            model::changed();
        }
    }

  private:
    bool take() noexcept {
        must_live();
        if (locked_)
            return false;
        locked_ = true;
        if (model::is_explored())
            model::acquire_from(this);
        return true;
    }
    void must_live() const noexcept {
        if (!alive_ && model::is_explored())
            model::fail("a mutex is used after its end");
    }

    volatile bool alive_ = true; // volatile: read after its end, in memory that is kept
    bool locked_ = false;
};

class condition_variable {
  public:
    template <class Predicate>
    void wait(std::unique_lock<mutex>& lock, Predicate done) {
        while (!done())
            wait_once(lock, {});
    }
    template <class Predicate>
    bool wait_until(std::unique_lock<mutex>& lock, std::chrono::steady_clock::time_point deadline, Predicate done) {
        while (!done())
            if (!wait_once(lock, deadline))
                return done();
        return true;
    }
    void notify_one() noexcept {
        if (model::is_explored()) {
            model::point("notify one", this);
            model::wake_one(this);
        }
    }
    void notify_all() noexcept {
        if (model::is_explored()) {
            model::point("notify all", this);
            model::wake_all(this);
        }
    }

  private:
    bool wait_once(std::unique_lock<mutex>& lock, std::optional<std::chrono::steady_clock::time_point> deadline) {
        model::point("wait", this);
        lock.unlock(); // no point between this and
        const bool in_time = model::block("a condition", this, deadline);
        lock.lock();
        return in_time;
    }
};

inline void pause() noexcept {
    if (model::is_explored())
        model::yield_point();
}
inline void yield() noexcept { pause(); }

template <class T>
constexpr T scaled(T, T least) noexcept {
    return least;
}

} // namespace taskpool::detail::sync
