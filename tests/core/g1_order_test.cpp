// SPDX-License-Identifier: Apache-2.0
// G1: if one submit happens before another with the same key, its job runs first.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

TEST(G1_order, jobs_of_a_key_run_in_the_order_of_their_submits) {
    std::vector<int> ran; // needs no lock: G2
    task_pool pool({.threads = 4});
    for (int i = 0; i < 20'000; ++i)
        ASSERT_EQ(pool.submit("key", [&ran, i] { ran.push_back(i); }), submit_status::accepted);
    pool.drain();
    EXPECT_EQ(ran, count_up(20'000));
}

TEST(G1_order, is_one_order_for_all_ways_of_submitting) {
    std::vector<int> ran;
    task_pool pool({.threads = 4, .lane_capacity = 100'000});
    auto lane = pool.lane("key");
    int submitted = 0;
    for (int round = 0; round < 1'000; ++round) {
        const auto job = [&](int i) { return [&ran, i] { ran.push_back(i); }; };
        ASSERT_TRUE(pool.submit("key", job(submitted++)));
        ASSERT_TRUE(pool.try_submit("key", job(submitted++)));
        ASSERT_TRUE(lane.submit(job(submitted++)));
        ASSERT_TRUE(pool.submit_for("key", 10s, job(submitted++)));
        (void)pool.async("key", job(submitted++));
        ASSERT_TRUE(lane.try_submit(job(submitted++)));
        ASSERT_TRUE(pool.submit_until("key", steady::now() + 10s, job(submitted++)));
        (void)lane.async(job(submitted++));
        ASSERT_TRUE(lane.submit_for(10s, job(submitted++)));
        // One that lies in a box, for it is too large for a slot.
        ASSERT_TRUE(pool.submit(
            "key", [&ran, i = submitted++, large = std::array<char, 200>()] { ran.push_back(i + large[0]); }));
    }
    pool.drain();
    EXPECT_EQ(ran, count_up(submitted));
}

TEST(G1_order, holds_for_each_of_many_keys_at_once) {
    constexpr int keys = 300, jobs = 300;
    std::vector<std::vector<int>> ran(keys);
    basic_task_pool<int> pool({.threads = 4});
    for (int i = 0; i < jobs; ++i) {
        for (int key = 0; key < keys; ++key)
            ASSERT_TRUE(pool.submit(key, [&ran, key, i] { ran[static_cast<std::size_t>(key)].push_back(i); }));
    }
    pool.drain();
    for (const auto& of_key : ran)
        ASSERT_EQ(of_key, count_up(jobs));
}

TEST(G1_order, holds_for_producers_that_pass_the_turn_on) {
    // Each submit happens before the next, though on another thread.
    constexpr int producers = 3, jobs = 9'000;
    std::vector<int> ran;
    std::atomic<int> turn = 0;
    task_pool pool({.threads = 4});
    std::vector<std::thread> threads;
    for (int producer = 0; producer < producers; ++producer) {
        threads.emplace_back([&, producer] {
            for (int i = producer; i < jobs; i += producers) {
                for (int now = turn.load(); now != i; now = turn.load())
                    turn.wait(now);
                pool.submit("key", [&ran, i] { ran.push_back(i); });
                turn.store(i + 1);
                turn.notify_all();
            }
        });
    }
    for (auto& thread : threads)
        thread.join();
    pool.drain();
    EXPECT_EQ(ran, count_up(jobs));
}

// I-LANE-3
TEST(G1_order, keeps_the_order_of_each_of_many_contending_producers) {
    constexpr int producers = 4, jobs = 20'000;
    std::array<int, producers> next{};
    int wrong = 0;
    std::latch begin(producers);
    task_pool pool({.threads = 4});
    std::vector<std::thread> threads;
    for (std::size_t producer = 0; producer < producers; ++producer) {
        threads.emplace_back([&, producer] {
            begin.arrive_and_wait();
            for (int i = 0; i < jobs; ++i)
                pool.submit("key", [&, producer, i] { wrong += next[producer]++ != i; });
        });
    }
    for (auto& thread : threads)
        thread.join();
    pool.drain();
    EXPECT_EQ(wrong, 0);
    for (const int jobs_of_producer : next)
        EXPECT_EQ(jobs_of_producer, jobs);
}

TEST(G1_order, holds_for_submits_that_had_to_wait_for_room) {
    std::vector<int> ran;
    task_pool pool({.threads = 2, .lane_capacity = 1});
    for (int i = 0; i < 5'000; ++i)
        ASSERT_TRUE(pool.submit("key", [&ran, i] { ran.push_back(i); }));
    pool.drain();
    EXPECT_EQ(ran, count_up(5'000));
}

// I-LANE-1, I-LANE-4
TEST(G1_order, holds_while_the_key_goes_idle_and_comes_back) {
    // A pause of a varying length after each submit lets the worker catch up at every point of the lane's life.
    std::vector<int> ran;
    task_pool pool({.threads = 4});
    std::minstd_rand random(1);
    for (int i = 0; i < 50'000; ++i) {
        ASSERT_TRUE(pool.submit("key", [&ran, i] { ran.push_back(i); }));
        for (auto spins = random() % 512; spins > 0; --spins)
            std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    pool.drain();
    EXPECT_EQ(ran, count_up(50'000));
}

TEST(G1_order, holds_for_jobs_accepted_before_the_start) {
    std::vector<int> ran;
    task_pool pool({.threads = 4, .lane_capacity = 1'000, .autostart = false});
    for (int i = 0; i < 1'000; ++i)
        ASSERT_TRUE(pool.submit("key", [&ran, i] { ran.push_back(i); }));
    EXPECT_TRUE(ran.empty());
    pool.start();
    pool.drain();
    EXPECT_EQ(ran, count_up(1'000));
}

TEST(G1_order, puts_a_job_submitted_by_a_job_behind_those_that_wait) {
    std::vector<int> ran;
    gate submitted;
    task_pool pool({.threads = 2});
    ASSERT_TRUE(pool.submit("key", [&] {
        submitted.wait();
        ran.push_back(0);
        pool.submit("key", [&] { ran.push_back(3); });
    }));
    ASSERT_TRUE(pool.submit("key", [&] { ran.push_back(1); }));
    ASSERT_TRUE(pool.submit("key", [&] { ran.push_back(2); }));
    submitted.open();
    pool.drain();
    EXPECT_EQ(ran, count_up(4));
}

TEST(G1_order, numbers_the_jobs_in_that_order) {
    std::vector<std::uint64_t> numbers;
    task_pool pool({.threads = 2, .lane_capacity = 1'000, .autostart = false});
    for (int i = 0; i < 1'000; ++i)
        ASSERT_TRUE(pool.submit("key", [&](const job_context& context) { numbers.push_back(context.number()); }));
    pool.start();
    pool.drain();
    ASSERT_EQ(numbers.size(), 1'000U);
    for (std::size_t i = 0; i < numbers.size(); ++i)
        ASSERT_EQ(numbers[i], i + 1);
}

} // namespace
} // namespace taskpool::testing
