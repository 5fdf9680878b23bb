// SPDX-License-Identifier: Apache-2.0
// folly: a SerialExecutor for each key, in a map, over a CPUThreadPoolExecutor.
#include <folly/executors/CPUThreadPoolExecutor.h>
#include <folly/executors/SerialExecutor.h>

#include "common.hpp"

namespace bench {

class folly_peer {
  public:
    static constexpr std::string_view name = "folly";
    static constexpr std::uint32_t max_keys = 1'000'000;

    folly_peer(unsigned workers, bool held) : pool_(workers), held_(held) {
        if (!held)
            return;
        for (unsigned i = 0; i < workers; ++i) {
            pool_.add([this] {
                blocked_.fetch_add(1);
                held_.wait(true);
            });
        }
        while (blocked_.load() < workers)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    void release() {
        held_.store(false);
        held_.notify_all();
    }

    template <class Job>
    void submit(std::string_view key, Job j) {
        serials_
            .find_or_make(key, [this] { return std::make_unique<serial>(folly::SerialExecutor::create(token(pool_))); })
            ->add(std::move(j));
    }

  private:
    using serial = folly::Executor::KeepAlive<folly::SerialExecutor>;

    static folly::Executor::KeepAlive<folly::Executor> token(folly::Executor& pool) {
        return folly::getKeepAliveToken(&pool);
    }

    folly::CPUThreadPoolExecutor pool_;
    growing_map<serial> serials_;
    std::atomic<bool> held_;
    std::atomic<unsigned> blocked_{0};
};

} // namespace bench

BENCH_MAIN(bench::folly_peer)
