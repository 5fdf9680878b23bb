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
    task_pool left({.threads = 1}), right({.threads = 1});
    std::latch both_run(2);
    std::atomic<int> refused = 0;
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

} // namespace
} // namespace taskpool::testing
