// SPDX-License-Identifier: Apache-2.0
// This library, with its default options: a lane takes 100 waiting jobs, and a submitter waits while it is full.
#pragma once

#include <taskpool/taskpool.hpp>

#include "../workloads.hpp"

namespace bench {

class taskpool_peer {
  public:
    static constexpr std::string_view name = "taskpool";
    static constexpr std::uint32_t max_keys = any_number_of_keys;

    static std::string version() { return TASKPOOL_VERSION; }

    taskpool_peer(unsigned workers, bool held) : pool_({.threads = workers, .autostart = !held}) {}
    void release() { pool_.start(); }

    template <class Job>
    void submit(std::string_view key, Job job) {
        pool_.submit(key, std::move(job));
    }

  protected:
    taskpool::task_pool pool_;
};

/// The same through handles, without look-ups.
class taskpool_handles_peer : public taskpool_peer {
  public:
    static constexpr std::string_view name = "taskpool-handles";
    using handle = taskpool::task_pool::lane_handle;
    using taskpool_peer::taskpool_peer;

    handle lane(std::string_view key) { return pool_.lane(key); }
    template <class Job>
    void submit(const handle& key, Job job) {
        key.submit(std::move(job));
    }
};

} // namespace bench
