// SPDX-License-Identifier: Apache-2.0
// G3: keys are exact, never buckets; a ready key waits for no particular other key; where a job blocks its thread,
// another takes over, up to max_threads.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

TEST(G3_independence, blocked_keys_hold_up_no_other) {
    gate until;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2});
    const opener at_end(until);
    for (int i = 0; i < 8; ++i) // four times the threads
        occupy(pool, "blocked" + std::to_string(i), until);
    for (int i = 0; i < 1'000; ++i)
        ASSERT_TRUE(pool.submit("free" + std::to_string(i), [&] { ++ran; }));
    EXPECT_TRUE(eventually([&] { return ran == 1'000; }));
}

// I-PARK-1: a job that no worker is woken for would be waited for in vain
TEST(G3_independence, keys_that_wait_for_later_keys_get_there) {
    // Job i waits for job i + 1, so the first to end is the last submitted: every one needs a thread of its own.
    constexpr std::size_t keys = 64;
    std::array<gate, keys + 1> gates;
    basic_task_pool<std::size_t> pool({.threads = 1});
    gates[keys].open();
    for (std::size_t i = 0; i < keys; ++i) {
        ASSERT_TRUE(pool.submit(i, [&gates, i] {
            gates[i + 1].wait();
            gates[i].open();
        }));
    }
    EXPECT_TRUE(gates[0].wait_for(30s));
    pool.drain();
}

TEST(G3_independence, a_job_that_computes_holds_up_no_key_while_another_thread_is_free) {
    // The keys come from many places of the hash: those that fall to the busy worker are taken by the free one.
    std::atomic<bool> done = false;
    std::atomic<int> ran = 0;
    std::latch begun(1);
    task_pool pool({.threads = 2, .max_threads = 2});
    ASSERT_TRUE(pool.submit("busy", [&] {
        begun.count_down();
        const auto end = steady::now() + 30s;
        while (!done && steady::now() < end) {
        }
    }));
    begun.wait();
    for (int i = 0; i < 1'000; ++i)
        ASSERT_TRUE(pool.submit("free" + std::to_string(i), [&] { ++ran; }));
    EXPECT_TRUE(eventually([&] { return ran == 1'000; }));
    done = true;
}

TEST(G3_independence, goes_as_far_as_max_threads_and_no_further) {
    gate until;
    std::atomic<int> started = 0;
    task_pool pool({.threads = 1, .max_threads = 3});
    const opener at_end(until);
    for (int i = 0; i < 4; ++i) {
        ASSERT_TRUE(pool.submit("key" + std::to_string(i), [&] {
            ++started;
            until.wait();
        }));
    }
    EXPECT_TRUE(eventually([&] { return started == 3; }));
    EXPECT_TRUE(for_a_while([&] { return started == 3 && pool.stats().threads <= 3; }, 100ms));
    EXPECT_EQ(pool.stats().ready_lanes, 1U);
    until.open();
    pool.drain();
    EXPECT_EQ(started, 4);
}

/// Sends all keys to one place of any table.
struct one_for_all {
    std::size_t operator()(std::string_view) const noexcept { return 42; }
};

TEST(G3_independence, keys_of_one_hash_are_different_keys) {
    gate until;
    std::vector<int> ran;
    std::atomic<int> others = 0;
    basic_task_pool<std::string, one_for_all> pool({.threads = 2});
    const opener at_end(until);
    occupy(pool, "blocked", until);
    for (int i = 0; i < 50; ++i)
        ASSERT_TRUE(pool.submit("blocked", [&ran, i] { ran.push_back(i); }));
    for (int i = 0; i < 200; ++i)
        ASSERT_TRUE(pool.submit("free" + std::to_string(i), [&] { ++others; }));
    EXPECT_TRUE(eventually([&] { return others == 200; }));
    EXPECT_TRUE(ran.empty());
    until.open();
    pool.drain();
    EXPECT_EQ(ran, count_up(50));
}

TEST(G3_independence, keys_are_told_apart_by_every_byte) {
    using namespace std::string_literals;
    const std::vector<std::string> keys = {
        "a\0b"s, "a\0c"s, "a"s, "a\0"s, ""s, "\0"s, "A"s, "a "s, std::string(1000, 'x'), std::string(999, 'x') + "y"};
    gate until;
    std::atomic<std::size_t> started = 0;
    task_pool pool({.threads = 1});
    const opener at_end(until);
    for (const auto& key : keys) {
        ASSERT_TRUE(pool.submit(key, [&] {
            ++started;
            const blocking_scope blocking;
            until.wait();
        }));
    }
    EXPECT_TRUE(eventually([&] { return started == keys.size(); }));
    EXPECT_EQ(pool.active_keys(), keys.size());
}

TEST(G3_independence, a_full_lane_refuses_no_other_key) {
    gate until;
    task_pool pool({.threads = 1, .lane_capacity = 2});
    const opener at_end(until);
    occupy(pool, "full", until);
    ASSERT_TRUE(pool.submit("full", [] {}));
    ASSERT_TRUE(pool.submit("full", [] {}));
    ASSERT_EQ(pool.try_submit("full", [] {}), submit_status::full);
    EXPECT_EQ(pool.try_submit("other", [] {}), submit_status::accepted);
}

} // namespace
} // namespace taskpool::testing
