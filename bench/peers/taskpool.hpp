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

    taskpool_peer(unsigned workers, bool held, std::size_t lane_capacity = taskpool::options().lane_capacity)
        : pool_({.threads = workers, .lane_capacity = lane_capacity, .autostart = !held}) {}
    void release() { pool_.start(); }

    template <class Job>
    void submit(std::string_view key, Job job) {
        pool_.submit(key, std::move(job));
    }

    template <class Job>
    void submit_together(std::string_view key, std::string_view other, Job job) {
        pool_.submit_together({key, other}, std::move(job));
    }

  protected:
    taskpool::task_pool pool_;
};

/// The same with lanes as long as the whole pool's: a million jobs may wait. Most peers know no bound at all.
class taskpool_wide_peer : public taskpool_peer {
  public:
    static constexpr std::string_view name = "taskpool-wide";
    taskpool_wide_peer(unsigned workers, bool held) : taskpool_peer(workers, held, taskpool::options().pool_capacity) {}
};

/// The defaults, through handles: without look-ups.
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
