// SPDX-License-Identifier: Apache-2.0
// Shared jobs: that neighbours run together, and exclusive ones alone; and what becomes of them in each event: the row
// of shared jobs in docs/waiting.md, cell by cell. In a pool without threads those that are held run side by side.
#include <optional>
#include <stdexcept>

#include <taskpool/testing.hpp>

#include "testing.hpp"

namespace taskpool::testing {
namespace {

using strings = std::vector<std::string>;

/// Jobs that note their start, and hold their key until they are released by name.
class holders {
  public:
    explicit holders(manual_pool& pool) : pool_(pool) {}
    ~holders() { held_.clear(); }

    auto job(std::string name) {
        return [this, name = std::move(name)](const job_context& context) {
            began_.push_back(name);
            held_[name] = context.hold();
        };
    }
    void share(const std::string& name) { ASSERT_TRUE(pool_.submit_shared("key", job(name))); }
    void exclude(const std::string& name) { ASSERT_TRUE(pool_.submit("key", job(name))); }

    /// Ends one, and lets others begin.
    void end(const std::string& name) {
        held_.erase(name);
        pool_.run_until_idle();
    }
    /// Ends all that have begun, until none is left.
    void end_all() {
        while (!held_.empty()) {
            held_.clear();
            pool_.run_until_idle();
        }
    }
    bool is_asked_to_stop(const std::string& name) { return held_.at(name).stop_requested(); }
    /// Those that have begun since the last call.
    strings began() {
        pool_.run_until_idle();
        return std::exchange(began_, {});
    }

  private:
    manual_pool& pool_;
    strings began_;
    std::map<std::string, held> held_;
};

TEST(Shared, neighbours_run_together_and_an_exclusive_job_alone) {
    manual_pool pool;
    holders jobs(pool);
    jobs.share("a");
    jobs.share("b");
    jobs.exclude("C");
    jobs.share("d");
    jobs.share("e");
    EXPECT_EQ(jobs.began(), (strings{"a", "b"}));
    EXPECT_EQ(pool.stats().shared, 2U);
    jobs.end("b");
    EXPECT_EQ(jobs.began(), strings{});
    jobs.end("a");
    EXPECT_EQ(jobs.began(), strings{"C"});
    EXPECT_EQ(pool.stats().shared, 0U);
    jobs.end("C");
    EXPECT_EQ(jobs.began(), (strings{"d", "e"}));
    jobs.end_all();
    EXPECT_EQ(pool.active_keys(), 0U);
    EXPECT_EQ(pool.stats().finished, 5U);
}

TEST(Shared, one_that_comes_while_others_run_joins_them_unless_an_exclusive_one_waits) {
    manual_pool pool;
    holders jobs(pool);
    jobs.share("a");
    EXPECT_EQ(jobs.began(), strings{"a"});
    jobs.share("b");
    EXPECT_EQ(jobs.began(), strings{"b"});
    jobs.exclude("C");
    jobs.share("d");
    EXPECT_EQ(jobs.began(), strings{});
    jobs.end("a");
    jobs.end("b");
    EXPECT_EQ(jobs.began(), strings{"C"});
    jobs.end_all();
    EXPECT_EQ(jobs.began(), strings{"d"});
}

TEST(Shared, exclusive_jobs_do_not_overlap_each_other) {
    manual_pool pool;
    holders jobs(pool);
    jobs.share("a");
    jobs.exclude("B");
    jobs.exclude("C");
    EXPECT_EQ(jobs.began(), strings{"a"});
    jobs.end("a");
    EXPECT_EQ(jobs.began(), strings{"B"});
    jobs.end("B");
    EXPECT_EQ(jobs.began(), strings{"C"});
}

// I-SHARED-3
TEST(Shared, no_more_than_the_limit_run) {
    manual_pool pool({.max_shared = 2});
    holders jobs(pool);
    for (const auto* const name : {"a", "b", "c", "d"})
        jobs.share(name);
    EXPECT_EQ(jobs.began(), (strings{"a", "b"}));
    jobs.end("a");
    EXPECT_EQ(jobs.began(), strings{"c"});
    jobs.end("c");
    EXPECT_EQ(jobs.began(), strings{"d"});
}

TEST(Shared, a_limit_of_one_makes_them_exclusive) {
    manual_pool pool({.max_shared = 1});
    holders jobs(pool);
    jobs.share("a");
    jobs.share("b");
    EXPECT_EQ(jobs.began(), strings{"a"});
    jobs.end("a");
    EXPECT_EQ(jobs.began(), strings{"b"});
    EXPECT_THROW(manual_pool({.max_shared = 0}), std::invalid_argument);
}

TEST(Shared, keys_do_not_hold_each_other_up) {
    manual_pool pool({.max_shared = 1});
    holders jobs(pool);
    jobs.share("a");
    jobs.exclude("B");
    EXPECT_EQ(jobs.began(), strings{"a"});
    bool ran = false;
    pool.submit_shared("other", [&] { ran = true; });
    pool.run_until_idle();
    EXPECT_TRUE(ran);
}

TEST(Shared, a_step_runs_one_of_them) {
    manual_pool pool;
    int ran = 0;
    for (int i = 0; i < 3; ++i)
        pool.submit_shared("key", [&] { ++ran; });
    pool.submit("key", [&] { ++ran; });
    EXPECT_TRUE(pool.step());
    EXPECT_EQ(ran, 1);
    EXPECT_EQ(pool.run_until_idle(), 3U);
    EXPECT_EQ(ran, 4);
    EXPECT_FALSE(pool.step());
}

TEST(Shared, each_has_its_own_context) {
    manual_pool pool;
    std::vector<std::uint64_t> numbers;
    strings keys;
    holders jobs(pool);
    jobs.share("a");
    EXPECT_EQ(jobs.began(), strings{"a"});
    const auto note = [&](const job_context& context) {
        numbers.push_back(context.number());
        keys.push_back(context.key());
    };
    pool.submit_shared("key", note);
    pool.run_until_idle();
    pool.submit_shared("key", note);
    pool.submit("key", note);
    jobs.end("a");
    EXPECT_EQ(numbers, (std::vector<std::uint64_t>{2, 3, 4})); // the key has had work all the time
    EXPECT_EQ(keys, (strings{"key", "key", "key"}));
    pool.submit_shared("key", note);
    pool.run_until_idle();
    EXPECT_EQ(numbers.back(), 1U);
}

TEST(Shared, has_a_future_and_may_go_through_a_handle) {
    manual_pool pool;
    const auto lane = pool.lane("key");
    holders jobs(pool);
    jobs.share("a");
    auto one = pool.async_shared("key", [] { return 1; });
    auto two = lane.async_shared([](const job_context& context) { return context.key() + "!"; });
    int ran = 0;
    EXPECT_TRUE(lane.submit_shared([&] { ++ran; }));
    EXPECT_TRUE(lane.try_submit_shared([&] { ++ran; }));
    EXPECT_TRUE(pool.try_submit_shared("key", [&] { ++ran; }));
    EXPECT_EQ(one.get(), 1); // beside the one that is held
    EXPECT_EQ(two.get(), "key!");
    pool.run_until_idle();
    EXPECT_EQ(ran, 3);
}

TEST(Shared, a_job_that_is_tried_again_keeps_its_share_meanwhile) {
    manual_pool pool;
    holders jobs(pool);
    int attempts = 0;
    pool.submit_shared("key", with_retry({.max_attempts = 3, .backoff = {.first = 1s, .jitter = 0}}, [&] {
                           if (++attempts < 3)
                               throw std::runtime_error("no");
                       }));
    jobs.share("a");
    jobs.exclude("B");
    EXPECT_EQ(jobs.began(), strings{"a"});
    EXPECT_EQ(attempts, 1);
    jobs.end("a");
    pool.run_for(2900ms);
    EXPECT_EQ(jobs.began(), strings{});
    EXPECT_EQ(attempts, 2);
    pool.run_for(100ms);
    EXPECT_EQ(attempts, 3);
    EXPECT_EQ(jobs.began(), strings{"B"});
    EXPECT_EQ(pool.stats().retries, 2U);
}

TEST(Shared, a_key_that_is_paused_by_a_job_that_was_given_up_is_the_jobs) {
    manual_pool pool({.on_failure = [](const failure&) {}});
    pool.submit_shared("key", with_retry({.max_attempts = 1, .then = given_up::pause}, [] { throw 1; }));
    pool.run_until_idle();
    EXPECT_EQ(pool.paused_keys(), strings{"key"});
}

TEST(Shared, a_job_that_has_failed_for_good_may_be_submitted_anew_either_way) {
    manual_pool pool;
    std::vector<stored_job> dead;
    int attempts = 0;
    const auto policy = std::make_shared<const retry>(
        retry{.max_attempts = 1, .handler = [&](dead_letter&& letter) { dead.push_back(std::move(letter.job)); }});
    holders jobs(pool);
    jobs.share("a");
    pool.submit_shared("key", with_retry(policy, [&] {
                           if (++attempts < 3)
                               throw 1;
                       }));
    pool.run_until_idle();
    ASSERT_EQ(dead.size(), 1U);
    pool.submit_shared("key", std::move(dead[0]));
    pool.run_until_idle();
    EXPECT_EQ(attempts, 2);
    ASSERT_EQ(dead.size(), 2U);
    pool.submit("key", std::move(dead[1])); // exclusive now
    pool.run_until_idle();
    EXPECT_EQ(attempts, 2);
    jobs.end("a");
    EXPECT_EQ(attempts, 3);
}

TEST(Shared, one_that_is_too_late_for_its_deadline_leaves_no_share) {
    manual_pool pool({.rate = rate{10, per_second}});
    strings told;
    holders jobs(pool);
    pool.submit_shared("key", [] {});
    pool.submit_shared("key", with_deadline(pool.now() + 50ms, [] { FAIL(); }));
    jobs.share("a");
    pool.run_for(100ms);
    EXPECT_EQ(jobs.began(), strings{"a"}); // with the token that the late one gave back
    EXPECT_EQ(pool.stats().expired, 1U);
    EXPECT_EQ(pool.stats().shared, 1U);
}

TEST(Shared, each_takes_a_token_when_it_starts) {
    manual_pool pool({.max_shared = 2, .rate = rate{10, per_second, 2}});
    holders jobs(pool);
    for (const auto* const name : {"a", "b", "c"})
        jobs.share(name);
    EXPECT_EQ(jobs.began(), (strings{"a", "b"}));
    pool.run_for(1s); // it waits for a share, and takes no token for that
    EXPECT_EQ(jobs.began(), strings{});
    EXPECT_EQ(pool.stats().limited_keys, 0U);
    jobs.share("d");
    jobs.share("e");
    jobs.end("a");
    jobs.end("b");
    EXPECT_EQ(jobs.began(), (strings{"c", "d"}));
    jobs.end("c"); // the next one waits for a token
    EXPECT_EQ(jobs.began(), strings{});
    EXPECT_EQ(pool.stats().limited_keys, 1U);
    pool.run_for(100ms);
    EXPECT_EQ(jobs.began(), strings{"e"});
}

TEST(Shared, a_change_of_rates_does_not_make_a_lane_forget_its_shared_jobs) {
    manual_pool pool;
    holders jobs(pool);
    jobs.share("a");
    EXPECT_EQ(jobs.began(), strings{"a"});
    jobs.exclude("B");
    pool.limit("key", {1, per_second, 10});
    pool.limit_all(rate{1, per_second, 10});
    pool.unlimit("key");
    pool.limit_all({});
    pool.run_for(20s); // the bucket ends
    pool.pause("key");
    pool.resume("key");
    EXPECT_EQ(jobs.began(), strings{});
    jobs.end("a");
    EXPECT_EQ(jobs.began(), strings{"B"});
}

TEST(Shared, a_coroutine_that_lends_its_key_goes_on_when_no_shared_job_runs) {
    manual_pool pool;
    strings log;
    auto done = pool.spawn("key",
                           [&]() -> task<> {
                               log.emplace_back("begins");
                               co_await sleep_for(10ms);
                               log.emplace_back("goes on");
                           },
                           {.while_suspended = suspension::interleave});
    holders jobs(pool);
    jobs.share("a");
    EXPECT_EQ(jobs.began(), strings{"a"});
    pool.run_for(20ms);
    jobs.share("b"); // behind the coroutine
    EXPECT_EQ(jobs.began(), strings{});
    EXPECT_EQ(log, strings{"begins"});
    jobs.end("a");
    EXPECT_EQ(jobs.began(), strings{"b"});
    EXPECT_EQ(log, (strings{"begins", "goes on"}));
    EXPECT_TRUE(done.is_ready());
}

TEST(Shared, a_coroutine_that_holds_its_key_excludes_them) {
    manual_pool pool;
    auto done = pool.spawn("key", []() -> task<> { co_await sleep_for(10ms); });
    holders jobs(pool);
    jobs.share("a");
    EXPECT_EQ(jobs.began(), strings{});
    pool.run_for(10ms);
    EXPECT_EQ(jobs.began(), strings{"a"});
}

TEST(Shared, a_wait_for_the_own_key_is_refused) {
    manual_pool pool({.lane_capacity = 1, .on_failure = [](const failure&) {}});
    int refused = 0;
    const auto is_refused = [&](auto wait) {
        try {
            wait();
            ADD_FAILURE() << "it waited";
        } catch (const deadlock_error& error) {
            EXPECT_EQ(error.keys(), strings{"key"});
            ++refused;
        }
    };
    pool.submit_shared("key", [&] {
        is_refused([&] { pool.async_shared("key", [] { return 1; }).get(); });
        is_refused([&] { pool.drain("key"); });
        EXPECT_EQ(pool.submit_shared("key", [] {}), submit_status::would_deadlock); // the one above waits
    });
    pool.drain();
    EXPECT_EQ(refused, 2);
}

TEST(Shared, a_job_may_wait_for_another_key_on_top_of_which_its_neighbours_run) {
    manual_pool pool;
    int sum = 0;
    for (int i = 1; i <= 3; ++i)
        pool.submit_shared("key", [&, i] { sum += pool.async("other", [i] { return i; }).get(); });
    bool ran = false;
    pool.submit("key", [&] {
        EXPECT_EQ(sum, 6);
        ran = true;
    });
    pool.drain();
    EXPECT_TRUE(ran);
}

// I-SHARED-4
TEST(Shared, a_key_is_forgotten_after_them) {
    const auto before = counted_key::alive.load();
    {
        counted_pool pool({.threads = 2});
        for (std::uint64_t i = 0; i < 100; ++i)
            for (int j = 0; j < 3; ++j)
                pool.submit_shared(counted_key(i), [] {});
        pool.drain();
        EXPECT_TRUE(eventually([&] { return pool.hottest_keys(0).empty() && pool.active_keys() == 0; }));
    }
    EXPECT_EQ(counted_key::alive.load(), before);
}

/// A key that cannot be copied now and then.
struct brittle_key {
    std::uint64_t value;
    static inline std::atomic<bool> breaks = false;

    explicit brittle_key(std::uint64_t v) : value(v) {}
    brittle_key(const brittle_key& other) : value(other.value) {
        if (breaks)
            throw std::bad_alloc();
    }
    friend bool operator==(const brittle_key& a, const brittle_key& b) noexcept { return a.value == b.value; }
    struct hash {
        std::size_t operator()(const brittle_key& key) const noexcept { return key.value; }
    };
};

TEST(Shared, without_memory_for_a_share_a_job_runs_before_those_behind_it) {
    basic_manual_pool<brittle_key, brittle_key::hash> pool;
    const brittle_key key(1);
    std::vector<int> ran;
    std::optional<held> first, second;
    pool.submit_shared(key, [&](const basic_job_context<brittle_key>& context) { first.emplace(context.hold()); });
    pool.run_until_idle();
    brittle_key::breaks = true;
    pool.submit_shared(key, [&](const basic_job_context<brittle_key>& context) {
        ran.push_back(1);
        second.emplace(context.hold());
    });
    pool.run_until_idle();
    brittle_key::breaks = false;
    pool.submit_shared(key, [&] { ran.push_back(2); });
    pool.submit(key, [&] { ran.push_back(3); });
    pool.run_until_idle();
    EXPECT_EQ(ran, std::vector<int>{1});
    second.reset();
    pool.run_until_idle();
    EXPECT_EQ(ran, (std::vector<int>{1, 2}));
    first.reset();
    pool.run_until_idle();
    EXPECT_EQ(ran, (std::vector<int>{1, 2, 3}));
}

TEST(Shared, jobs_of_one_key_run_on_several_threads_at_once) {
    std::latch all(3);
    task_pool pool({.threads = 3});
    for (int i = 0; i < 3; ++i)
        pool.submit_shared("key", [&] { all.arrive_and_wait(); });
    pool.drain();
}

TEST(Shared, blocked_ones_are_replaced_like_any_job) {
    std::latch all(4);
    task_pool pool({.threads = 1, .max_threads = 4});
    for (int i = 0; i < 4; ++i)
        pool.submit_shared("key", [&] { all.arrive_and_wait(); });
    pool.drain();
}

TEST(Shared, several_may_wait_at_once_and_each_wait_counts) {
    gate opens_b, waits;
    std::atomic<int> waiting = 0, refused = 0;
    std::atomic<int> sum = 0;
    task_pool pool({.threads = 4});
    const opener opens(opens_b);
    occupy(pool, "b", opens_b);
    auto b = std::make_shared<future<int>>(pool.async("b", [&] {
        // Two jobs of "a" wait for this one.
        try {
            pool.drain("a");
        } catch (const deadlock_error& error) {
            EXPECT_EQ(sorted(error.keys()), (strings{"a", "b"}));
            ++refused;
        }
        return 1;
    }));
    pool.submit_shared("a", [&, b] {
        ++waiting;
        sum += b->get();
    });
    pool.submit_shared("a", [&] {
        ++waiting;
        sum += pool.async("b", [] { return 2; }).get();
    });
    EXPECT_TRUE(eventually([&] { return waiting == 2 && pool.stats().blocked_threads >= 2; }));
    opens_b.open();
    pool.drain();
    EXPECT_EQ(refused, 1);
    EXPECT_EQ(sum, 3);
}

TEST(Shared, a_wait_that_ends_is_forgotten_while_another_goes_on) {
    gate opens_b, opens_c;
    std::atomic<int> began = 0;
    std::atomic<bool> first_ended = false;
    task_pool pool({.threads = 4});
    const opener first(opens_b), second(opens_c);
    occupy(pool, "b", opens_b);
    occupy(pool, "c", opens_c);
    pool.submit_shared("a", [&] {
        ++began;
        pool.drain("b");
        first_ended = true;
    });
    pool.submit_shared("a", [&] {
        ++began;
        pool.drain("c");
    });
    EXPECT_TRUE(eventually([&] { return began == 2 && pool.stats().blocked_threads >= 2; }));
    opens_b.open();
    EXPECT_TRUE(eventually([&] { return first_ended && pool.stats().shared == 1; }));
    pool.async("b", [&] { EXPECT_TRUE(pool.submit("a", [] {})); }).get();
    opens_c.open();
    pool.drain();
}

// I-SHARED-1
TEST(Shared, a_stop_is_told_to_all_that_run) {
    std::atomic<int> began = 0, told = 0;
    task_pool pool({.threads = 3});
    const auto job = [&](std::stop_token stop) {
        gate asked;
        const std::stop_callback tells(stop, [&] { asked.open(); });
        ++began;
        asked.wait();
        ++told;
    };
    for (int i = 0; i < 3; ++i)
        pool.submit_shared("key", job);
    EXPECT_TRUE(eventually([&] { return began == 3; }));
    EXPECT_EQ(pool.cancel("key"), 0U);
    pool.drain("key");
    EXPECT_EQ(told, 3);
    for (int i = 0; i < 3; ++i)
        pool.submit_shared("key", job);
    EXPECT_TRUE(eventually([&] { return began == 6; }));
    pool.stop();
    EXPECT_EQ(told, 6);
}

TEST(Shared, draining_a_key_whose_shares_are_only_held_needs_no_thread) {
    gate is_held;
    task_pool pool({.threads = 1, .max_threads = 1});
    std::optional<held> hold;
    pool.submit_shared("key", [&](const job_context& context) { hold.emplace(context.hold()); });
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    auto drained = pool.async("other", [&] { pool.drain("key"); });
    EXPECT_TRUE(eventually([&] { return pool.stats().blocked_threads == 1; }));
    hold.reset();
    drained.get();
}

// --- The matrix ------------------------------------------------------------------------------------------------------

TEST(Matrix_shared, stop) {
    strings told, ran;
    manual_pool pool({.on_discard = [&](const discard& d) { told.emplace_back(d.key); }});
    {
        holders jobs(pool);
        jobs.share("a");
        jobs.share("b");
        pool.run_until_idle();
        pool.submit("key", [&] { ran.emplace_back("must run"); }, {.on_stop = stop_action::run});
        pool.submit_shared("key", [&] { ran.emplace_back("must run, too"); }, {.on_stop = stop_action::run});
        jobs.exclude("C");
        jobs.share("d");
        std::optional<std::jthread> ends;
        pool.submit("other",
                    [&] {
                        EXPECT_TRUE(jobs.is_asked_to_stop("a"));
                        EXPECT_TRUE(jobs.is_asked_to_stop("b"));
                        EXPECT_TRUE(ran.empty()); // it waits for those that run
                        jobs.end_all();
                    },
                    {.on_stop = stop_action::run});
        pool.stop();
        EXPECT_EQ(jobs.began(), (strings{"a", "b"}));
    }
    EXPECT_EQ(ran, (strings{"must run", "must run, too"}));
    EXPECT_EQ(told, (strings{"key", "key"}));
}

TEST(Matrix_shared, drain) {
    manual_pool pool;
    holders jobs(pool);
    jobs.share("a");
    jobs.share("b");
    pool.run_until_idle();
    EXPECT_EQ(pool.drain_for(1ms).keys, strings{"key"});
    EXPECT_EQ(pool.active_keys(), 1U);
    jobs.end("a");
    EXPECT_FALSE(pool.drain_for(1ms));
    jobs.end("b");
    EXPECT_TRUE(pool.drain_for(1ms));
}

TEST(Matrix_shared, cancel_key) {
    strings told;
    manual_pool pool({.max_shared = 2, .on_discard = [&](const discard& d) { told.emplace_back(d.key); }});
    holders jobs(pool);
    jobs.share("a");
    jobs.share("b");
    jobs.share("c");
    jobs.exclude("D");
    pool.run_until_idle();
    EXPECT_EQ(pool.cancel("key"), 2U);
    EXPECT_EQ(told.size(), 2U);
    EXPECT_TRUE(jobs.is_asked_to_stop("a"));
    EXPECT_TRUE(jobs.is_asked_to_stop("b"));
    EXPECT_EQ(pool.active_keys(), 1U);
    jobs.exclude("E"); // welcome, and waits for them
    EXPECT_EQ(jobs.began(), (strings{"a", "b"}));
    jobs.end("a");
    jobs.end("b");
    EXPECT_EQ(jobs.began(), strings{"E"});
    EXPECT_FALSE(jobs.is_asked_to_stop("E"));
}

TEST(Matrix_shared, job_throws) {
    strings failed;
    manual_pool pool({.on_failure = [&](const failure& f) { failed.emplace_back(f.key); }});
    holders jobs(pool);
    jobs.share("a");
    pool.submit_shared("key", [] { throw std::runtime_error("no"); });
    auto result = pool.async_shared("key", []() -> int { throw std::runtime_error("no"); });
    jobs.exclude("B");
    pool.run_until_idle();
    EXPECT_EQ(failed, strings{"key"});
    EXPECT_THROW(result.get(), std::runtime_error);
    EXPECT_EQ(pool.stats().failed, 2U);
    EXPECT_EQ(jobs.began(), strings{"a"});
    jobs.end("a");
    EXPECT_EQ(jobs.began(), strings{"B"});
}

TEST(Matrix_shared, lane_full) {
    manual_pool pool({.lane_capacity = 2, .max_shared = 1});
    holders jobs(pool);
    jobs.share("a");
    pool.run_until_idle();
    jobs.share("b");
    jobs.share("c");
    EXPECT_EQ(pool.try_submit_shared("key", [] {}), submit_status::full); // those that run take no room
    EXPECT_EQ(pool.try_submit("key", [] {}), submit_status::full);
    jobs.end("a");
    EXPECT_EQ(pool.try_submit_shared("key", [] {}), submit_status::accepted);
}

TEST(Matrix_shared, pool_full) {
    manual_pool pool({.pool_capacity = 2, .max_shared = 1});
    holders jobs(pool);
    jobs.share("a");
    pool.run_until_idle();
    jobs.share("b");
    jobs.share("c");
    EXPECT_EQ(pool.stats().waiting, 2U);
    EXPECT_EQ(pool.try_submit_shared("key", [] {}), submit_status::full);
    EXPECT_EQ(pool.try_submit("other", [] {}), submit_status::full);
    jobs.end("a");
    EXPECT_EQ(pool.try_submit("other", [] {}), submit_status::accepted);
}

TEST(Matrix_shared, overflow_rules) {
    for (const auto rule : {overflow::drop_oldest, overflow::keep_latest}) {
        manual_pool pool({.lane_capacity = 1, .max_shared = 1, .when_full = rule});
        holders jobs(pool);
        jobs.share("a");
        pool.run_until_idle();
        jobs.share("b");
        jobs.exclude("C"); // in the place of the other one
        jobs.share("d");
        EXPECT_EQ(jobs.began(), strings{"a"});
        jobs.end("a");
        EXPECT_EQ(jobs.began(), strings{"d"});
        EXPECT_EQ(pool.stats().discarded, 2U);
    }
}

TEST(Matrix_shared, overflow_rules_that_drop_an_exclusive_job_let_those_behind_it_start) {
    for (const auto rule : {overflow::drop_oldest, overflow::keep_latest}) {
        manual_pool pool({.lane_capacity = 1, .when_full = rule});
        holders jobs(pool);
        jobs.share("a");
        pool.run_until_idle();
        jobs.exclude("B");
        pool.run_until_idle(); // it waits for the first
        jobs.share("c");       // in the place of the other one: nothing keeps it from starting
        pool.run_until_idle();
        EXPECT_EQ(jobs.began(), (strings{"a", "c"}));
        jobs.end_all();
    }
}

TEST(Matrix_shared, key_paused) {
    manual_pool pool;
    holders jobs(pool);
    jobs.share("a");
    pool.run_until_idle();
    pool.pause("key");
    jobs.share("b");
    jobs.exclude("C");
    EXPECT_EQ(jobs.began(), strings{"a"});
    pool.resume("key");
    EXPECT_EQ(jobs.began(), strings{"b"});
    pool.pause("key");
    jobs.end("a");
    jobs.end("b");
    EXPECT_EQ(jobs.began(), strings{});
    pool.resume("key");
    EXPECT_EQ(jobs.began(), strings{"C"});
}

TEST(Matrix_shared, pool_destroyed) {
    strings told;
    std::vector<held> holds;
    std::jthread ends;
    std::atomic<int> asked = 0;
    {
        std::latch both(2);
        task_pool pool({.threads = 2, .on_discard = [&](const discard& d) { told.emplace_back(d.key); }});
        for (int i = 0; i < 2; ++i)
            pool.submit_shared("key", [&](const job_context& context) {
                both.arrive_and_wait();
                while (!context.stop_requested())
                    std::this_thread::yield();
                ++asked;
            });
        both.wait();
        pool.submit("key", [] { FAIL(); });
    }
    EXPECT_EQ(asked, 2);
    EXPECT_EQ(told, strings{"key"});
}

TEST(Matrix_shared, pool_destroyed_by_the_job) {
    gate ended;
    auto pool = std::make_unique<task_pool>(options{.threads = 2});
    auto& kept = *pool;
    std::latch both(2);
    gate submitted;
    std::atomic<bool> other_ended = false;
    kept.submit_shared("key", [&](const job_context& context) {
        both.arrive_and_wait();
        while (!context.stop_requested())
            std::this_thread::yield();
        other_ended = true;
    });
    kept.submit_shared("key", [&, last = std::shared_ptr<gate>(&ended, [](gate* g) { g->open(); })] {
        both.arrive_and_wait();
        submitted.wait(); // a pool must not be destroyed while somebody submits
        pool.reset();
    });
    submitted.open();
    ended.wait();
    EXPECT_TRUE(eventually([&] { return other_ended.load(); }));
}

TEST(Matrix_shared, key_submitted_to_meanwhile) {
    manual_pool pool;
    holders jobs(pool);
    jobs.share("a");
    EXPECT_EQ(jobs.began(), strings{"a"});
    jobs.share("b");
    EXPECT_EQ(jobs.began(), strings{"b"}); // at once
    jobs.exclude("C");
    jobs.share("d");
    EXPECT_EQ(jobs.began(), strings{}); // after them, one group after the other
    jobs.end("a");
    jobs.end("b");
    jobs.end("C");
    EXPECT_EQ(jobs.began(), (strings{"C", "d"}));
}

// I-SHARED-4
TEST(Matrix_shared, held_job) {
    manual_pool pool({.max_shared = 2});
    holders jobs(pool);
    jobs.share("a");
    jobs.share("b");
    jobs.share("c");
    EXPECT_EQ(jobs.began(), (strings{"a", "b"}));
    EXPECT_EQ(pool.stats().running, 0U);
    EXPECT_EQ(pool.stats().suspended_lanes, 2U);
    EXPECT_EQ(pool.stats().finished, 0U);
    jobs.end("a");
    EXPECT_EQ(jobs.began(), strings{"c"});
    EXPECT_EQ(pool.stats().finished, 1U);
}

// --- Under load ------------------------------------------------------------------------------------------------------

/// What a key's jobs check of one another: with relaxed atomics, so that ThreadSanitizer sees what the pool orders.
class checked_entity {
  public:
    /// `joins`: groups of shared jobs may come to be neighbours, since the exclusive job between them was cancelled.
    checked_entity(std::size_t limit, bool joins) : limit_(limit), joins_(joins) {}

    /// A job of such a group begins. An exclusive job is a group by itself.
    void begin(std::uint64_t of, bool shared) {
        auto seen = state_.load(std::memory_order_relaxed);
        std::uint64_t next = 0;
        bool good = true;
        do {
            const auto running = seen & 0xFFFF;
            const auto last = seen >> 16;
            good = running < (shared ? limit_ : 1) &&
                   (shared && joins_ ? last_exclusive_ < of : last < of || (shared && last == of)) &&
                   (running == 0 || joins_ || last == of);
            next = (std::max(of, last) << 16) | (running + 1);
        } while (!state_.compare_exchange_weak(seen, next, std::memory_order_relaxed));
        if (!good)
            faults.fetch_add(1, std::memory_order_relaxed);
        if (shared)
            sum_.fetch_add(last_exclusive_, std::memory_order_relaxed);
        else
            last_exclusive_ = of;
    }
    void end() { state_.fetch_sub(1, std::memory_order_relaxed); }

    // The producers', under the mutex: the order in which they submit.
    std::mutex mutex;
    std::uint64_t group = 1;
    bool last_was_shared = false;

    static inline std::atomic<int> faults = 0;

  private:
    const std::size_t limit_;
    const bool joins_;
    std::atomic<std::uint64_t> state_ = 0; // the last group, and how many jobs run
    std::uint64_t last_exclusive_ = 0;     // written by exclusive jobs, read by shared ones
    std::atomic<std::uint64_t> sum_ = 0;   // so that it is read
};

struct load {
    int producers = 3;
    int keys = 5;
    int jobs = sanitized ? 3'000 : 20'000; // of each producer
    std::size_t limit = 3;
    unsigned threads = 3;
    bool with_cancels = false;
    bool with_pauses = false;
    bool with_holds = false;
    bool with_throws = false;
    bool with_retries = false;
    bool with_rates = false;
    bool stops_early = false;
};

void run_under(const load& how) {
    checked_entity::faults = 0;
    std::atomic<std::uint64_t> ran = 0, accepted = 0, discarded = 0, failed = 0;
    std::vector<std::unique_ptr<checked_entity>> entities;
    for (int i = 0; i < how.keys; ++i)
        entities.push_back(std::make_unique<checked_entity>(how.limit, how.with_cancels));

    std::mutex holds_mutex;
    std::vector<std::pair<held, checked_entity*>> holds;
    std::atomic<bool> ends = false;

    basic_task_pool<int> pool({.threads = how.threads,
                               .lane_capacity = 20,
                               .max_shared = how.limit,
                               .rate = how.with_rates ? std::optional(rate{5000, per_second, 50}) : std::nullopt,
                               .on_failure = [&](const failure&) { ++failed; },
                               .on_discard = [&](const discard&) { ++discarded; }});
    const auto release_some = [&](bool all) {
        std::vector<std::pair<held, checked_entity*>> released;
        {
            const std::lock_guard lock(holds_mutex);
            const auto count = all ? holds.size() : holds.size() / 2;
            for (std::size_t i = 0; i < count; ++i) {
                released.push_back(std::move(holds.back()));
                holds.pop_back();
            }
        }
        for (auto& [hold, entity] : released) {
            entity->end();
            hold.release();
        }
    };
    std::jthread disturber([&] {
        std::mt19937 random(7);
        while (!ends) {
            const int key = static_cast<int>(random() % static_cast<unsigned>(how.keys));
            if (how.with_cancels && random() % 4 == 0)
                pool.cancel(key);
            if (how.with_pauses && random() % 2 == 0) {
                pool.pause(key);
                std::this_thread::yield();
                pool.resume(key);
            }
            release_some(true);
            std::this_thread::yield();
        }
    });
    {
        std::vector<std::jthread> producers;
        for (int p = 0; p < how.producers; ++p)
            producers.emplace_back([&, p] {
                std::mt19937 random(static_cast<unsigned>(p) + 1);
                for (int i = 0; i < how.jobs; ++i) {
                    const int key = static_cast<int>(random() % static_cast<unsigned>(how.keys));
                    auto& entity = *entities[static_cast<std::size_t>(key)];
                    const bool shared = random() % 4 != 0;
                    const unsigned what = random() % 64;
                    const std::lock_guard lock(entity.mutex);
                    if (!shared || !entity.last_was_shared)
                        ++entity.group;
                    entity.last_was_shared = shared;
                    const auto job = [&, &e = entity, group = entity.group, shared,
                                      what](const basic_job_context<int>& context) {
                        if (context.attempt() == 1)
                            e.begin(group, shared);
                        if (what == 3 && how.with_retries && context.attempt() < 3)
                            throw std::runtime_error("again");
                        ++ran;
                        if (what == 1 && how.with_holds) {
                            auto hold = context.hold();
                            const std::lock_guard holds_lock(holds_mutex);
                            holds.emplace_back(std::move(hold), &e);
                            return;
                        }
                        if (what < 8)
                            static_cast<void>(context.stop_token());
                        if (what == 9)
                            std::this_thread::yield();
                        e.end();
                        if (what == 2 && how.with_throws)
                            throw std::runtime_error("thrown");
                    };
                    const auto submit = [&](auto&& f) {
                        return shared ? pool.submit_shared(key, std::forward<decltype(f)>(f))
                                      : pool.submit(key, std::forward<decltype(f)>(f));
                    };
                    const auto answer = what == 3 && how.with_retries
                                            ? submit(with_retry({.max_attempts = 3, .backoff = {.first = 0ns}}, job))
                                            : submit(job);
                    if (answer)
                        ++accepted;
                    else if (!how.stops_early || answer != submit_status::stopped)
                        ADD_FAILURE() << answer.message();
                }
            });
        if (how.stops_early) {
            EXPECT_TRUE(eventually([&] { return ran > static_cast<std::uint64_t>(how.jobs) / 2; }));
            const auto report = pool.stop();
            EXPECT_EQ(report.finished, ran);
        }
    }
    pool.drain();
    ends = true;
    disturber.join();
    const auto stats = pool.stats();
    EXPECT_EQ(checked_entity::faults, 0);
    EXPECT_EQ(ran + discarded, accepted);
    EXPECT_EQ(stats.accepted, accepted);
    EXPECT_EQ(stats.finished, ran);
    EXPECT_EQ(stats.discarded, discarded);
    EXPECT_EQ(stats.waiting, 0U);
    EXPECT_EQ(stats.shared, 0U);
    EXPECT_EQ(stats.suspended_lanes, 0U);
    EXPECT_EQ(stats.active_keys, 0U);
    EXPECT_EQ(stats.limited_keys, 0U);
    EXPECT_EQ(stats.failed, failed);
    EXPECT_TRUE(how.with_throws || failed == 0U);
}

// I-SHARED-2
TEST(Shared_stress, keeps_order_and_exclusion) { run_under({}); }
TEST(Shared_stress, one_key) { run_under({.keys = 1}); }
TEST(Shared_stress, many_keys) { run_under({.keys = 2'000, .limit = 2}); }
TEST(Shared_stress, without_a_limit) { run_under({.limit = 1000}); }
TEST(Shared_stress, with_throws_and_holds) { run_under({.with_holds = true, .with_throws = true}); }
TEST(Shared_stress, with_cancels) { run_under({.with_cancels = true, .with_holds = true}); }
TEST(Shared_stress, with_pauses) { run_under({.with_pauses = true, .with_holds = true}); }
TEST(Shared_stress, with_retries) { run_under({.jobs = sanitized ? 1'000 : 5'000, .with_retries = true}); }
TEST(Shared_stress, with_rates) {
    run_under({.jobs = sanitized ? 500 : 3'000, .with_cancels = true, .with_pauses = true, .with_rates = true});
}
TEST(Shared_stress, with_all_until_a_stop) {
    for (int i = 0; i < 5; ++i)
        run_under({.jobs = sanitized ? 1'000 : 5'000,
                   .with_cancels = true,
                   .with_pauses = true,
                   .with_holds = true,
                   .with_throws = true,
                   .stops_early = true});
}

} // namespace
} // namespace taskpool::testing
