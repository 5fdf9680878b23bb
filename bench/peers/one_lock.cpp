// SPDX-License-Identifier: Apache-2.0
// One lock over all: a map from each key that has work to its queue, and a queue of the keys that are ready. A worker
// takes all that waits under a key at once. A key without work is forgotten.
#include <deque>

#include "common.hpp"

namespace bench {

class one_lock {
  public:
    static constexpr std::string_view name = "one-lock";
    static constexpr std::uint32_t max_keys = any_number_of_keys;

    one_lock(unsigned workers, bool held) : held_(held) {
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
        bool wake = false;
        {
            const std::lock_guard lock(mutex_);
            auto at = queues_.find(key);
            if (at == queues_.end()) {
                at = queues_.emplace(std::string(key), std::vector<job>()).first;
                ready_.push_back(&*at);
                wake = asleep_ > 0;
            }
            at->second.push_back(std::move(j));
        }
        if (wake)
            woken_.notify_one();
    }

  private:
    using map = map_of_keys<std::vector<job>>;

    [[noreturn]] void work() {
        std::vector<job> taken;
        std::unique_lock lock(mutex_);
        for (;;) {
            while (ready_.empty() || held_) {
                ++asleep_;
                woken_.wait(lock);
                --asleep_;
            }
            auto* const key = ready_.front(); // elements of the map stay where they are
            ready_.pop_front();
            std::swap(taken, key->second);
            lock.unlock();
            for (auto& j : taken)
                j();
            taken.clear();
            lock.lock();
            if (key->second.empty())
                queues_.erase(key->first);
            else
                ready_.push_back(key);
        }
    }

    std::mutex mutex_;
    std::condition_variable woken_;
    map queues_;
    std::deque<map::value_type*> ready_;
    unsigned asleep_ = 0;
    bool held_;
};

} // namespace bench

BENCH_MAIN(bench::one_lock)
