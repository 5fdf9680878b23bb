// SPDX-License-Identifier: Apache-2.0
// How long ready keys wait, which keys those are, and what a pool refuses while they wait for too long: to the
// millisecond in virtual time, and on threads. And what becomes of an overloaded pool in each event: the row of
// overload in docs/waiting.md, cell by cell.
#include <optional>
#include <stdexcept>

#include <taskpool/detail/posting.hpp>
#include <taskpool/testing.hpp>

#include "pool_core.hpp"
#include "testing.hpp"

namespace taskpool::testing {
namespace {

using strings = std::vector<std::string>;

constexpr auto longest = 20ms;
constexpr auto overloaded = submit_status::overloaded;

/// One worker, which does not get help where its job blocks.
options with_one_worker(options settings = {}) {
    settings.threads = settings.max_threads = 1;
    return settings;
}

/// A pool that has a limit and one worker, and tells whether it refuses new work.
class watched_pool : public task_pool {
  public:
    explicit watched_pool(options settings = {}) : task_pool(with_limit(std::move(settings))) {}
    bool refuses() const { return core().is_overloaded(); }

  private:
    static options with_limit(options settings) {
        settings.max_wait = longest;
        return with_one_worker(std::move(settings));
    }
};

/// Submits, also where the machine was so busy that the pool is overloaded for a moment by what was submitted before.
template <class F>
void submit(watched_pool& pool, std::string_view key, F job) {
    ASSERT_TRUE(eventually([&] { return pool.try_submit(key, job).accepted(); }));
}

/// Some ready key has waited for too long, and will go on to.
void wait_for_overload(const watched_pool& pool) {
    ASSERT_TRUE(eventually([&] { return pool.stats().oldest_wait > longest && pool.refuses(); }));
}

/// Its worker runs a job of "busy" until the gate opens ...
void occupy_worker(watched_pool& pool, gate& until) {
    auto started = std::make_shared<gate>();
    submit(pool, "busy", [started, &until] {
        started->open();
        until.wait();
    });
    started->wait();
}

/// ... and a job of "waits" has waited for too long.
void overload(watched_pool& pool, gate& until) {
    occupy_worker(pool, until);
    submit(pool, "waits", [] {});
    wait_for_overload(pool);
}

/// The same in virtual time: nothing runs, and a job of "waits" has waited for too long.
options limited(options settings = {}) {
    settings.max_wait = longest;
    return settings;
}
void overload(manual_pool& pool) {
    ASSERT_TRUE(pool.submit("waits", [] {}));
    pool.clock().advance(longest + 1ms);
}

// --- What there is to see --------------------------------------------------------------------------------------------

TEST(Overload, stats_tell_for_how_long_the_oldest_ready_key_has_waited) {
    manual_pool pool;
    EXPECT_EQ(pool.stats().oldest_wait, 0ms);
    EXPECT_EQ(pool.oldest_keys(), strings{});
    pool.submit("a", [] {});
    pool.clock().advance(30ms);
    pool.submit("b", [] {});
    pool.submit("c", [] {});
    EXPECT_EQ(pool.stats().oldest_wait, 30ms);
    EXPECT_EQ(pool.oldest_keys(), strings{"a"});
    pool.clock().advance(20ms);
    EXPECT_EQ(pool.stats().oldest_wait, 50ms);
    EXPECT_TRUE(pool.step());
    EXPECT_EQ(pool.stats().oldest_wait, 20ms);
    EXPECT_EQ(pool.oldest_keys(), (strings{"b", "c"}));
    EXPECT_EQ(pool.oldest_keys(1), strings{"b"});
    EXPECT_EQ(pool.oldest_keys(0), strings{});
    pool.run_until_idle();
    EXPECT_EQ(pool.stats().oldest_wait, 0ms);
    EXPECT_EQ(pool.oldest_keys(), strings{});
}

TEST(Overload, at_most_256_keys_are_told) {
    manual_pool pool;
    for (int i = 0; i < 1000; ++i)
        pool.submit(std::to_string(i), [] {});
    EXPECT_EQ(pool.oldest_keys(1'000'000).size(), 256U);
}

TEST(Overload, a_key_whose_jobs_were_cancelled_is_not_told) {
    manual_pool pool;
    pool.submit("a", [] {});
    pool.submit("b", [] {});
    pool.cancel("a");
    EXPECT_EQ(pool.oldest_keys(), strings{"b"});
}

TEST(Overload, on_threads_the_wait_is_that_for_a_worker) {
    gate until;
    task_pool pool(with_one_worker());
    const opener opens(until);
    occupy(pool, "busy", until);
    pool.submit("busy", [] {}); // waits for its own key
    let_ticks_pass();
    EXPECT_EQ(pool.stats().oldest_wait, 0ms);
    pool.submit("waits", [] {});
    EXPECT_TRUE(oldest_waits(pool, 10ms));
    EXPECT_EQ(pool.oldest_keys(), strings{"waits"});
}

TEST(Overload, a_priority_changes_the_turn_and_not_the_wait) {
    for (const auto of : {priority::high, priority::low}) {
        gate until;
        task_pool pool(with_one_worker({.ageing = 1h}));
        const opener opens(until);
        occupy(pool, "busy", until);
        pool.submit("waits", [] {}, {.priority = of});
        EXPECT_LT(pool.stats().oldest_wait, 10min);
        EXPECT_TRUE(oldest_waits(pool, 5ms));
        EXPECT_LT(pool.stats().oldest_wait, 10min);
    }
}

TEST(Overload, a_key_that_made_way_counts_by_its_next_job) {
    gate first;
    gate second;
    gate runs;
    task_pool pool(with_one_worker());
    const opener opens_first(first);
    const opener opens_second(second);
    occupy(pool, "a", first);
    pool.submit("b", [&] {
        runs.open();
        second.wait();
    });
    ASSERT_TRUE(oldest_waits(pool, 10ms)); // b's
    pool.submit("a", [] {});               // younger than b's: it makes way
    const auto so_far = pool.stats().oldest_wait;
    ASSERT_TRUE(oldest_waits(pool, so_far + 40ms));
    first.open();
    runs.wait();
    EXPECT_GE(pool.stats().oldest_wait, 40ms); // and not since it made way
    EXPECT_EQ(pool.oldest_keys(), strings{"a"});
}

TEST(Overload, a_pool_that_was_not_started_tells_it_and_refuses_nothing) {
    task_pool pool({.threads = 1, .max_wait = 1ms, .autostart = false});
    pool.submit("a", [] {});
    EXPECT_TRUE(oldest_waits(pool, 10ms));
    EXPECT_EQ(pool.oldest_keys(), strings{"a"});
    EXPECT_TRUE(pool.try_submit("b", [] {}));
    pool.start();
    pool.drain();
    EXPECT_EQ(pool.stats().rejected, 0U);
}

TEST(Overload, keys_are_told_while_they_come_and_go) {
    std::atomic<bool> ends = false;
    task_pool pool({.threads = 2, .on_discard = [](const discard&) {}});
    std::vector<std::jthread> threads;
    for (int t = 0; t < 2; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; !ends; ++i) {
                const auto key = "key-" + std::to_string(t) + "-" + std::to_string(i % 5000);
                pool.submit(key, [] {});
                if (i % 7 == 0)
                    pool.cancel(key);
            }
        });
    }
    std::size_t told = 0;
    const auto end = steady::now() + 300ms * slowness;
    while (told == 0 || steady::now() < end) {
        for (const auto& key : pool.oldest_keys(50)) {
            ASSERT_TRUE(key.starts_with("key-")) << key;
            ++told;
        }
        ASSERT_GE(pool.stats().oldest_wait, 0ms);
        ASSERT_LT(pool.stats().oldest_wait, 1h);
    }
    ends = true;
    threads.clear();
    pool.drain();
}

// --- What is refused -------------------------------------------------------------------------------------------------

// I-GATE-3
TEST(Overload, new_work_is_refused_exactly_while_the_limit_is_passed) {
    manual_pool pool(limited());
    ASSERT_TRUE(pool.submit("a", [] {}));
    pool.clock().advance(longest);
    EXPECT_TRUE(pool.submit("b", [] {}));
    pool.clock().advance(1ms);
    EXPECT_EQ(pool.submit("c", [] {}), overloaded);
    EXPECT_EQ(pool.submit("a", [] {}), overloaded);
    EXPECT_TRUE(pool.step());
    EXPECT_TRUE(pool.submit("c", [] {})); // b has waited for 1 ms only
    EXPECT_EQ(pool.stats().rejected, 2U);
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 3U);
}

TEST(Overload, every_kind_of_submit_is_refused_at_once_and_its_job_untouched) {
    manual_pool pool(limited());
    const auto lane = pool.lane("lane");
    overload(pool);
    auto job = [kept = std::make_unique<int>(7)] { FAIL() << *kept; };
    EXPECT_EQ(pool.submit("key", std::move(job)), overloaded);
    EXPECT_EQ(pool.try_submit("key", std::move(job)), overloaded);
    EXPECT_EQ(pool.submit_for("key", 1h, std::move(job)), overloaded);
    EXPECT_EQ(pool.submit_until("key", steady::now() + 1h, std::move(job)), overloaded);
    EXPECT_EQ(pool.submit("key", tag{"tag"}, std::move(job)), overloaded);
    EXPECT_EQ(lane.submit(std::move(job)), overloaded);
    EXPECT_EQ(pool.submit("key", std::move(job), {.on_stop = stop_action::run, .priority = priority::high}),
              overloaded);
    EXPECT_EQ(pool.submit("key", std::move(job)).message(), "overloaded");
    const auto status_of = [](auto refused) {
        try {
            refused.get();
        } catch (const job_rejected& e) {
            return e.status();
        }
        return submit_status::accepted;
    };
    EXPECT_EQ(status_of(pool.async("key", [] { FAIL(); })), overloaded);
    EXPECT_EQ(status_of(pool.spawn("key", []() -> task<> { co_return; })), overloaded);
    EXPECT_EQ(pool.now().time_since_epoch(), longest + 1ms); // nobody waited
    EXPECT_EQ(pool.stats().rejected, 10U);
    pool.drain();
    EXPECT_EQ(pool.stats().accepted, 1U);
}

TEST(Overload, what_exists_already_is_not_refused) {
    manual_pool pool(limited());
    strings ran;
    const auto note = [&](const char* what) { return [&ran, what] { ran.emplace_back(what); }; };
    const detail::posting_lane executor(pool.lane("key"));
    auto followed = pool.async("first", [] {}).then("key", note("then"));
    pool.submit("second", [&]() -> task<> { co_await pool.run("key", note("run")); });
    pool.submit("third", with_retry({.max_attempts = 2, .backoff = {.first = 1ms}}, [&, attempts = 0]() mutable {
                    if (++attempts == 1)
                        throw std::runtime_error("again");
                    ran.emplace_back("retry");
                }));
    auto timer = pool.submit_after(longest + 1ms, "key", note("timed"));
    ASSERT_TRUE(pool.submit("waits", [] {}));
    pool.clock().advance(longest + 1ms);
    EXPECT_EQ(executor.post(note("posted")), submit_status::accepted);
    for (int i = 0; i < 3; ++i)
        EXPECT_TRUE(pool.step()); // they call, follow and throw
    EXPECT_EQ(pool.submit("key", [] { FAIL(); }), overloaded);
    pool.drain();
    EXPECT_EQ(sorted(ran), (strings{"posted", "retry", "run", "then", "timed"}));
    EXPECT_EQ(pool.stats().discarded, 0U);
}

TEST(Overload, work_for_later_is_accepted) {
    manual_pool pool(limited());
    overload(pool);
    bool ran = false;
    auto timer = pool.submit_after(1ms, "key", [&] { ran = true; });
    EXPECT_TRUE(timer);
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Overload, a_beat_is_missed) {
    manual_pool pool(limited());
    int beats = 0;
    auto timer = pool.submit_every(1s, "beat", [&] { ++beats; });
    pool.run_for(999ms);
    ASSERT_TRUE(pool.submit("waits", [] {}));
    pool.clock().advance(longest + 1ms); // its time comes meanwhile
    EXPECT_TRUE(pool.step());            // fires it before the job
    EXPECT_EQ(timer.missed(), 1U);
    EXPECT_EQ(pool.stats().rejected, 0U);
    pool.run_for(1s);
    EXPECT_EQ(beats, 1);
    timer.cancel();
}

TEST(Overload, a_job_that_replaces_one_by_its_tag_needs_no_room) {
    manual_pool pool(limited());
    strings ran;
    pool.submit("waits", tag{"tag"}, [&] { ran.emplace_back("old"); });
    pool.clock().advance(longest + 1ms);
    EXPECT_TRUE(pool.submit("waits", tag{"tag"}, [&] { ran.emplace_back("new"); }));
    EXPECT_EQ(pool.submit("waits", tag{"other"}, [] { FAIL(); }), overloaded);
    pool.drain();
    EXPECT_EQ(ran, strings{"new"});
}

TEST(Overload, a_limit_that_makes_no_sense_is_refused) {
    for (const auto bad : {0ms, -1ms, std::chrono::milliseconds(24h) + 1ms})
        EXPECT_THROW(task_pool({.max_wait = bad}), std::invalid_argument);
    for (const auto good : {1ms, std::chrono::milliseconds(24h)})
        EXPECT_NO_THROW(task_pool({.threads = 1, .max_wait = good}));
}

// --- Keys that wait for themselves (G3) ------------------------------------------------------------------------------

TEST(Overload, keys_that_are_paused_or_held_or_wait_for_their_rate_do_not_count) {
    manual_pool pool(limited());
    held hold;
    pool.limit("limited", {1, per_hour});
    pool.pause("paused");
    pool.submit("held", [&](const job_context& context) { hold = context.hold(); });
    pool.submit("sleeps", []() -> task<> { co_await sleep_for(1h); });
    for (const auto* const key : {"limited", "limited", "paused", "held", "sleeps"})
        pool.submit(key, [] {});
    pool.run_until_idle();
    for (int i = 0; i < 10; ++i) {
        pool.clock().advance(1min);
        EXPECT_EQ(pool.stats().oldest_wait, 0ms);
        EXPECT_TRUE(pool.submit("other", [] {}));
        pool.run_until_idle();
    }
    hold.release();
    pool.resume("paused");
    pool.limit("limited", unlimited);
    EXPECT_EQ(pool.stats().ready_lanes, 3U);
    EXPECT_EQ(pool.stats().oldest_wait, 0ms); // from now on they wait for a worker
    EXPECT_TRUE(pool.submit("other", [] {}));
    pool.clock().advance(longest + 1ms);
    EXPECT_EQ(pool.submit("other", [] {}), overloaded);
    pool.drain();
}

TEST(Overload, a_key_that_waited_for_itself_begins_anew_when_it_is_ready) {
    // None of the three that waited for themselves counts from when it was submitted: one that waits for a worker and
    // was submitted in a later tick has waited for longer.
    gate ticks;
    gate until;
    gate again;
    const auto clock = std::make_shared<manual_clock>(); // for the rate
    task_pool pool(with_one_worker({.clock = clock}));
    const opener opens_first(ticks);
    const opener opens(until);
    pool.pause("paused");
    pool.submit("paused", [] {});
    held hold;
    pool.submit("held", [&](const job_context& context) { hold = context.hold(); });
    pool.submit("held", [] {});
    pool.limit("limited", {1, 1s});
    for (int i = 0; i < 2; ++i)
        pool.submit("limited", [] {});
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1 && pool.stats().limited_keys == 1; }));
    occupy(pool, "busy", ticks);
    pool.submit("shows the ticks", [] {});
    ASSERT_TRUE(oldest_waits(pool, 2ms));
    ticks.open();
    pool.drain("shows the ticks");
    occupy(pool, "busy", until);
    const auto becomes_old = [&] {
        pool.submit("early", [] {});
        return oldest_waits(pool, 2ms);
    };
    ASSERT_TRUE(becomes_old());
    pool.resume("paused");
    hold.release();
    EXPECT_EQ(pool.stats().ready_lanes, 3U);
    EXPECT_EQ(pool.oldest_keys(), strings{"early"});
    pool.cancel("paused");
    pool.cancel("held");
    until.open();
    pool.drain("busy");
    const opener opens_again(again);
    occupy(pool, "busy", again);
    ASSERT_TRUE(becomes_old());
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return pool.stats().ready_lanes == 2; })); // its token has come
    EXPECT_EQ(pool.oldest_keys(), strings{"early"});
}

// --- On threads ------------------------------------------------------------------------------------------------------

// I-OVERLOAD-1
TEST(Overload, it_ends_with_the_wait) {
    gate until;
    watched_pool pool;
    const opener opens(until);
    overload(pool, until);
    EXPECT_EQ(pool.submit("key", [] {}), overloaded);
    EXPECT_TRUE(for_a_while([&] { return pool.try_submit("key", [] {}) == overloaded; }));
    until.open();
    EXPECT_TRUE(eventually([&] { return pool.try_submit("key", [] {}).accepted(); }));
}

TEST(Overload, it_comes_again) {
    watched_pool pool;
    for (int round = 0; round < 3; ++round) {
        gate until;
        const opener opens(until);
        overload(pool, until);
        EXPECT_EQ(pool.submit("key", [] {}), overloaded);
        until.open();
        pool.drain();
        submit(pool, "key", [] {});
    }
}

TEST(Overload, stress) {
    for (const auto rule : {overflow::block, overflow::reject, overflow::drop_oldest}) {
        std::atomic<std::uint64_t> ran = 0;
        std::atomic<std::uint64_t> discarded = 0;
        std::atomic<std::uint64_t> accepted = 0;
        std::atomic<std::uint64_t> refused = 0;
        std::array<std::atomic<int>, 20> inside{};
        task_pool pool({.threads = 2,
                        .lane_capacity = 30,
                        .pool_capacity = 400,
                        .when_full = rule,
                        .max_wait = 1ms,
                        .on_discard = [&](const discard&) { ++discarded; }});
        {
            std::vector<std::jthread> producers;
            for (unsigned t = 0; t < 3; ++t) {
                producers.emplace_back([&, t] {
                    std::minstd_rand random(t + 1);
                    for (int i = 0; i < 3000; ++i) {
                        const auto n = random() % inside.size();
                        auto answer = pool.submit("key-" + std::to_string(n), [&, n] {
                            EXPECT_EQ(inside[n]++, 0);
                            burn(10us);
                            --inside[n];
                            ++ran;
                        });
                        (answer ? accepted : refused) += 1;
                        if (random() % 200 == 0)
                            pool.cancel("key-" + std::to_string(random() % inside.size()));
                    }
                });
            }
        }
        pool.drain();
        EXPECT_EQ(ran + discarded, accepted);
        const auto s = pool.stats();
        EXPECT_EQ(s.accepted, accepted);
        EXPECT_EQ(s.rejected, refused);
        EXPECT_EQ(s.waiting, 0U);
        // One whose jobs were cancelled is in the queue of ready keys until a worker takes it out.
        EXPECT_TRUE(eventually([&] { return pool.stats().oldest_wait == 0ms; }));
        EXPECT_TRUE(eventually([&] { return pool.try_submit("key", [] {}).accepted(); }));
    }
}

// --- Matrix ----------------------------------------------------------------------------------------------------------

TEST(Matrix_overload, stop) {
    gate until;
    watched_pool pool({.on_discard = [&](const discard&) { until.open(); }}); // the stop has begun
    const opener opens(until);
    overload(pool, until);
    EXPECT_EQ(pool.stop().discarded_by_stop, 1U);
    EXPECT_EQ(pool.submit("key", [] {}), submit_status::stopped);
}

TEST(Matrix_overload, close) {
    gate until;
    watched_pool pool;
    const opener opens(until);
    overload(pool, until);
    pool.close();
    EXPECT_EQ(pool.submit("key", [] {}), submit_status::stopped);
    until.open();
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 2U);
}

TEST(Matrix_overload, drain) {
    gate until;
    watched_pool pool;
    const opener opens(until);
    overload(pool, until);
    EXPECT_EQ(pool.drain_for(5ms).keys.size(), 2U);
    until.open();
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 2U);
}

TEST(Matrix_overload, cancel_key) {
    gate until;
    watched_pool pool;
    const opener opens(until);
    occupy_worker(pool, until);
    submit(pool, "waits", [] {});
    wait_for_overload(pool);
    EXPECT_EQ(pool.cancel("waits"), 1U);
    EXPECT_EQ(pool.submit("waits", [] {}), overloaded); // its room lets nothing in, and it keeps its turn
    until.open();
    EXPECT_TRUE(eventually([&] { return pool.try_submit("waits", [] {}).accepted(); }));
}

TEST(Matrix_overload, job_throws) {
    gate until;
    std::atomic<int> failures = 0;
    gate started;
    watched_pool pool({.on_failure = [&](const failure&) { ++failures; }});
    const opener opens(until);
    pool.submit("busy", [&] {
        started.open();
        until.wait();
        throw std::runtime_error("no");
    });
    started.wait();
    submit(pool, "waits", [] {});
    wait_for_overload(pool);
    until.open();
    EXPECT_TRUE(eventually([&] { return pool.try_submit("key", [] {}).accepted(); }));
    EXPECT_EQ(failures, 1);
}

// I-OVERLOAD-2
TEST(Matrix_overload, lane_full) {
    gate until;
    watched_pool pool({.lane_capacity = 1});
    const opener opens(until);
    occupy_worker(pool, until);
    submit(pool, "waits", [] {});
    submit_result waited = submit_status::accepted;
    std::jthread waits([&] { waited = pool.submit("waits", [] {}); }); // for room, and then it is refused
    waits.join();
    EXPECT_EQ(waited, overloaded);
    wait_for_overload(pool);
    EXPECT_EQ(pool.try_submit("waits", [] {}), overloaded);
}

// I-OVERLOAD-2
TEST(Matrix_overload, pool_full) {
    gate until;
    watched_pool pool({.pool_capacity = 1});
    const opener opens(until);
    occupy_worker(pool, until);
    submit(pool, "waits", [] {});
    submit_result waited = submit_status::accepted;
    std::jthread waits([&] { waited = pool.submit("key", [] {}); }); // as above
    waits.join();
    EXPECT_EQ(waited, overloaded);
    wait_for_overload(pool);
    EXPECT_EQ(pool.try_submit("key", [] {}), overloaded);
}

TEST(Matrix_overload, key_paused) {
    gate until;
    watched_pool pool;
    const opener opens(until);
    overload(pool, until);
    pool.pause("waits");
    EXPECT_EQ(pool.submit("key", [] {}), overloaded); // until a worker finds it paused
    until.open();
    EXPECT_TRUE(eventually([&] { return pool.try_submit("key", [] {}).accepted(); }));
    let_ticks_pass(2 * longest);
    pool.drain("key");
    EXPECT_EQ(pool.stats().oldest_wait, 0ms); // it waits for itself now
    EXPECT_TRUE(eventually([&] { return !pool.refuses(); }));
    pool.resume("waits");
}

TEST(Matrix_overload, overflow_rules) {
    strings ran;
    for (const auto rule : {overflow::drop_oldest, overflow::keep_latest, overflow::reject}) {
        manual_pool pool(limited({.when_full = rule}));
        pool.submit("waits", [&] { ran.emplace_back("old"); });
        pool.clock().advance(longest + 1ms);
        const auto answer = pool.submit("waits", [&] { ran.emplace_back("new"); });
        EXPECT_EQ(answer, rule == overflow::reject ? overloaded : submit_status::accepted);
        EXPECT_EQ(pool.submit("other", [] { FAIL(); }), overloaded); // none waits that it could replace
        pool.drain();
    }
    EXPECT_EQ(ran, (strings{"new", "new", "old"}));
}

TEST(Matrix_overload, timed_job) {
    gate until;
    std::atomic<int> ran = 0;
    watched_pool pool({.when_full = overflow::reject});
    const opener opens(until);
    overload(pool, until);
    auto timer = pool.submit_after(1ms, "key", [&] { ++ran; });
    EXPECT_TRUE(eventually([&] { return pool.stats().timers == 0; })); // delivered
    EXPECT_EQ(pool.submit("key", [] {}), overloaded);
    until.open();
    pool.drain();
    EXPECT_EQ(ran, 1);
    EXPECT_EQ(pool.stats().discarded, 0U);
}

TEST(Matrix_overload, job_that_submits) {
    gate until;
    submit_result answer = submit_status::accepted;
    gate started;
    watched_pool pool;
    const opener opens(until);
    pool.submit("busy", [&] {
        started.open();
        until.wait();
        answer = pool.submit("next", [] {});
    });
    started.wait();
    submit(pool, "waits", [] {});
    wait_for_overload(pool);
    until.open();
    pool.drain();
    EXPECT_EQ(answer, overloaded);
}

TEST(Matrix_overload, pool_destroyed) {
    gate until;
    std::atomic<int> discarded = 0;
    {
        watched_pool pool({.on_discard = [&](const discard&) {
            ++discarded;
            until.open(); // the stop has begun
        }});
        overload(pool, until);
    }
    EXPECT_EQ(discarded, 1);
}

TEST(Matrix_overload, key_submitted_to_meanwhile) {
    gate until;
    watched_pool pool;
    const opener opens(until);
    overload(pool, until);
    for (const auto* const key : {"busy", "waits", "new"})
        EXPECT_EQ(pool.submit(key, [] {}), overloaded); // whatever the key
}

} // namespace
} // namespace taskpool::testing
