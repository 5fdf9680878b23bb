// SPDX-License-Identifier: Apache-2.0
// The behaviours of the original Go package, by which its users know it.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

TEST(Original, tasks_of_a_key_run_in_order) {
    std::vector<int> ran;
    task_pool pool;
    for (int i = 0; i < 1'000; ++i)
        ASSERT_TRUE(pool.submit("user-1", [&ran, i] { ran.push_back(i); }));
    pool.drain();
    EXPECT_EQ(ran, count_up(1'000));
}

TEST(Original, different_keys_run_in_parallel) {
    // Each job waits for all others: they end only if they run at the same time.
    std::latch all(10);
    std::atomic<int> ended = 0;
    task_pool pool;
    for (int i = 0; i < 10; ++i) {
        ASSERT_TRUE(pool.submit("user-" + std::to_string(i), [&] {
            all.arrive_and_wait();
            ++ended;
        }));
    }
    pool.drain();
    EXPECT_EQ(ended, 10);
}

TEST(Original, stop_cancels_the_context_of_running_tasks) {
    std::latch running(1);
    std::atomic<bool> cancelled = false;
    task_pool pool;
    ASSERT_TRUE(pool.submit("user-1", [&](const job_context& context) {
        running.count_down();
        while (!context.stop_requested())
            std::this_thread::yield();
        cancelled = true;
    }));
    running.wait();
    pool.stop();
    EXPECT_TRUE(cancelled);
}

TEST(Original, submit_is_refused_after_stop) {
    std::atomic<bool> ran = false;
    task_pool pool;
    pool.stop();
    const auto answer = pool.submit("user-1", [&] { ran = true; });
    EXPECT_FALSE(answer);
    EXPECT_EQ(answer, submit_status::stopped);
    EXPECT_FALSE(ran);
}

TEST(Original, a_hundred_tasks_wait_and_the_next_submit_blocks) {
    gate until;
    std::atomic<int> ran = 0;
    std::atomic<bool> returned = false;
    task_pool pool;
    const opener at_end(until);
    occupy(pool, "user-1", until);
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(pool.submit("user-1", [&] { ++ran; }));
    std::thread submitter([&] {
        EXPECT_TRUE(pool.submit("user-1", [&] { ++ran; }));
        returned = true;
    });
    EXPECT_EQ(pool.try_submit("user-1", [] {}), submit_status::full);
    EXPECT_TRUE(for_a_while([&] { return !returned; }, 50ms));
    until.open();
    submitter.join();
    EXPECT_TRUE(returned);
    pool.drain();
    EXPECT_EQ(ran, 101);
}

TEST(Original, the_empty_key_is_a_key) {
    std::vector<int> ran;
    std::string seen = "not seen";
    task_pool pool;
    for (int i = 0; i < 100; ++i) {
        ASSERT_TRUE(pool.submit("", [&, i](const job_context& context) {
            seen = context.key();
            ran.push_back(i);
        }));
    }
    pool.drain("");
    EXPECT_EQ(ran, count_up(100));
    EXPECT_EQ(seen, "");
}

TEST(Original, many_producers_may_submit_at_once) {
    constexpr int producers = 16, jobs = 1'000, keys = 37;
    std::array<int, keys> counts{}; // per key, without a lock
    task_pool pool;
    std::vector<std::thread> threads;
    for (int producer = 0; producer < producers; ++producer) {
        threads.emplace_back([&] {
            for (int i = 0; i < jobs; ++i) {
                auto& count = counts[static_cast<std::size_t>(i % keys)];
                EXPECT_TRUE(pool.submit("user-" + std::to_string(i % keys), [&count] { ++count; }));
            }
        });
    }
    for (auto& thread : threads)
        thread.join();
    pool.drain();
    int total = 0;
    for (const int count : counts)
        total += count;
    EXPECT_EQ(total, producers * jobs);
}

TEST(Original, len_is_the_number_of_keys_with_work) {
    gate until;
    task_pool pool;
    const opener at_end(until);
    EXPECT_EQ(pool.active_keys(), 0U);
    occupy(pool, "user-1", until);
    occupy(pool, "user-2", until);
    ASSERT_TRUE(pool.submit("user-2", [] {}));
    EXPECT_EQ(pool.active_keys(), 2U);
    until.open();
    EXPECT_TRUE(eventually([&] { return pool.active_keys() == 0; }));
}

TEST(Original, no_key_is_active_after_stop) {
    std::latch running(1);
    task_pool pool;
    ASSERT_TRUE(pool.submit("user-0", [&](const job_context& context) {
        running.count_down();
        while (!context.stop_requested())
            std::this_thread::yield();
    }));
    running.wait();
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(pool.submit("user-" + std::to_string(i % 10), [] {}));
    EXPECT_GE(pool.active_keys(), 1U);
    pool.stop();
    EXPECT_EQ(pool.active_keys(), 0U);
}

TEST(Original, tasks_are_accepted_before_start_and_run_after_it) {
    std::atomic<int> ran = 0;
    task_pool pool({.autostart = false});
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(pool.submit("user-1", [&] { ++ran; }));
    EXPECT_EQ(ran, 0);
    pool.start();
    pool.drain();
    EXPECT_EQ(ran, 10);
}

} // namespace
} // namespace taskpool::testing
