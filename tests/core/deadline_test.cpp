// SPDX-License-Identifier: Apache-2.0
// Jobs with a deadline, and what becomes of them in each event: the row of with_deadline in docs/waiting.md, cell by
// cell.
#include <stdexcept>

#include <taskpool/testing.hpp>

#include "testing.hpp"

namespace taskpool::testing {
namespace {

using strings = std::vector<std::string>;

/// What the discard handler is told.
options with_discards(strings& told) {
    return {.on_failure = [](const failure&) { ADD_FAILURE() << "nothing failed"; },
            .on_discard =
                [&told](const discard& d) {
                    told.push_back(std::string(d.key) + (d.reason == discard_reason::expired ? " expired" : " other"));
                }};
}

TEST(Deadline, a_job_that_starts_too_late_is_discarded_reported_and_counted) {
    strings told;
    strings ran;
    manual_pool pool(with_discards(told));
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() + 10ms, [&] { ran.push_back("in time"); })));
    pool.run_for(0ms);
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() + 10ms, [&] { ran.push_back("late"); })));
    ASSERT_TRUE(pool.submit("key", [&] { ran.push_back("next"); }));
    pool.clock().advance(11ms);
    EXPECT_EQ(pool.stats().waiting, 2U); // it takes its room until its turn comes
    pool.run_until_idle();
    EXPECT_EQ(ran, (strings{"in time", "next"}));
    EXPECT_EQ(told, strings{"key expired"});
    const auto stats = pool.stats();
    EXPECT_EQ(stats.accepted, 3U);
    EXPECT_EQ(stats.finished, 2U);
    EXPECT_EQ(stats.discarded, 1U);
    EXPECT_EQ(stats.expired, 1U);
    EXPECT_EQ(stats.failed, 0U);
    EXPECT_EQ(stats.waiting, 0U);
    EXPECT_EQ(stats.active_keys, 0U);
}

TEST(Deadline, the_deadline_itself_is_in_time) {
    strings told;
    bool ran = false;
    manual_pool pool(with_discards(told));
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() + 10ms, [&] { ran = true; })));
    pool.clock().advance(10ms);
    pool.run_until_idle();
    EXPECT_TRUE(ran);
}

TEST(Deadline, the_future_says_so) {
    strings told;
    manual_pool pool(with_discards(told));
    auto late = pool.async("key", with_deadline(pool.now() - 1ns, [] { return 1; }));
    auto next = pool.async("key", with_deadline(pool.now(), [] { return 2; }));
    EXPECT_THROW(late.get(), job_expired);
    EXPECT_EQ(next.get(), 2);
    auto as_any = pool.async("key", with_deadline(pool.now() - 1ns, [] { return 1; }));
    EXPECT_THROW(as_any.get(), job_discarded);
    pool.async("key", with_deadline(pool.now() - 1ns, [] {})); // nobody wants to know
    pool.drain();
    EXPECT_EQ(told, (strings{"key expired", "key expired", "key expired"}));
    EXPECT_EQ(pool.stats().expired, 3U);
    EXPECT_EQ(pool.stats().finished, 1U);
    EXPECT_EQ(pool.stats().failed, 0U);
}

TEST(Deadline, what_follows_a_late_job_is_not_called) {
    strings told;
    manual_pool pool(with_discards(told));
    auto after = pool.async("key", with_deadline(pool.now() - 1ns, [] { return 1; })).then("other", [](int) {
        ADD_FAILURE() << "called";
    });
    EXPECT_THROW(after.get(), job_expired);
}

TEST(Deadline, the_calls_of_run_and_then_may_have_one) {
    strings told;
    manual_pool pool(with_discards(told));
    auto result = pool.spawn("a", [&pool]() -> task<bool> {
        try {
            co_await pool.run("b", with_deadline(pool.now() - 1ns, [] {}));
        } catch (const job_expired&) {
            co_return true;
        }
        co_return false;
    });
    EXPECT_TRUE(result.get());
    auto then = pool.async("a", [] {}).then("b", with_deadline(pool.now() - 1ns, [] {}));
    EXPECT_THROW(then.get(), job_expired);
    EXPECT_EQ(told, (strings{"b expired", "b expired"}));
    EXPECT_EQ(pool.stats().expired, 2U);
}

TEST(Deadline, a_job_that_is_tried_again_has_started_in_time) {
    for (const bool deadline_within : {false, true}) {
        std::uint32_t attempts = 0;
        strings told;
        manual_pool pool(with_discards(told));
        const retry policy{.max_attempts = 3, .backoff = {.first = 1s}};
        const auto job = [&](const job_context& context) {
            attempts = context.attempt();
            if (attempts < 3)
                throw std::runtime_error("no");
        };
        const auto deadline = pool.now() + 10ms;
        if (deadline_within)
            pool.submit("key", with_retry(policy, with_deadline(deadline, job)));
        else
            pool.submit("key", with_deadline(deadline, with_retry(policy, job)));
        pool.drain();
        EXPECT_EQ(attempts, 3U);
        EXPECT_EQ(pool.stats().expired, 0U);
    }
}

TEST(Deadline, a_late_job_is_not_tried_again) {
    strings told;
    auto settings = with_discards(told);
    settings.retry = retry{.max_attempts = 3};
    manual_pool pool(std::move(settings));
    pool.submit("a", with_deadline(pool.now() - 1ns, [] {}));
    pool.submit("b", with_retry({.max_attempts = 3}, with_deadline(pool.now() - 1ns, [] {})));
    auto c = pool.async("c", with_deadline(pool.now() - 1ns, [] {}));
    pool.drain();
    EXPECT_THROW(c.get(), job_expired);
    EXPECT_EQ(pool.stats().expired, 3U);
    EXPECT_EQ(pool.stats().retries, 0U);
}

TEST(Deadline, a_job_for_later_is_late_when_it_waited_in_its_lane) {
    strings told;
    bool ran = false;
    manual_pool pool(with_discards(told));
    ASSERT_TRUE(pool.submit_after(1s, "key", with_deadline(pool.now() + 1010ms, [&] { ran = true; })));
    ASSERT_TRUE(pool.submit_after(1s, "other", with_deadline(pool.now() + 900ms, [] { FAIL(); })));
    pool.run_for(2s);
    EXPECT_TRUE(ran);
    EXPECT_EQ(told, strings{"other expired"});
}

TEST(Deadline, what_a_late_job_owns_ends_after_the_report) {
    auto alive = std::make_shared<int>(0);
    long uses_at_report = 0;
    manual_pool pool({.on_discard = [&](const discard&) { uses_at_report = alive.use_count(); }});
    pool.submit("key", with_deadline(pool.now() - 1ns, [alive] {}));
    pool.drain();
    EXPECT_EQ(uses_at_report, 2);
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Deadline, a_cancel_meanwhile_does_not_reach_the_next_job) {
    task_pool* where = nullptr;
    bool asked = true;
    task_pool pool({.threads = 1, .on_discard = [&](const discard&) { where->cancel("key"); }});
    where = &pool;
    auto late = pool.async("key", with_deadline(pool.now() - 1ns, [] {}));
    EXPECT_THROW(late.get(), job_expired);
    pool.drain();
    pool.async("key", [&](const job_context& context) { asked = context.stop_requested(); }).get();
    EXPECT_FALSE(asked);
}

TEST(Deadline, a_hold_or_a_stop_token_is_a_start) {
    // A job that asks for one itself before it calls a callable with a deadline.
    bool called = false;
    held kept;
    manual_pool pool;
    pool.submit("key", [&, inner = with_deadline(pool.now() - 1ns, [&] { called = true; })](
                           const job_context& context) mutable {
        kept = context.hold();
        inner(context);
    });
    pool.run_until_idle();
    EXPECT_TRUE(called);
    kept.release();
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 1U);
    EXPECT_EQ(pool.stats().expired, 0U);
}

TEST(Deadline, a_job_that_hides_that_it_is_late_is_discarded_unless_it_holds_its_key) {
    manual_pool pool;
    held kept;
    pool.submit("key", [inner = with_deadline(pool.now() - 1ns, [] {})](const job_context& context) mutable {
        EXPECT_THROW(inner(context), job_expired);
    });
    pool.submit("held", [&, inner = with_deadline(pool.now() - 1ns, [] {})](const job_context& context) mutable {
        try {
            inner(context);
        } catch (const job_expired&) {
            kept = context.hold();
            throw;
        }
    });
    pool.run_until_idle();
    kept.release();
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 1U);
    EXPECT_EQ(pool.stats().discarded, 1U);
}

TEST(Deadline, late_and_early_jobs_from_many_threads_stress) {
    constexpr int jobs = 20'000 / slowness;
    std::atomic<int> ran = 0;
    std::atomic<int> expired = 0;
    task_pool pool({.threads = 2, .on_discard = [&](const discard&) { ++expired; }});
    std::vector<std::thread> producers;
    for (int p = 0; p < 4; ++p)
        producers.emplace_back([&, p] {
            for (int i = 0; i < jobs; ++i)
                ASSERT_TRUE(pool.submit(std::to_string(i % 7),
                                        with_deadline(pool.now() + (p % 2 == 0 ? 1h : -1ns), [&] { ++ran; })));
        });
    for (auto& producer : producers)
        producer.join();
    pool.drain();
    EXPECT_EQ(ran, 2 * jobs);
    EXPECT_EQ(expired, 2 * jobs);
    const auto stats = pool.stats();
    EXPECT_EQ(stats.finished, static_cast<std::uint64_t>(ran));
    EXPECT_EQ(stats.discarded, static_cast<std::uint64_t>(expired));
    EXPECT_EQ(stats.expired, static_cast<std::uint64_t>(expired));
    EXPECT_EQ(stats.accepted, stats.finished + stats.discarded);
}

// --- Matrix ----------------------------------------------------------------------------------------------------------

TEST(Matrix_deadline, stop) {
    journal<discard_reason> told;
    gate busy;
    task_pool pool({.threads = 1, .max_threads = 1, .on_discard = [&](const discard& d) { told.add(d.reason); }});
    const opener opens(busy);
    occupy(pool, "key", busy);
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() - 1ns, [] { FAIL(); })));
    ASSERT_TRUE(pool.submit("must", with_deadline(pool.now() - 1ns, [] { FAIL(); }), {.on_stop = stop_action::run}));
    std::thread opens_later([&] {
        EXPECT_TRUE(eventually([&] { return told.size() == 1; }));
        busy.open();
    });
    const auto report = pool.stop();
    opens_later.join();
    // One that waits is discarded by the stop; one that must run comes to its turn.
    EXPECT_EQ(told.entries(), (std::vector{discard_reason::stopped, discard_reason::expired}));
    EXPECT_EQ(report.discarded, 2U);
    EXPECT_EQ(report.discarded_by_stop, 1U);
}

TEST(Matrix_deadline, drain) {
    strings told;
    manual_pool pool(with_discards(told));
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() - 1ns, [] {})));
    pool.drain("key"); // waits for its turn
    EXPECT_EQ(told, strings{"key expired"});
}

TEST(Matrix_deadline, cancel_key) {
    strings told;
    manual_pool pool(with_discards(told));
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() - 1ns, [] {})));
    EXPECT_EQ(pool.cancel("key"), 1U);
    EXPECT_EQ(told, strings{"key other"});
    EXPECT_EQ(pool.stats().expired, 0U);
}

TEST(Matrix_deadline, job_throws) {
    int failures = 0;
    manual_pool pool({.on_failure = [&](const failure&) { ++failures; }});
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() + 1h, [] { throw std::runtime_error("no"); })));
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() + 1h, [] { throw job_expired(); }))); // as any exception
    pool.drain();
    EXPECT_EQ(failures, 2);
    EXPECT_EQ(pool.stats().failed, 2U);
    EXPECT_EQ(pool.stats().expired, 0U);
}

TEST(Matrix_deadline, lane_full) {
    manual_pool pool({.lane_capacity = 1});
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() - 1ns, [] {})));
    EXPECT_EQ(pool.try_submit("key", [] {}), submit_status::full);
    ASSERT_TRUE(pool.submit("key", [] {})); // waits for room, which the late one's turn makes
}

TEST(Matrix_deadline, pool_full) {
    manual_pool pool({.pool_capacity = 1});
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() - 1ns, [] {})));
    EXPECT_EQ(pool.try_submit("other", [] {}), submit_status::full);
    ASSERT_TRUE(pool.submit("other", [] {}));
}

TEST(Matrix_deadline, key_paused) {
    strings told;
    manual_pool pool(with_discards(told));
    pool.pause("key");
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() + 1ms, [] { FAIL(); })));
    pool.run_for(1s);
    EXPECT_EQ(told, strings{}); // its turn has not come
    pool.resume("key");
    pool.run_until_idle();
    EXPECT_EQ(told, strings{"key expired"});
}

TEST(Matrix_deadline, pool_destroyed) {
    auto alive = std::make_shared<int>(0);
    {
        task_pool pool({.autostart = false});
        ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() - 1ns, [alive] {})));
    }
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Matrix_deadline, key_submitted_to_meanwhile) {
    strings told;
    int ran = 0;
    manual_pool pool(with_discards(told));
    ASSERT_TRUE(pool.submit("key", with_deadline(pool.now() - 1ns, [] {})));
    ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
    pool.drain();
    EXPECT_EQ(ran, 1);
}

} // namespace
} // namespace taskpool::testing
