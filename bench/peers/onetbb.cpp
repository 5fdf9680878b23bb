// SPDX-License-Identifier: Apache-2.0
// oneTBB: a strand for each key, made of its concurrent queue and a count of what waits, over an arena of the workers.
#include <algorithm>

#include <tbb/concurrent_queue.h>
#include <tbb/global_control.h>
#include <tbb/task_arena.h>
#include <tbb/version.h>

#include "common.hpp"

namespace bench {

class onetbb_peer {
  public:
    static constexpr std::string_view name = "onetbb";
    static constexpr std::uint32_t max_keys = 1'000'000;

    static std::string version() { return TBB_runtime_version(); }

    // The control counts the program's own thread, which takes no part in the arena: without it there would be one
    // worker less.
    onetbb_peer(unsigned workers, bool held)
        : control_(tbb::global_control::max_allowed_parallelism, workers + 1), arena_(static_cast<int>(workers), 0),
          held_(held) {
        held_.hold(workers, [this](auto waits) { arena_.enqueue(waits); });
    }
    void release() { held_.release(); }

    template <class Job>
    void submit(std::string_view key, Job j) {
        auto& s = strands_.find_or_make(key, [] { return std::make_unique<strand>(); });
        s.jobs.push(std::move(j));
        // acq_rel here and in run(): what was pushed before a count is there for who takes the count, and the end of
        // a run happens before the start of the next.
        if (s.waiting.fetch_add(1, std::memory_order_acq_rel) == 0)
            arena_.enqueue([this, &s] { run(s); });
    }

  private:
    struct strand {
        tbb::concurrent_queue<job> jobs;
        std::atomic<std::size_t> waiting{0};
    };

    void run(strand& s) {
        constexpr std::size_t most = 64; // then other keys have their turn
        const auto count = std::min(s.waiting.load(std::memory_order_acquire), most);
        job next;
        for (std::size_t i = 0; i < count; ++i) {
            while (!s.jobs.try_pop(next))
                std::this_thread::yield(); // another producer is in the midst of a push before it
            next();
        }
        if (s.waiting.fetch_sub(count, std::memory_order_acq_rel) != count)
            arena_.enqueue([this, &s] { run(s); });
    }

    tbb::global_control control_;
    tbb::task_arena arena_;
    growing_map<strand> strands_;
    worker_hold held_;
};

} // namespace bench

BENCH_MAIN(bench::onetbb_peer)
