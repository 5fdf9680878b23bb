// SPDX-License-Identifier: Apache-2.0
// Jobs that block their thread: the pool replaces the thread, and takes no notice of jobs that compute.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

TEST(Blocking, timing_a_thousand_keys_sleep_side_by_side) {
    // One after the other on two threads they would take 50 s.
    std::atomic<int> ran = 0;
    basic_task_pool<int> pool({.threads = 2});
    const auto begin = steady::now();
    for (int key = 0; key < 1'000; ++key) {
        ASSERT_TRUE(pool.submit(key, [&] {
            std::this_thread::sleep_for(100ms);
            ++ran;
        }));
    }
    pool.drain();
    EXPECT_LT(steady::now() - begin, 5s * slowness);
    EXPECT_EQ(ran, 1'000);
}

/// How many are inside, and the most there ever were. All of it is relaxed: for anything else ThreadSanitizer takes a
/// lock, and who waits for that does not compute.
class occupancy {
  public:
    void enter() noexcept {
        const int now = inside_.fetch_add(1, std::memory_order_relaxed) + 1;
        for (int before = most();
             before < now && !most_.compare_exchange_weak(before, now, std::memory_order_relaxed);) {
        }
    }
    void leave() noexcept { inside_.fetch_sub(1, std::memory_order_relaxed); }
    int most() const noexcept { return most_.load(std::memory_order_relaxed); }

  private:
    std::atomic<int> inside_ = 0, most_ = 0;
};

TEST(Blocking, timing_jobs_that_compute_never_grow_the_pool) {
    std::atomic<bool> done = false;
    occupancy computing;
    task_pool pool({.threads = 2});
    for (int i = 0; i < 8; ++i) {
        ASSERT_TRUE(pool.submit(std::to_string(i), [&] {
            computing.enter();
            burn(75ms);
            computing.leave();
        }));
    }
    std::size_t threads = 0, blocked = 0;
    std::thread watcher([&] {
        while (!done) {
            const auto stats = pool.stats();
            threads = std::max(threads, stats.threads);
            blocked = std::max(blocked, stats.blocked_threads);
            std::this_thread::sleep_for(1ms);
        }
    });
    pool.drain();
    done = true;
    watcher.join();
    EXPECT_LE(threads, 2U);
    EXPECT_LE(computing.most(), 2);
    EXPECT_EQ(blocked, 0U);
}

TEST(Blocking, a_pool_started_with_work_has_no_more_threads_than_it_should) {
    // Found by this test: the housekeeper looked before the first workers stood, and added as many again.
    for (int round = 0; round < 50; ++round) {
        occupancy computing;
        basic_task_pool<int> pool({.threads = 2, .autostart = false});
        for (int key = 0; key < 10; ++key) {
            ASSERT_TRUE(pool.submit(key, [&] {
                computing.enter();
                burn(500us);
                computing.leave();
            }));
        }
        pool.start();
        pool.drain();
        ASSERT_LE(computing.most(), 2);
        ASSERT_LE(pool.stats().threads, 2U);
    }
}

TEST(Blocking, a_scope_is_replaced_though_its_thread_computes) {
    // Nothing but the scope can tell the pool: the thread never stands still.
    std::atomic<bool> other_ran = false;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", [&] {
        const auto end = steady::now() + 20s;
        const blocking_scope blocking;
        while (!other_ran && steady::now() < end) {
        }
        EXPECT_TRUE(other_ran);
    }));
    ASSERT_TRUE(pool.submit("other", [&] { other_ran = true; }));
    pool.drain();
    EXPECT_TRUE(other_ran);
}

TEST(Blocking, scopes_nest) {
    std::latch inside(1), left_inner(1);
    gate inner_ends, outer_ends;
    task_pool pool({.threads = 1});
    const opener at_end(inner_ends);
    const opener at_end_too(outer_ends);
    ASSERT_TRUE(pool.submit("key", [&] {
        const blocking_scope outer;
        {
            const blocking_scope inner;
            inside.count_down();
            inner_ends.wait();
        }
        left_inner.count_down();
        outer_ends.wait();
    }));
    inside.wait();
    EXPECT_EQ(pool.stats().blocked_threads, 1U);
    inner_ends.open();
    left_inner.wait();
    EXPECT_EQ(pool.stats().blocked_threads, 1U);
    outer_ends.open();
    pool.drain();
    EXPECT_EQ(pool.stats().blocked_threads, 0U);
}

TEST(Blocking, a_scope_outside_a_job_does_nothing) {
    const blocking_scope outside;
    task_pool pool({.threads = 1});
    const blocking_scope beside;
    EXPECT_EQ(pool.stats().blocked_threads, 0U);
    EXPECT_TRUE(pool.submit("key", [] {}));
    pool.drain();
    EXPECT_EQ(pool.stats().blocked_threads, 0U);
}

// I-PARK-2
TEST(Blocking, the_spare_threads_go_when_the_blocked_return) {
    gate until;
    std::atomic<int> started = 0;
    std::atomic<int> ran = 0;
    basic_task_pool<int> pool({.threads = 2});
    const opener at_end(until);
    for (int key = 0; key < 100; ++key) {
        ASSERT_TRUE(pool.submit(key, [&] {
            ++started;
            until.wait();
        }));
    }
    ASSERT_TRUE(eventually([&] { return started == 100; }));
    EXPECT_GE(pool.stats().threads, 100U);
    until.open();
    pool.drain();
    EXPECT_TRUE(eventually([&] { return pool.stats().threads <= 2; }, 30s)) << pool.stats().threads;
    EXPECT_TRUE(eventually([&] { return pool.stats().blocked_threads == 0; }));
    // And it works on as before.
    for (int key = 0; key < 100; ++key)
        ASSERT_TRUE(pool.submit(key, [&] { ++ran; }));
    pool.drain();
    EXPECT_EQ(ran, 100);
}

TEST(Blocking, timing_after_scopes_have_ended_no_more_jobs_run_at_a_time_than_threads) {
    std::atomic<int> running = 0, most = 0;
    std::latch all_inside(8);
    basic_task_pool<int> pool({.threads = 1});
    for (int key = 0; key < 8; ++key) {
        ASSERT_TRUE(pool.submit(key, [&] {
            const blocking_scope blocking;
            all_inside.arrive_and_wait();
        }));
    }
    pool.drain();
    ASSERT_TRUE(eventually([&] { return pool.stats().threads == 1; }, 30s));
    for (int key = 0; key < 200; ++key) {
        ASSERT_TRUE(pool.submit(key, [&] {
            const int now = ++running;
            for (int before = most; before < now && !most.compare_exchange_weak(before, now);) {
            }
            burn(100us);
            --running;
        }));
    }
    pool.drain();
    EXPECT_EQ(most, 1);
}

TEST(Blocking, a_submit_that_waits_inside_a_job_is_replaced_too) {
    // The only worker waits for room in another key's lane, which only another worker can make.
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 1, .lane_capacity = 1});
    ASSERT_TRUE(pool.submit("key", [&] {
        for (int i = 0; i < 100; ++i)
            EXPECT_TRUE(pool.submit("other", [&] { ++ran; }));
    }));
    pool.drain();
    EXPECT_EQ(ran, 100);
}

} // namespace
} // namespace taskpool::testing
