// SPDX-License-Identifier: Apache-2.0
// Jobs between all others: submit_barrier. The matrix tests are the cells of the table in docs/waiting.md.
#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <taskpool/deadline.hpp>
#include <taskpool/retry.hpp>
#include <taskpool/task.hpp>
#include <taskpool/task_pool.hpp>
#include <taskpool/testing.hpp>

#include "testing.hpp"

namespace taskpool::testing {
namespace {

using namespace std::chrono_literals;

/// How a coroutine is spawned that lends its key.
const spawn_options lends{.while_suspended = suspension::interleave};

/// A part of a callable that counts how many there are.
struct counted {
    std::shared_ptr<std::atomic<int>> count;
    explicit counted(std::atomic<int>& of) : count(&of, [](auto* alive) { --*alive; }) { ++of; }
};

std::string key_of(int i) { return "key-" + std::to_string(i); }

// --- Before and after ------------------------------------------------------------------------------------------------

TEST(Barrier, runs_after_all_before_it_and_before_all_after_it) {
    constexpr int keys = 50;
    std::atomic<int> before = 0;
    std::atomic<int> after = 0;
    std::atomic<int> seen_before = -1;
    std::atomic<int> seen_after = -1;
    task_pool pool({.threads = 3, .autostart = false});
    for (int i = 0; i < keys * 10; ++i)
        ASSERT_TRUE(pool.submit(key_of(i % keys), [&] { ++before; }));
    ASSERT_TRUE(pool.submit_barrier([&] {
        seen_before = before.load();
        seen_after = after.load();
    }));
    for (int i = 0; i < keys * 10; ++i)
        ASSERT_TRUE(pool.submit(key_of(i % (2 * keys)), [&] { ++after; }));
    EXPECT_EQ(pool.stats().barriers, 1U);
    pool.start();
    pool.drain();
    EXPECT_EQ(seen_before, keys * 10);
    EXPECT_EQ(seen_after, 0);
    EXPECT_EQ(after, keys * 10);
    EXPECT_EQ(pool.stats().barriers, 0U);
    EXPECT_EQ(pool.stats().finished, keys * 20U + 1);
}

// I-BARRIER-4
TEST(Barrier, of_an_idle_pool_runs_at_once_and_the_pool_goes_on) {
    task_pool pool({.threads = 2});
    for (int round = 0; round < 20; ++round) {
        bool ran = false;
        ASSERT_TRUE(pool.submit_barrier([&] { ran = true; }));
        pool.drain();
        EXPECT_TRUE(ran);
        EXPECT_EQ(pool.async("key", [] { return 1; }).get(), 1);
    }
}

// I-BARRIER-1, I-BARRIER-2
TEST(Barrier, several_run_in_their_order_between_the_jobs_of_their_eras) {
    std::vector<int> order; // by jobs that the barriers order
    task_pool pool({.threads = 3, .autostart = false});
    for (int era = 0; era < 30; ++era) {
        ASSERT_TRUE(pool.submit("key", [&, era] { order.push_back(2 * era); }));
        ASSERT_TRUE(pool.submit("other-" + std::to_string(era), [] {}));
        ASSERT_TRUE(pool.submit_barrier([&, era] { order.push_back(2 * era + 1); }));
    }
    EXPECT_EQ(pool.stats().barriers, 30U);
    pool.start();
    pool.drain();
    EXPECT_EQ(order, count_up(60));
}

TEST(Barrier, neighbours_run_one_after_the_other) {
    std::vector<int> order;
    task_pool pool({.threads = 2, .autostart = false});
    for (int i = 0; i < 20; ++i)
        ASSERT_TRUE(pool.submit_barrier([&, i] { order.push_back(i); }));
    pool.start();
    pool.drain();
    EXPECT_EQ(order, count_up(20));
}

// I-BARRIER-3
TEST(Barrier, what_it_writes_needs_no_lock) {
    // The sanitizers check that what ran before it happens-before it, and it what runs after it.
    std::vector<int> state(8);
    int whole = 0;
    task_pool pool({.threads = 3});
    for (int round = 0; round < 100; ++round) {
        for (int i = 0; i < 8; ++i)
            ASSERT_TRUE(
                pool.submit(key_of(i), [&state, &whole, i] { state[static_cast<std::size_t>(i)] = whole + 1; }));
        ASSERT_TRUE(pool.submit_barrier([&] {
            for (const int s : state)
                EXPECT_EQ(s, whole + 1);
            ++whole;
        }));
    }
    pool.drain();
    EXPECT_EQ(whole, 100);
}

// I-BARRIER-2
TEST(Barrier, nothing_runs_beside_it) {
    std::atomic<int> running = 0;
    std::atomic<int> barriers = 0;
    task_pool pool({.threads = 3});
    const auto job = [&] {
        ++running;
        burn(10us);
        --running;
    };
    for (int i = 0; i < 3000; ++i) {
        if (i % 3 == 0)
            pool.submit_shared(key_of(i % 7), job);
        else
            pool.submit(key_of(i % 7), job);
        if (i % 50 == 49) {
            pool.submit_barrier([&] {
                EXPECT_EQ(running, 0);
                burn(20us);
                EXPECT_EQ(running, 0);
                ++barriers;
            });
        }
    }
    pool.drain();
    EXPECT_EQ(barriers, 60);
}

TEST(Barrier, takes_nothing_or_a_stop_token) {
    static_assert(barrier_job<void (*)(), std::string>);
    static_assert(barrier_job<void (*)(std::stop_token), std::string>);
    static_assert(!barrier_job<void (*)(const job_context&), std::string>);
    static_assert(!barrier_job<task<> (*)(), std::string>);
    task_pool pool({.threads = 1});
    EXPECT_TRUE(pool.async_barrier([](std::stop_token stop) { return stop.stop_possible(); }).get());
    EXPECT_TRUE(pool.try_submit_barrier([p = std::make_unique<int>(1)] {}));
}

TEST(Barrier, works_with_keys_of_any_type) {
    std::atomic<int> parts = 0;
    basic_task_pool<int> pool({.threads = 2});
    int sum = 0;
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(pool.submit(i, [&] { ++parts; }));
    ASSERT_TRUE(pool.submit_barrier([&] { sum = parts; }));
    pool.drain();
    EXPECT_EQ(sum, 100);
}

TEST(Barrier, has_a_future) {
    task_pool pool({.threads = 2});
    EXPECT_EQ(pool.async_barrier([] { return 7; }).get(), 7);
    EXPECT_THROW(pool.async_barrier([]() -> int { throw std::runtime_error("no"); }).get(), std::runtime_error);
    EXPECT_EQ(pool.async_barrier([] { return 1; }).then("key", [](int n) { return n + 1; }).get(), 2);
}

TEST(Barrier, is_no_key) {
    gate leave;
    task_pool pool({.threads = 2});
    const opener opens(leave);
    ASSERT_TRUE(pool.submit_barrier([&] { leave.wait(); }));
    ASSERT_TRUE(pool.submit("key", [] {}));
    EXPECT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    EXPECT_EQ(pool.active_keys(), 1U);
    EXPECT_EQ(pool.stats().active_keys, 1U);
    EXPECT_EQ(pool.stats().barriers, 1U);
    const auto left = pool.drain_for(10ms);
    EXPECT_FALSE(left);
    EXPECT_EQ(left.keys, std::vector<std::string>{"key"});
    leave.open();
    pool.drain();
}

// --- What it waits for -----------------------------------------------------------------------------------------------

TEST(Matrix_barrier, held_job) {
    held hold;
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 2});
    pool.submit("key", [&](const job_context& job) { hold = job.hold(); });
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    pool.submit_barrier([&] { ran = true; });
    pool.submit("other", [&] { EXPECT_TRUE(ran); });
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    hold = {};
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Barrier, waits_for_a_coroutine_that_keeps_its_key) {
    std::atomic<bool> done = false;
    bool seen = false;
    task_pool pool({.threads = 2});
    pool.submit("key", [&]() -> task<> {
        co_await sleep_for(20ms);
        done = true;
    });
    pool.submit_barrier([&] { seen = done; });
    pool.drain();
    EXPECT_TRUE(seen);
}

TEST(Barrier, does_not_wait_for_a_coroutine_that_lends_its_key) {
    const auto clock = std::make_shared<manual_clock>();
    gate leave;
    std::atomic<bool> began = false;
    std::vector<std::string> order;
    task_pool pool({.threads = 1, .clock = clock});
    const opener opens(leave);
    pool.submit(
        "key",
        [&]() -> task<> {
            began = true;
            co_await sleep_for(1ms);
            order.emplace_back("coroutine");
        },
        lends);
    EXPECT_TRUE(eventually([&] { return began && pool.stats().waiting == 1; }));
    pool.submit_barrier([&] { // while that sleeps
        leave.wait();
        order.emplace_back("barrier");
    });
    EXPECT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    clock->advance(1ms); // it could go on now
    EXPECT_TRUE(for_a_while([&] { return pool.stats().running == 1; }, 20ms));
    leave.open();
    pool.drain();
    EXPECT_EQ(order, (std::vector<std::string>{"barrier", "coroutine"}));
}

TEST(Barrier, waits_for_attempts) {
    int attempts = 0;
    int seen = 0;
    task_pool pool({.threads = 2});
    pool.submit("key", with_retry({.max_attempts = 3, .backoff = {.first = 5ms}}, [&] {
                    if (++attempts < 3)
                        throw std::runtime_error("again");
                }));
    pool.submit_barrier([&] { seen = attempts; });
    pool.drain();
    EXPECT_EQ(seen, 3);
}

TEST(Barrier, waits_for_a_rate) {
    const auto clock = std::make_shared<manual_clock>();
    std::atomic<int> ran = 0;
    int seen = 0;
    task_pool pool({.threads = 2, .clock = clock});
    pool.limit("key", {1, 1s});
    for (int i = 0; i < 3; ++i)
        pool.submit("key", [&] { ++ran; });
    pool.submit_barrier([&] { seen = ran; });
    for (int i = 1; i < 3; ++i) {
        EXPECT_TRUE(eventually([&] { return ran == i && pool.stats().limited_keys == 1; }));
        EXPECT_EQ(pool.stats().barriers, 1U);
        clock->advance(1s);
    }
    pool.drain();
    EXPECT_EQ(seen, 3);
}

TEST(Barrier, waits_for_jobs_of_several_keys_and_holds_those_after_it) {
    std::vector<int> order;
    task_pool pool({.threads = 3, .autostart = false});
    for (int era = 0; era < 20; ++era) {
        pool.submit_together({"a", "b", "c"}, [&, era] { order.push_back(2 * era); });
        pool.submit_barrier([&, era] { order.push_back(2 * era + 1); });
    }
    pool.start();
    pool.drain();
    EXPECT_EQ(order, count_up(40));
}

TEST(Barrier, waits_for_shared_jobs) {
    gate leave;
    std::atomic<int> running = 0;
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 4});
    const opener opens(leave);
    for (int i = 0; i < 3; ++i)
        pool.submit_shared("key", [&] {
            ++running;
            leave.wait();
            --running;
        });
    EXPECT_TRUE(eventually([&] { return running == 3; }));
    pool.submit_barrier([&] {
        EXPECT_EQ(running, 0);
        ran = true;
    });
    pool.submit_shared("key", [&] { EXPECT_TRUE(ran); });
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    leave.open();
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Barrier, does_not_wait_for_a_job_whose_time_has_not_come) {
    const auto clock = std::make_shared<manual_clock>();
    std::vector<std::string> order;
    task_pool pool({.threads = 1, .clock = clock});
    pool.submit_after(1s, "key", [&] { order.emplace_back("timed"); });
    pool.async_barrier([&] { order.emplace_back("barrier"); }).get();
    clock->advance(1s);
    pool.drain();
    EXPECT_EQ(order, (std::vector<std::string>{"barrier", "timed"}));
}

TEST(Barrier, what_jobs_before_it_submit_comes_after_it) {
    gate leave;
    journal<std::string> order;
    task_pool pool({.threads = 1});
    const opener opens(leave);
    pool.submit("key", [&] {
        leave.wait();
        pool.submit("key", [&] { order.add("later"); });
        pool.submit("other", [&] { order.add("later"); });
        order.add("first");
    });
    pool.submit_barrier([&] { order.add("barrier"); });
    leave.open();
    pool.drain();
    EXPECT_EQ(order.entries(), (std::vector<std::string>{"first", "barrier", "later", "later"}));
}

TEST(Barrier, may_submit) {
    std::vector<int> order;
    task_pool pool({.threads = 2});
    pool.submit_barrier([&] {
        order.push_back(0);
        pool.submit("key", [&] { order.push_back(1); });
        pool.submit_barrier([&] { order.push_back(2); });
    });
    pool.drain();
    EXPECT_EQ(order, count_up(3));
}

// --- The matrix ------------------------------------------------------------------------------------------------------

TEST(Matrix_barrier, stop) {
    gate leave;
    journal<std::string> discarded;
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 2, .on_discard = [&](const discard& d) {
                        EXPECT_EQ(d.reason, discard_reason::stopped);
                        discarded.add(std::string(d.key));
                    }});
    const opener opens(leave);
    occupy(pool, "key", leave);
    pool.submit_barrier([&] { ran = true; });
    pool.submit("other", [&] { ran = true; });
    std::thread stops([&] { pool.stop(); });
    EXPECT_TRUE(eventually([&] { return discarded.size() == 2; }));
    leave.open();
    stops.join();
    EXPECT_FALSE(ran);
    EXPECT_EQ(pool.stats().discarded, 2U);
    EXPECT_EQ(pool.stats().barriers, 0U);
    auto keys = discarded.entries();
    std::sort(keys.begin(), keys.end());
    EXPECT_EQ(keys, (std::vector<std::string>{"(barrier)", "other"}));
    EXPECT_EQ(pool.submit_barrier([] {}), submit_status::stopped);
}

TEST(Matrix_barrier, stop_where_jobs_must_run) {
    // All that must run keeps its order; what need not is discarded, and waited for by nothing.
    std::vector<int> order;
    task_pool pool({.threads = 2, .autostart = false});
    const job_options must{.on_stop = stop_action::run};
    pool.submit(
        "a", [&] { order.push_back(0); }, must);
    pool.submit("b", [&] { order.push_back(-1); });
    pool.submit_barrier([&] { order.push_back(-1); });
    pool.submit_barrier([&] { order.push_back(1); }, must);
    pool.submit("b", [&] { order.push_back(-1); });
    pool.submit(
        "b", [&] { order.push_back(2); }, must);
    const auto report = pool.stop();
    EXPECT_EQ(order, count_up(3));
    EXPECT_EQ(report.finished, 3U);
    EXPECT_EQ(report.discarded_by_stop, 3U);
}

TEST(Matrix_barrier, stop_asks_the_one_that_runs) {
    std::atomic<bool> told = false;
    task_pool pool({.threads = 2});
    pool.submit_barrier([&](std::stop_token stop) {
        gate asked;
        const std::stop_callback tells(stop, [&] { asked.open(); });
        asked.wait();
        told = true;
    });
    EXPECT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    pool.stop();
    EXPECT_TRUE(told);
}

TEST(Matrix_barrier, drain) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2});
    pool.submit("key", [&] { ++ran; });
    pool.submit_barrier([&] { ++ran; });
    pool.submit("key", [&] { ++ran; });
    pool.drain("key"); // waits for what the key waits for
    EXPECT_EQ(ran, 3);
    pool.submit_barrier([&] { ++ran; });
    EXPECT_TRUE(pool.drain_for(10s * slowness));
    EXPECT_EQ(ran, 4);
    pool.submit_barrier([&] { ++ran; });
    pool.close();
    EXPECT_EQ(pool.submit_barrier([] {}), submit_status::stopped);
    pool.drain();
    EXPECT_EQ(ran, 5);
}

TEST(Matrix_barrier, cancel_key) {
    // of a key: its jobs before the barrier are waited for no longer, nor do those after it wait for that.
    gate leave;
    gate entered;
    std::atomic<int> ran = 0;
    std::atomic<bool> barrier = false;
    task_pool pool({.threads = 2});
    const opener opens(leave);
    occupy(pool, "busy", leave);
    pool.pause("key");
    pool.submit("key", [&] { ++ran; });
    pool.submit_barrier([&] { barrier = true; });
    pool.submit("key", [&] { ++ran; });
    pool.submit("held", [&] { ++ran; });
    EXPECT_EQ(pool.cancel("held"), 1U);
    leave.open();
    EXPECT_TRUE(for_a_while([&] { return !barrier; }));
    EXPECT_EQ(pool.cancel("key"), 2U);
    EXPECT_TRUE(eventually([&] { return barrier.load(); }));
    pool.drain();
    EXPECT_EQ(ran, 0);
}

TEST(Matrix_barrier, job_throws) {
    journal<std::string> failed;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .on_failure = [&](const failure& f) { failed.add(std::string(f.key)); }});
    pool.submit("key", [] { throw std::runtime_error("before"); });
    pool.submit_barrier([] { throw std::runtime_error("the barrier"); });
    pool.submit("key", [&] { ++ran; });
    pool.submit_barrier([&] { ++ran; });
    pool.drain();
    EXPECT_EQ(failed.entries(), (std::vector<std::string>{"key", "(barrier)"}));
    EXPECT_EQ(ran, 2);
}

TEST(Matrix_barrier, job_throws_and_is_tried_again) {
    std::vector<int> order;
    int attempts = 0;
    task_pool pool({.threads = 2, .retry = retry{.max_attempts = 3, .backoff = {.first = 1ms}}});
    pool.submit_barrier([&] {
        order.push_back(attempts);
        if (++attempts < 3)
            throw std::runtime_error("again");
    });
    pool.submit("key", [&] { order.push_back(3); });
    pool.drain();
    EXPECT_EQ(order, count_up(4));
}

TEST(Matrix_barrier, lane_full) {
    // of the barriers' queue
    gate leave;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .lane_capacity = 2});
    const opener opens(leave);
    occupy(pool, "key", leave);
    EXPECT_TRUE(pool.submit_barrier([&] { ++ran; }));
    EXPECT_TRUE(pool.submit_barrier([&] { ++ran; }));
    EXPECT_EQ(pool.try_submit_barrier([&] { ++ran; }), submit_status::full);
    std::thread waits([&] { EXPECT_TRUE(pool.submit_barrier([&] { ++ran; })); });
    EXPECT_TRUE(for_a_while([&] { return pool.stats().barriers == 2; }));
    leave.open();
    waits.join();
    pool.drain();
    EXPECT_EQ(ran, 3);
}

TEST(Matrix_barrier, lane_full_of_what_waits_for_it) {
    gate leave;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .lane_capacity = 2});
    const opener opens(leave);
    occupy(pool, "busy", leave);
    pool.submit_barrier([&] { EXPECT_EQ(ran++, 0); });
    pool.submit("key", [&] { ++ran; });
    pool.submit("key", [&] { ++ran; });
    EXPECT_EQ(pool.try_submit("key", [] {}), submit_status::full);
    std::thread waits([&] { EXPECT_TRUE(pool.submit("key", [&] { ++ran; })); });
    leave.open();
    waits.join();
    pool.drain();
    EXPECT_EQ(ran, 4);
}

TEST(Matrix_barrier, overflow_rules) {
    for (const auto rule : {overflow::drop_oldest, overflow::keep_latest}) {
        gate leave;
        journal<int> ran;
        std::atomic<int> dropped = 0;
        task_pool pool({.threads = 2, .lane_capacity = 1, .when_full = rule, .on_discard = [&](const discard& d) {
                            EXPECT_EQ(d.key, "(barrier)");
                            ++dropped;
                        }});
        const opener opens(leave);
        occupy(pool, "key", leave);
        for (int i = 0; i < 3; ++i)
            EXPECT_TRUE(pool.submit_barrier([&, i] { ran.add(i); }));
        EXPECT_EQ(dropped, 2);
        EXPECT_TRUE(pool.submit("after", [&] { ran.add(3); }));
        leave.open();
        pool.drain();
        EXPECT_EQ(ran.entries(), (std::vector<int>{2, 3}));
    }
}

TEST(Matrix_barrier, overflow_rules_may_drop_the_last_that_it_waits_for) {
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 2, .lane_capacity = 1, .when_full = overflow::drop_oldest});
    pool.pause("key");
    pool.submit("key", [] {});
    pool.submit_barrier([&] { ran = true; });
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    pool.submit("key", [] {});
    EXPECT_TRUE(eventually([&] { return ran.load(); }));
    pool.resume("key");
    pool.drain();
}

TEST(Matrix_barrier, pool_full) {
    gate leave;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .pool_capacity = 2});
    const opener opens(leave);
    occupy(pool, "key", leave);
    pool.submit("a", [&] { ++ran; });
    pool.submit("key", [&] { ++ran; });
    pool.drain("a");
    EXPECT_TRUE(pool.submit_barrier([&] { ++ran; }));
    EXPECT_EQ(pool.try_submit_barrier([] {}), submit_status::full);
    EXPECT_EQ(pool.try_submit("b", [] {}), submit_status::full);
    std::thread waits([&] { EXPECT_TRUE(pool.submit_barrier([&] { ++ran; })); });
    leave.open();
    waits.join();
    pool.drain();
    EXPECT_EQ(ran, 4);
}

TEST(Matrix_barrier, key_paused) {
    std::atomic<bool> ran = false;
    std::atomic<int> after = 0;
    task_pool pool({.threads = 2});
    pool.pause("key");
    pool.pause("idle"); // not waited for
    pool.submit("key", [] {});
    pool.submit_barrier([&] { ran = true; });
    pool.submit("idle", [&] { ++after; });
    pool.submit("other", [&] { ++after; });
    EXPECT_TRUE(for_a_while([&] { return !ran && after == 0; }));
    pool.resume("key");
    EXPECT_TRUE(eventually([&] { return after == 1; }));
    EXPECT_TRUE(ran);
    pool.resume("idle");
    pool.drain();
    EXPECT_EQ(after, 2);
}

TEST(Matrix_barrier, key_submitted_to_meanwhile) {
    gate leave;
    journal<int> order;
    task_pool pool({.threads = 2});
    const opener opens(leave);
    pool.submit_barrier([&] {
        leave.wait();
        order.add(0);
    });
    EXPECT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    pool.submit("key", [&] { order.add(1); });
    EXPECT_TRUE(for_a_while([&] { return order.size() == 0; }));
    leave.open();
    pool.drain();
    EXPECT_EQ(order.entries(), count_up(2));
}

TEST(Matrix_barrier, pool_destroyed) {
    gate leave;
    std::atomic<int> alive = 0;
    {
        task_pool pool({.threads = 2});
        const opener opens(leave);
        occupy(pool, "key", leave);
        pool.submit_barrier([c = counted(alive)] {});
        pool.submit("other", [c = counted(alive)] {});
    }
    EXPECT_EQ(alive, 0);
}

TEST(Matrix_barrier, pool_destroyed_by_the_job) {
    gate submitted, ended;
    std::atomic<int> alive = 0;
    auto pool = std::make_unique<task_pool>(options{.threads = 2});
    ASSERT_TRUE(pool->submit_barrier([&, c = counted(alive)] {
        submitted.wait(); // a pool must not be destroyed while somebody submits
        pool.reset();
        ended.open();
    }));
    static_cast<void>(pool->submit("key", [c = counted(alive)] {}));
    submitted.open();
    ended.wait();
    EXPECT_TRUE(eventually([&] { return alive == 0; }));
}

// --- Waits that never end (G9) ---------------------------------------------------------------------------------------

/// A pool that notes why barriers were discarded.
struct telling {
    journal<discard_reason> reasons;
    task_pool pool;
    explicit telling(options how = {}) : pool(with(std::move(how))) {}

  private:
    options with(options how) {
        how.threads = 3;
        how.on_discard = [this](const discard& d) {
            EXPECT_EQ(d.key, "(barrier)");
            reasons.add(d.reason);
        };
        return how;
    }
};

TEST(Barrier_deadlock, a_job_before_it_waits_for_one_after_it) {
    gate placed;
    telling t;
    const opener opens(placed);
    auto& pool = t.pool;
    auto result = pool.async("key", [&] {
        placed.wait();
        return pool.async("other", [] { return 1; }).get();
    });
    pool.submit_barrier([] { ADD_FAILURE(); });
    placed.open();
    EXPECT_EQ(result.get(), 1);
    pool.drain();
    EXPECT_EQ(t.reasons.entries(), std::vector{discard_reason::would_deadlock});
    EXPECT_EQ(pool.async_barrier([] { return 2; }).get(), 2);
}

TEST(Barrier_deadlock, a_coroutine_before_it_waits_for_one_after_it) {
    gate placed;
    telling t;
    const opener opens(placed);
    auto& pool = t.pool;
    auto result = pool.spawn("key", [](task_pool& on, gate& until) -> task<int> {
        until.wait();
        co_return co_await on.async("other", [] { return 1; });
    }(pool, placed));
    pool.submit_barrier([] { ADD_FAILURE(); });
    placed.open();
    EXPECT_EQ(result.get(), 1);
    EXPECT_EQ(t.reasons.entries(), std::vector{discard_reason::would_deadlock});
}

TEST(Barrier_deadlock, a_job_before_it_waits_for_what_is_still_to_be_submitted) {
    // Its wait began before the barrier was there.
    gate first;
    telling t;
    const opener opens(first);
    auto& pool = t.pool;
    auto result = pool.async(
        "key", [&] { return pool.async("first", [&] { first.wait(); }).then("next", [] { return 1; }).get(); });
    EXPECT_TRUE(eventually([&] { return pool.stats().blocked_threads >= 1; })); // it waits
    pool.submit_barrier([] { ADD_FAILURE(); });
    EXPECT_TRUE(eventually([&] { return t.reasons.size() == 1; }));
    first.open();
    EXPECT_EQ(result.get(), 1);
    EXPECT_EQ(t.reasons.entries(), std::vector{discard_reason::would_deadlock});
}

TEST(Barrier_deadlock, a_job_before_it_waits_for_room_behind_it) {
    gate placed;
    telling t({.lane_capacity = 1});
    const opener opens(placed);
    auto& pool = t.pool;
    std::atomic<int> ran = 0;
    pool.submit("key", [&] {
        placed.wait();
        EXPECT_TRUE(pool.submit("other", [&] { ++ran; }));
    });
    pool.submit_barrier([] { ADD_FAILURE(); });
    pool.submit("other", [&] { ++ran; });
    placed.open();
    pool.drain();
    EXPECT_EQ(ran, 2);
    EXPECT_EQ(t.reasons.entries(), std::vector{discard_reason::would_deadlock});
}

TEST(Barrier_deadlock, a_job_before_it_waits_for_room_in_the_pool) {
    gate placed;
    telling t({.pool_capacity = 2});
    const opener opens(placed);
    auto& pool = t.pool;
    std::atomic<int> ran = 0;
    pool.submit("key", [&] {
        placed.wait();
        EXPECT_TRUE(pool.submit("other", [&] { ++ran; }));
    });
    EXPECT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    pool.submit_barrier([] { ADD_FAILURE(); });
    pool.submit("other", [&] { ++ran; });
    placed.open();
    pool.drain();
    EXPECT_EQ(ran, 2);
    EXPECT_EQ(t.reasons.entries(), std::vector{discard_reason::would_deadlock});
}

TEST(Barrier_deadlock, a_job_before_it_drains_a_key_behind_it) {
    gate placed;
    telling t;
    const opener opens(placed);
    auto& pool = t.pool;
    std::atomic<int> ran = 0;
    pool.submit("key", [&] {
        placed.wait();
        pool.drain("other");
        ++ran;
    });
    pool.submit_barrier([] { ADD_FAILURE(); });
    pool.submit("other", [&] { ++ran; });
    placed.open();
    pool.drain();
    EXPECT_EQ(ran, 2);
    EXPECT_EQ(t.reasons.entries(), std::vector{discard_reason::would_deadlock});
}

TEST(Barrier_deadlock, by_way_of_another_pool) {
    gate placed;
    telling t;
    task_pool second({.threads = 2});
    const opener opens(placed);
    auto& pool = t.pool;
    auto result = pool.async("key", [&] {
        placed.wait();
        return second.async("there", [&] { return pool.async("back", [] { return 1; }).get(); }).get();
    });
    pool.submit_barrier([] { ADD_FAILURE(); });
    placed.open();
    EXPECT_EQ(result.get(), 1);
    EXPECT_EQ(t.reasons.entries(), std::vector{discard_reason::would_deadlock});
}

TEST(Barrier_deadlock, waits_for_what_came_before_it_are_none) {
    gate placed;
    telling t;
    const opener opens(placed);
    auto& pool = t.pool;
    std::atomic<bool> ran = false;
    auto slow = pool.async("slow", [&] {
        placed.wait();
        return 1;
    });
    auto result = pool.async("key", [&] { return slow.get(); });
    EXPECT_TRUE(eventually([&] { return pool.stats().blocked_threads >= 1; })); // it waits
    pool.submit_barrier([&] { ran = true; });
    EXPECT_TRUE(for_a_while([&] { return !ran && t.reasons.size() == 0; }, 60ms));
    placed.open();
    EXPECT_EQ(result.get(), 1);
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Barrier_deadlock, a_job_waits_for_a_barrier) {
    task_pool pool({.threads = 2, .lane_capacity = 1});
    EXPECT_TRUE(pool.async("key",
                           [&] {
                               try {
                                   pool.async_barrier([] {}).get();
                               } catch (const deadlock_error& error) {
                                   return error.keys() == std::vector<std::string>{"key"};
                               }
                               return false;
                           })
                    .get());
    EXPECT_TRUE(pool.async("key",
                           [&] {
                               static_cast<void>(pool.submit_barrier([] {}));
                               return pool.submit_barrier([] {}) == submit_status::would_deadlock;
                           })
                    .get());
    pool.drain();
}

TEST(Barrier_deadlock, a_barrier_s_job_waits) {
    task_pool pool({.threads = 2, .lane_capacity = 1});
    EXPECT_TRUE(pool.async_barrier([&] {
                        try {
                            pool.async("key", [] {}).get();
                        } catch (const deadlock_error& error) {
                            return error.keys() == std::vector<std::string>{"(barrier)"};
                        }
                        return false;
                    })
                    .get());
    pool.drain();
    EXPECT_TRUE(pool.async_barrier([&] {
                        static_cast<void>(pool.submit("key", [] {}));
                        return pool.submit("key", [] {}) == submit_status::would_deadlock;
                    })
                    .get());
    pool.drain();
    EXPECT_TRUE(pool.async_barrier([&] {
                        static_cast<void>(pool.submit("key", [] {}));
                        try {
                            pool.drain("key");
                        } catch (const deadlock_error&) {
                            return true;
                        }
                        return false;
                    })
                    .get());
    pool.async_barrier([&] { pool.drain("idle"); }).get();
}

TEST(Barrier_deadlock, barriers_fill_the_pool_while_a_job_before_them_waits_for_room) {
    gate placed;
    telling t({.pool_capacity = 1});
    const opener opens(placed);
    auto& pool = t.pool;
    std::atomic<int> ran = 0;
    pool.submit("key", [&] {
        placed.wait();
        EXPECT_TRUE(pool.submit("other", [&] { ++ran; }));
    });
    EXPECT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    pool.submit_barrier([] { ADD_FAILURE(); });
    placed.open();
    pool.drain();
    EXPECT_EQ(ran, 1);
    EXPECT_EQ(t.reasons.entries(), std::vector{discard_reason::would_deadlock});
}

TEST(Barrier_deadlock, a_barrier_s_job_waits_by_way_of_another_pool) {
    task_pool pool({.threads = 2});
    task_pool second({.threads = 2});
    std::atomic<int> found = 0;
    const auto wait_for = [&](auto result) {
        try {
            result.get();
        } catch (const deadlock_error&) {
            ++found;
        }
    };
    pool.async_barrier([&] { wait_for(second.async("there", [&] { wait_for(pool.async("back", [] {})); })); }).get();
    pool.drain();
    second.drain();
    EXPECT_EQ(found, 1); // by the last of the two to wait, whichever that is
}

TEST(Barrier_deadlock, two_pools_wait_for_what_is_behind_each_other_s_barrier) {
    gate placed;
    telling first;
    telling second;
    const opener opens(placed);
    const auto waits_for = [&](task_pool& other) {
        return [&] {
            placed.wait();
            return other.async("behind", [] { return 1; }).get();
        };
    };
    auto a = first.pool.async("key", waits_for(second.pool));
    auto b = second.pool.async("key", waits_for(first.pool));
    EXPECT_TRUE(first.pool.submit_barrier([] {}));
    EXPECT_TRUE(second.pool.submit_barrier([] {}));
    placed.open();
    EXPECT_EQ(a.get() + b.get(), 2);
    first.pool.drain();
    second.pool.drain();
    EXPECT_GE(first.reasons.size() + second.reasons.size(), 1U);
}

TEST(Barrier_deadlock, a_wait_for_a_coroutine_that_may_lend_its_key_is_none_while_it_does_not) {
    gate placed;
    telling t;
    const opener opens(placed);
    auto& pool = t.pool;
    std::atomic<bool> ran = false;
    auto slow = pool.spawn(
        "slow",
        [](gate& until) -> task<int> {
            until.wait();
            co_return 1;
        }(placed),
        lends);
    EXPECT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    auto later = pool.spawn(
        "slow", []() -> task<int> { co_return 2; }(), lends);
    auto result = pool.async("key", [&] { return slow.get() + later.get(); });
    EXPECT_TRUE(eventually([&] { return pool.stats().blocked_threads >= 1; })); // it waits
    pool.submit_barrier([&] { ran = true; });
    EXPECT_TRUE(for_a_while([&] { return !ran && t.reasons.size() == 0; }, 60ms));
    placed.open();
    EXPECT_EQ(result.get(), 3);
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Barrier_deadlock, a_wait_for_a_coroutine_that_has_its_place_before_the_barrier_is_none) {
    gate of_what;
    gate leave;
    gate waits;
    telling t;
    const opener opens_what(of_what);
    const opener opens(leave);
    auto& pool = t.pool;
    std::atomic<bool> ran = false;
    auto what = pool.async("what", [&] { of_what.wait(); });
    auto slow = pool.spawn(
        "slow", [](future<void> until) -> task<int> { co_return (co_await std::move(until), 1); }(std::move(what)),
        lends);
    occupy(pool, "slow", leave); // which runs while the coroutine is suspended
    of_what.open();
    pool.drain("what"); // and now it has its place
    auto result = pool.async("key", [&] { return (waits.open(), slow.get()); });
    waits.wait();
    pool.submit_barrier([&] { ran = true; });
    EXPECT_TRUE(for_a_while([&] { return !ran && t.reasons.size() == 0; }, 60ms));
    leave.open();
    EXPECT_EQ(result.get(), 1);
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Barrier_deadlock, a_job_that_waits_for_room_which_has_come_holds_nothing_up) {
    // The worker tells of room in the pool now and then, and the keeper once a tick; another job waits meanwhile.
    for (int round = 0; round < 20; ++round) {
        gate busy;
        gate slow;
        gate placed;
        telling t({.pool_capacity = 8});
        const opener opens_busy(busy);
        const opener opens_slow(slow);
        const opener opens_placed(placed);
        auto& pool = t.pool;
        occupy(pool, "busy", busy);
        auto of_slow = pool.async("slow", [&] { slow.wait(); });
        EXPECT_TRUE(eventually([&] { return pool.stats().running == 2; }));
        pool.submit("key", [&] {
            placed.wait();
            EXPECT_TRUE(pool.submit("other", [] {}));
        });
        EXPECT_TRUE(eventually([&] { return pool.stats().running == 3; }));
        pool.submit("busy", [&] {
            placed.open();
            of_slow.get();
        });
        std::atomic<bool> ran = false;
        pool.submit_barrier([&] { ran = true; });
        for (int i = 0; i < 6; ++i)
            EXPECT_TRUE(pool.submit("behind", [] {}));
        busy.open();
        placed.wait();
        slow.open();
        pool.drain();
        EXPECT_TRUE(ran);
        EXPECT_EQ(t.reasons.size(), 0U);
    }
}

TEST(Barrier_deadlock, room_that_has_come_is_counted_in_jobs_of_several_keys) {
    for (int round = 0; round < 20; ++round) {
        gate busy;
        gate slow;
        gate begins;
        telling t({.pool_capacity = 6});
        const opener opens_busy(busy);
        const opener opens_slow(slow);
        const opener opens_begins(begins);
        auto& pool = t.pool;
        std::atomic<bool> ran = false;
        occupy(pool, "busy", busy);
        auto of_slow = pool.async("slow", [&] { slow.wait(); });
        pool.submit("key", [&] {
            begins.wait();
            EXPECT_TRUE(pool.submit("other", [] {})); // waits for room
        });
        EXPECT_TRUE(eventually([&] { return pool.stats().running == 3; }));
        pool.submit("busy", [&] { of_slow.get(); }); // makes room, and has the barrier doubted
        pool.submit_barrier([&] { ran = true; });
        for (int i = 0; i < 4; ++i)
            EXPECT_TRUE(pool.submit_together({"behind", "too"}, [] {}));
        begins.open();
        EXPECT_TRUE(eventually([&] { return pool.stats().blocked_threads >= 1; }));
        busy.open();
        EXPECT_TRUE(eventually([&] { return pool.stats().running == 2 || t.reasons.size() > 0; }));
        slow.open();
        pool.drain();
        EXPECT_TRUE(ran);
        EXPECT_EQ(t.reasons.size(), 0U);
    }
}

/// A coroutine's job that lends its key and sleeps for an hour.
task<void> sleeps() { co_await sleep_for(1h); }

/// A job before a barrier finds no room in a pool that is filled by coroutines which lend their key, by the barrier,
/// and by a job behind it; `of_their_key`: by one more, of the coroutines' key. Then the barrier is discarded.
void no_room_beside_coroutines(std::size_t coroutines, bool of_their_key) {
    gate begins;
    gate ran;
    telling t({.pool_capacity = coroutines + (of_their_key ? 3U : 2U)});
    const opener opens(begins);
    auto& pool = t.pool;
    pool.submit("key", [&] {
        begins.wait();
        EXPECT_TRUE(pool.submit("other", [] {})); // there is none for it
    });
    for (std::size_t i = 0; i < coroutines; ++i)
        pool.spawn("slow", sleeps(), lends);
    pool.async("slow", [] {}).get(); // they sleep
    pool.submit_barrier([] { ADD_FAILURE(); });
    if (of_their_key)
        pool.submit("slow", [&] { ran.open(); });
    else
        ran.open();
    pool.submit("behind", [] {});
    begins.open();
    EXPECT_TRUE(eventually([&] { return t.reasons.size() == 1; }));
    ran.wait();
    pool.drain("key");
    pool.cancel("slow");
    pool.drain();
    EXPECT_EQ(t.reasons.size(), 1U);
}

TEST(Barrier_deadlock, a_coroutine_that_lends_its_key_makes_no_room_before_the_barrier) {
    no_room_beside_coroutines(1, false);
}

TEST(Barrier_deadlock, each_coroutine_that_lends_its_key_takes_room) { no_room_beside_coroutines(2, true); }

TEST(Barrier_deadlock, a_job_before_it_drains_a_key_that_a_coroutine_lends) {
    gate begins;
    telling t;
    const opener opens(begins);
    auto& pool = t.pool;
    pool.submit("key", [&] {
        begins.wait();
        pool.drain("slow");
    });
    pool.spawn("slow", sleeps(), lends);
    pool.async("slow", [] {}).get(); // it sleeps, and goes on behind the barrier
    pool.submit_barrier([] { ADD_FAILURE(); });
    begins.open();
    EXPECT_TRUE(eventually([&] { return t.reasons.size() == 1; }));
    pool.cancel("slow");
    pool.drain();
    EXPECT_EQ(t.reasons.size(), 1U);
}

TEST(Barrier_deadlock, a_job_before_it_drains_a_key_whose_shared_job_runs) {
    gate shared;
    gate waits;
    telling t;
    const opener opens(shared);
    const opener lets(waits);
    auto& pool = t.pool;
    std::atomic<bool> ran = false;
    pool.submit_shared("slow", [&] { shared.wait(); });
    EXPECT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    pool.submit("key", [&] {
        waits.wait();
        pool.drain("slow");
    });
    pool.submit_barrier([&] { ran = true; });
    waits.open();
    EXPECT_TRUE(for_a_while([&] { return !ran && t.reasons.size() == 0; }, 60ms));
    shared.open();
    pool.drain();
    EXPECT_TRUE(ran);
    EXPECT_EQ(t.reasons.size(), 0U);
}

TEST(Barrier_deadlock, a_manual_pool_doubts_no_barrier_while_something_can_run) {
    std::vector<discard_reason> reasons;
    bool ran = false;
    manual_pool pool({.on_discard = [&](const discard& d) { reasons.push_back(d.reason); }});
    pool.submit("key", [&] {
        pool.run_until_idle(); // up to the first barrier
        pool.drain("behind");  // it is behind both of them
    });
    pool.submit_barrier([] { ADD_FAILURE(); });
    pool.submit("between", [&] { pool.cancel("behind"); });
    pool.submit_barrier([&] { ran = true; });
    pool.submit("behind", [] { ADD_FAILURE(); });
    pool.run_until_idle();
    EXPECT_TRUE(ran);
    EXPECT_EQ(reasons, (std::vector{discard_reason::would_deadlock, discard_reason::cancelled}));
}

TEST(Barrier_deadlock, a_manual_pool_doubts_again_where_what_was_ready_may_not_start) {
    std::size_t discarded = 0;
    held hold;
    int ran = 0;
    manual_pool pool({.on_discard = [&](const discard&) { ++discarded; }});
    pool.submit_shared("shared", [&](const job_context& context) { hold = context.hold(); });
    pool.submit("key", [&] {
        pool.drain("behind");
        ++ran;
    });
    pool.submit_barrier([] { ADD_FAILURE(); });
    pool.submit_barrier([] { ADD_FAILURE(); });
    pool.submit("shared", [&] { ++ran; }); // ready after the second, and waits for the hold
    pool.submit_barrier([] { ADD_FAILURE(); });
    pool.submit("behind", [&] { ++ran; });
    pool.run_until_idle();
    EXPECT_EQ(ran, 2);
    EXPECT_EQ(discarded, 3U);
    hold.release();
    pool.drain();
    EXPECT_EQ(ran, 3);
}

TEST(Barrier_deadlock, a_manual_pool_comes_to_an_end_where_the_handler_brings_another) {
    for (const std::size_t barriers : {1U, 2U}) {
        std::size_t discarded = 0;
        manual_pool* here = nullptr;
        manual_pool pool({.on_discard = [&](const discard&) {
            ++discarded;
            here->submit_barrier([] { ADD_FAILURE(); });
        }});
        here = &pool;
        pool.spawn("key", [](manual_pool& in, std::size_t count) -> task<void> {
            auto slow = in.spawn("slow", sleeps(), lends);
            for (std::size_t i = 0; i < count; ++i)
                in.submit_barrier([] { ADD_FAILURE(); });
            co_await std::move(slow);
        }(pool, barriers));
        pool.run_until_idle();
        EXPECT_GE(discarded, barriers);
    }
}

TEST(Barrier_deadlock, a_manual_pool_finds_it_when_nothing_else_can_run) {
    std::vector<discard_reason> reasons;
    manual_pool pool({.on_discard = [&](const discard& d) { reasons.push_back(d.reason); }});
    pool.spawn("key", [](manual_pool& in) -> task<void> {
        auto slow = in.spawn("slow", sleeps(), lends);
        in.submit_barrier([] { ADD_FAILURE(); });
        in.submit_barrier([] { ADD_FAILURE(); });
        in.submit("behind", [] {});
        co_await std::move(slow); // which may begin before the barriers, but lends its key then
    }(pool));
    EXPECT_EQ(pool.run_until_idle(), 3U); // the one of `behind`, too
    EXPECT_EQ(reasons, std::vector(2, discard_reason::would_deadlock));
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 3U);
}

// --- At the edges ----------------------------------------------------------------------------------------------------

TEST(Barrier, is_not_among_the_oldest_keys) {
    gate leave;
    basic_task_pool<long> pool({.threads = 1, .max_threads = 1});
    const opener opens(leave);
    occupy(pool, 7L, leave);
    pool.submit_barrier([] {}); // its lane lies in the queue, as that of a key would
    EXPECT_TRUE(for_a_while([&] { return pool.oldest_keys(10).empty(); }, 5ms));
}

TEST(Barrier, runs_after_a_coroutine_s_frame_has_ended) {
    std::atomic<bool> ended = false;
    std::atomic<bool> seen = false;
    gate destroys;
    gate goes_on;
    struct slow {
        std::atomic<bool>* ended;
        gate* destroys;
        gate* goes_on;
        slow(std::atomic<bool>& e, gate& d, gate& g) : ended(&e), destroys(&d), goes_on(&g) {}
        slow(slow&& other) noexcept
            : ended(std::exchange(other.ended, nullptr)), destroys(other.destroys), goes_on(other.goes_on) {}
        ~slow() {
            if (ended == nullptr)
                return;
            destroys->open();
            goes_on->wait();
            *ended = true;
        }
    };
    task_pool pool({.threads = 3});
    const opener opens(goes_on);
    const auto coroutine = [](slow) -> task<> { co_return; };
    ASSERT_TRUE(pool.submit("key", coroutine(slow(ended, destroys, goes_on))));
    destroys.wait();
    pool.submit_barrier([&] { seen = ended.load(); });
    EXPECT_TRUE(for_a_while([&] { return pool.stats().barriers == 1; }));
    goes_on.open();
    pool.drain();
    EXPECT_TRUE(seen);
}

// I-BARRIER-5
TEST(Barrier, waits_for_an_old_job_though_many_barriers_have_been_replaced) {
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 2, .when_full = overflow::keep_latest});
    pool.pause("key");
    pool.submit("key", [] {});
    for (int i = 0; i < 70'000; ++i)
        while (!pool.submit_barrier([&] { ran = true; })) // too many eras, until the keeper has looked
            std::this_thread::yield();
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    pool.resume("key");
    pool.drain();
    EXPECT_TRUE(ran);
}

// --- Without threads -------------------------------------------------------------------------------------------------

TEST(Barrier_manual, keeps_the_order_under_every_seed) {
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
        manual_pool pool({}, seed);
        std::vector<int> eras;
        for (int era = 0; era < 5; ++era) {
            for (int i = 0; i < 4; ++i)
                ASSERT_TRUE(pool.submit(key_of(i), [&, era] { eras.push_back(2 * era); }));
            ASSERT_TRUE(pool.submit_barrier([&, era] { eras.push_back(2 * era + 1); }));
        }
        pool.run_until_idle();
        EXPECT_EQ(eras.size(), 25U);
        EXPECT_TRUE(std::is_sorted(eras.begin(), eras.end())) << seed;
    }
}

// --- Many ------------------------------------------------------------------------------------------------------------

TEST(Barrier, does_not_wait_for_a_drain_of_a_key_whose_timed_job_finds_no_room_behind_it) {
    std::atomic<int> discarded = 0;
    std::atomic<int> ran = 0;
    std::latch begun(1);
    std::latch gate(1);
    task_pool pool({.threads = 2, .pool_capacity = 2, .on_discard = [&](const discard& job) {
                        EXPECT_EQ(job.reason, discard_reason::would_deadlock);
                        ++discarded;
                    }});
    pool.submit("a", [&] {
        begun.count_down();
        gate.wait();
        pool.drain("timed");
    });
    begun.wait();
    pool.submit_barrier([&ran] { ran += 100; });
    pool.submit("b", [&ran] { ++ran; }); // now the pool is full
    const auto timed = pool.submit_after(0ms, "timed", [&ran] { ++ran; });
    gate.count_down();
    pool.drain();
    EXPECT_EQ(discarded, 1);
    EXPECT_EQ(ran, 2);
}

TEST(Barrier, stress) {
    // Producers number their jobs by the barriers that they have submitted; each era's jobs end before its barrier.
    constexpr int producers = 4;
    constexpr int rounds = sanitized ? 150 : 1000;
    std::atomic<std::uint64_t> started = 0;
    std::atomic<std::uint64_t> ended = 0;
    std::atomic<int> ran = 0;
    std::atomic<bool> alone = false;
    task_pool pool({.threads = 3, .lane_capacity = 20, .pool_capacity = 300});
    {
        std::vector<std::jthread> threads;
        for (int p = 0; p < producers; ++p) {
            threads.emplace_back([&, p] {
                std::mt19937 random(static_cast<unsigned>(p));
                std::atomic<int> done = 0; // of this producer's
                int sent = 0;
                for (int round = 0; round < rounds; ++round) {
                    for (int i = 0; i < 10; ++i) {
                        const auto job = [&] {
                            EXPECT_FALSE(alone);
                            ++started;
                            ++done;
                            ++ended;
                        };
                        const auto key = key_of(static_cast<int>(random() % 40));
                        const auto kind = random() % 10;
                        if (kind == 0)
                            ASSERT_TRUE(pool.submit_together({key, key_of(static_cast<int>(random() % 40))}, job));
                        else if (kind == 1)
                            ASSERT_TRUE(pool.submit_shared(key, job));
                        else
                            ASSERT_TRUE(pool.submit(key, job));
                        ++sent;
                    }
                    if (random() % 4 == 0) {
                        ASSERT_TRUE(pool.submit_barrier([&, sent] {
                            alone = true;
                            EXPECT_GE(done, sent); // those of this producer are all over, and none is under way
                            EXPECT_EQ(started, ended);
                            ++ran;
                            alone = false;
                        }));
                    }
                }
                pool.drain();
            });
        }
    }
    EXPECT_EQ(ended, static_cast<std::uint64_t>(producers * rounds * 10));
    EXPECT_GT(ran, producers * rounds / 8);
    EXPECT_EQ(pool.stats().barriers, 0U);
}

} // namespace
} // namespace taskpool::testing
