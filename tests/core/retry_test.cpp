// SPDX-License-Identifier: Apache-2.0
// Jobs that are tried again, and what becomes of them in each event: the row of with_retry in docs/waiting.md, cell by
// cell.
#include <limits>
#include <optional>
#include <stdexcept>

#include <taskpool/testing.hpp>

#include "at_end.hpp"
#include "testing.hpp"

namespace taskpool::testing {
namespace {

using strings = std::vector<std::string>;

/// Throws in its first attempts, up to `failures` of them; says what it did.
auto fails(int failures, strings& log, const std::string& name = "job") {
    return [failures, &log, name](const job_context& context) {
        log.push_back(name + std::to_string(context.attempt()));
        if (context.attempt() <= static_cast<std::uint32_t>(failures))
            throw std::runtime_error(name + std::to_string(context.attempt()));
    };
}

/// Waits of 10, 20, 40, ... ms.
retry exactly(std::uint32_t max_attempts) {
    return {.max_attempts = max_attempts, .backoff = {.first = 10ms, .jitter = 0}};
}

/// What a failure handler is told.
options with_failures(strings& failed) {
    return {.on_failure = [&failed](const failure& told) {
        try {
            std::rethrow_exception(told.error);
        } catch (const std::exception& error) {
            failed.push_back(std::string(told.key) + ": " + error.what());
        }
    }};
}

// I-RETRY-2
TEST(Retry, a_job_is_tried_again_until_it_succeeds_and_its_key_waits) {
    strings log;
    strings failed;
    manual_pool pool(with_failures(failed));
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(5), fails(2, log))));
    ASSERT_TRUE(pool.submit("key", [&] { log.push_back("next"); }));
    ASSERT_TRUE(pool.submit("other", [&] { log.push_back("other"); }));
    pool.run_until_idle();
    EXPECT_EQ(log, (strings{"job1", "other"}));
    EXPECT_EQ(pool.stats().suspended_lanes, 1U);
    pool.run_for(9ms);
    EXPECT_EQ(log.size(), 2U);
    pool.run_for(2ms); // 11
    EXPECT_EQ(log, (strings{"job1", "other", "job2"}));
    pool.run_for(18ms); // 29
    EXPECT_EQ(log.size(), 3U);
    pool.run_for(3ms);
    EXPECT_EQ(log, (strings{"job1", "other", "job2", "job3", "next"}));
    EXPECT_EQ(failed, strings{});
    const auto stats = pool.stats();
    EXPECT_EQ(stats.retries, 2U);
    EXPECT_EQ(stats.failed, 0U);
    EXPECT_EQ(stats.finished, 3U);
}

TEST(Retry, the_last_attempt_fails_the_job) {
    strings log;
    strings failed;
    manual_pool pool(with_failures(failed));
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(3), fails(9, log))));
    ASSERT_TRUE(pool.submit("key", [&] { log.push_back("next"); }));
    pool.drain();
    EXPECT_EQ(log, (strings{"job1", "job2", "job3", "next"}));
    EXPECT_EQ(failed, strings{"key: job3"});
    const auto stats = pool.stats();
    EXPECT_EQ(stats.retries, 2U);
    EXPECT_EQ(stats.failed, 1U);
    EXPECT_EQ(stats.finished, 2U);
}

TEST(Retry, a_future_has_the_result_of_the_last_attempt) {
    manual_pool pool({.on_failure = [](const failure&) { FAIL() << "the futures have them"; }});
    auto succeeds = pool.async("key", with_retry(exactly(3), [](const job_context& context) {
                                   if (context.attempt() < 3)
                                       throw std::runtime_error("no");
                                   return context.attempt();
                               }));
    auto fails = pool.async("key", with_retry(exactly(2), [](const job_context& context) -> int {
                                throw std::runtime_error("no " + std::to_string(context.attempt()));
                            }));
    EXPECT_EQ(succeeds.get(), 3U);
    try {
        fails.get();
        FAIL();
    } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "no 2");
    }
    EXPECT_EQ(pool.stats().failed, 1U);
    EXPECT_EQ(pool.stats().retries, 3U);
}

TEST(Retry, a_future_that_nobody_wants_leaves_the_failure_to_the_handler) {
    strings failed;
    manual_pool pool(with_failures(failed));
    pool.async("key", with_retry(exactly(2), [] { throw std::runtime_error("no"); }));
    pool.drain();
    EXPECT_EQ(failed, strings{"key: no"});
    EXPECT_EQ(pool.stats().retries, 1U);
}

// I-RETRY-1
TEST(Retry, a_pool_may_do_it_for_all_its_jobs_and_with_retry_goes_before_that) {
    strings log;
    strings failed;
    auto settings = with_failures(failed);
    settings.retry = exactly(2);
    manual_pool pool(std::move(settings));
    ASSERT_TRUE(pool.submit("a", fails(1, log, "a")));
    ASSERT_TRUE(pool.submit("b", with_retry(exactly(1), fails(1, log, "b"))));
    auto c = pool.async("c", [](const job_context& context) {
        if (context.attempt() == 1)
            throw std::runtime_error("c1");
        return 1;
    });
    ASSERT_TRUE(pool.submit_after(1ms, "d", fails(1, log, "d")));
    pool.drain();
    EXPECT_EQ(sorted(log), (strings{"a1", "a2", "b1", "d1", "d2"}));
    EXPECT_EQ(failed, strings{"b: b1"});
    EXPECT_EQ(c.get(), 1);
    EXPECT_EQ(pool.stats().retries, 3U);
}

TEST(Retry, what_is_used_up_by_its_first_run_is_not_tried_again) {
    strings failed;
    auto settings = with_failures(failed);
    settings.retry = exactly(3);
    manual_pool pool(std::move(settings));
    int calls = 0;
    pool.submit("coroutine", [&calls]() -> task<> {
        ++calls;
        co_await yield();
        throw std::runtime_error("coroutine");
    });
    pool.async("before", [] {}).then("then", [&calls] {
        ++calls;
        throw std::runtime_error("then");
    });
    pool.drain();
    EXPECT_EQ(calls, 2);
    EXPECT_EQ(sorted(failed), (strings{"coroutine: coroutine", "then: then"}));
    EXPECT_EQ(pool.stats().retries, 0U);
}

TEST(Retry, a_repeating_job_is_tried_again_before_its_next_beat) {
    strings log;
    manual_pool pool;
    timer every = pool.submit_every(100ms, "key", with_retry(exactly(5), fails(1, log)));
    pool.run_for(150ms);
    EXPECT_EQ(log, (strings{"job1", "job2"}));
    pool.run_for(100ms);
    EXPECT_EQ(log, (strings{"job1", "job2", "job1", "job2"}));
    every.cancel();
}

TEST(Retry, when_says_which_exceptions_are_worth_it) {
    strings failed;
    manual_pool pool(with_failures(failed));
    auto policy = exactly(9);
    policy.when = [](const std::exception_ptr& error) {
        try {
            std::rethrow_exception(error);
        } catch (const std::out_of_range&) {
            return true;
        } // others leave it, and count as false
    };
    pool.submit("key", with_retry(policy, [](const job_context& context) {
                    if (context.attempt() < 3)
                        throw std::out_of_range("again");
                    throw std::runtime_error("enough");
                }));
    pool.drain();
    EXPECT_EQ(failed, strings{"key: enough"});
    EXPECT_EQ(pool.stats().retries, 2U);
}

TEST(Retry, the_key_may_be_paused_when_its_job_is_given_up) {
    strings log;
    strings failed;
    manual_pool pool(with_failures(failed));
    auto policy = exactly(2);
    policy.then = given_up::pause;
    ASSERT_TRUE(pool.submit("key", with_retry(policy, fails(9, log))));
    ASSERT_TRUE(pool.submit("key", [&] { log.push_back("next"); }));
    pool.run_for(1s);
    EXPECT_EQ(log, (strings{"job1", "job2"}));
    EXPECT_EQ(failed, strings{"key: job2"});
    EXPECT_EQ(pool.paused_keys(), strings{"key"});
    pool.resume("key");
    pool.run_until_idle();
    EXPECT_EQ(log.back(), "next");
}

TEST(Retry, a_handler_gets_the_job_and_may_submit_it_elsewhere) {
    strings log;
    strings failed;
    std::optional<stored_job> dead;
    manual_pool pool(with_failures(failed));
    auto policy = exactly(2);
    policy.handler = [&](dead_letter&& letter) {
        log.push_back(std::string(letter.key) + " after " + std::to_string(letter.attempts));
        EXPECT_THROW(std::rethrow_exception(letter.error), std::runtime_error);
        EXPECT_TRUE(letter.job);
        dead = std::move(letter.job);
    };
    auto alive = std::make_shared<int>(0);
    ASSERT_TRUE(pool.submit("key", with_retry(policy, [&, alive](const job_context& context) {
                                log.push_back("on " + context.key());
                                if (context.key() == "key")
                                    throw std::runtime_error("no");
                            })));
    policy.handler = nullptr;
    pool.drain();
    EXPECT_EQ(log, (strings{"on key", "on key", "key after 2"}));
    EXPECT_EQ(failed, strings{});
    EXPECT_EQ(pool.stats().failed, 1U);
    EXPECT_EQ(alive.use_count(), 2);
    ASSERT_TRUE(pool.submit("morgue", std::move(*dead)));
    EXPECT_FALSE(*dead);
    pool.drain();
    EXPECT_EQ(log.back(), "on morgue");
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Retry, a_handler_that_drops_the_job_or_throws_does_no_harm) {
    strings failed;
    auto alive = std::make_shared<int>(0);
    manual_pool pool(with_failures(failed));
    auto policy = exactly(1);
    policy.handler = [alive](dead_letter&& letter) {
        letter.job = {};
        EXPECT_EQ(letter.attempts, 1U); // this callable is still there, though it was a part of the job
        EXPECT_GE(alive.use_count(), 1);
        throw std::runtime_error("dropped");
    };
    ASSERT_TRUE(pool.submit("key", with_retry(std::exchange(policy, {}), [] { throw std::runtime_error("no"); })));
    pool.drain();
    EXPECT_EQ(failed, strings{});
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Retry, a_handler_gets_no_job_that_has_a_future) {
    bool told = false;
    manual_pool pool({.on_failure = [](const failure&) {}});
    auto policy = exactly(2);
    policy.handler = [&](dead_letter&& letter) {
        told = true;
        EXPECT_FALSE(letter.job);
    };
    auto wanted = pool.async("key", with_retry(policy, [] { throw std::runtime_error("no"); }));
    EXPECT_THROW(wanted.get(), std::runtime_error);
    pool.drain();
    EXPECT_FALSE(told);                                                            // the future has it
    pool.async("key", with_retry(policy, [] { throw std::runtime_error("no"); })); // dropped
    pool.drain();
    EXPECT_TRUE(told);
}

TEST(Retry, a_job_whose_hold_lives_on_is_not_tried_again) {
    strings log;
    strings failed;
    held kept;
    manual_pool pool(with_failures(failed));
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(5), [&](const job_context& context) {
                                log.push_back("attempt " + std::to_string(context.attempt()));
                                if (context.attempt() == 2)
                                    kept = context.hold();
                                throw std::runtime_error("no");
                            })));
    ASSERT_TRUE(pool.submit("key", [&] { log.push_back("next"); }));
    pool.run_for(1s);
    EXPECT_EQ(log, (strings{"attempt 1", "attempt 2"}));
    EXPECT_EQ(failed, strings{"key: no"});
    kept.release();
    pool.run_until_idle();
    EXPECT_EQ(log.back(), "next");
}

TEST(Retry, a_later_attempt_may_hold_its_key) {
    bool next = false;
    held kept;
    manual_pool pool;
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(5), [&](const job_context& context) {
                                auto hold = context.hold();
                                if (context.attempt() < 3)
                                    throw std::runtime_error("no"); // and the hold ends
                                kept = std::move(hold);
                            })));
    ASSERT_TRUE(pool.submit("key", [&] { next = true; }));
    pool.run_for(1s);
    EXPECT_TRUE(kept);
    EXPECT_FALSE(next);
    kept.release();
    pool.run_until_idle();
    EXPECT_TRUE(next);
    EXPECT_EQ(pool.stats().finished, 2U);
}

TEST(Retry, each_attempt_has_a_stop_token_and_the_number_of_the_job) {
    std::vector<std::uint64_t> numbers;
    manual_pool pool;
    ASSERT_TRUE(pool.submit("key", [] {}));
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(3), [&](const job_context& context) {
                                EXPECT_FALSE(context.stop_token().stop_requested());
                                EXPECT_TRUE(context.stop_token().stop_possible());
                                numbers.push_back(context.number());
                                if (context.attempt() < 3)
                                    throw std::runtime_error("no");
                            })));
    pool.drain();
    EXPECT_EQ(numbers, (std::vector<std::uint64_t>{2, 2, 2}));
}

TEST(Retry, takes_jobs_that_take_nothing_or_a_stop_token) {
    int calls = 0;
    manual_pool pool;
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(2), [&] {
                                if (++calls == 1)
                                    throw std::runtime_error("no");
                            })));
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(2), [&](const std::stop_token& token) {
                                EXPECT_FALSE(token.stop_requested());
                                if (++calls == 3)
                                    throw std::runtime_error("no");
                            })));
    auto lane = pool.lane("key");
    ASSERT_TRUE(lane.try_submit(with_retry(std::make_shared<const retry>(exactly(2)), [&] { ++calls; })));
    pool.drain();
    EXPECT_EQ(calls, 5);
}

TEST(Retry, the_waits_grow_up_to_their_max_and_jitter_takes_a_part_of_them) {
    for (const double jitter : {0.0, 0.5, 1.0}) {
        std::vector<steady::time_point> at;
        manual_pool pool({.on_failure = [](const failure&) {}});
        pool.submit(
            "key",
            with_retry({.max_attempts = 7, .backoff = {.first = 100ms, .factor = 3, .max = 1s, .jitter = jitter}}, [&] {
                at.push_back(pool.now());
                throw std::runtime_error("no");
            }));
        pool.drain();
        ASSERT_EQ(at.size(), 7U);
        const std::array<steady::duration, 6> whole{100ms, 300ms, 900ms, 1s, 1s, 1s};
        for (std::size_t i = 0; i < whole.size(); ++i) {
            EXPECT_LE(at[i + 1] - at[i], whole[i] + 2ms) << i;
            EXPECT_GE(at[i + 1] - at[i], std::chrono::duration<double>(whole[i]) * (1 - jitter)) << i;
            EXPECT_EQ(jitter == 0, at[i + 1] - at[i] >= whole[i]) << i;
        }
    }
}

TEST(Retry, waits_of_any_length_are_possible) {
    manual_pool pool({.on_failure = [](const failure&) {}});
    pool.submit("key", with_retry({.max_attempts = 2000,
                                   .backoff = {.first = 1ns, .factor = 1e300, .max = std::chrono::nanoseconds::max()}},
                                  [] { throw std::runtime_error("no"); }));
    pool.submit("none", with_retry({.max_attempts = 5, .backoff = {.first = 0ns, .factor = 1e300, .max = 1s}},
                                   [] { throw std::runtime_error("no"); }));
    pool.run_for(1h);
    EXPECT_EQ(pool.stats().retries, 5U);
    pool.stop();
}

TEST(Retry, a_policy_without_sense_is_refused) {
    const auto refuses = [](const retry& policy) {
        EXPECT_THROW(with_retry(policy, [] {}), std::invalid_argument);
        EXPECT_THROW(task_pool({.retry = policy}), std::invalid_argument);
    };
    refuses({.max_attempts = 0});
    refuses({.backoff = {.first = -1ms}});
    refuses({.backoff = {.first = 2s, .max = 1s}});
    refuses({.backoff = {.factor = 0.5}});
    refuses({.backoff = {.factor = std::numeric_limits<double>::quiet_NaN()}});
    refuses({.backoff = {.jitter = 1.5}});
    refuses({.backoff = {.jitter = -0.1}});
    refuses({.backoff = {.jitter = std::numeric_limits<double>::quiet_NaN()}});
    refuses({.then = static_cast<given_up>(7)});
}

TEST(Retry, an_order_under_a_seed_replays) {
    const auto order_under = [](std::uint64_t seed) {
        strings log;
        manual_pool pool({}, seed);
        for (const auto* const key : {"a", "b", "c", "d"})
            pool.submit(key, with_retry({.max_attempts = 4, .backoff = {.first = 50ms}}, fails(3, log, key)));
        pool.drain();
        return log;
    };
    EXPECT_EQ(order_under(7), order_under(7));
}

TEST(Retry, a_key_that_backs_off_holds_up_no_thread) {
    constexpr int keys = 1000;
    std::atomic<int> succeeded = 0;
    task_pool pool({.threads = 2, .max_threads = 2});
    const auto start = steady::now();
    for (int i = 0; i < keys; ++i)
        ASSERT_TRUE(pool.submit(std::to_string(i),
                                with_retry({.backoff = {.first = 100ms, .jitter = 0}}, [&](const job_context& context) {
                                    if (context.attempt() == 1)
                                        throw std::runtime_error("no");
                                    ++succeeded;
                                })));
    pool.drain();
    EXPECT_EQ(succeeded, keys);
    EXPECT_LT(steady::now() - start, 10s * slowness); // one after the other they would take 100 s
}

TEST(Retry, jobs_that_fail_at_random_keep_the_order_of_their_keys_stress) {
    constexpr int jobs = 2000 / slowness;
    std::array<int, 10> last{}; // per key: no lock
    std::atomic<int> handed = 0;
    task_pool pool({.threads = 4, .on_failure = [](const failure&) { FAIL(); }});
    retry policy{.max_attempts = 3, .backoff = {.first = 1ms, .max = 2ms}};
    policy.handler = [&](dead_letter&&) { ++handed; };
    const auto shared = std::make_shared<const retry>(std::move(policy));
    std::vector<std::thread> producers;
    for (int p = 0; p < 2; ++p)
        producers.emplace_back([&, p] {
            for (int i = 0; i < jobs; ++i)
                for (std::size_t key = static_cast<std::size_t>(p); key < last.size(); key += 2)
                    ASSERT_TRUE(pool.submit(
                        std::to_string(key), with_retry(shared, [&last, key, i](const job_context& context) {
                            const auto failures = i % 20 < 5 ? static_cast<std::uint32_t>(i) % 20 : 0;
                            EXPECT_EQ(last[key], i);
                            if (context.attempt() == 3 || context.attempt() > failures)
                                last[key] = i + 1; // succeeds, or is given up
                            if (context.attempt() <= failures)
                                throw std::runtime_error("no");
                        })));
        });
    for (auto& producer : producers)
        producer.join();
    pool.drain();
    for (const int n : last)
        EXPECT_EQ(n, jobs);
    EXPECT_EQ(pool.stats().finished, static_cast<std::uint64_t>(jobs) * last.size());
    EXPECT_EQ(static_cast<std::uint64_t>(handed), pool.stats().failed);
    EXPECT_GT(pool.stats().retries, 0U);
}

// --- What once went wrong --------------------------------------------------------------------------------------------

TEST(Retry, a_policy_may_end_before_its_job_is_settled) {
    int letters = 0;
    strings failed;
    manual_pool pool(with_failures(failed));
    // Inside the job, so it ends as the exception leaves.
    pool.submit("inside", [](const job_context& context) {
        auto inner = with_retry(exactly(3), [](const job_context&) { throw std::runtime_error("no"); });
        inner(context);
    });
    // With the call of a continuation whose future nobody wants.
    auto policy = exactly(1);
    policy.handler = [&](dead_letter&& letter) {
        EXPECT_FALSE(letter.job); // it is used up
        ++letters;
    };
    pool.async("before", [] {}).then("then", with_retry(policy, [] { throw std::runtime_error("no"); }));
    policy.handler = nullptr;
    pool.drain();
    EXPECT_EQ(failed, strings{"inside: no"});
    EXPECT_EQ(letters, 1);
    EXPECT_EQ(pool.stats().retries, 2U);
}

TEST(Retry, a_job_that_must_run_is_tried_once_more_and_not_for_ever_when_stop_comes_after_the_verdict) {
    gate in_when;
    gate stopping;
    std::atomic<int> attempts = 0;
    task_pool pool({.threads = 1, .on_failure = [](const failure&) {}});
    const opener opens(stopping);
    auto policy = exactly(10);
    policy.when = [&](const std::exception_ptr&) {
        in_when.open();
        stopping.wait(); // stop() begins after it was asked for
        return true;
    };
    ASSERT_TRUE(pool.submit("key",
                            with_retry(policy,
                                       [&] {
                                           ++attempts;
                                           throw std::runtime_error("no");
                                       }),
                            {.on_stop = stop_action::run}));
    in_when.wait();
    std::thread stops([&] { pool.stop(); });
    EXPECT_TRUE(eventually([&] { return pool.submit("other", [] {}) == submit_status::stopped; }));
    stopping.open();
    stops.join();
    EXPECT_EQ(attempts, 2);
}

TEST(Retry, a_beat_does_not_leave_the_pool_as_a_dead_letter) {
    int beats = 0;
    int letters = 0;
    std::vector<stored_job> kept;
    {
        manual_pool pool;
        auto policy = exactly(1);
        policy.handler = [&](dead_letter&& letter) {
            ++letters;
            EXPECT_FALSE(letter.job);
            kept.push_back(std::move(letter.job));
        };
        timer every = pool.submit_every(10ms, "key", with_retry(policy, [&] {
                                            ++beats;
                                            throw std::runtime_error("no");
                                        }));
        pool.run_for(100ms);
        EXPECT_EQ(beats, 10);
        EXPECT_EQ(letters, 10);
        EXPECT_EQ(every.missed(), 0U);
    }
}

// I-RETRY-2
TEST(Retry, a_hold_taken_after_the_verdict_gives_the_job_up) {
    strings failed;
    held kept;
    bool next = false;
    manual_pool pool(with_failures(failed));
    pool.submit("key", [&, inner = with_retry(exactly(5), [](const job_context& context) {
                               throw std::runtime_error("no " + std::to_string(context.attempt()));
                           })](const job_context& context) mutable {
        try {
            inner(context);
        } catch (...) {
            if (context.attempt() == 2 || context.key() == "at once")
                kept = context.hold();
            throw;
        }
    });
    pool.submit("key", [&] { next = true; });
    pool.run_for(1s);
    EXPECT_EQ(failed, strings{"key: no 2"});
    EXPECT_TRUE(kept);
    EXPECT_FALSE(next);
    kept.release();
    pool.run_until_idle();
    EXPECT_TRUE(next);
    pool.submit("at once", [&, inner = with_retry(exactly(5), [](const job_context&) {
                                   throw std::runtime_error("no");
                               })](const job_context& context) mutable {
        try {
            inner(context);
        } catch (...) {
            kept = context.hold();
            throw;
        }
    });
    pool.run_for(1s);
    EXPECT_EQ(failed.back(), "at once: no");
    kept.release();
    pool.drain();
    EXPECT_EQ(pool.stats().retries, 1U);
}

TEST(Retry, a_cancel_after_the_verdict_ends_the_sleep_at_once) {
    strings failed;
    manual_pool* where = nullptr;
    manual_pool pool(with_failures(failed));
    where = &pool;
    auto policy = exactly(5);
    policy.when = [&](const std::exception_ptr&) {
        where->cancel("key");
        return true;
    };
    pool.submit("key", with_retry(policy, [] { throw std::runtime_error("no"); }));
    pool.run_until_idle(); // no time passes
    EXPECT_EQ(failed, strings{"key: no"});
    EXPECT_EQ(pool.stats().retries, 0U);
    EXPECT_EQ(pool.active_keys(), 0U);
}

TEST(Retry, a_failure_whose_future_is_gone_is_reported_when_a_cancel_ends_the_wait) {
    strings failed;
    manual_pool pool(with_failures(failed));
    pool.async("key", with_retry(exactly(5), [] { throw std::runtime_error("no"); }));
    pool.run_until_idle();
    pool.cancel("key");
    pool.run_until_idle();
    EXPECT_EQ(failed, strings{"key: no"});
    EXPECT_EQ(pool.stats().failed, 1U);
}

TEST(Retry, a_beat_that_is_cancelled_between_two_attempts_has_failed) {
    strings failed;
    manual_pool pool(with_failures(failed));
    timer every = pool.submit_every(100ms, "key", with_retry(exactly(5), [] { throw std::runtime_error("no"); }));
    pool.run_for(101ms);
    EXPECT_TRUE(every.cancel());
    pool.drain();
    EXPECT_EQ(failed, strings{"key: no"});
    EXPECT_EQ(pool.stats().retries, 0U);
    EXPECT_EQ(pool.stats().failed, 1U);
    std::uint32_t attempts = 0;
    auto policy = exactly(5);
    policy.handler = [&](dead_letter&& letter) { attempts = letter.attempts; };
    every = pool.submit_every(100ms, "key", with_retry(policy, [] { throw std::runtime_error("no"); }));
    pool.run_for(101ms);
    EXPECT_TRUE(every.cancel());
    pool.drain();
    EXPECT_EQ(attempts, 1U); // the second was not made
}

TEST(Retry, a_failure_is_told_once_when_a_hold_ends_the_retries_of_a_job_with_a_future) {
    for (const bool at_once : {true, false}) {
        for (const bool wanted : {true, false}) {
            strings failed;
            held kept;
            manual_pool pool(with_failures(failed));
            auto result = pool.async("key", [&, inner = with_retry(exactly(5), [](const job_context&) {
                                                    throw std::runtime_error("no");
                                                })](const job_context& context) mutable {
                try {
                    inner(context);
                } catch (...) {
                    if (at_once || context.attempt() == 2)
                        kept = context.hold();
                    throw;
                }
            });
            if (!wanted)
                result = {};
            pool.run_for(1s);
            kept.release();
            pool.drain();
            EXPECT_EQ(failed, wanted ? strings{} : strings{"key: no"});
            EXPECT_EQ(pool.stats().failed, 1U);
            if (wanted) {
                EXPECT_THROW(result.get(), std::runtime_error);
            }
        }
    }
}

TEST(Retry, a_policy_may_hold_the_last_reference_to_the_pool) {
    std::atomic<int> letters = 0;
    std::weak_ptr<task_pool> watched;
    {
        auto pool = std::make_shared<task_pool>(options{.threads = 1});
        watched = pool;
        auto policy = exactly(1);
        policy.handler = [pool, &letters](dead_letter&&) { ++letters; };
        ASSERT_TRUE(pool->submit("key", with_retry(std::exchange(policy, {}), [] { throw std::runtime_error("no"); })));
    }
    EXPECT_TRUE(eventually([&] { return letters == 1 && watched.expired(); }));
}

TEST(Retry, a_dead_letter_that_is_submitted_again_is_not_wrapped) {
    std::optional<stored_job> dead;
    manual_pool pool;
    auto policy = exactly(1);
    policy.handler = [&](dead_letter&& letter) { dead = std::move(letter.job); };
    pool.submit("key", with_retry(policy, [] { throw std::runtime_error("no"); }));
    pool.drain();
    for (int i = 0; i < 100; ++i) {
        ASSERT_TRUE(dead && *dead);
        auto again = std::exchange(dead, std::nullopt);
        const auto before = allocations_of_this_thread();
        ASSERT_TRUE(pool.submit("key", std::move(*again)));
        EXPECT_LE(allocations_of_this_thread() - before, 2U); // the lane
        pool.drain();
    }
    dead.reset();
    EXPECT_THROW(pool.submit("key", stored_job()), std::invalid_argument);
    EXPECT_EQ(pool.stats().accepted, 101U);
}

TEST(Retry, there_must_be_a_policy) {
    EXPECT_THROW(with_retry(std::shared_ptr<const retry>(), [] {}), std::invalid_argument);
}

// --- Matrix ----------------------------------------------------------------------------------------------------------

/// A pool in which a job of "key" waits for its second attempt, an hour from now.
class waiting_for_an_attempt {
  public:
    explicit waiting_for_an_attempt(stop_action on_stop = stop_action::discard, options settings = {})
        : pool([&] {
              settings.on_failure = [this](const failure&) { ++failures; };
              return std::move(settings);
          }()) {
        result.emplace(pool.async("key",
                                  with_retry({.backoff = {.first = 1h, .max = 1h}},
                                             [this](const job_context& context) {
                                                 attempts = context.attempt();
                                                 stopped = context.stop_requested();
                                                 if (attempts == 1)
                                                     throw std::runtime_error("attempt 1");
                                             }),
                                  {.on_stop = on_stop}));
        EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    }
    void expect_that_the_first_failure_stands() {
        try {
            result->get();
            FAIL();
        } catch (const std::runtime_error& error) {
            EXPECT_STREQ(error.what(), "attempt 1");
        }
        EXPECT_EQ(attempts, 1U);
    }

    std::atomic<std::uint32_t> attempts = 0;
    std::atomic<bool> stopped = false;
    std::atomic<int> failures = 0;
    std::optional<future<void>> result;
    task_pool pool;
};

TEST(Matrix_retry, stop) {
    waiting_for_an_attempt waits;
    ASSERT_TRUE(waits.pool.submit("key", [] { FAIL() << "it was discarded"; }));
    const auto report = waits.pool.stop();
    waits.expect_that_the_first_failure_stands();
    EXPECT_EQ(report.finished, 1U);
    EXPECT_EQ(report.discarded, 1U);
    EXPECT_EQ(waits.pool.stats().failed, 1U);
    EXPECT_EQ(waits.failures, 0); // the future has it
}

TEST(Matrix_retry, stop_of_a_job_that_must_run) {
    waiting_for_an_attempt waits(stop_action::run);
    waits.pool.stop();
    waits.result->get();
    EXPECT_EQ(waits.attempts, 2U);
    EXPECT_TRUE(waits.stopped);
    EXPECT_EQ(waits.pool.stats().failed, 0U);
}

TEST(Matrix_retry, stop_leaves_the_job_to_its_handler) {
    std::atomic<int> letters = 0;
    std::atomic<int> failures = 0;
    task_pool pool({.threads = 1, .on_failure = [&](const failure&) { ++failures; }});
    retry policy{.backoff = {.first = 1h, .max = 1h}};
    policy.handler = [&](dead_letter&& letter) {
        EXPECT_EQ(letter.attempts, 1U);
        EXPECT_TRUE(letter.job);
        ++letters;
    };
    ASSERT_TRUE(pool.submit("key", with_retry(policy, [] { throw std::runtime_error("no"); })));
    policy.handler = nullptr;
    ASSERT_TRUE(pool.submit("other", with_retry(policy, [] { throw std::runtime_error("no"); })));
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 2; }));
    pool.stop();
    EXPECT_EQ(letters, 1);
    EXPECT_EQ(failures, 1);
}

TEST(Matrix_retry, drain) {
    std::atomic<int> attempts = 0;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(3), [&] {
                                if (++attempts < 3)
                                    throw std::runtime_error("no");
                            })));
    pool.drain();
    EXPECT_EQ(attempts, 3);
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(3), [&] {
                                if (++attempts < 6)
                                    throw std::runtime_error("no");
                            })));
    pool.drain("key");
    EXPECT_EQ(attempts, 6);
}

TEST(Matrix_retry, cancel_key) {
    waiting_for_an_attempt waits;
    auto next = waits.pool.async("key", [] {});
    EXPECT_EQ(waits.pool.cancel("key"), 1U);
    waits.expect_that_the_first_failure_stands();
    EXPECT_THROW(next.get(), job_discarded);
    waits.pool.async("key", [] {}).get(); // the key goes on
}

TEST(Matrix_retry, job_throws) {
    std::atomic<int> failures = 0;
    task_pool pool({.threads = 1, .on_failure = [&](const failure&) { ++failures; }});
    auto job = [last = throws_at_its_end()](const job_context& context) {
        if (context.attempt() == 1)
            throw std::runtime_error("no");
    };
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(3), std::move(job))));
    pool.drain();
    EXPECT_EQ(pool.stats().retries, 1U);
    EXPECT_EQ(pool.stats().failed, 1U); // its destructor threw
    EXPECT_EQ(failures, 1);
}

TEST(Matrix_retry, lane_full) {
    waiting_for_an_attempt waits(stop_action::discard, {.threads = 1, .lane_capacity = 1});
    ASSERT_TRUE(waits.pool.try_submit("key", [] {})); // the job that backs off takes no room
    EXPECT_EQ(waits.pool.try_submit("key", [] {}), submit_status::full);
    EXPECT_EQ(waits.pool.submit_for("key", 10ms, [] {}), submit_status::timed_out);
    EXPECT_EQ(waits.pool.cancel("key"), 1U);
    ASSERT_TRUE(waits.pool.submit("key", [] {}));
}

TEST(Matrix_retry, pool_full) {
    std::atomic<bool> done = false;
    task_pool pool({.threads = 1, .pool_capacity = 1});
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(3), [&](const job_context& context) {
                                if (context.attempt() == 1)
                                    throw std::runtime_error("no");
                                done = true;
                            })));
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1 || done; }));
    pool.submit("key", [] {}); // takes the pool's only room, behind the one that backs off
    pool.drain();
    EXPECT_TRUE(done); // its next attempt needed none
}

TEST(Matrix_retry, pool_destroyed) {
    auto alive = std::make_shared<int>(0);
    {
        task_pool pool({.threads = 1, .on_failure = [](const failure&) {}});
        ASSERT_TRUE(pool.submit(
            "key", with_retry({.backoff = {.first = 1h, .max = 1h}}, [alive] { throw std::runtime_error("no"); })));
        EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    }
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Matrix_retry, pool_destroyed_by_the_job) {
    std::latch submitted(1), destroyed(1);
    auto alive = std::make_shared<int>(0);
    auto* const pool = new task_pool({.threads = 1, .on_failure = [](const failure&) {}});
    ASSERT_TRUE(pool->submit("key", with_retry(exactly(5), [pool, alive, &submitted, &destroyed] {
                                 submitted.wait(); // a pool must not be destroyed while somebody submits
                                 delete pool;
                                 destroyed.count_down();
                                 throw std::runtime_error("no");
                             })));
    submitted.count_down();
    destroyed.wait();
    EXPECT_TRUE(eventually([&] { return alive.use_count() == 1; }));
}

TEST(Matrix_retry, key_paused) {
    std::atomic<int> attempts = 0;
    task_pool pool({.threads = 1});
    auto first = pool.async("key", with_retry(exactly(3), [&] {
                                if (++attempts < 3)
                                    throw std::runtime_error("no");
                            }));
    EXPECT_TRUE(eventually([&] { return attempts > 0; }));
    pool.pause("key");
    first.get(); // it has begun, so it goes on
    auto next = pool.async("key", [] {});
    EXPECT_TRUE(for_a_while([&] { return !next.is_ready(); }));
    pool.resume("key");
    next.get();
}

TEST(Matrix_retry, key_submitted_to_meanwhile) {
    strings log;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", with_retry(exactly(3), fails(2, log))));
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1 || pool.stats().retries > 0; }));
    pool.submit("key", [&] { log.push_back("next"); });
    pool.drain();
    EXPECT_EQ(log, (strings{"job1", "job2", "job3", "next"}));
}

} // namespace
} // namespace taskpool::testing
