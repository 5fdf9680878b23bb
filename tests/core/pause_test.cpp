// SPDX-License-Identifier: Apache-2.0
// Paused keys, and what becomes of them in each event: the row of pause() in docs/waiting.md, cell by cell.
#include <optional>

#include <taskpool/testing.hpp>

#include "testing.hpp"

namespace taskpool::testing {
namespace {

/// The next job of the paused "key" does not start, until it is resumed.
template <class T>
T wait_until_resumed(task_pool& pool, future<T> next) {
    EXPECT_TRUE(for_a_while([&] { return !next.is_ready(); }));
    EXPECT_TRUE(pool.resume("key"));
    return next.get();
}

/// Pauses and resumes "key" all the time, on a thread of its own, until it is destroyed.
class restless {
  public:
    explicit restless(task_pool& pool)
        : thread_([&pool](const std::stop_token& stop) {
              while (!stop.stop_requested()) {
                  pool.pause("key");
                  pool.resume("key");
              }
          }) {}

  private:
    std::jthread thread_;
};

TEST(Pause, no_job_of_the_key_starts_until_it_is_resumed) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2});
    EXPECT_TRUE(pool.pause("key"));
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
    pool.async("other", [] {}).get();
    EXPECT_TRUE(for_a_while([&] { return ran == 0; }));
    EXPECT_TRUE(pool.resume("key"));
    pool.drain();
    EXPECT_EQ(ran, 10);
}

TEST(Pause, says_whether_it_changed_anything) {
    task_pool pool;
    EXPECT_FALSE(pool.resume("key"));
    EXPECT_TRUE(pool.pause("key"));
    EXPECT_FALSE(pool.pause("key"));
    EXPECT_TRUE(pool.resume("key"));
    EXPECT_FALSE(pool.resume("key"));
}

TEST(Pause, the_running_job_goes_on_and_the_next_one_waits) {
    gate busy;
    task_pool pool({.threads = 1});
    const opener opens(busy);
    occupy(pool, "key", busy);
    bool ran = false;
    auto next = pool.async("key", [&] { ran = true; });
    EXPECT_TRUE(pool.pause("key"));
    busy.open();
    pool.async("other", [] {}).get(); // by the only thread, which has given the key up
    wait_until_resumed(pool, std::move(next));
    EXPECT_TRUE(ran);
}

TEST(Pause, a_key_may_be_resumed_before_anybody_has_noticed) {
    gate busy;
    task_pool pool({.threads = 1});
    const opener opens(busy);
    occupy(pool, "key", busy);
    auto next = pool.async("key", [] { return 1; });
    EXPECT_TRUE(pool.pause("key"));
    EXPECT_TRUE(pool.resume("key"));
    busy.open();
    EXPECT_EQ(next.get(), 1);
}

TEST(Pause, a_job_may_pause_its_own_key_and_another_one_resume_it) {
    task_pool pool({.threads = 1});
    std::vector<int> order;
    ASSERT_TRUE(pool.submit("key", [&] {
        order.push_back(1);
        pool.pause("key");
        pool.submit("other", [&] {
            order.push_back(2);
            pool.resume("key");
        });
    }));
    ASSERT_TRUE(pool.submit("key", [&] { order.push_back(3); }));
    pool.drain();
    EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(Pause, is_told_by_stats_and_paused_keys) {
    task_pool pool;
    EXPECT_TRUE(pool.paused_keys().empty());
    pool.pause("a");
    pool.pause("b");
    EXPECT_EQ(sorted(pool.paused_keys()), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(pool.stats().paused_keys, 2U);
    EXPECT_EQ(pool.active_keys(), 0U); // they have no work
    pool.submit("a", [] {});
    EXPECT_EQ(pool.active_keys(), 1U);
    EXPECT_EQ(pool.stats().waiting, 1U);
    EXPECT_EQ(pool.stats().suspended_lanes, 0U); // that is of those that are held
    pool.resume("a");
    pool.drain();
    EXPECT_EQ(pool.paused_keys(), std::vector<std::string>{"b"});
    EXPECT_EQ(pool.stats().paused_keys, 1U);
}

TEST(Pause, is_kept_by_a_key_without_work_and_forgotten_with_it) {
    basic_task_pool<int> pool({.threads = 1});
    for (int key = 0; key < 1000; ++key)
        ASSERT_TRUE(pool.pause(key));
    for (int key = 1000; key < 20'000; ++key)
        ASSERT_TRUE(pool.submit(key, [] {})); // their lanes are swept meanwhile
    let_ticks_pass(1500ms);
    bool ran = false;
    auto result = pool.async(500, [&] { ran = true; });
    EXPECT_TRUE(for_a_while([&] { return !result.is_ready(); }));
    for (int key = 0; key < 1000; ++key)
        ASSERT_TRUE(pool.resume(key));
    result.get();
    EXPECT_EQ(pool.stats().paused_keys, 0U);
}

TEST(Pause, keeps_the_order_and_the_age_of_the_jobs) {
    testing::manual_pool pool;
    std::vector<int> order;
    pool.pause("key");
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit("key", [&, i] { order.push_back(i); }));
    ASSERT_TRUE(pool.submit("other", [&] { order.push_back(10); }));
    pool.resume("key"); // its first job is older than the other key's
    pool.run_until_idle();
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 10}));
}

// --- Event by event --------------------------------------------------------------------------------------------------

TEST(Matrix_pause, stop) {
    std::vector<std::string> discarded;
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 1, .on_discard = [&](const discard& d) { discarded.emplace_back(d.key); }});
    pool.pause("key");
    pool.pause("empty");
    ASSERT_TRUE(pool.submit("key", [] { FAIL() << "it was discarded"; }));
    pool.pause("must run");
    ASSERT_TRUE(pool.submit("must run", [&] { ran = true; }, {.on_stop = stop_action::run}));
    const auto report = pool.stop();
    EXPECT_EQ(report.discarded_by_stop, 1U);
    EXPECT_EQ(discarded, std::vector<std::string>{"key"});
    EXPECT_TRUE(ran);
    EXPECT_FALSE(pool.pause("key"));
    EXPECT_EQ(pool.stats().paused_keys, 0U);
}

TEST(Matrix_pause, drain) {
    task_pool pool({.threads = 1});
    pool.pause("key");
    pool.drain(); // there is no work
    pool.drain("key");
    ASSERT_TRUE(pool.submit("key", [] {}));
    const auto report = pool.drain_for(20ms);
    EXPECT_FALSE(report);
    EXPECT_EQ(report.keys, std::vector<std::string>{"key"});
    std::thread resumes([&] { pool.resume("key"); });
    pool.drain();
    resumes.join();
}

TEST(Matrix_pause, cancel_key) {
    task_pool pool({.threads = 1});
    pool.pause("key");
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit("key", [] { FAIL() << "it was discarded"; }));
    EXPECT_EQ(pool.cancel("key"), 3U);
    pool.drain(); // nothing is left
    EXPECT_EQ(pool.stats().paused_keys, 1U);
    auto later = pool.async("key", [] {});
    wait_until_resumed(pool, std::move(later)); // a cancel resumes nothing
}

TEST(Matrix_pause, job_throws) {
    task_pool pool({.threads = 1, .on_failure = [](const failure&) {}});
    ASSERT_TRUE(pool.submit("key", [&] {
        pool.pause("key");
        throw std::runtime_error("no");
    }));
    auto next = pool.async("key", [] {});
    EXPECT_TRUE(eventually([&] { return pool.stats().failed == 1; }));
    wait_until_resumed(pool, std::move(next));
}

TEST(Matrix_pause, lane_full) {
    std::latch begins(1);
    task_pool pool({.threads = 1, .lane_capacity = 2});
    pool.pause("key");
    ASSERT_TRUE(pool.submit("key", [] {}));
    ASSERT_TRUE(pool.submit("key", [] {}));
    EXPECT_EQ(pool.try_submit("key", [] {}), submit_status::full);
    EXPECT_EQ(pool.submit_for("key", 10ms, [] {}), submit_status::timed_out);
    std::thread blocked([&] {
        begins.count_down();
        EXPECT_TRUE(pool.submit("key", [] {})); // waits for room, which the resumed key makes
    });
    begins.wait();
    pool.resume("key");
    blocked.join();
    pool.drain();
}

TEST(Matrix_pause, pool_full) {
    task_pool pool({.threads = 1, .pool_capacity = 2});
    pool.pause("key");
    ASSERT_TRUE(pool.submit("key", [] {}));
    ASSERT_TRUE(pool.submit("key", [] {}));
    EXPECT_EQ(pool.try_submit("other", [] {}), submit_status::full);
    pool.resume("key");
    EXPECT_TRUE(pool.submit("other", [] {}));
    pool.drain();
}

TEST(Matrix_pause, overflow_rules) {
    for (const auto rule : {overflow::drop_oldest, overflow::keep_latest}) {
        std::vector<int> ran;
        task_pool pool({.threads = 1, .lane_capacity = 1, .when_full = rule});
        pool.pause("key");
        for (int i = 0; i < 3; ++i)
            ASSERT_TRUE(pool.submit("key", [&, i] { ran.push_back(i); }));
        pool.resume("key");
        pool.drain();
        EXPECT_EQ(ran, std::vector<int>{2});
    }
}

TEST(Matrix_pause, pool_destroyed) {
    auto alive = std::make_shared<int>(0);
    {
        task_pool pool({.threads = 1});
        pool.pause("key");
        pool.pause("empty");
        ASSERT_TRUE(pool.submit("key", [alive] {}));
    }
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Matrix_pause, key_submitted_to_meanwhile_from_many_threads) {
    constexpr int jobs = 2000;
    std::array<int, 4> last{};
    task_pool pool({.threads = 2});
    std::optional<restless> pauses(pool);
    std::vector<std::thread> producers;
    int ran = 0;
    for (int p = 0; p < 4; ++p)
        producers.emplace_back([&, p] {
            for (int i = 1; i <= jobs; ++i)
                ASSERT_TRUE(pool.submit("key", [&, p, i] {
                    EXPECT_EQ(std::exchange(last[static_cast<std::size_t>(p)], i), i - 1);
                    ++ran;
                }));
        });
    for (auto& producer : producers)
        producer.join();
    pauses.reset();
    pool.drain();
    EXPECT_EQ(ran, 4 * jobs);
}

TEST(Matrix_pause, cancel_and_stop_meanwhile) {
    for (int round = 0; round < 20; ++round) {
        std::atomic<bool> ends = false;
        task_pool pool({.threads = 2});
        const restless pauses(pool);
        std::thread cancels([&] {
            while (!ends)
                pool.cancel("key");
        });
        for (int i = 0; i < 500; ++i)
            pool.submit("key", [] {});
        const auto report = pool.stop();
        ends = true;
        cancels.join();
        EXPECT_EQ(report.finished + report.discarded, 500U);
    }
}

TEST(Matrix_pause, suspended_coroutine_that_holds_the_key) {
    const auto clock = std::make_shared<manual_clock>();
    task_pool pool({.threads = 1, .clock = clock});
    auto result = pool.spawn("key", []() -> task<int> {
        co_await sleep_for(10ms);
        co_return 1;
    });
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    pool.pause("key");
    auto next = pool.async("key", [] {});
    clock->advance(10ms);
    EXPECT_EQ(result.get(), 1); // it has begun, so it goes on
    wait_until_resumed(pool, std::move(next));
}

TEST(Matrix_pause, suspended_coroutine_that_lends_the_key) {
    const auto clock = std::make_shared<manual_clock>();
    std::atomic<bool> began = false;
    task_pool pool({.threads = 1, .clock = clock});
    auto result = pool.spawn("key",
                             [&]() -> task<int> {
                                 began = true;
                                 co_await sleep_for(10ms);
                                 co_return 1;
                             },
                             {.while_suspended = suspension::interleave});
    EXPECT_TRUE(eventually([&] { return began && pool.stats().waiting == 1; }));
    pool.pause("key");
    clock->advance(10ms);
    EXPECT_TRUE(for_a_while([&] { return !result.is_ready(); }, 40ms)); // it queues for the key like other jobs
    pool.resume("key");
    EXPECT_EQ(result.get(), 1);
    pool.drain();
}

TEST(Matrix_pause, stop_lets_a_coroutine_that_lends_the_key_end) {
    std::atomic<bool> begun = false;
    task_pool pool({.threads = 1});
    auto result = pool.spawn("key",
                             [&begun]() -> task<bool> {
                                 begun = true;
                                 co_return co_await sleep_for(1h);
                             },
                             {.while_suspended = suspension::interleave});
    EXPECT_TRUE(eventually([&] { return begun && pool.stats().waiting == 1; }));
    pool.pause("key");
    pool.stop();
    EXPECT_FALSE(result.get());
}

TEST(Matrix_pause, held_job) {
    task_pool pool({.threads = 1});
    held kept;
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) { kept = context.hold(); }));
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    auto next = pool.async("key", [] {});
    pool.pause("key");
    kept.release();
    wait_until_resumed(pool, std::move(next));
}

TEST(Matrix_pause, timed_job) {
    testing::manual_pool pool;
    bool ran = false;
    pool.pause("key");
    auto timer = pool.submit_after(10ms, "key", [&] { ran = true; });
    pool.run_for(20ms);
    EXPECT_FALSE(ran);
    EXPECT_FALSE(timer.cancel()); // it waits in the lane by now
    pool.resume("key");
    pool.run_until_idle();
    EXPECT_TRUE(ran);
}

TEST(Matrix_pause, a_wait_for_a_paused_key_in_a_pool_without_threads_is_told) {
    testing::manual_pool pool;
    pool.pause("key");
    auto result = pool.async("key", [] {});
    EXPECT_THROW(result.wait(), deadlock_error); // nobody is there to resume it
    pool.resume("key");
    result.get();
}

} // namespace
} // namespace taskpool::testing
