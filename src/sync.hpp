// SPDX-License-Identifier: Apache-2.0
// The one door through which the core reaches threads: atomics, locks, waiting. A build that explores schedules puts
// others in the place of the first few (docs/model-checking.md); nothing else in src/ names std::atomic, std::mutex or
// std::condition_variable.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>

#if defined(TASKPOOL_SYNC_HEADER)
#include TASKPOOL_SYNC_HEADER
#else

#include <condition_variable>
#include <thread>

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#include <immintrin.h>
#endif

namespace taskpool::detail::sync {

using std::atomic;
using std::atomic_ref;
using std::condition_variable;
using std::mutex;

/// Tells the processor that this is a spin.
inline void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    asm volatile("yield");
#elif defined(__GNUC__)
    asm volatile(""); // a loop of pauses takes some time at least
#endif
}

/// Lets other threads run.
inline void yield() noexcept { std::this_thread::yield(); }

/// A number that a build which explores schedules makes small, so that few steps come to where it counts.
template <class T>
constexpr T scaled(T usual, T) noexcept {
    return usual;
}

} // namespace taskpool::detail::sync

#endif

namespace taskpool::detail::sync {

/// Asks for a cache line that will soon be used, and waits for nothing. Any address will do.
inline void prefetch([[maybe_unused]] const void* address) noexcept {
#if defined(__GNUC__)
    __builtin_prefetch(address);
#endif
}

/// The same for one that will soon be written: takes it from the other cores.
inline void prefetch_to_write([[maybe_unused]] const void* address) noexcept {
#if defined(__GNUC__) && defined(__x86_64__)
    asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(address))); // else the compiler makes one that shares
#elif defined(__GNUC__)
    __builtin_prefetch(address, 1);
#endif
}

/// For sections of a few dozen instructions. A waiter spins briefly and then yields: the holder may have lost its
/// processor. Not recursive.
class spin_lock {
  public:
    void lock() noexcept {
        // acquire pairs with the release in unlock: what was done under the lock is seen by the next holder.
        while (locked_.exchange(true, std::memory_order_acquire))
            wait();
    }
    void unlock() noexcept {
        // release pairs with the acquire in lock.
        locked_.store(false, std::memory_order_release);
    }

  private:
    void wait() noexcept {
        // relaxed: only a hint for when to try the exchange again.
        for (int spins = 0; locked_.load(std::memory_order_relaxed); ++spins) {
            if (spins < 64)
                pause();
            else
                yield();
        }
    }

    atomic<bool> locked_{false};
};

/// A flag that one thread waits for and others set; a signal that comes first is kept.
class event {
  public:
    void signal() {
        // Notified under the lock: the waiter may destroy the event as soon as it can see the flag.
        const std::lock_guard lock(mutex_);
        signalled_ = true;
        condition_.notify_one();
    }
    /// The same, but notified under no lock, which the woken thread would find taken. REQUIRES: the event lives until
    /// this returns.
    void signal_lasting() {
        {
            const std::lock_guard lock(mutex_);
            signalled_ = true;
        }
        condition_.notify_one();
    }
    void wait() {
        std::unique_lock lock(mutex_);
        condition_.wait(lock, [&] { return signalled_; });
        signalled_ = false;
    }
    /// False when the time was up first.
    bool wait_until(std::chrono::steady_clock::time_point deadline) {
        std::unique_lock lock(mutex_);
        const bool came = condition_.wait_until(lock, deadline, [&] { return signalled_; });
        signalled_ = false;
        return came;
    }

  private:
    mutex mutex_;
    condition_variable condition_;
    bool signalled_ = false; // under mutex_
};

/// A counter that one thread writes and any may read: no read-modify-write, so it costs a plain addition.
class tally {
  public:
    void add(std::uint64_t n = 1) noexcept {
        // relaxed: a figure by itself, which orders nothing; only the owner writes.
        value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
    // relaxed: as above.
    std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

  private:
    atomic<std::uint64_t> value_{0};
};

} // namespace taskpool::detail::sync
