// SPDX-License-Identifier: Apache-2.0
// Defects of coroutines and futures that were found once, by what they did.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

/// A key whose copies throw on demand.
struct throwing_key {
    int value;
    static inline bool throws = false;
    explicit throwing_key(int v) : value(v) {}
    throwing_key(const throwing_key& other) : value(other.value) {
        if (throws)
            throw std::runtime_error("copied");
    }
    throwing_key& operator=(const throwing_key&) = default;
    friend bool operator==(const throwing_key& a, const throwing_key& b) { return a.value == b.value; }
    struct hash {
        std::size_t operator()(const throwing_key& key) const { return std::hash<int>()(key.value); }
    };
};

TEST(Regression_coroutine, one_that_owns_its_pool_may_be_the_last_to_do_so) {
    for (const auto mode : {suspension::hold, suspension::interleave}) {
        auto pool = std::make_shared<task_pool>(options{.threads = 1});
        auto* const seen = pool.get();
        gate ended;
        ASSERT_TRUE(seen->submit("key",
                                 [pool, &ended]() -> task<> {
                                     co_await sleep_for(5ms);
                                     ended.open();
                                 },
                                 {.while_suspended = mode}));
        pool.reset();
        ended.wait();
    }
}

TEST(Regression_coroutine, a_submit_that_throws_leaves_it_whole) {
    basic_task_pool<throwing_key, throwing_key::hash> pool({.threads = 1});
    const auto give = []() -> task<int> { co_return 4; };
    auto mine = give();
    const throwing_key key(1);
    throwing_key::throws = true;
    EXPECT_THROW(pool.submit(key, std::move(mine)), std::runtime_error);
    EXPECT_THROW(pool.spawn(key, std::move(mine)), std::runtime_error);
    throwing_key::throws = false;
    ASSERT_TRUE(mine.valid()); // NOLINT(bugprone-use-after-move): that is what is asked
    auto result = pool.spawn(key, std::move(mine));
    pool.drain();
    EXPECT_EQ(result.get(), 4);
}

TEST(Regression_future, a_wait_for_what_follows_the_own_key_is_refused) {
    task_pool pool({.threads = 2});
    auto result = pool.async("a", [&] {
        return pool.async("a", [] { return 1; })
            .then("b", [](int n) { return n; })
            .then("c", [](int n) { return n; })
            .get();
    });
    try {
        result.get();
        FAIL() << "it waits for itself";
    } catch (const deadlock_error& error) {
        EXPECT_EQ(error.keys(), std::vector<std::string>{"a"});
    }
}

TEST(Regression_future, a_cycle_through_what_is_followed_is_refused_whoever_waits_first) {
    for (const bool a_is_first : {true, false}) {
        gate made;
        std::atomic<int> refused = 0;
        task_pool pool({.threads = 2});
        future<int> of_a;
        const auto wait = [&](future<int> on, bool first) {
            // The second one begins when the first one's thread is known to wait, as a rule: either may be refused.
            EXPECT_TRUE(first || eventually([&] { return pool.stats().blocked_threads > 0; }));
            try {
                return on.get();
            } catch (const deadlock_error& error) {
                EXPECT_EQ(sorted(error.keys()), (std::vector<std::string>{"a", "b"}));
                ++refused;
                return 0;
            }
        };
        of_a = pool.async("a", [&] {
            auto chain = pool.async("b",
                                    [&] {
                                        made.wait();
                                        return wait(std::move(of_a), !a_is_first);
                                    })
                             .then("c", [](int n) { return n; });
            made.wait();
            return wait(std::move(chain), a_is_first);
        });
        made.open();
        pool.drain();
        EXPECT_EQ(refused, 1);
    }
}

TEST(Regression_future, long_chains_need_no_stack_and_keep_no_results) {
    constexpr int links = sanitized ? 20'000 : 300'000;
    int fails = 0;
    {
        gate busy;
        task_pool pool({.threads = 1, .max_threads = 1});
        const opener opens(busy);
        occupy(pool, "first", busy);
        auto fine = pool.async("first", [] { return 0; });
        auto failing = pool.async("first", []() -> int { throw std::runtime_error("no"); });
        for (int i = 0; i < links; ++i) {
            fine = std::move(fine).then("a", [](int n) { return n + 1; });
            failing = std::move(failing).then("b", [](int n) { return n; });
        }
        busy.open();
        EXPECT_EQ(fine.get(), links);
        try {
            failing.get();
        } catch (const std::runtime_error&) {
            ++fails;
        }
    }
    EXPECT_EQ(fails, 1);
}

TEST(Regression_coroutine, one_that_interleaves_and_holds_its_key_waits_like_one_that_holds_it) {
    task_pool pool({.threads = 1});
    const auto waits = [](task_pool& on) -> task<int> {
        const held kept = (co_await this_job()).hold();
        co_return co_await on.run("key", [] { return 1; });
    };
    auto result = pool.spawn("key", waits(pool), {.while_suspended = suspension::interleave});
    EXPECT_THROW(result.get(), deadlock_error);
}

TEST(Regression_coroutine, captures_that_hold_the_key_end_with_the_coroutine) {
    struct state {
        held kept;
    };
    std::atomic<bool> next_ran = false;
    task_pool pool({.threads = 1});
    auto shared = std::make_shared<state>();
    ASSERT_TRUE(pool.submit("key", [shared]() -> task<> { shared->kept = (co_await this_job()).hold(); }));
    shared.reset();
    ASSERT_TRUE(pool.submit("key", [&] { next_ran = true; }));
    pool.drain();
    EXPECT_TRUE(next_ran);
}

// --- Calls that exist already take no room of the pool ---------------------------------------------------------------

/// Submits jobs that do nothing until the pool is full.
void fill(task_pool& pool, std::string_view key) {
    while (pool.try_submit(key, [] {})) {
    }
}

TEST(Regression_coroutine, a_run_in_a_pool_that_its_own_key_fills_is_called) {
    task_pool pool({.threads = 2, .pool_capacity = 4});
    auto result = pool.spawn("a", [](task_pool& on) -> task<int> {
        fill(on, "a");
        co_return co_await on.run("b", [] { return 1; });
    }(pool));
    EXPECT_EQ(result.get(), 1);
}

TEST(Regression_coroutine, runs_of_coroutines_that_fill_the_pool_themselves_are_called) {
    std::atomic<int> ended = 0;
    task_pool pool({.threads = 2, .pool_capacity = 10});
    for (int i = 0; i < 40; ++i)
        ASSERT_TRUE(pool.submit("a",
                                [&]() -> task<> {
                                    co_await sleep_for(5ms);
                                    co_await pool.run("b", [] {});
                                    ++ended;
                                },
                                {.while_suspended = suspension::interleave}));
    pool.drain();
    EXPECT_EQ(ended, 40);
}

TEST(Regression_future, what_follows_in_a_pool_that_the_waiting_key_fills_is_called) {
    task_pool pool({.threads = 2, .pool_capacity = 4});
    auto result = pool.async("a", [&] {
        gate busy;
        auto b = pool.async("b", [&] { busy.wait(); });
        while (pool.stats().waiting > 0) // it has begun
            std::this_thread::yield();
        auto d = std::move(b).then("c", [] { return 1; }).then("d", [](int n) { return n; });
        fill(pool, "a");
        busy.open();
        return d.get();
    });
    EXPECT_EQ(result.get(), 1);
}

TEST(Regression, a_submit_in_a_pool_filled_by_sleeping_coroutines_waits_for_one_of_them) {
    const auto clock = std::make_shared<manual_clock>();
    task_pool pool({.threads = 1, .pool_capacity = 4, .clock = clock});
    for (const auto* const key : {"x", "y"})
        ASSERT_TRUE(pool.submit(key, []() -> task<> { co_await sleep_for(20ms); },
                                {.while_suspended = suspension::interleave}));
    auto accepted = pool.async("a", [&] {
        fill(pool, "a");
        return bool(pool.submit("a", [] {}));
    });
    EXPECT_TRUE(eventually([&] { return pool.stats().blocked_threads == 1 || accepted.is_ready(); })); // it waits
    clock->advance(20ms);
    EXPECT_TRUE(accepted.get());
}

// --- Holds of coroutines ---------------------------------------------------------------------------------------------

TEST(Regression_coroutine, what_it_leaves_behind_ends_in_its_job_though_another_thread_releases_the_last_hold) {
    struct asks_at_end {
        task_pool* pool;
        bool* refused;
        asks_at_end(task_pool& on, bool& to) : pool(&on), refused(&to) {}
        asks_at_end(asks_at_end&& other) noexcept : pool(std::exchange(other.pool, nullptr)), refused(other.refused) {}
        asks_at_end& operator=(asks_at_end&&) = delete;
        ~asks_at_end() {
            if (pool == nullptr)
                return;
            try {
                pool->drain();
            } catch (const deadlock_error&) {
                *refused = true;
            }
        }
    };
    bool refused = false;
    bool seen = false;
    task_pool pool({.threads = 1});
    held kept;
    const auto make = [](asks_at_end, held& to) -> task<> { to = (co_await this_job()).hold(); };
    {
        auto result = pool.spawn("key", make(asks_at_end(pool, refused), kept));
        EXPECT_TRUE(eventually([&] { return result.is_ready() && pool.stats().suspended_lanes == 1; }));
    }
    EXPECT_FALSE(refused);
    kept.release();
    ASSERT_TRUE(pool.submit("key", [&] { seen = refused; }));
    pool.drain();
    EXPECT_TRUE(seen);
}

TEST(Regression_coroutine, one_that_interleaves_lets_others_run_once_its_own_hold_is_released) {
    bool next_ran = false;
    task_pool pool({.threads = 1});
    held kept;
    const auto make = [](held& to) -> task<> {
        to = (co_await this_job()).hold();
        co_await sleep_for(1h);
    };
    ASSERT_TRUE(pool.submit("key", make(kept), {.while_suspended = suspension::interleave}));
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    auto next = pool.async("key", [&] { next_ran = true; });
    EXPECT_TRUE(for_a_while([&] { return !next.is_ready(); }));
    kept.release();
    next.get();
    EXPECT_TRUE(next_ran);
    EXPECT_EQ(pool.active_keys(), 1U); // it still sleeps
    EXPECT_EQ(pool.cancel("key"), 0U);
    pool.drain();
}

TEST(Regression_coroutine, its_wait_is_not_held_against_a_key_that_it_no_longer_holds) {
    gate released;
    task_pool pool({.threads = 2});
    held kept;
    const opener opens(released);
    const auto make = [](held& to, task_pool& on, gate& opened) -> task<int> {
        to = (co_await this_job()).hold();
        co_return co_await on.run("b", [&] {
            opened.wait();
            return on.async("a", [] { return 1; }).get(); // which "a" can run
        });
    };
    auto result = pool.spawn("a", make(kept, pool, released), {.while_suspended = suspension::interleave});
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    kept.release();
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 0; }));
    pool.async("a", [] {}).get(); // by now it is detached
    released.open();
    EXPECT_EQ(result.get(), 1);
}

TEST(Regression_coroutine, a_hold_released_in_the_job_that_it_waits_for_lets_that_wait_for_its_key) {
    for (int round = 0; round < 100; ++round) {
        task_pool pool({.threads = 2});
        held kept;
        const auto make = [](held& to, task_pool& on) -> task<int> {
            to = (co_await this_job()).hold();
            co_return co_await on.run("b", [&] {
                to.release();
                return on.async("a", [] { return 1; }).get();
            });
        };
        EXPECT_EQ(pool.spawn("a", make(kept, pool), {.while_suspended = suspension::interleave}).get(), 1);
    }
}

TEST(Regression_coroutine, a_key_that_an_ended_one_is_released_from_is_as_old_as_its_oldest_job) {
    gate busy;
    std::latch begun(1);
    task_pool pool({.threads = 1, .max_threads = 1});
    held kept;
    std::vector<std::string> order;
    const auto make = [](held& to) -> task<> { to = (co_await this_job()).hold(); };
    pool.spawn("key", make(kept)).get();
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    ASSERT_TRUE(pool.submit("key", [&] { order.emplace_back("old"); }));
    let_ticks_pass();
    const opener opens(busy);
    ASSERT_TRUE(pool.submit("busy", [&] {
        begun.count_down();
        busy.wait();
    }));
    begun.wait();
    kept.release();
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(pool.submit("other-" + std::to_string(i), [&] { order.emplace_back("young"); }));
    busy.open();
    pool.drain();
    EXPECT_EQ(order.front(), "old");
}

} // namespace
} // namespace taskpool::testing
