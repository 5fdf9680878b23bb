// SPDX-License-Identifier: Apache-2.0
// What scenarios share: how they are explored and reported, a gate, and jobs that tell whether the guarantees hold.
#pragma once

#include <cstdio>
#include <functional>

#include <gtest/gtest.h>

#include "checked.hpp"
#include "explorer.hpp"
#include "sync.hpp"

namespace taskpool::model {

/// Explores, says how many interleavings that were, and expects that none fails.
inline void expect_all_pass(const bounds& within, const std::function<void()>& scenario) {
    const outcome result = explore(within, scenario);
    std::printf("[ EXPLORED ] %llu interleavings with up to %d preemptions and %d stale reads (%s), and %llu random "
                "ones, of up to %llu steps\n",
                static_cast<unsigned long long>(result.systematic), result.within.preemptions,
                result.within.stale_reads, result.complete ? "all" : "the first",
                static_cast<unsigned long long>(result.random), static_cast<unsigned long long>(result.longest));
    EXPECT_EQ(result.failure, "") << "to see it again: TASKPOOL_MODEL_SCHEDULE='" << result.schedule << "'";
}

/// Closed until somebody opens it, for good.
class gate {
  public:
    void open() {
        const std::lock_guard lock(mutex_);
        open_ = true;
        opened_.notify_all();
    }
    void pass() {
        std::unique_lock lock(mutex_);
        opened_.wait(lock, [&] { return open_; });
    }

  private:
    detail::sync::mutex mutex_;
    detail::sync::condition_variable opened_;
    bool open_ = false; // under mutex_
};

/// The state of one key, which its jobs use with no lock (G2): the numbers of those that ran, in order.
class key_state {
  public:
    /// REQUIRES: called by a job of the key, or when all have ended.
    void add(int number) {
        require(number > last_.get(), "jobs of a key run in order, each once");
        last_.set(number);
        count_.set(count_.get() + 1);
    }
    int last() const { return last_.get(); }
    int count() const { return count_.get(); }

  private:
    checked<int> last_{-1};
    checked<int> count_{0};
};

/// A job that adds its number to its key's state. The number travels with it, and must not be raced for on its way.
class numbered_job {
  public:
    numbered_job(key_state& of, int number) noexcept : of_(&of), number_(number) {}
    void operator()() { of_->add(number_.get()); }

  private:
    key_state* of_;
    checked<int> number_;
};

} // namespace taskpool::model
