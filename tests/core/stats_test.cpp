// SPDX-License-Identifier: Apache-2.0
// What a pool says of itself.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

TEST(Stats, count_what_became_of_each_job) {
    gate until;
    task_pool pool({.threads = 1, .lane_capacity = 3, .on_failure = [](const failure&) {}});
    const opener at_end(until);
    for (int i = 0; i < 5; ++i) {
        ASSERT_TRUE(pool.submit("fine", [] {}));
        pool.drain();
    }
    ASSERT_TRUE(pool.submit("broken", [] { throw 1; }));
    (void)pool.async("broken", [] { throw 1; });
    pool.drain();
    occupy(pool, "key", until);
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.try_submit("key", [] {}));
    for (int i = 0; i < 4; ++i)
        ASSERT_FALSE(pool.try_submit("key", [] {}));
    ASSERT_EQ(pool.submit_for("key", 0ms, [] {}), submit_status::timed_out);
    EXPECT_EQ(pool.cancel("key"), 3U);
    until.open();
    pool.drain();
    pool.close();
    ASSERT_EQ(pool.submit("key", [] {}), submit_status::stopped);
    const auto stats = pool.stats();
    EXPECT_EQ(stats.accepted, 11U);
    EXPECT_EQ(stats.finished, 8U);
    EXPECT_EQ(stats.failed, 2U);
    EXPECT_EQ(stats.discarded, 3U);
    EXPECT_EQ(stats.rejected, 6U);
    EXPECT_EQ(stats.waiting, 0U);
    EXPECT_EQ(stats.running, 0U);
    EXPECT_EQ(stats.active_keys, 0U);
    EXPECT_EQ(stats.ready_lanes, 0U);
    EXPECT_EQ(stats.suspended_lanes, 0U);
    EXPECT_EQ(stats.threads_refused, 0U);
}

TEST(Stats, of_a_new_pool_are_zero) {
    task_pool pool({.threads = 2, .autostart = false});
    const auto stats = pool.stats();
    EXPECT_EQ(stats.accepted + stats.finished + stats.failed + stats.discarded + stats.rejected, 0U);
    EXPECT_EQ(stats.waiting + stats.running + stats.active_keys + stats.ready_lanes + stats.suspended_lanes, 0U);
    EXPECT_EQ(stats.threads + stats.blocked_threads + stats.threads_refused, 0U);
    EXPECT_EQ(stats.wait_time.total(), 0U);
    EXPECT_EQ(stats.run_time.total(), 0U);
}

TEST(Stats, tell_lanes_that_run_wait_and_are_held_apart) {
    gate until;
    held kept;
    task_pool pool({.threads = 1, .max_threads = 1});
    const opener at_end(until);
    ASSERT_TRUE(pool.submit("held", [&](const job_context& context) { kept = context.hold(); }));
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    occupy(pool, "running", until);
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit("running", [] {}));
    for (int i = 0; i < 4; ++i)
        ASSERT_TRUE(pool.submit("ready" + std::to_string(i % 2), [] {}));
    ASSERT_TRUE(pool.submit("held", [] {}));
    const auto stats = pool.stats();
    EXPECT_EQ(stats.waiting, 8U);
    EXPECT_EQ(stats.running, 1U);
    EXPECT_EQ(stats.active_keys, 4U);
    EXPECT_EQ(stats.ready_lanes, 2U);
    EXPECT_EQ(stats.suspended_lanes, 1U);
    EXPECT_EQ(stats.threads, 1U);
    kept.release();
    EXPECT_EQ(pool.stats().suspended_lanes, 0U);
    EXPECT_EQ(pool.stats().ready_lanes, 3U);
    until.open();
    pool.drain();
}

TEST(Stats, count_threads_and_which_of_them_are_blocked) {
    gate until;
    task_pool pool({.threads = 2});
    const opener at_end(until);
    for (int i = 0; i < 6; ++i) {
        auto started = std::make_shared<gate>();
        ASSERT_TRUE(pool.submit(std::to_string(i), [&until, started] {
            const blocking_scope blocking;
            started->open();
            until.wait();
        }));
        started->wait();
    }
    const auto stats = pool.stats();
    EXPECT_EQ(stats.blocked_threads, 6U);
    EXPECT_EQ(stats.running, 6U);
    EXPECT_GE(stats.threads, 6U);
    until.open();
    pool.drain();
    EXPECT_TRUE(eventually([&] { return pool.stats().blocked_threads == 0; }));
}

TEST(Stats, histograms_count_each_job_that_started_and_returned) {
    task_pool pool({.threads = 2, .on_failure = [](const failure&) {}});
    for (int i = 0; i < 1'000; ++i)
        ASSERT_TRUE(pool.submit(std::to_string(i % 10), [i] {
            if (i % 100 == 0)
                throw 1;
        }));
    pool.drain();
    EXPECT_EQ(pool.stats().wait_time.total(), 1'000U);
    EXPECT_EQ(pool.stats().run_time.total(), 1'000U);
    task_pool unstarted({.autostart = false});
    ASSERT_TRUE(unstarted.submit("key", [] {}));
    EXPECT_EQ(unstarted.stats().wait_time.total(), 0U);
}

TEST(Stats, histograms_tell_how_long_jobs_waited_and_ran) {
    task_pool pool({.threads = 1, .max_threads = 1, .autostart = false});
    ASSERT_TRUE(pool.submit("key", [&] {
        pool.submit("other", [] {});
        EXPECT_TRUE(oldest_waits(pool, 40ms));
        EXPECT_EQ(pool.cancel("other"), 1U); // it was there to show the age
    }));
    ASSERT_TRUE(oldest_waits(pool, 20ms));
    pool.start();
    pool.drain();
    const auto long_enough = [](const histogram& times, std::size_t first) {
        std::uint64_t counted = 0;
        for (std::size_t i = first; i < times.counts.size(); ++i)
            counted += times.counts[i];
        return counted;
    };
    EXPECT_EQ(long_enough(pool.stats().wait_time, 5), 1U); // 16 ms or more
    EXPECT_EQ(long_enough(pool.stats().run_time, 6), 1U);  // 32 ms or more
    EXPECT_GE(pool.stats().run_time.quantile(0.5), 64ms);
}

TEST(Stats, a_histogram_s_quantile_is_the_end_of_its_bucket) {
    histogram times;
    EXPECT_EQ(times.total(), 0U);
    EXPECT_EQ(times.quantile(0.5), 0ms);
    times.counts[0] = 50; // under 1 ms
    times.counts[1] = 30; // from 1 to 2
    times.counts[4] = 15; // from 8 to 16
    times.counts[10] = 5; // from 512 to 1,024
    EXPECT_EQ(times.total(), 100U);
    EXPECT_EQ(times.quantile(0), 1ms);
    EXPECT_EQ(times.quantile(0.4), 1ms);
    EXPECT_EQ(times.quantile(0.7), 2ms);
    EXPECT_EQ(times.quantile(0.9), 16ms);
    EXPECT_EQ(times.quantile(0.99), 1'024ms);
    EXPECT_EQ(times.quantile(1), 1'024ms);
}

TEST(Stats, counters_never_shrink_and_agree_while_work_goes_on) {
    std::atomic<bool> done = false;
    task_pool pool({.threads = 2});
    std::thread reader([&] {
        pool_stats before;
        while (!done) {
            const auto now = pool.stats();
            EXPECT_GE(now.accepted, before.accepted);
            EXPECT_GE(now.finished, before.finished);
            EXPECT_LE(now.waiting, std::size_t{1} << 20); // never wraps
            EXPECT_LE(now.ready_lanes, 1'000U);
            EXPECT_LE(now.running, now.threads + 2);
            before = now;
        }
    });
    for (int i = 0; i < 50'000; ++i)
        ASSERT_TRUE(pool.submit(std::to_string(i % 50), [] {}));
    pool.drain();
    done = true;
    reader.join();
    EXPECT_EQ(pool.stats().accepted, 50'000U);
    EXPECT_EQ(pool.stats().finished, 50'000U);
}

TEST(Stats, the_hottest_key_is_found_among_many) {
    const auto begin = steady::now();
    task_pool pool({.threads = 1, .max_threads = 1, .lane_capacity = 1'000}); // where two meet, one counts nothing
    for (int i = 0; i < 100'000; ++i) {
        ASSERT_TRUE(pool.submit("hot", [] {}));
        ASSERT_TRUE(pool.submit("cold" + std::to_string(i), [] {}));
        if (i % 4 == 0) {
            ASSERT_TRUE(pool.submit("warm", [] {}));
        }
    }
    pool.drain();
    const auto hottest = pool.hottest_keys(10);
    ASSERT_GE(hottest.size(), 2U);
    EXPECT_LE(hottest.size(), 10U);
    EXPECT_EQ(hottest[0].key, "hot");
    EXPECT_EQ(hottest[1].key, "warm");
    // An estimate; the error that it admits is the most it may be too high, apart from the sampling's.
    const auto halvings = (steady::now() - begin) / 10s; // by which the past counts less
    EXPECT_GE(hottest[0].jobs, 50'000U >> halvings);
    EXPECT_LE(hottest[0].jobs - std::min(hottest[0].error, hottest[0].jobs), 150'000U);
    for (std::size_t i = 1; i < hottest.size(); ++i)
        EXPECT_GE(hottest[i - 1].jobs, hottest[i].jobs);
}

TEST(Stats, hottest_keys_are_as_many_as_asked_for_in_bounded_memory) {
    counted_pool pool({.threads = 2});
    EXPECT_TRUE(pool.hottest_keys(10).empty());
    const auto before = counted_key::alive.load();
    for (std::uint64_t i = 0; i < 200'000; ++i)
        ASSERT_TRUE(pool.submit(counted_key(i), [] {}));
    pool.drain();
    EXPECT_EQ(pool.hottest_keys(0).size(), 0U);
    EXPECT_EQ(pool.hottest_keys(3).size(), 3U);
    EXPECT_LE(pool.hottest_keys(1'000'000).size(), 256U);
    EXPECT_TRUE(eventually([&] { return counted_key::alive - before <= 300; }));
}

} // namespace
} // namespace taskpool::testing
