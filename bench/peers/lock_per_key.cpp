// SPDX-License-Identifier: Apache-2.0
// A pool of threads with one queue; each job locks its key. Two jobs of a key never overlap, but their order is not
// kept: of two that wait for a lock, either may get it first.
#include <deque>

#include "common.hpp"

namespace bench {

class lock_per_key {
  public:
    static constexpr std::string_view name = "lock-per-key";
    static constexpr std::uint32_t max_keys = any_number_of_keys;

    lock_per_key(unsigned workers, bool held) : held_(held) {
        start_threads(workers, [this](unsigned) { work(); });
    }
    void release() {
        {
            const std::lock_guard lock(mutex_);
            held_ = false;
        }
        woken_.notify_all();
    }

    template <class Job>
    void submit(std::string_view key, Job j) {
        auto& its_lock = locks_.find_or_make(key, [] { return std::make_unique<std::mutex>(); });
        bool wake;
        {
            const std::lock_guard lock(mutex_);
            waiting_.push_back({&its_lock, std::move(j)});
            wake = asleep_ > 0;
        }
        if (wake)
            woken_.notify_one();
    }

  private:
    struct entry {
        std::mutex* lock;
        job run;
    };

    [[noreturn]] void work() {
        std::unique_lock lock(mutex_);
        for (;;) {
            while (waiting_.empty() || held_) {
                ++asleep_;
                woken_.wait(lock);
                --asleep_;
            }
            auto next = std::move(waiting_.front());
            waiting_.pop_front();
            lock.unlock();
            {
                const std::lock_guard of_key(*next.lock);
                next.run();
            }
            lock.lock();
        }
    }

    growing_map<std::mutex> locks_;
    std::mutex mutex_;
    std::condition_variable woken_;
    std::deque<entry> waiting_;
    unsigned asleep_ = 0;
    bool held_;
};

} // namespace bench

BENCH_MAIN(bench::lock_per_key)
