// SPDX-License-Identifier: Apache-2.0
// Tests of code that uses a pool, with no threads, no sleeping and no luck.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include <taskpool/taskpool.hpp>
#include <taskpool/testing.hpp>

namespace {

using namespace std::chrono_literals;

/// What is tested: logs a user out half an hour after the last request.
class session {
  public:
    session(taskpool::task_pool& pool, std::string user) : pool_(pool), user_(std::move(user)) {}

    void request() {
        pool_.submit(user_, [this] {
            log_out_.cancel();
            logged_in_ = true;
            log_out_ = pool_.submit_after(30min, user_, [this] { logged_in_ = false; });
        });
    }
    bool is_logged_in() {
        return pool_.async(user_, [this] { return logged_in_; }).get();
    }

  private:
    taskpool::task_pool& pool_;
    const std::string user_;
    bool logged_in_ = false; // the user's jobs only
    taskpool::timer log_out_;
};

bool logs_out_after_half_an_hour() {
    taskpool::testing::manual_pool pool; // a task_pool without threads, whose time stands still
    session s(pool, "user-7");
    s.request();
    pool.run_for(29min); // an hour passes in no time
    s.request();
    pool.run_for(29min);
    const bool stayed = s.is_logged_in(); // a wait runs what it waits for
    pool.run_for(1min);
    return stayed && !s.is_logged_in();
}

bool goes_step_by_step() {
    std::vector<std::string> ran;
    taskpool::testing::manual_pool pool;
    pool.submit("a", [&] { ran.push_back("a1"); });
    pool.submit("b", [&] { ran.push_back("b1"); });
    pool.submit("a", [&] { ran.push_back("a2"); });
    pool.step(); // one job: the oldest
    const bool first = ran == std::vector<std::string>{"a1"};
    pool.run_until_idle(); // all that is ready, in the order of the submits
    return first && ran == std::vector<std::string>{"a1", "b1", "a2"};
}

/// What is tested: two customers buy from one stock. With a mistake: it looks in one job and takes in the next.
class stock {
  public:
    stock(taskpool::task_pool& pool, int items) : pool_(pool), items_(items) {}

    void buy(const std::string& customer) {
        pool_.submit(customer, [this, customer] {
            if (items_ > 0)
                pool_.submit(customer, [this] { --items_; });
        });
    }
    int items() const { return items_; }

  private:
    taskpool::task_pool& pool_;
    int items_;
};

bool finds_an_order_that_sells_too_much() {
    const bool right = taskpool::testing::for_each_seed(1000, [](std::uint64_t seed) {
        taskpool::testing::manual_pool pool({}, seed); // the seed decides which ready key goes next
        stock s(pool, 1);
        s.buy("customer-1");
        s.buy("customer-2");
        pool.drain();
        return s.items() >= 0; // false, or an exception: the test has failed
    });
    return !right;
}

bool says_what_can_never_end() {
    taskpool::testing::manual_pool pool;
    taskpool::held busy;
    pool.submit("upload-1", [&](const taskpool::job_context& ctx) { busy = ctx.hold(); });
    try {
        pool.drain(); // would hang with threads: nobody releases the key
    } catch (const taskpool::deadlock_error& e) {
        return e.keys() == std::vector<std::string>{"upload-1"};
    }
    return false;
}

} // namespace

int main() {
    const bool right = logs_out_after_half_an_hour() && goes_step_by_step() && finds_an_order_that_sells_too_much() &&
                       says_what_can_never_end();
    return right ? 0 : 1;
}
