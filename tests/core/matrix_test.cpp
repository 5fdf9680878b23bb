// SPDX-License-Identifier: Apache-2.0
// What becomes of work that waits asynchronously, kind by kind and event by event: the table of docs/guide.md, cell by
// cell. The rows of timers are in matrix_timers_test.cpp, that of asio in tests/asio.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

/// Suspends whoever awaits it until it is opened, on any thread; the same for all who await it.
class latch_event {
  public:
    struct awaiter {
        latch_event& of;
        std::coroutine_handle<> waiting = nullptr;
        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<> coroutine) {
            const std::lock_guard lock(of.mutex_);
            waiting = coroutine;
            if (!of.open_)
                of.waiters_.push_back(this);
            return !of.open_;
        }
        void await_resume() const noexcept {}
    };
    awaiter operator co_await() noexcept { return {*this}; }

    void open() {
        std::vector<awaiter*> waiters;
        {
            const std::lock_guard lock(mutex_);
            open_ = true;
            waiters.swap(waiters_);
        }
        for (auto* const waiter : waiters)
            waiter->waiting.resume();
    }
    bool has_waiter() {
        const std::lock_guard lock(mutex_);
        return !waiters_.empty();
    }

  private:
    std::mutex mutex_;
    bool open_ = false;
    std::vector<awaiter*> waiters_;
};

/// Opens it at the end of its scope.
class event_opener {
  public:
    explicit event_opener(latch_event& which) : event_(which) {}
    ~event_opener() { event_.open(); }
    event_opener(const event_opener&) = delete;
    event_opener& operator=(const event_opener&) = delete;

  private:
    latch_event& event_;
};

task<int> wait_at(latch_event& event) {
    co_await event;
    co_return 1;
}

/// What it gives: whether it slept through.
task<bool> sleep_for_ever(std::atomic<bool>& began) {
    began = true;
    co_return co_await sleep_for(std::chrono::hours(1000));
}

task<int> fail() {
    co_await yield();
    throw std::runtime_error("failed");
}

task<int> call(task_pool& pool, std::string key) {
    co_return co_await pool.run(key, [] { return 1; });
}

/// What a future ends with, as a word.
template <class T>
std::string outcome(future<T> result) {
    try {
        result.get();
        return "value";
    } catch (const job_discarded&) {
        return "discarded";
    } catch (const job_rejected& error) {
        return "rejected: " + std::string(to_string(error.status()));
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

/// Waits until a coroutine that has begun is suspended.
template <class Begun>
void until_suspended(task_pool& pool, suspension mode, Begun begun) {
    ASSERT_TRUE(eventually([&] {
        const auto stats = pool.stats();
        return begun() && stats.running == 0 && stats.suspended_lanes == (mode == suspension::hold ? 1U : 0U);
    }));
}

/// Waits until one coroutine is suspended, and what it calls waits for its turn.
void until_call_waits(task_pool& pool) {
    ASSERT_TRUE(eventually([&] {
        const auto stats = pool.stats();
        return stats.suspended_lanes == 1 && stats.waiting == 1;
    }));
}

// --- spawn, both ways ------------------------------------------------------------------------------------------------

// stop: one that has not begun is discarded; one that is suspended is asked to stop, its sleep ends at once, and it
// runs to its end, for which stop() waits
void spawn_stop(suspension mode) {
    gate busy;
    std::atomic<bool> began = false, second_began = false;
    task_pool pool({.threads = 1, .max_threads = 1}); // so that what is busy is not replaced
    const opener opens(busy);
    auto suspended = pool.spawn("key", sleep_for_ever(began), {.while_suspended = mode});
    until_suspended(pool, mode, [&] { return began.load(); });
    occupy(pool, "other", busy);
    auto waiting = pool.spawn("key", sleep_for_ever(second_began), {.while_suspended = mode});
    std::thread opening([&] {
        EXPECT_TRUE(eventually([&] { return waiting.is_ready(); })); // discarded before the workers are free
        busy.open();
    });
    const auto report = pool.stop();
    opening.join();
    EXPECT_EQ(report.discarded_by_stop, 1U);
    EXPECT_TRUE(began);
    EXPECT_FALSE(second_began);
    EXPECT_EQ(outcome(std::move(waiting)), "discarded");
    EXPECT_TRUE(suspended.is_ready());
    EXPECT_FALSE(suspended.get());
}

// drain: waits until it has ended
void spawn_drain(suspension mode) {
    latch_event event;
    task_pool pool({.threads = 1});
    const event_opener opens(event);
    auto result = pool.spawn("key", wait_at(event), {.while_suspended = mode});
    until_suspended(pool, mode, [&] { return event.has_waiter(); });
    EXPECT_EQ(pool.drain_for(5ms).keys, std::vector<std::string>{"key"});
    std::thread opening([&] { event.open(); });
    pool.drain();
    EXPECT_TRUE(result.is_ready());
    opening.join();
    EXPECT_EQ(result.get(), 1);
}

// cancel(key): as stop does, for that key; the jobs after it are not asked to stop
void spawn_cancel_key(suspension mode) {
    gate busy;
    std::atomic<bool> began = false, second_began = false, other_began = false;
    task_pool pool({.threads = 1, .max_threads = 1}); // so that what is busy is not replaced
    auto suspended = pool.spawn("key", sleep_for_ever(began), {.while_suspended = mode});
    auto other = pool.spawn("other", sleep_for_ever(other_began), {.while_suspended = mode});
    EXPECT_TRUE(eventually([&] { return began && other_began && pool.stats().running == 0; }));
    const opener opens(busy);
    occupy(pool, "third", busy); // so that the next one does not begin
    auto waiting = pool.spawn("key", sleep_for_ever(second_began), {.while_suspended = mode});
    EXPECT_EQ(pool.cancel("key"), 1U);
    EXPECT_EQ(outcome(std::move(waiting)), "discarded");
    busy.open();
    EXPECT_FALSE(suspended.get());
    EXPECT_FALSE(second_began);
    EXPECT_FALSE(pool.async("key", [](const job_context& context) { return context.stop_requested(); }).get());
    EXPECT_FALSE(other.is_ready());
    pool.cancel("other");
    EXPECT_FALSE(other.get());
}

// job throws: its future has the exception, or the failure handler if it has none; the key goes on
void spawn_job_throws(suspension mode) {
    journal<std::string> failures;
    task_pool pool({.threads = 1, .on_failure = [&](const failure& f) { failures.add(std::string(f.key)); }});
    EXPECT_EQ(outcome(pool.spawn("key", fail(), {.while_suspended = mode})), "failed");
    EXPECT_EQ(failures.size(), 0U);
    ASSERT_TRUE(pool.submit("key", fail(), {.while_suspended = mode}));
    EXPECT_EQ(pool.async("key", [] { return 3; }).get(), 3);
    pool.drain();
    EXPECT_EQ(failures.entries(), std::vector<std::string>{"key"});
    EXPECT_EQ(pool.stats().failed, 2U);
}

// lane full: spawn waits for room like submit, or is refused (then the coroutine is the caller's still); one that has
// begun takes no room of its lane
void spawn_lane_full(suspension mode) {
    latch_event event;
    gate busy;
    task_pool pool({.threads = 1, .lane_capacity = 1, .when_full = overflow::reject});
    const opener opens(busy);
    const event_opener opens_event(event);
    auto suspended = pool.spawn("key", wait_at(event), {.while_suspended = mode});
    until_suspended(pool, mode, [&] { return event.has_waiter(); });
    if (mode == suspension::interleave)
        occupy(pool, "key", busy);
    ASSERT_EQ(pool.submit("key", [] {}), submit_status::accepted);
    auto mine = wait_at(event);
    auto refused = pool.spawn("key", std::move(mine), {.while_suspended = mode});
    EXPECT_TRUE(mine.valid()); // NOLINT(bugprone-use-after-move): that is what is asked
    EXPECT_EQ(outcome(std::move(refused)), "rejected: full");
    event.open(); // the lane is full, and it goes on all the same
    busy.open();
    EXPECT_EQ(suspended.get(), 1);
    pool.drain();
    EXPECT_EQ(pool.stats().discarded, 0U);
}

// pool destroyed: as stop does; the future outlives the pool
void spawn_pool_destroyed(suspension mode) {
    std::atomic<bool> began = false, second_began = false;
    future<bool> suspended, waiting;
    {
        gate busy;
        task_pool pool({.threads = 1, .max_threads = 1});
        suspended = pool.spawn("key", sleep_for_ever(began), {.while_suspended = mode});
        until_suspended(pool, mode, [&] { return began.load(); });
        occupy(pool, "other", busy);
        waiting = pool.spawn("key", sleep_for_ever(second_began), {.while_suspended = mode});
        std::thread opening([&] {
            EXPECT_TRUE(eventually([&] { return waiting.is_ready(); }));
            busy.open();
        });
        opening.detach();
    }
    EXPECT_FALSE(suspended.get());
    EXPECT_EQ(outcome(std::move(waiting)), "discarded");
    EXPECT_FALSE(second_began);
}

TEST(Matrix_spawn_hold, stop) { spawn_stop(suspension::hold); }
TEST(Matrix_spawn_hold, drain) { spawn_drain(suspension::hold); }
TEST(Matrix_spawn_hold, cancel_key) { spawn_cancel_key(suspension::hold); }
TEST(Matrix_spawn_hold, job_throws) { spawn_job_throws(suspension::hold); }
TEST(Matrix_spawn_hold, lane_full) { spawn_lane_full(suspension::hold); }
TEST(Matrix_spawn_hold, pool_destroyed) { spawn_pool_destroyed(suspension::hold); }

// what is submitted meanwhile runs when the coroutine has ended
TEST(Matrix_spawn_hold, key_submitted_to_meanwhile) {
    latch_event event;
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 1});
    auto result = pool.spawn("key", wait_at(event));
    until_suspended(pool, suspension::hold, [&] { return event.has_waiter(); });
    ASSERT_TRUE(pool.submit("key", [&] {
        EXPECT_TRUE(result.is_ready());
        ran = true;
    }));
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    event.open();
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Matrix_spawn_interleave, stop) { spawn_stop(suspension::interleave); }
TEST(Matrix_spawn_interleave, drain) { spawn_drain(suspension::interleave); }
TEST(Matrix_spawn_interleave, cancel_key) { spawn_cancel_key(suspension::interleave); }
TEST(Matrix_spawn_interleave, job_throws) { spawn_job_throws(suspension::interleave); }
TEST(Matrix_spawn_interleave, lane_full) { spawn_lane_full(suspension::interleave); }
TEST(Matrix_spawn_interleave, pool_destroyed) { spawn_pool_destroyed(suspension::interleave); }

// what is submitted meanwhile runs while the coroutine is suspended
TEST(Matrix_spawn_interleave, key_submitted_to_meanwhile) {
    latch_event event;
    task_pool pool({.threads = 1});
    auto result = pool.spawn("key", wait_at(event), {.while_suspended = suspension::interleave});
    until_suspended(pool, suspension::interleave, [&] { return event.has_waiter(); });
    EXPECT_FALSE(pool.async("key", [&] { return result.is_ready(); }).get());
    event.open();
    EXPECT_EQ(result.get(), 1);
}

// --- run -------------------------------------------------------------------------------------------------------------

// stop: a call that has not begun is discarded, and throws job_discarded in the coroutine; a later one job_rejected
TEST(Matrix_run, stop) {
    gate busy;
    task_pool pool({.threads = 2});
    const opener opens(busy);
    occupy(pool, "b", busy);
    const auto calls = [](task_pool& on) -> task<std::string> {
        std::string all;
        for (int i = 0; i < 2; ++i) {
            try {
                co_await on.run("b", [] {});
                all += "done ";
            } catch (const job_discarded&) {
                all += "discarded ";
            } catch (const job_rejected& error) {
                EXPECT_EQ(error.status(), submit_status::stopped);
                all += "rejected ";
            }
        }
        co_return all;
    };
    auto result = pool.spawn("a", calls(pool));
    until_call_waits(pool);
    std::thread stopping([&] { pool.stop(); });
    EXPECT_EQ(result.get(), "discarded rejected ");
    busy.open();
    stopping.join();
}

// drain: waits for the call and for the coroutine
TEST(Matrix_run, drain) {
    gate busy;
    task_pool pool({.threads = 2});
    const opener opens(busy);
    occupy(pool, "b", busy);
    auto result = pool.spawn("a", call(pool, "b"));
    until_call_waits(pool);
    EXPECT_EQ(sorted(pool.drain_for(5ms).keys), (std::vector<std::string>{"a", "b"}));
    busy.open();
    pool.drain();
    EXPECT_TRUE(result.is_ready());
    EXPECT_EQ(result.get(), 1);
}

// cancel(key): of the call's key discards it, and throws job_discarded in the coroutine; of the coroutine's key asks
// the coroutine to stop and leaves the call be
TEST(Matrix_run, cancel_key) {
    gate busy;
    task_pool pool({.threads = 2});
    const opener opens(busy);
    occupy(pool, "b", busy);
    auto of_call = pool.spawn("a", call(pool, "b"));
    until_call_waits(pool);
    EXPECT_EQ(pool.cancel("b"), 1U);
    EXPECT_EQ(outcome(std::move(of_call)), "discarded");

    auto of_caller = pool.spawn("a", call(pool, "b"));
    until_call_waits(pool);
    EXPECT_EQ(pool.cancel("a"), 0U);
    EXPECT_TRUE(for_a_while([&] { return !of_caller.is_ready(); }));
    busy.open();
    EXPECT_EQ(of_caller.get(), 1);
}

// job throws: so does the co_await
TEST(Matrix_run, job_throws) {
    task_pool pool({.threads = 1, .on_failure = [](const failure&) { ADD_FAILURE() << "somebody awaits it"; }});
    const auto calls = [](task_pool& on) -> task<> {
        co_await on.run("b", [] { throw std::runtime_error("failed"); });
    };
    EXPECT_EQ(outcome(pool.spawn("a", calls(pool))), "failed");
    pool.drain();
    EXPECT_EQ(pool.stats().failed, 2U);
}

// lane full: the call is submitted as soon as there is room; no thread waits
TEST(Matrix_run, lane_full) {
    gate busy;
    task_pool pool({.threads = 2, .max_threads = 2, .lane_capacity = 1});
    const opener opens(busy);
    occupy(pool, "b", busy);
    ASSERT_TRUE(pool.submit("b", [] {}));
    auto result = pool.spawn("a", call(pool, "b"));
    EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    EXPECT_EQ(pool.async("c", [] { return 2; }).get(), 2);
    EXPECT_FALSE(result.is_ready());
    busy.open();
    EXPECT_EQ(result.get(), 1);
    EXPECT_EQ(pool.stats().rejected, 0U);
}

// pool destroyed: as stop does
TEST(Matrix_run, pool_destroyed) {
    future<int> waiting_for_turn, waiting_for_room;
    {
        gate busy;
        task_pool pool({.threads = 3, .lane_capacity = 1});
        occupy(pool, "b", busy);
        waiting_for_turn = pool.spawn("a", call(pool, "b"));
        until_call_waits(pool);
        waiting_for_room = pool.spawn("c", call(pool, "b"));
        EXPECT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 2; }));
        std::thread([&] {
            EXPECT_TRUE(eventually([&] { return waiting_for_turn.is_ready() && waiting_for_room.is_ready(); }));
            busy.open();
        }).detach();
    }
    EXPECT_EQ(outcome(std::move(waiting_for_turn)), "discarded");
    EXPECT_EQ(outcome(std::move(waiting_for_room)), "rejected: stopped");
}

// what is submitted to the call's key meanwhile runs after it; to the coroutine's key, after the coroutine
TEST(Matrix_run, key_submitted_to_meanwhile) {
    gate busy;
    journal<std::string> order;
    task_pool pool({.threads = 2});
    const opener opens(busy);
    occupy(pool, "b", busy);
    const auto calls = [](task_pool& on, journal<std::string>& to) -> task<> {
        co_await on.run("b", [&to] { to.add("call"); });
        to.add("coroutine");
    };
    pool.spawn("a", calls(pool, order));
    until_call_waits(pool);
    ASSERT_TRUE(pool.submit("b", [&] { order.add("b"); }));
    ASSERT_TRUE(pool.submit("a", [&] { order.add("a"); }));
    busy.open();
    pool.drain();
    const auto entries = order.entries();
    const auto place = [&](std::string_view of) { return std::find(entries.begin(), entries.end(), of); };
    ASSERT_EQ(entries.size(), 4U);
    EXPECT_LT(place("call"), place("b"));
    EXPECT_LT(place("call"), place("coroutine"));
    EXPECT_LT(place("coroutine"), place("a"));
}

// --- async -----------------------------------------------------------------------------------------------------------

// stop: one that waits is discarded, and its future says so; one that runs is asked to stop, and its future has what it
// returns
TEST(Matrix_async, stop) {
    gate started;
    task_pool pool({.threads = 1});
    auto runs = pool.async("key", [&](const job_context& context) {
        started.open();
        while (!context.stop_requested())
            std::this_thread::yield();
        return 1;
    });
    started.wait();
    auto waits = pool.async("key", [] { return 2; });
    EXPECT_EQ(pool.stop().discarded_by_stop, 1U);
    EXPECT_EQ(runs.get(), 1);
    EXPECT_EQ(outcome(std::move(waits)), "discarded");
    EXPECT_EQ(outcome(pool.async("key", [] { return 3; })), "rejected: stopped");
}

// drain: waits for it
TEST(Matrix_async, drain) {
    gate busy;
    task_pool pool({.threads = 1});
    const opener opens(busy);
    occupy(pool, "key", busy);
    auto result = pool.async("key", [] { return 1; });
    EXPECT_EQ(pool.drain_for(5ms).keys, std::vector<std::string>{"key"});
    busy.open();
    pool.drain();
    EXPECT_TRUE(result.is_ready());
}

// cancel(key): one that waits is discarded; one that runs is asked to stop
TEST(Matrix_async, cancel_key) {
    gate started;
    task_pool pool({.threads = 1});
    auto runs = pool.async("key", [&](const job_context& context) {
        started.open();
        while (!context.stop_requested())
            std::this_thread::yield();
        return 1;
    });
    started.wait();
    auto waits = pool.async("key", [] { return 2; });
    EXPECT_EQ(pool.cancel("key"), 1U);
    EXPECT_EQ(runs.get(), 1);
    EXPECT_EQ(outcome(std::move(waits)), "discarded");
    EXPECT_EQ(pool.async("key", [] { return 3; }).get(), 3);
}

// job throws: the future has the exception, or the failure handler if the future was dropped
TEST(Matrix_async, job_throws) {
    journal<std::string> failures;
    gate busy;
    task_pool pool({.threads = 1, .on_failure = [&](const failure& f) { failures.add(std::string(f.key)); }});
    const auto throws = []() -> int { throw std::runtime_error("failed"); };
    EXPECT_EQ(outcome(pool.async("key", throws)), "failed");
    EXPECT_EQ(failures.size(), 0U);
    const opener opens(busy);
    occupy(pool, "key", busy);
    pool.async("key", throws); // dropped before it runs
    busy.open();
    pool.drain();
    EXPECT_EQ(failures.entries(), std::vector<std::string>{"key"});
    EXPECT_EQ(pool.stats().failed, 2U);
}

// lane full: async waits for room like submit, or is refused, and the future says so
TEST(Matrix_async, lane_full) {
    gate busy;
    task_pool pool({.threads = 1, .lane_capacity = 1, .when_full = overflow::reject});
    const opener opens(busy);
    occupy(pool, "key", busy);
    auto waits = pool.async("key", [] { return 1; });
    EXPECT_EQ(outcome(pool.async("key", [] { return 2; })), "rejected: full");
    busy.open();
    EXPECT_EQ(waits.get(), 1);
}

// pool destroyed: as stop does; the future outlives the pool
TEST(Matrix_async, pool_destroyed) {
    future<int> waits;
    future<std::string> done;
    {
        gate busy;
        task_pool pool({.threads = 2});
        done = pool.async("other", [] { return std::string(100, 'x'); });
        done.wait();
        occupy(pool, "key", busy);
        waits = pool.async("key", [] { return 1; });
        std::thread([&] {
            EXPECT_TRUE(eventually([&] { return waits.is_ready(); }));
            busy.open();
        }).detach();
    }
    EXPECT_EQ(outcome(std::move(waits)), "discarded");
    EXPECT_EQ(done.get(), std::string(100, 'x'));
}

// what is submitted meanwhile runs after it
TEST(Matrix_async, key_submitted_to_meanwhile) {
    gate busy;
    task_pool pool({.threads = 1});
    const opener opens(busy);
    occupy(pool, "key", busy);
    auto first = pool.async("key", [] { return 1; });
    auto second = pool.async("key", [&] { return first.is_ready() ? 2 : 0; });
    busy.open();
    EXPECT_EQ(second.get(), 2);
}

// --- then ------------------------------------------------------------------------------------------------------------

// stop: if what it follows is discarded, so is it; if that ends during the stop, it is rejected
TEST(Matrix_then, stop) {
    gate started;
    task_pool pool({.threads = 1});
    auto after_running = pool.async("a",
                                    [&](const job_context& context) {
                                        started.open();
                                        while (!context.stop_requested())
                                            std::this_thread::yield();
                                        return 1;
                                    })
                             .then("b", [](int n) { return n; });
    started.wait();
    auto after_waiting = pool.async("a", [] { return 2; }).then("b", [](int n) { return n; });
    pool.stop();
    EXPECT_EQ(outcome(std::move(after_running)), "rejected: stopped");
    EXPECT_EQ(outcome(std::move(after_waiting)), "discarded");
}

// drain: waits for what it follows, and then for it
TEST(Matrix_then, drain) {
    gate busy;
    task_pool pool({.threads = 2, .lane_capacity = 1});
    const opener opens(busy);
    occupy(pool, "a", busy);
    std::vector<future<int>> results; // more than lane b has room for
    occupy(pool, "b", busy);
    auto first = pool.async("a", [] { return 1; });
    results.push_back(std::move(first).then("b", [](int n) { return n; }));
    for (int i = 0; i < 5; ++i)
        results.push_back(pool.async("c" + std::to_string(i), [] { return 1; }).then("b", [](int n) { return n; }));
    ASSERT_TRUE(eventually([&] { return pool.active_keys() == 2; }));
    EXPECT_EQ(sorted(pool.drain_for(20ms).keys), (std::vector<std::string>{"a", "b"}));
    busy.open();
    pool.drain();
    for (auto& result : results)
        EXPECT_TRUE(result.is_ready());
}

// cancel(key): of its own key discards it if it waits there; of what it follows, with that
TEST(Matrix_then, cancel_key) {
    gate busy;
    task_pool pool({.threads = 2});
    const opener opens(busy);
    occupy(pool, "b", busy);
    auto own = pool.async("a", [] { return 1; }).then("b", [](int n) { return n; });
    EXPECT_TRUE(eventually([&] { return pool.stats().finished == 1; })); // and what follows waits
    EXPECT_EQ(pool.cancel("b"), 1U);
    EXPECT_EQ(outcome(std::move(own)), "discarded");
    auto with_first = pool.async("b", [] { return 1; }).then("c", [](int n) { return n; });
    EXPECT_EQ(pool.cancel("b"), 1U);
    EXPECT_EQ(outcome(std::move(with_first)), "discarded");
}

// job throws: its future has the exception, or the failure handler if that was dropped; what follows is not called
TEST(Matrix_then, job_throws) {
    journal<std::string> failures;
    gate busy;
    task_pool pool({.threads = 1, .on_failure = [&](const failure& f) { failures.add(std::string(f.key)); }});
    const auto throws = [](int) -> int { throw std::runtime_error("failed"); };
    bool called = false;
    EXPECT_EQ(outcome(pool.async("a", [] { return 1; })
                          .then("b", throws)
                          .then("c",
                                [&](int n) {
                                    called = true;
                                    return n;
                                })),
              "failed");
    EXPECT_FALSE(called);
    EXPECT_EQ(failures.size(), 0U);
    const opener opens(busy);
    occupy(pool, "b", busy);
    pool.async("a", [] { return 1; }).then("b", throws);
    busy.open();
    EXPECT_TRUE(eventually([&] { return failures.size() == 1; }));
    EXPECT_EQ(failures.entries(), std::vector<std::string>{"b"});
}

// lane full: it is submitted as soon as there is room; nobody waits
TEST(Matrix_then, lane_full) {
    gate busy;
    task_pool pool({.threads = 2, .max_threads = 2, .lane_capacity = 1});
    const opener opens(busy);
    occupy(pool, "b", busy);
    ASSERT_TRUE(pool.submit("b", [] {}));
    auto result = pool.async("a", [] { return 1; }).then("b", [](int n) { return n; });
    EXPECT_EQ(pool.async("c", [] { return 2; }).get(), 2);
    EXPECT_TRUE(for_a_while([&] { return !result.is_ready(); }));
    busy.open();
    EXPECT_EQ(result.get(), 1);
}

// pool destroyed: as stop does; the future outlives the pool
TEST(Matrix_then, pool_destroyed) {
    future<int> with_first, for_room;
    {
        gate busy;
        task_pool pool({.threads = 2, .lane_capacity = 1});
        occupy(pool, "b", busy);
        with_first = pool.async("b", [] { return 1; }).then("c", [](int n) { return n; });
        for_room = pool.async("a", [] { return 1; }).then("b", [](int n) { return n; });
        EXPECT_TRUE(eventually([&] { return pool.stats().finished == 1; }));
        std::thread([&] {
            EXPECT_TRUE(eventually([&] { return with_first.is_ready() && for_room.is_ready(); }));
            busy.open();
        }).detach();
    }
    EXPECT_EQ(outcome(std::move(with_first)), "discarded");
    EXPECT_EQ(outcome(std::move(for_room)), "rejected: stopped");
}

// it takes its place in its lane when what it follows has ended: after what was submitted before that
TEST(Matrix_then, key_submitted_to_meanwhile) {
    gate busy, busy_b;
    journal<std::string> order;
    task_pool pool({.threads = 2});
    const opener opens(busy), opens_b(busy_b);
    occupy(pool, "a", busy);
    occupy(pool, "b", busy_b);
    pool.async("a", [] {}).then("b", [&] { order.add("then"); });
    ASSERT_TRUE(pool.submit("b", [&] { order.add("meanwhile"); }));
    busy.open();
    EXPECT_TRUE(eventually([&] { return pool.stats().finished == 2; }));
    busy_b.open();
    pool.drain();
    EXPECT_EQ(order.entries(), (std::vector<std::string>{"meanwhile", "then"}));
}

} // namespace
} // namespace taskpool::testing
