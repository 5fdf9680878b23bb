// SPDX-License-Identifier: Apache-2.0
// G4: among ready keys the one whose next job was submitted first runs first, to within a tick per worker. The tests
// let ticks pass between submits to make ages differ; with one worker the order is then exact.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

options one_worker() { return {.threads = 1, .max_threads = 1, .lane_capacity = 100'000, .autostart = false}; }

TEST(G4_age_fair, a_key_whose_jobs_are_younger_runs_after_one_whose_job_is_older) {
    journal<int> ran;
    basic_task_pool<int> pool(one_worker());
    const std::vector<int> order = {5, 3, 9, 0, 7, 1, 8, 2, 6, 4};
    for (const int key : order) {
        ASSERT_TRUE(pool.submit(key, [&ran, key] { ran.add(key); }));
        let_ticks_pass();
    }
    pool.start();
    pool.drain();
    EXPECT_EQ(ran.entries(), order);
}

TEST(G4_age_fair, a_hot_key_neither_starves_others_nor_is_starved) {
    // The hot key's old jobs come before the others' job, and its young ones after it.
    journal<std::string> ran;
    task_pool pool(one_worker());
    std::vector<std::string> expected;
    const auto submit = [&](const std::string& key) {
        expected.push_back(key);
        ASSERT_TRUE(pool.submit(key, [&ran, key] { ran.add(key); }));
    };
    for (int i = 0; i < 200; ++i)
        submit("hot");
    let_ticks_pass();
    submit("other");
    let_ticks_pass();
    for (int i = 0; i < 200; ++i)
        submit("hot");
    let_ticks_pass();
    submit("last");
    pool.start();
    pool.drain();
    EXPECT_EQ(ran.entries(), expected);
}

TEST(G4_age_fair, holds_across_the_queues_of_several_workers) {
    // Two of three workers are occupied, so the third serves what was meant for them, too. The hot key always has a
    // next job: but for the age of others it would never leave its worker.
    gate until;
    journal<int> ran;
    task_pool pool({.threads = 3, .max_threads = 3, .lane_capacity = 1'000, .autostart = false});
    const opener at_end(until);
    for (const auto* const key : {"one", "two"}) // the oldest: they occupy two workers first
        ASSERT_TRUE(pool.submit(key, [&] { until.wait(); }));
    let_ticks_pass(); // exact before the start, when no keeper has to come
    int submitted = 0;
    for (int burst = 0; burst < 15; ++burst) {
        for (const auto& key : {std::string("hot"), std::string("hot"), "other" + std::to_string(burst)}) {
            ASSERT_TRUE(pool.submit(key, [&ran, number = submitted++] {
                burn(4ms);
                ran.add(number);
            }));
            let_ticks_pass(4ms);
        }
    }
    pool.start();
    ASSERT_TRUE(eventually([&] { return ran.size() == static_cast<std::size_t>(submitted); }));
    EXPECT_EQ(ran.entries(), count_up(submitted));
}

TEST(G4_age_fair, jobs_run_by_age_over_many_keys) {
    // Twenty bursts of 200 jobs over 50 keys: no job of a later burst runs before one of an earlier.
    journal<int> ran;
    basic_task_pool<int> pool(one_worker());
    std::minstd_rand random(7);
    for (int burst = 0; burst < 20; ++burst) {
        for (int i = 0; i < 200; ++i)
            ASSERT_TRUE(pool.submit(static_cast<int>(random() % 50), [&ran, burst] { ran.add(burst); }));
        let_ticks_pass();
    }
    pool.start();
    pool.drain();
    const auto bursts = ran.entries();
    ASSERT_EQ(bursts.size(), 4'000U);
    EXPECT_TRUE(std::is_sorted(bursts.begin(), bursts.end()));
}

TEST(G4_age_fair, a_key_that_never_runs_dry_lets_others_in) {
    // The hot key's job submits itself again and again, so the key is always ready with a job of its own.
    std::atomic<int> others = 0;
    std::atomic<bool> gave_up = false;
    std::latch begun(1);
    task_pool pool({.threads = 1, .max_threads = 1});
    const auto end = steady::now() + 20s;
    std::function<void()> again = [&] {
        if (others < 50) {
            gave_up = steady::now() >= end;
            if (!gave_up)
                pool.submit("hot", [&] { again(); });
        }
    };
    ASSERT_TRUE(pool.submit("hot", [&] {
        begun.count_down();
        again();
    }));
    begun.wait();
    for (int i = 0; i < 50; ++i)
        ASSERT_TRUE(pool.submit("other" + std::to_string(i), [&] { ++others; }));
    EXPECT_TRUE(eventually([&] { return others == 50 || gave_up; }, 30s));
    pool.drain();
    EXPECT_FALSE(gave_up);
    EXPECT_EQ(others, 50);
}

TEST(G4_age_fair, a_stream_of_new_keys_lets_an_old_backlog_in) {
    std::atomic<int> hot = 0;
    std::atomic<bool> gave_up = false;
    int next_key = 0;
    basic_task_pool<int> pool(one_worker());
    const auto end = steady::now() + 20s;
    std::function<void()> again = [&] {
        if (hot < 500) {
            gave_up = steady::now() >= end;
            if (!gave_up) {
                pool.submit(++next_key, [&] { again(); });
                burn(20us);
            }
        }
    };
    for (int i = 0; i < 8; ++i)
        ASSERT_TRUE(pool.submit(++next_key, [&] { again(); })); // eight streams
    for (int i = 0; i < 500; ++i)
        ASSERT_TRUE(pool.submit(0, [&] { ++hot; }));
    pool.start();
    EXPECT_TRUE(eventually([&] { return hot == 500 || gave_up; }, 30s));
    pool.drain();
    EXPECT_FALSE(gave_up);
    EXPECT_EQ(hot, 500);
}

TEST(G4_age_fair, a_batch_with_one_hot_key_ends_as_early_as_it_can) {
    // Two workers, 50 jobs of one key and 50 of others. The hot key came first, so one worker is always at it and the
    // other at the rest: the jobs run in 50 pairs of both kinds. Were the hot key left for last, it would be alone.
    constexpr int jobs = 50;
    std::mutex mutex;
    std::condition_variable changed;
    int hot_arrived = 0, others_arrived = 0;
    bool alone = false;
    const auto meet = [&](int& mine, const int& theirs) {
        std::unique_lock lock(mutex);
        const int round = ++mine;
        changed.notify_all();
        if (!alone && !changed.wait_for(lock, 15s * slowness, [&] { return theirs >= round || alone; })) {
            alone = true;
            changed.notify_all();
        }
    };
    task_pool pool({.threads = 2, .max_threads = 2, .autostart = false});
    for (int i = 0; i < jobs; ++i)
        ASSERT_TRUE(pool.submit("hot", [&] { meet(hot_arrived, others_arrived); }));
    let_ticks_pass();
    for (int i = 0; i < jobs; ++i)
        ASSERT_TRUE(pool.submit("other" + std::to_string(i), [&] { meet(others_arrived, hot_arrived); }));
    pool.start();
    pool.drain();
    EXPECT_FALSE(alone);
    EXPECT_EQ(hot_arrived, jobs);
    EXPECT_EQ(others_arrived, jobs);
}

TEST(G4_age_fair, a_lane_let_go_by_a_hold_is_served_by_its_jobs_age) {
    // While it is held, younger keys queue up; the held key's waiting job is older than theirs.
    journal<std::string> ran;
    gate until;
    held kept;
    task_pool pool({.threads = 1, .max_threads = 1});
    const opener at_end(until);
    ASSERT_TRUE(pool.submit("held", [&](const job_context& context) { kept = context.hold(); }));
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    occupy(pool, "occupied", until);
    ASSERT_TRUE(pool.submit("held", [&] { ran.add("held"); }));
    ASSERT_TRUE(pool.submit("shows the ticks", [] {}));
    ASSERT_TRUE(oldest_waits(pool, 2ms));
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(pool.submit("young" + std::to_string(i), [&] { ran.add("young"); }));
    kept.release();
    until.open();
    pool.drain();
    ASSERT_EQ(ran.size(), 11U);
    EXPECT_EQ(ran.entries().front(), "held");
}

} // namespace
} // namespace taskpool::testing
