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
        task_pool pool({.threads = 2});
        gate made;
        future<int> of_a;
        std::atomic<int> refused = 0;
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
        task_pool pool({.threads = 1, .max_threads = 1});
        gate busy;
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

} // namespace
} // namespace taskpool::testing
