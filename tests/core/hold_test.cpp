// SPDX-License-Identifier: Apache-2.0
// A hold keeps a key busy beyond the return of its job, with no thread.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

/// Submits a job that leaves a hold behind, and waits until it has returned.
held hold(task_pool& pool, std::string_view key) {
    auto kept = std::make_shared<held>();
    EXPECT_TRUE(pool.submit(key, [kept](const job_context& context) { *kept = context.hold(); }));
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    return std::move(*kept);
}

TEST(Hold, keeps_the_key_after_the_job_has_returned) {
    std::atomic<bool> next_ran = false, other_ran = false;
    task_pool pool({.threads = 1, .max_threads = 1});
    held kept = hold(pool, "key");
    ASSERT_TRUE(kept);
    ASSERT_TRUE(pool.submit("key", [&] { next_ran = true; }));
    // The only thread is free for others.
    ASSERT_TRUE(pool.submit("other", [&] { other_ran = true; }));
    pool.drain("other");
    EXPECT_TRUE(other_ran);
    EXPECT_TRUE(for_a_while([&] { return !next_ran; }));
    EXPECT_EQ(pool.active_keys(), 1U);
    EXPECT_EQ(pool.stats().suspended_lanes, 1U);
    EXPECT_EQ(pool.stats().running, 0U);
    kept.release();
    EXPECT_FALSE(kept);
    pool.drain();
    EXPECT_TRUE(next_ran);
    EXPECT_EQ(pool.stats().suspended_lanes, 0U);
    EXPECT_EQ(pool.stats().finished, 3U);
}

TEST(Hold, the_job_counts_as_finished_when_it_is_released) {
    task_pool pool({.threads = 1});
    held kept = hold(pool, "key");
    EXPECT_EQ(pool.stats().finished, 0U);
    kept.release();
    EXPECT_TRUE(eventually([&] { return pool.stats().finished == 1; }));
    EXPECT_EQ(pool.active_keys(), 0U);
}

TEST(Hold, may_be_released_on_another_thread_and_that_happens_before_the_next_job) {
    // The state is plain: written by the job, by the thread that releases, and by the next job.
    int state = 0;
    task_pool pool({.threads = 2});
    std::vector<std::thread> threads(500);
    for (int i = 0; i < 500; ++i) {
        ASSERT_TRUE(pool.submit("key", [&, i](const job_context& context) {
            EXPECT_EQ(state, 2 * i);
            ++state;
            threads[static_cast<std::size_t>(i)] = std::thread([&state, kept = context.hold()]() mutable {
                ++state;
                kept.release();
            });
        }));
    }
    pool.drain();
    EXPECT_EQ(state, 1'000);
    for (auto& thread : threads)
        thread.join();
}

TEST(Hold, is_released_by_its_destructor) {
    std::atomic<bool> next_ran = false;
    task_pool pool({.threads = 1});
    {
        const held kept = hold(pool, "key");
        ASSERT_TRUE(pool.submit("key", [&] { next_ran = true; }));
        EXPECT_TRUE(for_a_while([&] { return !next_ran; }, 5ms));
    }
    pool.drain();
    EXPECT_TRUE(next_ran);
}

TEST(Hold, copies_hold_until_the_last_is_gone) {
    std::atomic<bool> next_ran = false;
    task_pool pool({.threads = 1});
    held first = hold(pool, "key");
    held second = first;
    held third;
    third = second;
    held moved = std::move(first);
    EXPECT_FALSE(first); // NOLINT: that is what is tested
    ASSERT_TRUE(pool.submit("key", [&] { next_ran = true; }));
    moved.release();
    second.release();
    second.release(); // an empty one: nothing
    EXPECT_TRUE(for_a_while([&] { return !next_ran; }));
    third = held();
    pool.drain();
    EXPECT_TRUE(next_ran);
}

TEST(Hold, assigning_to_itself_changes_nothing) {
    task_pool pool({.threads = 1});
    held kept = hold(pool, "key");
    auto& same = kept;
    kept = same;
    EXPECT_TRUE(kept);
    EXPECT_EQ(pool.active_keys(), 1U);
    kept.release();
    pool.drain();
}

TEST(Hold, a_job_may_take_several) {
    std::atomic<bool> next_ran = false;
    held first, second;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
        first = context.hold();
        second = context.hold();
    }));
    ASSERT_TRUE(pool.submit("key", [&] { next_ran = true; }));
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    first.release();
    EXPECT_TRUE(for_a_while([&] { return !next_ran; }));
    second.release();
    pool.drain();
    EXPECT_TRUE(next_ran);
}

TEST(Hold, released_while_its_job_still_runs_changes_nothing) {
    bool ended = false; // plain: of the key
    task_pool pool({.threads = 2});
    for (int i = 0; i < 100; ++i) {
        ended = false;
        ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
            held kept = context.hold();
            held copy = kept;
            std::thread other([kept = std::move(kept)]() mutable { kept.release(); });
            other.join();
            copy.release();
            burn(10us);
            ended = true;
        }));
        ASSERT_TRUE(pool.submit("key", [&] { EXPECT_TRUE(ended); }));
        pool.drain();
    }
}

TEST(Hold, a_release_that_races_with_the_return_of_the_job_loses_nothing) {
    // The hold goes to a thread that lets it go at once, while the job returns.
    std::atomic<bool> done = false;
    task_pool pool({.threads = 2, .lane_capacity = 10'000});
    std::mutex mutex;
    std::vector<held> holds;
    std::thread releaser([&] {
        while (!done) {
            std::vector<held> taken;
            {
                const std::lock_guard lock(mutex);
                taken.swap(holds);
            }
        }
    });
    int ran = 0;
    for (int i = 0; i < 10'000; ++i) {
        ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
            ++ran;
            held kept = context.hold();
            const std::lock_guard lock(mutex);
            holds.push_back(std::move(kept));
        }));
    }
    pool.drain();
    done = true;
    releaser.join();
    EXPECT_EQ(ran, 10'000);
    EXPECT_EQ(pool.stats().finished, 10'000U);
}

TEST(Hold, the_key_of_the_context_stays_valid) {
    held kept;
    const std::string* key = nullptr;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("the key", [&](const job_context& context) {
        kept = context.hold();
        key = &context.key();
    }));
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    EXPECT_EQ(*key, "the key");
    kept.release();
}

TEST(Hold, stop_asks_what_is_held_and_waits_for_it) {
    std::atomic<bool> stopped = false;
    task_pool pool({.threads = 1});
    held kept = hold(pool, "key");
    const auto token = kept.stop_token();
    EXPECT_FALSE(kept.stop_requested());
    EXPECT_TRUE(token.stop_possible());
    EXPECT_FALSE(token.stop_requested());
    ASSERT_TRUE(pool.submit("key", [] {}));
    std::thread stopper([&] {
        const auto report = pool.stop();
        EXPECT_EQ(report.finished, 1U);
        EXPECT_EQ(report.discarded, 1U);
        stopped = true;
    });
    EXPECT_TRUE(eventually([&] { return kept.stop_requested() && token.stop_requested(); }));
    EXPECT_TRUE(for_a_while([&] { return !stopped; }));
    kept.release();
    stopper.join();
    EXPECT_TRUE(stopped);
}

TEST(Hold, stop_calls_those_who_listen_and_they_may_let_go) {
    task_pool pool({.threads = 1});
    held kept = hold(pool, "key");
    const std::stop_callback on_stop(kept.stop_token(), [&] { kept.release(); });
    EXPECT_EQ(pool.stop().finished, 1U);
}

TEST(Hold, cancel_asks_what_is_held) {
    std::atomic<bool> next_asked = true;
    task_pool pool({.threads = 1});
    held kept = hold(pool, "key");
    const auto token = kept.stop_token();
    ASSERT_TRUE(pool.submit("key", [] {}));
    EXPECT_EQ(pool.cancel("key"), 1U);
    EXPECT_TRUE(kept.stop_requested());
    EXPECT_TRUE(token.stop_requested());
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) { next_asked = context.stop_requested(); }));
    kept.release();
    pool.drain();
    EXPECT_FALSE(next_asked); // the next job was not meant
}

TEST(Hold, a_cancel_while_the_job_runs_is_seen_by_the_hold) {
    gate until;
    std::latch running(1);
    held kept;
    task_pool pool({.threads = 1});
    const opener at_end(until);
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
        kept = context.hold();
        running.count_down();
        until.wait();
    }));
    running.wait();
    pool.cancel("key");
    EXPECT_TRUE(kept.stop_requested());
    until.open();
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    EXPECT_TRUE(kept.stop_requested());
    kept.release();
}

TEST(Hold, drain_waits_for_what_is_held) {
    std::atomic<bool> drained = false;
    task_pool pool({.threads = 1});
    held kept = hold(pool, "key");
    std::thread drainer([&] {
        pool.drain();
        drained = true;
    });
    std::thread key_drainer([&] { pool.drain("key"); });
    EXPECT_TRUE(for_a_while([&] { return !drained; }));
    kept.release();
    drainer.join();
    key_drainer.join();
}

TEST(Hold, an_exception_after_it_was_taken_is_a_failure_and_the_hold_holds) {
    std::atomic<int> failures = 0;
    std::atomic<bool> next_ran = false;
    held kept;
    task_pool pool({.threads = 1, .on_failure = [&](const failure&) { ++failures; }});
    ASSERT_TRUE(pool.submit("key", [&](const job_context& context) {
        kept = context.hold();
        throw std::runtime_error("after the hold");
    }));
    ASSERT_TRUE(pool.submit("key", [&] { next_ran = true; }));
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    EXPECT_EQ(failures, 1);
    EXPECT_TRUE(for_a_while([&] { return !next_ran; }));
    kept.release();
    pool.drain();
    EXPECT_TRUE(next_ran);
    EXPECT_EQ(pool.stats().failed, 1U);
    EXPECT_EQ(pool.stats().finished, 2U);
}

TEST(Hold, one_dropped_by_an_exception_lets_go) {
    std::atomic<bool> next_ran = false;
    task_pool pool({.threads = 1, .on_failure = [](const failure&) {}});
    ASSERT_TRUE(pool.submit("key", [](const job_context& context) {
        const held kept = context.hold();
        throw std::runtime_error("with the hold");
    }));
    ASSERT_TRUE(pool.submit("key", [&] { next_ran = true; }));
    pool.drain();
    EXPECT_TRUE(next_ran);
}

TEST(Hold, a_hundred_thousand_keys_are_held_with_no_thread) {
    constexpr std::size_t keys = 100'000;
    std::vector<held> holds(keys);
    std::atomic<std::size_t> next_ran = 0;
    basic_task_pool<std::size_t> pool({.threads = 2, .max_threads = 2});
    for (std::size_t key = 0; key < keys; ++key) {
        ASSERT_TRUE(pool.submit(
            key, [&holds, key](const basic_job_context<std::size_t>& context) { holds[key] = context.hold(); }));
    }
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == keys; }, 60s));
    const auto stats = pool.stats();
    EXPECT_EQ(stats.active_keys, keys);
    EXPECT_EQ(stats.running, 0U);
    EXPECT_LE(stats.threads, 2U);
    for (std::size_t key = 0; key < keys; ++key)
        ASSERT_TRUE(pool.submit(key, [&] { ++next_ran; }));
    EXPECT_EQ(next_ran, 0U);
    for (auto& kept : holds)
        kept.release();
    pool.drain();
    EXPECT_EQ(next_ran, keys);
    EXPECT_EQ(pool.stats().finished, 2 * keys);
}

TEST(Hold, may_be_let_go_by_a_job_of_another_key) {
    std::atomic<bool> next_ran = false;
    task_pool pool({.threads = 1});
    held kept = hold(pool, "key");
    ASSERT_TRUE(pool.submit("key", [&] { next_ran = true; }));
    ASSERT_TRUE(pool.submit("other", [&] { kept.release(); }));
    pool.drain();
    EXPECT_TRUE(next_ran);
}

TEST(Hold, the_pool_may_end_as_soon_as_a_release_has_let_the_last_job_run) {
    // The release runs on a thread that nobody waits for before the pool is destroyed.
    for (int round = 0; round < 300; ++round) {
        std::thread releaser;
        std::atomic<int> ran = 0;
        {
            task_pool pool({.threads = 2});
            held kept = hold(pool, "key");
            ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
            releaser = std::thread([kept = std::move(kept)]() mutable { kept.release(); });
            pool.drain();
        }
        EXPECT_EQ(ran, 1);
        releaser.join();
    }
}

TEST(Hold, an_empty_one_holds_nothing) {
    held empty;
    EXPECT_FALSE(empty);
    empty.release();
    const held copy = empty; // NOLINT
    EXPECT_FALSE(copy);
}

} // namespace
} // namespace taskpool::testing
