// SPDX-License-Identifier: Apache-2.0
// Tasks, and coroutines as jobs: spawn, what they await, and what happens to their key meanwhile.
#include "testing.hpp"

#include <optional>
#include <tuple>

namespace taskpool::testing {
namespace {

/// Counts the objects that live in frames: none may be left when all is over.
struct tracer {
    explicit tracer(std::atomic<int>& count) : alive(&count) { ++*alive; }
    tracer(const tracer& other) : alive(other.alive) { ++*alive; }
    tracer& operator=(const tracer&) = delete;
    ~tracer() { --*alive; }
    std::atomic<int>* alive;
};

/// An awaitable that knows nothing of pools: goes on with whoever awaits it when `resume` is called, on that thread.
class foreign_event {
  public:
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiting) {
        const std::lock_guard lock(mutex_);
        waiting_ = waiting;
        changed_.notify_all();
    }
    int await_resume() const noexcept { return 7; }

    void resume() {
        std::coroutine_handle<> waiting;
        {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [this] { return waiting_ != nullptr; });
            waiting = std::exchange(waiting_, nullptr);
        }
        waiting.resume();
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::coroutine_handle<> waiting_;
};

// A callable that makes a task is no plain job: it would never begin.
template <class F>
concept accepted_at_a_time = requires(task_pool& pool, F f) { pool.submit_after(1s, "key", std::move(f)); };
static_assert(accepted_at_a_time<void (*)()>);
static_assert(!accepted_at_a_time<task<> (*)()>);

task<int> give(int value) { co_return value; }
task<int> add(int a, int b) { co_return co_await give(a) + co_await give(b); }
task<> fail(const char* why) {
    throw std::runtime_error(why);
    co_return;
}

// --- task<T> ---------------------------------------------------------------------------------------------------------

TEST(Task, does_not_begin_by_itself_and_leaks_nothing_when_it_never_does) {
    std::atomic<int> alive = 0;
    bool began = false;
    const auto make = [](tracer, bool& flag) -> task<> {
        flag = true;
        co_return;
    };
    {
        auto never = make(tracer(alive), began);
        EXPECT_TRUE(never.valid());
        EXPECT_GT(alive, 0);
        auto moved = std::move(never);
        EXPECT_FALSE(never.valid()); // NOLINT(bugprone-use-after-move): that is what is asked
        EXPECT_TRUE(moved.valid());
        moved = task<>();
        EXPECT_FALSE(moved.valid());
    }
    EXPECT_FALSE(began);
    EXPECT_EQ(alive, 0);
}

TEST(Task, gives_what_it_returns_through_any_number_of_others) {
    task_pool pool({.threads = 1});
    EXPECT_EQ(pool.spawn("key", add(20, 22)).get(), 42);
    const auto deep = [](auto& self, int depth) -> task<int> {
        if (depth == 0)
            co_return 0;
        co_return 1 + co_await self(self, depth - 1);
    };
    EXPECT_EQ(pool.spawn("key", deep(deep, 1000)).get(), 1000);
}

TEST(Task, throws_what_was_thrown_inside) {
    task_pool pool({.threads = 1});
    const auto catches = []() -> task<std::string> {
        try {
            co_await fail("inner");
        } catch (const std::runtime_error& error) {
            co_return error.what();
        }
        co_return "nothing";
    };
    EXPECT_EQ(pool.spawn("key", catches()).get(), "inner");
    auto failed = pool.spawn("key", fail("outer"));
    EXPECT_THROW(failed.get(), std::runtime_error);
}

TEST(Task, results_may_be_moved_only_or_be_references_to_what_lives_on) {
    task_pool pool({.threads = 1});
    const auto make = []() -> task<std::unique_ptr<int>> { co_return std::make_unique<int>(5); };
    EXPECT_EQ(*pool.spawn("key", make()).get(), 5);
}

TEST(Task, destroyed_where_it_is_suspended_it_destroys_what_it_awaits) {
    std::atomic<int> alive = 0;
    foreign_event never;
    struct plain { // a coroutine of nobody's, which starts at once and is destroyed by hand
        struct promise_type {
            plain get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
            std::suspend_never initial_suspend() noexcept { return {}; }
            std::suspend_always final_suspend() noexcept { return {}; }
            void return_void() noexcept {}
            void unhandled_exception() noexcept { std::terminate(); }
        };
        std::coroutine_handle<promise_type> frame;
    };
    const auto inner = [](tracer, foreign_event& event) -> task<int> { co_return co_await event; };
    const auto outer = [&inner](tracer mine, foreign_event& event) -> task<int> {
        co_return co_await inner(mine, event);
    };
    const auto run = [&outer](tracer mine, foreign_event& event) -> plain { co_await outer(mine, event); };
    auto suspended = run(tracer(alive), never);
    EXPECT_GE(alive, 3);
    suspended.frame.destroy();
    EXPECT_EQ(alive, 0);
}

TEST(Task, may_be_awaited_by_a_coroutine_of_another_kind) {
    struct plain {
        struct promise_type {
            plain get_return_object() { return {}; }
            std::suspend_never initial_suspend() noexcept { return {}; }
            std::suspend_never final_suspend() noexcept { return {}; }
            void return_void() noexcept {}
            void unhandled_exception() noexcept { std::terminate(); }
        };
    };
    int sum = 0;
    const auto run = [](int& to) -> plain { to = co_await add(1, 2); };
    run(sum);
    EXPECT_EQ(sum, 3);

    // A future goes on with it on the thread that ended the job.
    std::atomic<int> got = 0;
    task_pool pool({.threads = 1});
    const auto wait = [](task_pool& on, std::atomic<int>& to) -> plain {
        to = co_await on.async("key", [] { return 9; });
    };
    wait(pool, got);
    EXPECT_TRUE(eventually([&] { return got == 9; }));
}

// --- spawn -----------------------------------------------------------------------------------------------------------

TEST(Spawn, keeps_the_key_and_no_thread_while_it_is_suspended) {
    foreign_event event;
    std::atomic<bool> next_ran = false;
    task_pool pool({.threads = 1, .max_threads = 1});
    const auto waits = [](foreign_event& on) -> task<int> { co_return co_await on; };
    auto result = pool.spawn("key", waits(event));
    ASSERT_TRUE(pool.submit("key", [&] { next_ran = true; }));
    pool.submit("other", [] {});
    pool.drain("other"); // the only thread is free
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    EXPECT_EQ(pool.stats().running, 0U);
    EXPECT_FALSE(next_ran);
    event.resume();
    EXPECT_EQ(result.get(), 7);
    pool.drain();
    EXPECT_TRUE(next_ran);
    EXPECT_EQ(pool.stats().finished, 3U);
    EXPECT_EQ(pool.stats().suspended_lanes, 0U);
}

TEST(Spawn, lends_its_key_to_others_when_it_interleaves) {
    foreign_event event;
    journal<std::string> order;
    task_pool pool({.threads = 1, .max_threads = 1});
    const auto waits = [](foreign_event& on, journal<std::string>& to) -> task<> {
        to.add("before");
        co_await on;
        to.add("after");
    };
    auto result = pool.spawn("key", waits(event, order), {.while_suspended = suspension::interleave});
    ASSERT_TRUE(pool.submit("key", [&] { order.add("between"); }));
    EXPECT_TRUE(eventually([&] { return order.size() == 2; }));
    EXPECT_TRUE(for_a_while([&] { return pool.active_keys() == 1; })); // it has work, and is not forgotten
    event.resume();
    result.get();
    pool.drain();
    EXPECT_EQ(order.entries(), (std::vector<std::string>{"before", "between", "after"}));
    EXPECT_EQ(pool.stats().finished, 2U);
    EXPECT_EQ(pool.active_keys(), 0U);
}

TEST(Spawn, an_interleaving_coroutine_queues_behind_those_that_wait_when_it_can_go_on) {
    foreign_event event;
    journal<int> order;
    gate busy;
    task_pool pool({.threads = 2});
    const opener opens(busy);
    const auto waits = [](foreign_event& on, journal<int>& to) -> task<> {
        co_await on;
        to.add(0);
    };
    pool.spawn("key", waits(event, order), {.while_suspended = suspension::interleave});
    occupy(pool, "key", busy);
    for (int i = 1; i <= 50; ++i)
        ASSERT_TRUE(pool.submit("key", [&order, i] { order.add(i); }));
    event.resume();
    for (int i = 51; i <= 60; ++i)
        ASSERT_TRUE(pool.submit("key", [&order, i] { order.add(i); }));
    busy.open();
    pool.drain();
    auto expected = count_up(61);
    std::rotate(expected.begin(), expected.begin() + 1, expected.begin() + 51);
    EXPECT_EQ(order.entries(), expected);
}

// I-COROUTINE-1
TEST(Spawn, its_stretches_and_other_jobs_of_the_key_never_overlap) {
    // The counter is plain: exclusion and happens-before are all that protects it (G2).
    task_pool pool({.threads = 4});
    int counter = 0;
    const auto counts = [](int& to, task_pool& on, int id) -> task<> {
        for (int i = 0; i < 50; ++i) {
            ++to;
            switch ((id + i) % 4) {
            case 0:
                co_await yield();
                break;
            case 1:
                co_await on.async("other-" + std::to_string(i), [] {});
                break;
            case 2:
                co_await on.run("another", [] {});
                break;
            default:
                co_await sleep_for(1us);
                break;
            }
            ++to;
        }
    };
    for (int i = 0; i < 20; ++i) {
        const auto mode = i % 2 == 0 ? suspension::hold : suspension::interleave;
        pool.spawn("key", counts(counter, pool, i), {.while_suspended = mode});
        for (int j = 0; j < 10; ++j)
            ASSERT_TRUE(pool.submit("key", [&] { ++counter; }));
    }
    pool.drain();
    EXPECT_EQ(counter, 20 * 100 + 200);
}

TEST(Spawn, allocates_nothing_but_the_frame) {
    task_pool pool({.threads = 1, .autostart = false});
    const auto empty = []() -> task<> { co_return; };
    pool.spawn("key", empty()); // makes the lane, and its first chunk
    pool.spawn("key", empty());
    const auto before = allocations_of_this_thread();
    auto made = empty();
    const auto with_frame = allocations_of_this_thread();
    auto future = pool.spawn("key", std::move(made));
    EXPECT_EQ(allocations_of_this_thread(), with_frame);
    EXPECT_EQ(with_frame, before + 1);
    pool.start();
    future.get();
}

TEST(Spawn, not_accepted_it_is_the_caller_s_still) {
    task_pool pool({.threads = 1});
    pool.close();
    auto mine = give(3);
    auto result = pool.spawn("key", std::move(mine));
    EXPECT_TRUE(mine.valid()); // NOLINT(bugprone-use-after-move): that is what is asked
    try {
        result.get();
        FAIL() << "it was not accepted";
    } catch (const job_rejected& error) {
        EXPECT_EQ(error.status(), submit_status::stopped);
    }
    task_pool other({.threads = 1});
    EXPECT_EQ(other.spawn("key", std::move(mine)).get(), 3);
}

TEST(Spawn, a_lambda_is_kept_with_its_captures) {
    task_pool pool({.threads = 1});
    auto owned = std::make_unique<int>(4);
    EXPECT_EQ(pool.spawn("key",
                         [owned = std::move(owned)]() -> task<int> {
                             co_await sleep_for(1ms);
                             co_return *owned;
                         })
                  .get(),
              4);
}

// I-COROUTINE-2
TEST(Spawn, the_future_may_be_dropped_before_during_and_after) {
    std::atomic<int> alive = 0;
    {
        foreign_event event;
        task_pool pool({.threads = 1});
        const auto plain = [](tracer) -> task<> { co_return; };
        const auto waits = [](tracer, foreign_event& on) -> task<> { co_await on; };
        pool.spawn("a", plain(tracer(alive)));
        auto kept = pool.spawn("b", waits(tracer(alive), event));
        EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
        kept = {};
        event.resume();
        auto late = pool.spawn("c", plain(tracer(alive)));
        pool.drain();
        EXPECT_TRUE(late.is_ready());
    }
    EXPECT_EQ(alive, 0);
}

TEST(Spawn, the_future_outlives_the_pool_and_the_value_with_it) {
    future<std::string> result;
    {
        task_pool pool({.threads = 1});
        const auto make = []() -> task<std::string> { co_return std::string(100, 'x'); };
        result = pool.spawn("key", make());
        pool.drain();
    }
    EXPECT_EQ(result.get(), std::string(100, 'x'));
}

TEST(Spawn, submitted_it_has_no_future_and_what_it_throws_goes_to_the_handler) {
    journal<std::string> failures;
    task_pool pool({.threads = 1, .on_failure = [&](const failure& f) {
                        try {
                            std::rethrow_exception(f.error);
                        } catch (const std::exception& error) {
                            failures.add(std::string(f.key) + ": " + error.what());
                        }
                    }});
    ASSERT_EQ(pool.submit("key", fail("first")), submit_status::accepted);
    ASSERT_TRUE(pool.submit("key", [why = std::string("second")]() -> task<> { co_await fail(why.c_str()); },
                            {.while_suspended = suspension::interleave}));
    pool.drain();
    EXPECT_EQ(failures.entries(), (std::vector<std::string>{"key: first", "key: second"}));
    auto kept = pool.spawn("key", fail("kept"));
    pool.drain();
    EXPECT_EQ(failures.size(), 2U);
    EXPECT_EQ(pool.stats().failed, 3U);
    EXPECT_THROW(kept.get(), std::runtime_error);

    pool.close();
    auto mine = fail("refused");
    EXPECT_EQ(pool.submit("key", std::move(mine)), submit_status::stopped);
    EXPECT_TRUE(mine.valid()); // NOLINT(bugprone-use-after-move): that is what is asked
    task_pool other({.threads = 1});
    EXPECT_THROW(other.spawn("key", std::move(mine)).get(), std::runtime_error);
}

TEST(Spawn, dropping_the_future_before_the_end_leaves_the_exception_to_the_handler) {
    journal<std::string> failures;
    gate busy;
    task_pool pool({.threads = 1, .on_failure = [&](const failure& f) { failures.add(std::string(f.key)); }});
    const opener opens(busy);
    occupy(pool, "key", busy);
    pool.spawn("key", fail("lost"));
    busy.open();
    pool.drain();
    EXPECT_EQ(failures.entries(), std::vector<std::string>{"key"});
}

TEST(Spawn, works_with_keys_of_any_type) {
    basic_task_pool<int> pool({.threads = 1});
    const auto key_of = []() -> task<int> {
        const auto job = co_await this_job();
        co_return job.key<int>();
    };
    EXPECT_EQ(pool.spawn(12, key_of()).get(), 12);
    const auto calls = [](basic_task_pool<int>& on) -> task<int> { co_return co_await on.run(2, [] { return 5; }); };
    EXPECT_EQ(pool.spawn(1, calls(pool)).get(), 5);
}

// --- What it may await -----------------------------------------------------------------------------------------------

TEST(This_job, tells_key_number_and_stop) {
    gate busy;
    task_pool pool({.threads = 1});
    const auto tells = []() -> task<std::tuple<std::string, std::uint64_t, bool>> {
        const auto job = co_await this_job();
        co_return std::tuple(job.key(), job.number(), job.stop_requested());
    };
    const opener opens(busy);
    occupy(pool, "key", busy);
    auto second = pool.spawn("key", tells());
    busy.open();
    EXPECT_EQ(second.get(), std::tuple("key", 2U, false));
}

TEST(This_job, is_an_error_in_a_coroutine_that_was_not_spawned) {
    struct plain {
        struct promise_type {
            plain get_return_object() { return {}; }
            std::suspend_never initial_suspend() noexcept { return {}; }
            std::suspend_never final_suspend() noexcept { return {}; }
            void return_void() noexcept {}
            void unhandled_exception() noexcept { std::terminate(); }
        };
    };
    int refused = 0;
    const auto asks = [](int& count) -> task<> {
        try {
            co_await this_job();
        } catch (const std::logic_error&) {
            ++count;
        }
        try {
            co_await sleep_for(1ms);
        } catch (const std::logic_error&) {
            ++count;
        }
        try {
            co_await yield();
        } catch (const std::logic_error&) {
            ++count;
        }
    };
    const auto run = [&asks](int& count) -> plain { co_await asks(count); };
    run(refused);
    EXPECT_EQ(refused, 3);
}

TEST(This_job, a_hold_keeps_the_key_beyond_the_coroutine) {
    held kept;
    std::atomic<bool> next_ran = false;
    task_pool pool({.threads = 1});
    const auto holds = [](held& to) -> task<> { to = (co_await this_job()).hold(); };
    for (const auto mode : {suspension::hold, suspension::interleave}) {
        next_ran = false;
        auto done = pool.spawn("key", holds(kept), {.while_suspended = mode});
        ASSERT_TRUE(pool.submit("key", [&] { next_ran = true; }));
        done.get();
        EXPECT_TRUE(for_a_while([&] { return !next_ran; }));
        kept.release();
        pool.drain();
        EXPECT_TRUE(next_ran);
    }
}

TEST(Sleep, timing_takes_no_thread_and_is_never_early) {
    task_pool pool({.threads = 1, .max_threads = 1});
    const auto sleeps = []() -> task<std::chrono::nanoseconds> {
        const auto before = steady::now();
        EXPECT_TRUE(co_await sleep_for(20ms));
        co_return steady::now() - before;
    };
    std::vector<future<std::chrono::nanoseconds>> all;
    const auto before = steady::now();
    for (int i = 0; i < 500; ++i)
        all.push_back(pool.spawn("key-" + std::to_string(i), sleeps()));
    for (auto& one : all)
        EXPECT_GE(one.get(), 20ms);
    EXPECT_LT(steady::now() - before, 5s * slowness) << "one after the other they take 10 s";
}

TEST(Sleep, goes_by_the_pool_s_clock) {
    const auto clock = std::make_shared<manual_clock>();
    task_pool pool({.threads = 1, .clock = clock});
    const auto sleeps = []() -> task<bool> { co_return co_await sleep_for(std::chrono::hours(24)); };
    auto result = pool.spawn("key", sleeps());
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    clock->advance(std::chrono::hours(23));
    EXPECT_TRUE(for_a_while([&] { return !result.is_ready(); }));
    clock->advance(std::chrono::hours(1));
    EXPECT_TRUE(result.get());
}

TEST(Sleep, of_no_time_or_less_yields) {
    task_pool pool({.threads = 1});
    const auto sleeps = []() -> task<bool> { co_return co_await sleep_for(0s) && co_await sleep_for(-1h); };
    EXPECT_TRUE(pool.spawn("key", sleeps()).get());
}

TEST(Sleep, ends_at_once_when_the_key_is_cancelled) {
    for (const auto mode : {suspension::hold, suspension::interleave}) {
        std::atomic<bool> sleeping = false;
        task_pool pool({.threads = 1});
        const auto sleeps = [](std::atomic<bool>& flag) -> task<bool> {
            flag = true;
            const bool whole = co_await sleep_for(std::chrono::hours::max());
            const auto job = co_await this_job();
            EXPECT_TRUE(job.stop_requested());
            EXPECT_FALSE(co_await sleep_for(1h)); // nor does it sleep again
            co_return whole;
        };
        auto result = pool.spawn("key", sleeps(sleeping), {.while_suspended = mode});
        EXPECT_TRUE(eventually([&] { return sleeping && pool.stats().running == 0; }));
        EXPECT_EQ(pool.cancel("key"), 0U);
        EXPECT_FALSE(result.get());
        // The next job of the key is not asked to stop.
        EXPECT_FALSE(pool.async("key", [](const job_context& context) { return context.stop_requested(); }).get());
    }
}

TEST(Yield, lets_older_work_go_first) {
    gate busy;
    journal<std::string> order;
    task_pool pool({.threads = 1, .max_threads = 1});
    const opener opens(busy);
    occupy(pool, "first", busy);
    const auto yields = [](journal<std::string>& to) -> task<> {
        to.add("a1");
        let_ticks_pass();
        co_await yield();
        to.add("a2");
    };
    pool.spawn("a", yields(order));
    let_ticks_pass();
    ASSERT_TRUE(pool.submit("b", [&] { order.add("b"); }));
    busy.open();
    pool.drain();
    EXPECT_EQ(order.entries(), (std::vector<std::string>{"a1", "b", "a2"}));
}

TEST(Yield, interleaving_lets_the_key_s_waiting_jobs_go_first) {
    gate busy;
    journal<int> order;
    task_pool pool({.threads = 1});
    const opener opens(busy);
    occupy(pool, "key", busy);
    const auto yields = [](journal<int>& to) -> task<> {
        to.add(1);
        co_await yield();
        to.add(3);
    };
    pool.spawn("key", yields(order), {.while_suspended = suspension::interleave});
    ASSERT_TRUE(pool.submit("key", [&] { order.add(2); }));
    busy.open();
    pool.drain();
    EXPECT_EQ(order.entries(), (std::vector<int>{1, 2, 3}));
}

TEST(Run, calls_under_the_other_key_and_comes_back) {
    task_pool pool({.threads = 2});
    const auto calls = [](task_pool& on) -> task<std::string> {
        const int n = co_await on.run("b", [](const job_context& context) {
            EXPECT_EQ(context.key(), "b");
            return 2;
        });
        const auto job = co_await this_job();
        co_return job.key() + std::to_string(n);
    };
    EXPECT_EQ(pool.spawn("a", calls(pool)).get(), "a2");
}

TEST(Run, throws_what_the_call_throws_and_counts_it) {
    task_pool pool({.threads = 1, .on_failure = [](const failure&) { ADD_FAILURE() << "somebody waits for it"; }});
    const auto calls = [](task_pool& on) -> task<std::string> {
        try {
            co_await on.run("b", [] { throw std::runtime_error("no"); });
        } catch (const std::runtime_error& error) {
            co_return error.what();
        }
        co_return "";
    };
    EXPECT_EQ(pool.spawn("a", calls(pool)).get(), "no");
    pool.drain();
    EXPECT_EQ(pool.stats().failed, 1U);
}

TEST(Run, under_the_own_key_is_a_deadlock_unless_it_interleaves) {
    task_pool pool({.threads = 1});
    const auto calls = [](task_pool& on) -> task<int> { co_return co_await on.run("key", [] { return 1; }); };
    auto held_key = pool.spawn("key", calls(pool));
    try {
        held_key.get();
        FAIL() << "it waits for itself";
    } catch (const deadlock_error& error) {
        EXPECT_EQ(error.keys(), std::vector<std::string>{"key"});
    }
    EXPECT_EQ(pool.spawn("key", calls(pool), {.while_suspended = suspension::interleave}).get(), 1);
}

TEST(Run, in_a_cycle_of_keys_is_an_error_that_names_them) {
    std::latch both(2);
    task_pool pool({.threads = 2});
    const auto calls = [](task_pool& on, std::string other, std::latch& together) -> task<int> {
        together.arrive_and_wait();
        co_return co_await on.run(other, [] { return 1; });
    };
    auto a = pool.spawn("a", calls(pool, "b", both));
    auto b = pool.spawn("b", calls(pool, "a", both));
    int refused = 0;
    for (auto* one : {&a, &b}) {
        try {
            EXPECT_EQ(one->get(), 1);
        } catch (const deadlock_error& error) {
            ++refused;
            EXPECT_EQ(sorted(error.keys()), (std::vector<std::string>{"a", "b"}));
        }
    }
    EXPECT_EQ(refused, 1) << "the other one can go on";
}

TEST(Run, waits_for_room_with_no_thread) {
    gate busy;
    task_pool pool({.threads = 2, .max_threads = 2, .lane_capacity = 1});
    const opener opens(busy);
    occupy(pool, "b", busy);
    ASSERT_TRUE(pool.submit("b", [] {}));
    const auto calls = [](task_pool& on) -> task<int> { co_return co_await on.run("b", [] { return 1; }); };
    auto result = pool.spawn("a", calls(pool));
    pool.submit("c", [] {});
    pool.drain("c");
    EXPECT_TRUE(for_a_while([&] { return !result.is_ready(); }));
    busy.open();
    EXPECT_EQ(result.get(), 1);
}

TEST(Foreign, what_knows_nothing_of_lanes_comes_back_to_the_lane) {
    foreign_event event;
    task_pool pool({.threads = 1});
    std::thread::id here;
    const auto waits = [](foreign_event& on, std::thread::id& to) -> task<int> {
        const int value = co_await on;
        to = std::this_thread::get_id();
        co_return value;
    };
    auto result = pool.spawn("key", waits(event, here));
    event.resume(); // on this thread
    EXPECT_EQ(result.get(), 7);
    EXPECT_NE(here, std::this_thread::get_id());
}

TEST(Foreign, what_is_ready_at_once_or_throws) {
    struct ready {
        bool await_ready() const noexcept { return true; }
        void await_suspend(std::coroutine_handle<>) const noexcept {}
        const std::string& await_resume() const noexcept { return *value; }
        const std::string* value;
    };
    struct throws {
        bool await_ready() const { throw std::runtime_error("not ready"); }
        void await_suspend(std::coroutine_handle<>) const noexcept {}
        void await_resume() const noexcept {}
    };
    task_pool pool({.threads = 1});
    const std::string text = "text";
    const auto waits = [](const std::string& on) -> task<bool> {
        const std::string& got = co_await ready{&on};
        const bool same = &got == &on;
        try {
            co_await throws{};
        } catch (const std::runtime_error&) {
            co_return same;
        }
        co_return false;
    };
    EXPECT_TRUE(pool.spawn("key", waits(text)).get());
}

TEST(When_all, gives_all_values_in_order) {
    task_pool pool({.threads = 2});
    const auto all = [](task_pool& on) -> task<int> {
        auto [a, b, nothing] =
            co_await when_all(on.async("a", [] { return 1; }), on.async("b", [] { return 20L; }), on.async("c", [] {}));
        static_cast<void>(nothing);
        co_return a + static_cast<int>(b);
    };
    EXPECT_EQ(pool.spawn("key", all(pool)).get(), 21);
    const auto many = [](task_pool& on) -> task<std::vector<int>> {
        std::vector<future<int>> futures;
        for (int i = 0; i < 100; ++i)
            futures.push_back(on.async("key-" + std::to_string(i), [i] { return i; }));
        co_return co_await when_all(std::move(futures));
    };
    EXPECT_EQ(pool.spawn("key", many(pool)).get(), count_up(100));
}

TEST(When_all, throws_the_first_error_after_all_have_ended) {
    gate slow;
    std::atomic<bool> ended = false;
    task_pool pool({.threads = 2});
    const opener opens(slow);
    const auto all = [](task_pool& on, gate& until, std::atomic<bool>& flag) -> task<std::string> {
        try {
            co_await when_all(on.async("a", []() -> int { throw std::runtime_error("first"); }),
                              on.async("b",
                                       [&until, &flag] {
                                           until.wait();
                                           flag = true;
                                       }),
                              on.async("c", [] { throw std::runtime_error("second"); }));
        } catch (const std::runtime_error& error) {
            co_return std::string(error.what()) + (flag ? "" : " too early");
        }
        co_return "nothing";
    };
    auto result = pool.spawn("key", all(pool, slow, ended));
    EXPECT_TRUE(for_a_while([&] { return !result.is_ready(); }));
    slow.open();
    EXPECT_EQ(result.get(), "first");
}

// --- Futures that know keys ------------------------------------------------------------------------------------------

TEST(Then, runs_under_its_key_with_the_value) {
    task_pool pool({.threads = 2});
    auto result = pool.async("a", [] { return 20; })
                      .then("b",
                            [](const job_context& context, int n) {
                                EXPECT_EQ(context.key(), "b");
                                return n + 1;
                            })
                      .then("c", [](int n) { return std::to_string(n); });
    EXPECT_EQ(result.get(), "21");
    EXPECT_EQ(pool.async("a", [] {}).then("a", [] { return 3; }).get(), 3);
    EXPECT_EQ(pool.async("a", [] { return std::make_unique<int>(8); })
                  .then("a", [](std::unique_ptr<int> n) { return *n; })
                  .get(),
              8);
    EXPECT_EQ(pool.spawn("a", give(5)).then("b", [](int n) { return n; }).get(), 5);
}

TEST(Then, is_not_called_when_what_it_follows_fails) {
    task_pool pool({.threads = 1});
    bool called = false;
    auto result = pool.async("a", []() -> int { throw std::runtime_error("no"); }).then("b", [&](int n) {
        called = true;
        return n;
    });
    EXPECT_THROW(result.get(), std::runtime_error);
    EXPECT_FALSE(called);
}

TEST(Then, may_be_dropped_at_any_time) {
    int ran = 0;
    gate busy;
    task_pool pool({.threads = 1});
    const opener opens(busy);
    occupy(pool, "a", busy);
    pool.async("a", [] { return 1; }).then("b", [&](int n) { ran += n; });
    busy.open();
    pool.drain();
    EXPECT_TRUE(eventually([&] { return pool.stats().finished == 3; }));
    EXPECT_EQ(ran, 1);
}

TEST(Await, a_future_in_a_coroutine_of_the_pool_that_holds_is_checked_for_cycles) {
    task_pool pool({.threads = 1});
    const auto waits = [](task_pool& on) -> task<int> { co_return co_await on.async("key", [] { return 1; }); };
    auto result = pool.spawn("key", waits(pool));
    EXPECT_THROW(result.get(), deadlock_error);
    EXPECT_EQ(pool.spawn("key", waits(pool), {.while_suspended = suspension::interleave}).get(), 1);
}

TEST(Await, a_cycle_between_a_coroutine_and_a_thread_s_wait_is_refused) {
    gate spawned, waits_now;
    task_pool pool({.threads = 2});
    future<void> of_a;
    const auto waits = [](task_pool& on, gate& may, gate& did) -> task<> {
        may.wait();
        auto b = on.async("b", [] {});
        did.open(); // b's job, which runs, waits for us, or will
        co_await std::move(b);
    };
    of_a = pool.spawn("a", waits(pool, spawned, waits_now));
    auto of_b = pool.async("b", [&] {
        spawned.open();
        waits_now.wait();
        of_a.wait();
    });
    int refused = 0;
    try {
        of_b.get();
    } catch (const deadlock_error& error) {
        ++refused;
        EXPECT_EQ(sorted(error.keys()), (std::vector<std::string>{"a", "b"}));
    }
    try {
        of_a.get();
    } catch (const deadlock_error& error) {
        ++refused;
        EXPECT_EQ(sorted(error.keys()), (std::vector<std::string>{"a", "b"}));
    }
    EXPECT_EQ(refused, 1);
}

TEST(Std_future, takes_value_and_exception) {
    task_pool pool({.threads = 1});
    std::future<int> value = pool.async("a", [] { return 5; });
    EXPECT_EQ(value.get(), 5);
    std::future<void> error = pool.async("a", [] { throw std::runtime_error("no"); });
    EXPECT_THROW(error.get(), std::runtime_error);
    std::future<int> ready = pool.spawn("a", give(2));
    EXPECT_EQ(ready.get(), 2);
}

// --- Under load ------------------------------------------------------------------------------------------------------

// I-COROUTINE-1
TEST(Coroutines_stress, many_of_all_kinds_while_keys_are_cancelled) {
    allow_time(300s);
    std::atomic<std::uint64_t> began = 0, ended = 0;
    std::atomic<bool> over = false;
    task_pool pool({.threads = 4, .lane_capacity = 20});
    std::array<int, 8> counters{}; // each touched under its key only
    const auto works = [](task_pool& on, int& counter, std::size_t id, std::atomic<std::uint64_t>& b,
                          std::atomic<std::uint64_t>& e) -> task<> {
        ++b;
        for (std::size_t i = 0; i < 5; ++i) {
            ++counter;
            try {
                switch ((id + i) % 6) {
                case 0:
                    co_await yield();
                    break;
                case 1:
                    co_await sleep_for(std::chrono::milliseconds(id % 3));
                    break;
                case 2:
                    co_await on.run("other-" + std::to_string(id % 5), [] {});
                    break;
                case 3:
                    co_await on.async("spread-" + std::to_string(id % 50), [] {});
                    break;
                case 4: {
                    const auto job = co_await this_job();
                    static_cast<void>(job.stop_token());
                    break;
                }
                default:
                    co_await when_all(on.async("x", [] {}), on.async("y", [] {}));
                    break;
                }
            } catch (const job_discarded&) {
            }
            ++counter;
        }
        ++e;
    };
    std::thread canceller([&] {
        for (std::size_t i = 0; !over; ++i) {
            pool.cancel("key-" + std::to_string(i % 8));
            pool.cancel("spread-" + std::to_string(i % 50));
            std::this_thread::sleep_for(500us);
        }
    });
    constexpr std::size_t count = sanitized ? 4'000 : 40'000;
    std::vector<std::thread> producers;
    for (std::size_t p = 0; p < 2; ++p)
        producers.emplace_back([&, p] {
            for (std::size_t i = p; i < count; i += 2) {
                const auto mode = i % 3 == 0 ? suspension::interleave : suspension::hold;
                const auto key = i % 8;
                pool.spawn("key-" + std::to_string(key), works(pool, counters[key], i, began, ended),
                           {.while_suspended = mode});
            }
        });
    for (auto& p : producers)
        p.join();
    pool.drain();
    over = true;
    canceller.join();
    EXPECT_EQ(began, ended);
    std::uint64_t sum = 0;
    for (const int counter : counters)
        sum += static_cast<std::uint64_t>(counter);
    EXPECT_EQ(sum, began * 10);
    const auto report = pool.stop();
    const auto stats = pool.stats();
    EXPECT_EQ(stats.accepted, report.finished + report.discarded);
    EXPECT_EQ(stats.active_keys, 0U);
}

TEST(Coroutines_stress, stopped_in_the_middle) {
    allow_time(300s);
    for (int round = 0; round < (sanitized ? 20 : 100); ++round) {
        std::atomic<std::uint64_t> began = 0, ended = 0;
        {
            task_pool pool({.threads = 3});
            const auto works = [](task_pool& on, std::size_t id, std::atomic<std::uint64_t>& b,
                                  std::atomic<std::uint64_t>& e) -> task<> {
                ++b;
                try {
                    co_await sleep_for(std::chrono::milliseconds(id % 5));
                    co_await on.run("other", [] {});
                    co_await sleep_for(1h);
                } catch (const std::exception&) { // rejected or discarded
                }
                ++e;
            };
            for (std::size_t i = 0; i < 300; ++i)
                pool.spawn("key-" + std::to_string(i % 40), works(pool, i, began, ended),
                           {.while_suspended = i % 2 == 0 ? suspension::hold : suspension::interleave});
            burn(std::chrono::milliseconds(round % 7));
            const auto report = pool.stop();
            EXPECT_EQ(pool.stats().accepted, report.finished + report.discarded);
        }
        EXPECT_EQ(began, ended);
    }
}

} // namespace
} // namespace taskpool::testing
