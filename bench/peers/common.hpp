// SPDX-License-Identifier: Apache-2.0
// What peers share that are made of plain C++: a type-erased job, a map from keys that only grows, a queue that a
// thread sleeps at.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../workloads.hpp"

namespace bench {

/// 16 bytes of captures lie in it without an allocation.
using job = std::function<void()>;

inline std::string dotted(int major, int minor, int patch) {
    return std::to_string(major) + '.' + std::to_string(minor) + '.' + std::to_string(patch);
}

struct string_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view key) const noexcept { return std::hash<std::string_view>()(key); }
};

template <class T>
using map_of_keys = std::unordered_map<std::string, T, string_hash, std::equal_to<>>;

/// A key's own object, made when the key is first seen and kept for ever, as is usual: in 64 maps with a lock each.
template <class T>
class growing_map {
  public:
    template <class Make>
    T& find_or_make(std::string_view key, Make make) {
        auto& s = shards_[string_hash()(key) >> 6 & 63];
        const std::lock_guard lock(s.mutex);
        auto at = s.map.find(key);
        if (at == s.map.end())
            at = s.map.emplace(std::string(key), make()).first;
        return *at->second;
    }

  private:
    struct alignas(64) shard {
        std::mutex mutex;
        map_of_keys<std::unique_ptr<T>> map;
    };
    std::vector<shard> shards_ = std::vector<shard>(64);
};

/// Jobs for one thread, which takes all that wait at once and sleeps when there are none.
class mailbox {
  public:
    void push(job&& j) {
        bool wake;
        {
            const std::lock_guard lock(mutex_);
            waiting_.push_back(std::move(j));
            wake = std::exchange(asleep_, false);
        }
        if (wake)
            woken_.notify_one();
    }

    [[noreturn]] void run_for_ever() {
        std::vector<job> taken;
        for (;;) {
            {
                std::unique_lock lock(mutex_);
                while (waiting_.empty() || held_) {
                    asleep_ = true;
                    woken_.wait(lock);
                }
                asleep_ = false;
                std::swap(taken, waiting_);
            }
            for (auto& j : taken)
                j();
            taken.clear();
            if (taken.capacity() > most_kept)
                taken = {};
        }
    }

    void hold(bool held) {
        {
            const std::lock_guard lock(mutex_);
            held_ = held;
        }
        woken_.notify_one();
    }

  private:
    static constexpr std::size_t most_kept = 1 << 16;
    std::mutex mutex_;
    std::condition_variable woken_;
    std::vector<job> waiting_;
    bool asleep_ = false;
    bool held_ = false;
};

/// Holds the workers of a pool that cannot be started later: a task of each waits at it.
class worker_hold {
  public:
    explicit worker_hold(bool held) : held_(held) {}
    /// `enqueue` gives the pool the task that it is called with. Returns once all workers are held.
    template <class Enqueue>
    void hold(unsigned workers, Enqueue enqueue) {
        if (!held_.load())
            return;
        for (unsigned i = 0; i < workers; ++i)
            enqueue([this] {
                blocked_.fetch_add(1);
                held_.wait(true);
            });
        while (blocked_.load() < workers)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    void release() {
        held_.store(false);
        held_.notify_all();
    }

  private:
    std::atomic<bool> held_;
    std::atomic<unsigned> blocked_{0};
};

/// Threads that live as long as the program.
template <class F>
void start_threads(unsigned count, F f) {
    for (unsigned i = 0; i < count; ++i)
        std::thread(f, i).detach();
}

} // namespace bench
