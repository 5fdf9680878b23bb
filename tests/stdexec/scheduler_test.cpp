// SPDX-License-Identifier: Apache-2.0
// The scheduler of std::execution: what a sender of a key does in each state of the pool.
#include <stdexec/execution.hpp>
#include <taskpool/stdexec.hpp>

#include "../core/testing.hpp"

namespace {

using namespace taskpool::testing;
using ::stdexec::just;
using ::stdexec::schedule;
using ::stdexec::sync_wait;
using ::stdexec::then;
using taskpool::task_pool;
using taskpool::stdexec::scheduler;

static_assert(::stdexec::scheduler<scheduler>);
static_assert(::stdexec::sender<decltype(schedule(std::declval<scheduler>()))>);

TEST(Stdexec, schedules_on_the_key) {
    task_pool pool({.threads = 2});
    const scheduler user(pool, "user");
    const auto here = std::this_thread::get_id();
    const auto result = sync_wait(schedule(user) | then([&] { return std::this_thread::get_id() != here; }));
    ASSERT_TRUE(result);
    EXPECT_TRUE(std::get<0>(*result));
    EXPECT_TRUE(user == scheduler(pool, "user"));
    EXPECT_TRUE(user == scheduler(pool.lane("user")));
    EXPECT_FALSE(user == scheduler(pool, "other"));
    EXPECT_TRUE(::stdexec::get_completion_scheduler<::stdexec::set_value_t>(::stdexec::get_env(schedule(user))) ==
                user);
    EXPECT_TRUE(::stdexec::get_forward_progress_guarantee(user) == ::stdexec::forward_progress_guarantee::parallel);
}

TEST(Stdexec, moves_between_keys) {
    task_pool pool({.threads = 2});
    int a = 0; // each in its lane
    int b = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 100; ++n) {
                auto work = ::stdexec::starts_on(scheduler(pool, "a"), just() | then([&] { ++a; })) |
                            ::stdexec::continues_on(scheduler(pool, "b")) | then([&] { return ++b; });
                EXPECT_TRUE(sync_wait(std::move(work)));
            }
        });
    for (auto& t : threads)
        t.join();
    pool.drain();
    EXPECT_EQ(a, 400);
    EXPECT_EQ(b, 400);
}

TEST(Stdexec, keeps_order_and_needs_no_room) {
    gate open;
    task_pool pool({.threads = 1, .lane_capacity = 1, .when_full = taskpool::overflow::keep_latest});
    std::vector<int> order; // of the key
    const opener opens(open);
    occupy(pool, "key", open);
    std::thread releases([&] {
        EXPECT_TRUE(eventually([&] { return pool.stats().waiting == 3; }));
        open.open();
    });
    const scheduler key(pool, "key");
    const auto add = [&](int i) { return schedule(key) | then([&order, i] { order.push_back(i); }); };
    EXPECT_TRUE(sync_wait(::stdexec::when_all(add(0), add(1), add(2))));
    releases.join();
    EXPECT_EQ(order, count_up(3));
}

/// Starts a sender of an occupied key, does something, and says whether the sender was stopped, without its function.
template <class Act>
bool is_stopped_by(task_pool& pool, gate& open, Act act) {
    bool ran = false;
    occupy(pool, "key", open);
    std::thread acts([&] {
        EXPECT_TRUE(eventually([&] { return pool.stats().waiting == 1; }));
        act();
        open.open();
    });
    const bool stopped = !sync_wait(schedule(scheduler(pool, "key")) | then([&] { ran = true; }));
    acts.join();
    return stopped && !ran;
}

TEST(Stdexec, cancel) {
    gate open;
    task_pool pool({.threads = 1});
    const opener opens(open);
    EXPECT_TRUE(is_stopped_by(pool, open, [&] { EXPECT_EQ(pool.cancel("key"), 1U); }));
}

TEST(Stdexec, stop) {
    gate open;
    task_pool pool({.threads = 1});
    const opener opens(open);
    std::thread stopper;
    EXPECT_TRUE(is_stopped_by(pool, open, [&] {
        stopper = std::thread([&] { pool.stop(); });
        EXPECT_TRUE(eventually([&] { return pool.stats().waiting == 0; })); // discarded, while the first job runs
    }));
    stopper.join();
    EXPECT_FALSE(sync_wait(schedule(scheduler(pool, "key")))); // refused: stopped at once
}

TEST(Stdexec, the_receivers_stop_token) {
    gate open;
    task_pool pool({.threads = 1});
    ::stdexec::inplace_stop_source stop;
    bool ran = false;
    const opener opens(open);
    occupy(pool, "key", open);
    std::thread acts([&] {
        EXPECT_TRUE(eventually([&] { return pool.stats().waiting == 1; }));
        stop.request_stop();
        open.open();
    });
    auto work = schedule(scheduler(pool, "key")) | then([&] { ran = true; });
    const auto result =
        sync_wait(::stdexec::write_env(std::move(work), ::stdexec::prop{::stdexec::get_stop_token, stop.get_token()}));
    acts.join();
    EXPECT_FALSE(result);
    EXPECT_FALSE(ran);
}

TEST(Stdexec, pool_destroyed) {
    std::optional<scheduler> key;
    {
        task_pool pool({.threads = 1});
        key.emplace(pool, "key");
    }
    EXPECT_FALSE(sync_wait(schedule(*key)));
}

} // namespace
