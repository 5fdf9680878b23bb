// SPDX-License-Identifier: Apache-2.0
// The handle to one key, which saves the look-up.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

TEST(Lane_handle, submits_under_its_key_and_no_other) {
    std::vector<int> ran;
    journal<std::string> keys;
    task_pool pool({.threads = 2});
    auto lane = pool.lane("key");
    EXPECT_EQ(lane.key(), "key");
    for (int i = 0; i < 1'000; i += 2) {
        ASSERT_TRUE(lane.submit([&, i](const job_context& context) {
            keys.add(context.key());
            ran.push_back(i);
        }));
        ASSERT_TRUE(pool.submit("key", [&, i] { ran.push_back(i + 1); }));
    }
    pool.drain();
    EXPECT_EQ(ran, count_up(1'000)); // one lane, whichever way
    EXPECT_EQ(keys.entries(), std::vector<std::string>(500, "key"));
}

TEST(Lane_handle, is_small) { EXPECT_LE(sizeof(task_pool::lane_handle), 3 * sizeof(void*)); }

TEST(Lane_handle, gives_futures) {
    task_pool pool({.threads = 2});
    const auto lane = pool.lane("key");
    EXPECT_EQ(lane.async([] { return 3; }).get(), 3);
    EXPECT_THROW(lane.async([]() -> int { throw std::runtime_error("no"); }).get(), std::runtime_error);
}

TEST(Lane_handle, outlives_its_pool_and_then_answers_stopped) {
    std::vector<task_pool::lane_handle> lanes;
    {
        task_pool pool({.threads = 2});
        lanes.push_back(pool.lane("used"));
        lanes.push_back(pool.lane("idle"));
        ASSERT_TRUE(lanes[0].submit([] {}));
    }
    std::atomic<bool> ran = false;
    for (const auto& lane : lanes) {
        EXPECT_EQ(lane.submit([&] { ran = true; }), submit_status::stopped);
        EXPECT_EQ(lane.try_submit([&] { ran = true; }), submit_status::stopped);
        EXPECT_EQ(lane.submit_for(1h, [&] { ran = true; }), submit_status::stopped);
        EXPECT_THROW(lane.async([&] { ran = true; }).get(), job_rejected);
        auto copy = lane;
        EXPECT_EQ(copy.key(), lane.key());
    }
    EXPECT_FALSE(ran);
    EXPECT_EQ(lanes[1].key(), "idle");
}

TEST(Lane_handle, may_be_copied_and_moved_and_assigned) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2});
    auto lane = pool.lane("key");
    auto copy = lane;
    auto other = pool.lane("other");
    other = copy;
    EXPECT_EQ(other.key(), "key");
    auto moved = std::move(lane);
    lane = moved; // one that was moved from may be assigned to
    auto& same = lane;
    lane = same;
    for (const auto* each : {&lane, &copy, &other, &moved})
        ASSERT_TRUE(each->submit([&] { ++ran; }));
    pool.drain();
    EXPECT_EQ(ran, 4);
}

TEST(Lane_handle, is_one_lane_for_all_handles_to_a_key) {
    gate until;
    std::atomic<bool> ran = false;
    std::latch running(1);
    task_pool pool({.threads = 2});
    const opener at_end(until);
    auto first = pool.lane("key");
    auto second = pool.lane("key");
    ASSERT_TRUE(first.submit([&] {
        running.count_down();
        until.wait();
    }));
    running.wait();
    ASSERT_TRUE(second.submit([&] { ran = true; }));
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    EXPECT_EQ(pool.active_keys(), 1U);
    until.open();
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Lane_handle, to_an_idle_key_is_not_work) {
    task_pool pool({.threads = 1});
    auto lane = pool.lane("key");
    EXPECT_EQ(pool.active_keys(), 0U);
    pool.drain();
    pool.drain("key");
    EXPECT_TRUE(pool.drain_for(0ms));
    ASSERT_TRUE(lane.submit([] {}));
    pool.drain();
    EXPECT_EQ(pool.active_keys(), 0U);
}

TEST(Lane_handle, works_after_a_long_idle_time_and_beside_forgotten_keys) {
    // While other keys come and are forgotten the idle lane behind the handle stays what it is.
    basic_task_pool<int> pool({.threads = 2});
    auto lane = pool.lane(-1);
    int ran = 0;
    for (int round = 0; round < 20; ++round) {
        for (int i = 0; i < 5'000; ++i)
            ASSERT_TRUE(pool.submit(round * 5'000 + i, [] {}));
        ASSERT_TRUE(lane.submit([&] { ++ran; }));
        ASSERT_TRUE(pool.submit(-1, [&] { ++ran; }));
        pool.drain();
        ASSERT_EQ(ran, 2 * (round + 1));
    }
}

TEST(Lane_handle, many_of_them_come_and_go_from_many_threads) {
    basic_task_pool<int> pool({.threads = 2});
    std::array<std::uint64_t, 50> ran{};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&] {
            std::vector<basic_lane<int>> kept;
            for (int i = 0; i < 5'000; ++i) {
                auto lane = pool.lane(i % 50);
                auto& count = ran[static_cast<std::size_t>(i % 50)];
                EXPECT_TRUE(lane.submit([&count] { ++count; }));
                kept.push_back(lane);
                if (kept.size() == 100)
                    kept.clear();
            }
        });
    }
    for (auto& thread : threads)
        thread.join();
    pool.drain();
    for (const auto count : ran)
        EXPECT_EQ(count, 400U);
}

TEST(Lane_handle, one_object_may_be_submitted_to_from_many_threads) {
    std::uint64_t ran = 0;
    task_pool pool({.threads = 2});
    const auto lane = pool.lane("key");
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&] {
            for (int i = 0; i < 10'000; ++i)
                EXPECT_TRUE(lane.submit([&] { ++ran; }));
        });
    }
    for (auto& thread : threads)
        thread.join();
    pool.drain();
    EXPECT_EQ(ran, 40'000U);
}

TEST(Lane_handle, keeps_the_bound_of_its_lane) {
    task_pool pool({.lane_capacity = 10, .autostart = false});
    auto lane = pool.lane("key");
    int accepted = 0;
    while (accepted <= 10 && (accepted % 2 == 0 ? lane.try_submit([] {}) : pool.try_submit("key", [] {})))
        ++accepted;
    EXPECT_EQ(accepted, 10);
    EXPECT_EQ(lane.try_submit([] {}), submit_status::full);
    EXPECT_EQ(pool.cancel("key"), 10U);
    EXPECT_TRUE(lane.try_submit([] {}));
}

} // namespace
} // namespace taskpool::testing
