// SPDX-License-Identifier: Apache-2.0
// Jobs of several keys, and what becomes of them in each event: the row of submit_together() in docs/waiting.md, cell
// by cell.
#include <array>
#include <latch>
#include <optional>
#include <span>
#include <stdexcept>

#include <taskpool/testing.hpp>

#include "testing.hpp"

namespace taskpool::testing {
namespace {

using strings = std::vector<std::string>;

TEST(Together, waits_until_it_is_first_in_all_its_lanes) {
    strings ran;
    manual_pool pool;
    pool.submit("a", [&] { ran.push_back("a1"); });
    pool.submit("b", [&] { ran.push_back("b1"); });
    pool.submit("b", [&] { ran.push_back("b2"); });
    EXPECT_TRUE(pool.submit_together({"a", "b"}, [&] { ran.push_back("ab"); }));
    pool.submit("a", [&] { ran.push_back("a3"); });
    pool.submit("b", [&] { ran.push_back("b3"); });
    pool.run_until_idle();
    EXPECT_EQ(ran, (strings{"a1", "b1", "b2", "ab", "a3", "b3"}));
    EXPECT_EQ(pool.active_keys(), 0U);
}

TEST(Together, counts_as_one_job) {
    manual_pool pool;
    pool.submit("a", [] {});
    pool.submit_together({"a", "b", "c"}, [] {});
    EXPECT_EQ(pool.stats().accepted, 2U);
    EXPECT_EQ(pool.stats().together, 1U);
    EXPECT_EQ(pool.stats().waiting, 2U);
    EXPECT_EQ(pool.active_keys(), 3U);
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 2U);
    EXPECT_EQ(pool.stats().discarded, 0U);
    EXPECT_EQ(pool.stats().waiting, 0U);
    EXPECT_EQ(pool.stats().suspended_lanes, 0U);
    EXPECT_EQ(pool.stop().finished, 2U);
}

TEST(Together, holds_all_its_keys_while_it_runs) {
    gate busy;
    gate runs;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 3});
    const opener opens(busy);
    ASSERT_TRUE(pool.submit_together({"a", "b"}, [&] {
        runs.open();
        busy.wait();
    }));
    runs.wait();
    pool.submit("a", [&] { ++ran; });
    pool.submit("b", [&] { ++ran; });
    pool.async("c", [] {}).get();
    EXPECT_TRUE(for_a_while([&] { return ran == 0; }));
    busy.open();
    pool.drain();
    EXPECT_EQ(ran, 2);
}

TEST(Together, a_key_that_is_named_twice_counts_once) {
    manual_pool pool({.lane_capacity = 1});
    int ran = 0;
    EXPECT_TRUE(pool.submit_together({"a", "a", "b", "a"}, [&] { ++ran; }));
    EXPECT_EQ(pool.active_keys(), 2U);
    pool.drain();
    EXPECT_TRUE(pool.submit_together({"a", "a"}, [&] { ++ran; }));
    pool.drain();
    EXPECT_EQ(ran, 2);
}

TEST(Together, a_place_may_come_to_its_turn_while_another_job_ends) {
    struct driver {
        manual_pool* pool;
        explicit driver(manual_pool& of) : pool(&of) {}
        driver(driver&& other) noexcept : pool(std::exchange(other.pool, nullptr)) {}
        driver& operator=(driver&&) = delete;
        ~driver() {
            if (pool != nullptr)
                pool->step(); // "a" is held from then on
        }
    };
    manual_pool pool;
    strings ran;
    const auto coroutine = [&](driver) -> task<> { // NOLINT(cppcoreguidelines-avoid-capturing-lambda-coroutines)
        ran.emplace_back("coroutine");
        co_return;
    };
    (void)pool.spawn("key", coroutine(driver(pool)));
    pool.submit("key", [&] { ran.emplace_back("next"); });
    pool.submit_together({"a", "b"}, [&] { ran.emplace_back("both"); });
    pool.drain();
    EXPECT_EQ(ran, (strings{"coroutine", "next", "both"}));
    EXPECT_EQ(pool.stats().finished, 3U);
}

TEST(Together, a_place_holds_the_lane_that_a_job_before_it_releases_at_once) {
    manual_pool pool;
    bool ran = false;
    pool.submit_together({"a", "b"}, [&] { ran = true; });
    pool.submit("c", [] {});
    pool.submit_together({"a", "c"}, [] {});
    pool.submit_together({"b", "c"}, [] {});
    while (!ran)
        ASSERT_TRUE(pool.step());
    EXPECT_EQ(pool.stats().suspended_lanes, 1U); // of "a" and "b" that in which it did not run
    pool.run_until_idle();
    EXPECT_EQ(pool.stats().suspended_lanes, 0U);
    EXPECT_EQ(pool.stats().finished, 4U);
}

TEST(Together, its_lanes_stay_until_it_is_over_when_it_was_cancelled) {
    // I-TOGETHER-2. Meanwhile those of which it was not cancelled have passed its place, are idle, and would be freed.
    const strings keys = {"a", "b", "c", "d", "e", "f"};
    gate busy;
    gate others_are_busy;
    std::function<void()> while_it_is_discarded;
    task_pool pool({.threads = 6, .on_discard = [&](const discard&) { while_it_is_discarded(); }});
    const opener opens(busy);
    const opener opens_others(others_are_busy);
    for (const auto& key : keys)
        occupy(pool, key, key == "a" ? busy : others_are_busy);
    ASSERT_TRUE(pool.submit_together(keys, [] { FAIL(); }));
    while_it_is_discarded = [&] {
        others_are_busy.open();
        EXPECT_TRUE(eventually([&] { return pool.active_keys() == 1; }));
        for (int key = 0; key < 20'000; ++key) // their lanes take the room of idle ones
            pool.submit(std::to_string(key), [] {});
        EXPECT_TRUE(eventually([&] { return pool.active_keys() == 1; }));
    };
    EXPECT_EQ(pool.cancel("a"), 1U);
    busy.open();
    pool.drain();
    EXPECT_EQ(pool.stats().discarded, 1U);
}

TEST(Together, is_one_job_in_the_histograms_and_one_of_each_of_its_keys) {
    constexpr int jobs = 2'000;
    task_pool pool({.threads = 2});
    for (int i = 0; i < jobs; ++i)
        pool.submit_together({"a", "b", "c"}, [] {});
    pool.drain();
    EXPECT_EQ(pool.stats().wait_time.total(), std::uint64_t{jobs});
    EXPECT_EQ(pool.stats().run_time.total(), std::uint64_t{jobs});
    const auto hottest = pool.hottest_keys(4);
    ASSERT_EQ(hottest.size(), 3U);
    for (const auto& key : hottest)
        EXPECT_GT(key.jobs, std::uint64_t{jobs} / 4); // an estimate
}

TEST(Together, two_literals_in_braces_are_two_keys) {
    manual_pool pool;
    pool.submit_together({"a", "b"}, [] {});
    pool.pause("a");
    EXPECT_EQ(pool.active_keys(), 2U);
    pool.resume("a");
}

TEST(Together, takes_keys_of_every_type_and_any_number) {
    basic_manual_pool<int> pool;
    std::vector<int> keys = count_up(10'000);
    int ran = 0;
    EXPECT_TRUE(pool.submit_together(keys, [&] { ++ran; }));
    EXPECT_TRUE(pool.submit_together(std::span(keys).first(3), [&] { ++ran; }));
    EXPECT_TRUE(pool.submit_together({1, 2}, [&] { ++ran; }));
    EXPECT_TRUE(pool.submit_together({7}, [&] { ++ran; }));
    EXPECT_EQ(pool.active_keys(), 10'000U);
    pool.drain();
    EXPECT_EQ(ran, 4);
    manual_pool of_strings;
    const std::array<const char*, 2> literals{"x", "y"};
    EXPECT_TRUE(of_strings.submit_together(std::vector<std::string>{"a", "b"}, [&] { ++ran; }));
    EXPECT_TRUE(of_strings.submit_together(std::vector<std::string_view>{"a", "b"}, [&] { ++ran; }));
    EXPECT_TRUE(of_strings.submit_together(literals, [&] { ++ran; }));
    of_strings.drain();
    EXPECT_EQ(ran, 7);
    basic_manual_pool<counted_key, counted_key::hash> counted;
    EXPECT_TRUE(counted.submit_together({counted_key(1), counted_key(2)}, [&] { ++ran; }));
    counted.drain();
    EXPECT_EQ(ran, 8);
}

TEST(Together, without_a_key_is_refused) {
    manual_pool pool;
    EXPECT_THROW(pool.submit_together(std::vector<std::string>(), [] {}), std::invalid_argument);
}

TEST(Together, jobs_in_opposite_order_of_keys_do_not_wait_for_each_other) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2});
    for (int i = 0; i < 1000; ++i) {
        pool.submit_together({"a", "b", "c"}, [&] { ++ran; });
        pool.submit_together({"c", "b", "a"}, [&] { ++ran; });
        pool.submit_together({"b", "a"}, [&] { ++ran; });
    }
    pool.drain();
    EXPECT_EQ(ran, 3000);
}

TEST(Together, that_is_not_accepted_leaves_the_job_with_the_caller) {
    manual_pool pool({.lane_capacity = 1});
    pool.submit("b", [] {});
    auto token = std::make_unique<int>(1);
    auto job = [token = std::move(token)] { EXPECT_TRUE(token); };
    EXPECT_EQ(pool.try_submit_together({"a", "b"}, std::move(job)), submit_status::full);
    EXPECT_EQ(pool.active_keys(), 1U); // no place was taken under "a"
    pool.run_until_idle();
    EXPECT_TRUE(pool.try_submit_together({"a", "b"}, std::move(job)));
    pool.close();
    EXPECT_EQ(pool.submit_together({"a", "b"}, [] {}), submit_status::stopped);
    pool.drain();
    EXPECT_EQ(pool.stats().rejected, 2U);
}

struct throws_when_moved {
    explicit throws_when_moved(bool throws) : does(throws) {}
    throws_when_moved(throws_when_moved&& other) : does(other.does) {
        if (does)
            throw std::runtime_error("moved");
    }
    void operator()() {}
    bool does;
};

TEST(Together, a_callable_that_throws_when_moved_leaves_the_pool_as_it_was) {
    manual_pool pool;
    EXPECT_THROW(pool.submit_together({"a", "b"}, throws_when_moved(true)), std::runtime_error);
    EXPECT_EQ(pool.active_keys(), 0U);
    EXPECT_EQ(pool.stats().accepted, 0U);
    EXPECT_TRUE(pool.submit_together({"a", "b"}, throws_when_moved(false)));
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 1U);
}

TEST(Together, a_future_has_its_result) {
    task_pool pool({.threads = 2});
    EXPECT_EQ(pool.async_together({"a", "b"}, [] { return 42; }).get(), 42);
    const std::vector<std::string> keys{"a", "b"};
    auto failed = pool.async_together(keys, []() -> int { throw std::runtime_error("no"); });
    EXPECT_THROW(failed.get(), std::runtime_error);
    pool.drain();
    EXPECT_EQ(pool.stats().failed, 1U);
    pool.close();
    EXPECT_THROW(pool.async_together({"a", "b"}, [] {}).get(), job_rejected);
}

TEST(Together, its_context_is_that_of_one_of_its_keys) {
    manual_pool pool;
    std::string key;
    pool.submit_together({"a", "b"}, [&](const job_context& context) {
        key = context.key();
        EXPECT_EQ(context.number(), 1U);
        EXPECT_EQ(context.attempt(), 1U);
        EXPECT_FALSE(context.stop_requested());
    });
    pool.drain();
    EXPECT_TRUE(key == "a" || key == "b");
}

TEST(Together, a_hold_keeps_all_its_keys) {
    manual_pool pool;
    held hold;
    int ran = 0;
    pool.submit_together({"a", "b"}, [&](const job_context& context) { hold = context.hold(); });
    pool.submit("a", [&] { ++ran; });
    pool.submit("b", [&] { ++ran; });
    pool.run_until_idle();
    EXPECT_EQ(ran, 0);
    EXPECT_EQ(pool.stats().finished, 0U);
    hold.release();
    pool.run_until_idle();
    EXPECT_EQ(ran, 2);
    EXPECT_EQ(pool.stats().finished, 3U);
}

TEST(Together, all_lanes_wait_for_the_oldest_of_their_jobs_by_age) {
    strings ran;
    manual_pool pool;
    pool.submit_together({"a", "b"}, [&] { ran.push_back("low"); }, {.priority = priority::low});
    pool.submit_together({"c", "d"}, [&] { ran.push_back("high"); }, {.priority = priority::high});
    pool.run_until_idle();
    EXPECT_EQ(ran, (strings{"high", "low"}));
}

TEST(Together, under_every_seed_transfers_keep_the_total) {
    EXPECT_TRUE(for_each_seed(200, [](std::uint64_t seed) {
        std::minstd_rand random(static_cast<unsigned>(seed));
        std::array<int, 5> accounts{100, 100, 100, 100, 100};
        basic_manual_pool<int> pool({}, seed);
        for (int i = 0; i < 60; ++i) {
            const int from = static_cast<int>(random() % 5);
            const int to = static_cast<int>(random() % 5);
            pool.submit_together({from, to}, [&accounts, from, to] {
                --accounts[static_cast<std::size_t>(from)];
                ++accounts[static_cast<std::size_t>(to)];
            });
            if (random() % 4 == 0)
                pool.step();
        }
        pool.drain();
        return accounts[0] + accounts[1] + accounts[2] + accounts[3] + accounts[4] == 500 &&
               pool.stats().finished == 60;
    }));
}

TEST(Together, a_late_one_is_discarded) {
    strings told;
    manual_pool pool({.on_discard = [&](const discard& d) { told.emplace_back(d.key); }});
    pool.submit_together({"a", "b"}, with_deadline(pool.now() + 1ms, [] { FAIL(); }));
    pool.clock().advance(5ms);
    pool.run_until_idle();
    EXPECT_EQ(told.size(), 1U);
    const auto s = pool.stats();
    EXPECT_EQ(s.expired, 1U);
    EXPECT_EQ(s.discarded, 1U);
    EXPECT_EQ(s.finished, 0U);
}

TEST(Together, is_not_tried_again) {
    int letters = 0;
    int attempts = 0;
    int failures = 0;
    manual_pool pool({.retry = retry{.max_attempts = 5}, .on_failure = [&](const failure&) { ++failures; }});
    const auto fails = [&] {
        ++attempts;
        throw std::runtime_error("no");
    };
    pool.submit_together({"a", "b"}, fails);
    pool.submit_together({"a", "b"}, with_retry({.max_attempts = 5,
                                                 .handler =
                                                     [&](dead_letter&& letter) {
                                                         ++letters;
                                                         EXPECT_EQ(letter.attempts, 1U);
                                                         EXPECT_FALSE(letter.job);
                                                     }},
                                                fails));
    pool.drain();
    EXPECT_EQ(attempts, 2);
    EXPECT_EQ(failures, 1);
    EXPECT_EQ(letters, 1);
    EXPECT_EQ(pool.stats().failed, 2U);
    EXPECT_EQ(pool.stats().finished, 2U);
}

TEST(Together, takes_a_token_of_each_of_its_keys) {
    manual_pool pool({.rate = rate{10, per_second}});
    pool.submit("a", [] {});
    pool.run_until_idle();
    pool.run_for(50ms);
    pool.submit("b", [] {});
    std::chrono::nanoseconds at{};
    pool.submit_together({"a", "b"}, [&] { at = pool.now().time_since_epoch(); });
    pool.drain();
    EXPECT_EQ(at, 150ms);
}

TEST(Together, one_that_was_killed_or_came_too_late_takes_no_token) {
    manual_pool pool({.rate = rate{1, per_hour}});
    pool.pause("b");
    pool.submit_together({"a", "b"}, [] { FAIL(); });
    pool.run_until_idle();
    EXPECT_EQ(pool.cancel("a"), 1U);
    pool.resume("b");
    pool.run_until_idle();
    bool ran = false;
    pool.submit("b", [&] { ran = true; });
    pool.run_until_idle();
    EXPECT_TRUE(ran);
    pool.submit_together({"c", "d"}, with_deadline(pool.now() - 1ms, [] { FAIL(); }));
    pool.run_until_idle();
    std::chrono::nanoseconds at{};
    pool.submit_together({"c", "d"}, [&] { at = pool.now().time_since_epoch(); });
    const auto before = pool.now().time_since_epoch();
    pool.drain();
    EXPECT_EQ(at, before);
}

TEST(Together, the_pool_s_capacity_is_kept_though_many_places_begin_at_once_stress) {
    basic_task_pool<int> pool({.threads = 2, .pool_capacity = 1});
    const std::vector<int> keys = count_up(60);
    for (int round = 0; round < 100; ++round) {
        pool.pause(59);
        while (!pool.try_submit_together(keys, [] {}).accepted())
            std::this_thread::yield();
        // Its other places begin, and it waits.
        EXPECT_TRUE(for_a_while([&] { return !pool.try_submit(1000, [] {}).accepted(); }, 300us));
        pool.resume(59);
        pool.drain();
    }
}

// --- Waits that could never end --------------------------------------------------------------------------------------

TEST(Together, a_job_that_waits_for_one_of_its_own_keys_is_told) {
    gate runs;
    gate go_on;
    task_pool pool({.threads = 2});
    const opener opens(go_on);
    auto first = pool.async("b", [&] {
        runs.open();
        go_on.wait();
        auto both = pool.async_together({"a", "b"}, [] {});
        EXPECT_THROW(both.get(), deadlock_error); // it needs "b"
    });
    runs.wait();
    go_on.open();
    first.get();
    pool.drain();
}

// The search for waits that never end looks at jobs of several keys while they end, and may be the last to know one.
TEST(Together, jobs_of_one_key_end_while_waits_behind_them_are_looked_at_stress) {
    task_pool pool({.threads = 3});
    std::atomic<int> ran = 0;
    const int rounds = sanitized ? 300 : 3000;
    std::thread other([&] {
        for (int i = 0; i < rounds * 4; ++i)
            pool.submit_together({"a"}, [&ran] { ++ran; });
    });
    for (int i = 0; i < rounds; ++i)
        for (const char* const key : {"b", "c"})
            pool.submit(key, [&] { pool.async("a", [&ran] { ++ran; }).get(); });
    other.join();
    pool.drain();
    EXPECT_EQ(ran, rounds * 6);
}

TEST(Together, remains_of_cancelled_ones_go_while_waits_behind_them_are_looked_at_stress) {
    task_pool pool({.threads = 4});
    const int rounds = sanitized ? 200 : 2'000;
    for (int i = 0; i < rounds; ++i) {
        std::latch gate(1);
        for (const char* const key : {"a", "x"})
            pool.submit(key, [&gate] { gate.wait(); });
        for (int k = 0; k < 80; ++k)
            pool.submit_together({"a", "x"}, [] {});
        EXPECT_GE(pool.cancel("x"), 80U); // their places in the other lane are left
        auto first = pool.async("a", [] { return 1; });
        auto second = pool.async("a", [] { return 2; });
        auto waits = pool.async("b", [&first] { return first.get(); });
        auto waits_too = pool.async("c", [&second] { return second.get(); });
        gate.count_down();
        EXPECT_EQ(waits.get() + waits_too.get(), 3);
        pool.drain();
    }
}

// I-TOGETHER-1
TEST(Together, a_place_in_a_worker_s_hands_is_seen_stress) {
    basic_task_pool<int> pool({.threads = 3});
    int told = 0;
    const int rounds = sanitized ? 300 : 3000;
    for (int i = 0; i < rounds; ++i)
        pool.async(1,
                   [&] {
                       auto both = pool.async_together({0, 1}, [] {});
                       burn(std::chrono::nanoseconds(i % 400 * 5));
                       try {
                           both.get();
                       } catch (const deadlock_error&) {
                           ++told;
                       }
                   })
            .get();
    EXPECT_EQ(told, rounds);
}

TEST(Together, a_wait_for_a_coroutine_that_lends_its_key_is_one_for_all_of_its_lane) {
    manual_pool pool;
    bool told = false;
    pool.submit("b", [&] {
        const auto sleeps = []() -> task<> { co_await sleep_for(1ms); };
        auto lends = pool.spawn("a", sleeps(), {.while_suspended = suspension::interleave});
        pool.async("c", [] {}).get();
        pool.submit_together({"a", "b"}, [] {});
        try {
            lends.get();
        } catch (const deadlock_error&) {
            told = true; // its resumption may come to lie behind that job
        }
    });
    pool.drain();
    EXPECT_TRUE(told);
}

TEST(Together, a_wait_for_what_is_before_it_is_none_for_it) {
    task_pool pool({.threads = 2});
    pool.async("b",
               [&] {
                   auto before = pool.async("a", [] { return 1; });
                   auto both = pool.submit_together({"a", "b"}, [] {});
                   EXPECT_EQ(before.get(), 1);
                   pool.submit("a", [] {});
               })
        .get();
    pool.drain();
}

TEST(Together, a_wait_for_what_is_behind_it_is_one_for_all_its_keys) {
    task_pool pool({.threads = 3});
    pool.async("b",
               [&] {
                   pool.submit_together({"a", "b"}, [] {});
                   auto behind = pool.async("a", [] {});
                   try {
                       behind.get();
                       ADD_FAILURE();
                   } catch (const deadlock_error& error) {
                       EXPECT_EQ(error.keys(), strings{"b"});
                   }
                   EXPECT_THROW(pool.drain("a"), deadlock_error);
               })
        .get();
    pool.drain();
}

TEST(Together, a_wait_for_what_follows_a_job_behind_it_is_one_for_all_its_keys) {
    task_pool pool({.threads = 3});
    pool.async("b",
               [&] {
                   auto before = pool.async("a", [] { return 1; }).then("c", [](int n) { return n + 1; });
                   pool.submit_together({"a", "b"}, [] {});
                   auto behind = pool.async("a", [] {}).then("d", [] {}).then("e", [] {});
                   try {
                       behind.get();
                       ADD_FAILURE();
                   } catch (const deadlock_error& error) {
                       EXPECT_EQ(error.keys(), strings{"b"});
                   }
                   EXPECT_EQ(before.get(), 2);
               })
        .get();
    pool.drain();
}

TEST(Together, cycles_through_several_of_them_are_found) {
    task_pool pool({.threads = 3});
    pool.async("a",
               [&] {
                   pool.submit_together({"a", "b"}, [] {});
                   pool.submit_together({"b", "c"}, [] {});
                   pool.submit_together({"c", "d"}, [] {});
                   auto far = pool.async("d", [] {}); // behind c-d, behind b-c, behind a-b
                   EXPECT_THROW(far.get(), deadlock_error);
                   auto free = pool.async("e", [] { return 5; });
                   EXPECT_EQ(free.get(), 5);
               })
        .get();
    pool.drain();
}

TEST(Together, a_running_one_that_waits_for_a_key_it_holds_is_told) {
    task_pool pool({.threads = 2});
    const auto f = [&] {
        EXPECT_THROW(pool.async("a", [] {}).get(), deadlock_error);
        EXPECT_THROW(pool.async("b", [] {}).get(), deadlock_error);
        EXPECT_EQ(pool.async("c", [] { return 3; }).get(), 3);
    };
    pool.async_together({"a", "b"}, f).get();
    pool.drain();
}

TEST(Together, a_full_lane_that_it_holds_is_no_place_to_wait_at) {
    task_pool pool({.threads = 2, .lane_capacity = 1});
    const auto f = [&] {
        for (const auto* const key : {"a", "b"}) {
            EXPECT_TRUE(pool.submit(key, [] {}));
            EXPECT_EQ(pool.submit(key, [] {}), submit_status::would_deadlock);
        }
    };
    pool.async_together({"a", "b"}, f).get();
    pool.drain();
}

TEST(Together, a_drain_of_a_key_that_one_joins_with_the_waiting_job_s_key_meanwhile_is_told) {
    gate busy;
    gate waits;
    task_pool pool({.threads = 3});
    const opener opens(busy);
    occupy(pool, "a", busy);
    auto told = pool.async("b", [&] {
        waits.open();
        EXPECT_THROW(pool.drain("a"), deadlock_error);
    });
    waits.wait();
    pool.submit_together({"a", "b"}, [] {});
    busy.open();
    told.get();
    pool.drain();
}

TEST(Together, a_wait_for_what_follows_another_job_is_told_when_one_comes_before_that_meanwhile) {
    held hold;
    task_pool pool({.threads = 2});
    pool.async("a", [&](const job_context& context) { hold = context.hold(); }).get();
    auto told = pool.async("b", [&] {
        auto after = pool.async("a", [] {}).then("c", [] {});
        EXPECT_THROW(after.get(), deadlock_error);
    });
    ASSERT_TRUE(eventually([&] { return pool.stats().blocked_threads == 1; }));
    pool.submit_together({"b", "c"}, [] {});
    told.get();
    hold.release();
    pool.drain();
}

TEST(Together, one_that_comes_before_what_a_coroutine_waits_for_and_waits_for_that_is_discarded) {
    std::atomic<int> discarded = 0;
    held hold;
    task_pool pool({.threads = 2, .on_discard = [&](const discard& d) {
                        EXPECT_EQ(d.reason, discard_reason::would_deadlock);
                        ++discarded;
                    }});
    pool.async("a", [&](const job_context& context) { hold = context.hold(); }).get();
    const auto waits = [](task_pool& in) -> task<int> {
        co_return co_await in.async("a", [] {}).then("c", [] { return 3; });
    };
    auto result = pool.spawn("b", waits(pool));
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 2; }));
    auto both = pool.async_together({"b", "c"}, [] {});
    EXPECT_THROW(both.get(), job_discarded);
    hold.release();
    EXPECT_EQ(result.get(), 3);
    EXPECT_EQ(discarded, 1);
    pool.drain();
    EXPECT_EQ(pool.stats().waiting, 0U);
}

TEST(Together, such_a_one_is_discarded_by_a_manual_pool_when_nothing_else_can_run) {
    std::vector<discard_reason> reasons;
    held hold;
    manual_pool pool({.on_discard = [&](const discard& d) { reasons.push_back(d.reason); }});
    pool.submit("a", [&](const job_context& context) { hold = context.hold(); });
    auto result = pool.spawn("b", [](manual_pool& in) -> task<int> {
        co_return co_await in.async("a", [] {}).then("c", [] { return 3; });
    }(pool));
    pool.run_until_idle();
    for (int i = 0; i < 2; ++i)
        pool.submit_together({"b", "c"}, [] { ADD_FAILURE(); });
    pool.run_until_idle();
    EXPECT_EQ(reasons, std::vector(2, discard_reason::would_deadlock));
    hold.release();
    EXPECT_EQ(result.get(), 3);
    pool.drain();
}

TEST(Together, a_pool_that_is_full_of_them_is_no_place_to_wait_at) {
    task_pool pool({.threads = 2, .pool_capacity = 2});
    pool.async("a",
               [&] {
                   EXPECT_TRUE(pool.submit_together({"a", "b"}, [] {}));
                   EXPECT_TRUE(pool.submit_together({"a", "c"}, [] {}));
                   EXPECT_EQ(pool.submit("d", [] {}), submit_status::would_deadlock);
                   EXPECT_EQ(pool.submit_together({"d", "e"}, [] {}), submit_status::would_deadlock);
               })
        .get();
    pool.drain();
}

// --- On threads ------------------------------------------------------------------------------------------------------

TEST(Together, order_exclusion_and_counts_of_random_ones_stress) {
    constexpr int keys = 20;
    constexpr int producers = 4;
    const int each = sanitized ? 3000 : 20'000;
    struct account {
        std::atomic<int> inside = 0;
        std::vector<std::pair<int, int>> ran; // only in jobs of the key
    };
    std::vector<account> accounts(keys);
    std::atomic<int> violations = 0;
    std::atomic<std::uint64_t> ended = 0;
    {
        basic_task_pool<int> pool({.threads = 2, .lane_capacity = 50});
        std::vector<std::jthread> threads;
        for (int p = 0; p < producers; ++p)
            threads.emplace_back([&, p] {
                std::minstd_rand random(static_cast<unsigned>(p) + 1);
                for (int i = 0; i < each; ++i) {
                    std::vector<int> of(1 + random() % 3);
                    for (auto& key : of)
                        key = static_cast<int>(random() % keys);
                    auto job = [&, of, p, i] {
                        const std::set<int> unique(of.begin(), of.end());
                        for (const int key : unique) {
                            auto& a = accounts[static_cast<std::size_t>(key)];
                            violations += a.inside.exchange(1);
                            a.ran.emplace_back(p, i);
                        }
                        for (const int key : unique)
                            violations += 1 - accounts[static_cast<std::size_t>(key)].inside.exchange(0);
                        ++ended;
                    };
                    if (of.size() == 1)
                        ASSERT_TRUE(pool.submit(of[0], std::move(job)));
                    else
                        ASSERT_TRUE(pool.submit_together(of, std::move(job)));
                }
            });
        threads.clear();
        pool.drain();
        EXPECT_EQ(pool.stats().finished, static_cast<std::uint64_t>(producers * each));
        EXPECT_EQ(pool.stats().waiting, 0U);
    }
    EXPECT_EQ(violations, 0);
    EXPECT_EQ(ended, static_cast<std::uint64_t>(producers * each));
    for (const auto& a : accounts) {
        std::array<int, producers> last;
        last.fill(-1);
        for (const auto& [p, i] : a.ran) {
            EXPECT_GT(i, last[static_cast<std::size_t>(p)]);
            last[static_cast<std::size_t>(p)] = i;
        }
    }
}

// I-TOGETHER-2, I-TOGETHER-3
TEST(Together, each_is_run_once_or_told_whatever_is_cancelled_paused_and_stopped_stress) {
    constexpr int keys = 6;
    for (int round = 0; round < (sanitized ? 10 : 40); ++round) {
        std::atomic<std::uint64_t> ran = 0;
        std::atomic<std::uint64_t> told = 0;
        std::uint64_t accepted = 0;
        std::vector<int> inside(keys); // plain: the jobs' keys keep them apart
        basic_task_pool<int> pool({.threads = 2, .lane_capacity = 20, .on_discard = [&](const discard&) { ++told; }});
        std::jthread restless([&](const std::stop_token& stop) {
            std::minstd_rand random(static_cast<unsigned>(round) + 1);
            while (!stop.stop_requested()) {
                const int key = static_cast<int>(random() % keys);
                if (random() % 2 == 0) {
                    pool.cancel(key);
                } else {
                    pool.pause(key);
                    pool.resume(key);
                }
            }
        });
        std::minstd_rand random(static_cast<unsigned>(round) + 99);
        for (int i = 0; i < 2000; ++i) {
            const int a = static_cast<int>(random() % keys);
            const int b = static_cast<int>(random() % keys);
            const job_options how{.on_stop = random() % 4 == 0 ? stop_action::run : stop_action::discard};
            auto job = [&inside, &ran, a, b] {
                ++inside[static_cast<std::size_t>(a)];
                ++inside[static_cast<std::size_t>(b)];
                ++ran;
            };
            accepted += pool.submit_together({a, b}, job, how).accepted() ? 1U : 0U;
        }
        if (round % 2 == 0) {
            restless = {};
            for (int key = 0; key < keys; ++key)
                pool.resume(key);
            pool.drain();
        }
        const auto report = pool.stop();
        restless = {}; // it may be telling of what it has cancelled
        EXPECT_EQ(accepted, 2000U);
        EXPECT_EQ(ran + told, accepted);
        EXPECT_EQ(report.finished, ran);
        EXPECT_EQ(report.discarded, told);
        EXPECT_EQ(pool.stats().accepted, accepted);
    }
}

// --- Matrix ----------------------------------------------------------------------------------------------------------

options with_discards(strings& told) {
    return {.on_discard = [&](const discard& d) { told.emplace_back(d.key); }};
}

/// "a" waits for "b", which is paused, with a job of both.
template <class F>
void begin_to_wait(manual_pool& pool, F&& job, const job_options& how = {}) {
    pool.pause("b");
    ASSERT_TRUE(pool.submit_together({"a", "b"}, std::forward<F>(job), how));
    pool.run_until_idle();
    ASSERT_EQ(pool.stats().suspended_lanes, 1U);
}

TEST(Matrix_together, stop) {
    strings told;
    bool ran = false;
    manual_pool pool(with_discards(told));
    begin_to_wait(pool, [] { FAIL(); });
    pool.submit_together({"b", "c"}, [&] { ran = true; }, {.on_stop = stop_action::run});
    pool.submit_together({"c", "d"}, [] { FAIL(); });
    const auto report = pool.stop();
    EXPECT_EQ(report.discarded, 2U);
    EXPECT_EQ(report.discarded_by_stop, 2U);
    EXPECT_EQ(told.size(), 2U);
    EXPECT_TRUE(ran);
}

TEST(Matrix_together, drain) {
    manual_pool pool;
    bool ran = false;
    begin_to_wait(pool, [&] { ran = true; });
    EXPECT_FALSE(pool.drain_for(1ms).drained);
    pool.resume("b");
    pool.drain("a");
    EXPECT_TRUE(ran);
}

TEST(Matrix_together, cancel_key) {
    for (const auto* const key : {"a", "b"}) { // that which is held for it, that in which it waits
        strings told;
        manual_pool pool(with_discards(told));
        begin_to_wait(pool, [] { FAIL(); });
        bool after = false;
        pool.submit("a", [&] { after = true; });
        pool.submit("b", [] {});
        pool.resume(key);
        EXPECT_EQ(pool.cancel(key), 2U);
        EXPECT_EQ(told, (strings(2, key)));
        EXPECT_EQ(pool.cancel("c"), 0U);
        pool.resume("b");
        pool.drain();
        EXPECT_EQ(after, std::string_view(key) == "b");
        EXPECT_EQ(pool.stats().discarded, 2U);
        EXPECT_EQ(pool.stats().finished, 1U);
        EXPECT_EQ(pool.stats().waiting, 0U);
    }
}

TEST(Matrix_together, cancel_key_while_it_runs) {
    for (const auto* const key : {"a", "b"}) {
        gate runs;
        std::atomic<bool> told = false;
        task_pool pool({.threads = 2});
        ASSERT_TRUE(pool.submit_together({"a", "b"}, [&](const job_context& context) {
            const std::stop_callback callback(context.stop_token(), [&] { told = true; });
            runs.open();
            while (!context.stop_requested() || !told) {
            }
        }));
        runs.wait();
        pool.cancel(key);
        pool.drain();
        EXPECT_TRUE(told);
        // The next ones are not asked.
        EXPECT_FALSE(pool.async("a", [](const job_context& c) { return c.stop_requested(); }).get());
        EXPECT_FALSE(pool.async("b", [](const job_context& c) { return c.stop_requested(); }).get());
    }
}

TEST(Matrix_together, job_throws) {
    strings failed;
    manual_pool pool({.on_failure = [&](const failure& f) { failed.emplace_back(f.key); }});
    int ran = 0;
    pool.submit_together({"a", "b"}, [] { throw std::runtime_error("no"); });
    pool.submit("a", [&] { ++ran; });
    pool.submit("b", [&] { ++ran; });
    pool.drain();
    EXPECT_EQ(failed.size(), 1U);
    EXPECT_EQ(ran, 2);
    EXPECT_EQ(pool.stats().failed, 1U);
}

TEST(Matrix_together, lane_full) {
    manual_pool pool({.lane_capacity = 1});
    strings ran;
    pool.submit("b", [&] { ran.push_back("b"); });
    EXPECT_EQ(pool.try_submit_together({"a", "b"}, [] { FAIL(); }), submit_status::full);
    EXPECT_TRUE(pool.submit_together({"a", "b"}, [&] { ran.push_back("ab"); })); // waits
    EXPECT_EQ(pool.try_submit("a", [] {}), submit_status::full);                 // it has a place there
    pool.drain();
    EXPECT_EQ(ran, (strings{"b", "ab"}));
}

TEST(Matrix_together, pool_full) {
    manual_pool pool({.pool_capacity = 2});
    int ran = 0;
    EXPECT_TRUE(pool.submit_together({"a", "b", "c"}, [&] { ++ran; })); // one place
    EXPECT_TRUE(pool.submit("d", [&] { ++ran; }));
    EXPECT_EQ(pool.try_submit_together({"a", "b"}, [] { FAIL(); }), submit_status::full);
    EXPECT_TRUE(pool.submit_together({"a", "b"}, [&] { ++ran; })); // waits
    pool.drain();
    EXPECT_EQ(ran, 3);
    for (int i = 0; i < 100; ++i) { // the room is all there again
        ASSERT_TRUE(pool.try_submit_together({"a", "b"}, [] {}));
        ASSERT_TRUE(pool.try_submit_together({"a", "c"}, [] {}));
        ASSERT_EQ(pool.try_submit("x", [] {}), submit_status::full);
        if (i % 2 == 0)
            pool.cancel("a");
        pool.drain();
    }
}

TEST(Matrix_together, pool_overloaded) {
    manual_pool pool({.max_wait = 10ms});
    pool.submit("b", [] {});
    pool.clock().advance(20ms);
    EXPECT_EQ(pool.submit_together({"a", "b"}, [] { FAIL(); }), submit_status::overloaded);
    EXPECT_EQ(pool.active_keys(), 1U);
    pool.run_until_idle();
    EXPECT_TRUE(pool.submit_together({"a", "b"}, [] {}));
    pool.drain();
}

TEST(Matrix_together, overflow_rules) {
    for (const auto rule : {overflow::drop_oldest, overflow::keep_latest}) {
        manual_pool pool({.lane_capacity = 1, .when_full = rule});
        bool ran = false;
        pool.submit("b", [] {});
        EXPECT_EQ(pool.submit_together({"a", "b"}, [] { FAIL(); }), submit_status::full);
        pool.run_until_idle();
        EXPECT_TRUE(pool.submit_together({"a", "b"}, [&] { ran = true; }));
        EXPECT_EQ(pool.submit("a", [] { FAIL(); }), submit_status::full); // it is not dropped
        pool.drain();
        EXPECT_TRUE(ran);
    }
}

TEST(Matrix_together, key_paused) {
    manual_pool pool;
    bool ran = false;
    begin_to_wait(pool, [&] { ran = true; });
    pool.submit("a", [&] { EXPECT_TRUE(ran); });
    pool.run_until_idle();
    EXPECT_FALSE(ran);
    pool.resume("b");
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Matrix_together, pool_destroyed) {
    strings told;
    {
        manual_pool pool(with_discards(told));
        begin_to_wait(pool, [] { FAIL(); });
    }
    EXPECT_EQ(told.size(), 1U);
}

TEST(Matrix_together, key_submitted_to_meanwhile) {
    manual_pool pool;
    strings ran;
    begin_to_wait(pool, [&] { ran.push_back("ab"); });
    pool.submit("a", [&] { ran.push_back("a"); }); // behind it
    pool.submit("c", [&] { ran.push_back("c"); });
    pool.run_until_idle();
    EXPECT_EQ(ran, strings{"c"});
    pool.resume("b");
    pool.drain();
    EXPECT_EQ(ran, (strings{"c", "ab", "a"}));
}

} // namespace
} // namespace taskpool::testing
