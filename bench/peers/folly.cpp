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
        held_.hold(workers, [this](auto waits) { pool_.add(waits); });
    }
    void release() { held_.release(); }

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
    worker_hold held_;
};

} // namespace bench

BENCH_MAIN(bench::folly_peer)
