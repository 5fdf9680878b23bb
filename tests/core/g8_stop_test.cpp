// SPDX-License-Identifier: Apache-2.0
// G8: stop() refuses, asks, discards, wakes, joins and reports; close() and drain() end in peace.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

/// Runs until it is asked to stop.
void run_until_asked(const auto& context_or_token) {
    while (!context_or_token.stop_requested())
        std::this_thread::sleep_for(100us);
}

TEST(G8_stop, refuses_new_jobs) {
    task_pool pool({.threads = 2});
    auto lane = pool.lane("key");
    pool.stop();
    EXPECT_EQ(pool.submit("key", [] {}), submit_status::stopped);
    EXPECT_EQ(pool.try_submit("key", [] {}), submit_status::stopped);
    EXPECT_EQ(pool.submit_for("key", 1h, [] {}), submit_status::stopped);
    EXPECT_EQ(pool.submit_until("key", steady::now() + 1h, [] {}), submit_status::stopped);
    EXPECT_EQ(lane.submit([] {}), submit_status::stopped);
    EXPECT_EQ(pool.lane("other").try_submit([] {}), submit_status::stopped);
    auto refused = pool.async("key", [] { return 1; });
    ASSERT_TRUE(refused.is_ready());
    try {
        refused.get();
        FAIL() << "the job was accepted";
    } catch (const job_rejected& error) {
        EXPECT_EQ(error.status(), submit_status::stopped);
    }
    EXPECT_EQ(pool.stats().rejected, 7U);
}

TEST(G8_stop, asks_running_jobs_through_their_context) {
    std::latch running(3);
    std::atomic<int> asked = 0;
    task_pool pool({.threads = 3});
    ASSERT_TRUE(pool.submit("context", [&](const job_context& context) {
        EXPECT_FALSE(context.stop_requested());
        running.count_down();
        run_until_asked(context);
        ++asked;
    }));
    ASSERT_TRUE(pool.submit("token", [&](std::stop_token token) {
        EXPECT_TRUE(token.stop_possible());
        running.count_down();
        run_until_asked(token);
        ++asked;
    }));
    ASSERT_TRUE(pool.submit("callback", [&](const job_context& context) {
        gate called;
        const std::stop_callback on_stop(context.stop_token(), [&] { called.open(); });
        running.count_down();
        called.wait();
        ++asked;
    }));
    running.wait();
    const auto report = pool.stop();
    EXPECT_EQ(asked, 3);
    EXPECT_EQ(report.finished, 3U);
}

TEST(G8_stop, discards_waiting_jobs_and_reports_what_was_done) {
    std::latch running(1);
    std::atomic<int> ran = 0, reported = 0;
    task_pool pool({.threads = 1, .on_discard = [&](const discard&) { ++reported; }});
    for (int i = 0; i < 5; ++i)
        ASSERT_TRUE(pool.submit("before", [&] { ++ran; }));
    pool.drain();
    ASSERT_TRUE(pool.submit("running", [&](const job_context& context) {
        running.count_down();
        run_until_asked(context);
        ++ran;
    }));
    running.wait();
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(pool.submit("running", [&] { ran += 100; }));
    EXPECT_EQ(pool.cancel("other"), 0U);
    const auto report = pool.stop();
    EXPECT_EQ(ran, 6);
    EXPECT_EQ(report.finished, 6U);
    EXPECT_EQ(report.discarded, 10U);
    EXPECT_EQ(report.discarded_by_stop, 10U);
    EXPECT_EQ(reported, 10);
    EXPECT_EQ(pool.active_keys(), 0U);
    EXPECT_EQ(pool.stats().waiting, 0U);
    EXPECT_EQ(pool.stats().running, 0U);
}

TEST(G8_stop, tells_what_it_discarded_apart_from_what_was_discarded_before) {
    task_pool pool({.autostart = false});
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit("cancelled", [] {}));
    EXPECT_EQ(pool.cancel("cancelled"), 3U);
    for (int i = 0; i < 4; ++i)
        ASSERT_TRUE(pool.submit("stopped", [] {}));
    const auto report = pool.stop();
    EXPECT_EQ(report.finished, 0U);
    EXPECT_EQ(report.discarded, 7U);
    EXPECT_EQ(report.discarded_by_stop, 4U);
}

TEST(G8_stop, wakes_submitters_blocked_by_a_full_lane_or_a_full_pool) {
    std::array<std::atomic<submit_status>, 3> answers;
    std::atomic<int> returned = 0;
    task_pool pool({.lane_capacity = 2, .pool_capacity = 3, .autostart = false});
    ASSERT_TRUE(pool.submit("full", [] {}));
    ASSERT_TRUE(pool.submit("full", [] {}));
    ASSERT_TRUE(pool.submit("other", [] {}));
    std::vector<std::thread> threads;
    threads.emplace_back([&] {
        answers[0] = pool.submit("full", [] {}).status();
        ++returned;
    });
    threads.emplace_back([&] {
        answers[1] = pool.submit("third", [] {}).status();
        ++returned;
    });
    threads.emplace_back([&] {
        answers[2] = pool.lane("full").submit_for(1h, [] {}).status();
        ++returned;
    });
    EXPECT_TRUE(for_a_while([&] { return returned == 0; }));
    pool.stop();
    for (auto& thread : threads)
        thread.join();
    for (const auto& answer : answers)
        EXPECT_EQ(answer, submit_status::stopped);
}

TEST(G8_stop, waits_until_running_jobs_have_ended) {
    std::latch running(1);
    gate until;
    std::atomic<bool> ended = false, stopped = false;
    task_pool pool({.threads = 2});
    const opener at_end(until);
    ASSERT_TRUE(pool.submit("key", [&] {
        running.count_down();
        until.wait();
        ended = true;
    }));
    running.wait();
    std::thread stopper([&] {
        pool.stop();
        EXPECT_TRUE(ended);
        stopped = true;
    });
    EXPECT_TRUE(for_a_while([&] { return !stopped; }, 50ms));
    until.open();
    stopper.join();
}

TEST(G8_stop, joins_the_threads) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 4});
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(pool.submit(std::to_string(i), [&] { ++ran; }));
    EXPECT_GE(pool.stats().threads, 1U);
    pool.stop();
    EXPECT_EQ(pool.stats().threads, 0U);
}

TEST(G8_stop, is_idempotent_and_gives_the_same_report) {
    task_pool pool({.threads = 1});
    for (int i = 0; i < 50; ++i)
        ASSERT_TRUE(pool.submit("key", [] {}));
    const auto first = pool.stop();
    EXPECT_EQ(first.finished + first.discarded, 50U);
    for (int i = 0; i < 3; ++i) {
        const auto again = pool.stop();
        EXPECT_EQ(again.finished, first.finished);
        EXPECT_EQ(again.discarded, first.discarded);
        EXPECT_EQ(again.discarded_by_stop, first.discarded_by_stop);
    }
}

TEST(G8_stop, may_be_called_from_several_threads_at_once) {
    for (int round = 0; round < 20; ++round) {
        constexpr std::size_t stoppers = 4;
        std::latch begin(stoppers);
        task_pool pool({.threads = 2});
        for (int i = 0; i < 200; ++i)
            ASSERT_TRUE(pool.submit(std::to_string(i % 9), [] { burn(10us); }));
        std::array<stop_report, stoppers> reports;
        std::vector<std::thread> threads;
        for (auto& report : reports) {
            threads.emplace_back([&] {
                begin.arrive_and_wait();
                report = pool.stop();
            });
        }
        for (auto& thread : threads)
            thread.join();
        for (const auto& report : reports) {
            EXPECT_EQ(report.finished, reports[0].finished);
            EXPECT_EQ(report.discarded, reports[0].discarded);
            EXPECT_EQ(report.discarded_by_stop, reports[0].discarded_by_stop);
            EXPECT_EQ(report.finished + report.discarded, 200U);
        }
    }
}

TEST(G8_stop, inside_a_job_is_an_error_and_does_nothing) {
    std::atomic<int> threw = 0;
    task_pool pool({.threads = 2});
    ASSERT_TRUE(pool.submit("asker", [&] {
        try {
            pool.stop();
        } catch (const deadlock_error& error) {
            EXPECT_EQ(error.keys(), std::vector<std::string>{"asker"});
            EXPECT_NE(std::string(error.what()).find("asker"), std::string::npos) << error.what();
            ++threw;
        }
        // Having done nothing, it left the pool open.
        EXPECT_TRUE(pool.submit("other", [&] { ++threw; }));
    }));
    pool.drain();
    EXPECT_EQ(threw, 2);
}

TEST(G8_stop, before_the_start_discards_everything) {
    std::atomic<int> ran = 0;
    task_pool pool({.autostart = false});
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(pool.submit(std::to_string(i), [&] { ++ran; }));
    const auto report = pool.stop();
    EXPECT_EQ(report.finished, 0U);
    EXPECT_EQ(report.discarded_by_stop, 10U);
    EXPECT_EQ(ran, 0);
}

TEST(G8_stop, runs_waiting_jobs_that_must_not_be_lost_with_their_context_stopped) {
    std::latch running(1);
    journal<int> ran;
    task_pool pool({.threads = 2});
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
        running.count_down();
        run_until_asked(context);
    }));
    running.wait();
    for (int i = 0; i < 20; ++i) {
        const auto what = i % 2 == 0 ? stop_action::run : stop_action::discard;
        ASSERT_TRUE(pool.submit("key",
                                [&ran, i](const job_context& context) {
                                    EXPECT_TRUE(context.stop_requested());
                                    EXPECT_TRUE(context.stop_token().stop_requested());
                                    ran.add(i);
                                },
                                {.on_stop = what}));
        ASSERT_TRUE(pool.submit("key" + std::to_string(i), [&ran] { ran.add(1'000); }, {.on_stop = stop_action::run}));
    }
    const auto report = pool.stop();
    auto entries = ran.entries();
    EXPECT_EQ(std::erase(entries, 1'000), 20U);
    EXPECT_EQ(entries, (std::vector{0, 2, 4, 6, 8, 10, 12, 14, 16, 18})); // in order (G1)
    EXPECT_EQ(report.discarded, 10U);
    EXPECT_EQ(report.finished, 31U);
}

TEST(G8_stop, runs_what_must_not_be_lost_in_a_pool_that_was_not_started) {
    std::atomic<int> ran = 0;
    {
        task_pool pool({.threads = 2, .autostart = false});
        auto lane = pool.lane("handle");
        for (int i = 0; i < 10; ++i) {
            ASSERT_TRUE(pool.submit(std::to_string(i), [&] { ++ran; }, {.on_stop = stop_action::run}));
            ASSERT_TRUE(lane.submit([&] { ++ran; }, {.on_stop = stop_action::run}));
        }
        auto result = pool.async("async", [&] { return ++ran, 7; }, {.on_stop = stop_action::run});
        const auto report = pool.stop();
        EXPECT_EQ(result.get(), 7);
        EXPECT_EQ(report.finished, 21U);
        EXPECT_EQ(report.discarded, 0U);
    }
    EXPECT_EQ(ran, 21);
}

TEST(G8_stop, close_refuses_new_jobs_and_lets_the_accepted_run) {
    gate until;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2});
    const opener at_end(until);
    occupy(pool, "key", until);
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
            EXPECT_FALSE(context.stop_requested());
            ++ran;
        }));
    pool.close();
    pool.close();
    EXPECT_EQ(pool.submit("key", [&] { ++ran; }), submit_status::stopped);
    EXPECT_EQ(pool.submit("other", [&] { ++ran; }), submit_status::stopped);
    until.open();
    pool.drain();
    EXPECT_EQ(ran, 10);
    EXPECT_EQ(pool.stop().finished, 11U);
}

TEST(G8_stop, close_refuses_submitters_that_wait_for_room) {
    std::atomic<bool> returned = false;
    task_pool pool({.lane_capacity = 1, .autostart = false});
    ASSERT_TRUE(pool.submit("key", [] {}));
    std::thread submitter([&] {
        EXPECT_EQ(pool.submit("key", [] {}), submit_status::stopped);
        returned = true;
    });
    EXPECT_TRUE(for_a_while([&] { return !returned; }));
    pool.close();
    submitter.join();
    EXPECT_EQ(pool.stats().waiting, 1U);
}

TEST(G8_stop, close_may_be_called_inside_a_job) {
    std::atomic<submit_status> answer = submit_status::accepted;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", [&] {
        pool.close();
        answer = pool.submit("key", [] {}).status();
    }));
    pool.drain();
    EXPECT_EQ(answer, submit_status::stopped);
}

TEST(G8_stop, drain_waits_for_all_that_was_accepted_and_what_comes_meanwhile) {
    // Each job submits the next, a thousand times over, under changing keys.
    std::atomic<int> ran = 0;
    basic_task_pool<int> pool({.threads = 2});
    std::function<void(int)> next = [&](int i) {
        ++ran;
        if (i > 0)
            pool.submit(i % 10, [&next, i] { next(i - 1); });
    };
    ASSERT_TRUE(pool.submit(0, [&] { next(999); }));
    pool.drain();
    EXPECT_EQ(ran, 1'000);
    EXPECT_EQ(pool.active_keys(), 0U);
    EXPECT_TRUE(pool.submit(0, [] {})); // open still
}

TEST(G8_stop, drain_of_an_idle_pool_returns_at_once) {
    task_pool pool({.threads = 1});
    pool.drain();
    pool.drain("never seen");
    EXPECT_TRUE(pool.drain_for(0ms));
    pool.stop();
    pool.drain();
    pool.drain("never seen");
    EXPECT_TRUE(pool.drain_for(1h));
}

TEST(G8_stop, drain_of_a_key_waits_for_no_other) {
    gate until;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2});
    const opener at_end(until);
    occupy(pool, "blocked", until);
    for (int i = 0; i < 50; ++i)
        ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
    pool.drain("key");
    EXPECT_EQ(ran, 50);
    EXPECT_EQ(pool.active_keys(), 1U);
}

TEST(G8_stop, drain_for_gives_up_in_time_and_says_which_keys_have_work) {
    gate until;
    task_pool pool({.threads = 2, .max_threads = 2});
    const opener at_end(until);
    occupy(pool, "running", until);
    occupy(pool, "running too", until);
    ASSERT_TRUE(pool.submit("waiting", [] {}));
    ASSERT_TRUE(pool.submit("running", [] {}));
    const auto begin = steady::now();
    const auto report = pool.drain_for(30ms);
    EXPECT_GE(steady::now() - begin, 30ms);
    EXPECT_FALSE(report.drained);
    EXPECT_FALSE(report);
    EXPECT_EQ(sorted(report.keys), (std::vector<std::string>{"running", "running too", "waiting"}));
    until.open();
    const auto done = pool.drain_for(1h);
    EXPECT_TRUE(done.drained);
    EXPECT_TRUE(done.keys.empty());
}

TEST(G8_stop, drain_for_names_a_held_key) {
    held kept;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("held", [&](const job_context& context) { kept = context.hold(); }));
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    const auto report = pool.drain_for(10ms);
    EXPECT_EQ(report.keys, std::vector<std::string>{"held"});
    kept.release();
    EXPECT_TRUE(pool.drain_for(1h));
}

TEST(G8_stop, ends_a_drain_that_waits) {
    std::atomic<bool> drained = false;
    task_pool pool({.autostart = false});
    ASSERT_TRUE(pool.submit("key", [] {}));
    std::thread drainer([&] {
        pool.drain();
        drained = true;
    });
    std::thread key_drainer([&] { pool.drain("key"); });
    EXPECT_TRUE(for_a_while([&] { return !drained; }));
    pool.stop();
    drainer.join();
    key_drainer.join();
}

TEST(G8_stop, the_destructor_is_a_stop) {
    std::latch running(1);
    std::atomic<int> ran = 0;
    std::atomic<bool> ended = false;
    {
        task_pool pool({.threads = 1});
        ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
            running.count_down();
            run_until_asked(context);
            ended = true;
        }));
        for (int i = 0; i < 10; ++i)
            ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
        running.wait();
    }
    EXPECT_TRUE(ended);
    EXPECT_EQ(ran, 0);
}

TEST(G8_stop, cancel_discards_what_waits_under_one_key_and_asks_its_running_job) {
    std::latch running(2);
    gate until;
    std::atomic<int> ran = 0, asked = 0;
    task_pool pool({.threads = 2});
    const opener at_end(until);
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
        const auto token = context.stop_token();
        running.count_down();
        run_until_asked(context);
        run_until_asked(token); // it is told next
        ++asked;
    }));
    ASSERT_TRUE(pool.submit("other", [&](const job_context& context) {
        running.count_down();
        until.wait();
        asked += context.stop_requested() ? 100 : 0;
    }));
    running.wait();
    for (int i = 0; i < 10; ++i) {
        ASSERT_TRUE(pool.submit("key", [&] { ran += 100; }));
        ASSERT_TRUE(pool.submit("other", [&] { ++ran; }));
    }
    EXPECT_EQ(pool.cancel("key"), 10U);
    // New jobs are welcome at once, and are not asked to stop.
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
        EXPECT_FALSE(context.stop_requested());
        EXPECT_FALSE(context.stop_token().stop_requested());
        ++ran;
    }));
    pool.drain("key");
    EXPECT_EQ(asked, 1);
    until.open();
    pool.drain();
    EXPECT_EQ(ran, 11);
    EXPECT_EQ(asked, 1);
    EXPECT_EQ(pool.stats().discarded, 10U);
}

TEST(G8_stop, cancel_reaches_a_job_that_listens_with_a_callback) {
    std::latch running(1);
    gate called;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", [&](std::stop_token token) {
        const std::stop_callback on_stop(token, [&] { called.open(); });
        running.count_down();
        called.wait();
    }));
    running.wait();
    EXPECT_EQ(pool.cancel("key"), 0U);
    pool.drain();
    EXPECT_TRUE(called.is_open());
}

TEST(G8_stop, a_job_may_cancel_its_own_key) {
    std::atomic<bool> asked = false;
    std::atomic<std::size_t> discarded = 0;
    gate submitted;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
        submitted.wait();
        discarded = pool.cancel("key");
        asked = context.stop_requested();
    }));
    ASSERT_TRUE(pool.submit("key", [] {}));
    submitted.open();
    pool.drain();
    EXPECT_EQ(discarded, 1U);
    EXPECT_TRUE(asked);
}

} // namespace
} // namespace taskpool::testing
