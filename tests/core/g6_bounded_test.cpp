// SPDX-License-Identifier: Apache-2.0
// G6: at most lane_capacity jobs wait under one key and pool_capacity in all; what a full queue does is the user's
// choice.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

/// Submits a job that adds `entry` to the journal.
template <class Pool, class Key>
submit_result add(Pool& pool, const Key& key, journal<int>& ran, int entry) {
    return pool.submit(key, [&ran, entry] { ran.add(entry); });
}

TEST(G6_bounded, a_hundred_jobs_wait_under_a_key_and_no_more) {
    gate until;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2});
    const opener at_end(until);
    occupy(pool, "key", until);
    for (int i = 0; i < 100; ++i)
        ASSERT_EQ(pool.try_submit("key", [&] { ++ran; }), submit_status::accepted) << i;
    EXPECT_EQ(pool.try_submit("key", [&] { ++ran; }), submit_status::full);
    EXPECT_EQ(pool.stats().waiting, 100U);
    until.open();
    pool.drain();
    EXPECT_EQ(ran, 100);
}

TEST(G6_bounded, the_lane_bound_is_exact_for_every_capacity_and_before_the_start) {
    for (const std::size_t capacity : {1U, 2U, 3U, 20U, 21U, 22U, 23U, 43U, 64U, 1'000U}) {
        task_pool pool({.lane_capacity = capacity, .autostart = false});
        std::size_t accepted = 0;
        while (accepted <= capacity && pool.try_submit("key", [] {}))
            ++accepted;
        EXPECT_EQ(accepted, capacity);
    }
}

// I-LANE-5
TEST(G6_bounded, the_lane_bound_is_exact_for_contending_producers) {
    std::latch begin(4);
    std::atomic<int> accepted = 0;
    task_pool pool({.lane_capacity = 100, .autostart = false});
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            begin.arrive_and_wait();
            for (int job = 0; job < 100; ++job)
                accepted += pool.try_submit("key", [] {}).accepted();
        });
    }
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(accepted, 100);
}

// I-GATE-1, I-GATE-2
TEST(G6_bounded, the_pool_bound_is_exact_for_contending_producers_with_many_keys) {
    std::latch begin(4);
    std::atomic<int> accepted = 0;
    basic_task_pool<int> pool({.pool_capacity = 64, .autostart = false});
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
            begin.arrive_and_wait();
            for (int job = 0; job < 1'000; ++job)
                accepted += pool.try_submit(i * 1'000 + job, [] {}).accepted();
        });
    }
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(accepted, 64);
    EXPECT_EQ(pool.stats().waiting, 64U);
    pool.start();
    pool.drain();
    EXPECT_TRUE(pool.try_submit(0, [] {}));
}

TEST(G6_bounded, a_full_lane_blocks_its_submitter_until_a_job_has_started) {
    gate until;
    journal<int> ran;
    std::atomic<bool> entered = false, returned = false;
    task_pool pool({.threads = 2});
    occupy(pool, "key", until);
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(add(pool, "key", ran, i));
    std::thread submitter([&] {
        entered = true;
        EXPECT_EQ(add(pool, "key", ran, 100), submit_status::accepted);
        returned = true;
    });
    ASSERT_TRUE(eventually([&] { return entered.load(); }));
    EXPECT_TRUE(for_a_while([&] { return !returned && pool.stats().waiting == 100; }, 50ms));
    until.open();
    EXPECT_TRUE(eventually([&] { return returned.load(); }));
    submitter.join();
    pool.drain();
    EXPECT_EQ(ran.entries(), count_up(101));
}

TEST(G6_bounded, a_full_pool_blocks_submitters_of_all_keys_until_jobs_have_started) {
    constexpr int submitters = 4;
    std::atomic<int> returned = 0, ran = 0;
    basic_task_pool<int> pool({.threads = 2, .pool_capacity = 5, .autostart = false});
    for (int i = 0; i < 5; ++i)
        ASSERT_TRUE(pool.submit(i, [&] { ++ran; }));
    std::vector<std::thread> threads;
    for (int i = 0; i < submitters; ++i) {
        threads.emplace_back([&, i] {
            EXPECT_TRUE(pool.submit(100 + i, [&] { ++ran; }));
            ++returned;
        });
    }
    EXPECT_TRUE(for_a_while([&] { return returned == 0 && pool.stats().waiting == 5; }, 50ms));
    pool.start();
    for (auto& thread : threads)
        thread.join();
    pool.drain();
    EXPECT_EQ(ran, 5 + submitters);
}

TEST(G6_bounded, the_running_job_and_a_held_one_take_no_place) {
    gate until;
    held kept;
    task_pool pool({.threads = 2, .lane_capacity = 1, .pool_capacity = 2});
    const opener at_end(until);
    occupy(pool, "running", until);
    ASSERT_TRUE(pool.submit("held", [&](const job_context& context) { kept = context.hold(); }));
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    EXPECT_TRUE(pool.try_submit("running", [] {}));
    EXPECT_EQ(pool.try_submit("running", [] {}), submit_status::full);
    EXPECT_TRUE(pool.try_submit("held", [] {}));
    EXPECT_EQ(pool.try_submit("other", [] {}), submit_status::full); // the pool's two
    kept.release();
    EXPECT_TRUE(eventually([&] { return pool.try_submit("other", [] {}).accepted(); }));
}

TEST(G6_bounded, a_cancel_makes_room) {
    task_pool pool({.lane_capacity = 10, .pool_capacity = 10, .autostart = false});
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(pool.submit("key", [] {}));
    ASSERT_EQ(pool.try_submit("key", [] {}), submit_status::full);
    ASSERT_EQ(pool.try_submit("other", [] {}), submit_status::full);
    EXPECT_EQ(pool.cancel("key"), 10U);
    int accepted = 0;
    while (accepted <= 10 && pool.try_submit(accepted % 2 == 0 ? "key" : "other", [] {}))
        ++accepted;
    EXPECT_EQ(accepted, 10);
}

TEST(G6_bounded, a_cancel_lets_a_blocked_submitter_in) {
    std::atomic<bool> returned = false;
    task_pool pool({.lane_capacity = 3, .autostart = false});
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit("key", [] {}));
    std::thread submitter([&] {
        EXPECT_TRUE(pool.submit("key", [] {}));
        returned = true;
    });
    EXPECT_TRUE(for_a_while([&] { return !returned; }));
    EXPECT_EQ(pool.cancel("key"), 3U);
    EXPECT_TRUE(eventually([&] { return returned.load(); }));
    submitter.join();
    EXPECT_EQ(pool.stats().waiting, 1U);
}

TEST(G6_bounded, a_cancel_lets_a_submitter_in_that_a_full_pool_blocks) {
    for (const bool started : {false, true}) {
        gate until;
        std::atomic<bool> returned = false;
        task_pool pool({.threads = 1, .max_threads = 1, .pool_capacity = 3, .autostart = started});
        const opener at_end(until);
        if (started)
            occupy(pool, "key", until);
        for (int i = 0; i < 3; ++i)
            ASSERT_TRUE(pool.submit("key", [] {}));
        std::thread submitter([&] {
            EXPECT_TRUE(pool.submit("other", [] {}));
            returned = true;
        });
        EXPECT_TRUE(for_a_while([&] { return !returned; }));
        EXPECT_EQ(pool.cancel("key"), 3U);
        EXPECT_TRUE(eventually([&] { return returned.load(); })) << (started ? "started" : "not started");
        if (!returned)
            pool.close(); // so that the test ends
        submitter.join();
    }
}

TEST(G6_bounded, gives_up_after_a_time) {
    task_pool pool({.lane_capacity = 1, .autostart = false});
    ASSERT_TRUE(pool.submit("key", [] {}));
    const auto begin = steady::now();
    EXPECT_EQ(pool.submit_for("key", 50ms, [] {}), submit_status::timed_out);
    EXPECT_GE(steady::now() - begin, 50ms);
    const auto until = steady::now() + 50ms;
    EXPECT_EQ(pool.submit_until("key", until, [] {}), submit_status::timed_out);
    EXPECT_GE(steady::now(), until);
    EXPECT_EQ(pool.submit_for("key", 0ms, [] {}), submit_status::timed_out);
    EXPECT_EQ(pool.submit_for("key", -1h, [] {}), submit_status::timed_out);
    EXPECT_EQ(pool.lane("key").submit_for(1ms, [] {}), submit_status::timed_out);
    EXPECT_EQ(pool.stats().waiting, 1U);
    EXPECT_EQ(pool.stats().rejected, 5U);
    // A time that has passed is no reason to refuse when there is room.
    EXPECT_EQ(pool.submit_for("free", -1h, [] {}), submit_status::accepted);
    EXPECT_EQ(pool.submit_for("free too", std::chrono::hours::max(), [] {}), submit_status::accepted);
}

TEST(G6_bounded, a_timed_submit_gets_in_when_there_is_room_in_time) {
    journal<int> ran;
    task_pool pool({.threads = 1, .lane_capacity = 1, .autostart = false});
    ASSERT_TRUE(add(pool, "key", ran, 0));
    std::thread submitter([&] {
        EXPECT_EQ(pool.submit_for("key", std::chrono::hours::max(), [&] { ran.add(1); }), submit_status::accepted);
    });
    EXPECT_TRUE(for_a_while([&] { return pool.stats().accepted == 1; }));
    pool.start();
    submitter.join();
    pool.drain();
    EXPECT_EQ(ran.entries(), count_up(2));
}

TEST(G6_bounded, reject_refuses_at_once) {
    task_pool pool({.lane_capacity = 2, .pool_capacity = 3, .when_full = overflow::reject, .autostart = false});
    EXPECT_TRUE(pool.submit("key", [] {}));
    EXPECT_TRUE(pool.submit("key", [] {}));
    EXPECT_EQ(pool.submit("key", [] {}), submit_status::full);
    EXPECT_EQ(pool.submit_for("key", 1h, [] {}), submit_status::full);
    EXPECT_EQ(pool.try_submit("key", [] {}), submit_status::full);
    EXPECT_EQ(pool.lane("key").submit([] {}), submit_status::full);
    EXPECT_TRUE(pool.submit("other", [] {}));
    EXPECT_EQ(pool.submit("third", [] {}), submit_status::full); // the pool is
    auto refused = pool.async("key", [] {});
    EXPECT_TRUE(refused.is_ready());
    EXPECT_THROW(refused.get(), job_rejected);
}

TEST(G6_bounded, drop_oldest_gives_up_the_key_s_oldest_waiting_job) {
    journal<int> ran;
    journal<std::string> dropped;
    task_pool pool({.lane_capacity = 3,
                    .when_full = overflow::drop_oldest,
                    .autostart = false,
                    .on_discard = [&](const discard& job) {
                        EXPECT_EQ(job.reason, discard_reason::dropped_oldest);
                        dropped.add(std::string(job.key));
                    }});
    ASSERT_TRUE(add(pool, "other", ran, 100));
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(add(pool, "key", ran, i));
    EXPECT_TRUE(pool.try_submit("key", [&] { ran.add(10); }));
    EXPECT_EQ(dropped.entries(), std::vector<std::string>(8, "key"));
    EXPECT_EQ(pool.stats().waiting, 4U);
    pool.start();
    pool.drain();
    auto entries = ran.entries();
    std::erase(entries, 100);
    EXPECT_EQ(entries, (std::vector{8, 9, 10}));
    EXPECT_EQ(pool.stats().finished, 4U);
    EXPECT_EQ(pool.stats().discarded, 8U);
    EXPECT_EQ(pool.stats().rejected, 0U);
}

TEST(G6_bounded, drop_oldest_leaves_the_running_job_alone) {
    gate until;
    journal<int> ran;
    task_pool pool({.threads = 2, .lane_capacity = 1, .when_full = overflow::drop_oldest});
    const opener at_end(until);
    occupy(pool, "key", until);
    for (int i = 0; i < 5; ++i)
        ASSERT_TRUE(add(pool, "key", ran, i));
    until.open();
    pool.drain();
    EXPECT_EQ(ran.entries(), std::vector{4});
    EXPECT_EQ(pool.stats().discarded, 4U);
    EXPECT_EQ(pool.stats().finished, 2U);
}

TEST(G6_bounded, drop_oldest_in_a_full_pool_gives_up_the_key_s_own_or_refuses) {
    journal<int> ran;
    task_pool pool({.pool_capacity = 2, .when_full = overflow::drop_oldest, .autostart = false});
    ASSERT_TRUE(add(pool, "a", ran, 0));
    ASSERT_TRUE(add(pool, "b", ran, 1));
    EXPECT_EQ(add(pool, "c", ran, 2), submit_status::full); // has none to give up
    EXPECT_EQ(add(pool, "a", ran, 3), submit_status::accepted);
    EXPECT_EQ(pool.stats().waiting, 2U);
    pool.start();
    pool.drain();
    auto entries = ran.entries();
    std::sort(entries.begin(), entries.end());
    EXPECT_EQ(entries, (std::vector{1, 3}));
}

TEST(G6_bounded, keep_latest_lets_only_the_latest_job_wait) {
    journal<int> ran;
    journal<std::string> replaced;
    task_pool pool({.when_full = overflow::keep_latest, .autostart = false, .on_discard = [&](const discard& job) {
                        EXPECT_EQ(job.reason, discard_reason::replaced);
                        replaced.add(std::string(job.key));
                    }});
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(add(pool, "key", ran, i));
    ASSERT_TRUE(pool.try_submit("key", [&] { ran.add(10); }));
    EXPECT_EQ(pool.stats().waiting, 1U);
    EXPECT_EQ(replaced.entries(), std::vector<std::string>(10, "key"));
    pool.start();
    pool.drain();
    EXPECT_EQ(ran.entries(), std::vector{10});
}

TEST(G6_bounded, keep_latest_leaves_the_running_job_alone) {
    gate until;
    journal<int> ran;
    task_pool pool({.threads = 2, .when_full = overflow::keep_latest});
    const opener at_end(until);
    occupy(pool, "key", until);
    for (int i = 0; i < 5; ++i)
        ASSERT_TRUE(add(pool, "key", ran, i));
    until.open();
    pool.drain();
    EXPECT_EQ(ran.entries(), std::vector{4});
    EXPECT_EQ(pool.stats().finished, 2U);
    EXPECT_EQ(pool.stats().discarded, 4U);
}

TEST(G6_bounded, keep_latest_in_a_full_pool_replaces_the_key_s_own_or_refuses) {
    task_pool pool({.pool_capacity = 2, .when_full = overflow::keep_latest, .autostart = false});
    ASSERT_TRUE(pool.submit("a", [] {}));
    ASSERT_TRUE(pool.submit("b", [] {}));
    EXPECT_EQ(pool.submit("c", [] {}), submit_status::full);
    EXPECT_EQ(pool.submit("a", [] {}), submit_status::accepted);
    EXPECT_EQ(pool.stats().waiting, 2U);
    EXPECT_EQ(pool.stats().discarded, 1U);
}

// I-ROOM-1
TEST(G6_bounded, many_blocked_submitters_of_one_key_all_get_in) {
    constexpr int producers = 8, jobs = 500;
    int ran = 0;
    task_pool pool({.threads = 2, .lane_capacity = 2});
    std::vector<std::thread> threads;
    for (int i = 0; i < producers; ++i) {
        threads.emplace_back([&] {
            for (int job = 0; job < jobs; ++job)
                EXPECT_TRUE(pool.submit("key", [&] { ++ran; }));
        });
    }
    for (auto& thread : threads)
        thread.join();
    pool.drain();
    EXPECT_EQ(ran, producers * jobs);
}

// I-ROOM-1, I-GATE-2
TEST(G6_bounded, many_blocked_submitters_of_a_full_pool_all_get_in) {
    constexpr int producers = 8, jobs = 500;
    std::atomic<int> ran = 0;
    basic_task_pool<int> pool({.threads = 2, .pool_capacity = 2});
    std::vector<std::thread> threads;
    for (int i = 0; i < producers; ++i) {
        threads.emplace_back([&, i] {
            for (int job = 0; job < jobs; ++job)
                EXPECT_TRUE(pool.submit(i * jobs + job, [&] { ++ran; }));
        });
    }
    for (auto& thread : threads)
        thread.join();
    pool.drain();
    EXPECT_EQ(ran, producers * jobs);
}

} // namespace
} // namespace taskpool::testing
