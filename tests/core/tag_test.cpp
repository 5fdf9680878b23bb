// SPDX-License-Identifier: Apache-2.0
// Jobs with a tag, of which the latest replaces one that waits; and what becomes of them in each event: the row of tags
// in docs/waiting.md, cell by cell.
#include <stdexcept>

#include <taskpool/testing.hpp>

#include "at_end.hpp"
#include "testing.hpp"

namespace taskpool::testing {
namespace {

using strings = std::vector<std::string>;

options with_discards(strings& told) {
    return {.on_discard = [&told](const discard& d) {
        told.push_back(std::string(d.key) + (d.reason == discard_reason::replaced ? " replaced" : " other"));
    }};
}

/// A job that says its name.
auto says(strings& log, const std::string& name) {
    return [&log, name] { log.push_back(name); };
}

TEST(Tag, the_latest_of_a_tag_runs_in_the_place_of_the_first) {
    strings ran;
    strings told;
    manual_pool pool(with_discards(told));
    ASSERT_TRUE(pool.submit("key", tag{"a"}, says(ran, "a1")));
    ASSERT_TRUE(pool.submit("key", says(ran, "plain")));
    ASSERT_TRUE(pool.submit("key", tag{"b"}, says(ran, "b1")));
    ASSERT_TRUE(pool.submit("key", tag{"a"}, says(ran, "a2")));
    ASSERT_TRUE(pool.submit("key", tag{"a"}, says(ran, "a3")));
    ASSERT_TRUE(pool.submit("other", tag{"a"}, says(ran, "other a")));
    EXPECT_EQ(told, (strings{"key replaced", "key replaced"}));
    EXPECT_EQ(pool.stats().waiting, 4U);
    pool.drain();
    EXPECT_EQ(ran, (strings{"a3", "plain", "b1", "other a"}));
    const auto stats = pool.stats();
    EXPECT_EQ(stats.accepted, 6U);
    EXPECT_EQ(stats.finished, 4U);
    EXPECT_EQ(stats.discarded, 2U);
    EXPECT_EQ(stats.replaced, 2U);
}

TEST(Tag, a_job_that_has_begun_is_not_replaced) {
    strings ran;
    manual_pool pool;
    ASSERT_TRUE(pool.submit("key", tag{"a"}, [&] {
        ran.push_back("first");
        ASSERT_TRUE(pool.submit("key", tag{"a"}, says(ran, "second")));
        ASSERT_TRUE(pool.submit("key", tag{"a"}, says(ran, "third")));
    }));
    pool.drain();
    EXPECT_EQ(ran, (strings{"first", "third"}));
    EXPECT_EQ(pool.stats().replaced, 1U);
}

TEST(Tag, one_that_replaces_needs_no_room) {
    strings ran;
    for (const auto rule : {overflow::block, overflow::reject, overflow::drop_oldest, overflow::keep_latest}) {
        ran.clear();
        manual_pool pool({.lane_capacity = 1, .pool_capacity = 1, .when_full = rule});
        ASSERT_TRUE(pool.submit("key", tag{"a"}, says(ran, "a1")));
        ASSERT_TRUE(pool.submit("key", tag{"a"}, says(ran, "a2")));
        ASSERT_TRUE(pool.try_submit("key", tag{"a"}, says(ran, "a3")));
        ASSERT_TRUE(pool.submit_for("key", tag{"a"}, 1ms, says(ran, "a4")));
        if (rule == overflow::reject) {
            EXPECT_EQ(pool.submit("key", tag{"b"}, [] {}), submit_status::full);
        }
        EXPECT_EQ(pool.stats().waiting, 1U);
        pool.drain();
        EXPECT_EQ(ran, strings{"a4"});
    }
}

TEST(Tag, the_future_of_a_replaced_job_says_that_it_was_discarded) {
    manual_pool pool;
    auto first = pool.async("key", tag{"a"}, [] { return 1; });
    auto second = pool.async("key", tag{"a"}, [] { return 2; });
    EXPECT_THROW(first.get(), job_discarded);
    EXPECT_EQ(second.get(), 2);
}

TEST(Tag, only_jobs_that_agree_on_what_stop_does_replace_one_another) {
    strings ran;
    manual_pool pool;
    pool.submit("key", tag{"a"}, says(ran, "may1"));
    pool.submit("key", tag{"a"}, says(ran, "must1"), {.on_stop = stop_action::run});
    pool.submit("key", tag{"a"}, says(ran, "must2"), {.on_stop = stop_action::run});
    EXPECT_EQ(pool.stop().discarded, 2U);
    EXPECT_EQ(ran, strings{"must2"});
}

TEST(Tag, one_that_replaces_takes_the_priority_of_its_place) {
    strings ran;
    manual_pool pool;
    pool.submit("low", tag{"a"}, says(ran, "low1"), {.priority = priority::low});
    pool.submit("normal", says(ran, "normal"));
    pool.submit("low", tag{"a"}, says(ran, "low2"), {.priority = priority::high});
    pool.drain();
    EXPECT_EQ(ran, (strings{"normal", "low2"}));
}

TEST(Tag, any_string_is_a_tag_and_any_type_a_key) {
    int ran = 0;
    basic_task_pool<int> pool({.autostart = false});
    const std::string large(100'000, 'x');
    for (int i = 0; i < 3; ++i)
        for (const std::string& name : {std::string(), std::string(3, '\0'), large, large + "y"})
            ASSERT_TRUE(pool.submit(7, tag{name}, [&] { ++ran; }));
    pool.start();
    pool.drain();
    EXPECT_EQ(ran, 4);
}

TEST(Tag, an_exception_from_the_move_leaves_all_as_it_was) {
    struct throws_when_moved {
        strings* log;
        bool armed = true;
        explicit throws_when_moved(strings& l) : log(&l) {}
        throws_when_moved(throws_when_moved&& other) : log(other.log), armed(other.armed) {
            if (armed)
                throw std::runtime_error("moved");
        }
        throws_when_moved& operator=(throws_when_moved&&) = delete;
        void operator()() const { log->push_back("never"); }
    };
    strings ran;
    manual_pool pool;
    EXPECT_THROW(pool.submit("key", tag{"a"}, throws_when_moved(ran)), std::runtime_error);
    EXPECT_EQ(pool.stats().accepted, 0U);
    ASSERT_TRUE(pool.submit("key", tag{"a"}, says(ran, "a1"))); // nothing is there to be replaced
    EXPECT_EQ(pool.stats().replaced, 0U);
    EXPECT_THROW(pool.submit("key", tag{"a"}, throws_when_moved(ran)), std::runtime_error);
    pool.drain();
    EXPECT_EQ(ran, strings{"a1"});
    EXPECT_EQ(pool.stats().accepted, 1U);
    EXPECT_EQ(pool.stats().discarded, 0U);
}

TEST(Tag, goes_with_retries_and_deadlines) {
    strings ran;
    manual_pool pool;
    pool.submit("key", tag{"a"},
                with_retry({.max_attempts = 3, .backoff = {.first = 1s}}, [&](const job_context& context) {
                    ran.push_back("a" + std::to_string(context.attempt()));
                    if (context.attempt() < 2)
                        throw std::runtime_error("no");
                }));
    pool.run_until_idle();
    pool.submit("key", tag{"a"}, with_deadline(pool.now() - 1ns, [&] { ran.push_back("late"); })); // waits behind it
    pool.submit("key", tag{"a"}, with_deadline(pool.now() + 1h, [&] { ran.push_back("in time"); }));
    pool.drain();
    EXPECT_EQ(ran, (strings{"a1", "a2", "in time"}));
    EXPECT_EQ(pool.stats().replaced, 1U);
    EXPECT_EQ(pool.stats().expired, 0U);
}

TEST(Tag, a_replaced_job_may_call_the_pool_at_its_end) {
    strings ran;
    manual_pool pool;
    pool.submit("key", tag{"a"}, at_end([&] { pool.submit("key", tag{"a"}, says(ran, "from the end")); }));
    pool.submit("key", tag{"a"}, says(ran, "replaced by that"));
    pool.drain();
    EXPECT_EQ(ran, strings{"from the end"});
}

// I-TAG-1
TEST(Tag, nothing_new_gets_into_a_job_that_was_cancelled_or_paused_in_a_worker_s_hands_stress) {
    const auto end = steady::now() + 2s;
    std::atomic<int> stopped = 0;
    std::atomic<int> on_paused = 0;
    std::atomic<bool> paused = false;
    task_pool pool({.threads = 2});
    for (int round = 0; steady::now() < end; ++round) {
        ASSERT_TRUE(pool.submit("key", tag{"a"}, [] {}));
        if (round % 2 == 0) {
            pool.cancel("key");
            ASSERT_TRUE(pool.submit("key", tag{"a"}, [&](const job_context& context) { // after the cancel
                stopped += context.stop_requested() ? 1 : 0;
            }));
        } else {
            pool.pause("key");
            paused = true;
            ASSERT_TRUE(pool.submit("key", tag{"a"}, [&] { on_paused += paused ? 1 : 0; }));
            std::this_thread::yield();
            paused = false;
            pool.resume("key");
        }
        pool.drain("key");
    }
    EXPECT_EQ(stopped, 0);
    EXPECT_EQ(on_paused, 0);
}

// I-TAG-1
TEST(Tag, the_last_value_is_always_seen_stress) {
    constexpr int rounds = 20'000 / slowness;
    std::array<std::array<std::atomic<int>, 3>, 5> seen{}; // per key and tag
    journal<int> bad;
    std::atomic<bool> ends = false;
    task_pool pool({.threads = 2, .lane_capacity = 4});
    std::thread cancels([&] {
        while (!ends) {
            pool.cancel("key0"); // of which nothing is expected
            std::this_thread::yield();
        }
    });
    std::vector<std::thread> producers;
    for (std::size_t t = 0; t < 3; ++t)
        producers.emplace_back([&, t] {
            for (int i = 1; i <= rounds; ++i)
                for (std::size_t key = 0; key < seen.size(); ++key)
                    ASSERT_TRUE(pool.submit("key" + std::to_string(key), tag{std::to_string(t)}, [&, key, t, i] {
                        if (seen[key][t].exchange(i) >= i)
                            bad.add(i);
                    }));
        });
    for (auto& producer : producers)
        producer.join();
    ends = true;
    cancels.join();
    pool.drain();
    for (std::size_t key = 1; key < seen.size(); ++key)
        for (auto& value : seen[key])
            EXPECT_EQ(value, rounds);
    EXPECT_EQ(bad.size(), 0U);
    const auto stats = pool.stats();
    EXPECT_EQ(stats.accepted, stats.finished + stats.discarded);
    EXPECT_EQ(stats.accepted, static_cast<std::uint64_t>(rounds) * 15);
    EXPECT_EQ(stats.waiting, 0U);
}

// I-TAG-1, I-TAG-2
TEST(Tag, drop_oldest_and_tags_do_not_lose_a_job_stress) {
    constexpr int rounds = 50'000 / slowness;
    std::atomic<std::uint64_t> ran = 0;
    std::atomic<std::uint64_t> discarded = 0;
    task_pool pool(
        {.threads = 2, .lane_capacity = 2, .when_full = overflow::drop_oldest, .on_discard = [&](const discard&) {
             ++discarded;
         }});
    std::vector<std::thread> producers;
    for (int p = 0; p < 3; ++p)
        producers.emplace_back([&] {
            for (int i = 0; i < rounds; ++i)
                ASSERT_TRUE(pool.submit("key", tag{std::to_string(i % 4)}, [&] { ++ran; }));
        });
    for (auto& producer : producers)
        producer.join();
    pool.drain();
    EXPECT_EQ(ran + discarded, static_cast<std::uint64_t>(rounds) * 3);
}

// --- Matrix ----------------------------------------------------------------------------------------------------------

TEST(Matrix_tag, stop) {
    auto alive = std::make_shared<int>(0);
    task_pool pool({.autostart = false});
    ASSERT_TRUE(pool.submit("key", tag{"a"}, [alive] { FAIL(); }));
    EXPECT_EQ(pool.stop().discarded, 1U);
    EXPECT_EQ(alive.use_count(), 1);
    EXPECT_EQ(pool.submit("key", tag{"a"}, [] {}), submit_status::stopped);
}

TEST(Matrix_tag, drain) {
    strings ran;
    manual_pool pool;
    ASSERT_TRUE(pool.submit("key", tag{"a"}, says(ran, "a1")));
    pool.close();
    EXPECT_EQ(pool.submit("key", tag{"a"}, says(ran, "a2")), submit_status::stopped); // refused though it needs no room
    pool.drain();
    EXPECT_EQ(ran, strings{"a1"});
}

// I-TAG-2
TEST(Matrix_tag, cancel_key) {
    strings ran;
    manual_pool pool;
    for (int i = 0; i < 30; ++i)
        ASSERT_TRUE(pool.submit("key", tag{std::to_string(i)}, says(ran, "old")));
    EXPECT_EQ(pool.cancel("key"), 30U);
    ASSERT_TRUE(pool.submit("key", tag{"7"}, says(ran, "new"))); // replaces nothing
    EXPECT_EQ(pool.stats().replaced, 0U);
    pool.drain();
    EXPECT_EQ(ran, strings{"new"});
}

TEST(Matrix_tag, job_throws) {
    int failures = 0;
    strings ran;
    manual_pool pool({.on_failure = [&](const failure&) { ++failures; }});
    ASSERT_TRUE(pool.submit("key", tag{"a"}, [] { throw std::runtime_error("no"); }));
    pool.drain();
    ASSERT_TRUE(pool.submit("key", tag{"a"}, says(ran, "next")));
    pool.drain();
    EXPECT_EQ(failures, 1);
    EXPECT_EQ(ran, strings{"next"});
}

TEST(Matrix_tag, lane_full) {
    manual_pool pool({.lane_capacity = 1});
    ASSERT_TRUE(pool.submit("key", tag{"a"}, [] {}));
    EXPECT_EQ(pool.try_submit("key", tag{"b"}, [] {}), submit_status::full);
    EXPECT_TRUE(pool.try_submit("key", tag{"a"}, [] {}));
}

TEST(Matrix_tag, pool_full) {
    manual_pool pool({.pool_capacity = 1});
    ASSERT_TRUE(pool.submit("key", tag{"a"}, [] {}));
    EXPECT_EQ(pool.try_submit("other", tag{"a"}, [] {}), submit_status::full);
    EXPECT_TRUE(pool.try_submit("key", tag{"a"}, [] {}));
}

TEST(Matrix_tag, key_paused) {
    strings ran;
    manual_pool pool;
    pool.pause("key");
    pool.submit("key", tag{"a"}, says(ran, "a1"));
    pool.submit("key", tag{"a"}, says(ran, "a2"));
    pool.run_until_idle();
    EXPECT_EQ(ran, strings{});
    pool.resume("key");
    pool.drain();
    EXPECT_EQ(ran, strings{"a2"});
}

TEST(Matrix_tag, pool_destroyed) {
    auto alive = std::make_shared<int>(0);
    {
        task_pool pool({.autostart = false});
        ASSERT_TRUE(pool.submit("key", tag{"a"}, [alive] {}));
        ASSERT_TRUE(pool.submit("key", tag{"a"}, [alive] {}));
        EXPECT_EQ(alive.use_count(), 2);
    }
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Matrix_tag, key_submitted_to_meanwhile) {
    strings ran;
    manual_pool pool;
    pool.submit("key", tag{"a"}, says(ran, "a1"));
    pool.submit("key", says(ran, "plain"));
    pool.submit("key", tag{"a"}, says(ran, "a2")); // before what was submitted earlier: it has the place of the first
    pool.drain();
    EXPECT_EQ(ran, (strings{"a2", "plain"}));
}

} // namespace
} // namespace taskpool::testing
