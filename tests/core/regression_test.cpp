// SPDX-License-Identifier: Apache-2.0
// Defects that were found once, each with a test that bears its name.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

TEST(Regression, drop_oldest_drops_nothing_while_the_pool_has_room) {
    // A shard that had used up its share of the pool's capacity was taken for a full pool.
    task_pool pool({.threads = 1, .lane_capacity = 5'000, .when_full = overflow::drop_oldest, .autostart = false});
    for (int i = 0; i < 3'000; ++i)
        ASSERT_TRUE(pool.submit("key", [] {}));
    EXPECT_EQ(pool.stats().discarded, 0U);
    EXPECT_EQ(pool.stats().waiting, 3'000U);
}

TEST(Regression, a_full_pool_drops_the_key_s_own_oldest_job) {
    std::vector<int> ran;
    task_pool pool({.threads = 1, .pool_capacity = 3, .when_full = overflow::drop_oldest, .autostart = false});
    ASSERT_TRUE(pool.submit("other", [] {}));
    for (int i = 0; i < 5; ++i)
        ASSERT_TRUE(pool.submit("key", [&ran, i] { ran.push_back(i); }));
    EXPECT_EQ(pool.submit("third", [] {}), submit_status::full); // it has nothing to give up
    pool.start();
    pool.drain();
    EXPECT_EQ(ran, (std::vector<int>{3, 4}));
}

TEST(Regression, a_stop_inside_a_stop_is_an_error) {
    // By a handler, and by the destructor of a callable: stop() locked a mutex that it held.
    std::atomic<int> refused = 0;
    task_pool* self = nullptr;
    const auto try_stop = [&] {
        try {
            self->stop();
        } catch (const deadlock_error&) {
            ++refused;
        }
    };
    task_pool pool({.threads = 1, .autostart = false, .on_discard = [&](const discard&) { try_stop(); }});
    self = &pool;
    struct stops_at_its_end {
        std::function<void()> stop;
        stops_at_its_end(const std::function<void()>& s) : stop(s) {}
        stops_at_its_end(stops_at_its_end&& other) noexcept : stop(std::exchange(other.stop, nullptr)) {}
        ~stops_at_its_end() {
            if (stop)
                stop();
        }
        void operator()() const {}
    };
    ASSERT_TRUE(pool.submit("key", stops_at_its_end(try_stop)));
    EXPECT_EQ(pool.stop().discarded, 1U);
    EXPECT_EQ(refused, 2);
}

TEST(Regression, a_job_may_start_a_pool_that_is_being_stopped) {
    // start() waited for the lock of a stop() that waited for the job.
    gate stopping;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", [&](std::stop_token stop) {
        std::stop_callback told(stop, [&] { stopping.open(); });
        stopping.wait();
        pool.start();
    }));
    ASSERT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    EXPECT_EQ(pool.stop().finished, 1U);
}

TEST(Regression, two_pools_whose_jobs_drain_each_other_do_not_hang) {
    // Only waits for keys were in the graph of waits.
    std::latch both_run(2);
    std::atomic<int> refused = 0;
    task_pool left({.threads = 1}), right({.threads = 1});
    const auto drain = [&](task_pool& other) {
        both_run.arrive_and_wait();
        try {
            other.drain();
        } catch (const deadlock_error& error) {
            EXPECT_FALSE(error.keys().empty());
            ++refused;
        }
    };
    ASSERT_TRUE(left.submit("l", [&] { drain(right); }));
    ASSERT_TRUE(right.submit("r", [&] { drain(left); }));
    left.drain();
    right.drain();
    EXPECT_EQ(refused, 1);
}

TEST(Regression, huge_keys_do_not_stay_in_the_summary_of_hot_keys) {
    task_pool pool({.threads = 1});
    const std::string huge(1 << 20, 'x');
    for (int i = 0; i < 2'000; ++i)
        ASSERT_TRUE(pool.submit(huge, [] {}));
    for (int i = 0; i < 2'000; ++i)
        ASSERT_TRUE(pool.submit("small", [] {}));
    pool.drain();
    for (const auto& hot : pool.hottest_keys(10))
        EXPECT_EQ(hot.key, "small");
    EXPECT_FALSE(pool.hottest_keys(10).empty());
}

TEST(Regression, a_cancel_lets_in_who_waits_for_room_in_the_pool) {
    // The room came back to a shard's budget, of which those who waited were not told.
    std::latch holds(1);
    task_pool pool({.threads = 1, .pool_capacity = 10});
    held key_is_held;
    ASSERT_TRUE(pool.submit("a", [&](const job_context& context) {
        key_is_held = context.hold();
        holds.count_down();
    }));
    holds.wait();
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(pool.try_submit("a", [] {}));
    std::thread waits([&] { EXPECT_TRUE(pool.submit("b", [] {})); });
    EXPECT_EQ(pool.cancel("a"), 10U);
    waits.join();
    key_is_held.release();
}

TEST(Regression, a_push_from_outside_cannot_close_a_cycle_unseen) {
    // A job waited for room in the pool; the room that came was taken from outside, by a job behind that very job.
    std::atomic<bool> ends = false;
    task_pool pool({.threads = 2, .pool_capacity = 1});
    std::vector<std::thread> outside;
    for (int t = 0; t < 2; ++t)
        outside.emplace_back([&, t] {
            for (int i = 0; !ends; ++i)
                (void)pool.submit_for(i % 2 == t ? "left" : "right", 1ms, [&] {
                    (void)pool.submit("left", [] {});
                    (void)pool.submit("right", [] {});
                });
        });
    const auto finished = [&] { return pool.stats().finished; };
    for (int round = 0; round < 10; ++round) {
        const auto before = finished();
        EXPECT_TRUE(eventually([&] { return finished() > before + 20; }));
    }
    ends = true;
    for (auto& thread : outside)
        thread.join();
    pool.drain();
}

TEST(Regression, a_job_may_wait_for_room_in_another_pool) {
    // The search looked at the waiting job's own pool.
    std::atomic<bool> accepted = false;
    task_pool target({.threads = 1, .pool_capacity = 1, .autostart = false}), source({.threads = 1});
    ASSERT_TRUE(target.submit("first", [] {}));
    ASSERT_TRUE(source.submit("key", [&] { accepted = target.submit("second", [] {}).accepted(); }));
    ASSERT_TRUE(eventually([&] { return source.stats().running == 1; }));
    target.start();
    source.drain();
    EXPECT_TRUE(accepted);
}

TEST(Regression, the_only_thread_of_a_pool_may_wait_for_another_pool) {
    task_pool other({.threads = 1});
    task_pool pool({.threads = 1, .max_threads = 1});
    EXPECT_EQ(pool.async("key", [&] { return other.async("its", [] { return 7; }).get(); }).get(), 7);
}

TEST(Regression, a_deadline_in_the_remote_past_is_past) {
    // The distance to it overflowed and became a wait for ever.
    task_pool pool({.threads = 1, .lane_capacity = 1, .autostart = false});
    ASSERT_TRUE(pool.submit("key", [] {}));
    EXPECT_EQ(pool.submit_until("key", steady::time_point::min(), [] {}), submit_status::timed_out);
    EXPECT_EQ(pool.submit_for("key", std::chrono::hours::min(), [] {}), submit_status::timed_out);
}

TEST(Regression, a_drain_by_who_is_discarded_in_a_stop_is_an_error) {
    std::atomic<int> refused = 0;
    task_pool* self = nullptr;
    task_pool pool({.threads = 1, .autostart = false, .on_discard = [&](const discard&) {
                        try {
                            self->drain();
                        } catch (const deadlock_error&) {
                            ++refused;
                        }
                    }});
    self = &pool;
    ASSERT_TRUE(pool.submit("key", [] {}));
    ASSERT_TRUE(pool.submit("key", [] {}, {.on_stop = stop_action::run})); // so a worker discards the first
    ASSERT_TRUE(pool.submit("other", [] {}));                              // and stop() this one
    EXPECT_EQ(pool.stop().discarded, 2U);
    EXPECT_EQ(refused, 2);
}

TEST(Regression, stop_tells_held_jobs_also_while_handles_are_made) {
    // A new handle made the table move lanes past the place at which stop() was looking for jobs to tell.
    for (int round = 0; round < 20; ++round) {
        std::vector<held> holds(200);
        std::atomic<int> told = 0;
        std::vector<std::unique_ptr<std::stop_callback<std::function<void()>>>> callbacks(holds.size());
        std::atomic<bool> ends = false;
        basic_task_pool<int> pool({.threads = 2});
        for (int i = 0; i < static_cast<int>(holds.size()); ++i)
            ASSERT_TRUE(pool.submit(i, [&, i](const basic_job_context<int>& context) {
                const auto at = static_cast<std::size_t>(i);
                holds[at] = context.hold();
                callbacks[at] = std::make_unique<std::stop_callback<std::function<void()>>>(
                    context.stop_token(), std::function<void()>([&, at] {
                        ++told;
                        holds[at].release();
                    }));
            }));
        ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == holds.size(); }));
        std::thread makes_handles([&] {
            std::vector<basic_lane<int>> handles;
            for (int i = 1'000; !ends && i < 50'000; ++i)
                handles.push_back(pool.lane(i));
        });
        pool.stop();
        ends = true;
        makes_handles.join();
        EXPECT_EQ(told, static_cast<int>(holds.size()));
    }
}

} // namespace
} // namespace taskpool::testing
