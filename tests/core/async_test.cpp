// SPDX-License-Identifier: Apache-2.0
// async() and its future. What a wait inside a job is refused for is in g9_no_deadlock_test.cpp.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

TEST(Async, gives_the_result) {
    task_pool pool({.threads = 2});
    EXPECT_EQ(pool.async("key", [] { return 42; }).get(), 42);
    EXPECT_EQ(pool.async("key", [](std::stop_token token) { return token.stop_possible(); }).get(), true);
    EXPECT_EQ(pool.async("key", [](const job_context& context) { return context.key(); }).get(), "key");
    pool.async("key", [] {}).get();
}

TEST(Async, gives_results_that_can_only_be_moved_and_copies_of_references) {
    task_pool pool({.threads = 2});
    auto pointer = pool.async("key", [] { return std::make_unique<int>(5); }).get();
    EXPECT_EQ(*pointer, 5);
    int value = 6;
    auto result = pool.async("key", [&value]() -> int& { return value; });
    static_assert(std::is_same_v<decltype(result), future<int>>);
    EXPECT_EQ(result.get(), 6);
    struct no_default {
        explicit no_default(int n) : number(n) {}
        int number;
    };
    EXPECT_EQ(pool.async("key", [] { return no_default(7); }).get().number, 7);
}

TEST(Async, gives_the_exception) {
    task_pool pool({.threads = 2});
    auto result = pool.async("key", []() -> int { throw std::out_of_range("too far"); });
    try {
        result.get();
        FAIL() << "no exception";
    } catch (const std::out_of_range& error) {
        EXPECT_STREQ(error.what(), "too far");
    }
    EXPECT_FALSE(result.valid());
    auto nothing = pool.async("key", [] { throw 1; });
    EXPECT_THROW(nothing.get(), int);
}

TEST(Async, a_job_may_own_what_can_only_be_moved) {
    task_pool pool({.threads = 1});
    EXPECT_EQ(pool.async("key", [value = std::make_unique<int>(9)] { return *value; }).get(), 9);
    const auto copied = [] { return 3; };
    EXPECT_EQ(pool.async("key", copied).get(), 3);
}

TEST(Async, is_valid_until_it_is_got) {
    task_pool pool({.threads = 1});
    future<int> result;
    EXPECT_FALSE(result.valid());
    result = pool.async("key", [] { return 1; });
    EXPECT_TRUE(result.valid());
    result.wait();
    EXPECT_TRUE(result.is_ready());
    EXPECT_TRUE(result.valid());
    auto moved = std::move(result);
    EXPECT_FALSE(result.valid()); // NOLINT: that is what is tested
    EXPECT_EQ(moved.get(), 1);
    EXPECT_FALSE(moved.valid());
}

TEST(Async, is_ready_when_the_job_has_ended_and_not_before) {
    gate until;
    task_pool pool({.threads = 1});
    const opener at_end(until);
    auto result = pool.async("key", [&] {
        until.wait();
        return 1;
    });
    EXPECT_FALSE(result.is_ready());
    const auto begin = steady::now();
    EXPECT_FALSE(result.wait_for(10ms));
    EXPECT_GE(steady::now() - begin, 10ms);
    EXPECT_FALSE(result.wait_for(-1h));
    EXPECT_FALSE(result.wait_until(steady::now() + 1ms));
    until.open();
    EXPECT_TRUE(result.wait_for(std::chrono::hours::max()));
    EXPECT_TRUE(result.is_ready());
    EXPECT_TRUE(result.wait_for(0ms));
    EXPECT_TRUE(result.wait_until(steady::now() - 1h));
    EXPECT_EQ(result.get(), 1);
}

TEST(Async, the_end_of_the_job_happens_before_get_returns) {
    task_pool pool({.threads = 2});
    for (int i = 0; i < 2'000; ++i) {
        int plain = 0;
        pool.async("key", [&] { plain = i; }).get();
        ASSERT_EQ(plain, i);
    }
}

TEST(Async, a_discarded_job_is_told_apart) {
    task_pool pool({.lane_capacity = 2, .when_full = overflow::drop_oldest, .autostart = false});
    auto dropped = pool.async("key", [] { return 1; });
    auto cancelled = pool.async("key", [] { return 2; });
    auto cancelled_too = pool.async("key", [] { return 3; });
    EXPECT_TRUE(dropped.is_ready());
    EXPECT_FALSE(cancelled.is_ready());
    EXPECT_THROW(dropped.get(), job_discarded);
    EXPECT_EQ(pool.cancel("key"), 2U);
    EXPECT_THROW(cancelled.get(), job_discarded);
    EXPECT_THROW(cancelled_too.get(), job_discarded);
    auto stopped = pool.async("key", [] { return 4; });
    pool.stop();
    EXPECT_THROW(stopped.get(), job_discarded);
}

TEST(Async, a_wait_is_woken_when_the_job_is_discarded) {
    task_pool pool({.autostart = false});
    auto result = pool.async("key", [] {});
    std::thread waiter([&] { EXPECT_THROW(result.get(), job_discarded); });
    EXPECT_TRUE(for_a_while([&] { return !pool.stats().discarded; }, 5ms));
    EXPECT_EQ(pool.cancel("key"), 1U);
    waiter.join();
}

TEST(Async, a_job_not_accepted_is_told_with_the_status) {
    task_pool pool({.lane_capacity = 1, .when_full = overflow::reject, .autostart = false});
    ASSERT_TRUE(pool.submit("key", [] {}));
    auto refused = pool.async("key", [] { return 1; });
    ASSERT_TRUE(refused.is_ready());
    try {
        refused.get();
        FAIL() << "no exception";
    } catch (const job_rejected& error) {
        EXPECT_EQ(error.status(), submit_status::full);
        EXPECT_NE(std::string(error.what()).find("full"), std::string::npos) << error.what();
    }
}

// I-FUTURE-2
TEST(Async, the_future_may_go_before_the_job_ends) {
    gate until;
    std::atomic<bool> ended = false;
    task_pool pool({.threads = 1});
    const opener at_end(until);
    (void)pool.async("key", [&] {
        until.wait();
        ended = true;
        return std::string(1'000, 'x');
    });
    until.open();
    pool.drain();
    EXPECT_TRUE(ended);
}

TEST(Async, the_future_outlives_the_pool) {
    future<std::string> done, discarded;
    {
        task_pool pool({.threads = 1});
        done = pool.async("key", [] { return std::string(1'000, 'x'); });
        pool.drain();
    }
    {
        task_pool pool({.autostart = false});
        discarded = pool.async("key", [] { return std::string("never"); });
    }
    EXPECT_EQ(done.get().size(), 1'000U);
    EXPECT_THROW(discarded.get(), job_discarded);
}

TEST(Async, a_held_job_s_result_is_there_when_the_job_has_returned) {
    held kept;
    task_pool pool({.threads = 1});
    auto result = pool.async("key", [&](const job_context& context) {
        kept = context.hold();
        return 1;
    });
    EXPECT_EQ(result.get(), 1);
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    kept.release();
}

TEST(Async, a_job_may_wait_for_other_keys_while_its_thread_is_replaced) {
    // Fan out and in again, on a pool of one thread.
    task_pool pool({.threads = 1});
    auto sum = pool.async("collect", [&] {
        std::vector<future<int>> parts;
        for (int i = 0; i < 50; ++i)
            parts.push_back(pool.async("part" + std::to_string(i), [i] { return i; }));
        int total = 0;
        for (auto& part : parts)
            total += part.get();
        return total;
    });
    EXPECT_EQ(sum.get(), 1'225);
}

// I-FUTURE-1
TEST(Async, many_threads_get_many_results) {
    basic_task_pool<int> pool({.threads = 2});
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&, thread] {
            for (int i = 0; i < 2'000; ++i) {
                const int expected = thread * 10'000 + i;
                EXPECT_EQ(pool.async(i % 17, [expected] { return expected; }).get(), expected);
            }
        });
    }
    for (auto& thread : threads)
        thread.join();
}

} // namespace
} // namespace taskpool::testing
