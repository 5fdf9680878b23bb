// SPDX-License-Identifier: Apache-2.0
// libdispatch: a serial queue for each key, in a map, over one concurrent queue. It has as many workers as the machine
// has cores, and adds more when they block.
#include <dispatch/dispatch.h>

#include "common.hpp"

namespace bench {

class libdispatch_peer {
  public:
    static constexpr std::string_view name = "libdispatch";
    static constexpr std::uint32_t max_keys = any_number_of_keys;

    libdispatch_peer(unsigned, bool held) : target_(dispatch_queue_create("bench", DISPATCH_QUEUE_CONCURRENT)) {
        if (held)
            dispatch_suspend(target_);
    }
    void release() { dispatch_resume(target_); }

    template <class Job>
    void submit(std::string_view key, Job j) {
        auto& queue = queues_.find_or_make(key, [this] {
            return std::make_unique<dispatch_queue_t>(
                dispatch_queue_create_with_target("bench.key", DISPATCH_QUEUE_SERIAL, target_));
        });
        dispatch_async_f(queue, new Job(j), [](void* made) {
            const std::unique_ptr<Job> job(static_cast<Job*>(made));
            (*job)();
        });
    }

  private:
    dispatch_queue_t target_;
    growing_map<dispatch_queue_t> queues_;
};

} // namespace bench

BENCH_MAIN(bench::libdispatch_peer)
