// SPDX-License-Identifier: Apache-2.0
// Readers and writers of an account; and a service of which no more than so many calls may be under way for a customer.
#include <atomic>
#include <functional>
#include <latch>
#include <mutex>
#include <string>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

struct account {
    int balance = 100;
};

bool readers_run_together() {
    account account;
    std::latch both(2);
    std::atomic<int> seen = 0;

    taskpool::task_pool pool({.threads = 4});
    pool.submit_shared("account-7", [&] { // two reports at the same time: each waits here for the other
        both.arrive_and_wait();
        seen += account.balance;
    });
    pool.submit_shared("account-7", [&] {
        both.arrive_and_wait();
        seen += account.balance;
    });
    pool.submit("account-7", [&] { account.balance += 50; });                       // alone, after both
    auto balance = pool.async_shared("account-7", [&] { return account.balance; }); // after that
    return balance.get() == 150 && seen == 200;
}

/// Stands for a library with callbacks.
class service {
  public:
    void call(std::function<void()> done) {
        const std::lock_guard lock(mutex_);
        calls_.push_back(std::move(done));
    }
    std::size_t under_way() {
        const std::lock_guard lock(mutex_);
        return calls_.size();
    }
    void answer_all() {
        std::vector<std::function<void()>> calls; // they end under no lock
        const std::lock_guard lock(mutex_);
        calls.swap(calls_);
    }

  private:
    std::mutex mutex_;
    std::vector<std::function<void()>> calls_;
};

bool at_most_so_many_calls() {
    service remote;

    taskpool::task_pool pool({.max_shared = 3});
    for (int i = 0; i < 10; ++i)
        pool.submit_shared("customer-8", [&](const taskpool::job_context& context) {
            remote.call([held = context.hold()] { /* the share is free when this is gone */ });
        });

    bool never_more = true;
    while (pool.active_keys() > 0) {
        never_more = never_more && remote.under_way() <= 3;
        if (remote.under_way() > 0)
            remote.answer_all();
    }
    return never_more && pool.stats().shared == 0;
}

} // namespace

int main() { return readers_run_together() && at_most_so_many_calls() ? 0 : 1; }
