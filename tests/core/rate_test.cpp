// SPDX-License-Identifier: Apache-2.0
// Rates of keys, to the token in virtual time, and what becomes of a key that waits for its rate in each event: the row
// of rates in docs/waiting.md, cell by cell.
#include <cmath>
#include <optional>
#include <stdexcept>

#include <taskpool/testing.hpp>

#include "testing.hpp"

namespace taskpool::testing {
namespace {

using strings = std::vector<std::string>;
using times = std::vector<std::int64_t>; // in ms of virtual time

constexpr rate ten{10, per_second};

/// Notes when its jobs start.
class log_of_starts {
  public:
    explicit log_of_starts(manual_pool& pool) : pool_(pool) {}
    auto job() {
        return [this] { at_.push_back(pool_.now().time_since_epoch() / 1ms); };
    }
    void submit(std::string_view key, int count) {
        for (int i = 0; i < count; ++i)
            ASSERT_TRUE(pool_.submit(key, job()));
    }
    const times& at() const { return at_; }

  private:
    manual_pool& pool_;
    times at_;
};

/// The key has used up its token, and its next job waits for another one.
void use_up(manual_pool& pool, std::string_view key = "key") {
    ASSERT_TRUE(pool.submit(key, [] {}));
    pool.run_until_idle();
}

TEST(Rate, a_key_starts_a_job_when_there_is_a_token) {
    manual_pool pool({.rate = ten});
    log_of_starts log(pool);
    log.submit("key", 4);
    pool.run_until_idle();
    EXPECT_EQ(log.at(), times{0});
    pool.run_for(299ms);
    EXPECT_EQ(log.at(), (times{0, 100, 200}));
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 100, 200, 300}));
}

TEST(Rate, a_burst_starts_at_once_after_a_rest) {
    manual_pool pool({.rate = rate{10, per_second, 3}});
    log_of_starts log(pool);
    log.submit("key", 5);
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 0, 0, 100, 200}));
    pool.run_for(10s); // full again
    log.submit("key", 4);
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 0, 0, 100, 200, 10200, 10200, 10200, 10300}));
}

TEST(Rate, a_rest_that_is_too_short_fills_the_bucket_in_part) {
    manual_pool pool({.rate = rate{10, per_second, 3}});
    log_of_starts log(pool);
    log.submit("key", 3); // empty
    pool.run_until_idle();
    pool.run_for(250ms); // two tokens and a half
    log.submit("key", 4);
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 0, 0, 250, 250, 300, 400}));
}

TEST(Rate, holds_to_the_token_whatever_it_is) {
    for (const double jobs : {1.0, 3.0, 7.0, 60.0, 333.0, 999.0}) {
        for (const std::uint32_t burst : {1U, 4U}) {
            manual_pool pool({.lane_capacity = 1'000'000, .rate = rate{jobs, per_second, burst}});
            int started = 0;
            for (int i = 0; i < 11'000; ++i)
                pool.submit("key", [&] { ++started; });
            for (int second = 1; second <= 10; ++second) {
                pool.run_until(std::chrono::steady_clock::time_point(1s * second));
                EXPECT_EQ(started, static_cast<int>(burst + jobs * second)) << jobs << " a second, burst " << burst;
            }
            pool.cancel("key");
        }
    }
}

TEST(Rate, one_above_the_ticks_is_kept_by_making_good_what_ticks_are_late_by) {
    manual_pool pool({.lane_capacity = 1'000'000, .rate = rate{12'500, per_second}});
    int started = 0;
    for (int i = 0; i < 30'000; ++i)
        pool.submit("key", [&] { ++started; });
    pool.run_for(2s);
    EXPECT_NEAR(started, 25'001, 13); // within a tick
    pool.cancel("key");
}

TEST(Rate, a_rest_is_made_good_up_to_the_burst_only) {
    manual_pool pool({.rate = rate{1000, per_second, 2}});
    log_of_starts log(pool);
    log.submit("key", 10);
    pool.drain();
    pool.run_for(5ms); // a short rest: no token is owed for it
    const auto before = log.at().size();
    log.submit("key", 5);
    pool.run_until_idle();
    EXPECT_EQ(log.at().size() - before, 2U);
    pool.cancel("key");
}

TEST(Rate, only_waiting_is_made_good_and_no_rest) {
    manual_pool pool({.rate = rate{10'000, per_second}});
    int started = 0;
    const auto job = [&] { ++started; };
    for (int i = 0; i < 3; ++i)
        pool.submit("key", job);
    pool.drain(); // it was late for the last one
    pool.run_for(15ms);
    for (int i = 0; i < 300; ++i)
        pool.try_submit("key", job).accepted();
    started = 0;
    pool.run_until_idle();
    EXPECT_LE(started, 1);
    pool.pause("key");
    pool.run_for(19ms);
    pool.resume("key");
    started = 0;
    pool.run_until_idle();
    EXPECT_LE(started, 1);
    pool.cancel("key");
}

TEST(Rate, slow_ones_and_those_with_a_fraction_hold) {
    manual_pool pool({.rate = rate{1, 24h}});
    log_of_starts log(pool);
    log.submit("key", 3);
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 86'400'000, 172'800'000}));
    pool.limit("half", {0.5, per_minute});
    log_of_starts half(pool);
    half.submit("half", 2);
    pool.drain();
    EXPECT_EQ(half.at()[1] - half.at()[0], 120'000);
}

TEST(Rate, of_one_key_holds_nobody_else_up) {
    manual_pool pool({.rate = ten});
    strings ran;
    for (const auto* const key : {"a", "a", "b", "c"})
        pool.submit(key, [&, key] { ran.emplace_back(key); });
    pool.run_until_idle();
    EXPECT_EQ(ran, (strings{"a", "b", "c"}));
}

TEST(Rate, keeps_the_order_of_a_key) {
    std::vector<int> ran;
    manual_pool pool({.rate = rate{1000, per_second, 5}}, 7);
    for (int i = 0; i < 50; ++i) {
        pool.submit("key", [&, i] { ran.push_back(i); });
        pool.submit("other", [] {});
    }
    pool.drain();
    EXPECT_EQ(ran, count_up(50));
}

TEST(Rate, that_makes_no_sense_is_refused) {
    const auto nan = std::nan("");
    for (const rate& bad : {rate{0}, rate{-1}, rate{nan}, rate{1, 0s}, rate{1, -1s}, rate{1, 1s, 0}}) {
        EXPECT_THROW(task_pool({.rate = bad}), std::invalid_argument);
        task_pool pool({.threads = 1});
        EXPECT_THROW(pool.limit("key", bad), std::invalid_argument);
        EXPECT_THROW(pool.limit_all(bad), std::invalid_argument);
        EXPECT_EQ(pool.stats().active_keys, 0U);
    }
}

TEST(Rate, of_any_size_is_reckoned_without_overflow) {
    const auto longest = std::chrono::nanoseconds::max();
    for (const rate& odd : {rate{1e-300, longest, 4'000'000'000U}, rate{1, longest, 1}, rate{1e-9, per_second, 3}}) {
        manual_pool pool({.rate = odd});
        int started = 0;
        for (int i = 0; i < 5; ++i)
            pool.submit("key", [&] { ++started; });
        pool.run_for(24h);
        EXPECT_GE(started, 1);
        EXPECT_LE(started, static_cast<int>(std::min(5U, odd.burst)));
        pool.limit("key", {1e300, std::chrono::nanoseconds(1), 4'000'000'000U});
        pool.drain();
        EXPECT_EQ(started, 5);
    }
}

// --- Which rate a key has --------------------------------------------------------------------------------------------

TEST(Rate, of_its_own_goes_before_that_of_all) {
    manual_pool pool({.rate = ten});
    pool.limit("fast", {1000, per_second});
    pool.limit("exempt", unlimited);
    log_of_starts fast(pool);
    log_of_starts exempt(pool);
    log_of_starts other(pool);
    fast.submit("fast", 3);
    exempt.submit("exempt", 3);
    other.submit("other", 3);
    pool.drain();
    EXPECT_EQ(fast.at(), (times{0, 1, 2}));
    EXPECT_EQ(exempt.at(), (times{0, 0, 0}));
    EXPECT_EQ(other.at(), (times{0, 100, 200}));
}

TEST(Rate, of_its_own_can_be_withdrawn) {
    manual_pool pool;
    pool.limit("key", {1, per_hour});
    log_of_starts log(pool);
    log.submit("key", 3);
    pool.run_for(1s);
    EXPECT_EQ(log.at(), times{0});
    EXPECT_TRUE(pool.unlimit("key"));
    EXPECT_FALSE(pool.unlimit("key"));
    EXPECT_FALSE(pool.unlimit("unknown"));
    pool.run_until_idle();
    EXPECT_EQ(log.at(), (times{0, 1000, 1000}));
}

TEST(Rate, may_be_that_of_a_function_of_the_key) {
    basic_manual_pool<int> pool({.rate = ten});
    pool.limit_by([](int key) -> std::optional<rate> {
        if (key < 0)
            throw std::runtime_error("no rate for it");
        if (key == 0)
            return std::nullopt;
        return rate{static_cast<double>(key), key == 77 ? 0s : per_second}; // 77: without sense
    });
    std::map<int, int> started;
    for (const int key : {-1, 0, 1, 5, 77})
        for (int i = 0; i < 100; ++i)
            pool.submit(key, [&, key] { ++started[key]; });
    pool.run_for(3s);
    EXPECT_EQ(started, (std::map<int, int>{{-1, 31}, {0, 31}, {1, 4}, {5, 16}, {77, 31}}));
}

TEST(Rate, of_a_function_is_asked_for_once_while_its_key_works) {
    int asked = 0;
    manual_pool pool;
    pool.limit_by([&](const std::string& key) -> std::optional<rate> {
        ++asked;
        return key == "limited" ? std::optional(ten) : std::nullopt;
    });
    log_of_starts log(pool);
    log.submit("limited", 10);
    log.submit("not", 10);
    pool.drain();
    EXPECT_EQ(asked, 2);
}

// I-RATE-2
TEST(Rate, of_all_may_be_changed_and_ended_while_keys_wait) {
    manual_pool pool;
    pool.limit_all(rate{1, per_hour});
    log_of_starts log(pool);
    log.submit("key", 10);
    pool.run_for(1s);
    EXPECT_EQ(log.at(), times{0});
    pool.limit_all(ten); // of a token an hour away 1 s has passed; now it comes in 100 ms
    pool.run_for(210ms);
    EXPECT_EQ(log.at(), (times{0, 1100, 1200}));
    pool.limit_all(std::nullopt);
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 1100, 1200, 1210, 1210, 1210, 1210, 1210, 1210, 1210}));
}

TEST(Rate, that_is_lowered_counts_from_the_next_token) {
    manual_pool pool;
    pool.limit("key", {10, per_second, 2});
    log_of_starts log(pool);
    log.submit("key", 4); // two at 0; the bucket is empty
    pool.run_for(50ms);   // half a token
    pool.limit("key", {1, per_second, 2});
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 0, 550, 1550}));
}

TEST(Rate, a_burst_that_is_lowered_leaves_no_debt_beyond_the_new_one) {
    manual_pool pool({.rate = rate{1, per_second, 2}});
    log_of_starts log(pool);
    pool.limit("key", {100, per_second, 1000});
    for (int i = 0; i < 1000; ++i)
        pool.submit("key", [] {}), pool.run_until_idle();
    pool.limit("key", {1, per_second});
    log.submit("key", 2);
    pool.drain();
    EXPECT_EQ(log.at(), (times{1000, 2000}));
    pool.limit("key", {1000, per_second, 1000});
    pool.run_for(1s);
    for (int i = 0; i < 1000; ++i)
        pool.submit("key", [] {}), pool.run_until_idle();
    pool.unlimit("key");
    log.submit("key", 1);
    pool.drain();
    EXPECT_LE(log.at().back(), 3000 + 2000);
}

TEST(Rate, the_same_again_gives_no_token_away) {
    for (const rate& odd : {rate{1e-9, per_second, 3}, rate{1, per_hour, 2}, rate{1e-300}}) {
        manual_pool pool;
        int started = 0;
        pool.limit("key", odd);
        for (int i = 0; i < 10; ++i)
            pool.submit("key", [&] { ++started; });
        pool.run_until_idle();
        const int before = started;
        EXPECT_EQ(before, odd.burst == 3 ? 2 : static_cast<int>(odd.burst)); // 36 years are not enough for three
        for (int i = 0; i < 5; ++i) {
            pool.limit("key", odd);
            pool.run_until_idle();
        }
        EXPECT_EQ(started, before);
        pool.cancel("key");
    }
}

TEST(Rate, keys_that_it_lets_go_keep_their_age) {
    strings ran;
    for (const bool all : {false, true}) {
        manual_pool pool;
        if (all)
            pool.limit_all(rate{1, per_hour});
        else
            pool.limit("a", {1, per_hour});
        use_up(pool, "a");
        pool.submit("a", [&] { ran.emplace_back("a"); });
        pool.run_until_idle();
        pool.submit("b", [&] { ran.emplace_back("b"); });
        all ? pool.limit_all(std::nullopt) : pool.limit("a", unlimited);
        pool.run_until_idle();
    }
    EXPECT_EQ(ran, (strings{"a", "b", "a", "b"}));
}

TEST(Rate, of_all_binds_keys_that_were_there_before) {
    manual_pool pool;
    log_of_starts log(pool);
    log.submit("key", 3);
    EXPECT_TRUE(pool.step());
    pool.limit_all(ten);
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 0, 100}));
}

TEST(Rate, a_handle_is_bound_by_it) {
    manual_pool pool({.rate = ten});
    const auto lane = pool.lane("key");
    log_of_starts log(pool);
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(lane.submit(log.job()));
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 100, 200}));
}

// --- What takes a token ----------------------------------------------------------------------------------------------

TEST(Rate, a_coroutine_takes_one_token_when_it_begins) {
    manual_pool pool({.rate = ten});
    log_of_starts log(pool);
    auto done = pool.spawn("key", [&]() -> task<> {
        for (int i = 0; i < 3; ++i)
            co_await sleep_for(1ms);
    });
    log.submit("key", 1);
    pool.drain();
    EXPECT_EQ(log.at(), times{100});
}

TEST(Rate, a_coroutine_that_lends_its_key_takes_its_turn_behind_what_waits_for_a_token) {
    manual_pool pool({.rate = rate{1, per_second}});
    times went_on;
    log_of_starts log(pool);
    const auto sleeps = [&](std::chrono::milliseconds time) -> task<> {
        co_await sleep_for(time);
        went_on.push_back(pool.now().time_since_epoch() / 1ms);
    };
    pool.submit("key", [&] { return sleeps(2ms); }, {.while_suspended = suspension::interleave});
    pool.run_for(5ms);
    pool.submit("other", [&] { return sleeps(2ms); }, {.while_suspended = suspension::interleave});
    pool.run_until_idle();
    log.submit("key", 1);
    log.submit("other", 1);
    pool.drain();
    EXPECT_EQ(log.at(), (times{1000, 1005}));
    EXPECT_EQ(went_on, (times{2, 1005}));
}

TEST(Rate, further_attempts_take_none) {
    manual_pool pool({.rate = rate{1, per_second}});
    log_of_starts log(pool);
    int attempts = 0;
    pool.submit("key", with_retry({.max_attempts = 3, .backoff = {.first = 1ms, .factor = 1, .jitter = 0}}, [&] {
                    if (++attempts < 3)
                        throw std::runtime_error("no");
                }));
    log.submit("key", 1);
    pool.run_for(5ms);
    EXPECT_EQ(attempts, 3);
    pool.drain();
    EXPECT_EQ(log.at(), times{1000});
}

TEST(Rate, a_job_that_comes_too_late_gives_its_token_back) {
    manual_pool pool({.rate = rate{1, per_second}});
    use_up(pool);
    log_of_starts log(pool);
    for (int i = 0; i < 5; ++i)
        pool.submit("key", with_deadline(pool.now() + 10ms, [] { FAIL(); }));
    log.submit("key", 2);
    pool.drain();
    EXPECT_EQ(log.at(), (times{1000, 2000}));
    EXPECT_EQ(pool.stats().expired, 5U);
}

TEST(Rate, timed_jobs_and_beats_take_tokens_like_others) {
    manual_pool pool({.rate = ten});
    log_of_starts log(pool);
    auto one = pool.submit_after(10ms, "key", log.job());
    auto two = pool.submit_after(10ms, "key", log.job());
    auto beat = pool.submit_every(10ms, "beat", log.job());
    pool.run_for(230ms);
    beat.cancel();
    EXPECT_EQ(log.at(), (times{10, 10, 110, 110, 210}));
}

// --- What there is to see --------------------------------------------------------------------------------------------

TEST(Rate, try_submit_tells_a_limited_key_from_a_full_one) {
    manual_pool pool({.lane_capacity = 2});
    pool.limit("limited", ten);
    pool.pause("full");
    for (const auto* const key : {"limited", "limited", "full", "full"})
        ASSERT_TRUE(pool.try_submit(key, [] {}));
    EXPECT_EQ(pool.try_submit("limited", [] {}), submit_status::full); // its first job has a token
    pool.run_until_idle();
    ASSERT_TRUE(pool.try_submit("limited", [] {}));
    EXPECT_EQ(pool.try_submit("limited", [] {}), submit_status::rate_limited);
    EXPECT_EQ(pool.try_submit("limited", [] {}).message(), "rate limited");
    EXPECT_EQ(pool.try_submit("full", [] {}), submit_status::full);
    EXPECT_EQ(pool.stats().rejected, 4U);
    pool.run_for(100ms);
    EXPECT_TRUE(pool.try_submit("limited", [] {}));
}

TEST(Rate, stats_count_the_keys_that_wait) {
    manual_pool pool({.rate = ten});
    log_of_starts log(pool);
    log.submit("a", 2);
    log.submit("b", 3);
    log.submit("c", 1);
    EXPECT_EQ(pool.stats().limited_keys, 0U);
    pool.run_until_idle();
    EXPECT_EQ(pool.stats().limited_keys, 2U);
    pool.run_for(100ms);
    EXPECT_EQ(pool.stats().limited_keys, 1U);
    pool.drain();
    EXPECT_EQ(pool.stats().limited_keys, 0U);
}

// I-RATE-1
TEST(Rate, an_idle_key_keeps_its_bucket_until_that_is_full) {
    basic_manual_pool<counted_key, counted_key::hash> pool({.rate = ten});
    const auto before = counted_key::alive.load();
    for (std::uint64_t i = 0; i < 1000; ++i)
        pool.submit(counted_key(i), [] {});
    pool.drain();
    const auto hottest = static_cast<std::int64_t>(pool.hottest_keys(1000).size()); // copies
    EXPECT_EQ(counted_key::alive - before, 1000 + hottest);
    pool.run_for(100ms);
    pool.run_for(1s); // the sweep's time
    EXPECT_EQ(counted_key::alive - before, hottest);
}

TEST(Rate, a_key_with_a_rate_of_its_own_is_kept_until_that_is_withdrawn) {
    basic_manual_pool<counted_key, counted_key::hash> pool;
    const auto before = counted_key::alive.load();
    pool.limit(counted_key(1), ten);
    pool.run_for(1h);
    EXPECT_EQ(counted_key::alive - before, 1);
    pool.unlimit(counted_key(1));
    pool.run_for(2s);
    EXPECT_EQ(counted_key::alive - before, 0);
}

// I-RATE-1
TEST(Rate, a_bucket_ends_with_the_rate_that_it_was_for) {
    basic_manual_pool<counted_key, counted_key::hash> pool({.rate = rate{1, 24h}});
    pool.limit(counted_key(5), {1, 24h, 2});
    for (std::uint64_t i = 0; i < 100; ++i)
        pool.submit(counted_key(i), [] {});
    pool.run_until_idle();
    const auto hottest = static_cast<std::int64_t>(pool.hottest_keys(1000).size()); // copies
    pool.limit_all(std::nullopt);
    pool.run_for(2s);
    EXPECT_EQ(counted_key::alive, 1 + hottest);
    pool.unlimit(counted_key(5));
    pool.run_for(2s);
    EXPECT_EQ(counted_key::alive, hottest);
}

TEST(Rate, a_function_may_call_the_pool_when_it_ends) {
    struct calls_at_end {
        manual_pool* pool;
        explicit calls_at_end(manual_pool& to) : pool(&to) {}
        calls_at_end(calls_at_end&& other) noexcept : pool(std::exchange(other.pool, nullptr)) {}
        calls_at_end(const calls_at_end& other) noexcept : pool(other.pool) {}
        calls_at_end& operator=(const calls_at_end&) = delete;
        ~calls_at_end() {
            if (pool != nullptr)
                pool->limit_all(ten);
        }
        std::optional<rate> operator()(const std::string& /*key*/) const { return std::nullopt; }
    };
    manual_pool pool;
    pool.limit_by(calls_at_end(pool));
    pool.limit_by([](const std::string& /*key*/) { return std::optional(unlimited); });
    use_up(pool);
}

// --- On threads ------------------------------------------------------------------------------------------------------

TEST(Rate, holds_on_threads) {
    task_pool pool({.threads = 2, .rate = rate{200, per_second, 5}});
    const auto begin = steady::now();
    for (int i = 0; i < 45; ++i)
        pool.submit("key", [] {});
    pool.drain();
    EXPECT_GE(steady::now() - begin, 200ms);
    EXPECT_LT(steady::now() - begin, 20s * slowness);
}

TEST(Rate, may_be_changed_from_all_threads_while_keys_work_stress) {
    constexpr int keys = 20;
    constexpr int jobs = 200;
    task_pool pool({.threads = 2, .rate = rate{5000, per_second, 10}});
    std::vector<std::vector<int>> ran(keys);
    std::vector<std::jthread> threads;
    for (int t = 0; t < 2; ++t)
        threads.emplace_back([&pool, t](const std::stop_token& stop) {
            std::minstd_rand random(static_cast<unsigned>(t) + 1);
            while (!stop.stop_requested()) {
                const auto key = std::to_string(random() % keys);
                switch (random() % 8) {
                case 0:
                    pool.limit(key, {10'000, per_second, 2});
                    break;
                case 1:
                    pool.unlimit(key);
                    break;
                case 2:
                    pool.limit_all(rate{20'000, per_second});
                    break;
                case 3:
                    pool.limit_all(std::nullopt);
                    break;
                case 4:
                    pool.limit_by([](const std::string& of) -> std::optional<rate> {
                        return of.size() > 1 ? std::optional(rate{8000, per_second, 3}) : std::nullopt;
                    });
                    break;
                case 5:
                    pool.pause(key);
                    pool.resume(key);
                    break;
                default:
                    static_cast<void>(pool.stats());
                }
            }
        });
    for (int i = 0; i < jobs; ++i)
        for (int k = 0; k < keys; ++k)
            ASSERT_TRUE(
                pool.submit(std::to_string(k), [&to = ran[static_cast<std::size_t>(k)], i] { to.push_back(i); }));
    pool.drain();
    threads.clear();
    for (const auto& of_key : ran)
        EXPECT_EQ(of_key, count_up(jobs));
    EXPECT_EQ(pool.stats().limited_keys, 0U);
}

// I-RATE-1, I-RATE-2
TEST(Rate, keys_that_are_cancelled_and_stopped_while_they_wait_stress) {
    for (int round = 0; round < 20; ++round) {
        std::atomic<int> ended = 0;
        task_pool pool({.threads = 2, .rate = rate{2000, per_second}, .on_discard = [&](const discard&) { ++ended; }});
        std::jthread canceller([&](const std::stop_token& stop) {
            for (int i = 0; !stop.stop_requested(); ++i)
                pool.cancel(std::to_string(i % 5));
        });
        for (int i = 0; i < 300; ++i)
            ASSERT_TRUE(pool.submit(std::to_string(i % 5), [&] { ++ended; }));
        canceller = {};
        if (round % 2 == 0)
            pool.drain();
        pool.stop();
        EXPECT_EQ(ended, 300);
    }
}

// --- Matrix ----------------------------------------------------------------------------------------------------------

options with_discards(strings& told) {
    return {.rate = rate{1, per_hour}, .on_discard = [&](const discard& d) { told.emplace_back(d.key); }};
}

TEST(Matrix_rate, stop) {
    strings told;
    bool ran = false;
    manual_pool pool(with_discards(told));
    for (const auto* const key : {"may", "must"})
        use_up(pool, key);
    pool.submit("may", [] { FAIL(); });
    pool.submit("must", [&] { ran = true; }, {.on_stop = stop_action::run});
    pool.submit("must", [] { FAIL(); });
    pool.run_until_idle();
    EXPECT_EQ(pool.stats().limited_keys, 2U);
    EXPECT_EQ(pool.stop().discarded_by_stop, 2U);
    EXPECT_TRUE(ran); // at once, without a token
    EXPECT_EQ(sorted(told), (strings{"may", "must"}));
    EXPECT_LT(pool.now().time_since_epoch(), 1s);
}

TEST(Matrix_rate, stop_on_threads) {
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 2, .rate = rate{1, per_hour}});
    pool.async("key", [] {}).get();
    ASSERT_TRUE(pool.submit("key", [&] { ran = true; }, {.on_stop = stop_action::run}));
    EXPECT_TRUE(eventually([&] { return pool.stats().limited_keys == 1; }));
    pool.stop();
    EXPECT_TRUE(ran);
    EXPECT_EQ(pool.stats().limited_keys, 0U);
}

TEST(Matrix_rate, drain) {
    manual_pool pool({.rate = ten});
    log_of_starts log(pool);
    log.submit("key", 3);
    EXPECT_FALSE(pool.drain_for(150ms).drained);
    pool.drain("key");
    EXPECT_EQ(log.at(), (times{0, 100, 200}));
}

TEST(Matrix_rate, cancel_key) {
    strings told;
    manual_pool pool(with_discards(told));
    use_up(pool);
    for (int i = 0; i < 2; ++i)
        pool.submit("key", [] { FAIL(); });
    pool.run_until_idle();
    EXPECT_EQ(pool.cancel("key"), 2U);
    EXPECT_EQ(pool.stats().limited_keys, 0U);
    EXPECT_EQ(pool.active_keys(), 0U);
    pool.drain();
    log_of_starts log(pool);
    log.submit("key", 1); // the token is still away
    pool.run_for(59min);
    EXPECT_TRUE(log.at().empty());
    pool.drain();
    EXPECT_EQ(log.at().size(), 1U);
}

TEST(Matrix_rate, job_throws) {
    strings failed;
    manual_pool pool({.rate = ten, .on_failure = [&](const failure& f) { failed.emplace_back(f.key); }});
    log_of_starts log(pool);
    pool.submit("key", [] { throw std::runtime_error("no"); });
    log.submit("key", 1);
    pool.drain();
    EXPECT_EQ(failed, strings{"key"});
    EXPECT_EQ(log.at(), times{100}); // it took its token
}

TEST(Matrix_rate, lane_full) {
    manual_pool pool({.lane_capacity = 1, .rate = ten});
    log_of_starts log(pool);
    log.submit("key", 3); // the third waits for room, that is for a token
    EXPECT_EQ(pool.now().time_since_epoch(), 100ms);
    EXPECT_EQ(pool.submit_for("key", 10ms, [] { FAIL(); }), submit_status::timed_out);
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 100, 200}));
}

TEST(Matrix_rate, pool_full) {
    manual_pool pool({.pool_capacity = 2, .rate = ten});
    use_up(pool);
    log_of_starts log(pool);
    log.submit("key", 2);
    pool.run_until_idle();
    EXPECT_EQ(pool.try_submit("other", [] {}), submit_status::full); // it is the pool that is full
    EXPECT_EQ(pool.try_submit("key", [] {}), submit_status::full);
    pool.drain();
}

TEST(Matrix_rate, overflow_rules) {
    strings ran;
    for (const auto rule : {overflow::drop_oldest, overflow::keep_latest, overflow::reject}) {
        manual_pool pool({.lane_capacity = 1, .when_full = rule, .rate = ten});
        use_up(pool);
        pool.submit("key", [&] { ran.emplace_back("old"); });
        pool.run_until_idle();
        const auto answer = pool.submit("key", [&] { ran.emplace_back("new"); });
        EXPECT_EQ(answer, rule == overflow::reject ? submit_status::rate_limited : submit_status::accepted);
        pool.drain();
    }
    EXPECT_EQ(ran, (strings{"new", "new", "old"}));
}

TEST(Matrix_rate, key_paused) {
    manual_pool pool({.rate = ten});
    use_up(pool);
    log_of_starts log(pool);
    log.submit("key", 2);
    pool.run_until_idle();
    pool.pause("key");
    pool.run_for(1s);
    EXPECT_TRUE(log.at().empty());
    EXPECT_EQ(pool.stats().limited_keys, 0U);
    pool.resume("key");
    pool.drain();
    EXPECT_EQ(log.at(), (times{1000, 1100}));
}

TEST(Matrix_rate, key_resumed_before_there_is_a_token) {
    manual_pool pool({.rate = ten});
    use_up(pool);
    log_of_starts log(pool);
    pool.pause("key");
    log.submit("key", 1);
    pool.run_for(20ms);
    pool.resume("key");
    pool.run_until_idle();
    EXPECT_EQ(pool.stats().limited_keys, 1U);
    pool.drain();
    EXPECT_EQ(log.at(), times{100});
}

TEST(Matrix_rate, pool_destroyed) {
    strings told;
    {
        manual_pool pool(with_discards(told));
        use_up(pool);
        pool.submit("key", [] { FAIL(); });
        pool.run_until_idle();
    }
    EXPECT_EQ(told, strings{"key"});
}

TEST(Matrix_rate, key_submitted_to_meanwhile) {
    manual_pool pool({.rate = ten});
    log_of_starts log(pool);
    log.submit("key", 2);
    pool.run_until_idle();
    log.submit("key", 1); // takes its place behind
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 100, 200}));
}

TEST(Matrix_rate, held_job) {
    manual_pool pool({.rate = ten});
    held hold;
    log_of_starts log(pool);
    pool.submit("key", [&](const job_context& context) { hold = context.hold(); });
    log.submit("key", 1);
    pool.run_for(50ms);
    hold.release();
    pool.drain();
    EXPECT_EQ(log.at(), times{100}); // from the start of the one before
}

TEST(Matrix_rate, job_that_changes_its_own_rate) {
    manual_pool pool({.rate = ten});
    log_of_starts log(pool);
    pool.submit("key", [&] { pool.limit("key", unlimited); });
    log.submit("key", 2);
    pool.submit("key", [&] { pool.unlimit("key"); });
    log.submit("key", 2);
    pool.drain();
    EXPECT_EQ(log.at(), (times{0, 0, 0, 100}));
}

} // namespace
} // namespace taskpool::testing
