// SPDX-License-Identifier: Apache-2.0
// The tests of the executor, for Asio and for Boost.Asio: what posting does in each state of the pool.
#pragma once

#if defined(TASKPOOL_TEST_BOOST_ASIO)
#include <utility> // which Boost.Asio 1.74 needs and does not include

#include <boost/asio.hpp>
#include <taskpool/boost_asio.hpp>
#define ASIO_TEST(suite, name) TEST(Boost_asio_##suite, name)
#else
#include <asio.hpp>
#include <taskpool/asio.hpp>
#define ASIO_TEST(suite, name) TEST(Asio_##suite, name)
#endif

#include <cstdlib>
#include <optional>

#include "../core/testing.hpp"

namespace {

#if defined(TASKPOOL_TEST_BOOST_ASIO)
namespace net = ::boost::asio;
using taskpool::boost_asio::executor;
#else
namespace net = ::asio;
using taskpool::asio::executor;
#endif
using namespace std::chrono_literals;
using namespace taskpool::testing;
using taskpool::submit_status;
using taskpool::task_pool;

// --- Asio's own checks
// ------------------------------------------------------------------------------------------------

template <class Property>
inline constexpr bool has = net::can_require_v<executor, Property> && net::can_prefer_v<executor, Property>;

static_assert(net::execution::is_executor_v<executor>);
static_assert(std::is_convertible_v<executor, net::any_io_executor>);
static_assert(has<net::execution::blocking_t::possibly_t> && has<net::execution::blocking_t::never_t>);
static_assert(!net::can_require_v<executor, net::execution::blocking_t::always_t>);
static_assert(has<net::execution::relationship_t::fork_t> && has<net::execution::relationship_t::continuation_t>);
static_assert(has<net::execution::outstanding_work_t::tracked_t> &&
              has<net::execution::outstanding_work_t::untracked_t>);
static_assert(has<net::execution::allocator_t<void>> && has<net::execution::allocator_t<std::allocator<int>>>);
static_assert(net::can_query_v<executor, net::execution::blocking_t>);
static_assert(net::can_query_v<executor, net::execution::relationship_t>);
static_assert(net::can_query_v<executor, net::execution::outstanding_work_t>);
static_assert(net::can_query_v<executor, net::execution::mapping_t>);
static_assert(net::can_query_v<executor, net::execution::allocator_t<void>>);
static_assert(net::can_query_v<executor, net::execution::context_t>);
static_assert(net::can_query_v<executor, net::execution::context_as_t<net::execution_context&>>);
static_assert(std::is_nothrow_copy_constructible_v<executor> && std::is_nothrow_move_constructible_v<executor>);
static_assert(sizeof(executor) <= sizeof(std::shared_ptr<void>) + sizeof(void*), "any_io_executor stores it in itself");

/// Counts the functions that own it: how many exist still, and how many were run.
struct balance {
    std::atomic<int> alive{0};
    std::atomic<int> run{0};
};

class counted {
  public:
    explicit counted(balance& in) : in_(&in) { ++in_->alive; }
    counted(counted&& other) noexcept : in_(std::exchange(other.in_, nullptr)) {}
    counted(const counted&) = delete;
    counted& operator=(counted&&) = delete;
    ~counted() {
        if (in_ != nullptr)
            --in_->alive;
    }
    void operator()() { ++in_->run; }

  private:
    balance* in_;
};

// --- What an executor is
// ------------------------------------------------------------------------------------------------

ASIO_TEST(executor, says_what_is_asked_of_it) {
    task_pool pool({.threads = 1});
    const executor plain(pool, "key");
    EXPECT_TRUE(net::query(plain, net::execution::blocking) == net::execution::blocking.possibly);
    EXPECT_TRUE(net::query(plain, net::execution::relationship) == net::execution::relationship.fork);
    EXPECT_TRUE(net::query(plain, net::execution::outstanding_work) == net::execution::outstanding_work.untracked);
    EXPECT_TRUE(net::query(plain, net::execution::mapping) == net::execution::mapping.thread);
    const auto changed = net::require(plain, net::execution::blocking.never, net::execution::relationship.continuation,
                                      net::execution::outstanding_work.tracked);
    EXPECT_TRUE(net::query(changed, net::execution::blocking) == net::execution::blocking.never);
    EXPECT_TRUE(net::query(changed, net::execution::relationship) == net::execution::relationship.continuation);
    EXPECT_TRUE(net::query(changed, net::execution::outstanding_work) == net::execution::outstanding_work.tracked);
    const auto back = net::require(changed, net::execution::blocking.possibly, net::execution::relationship.fork,
                                   net::execution::outstanding_work.untracked);
    EXPECT_TRUE(back == plain);
    EXPECT_TRUE(changed != plain);
}

ASIO_TEST(executor, is_equal_for_the_same_key_of_the_same_pool) {
    task_pool pool({.threads = 1});
    task_pool other({.threads = 1});
    taskpool::basic_task_pool<int> numbers({.threads = 1});
    const executor a(pool, "a");
    EXPECT_TRUE(a == executor(pool, "a"));
    EXPECT_TRUE(a == executor(pool.lane("a")));
    EXPECT_TRUE(a != executor(pool, "b"));
    EXPECT_TRUE(a != executor(other, "a"));
    EXPECT_TRUE(executor(numbers, 1) == executor(numbers, 1));
    EXPECT_TRUE(executor(numbers, 1) != executor(numbers, 2));
    EXPECT_EQ(&net::query(a, net::execution::context), &net::query(executor(pool, "b"), net::execution::context));
    EXPECT_NE(&net::query(a, net::execution::context), &net::query(executor(other, "a"), net::execution::context));
    executor moved = a;
    const executor taker = std::move(moved);
    EXPECT_TRUE(taker == a);
    moved = taker;
    EXPECT_TRUE(moved == a);
}

ASIO_TEST(executor, dispatch_runs_at_once_inside_the_lane_only) {
    gate end;
    task_pool pool({.threads = 2});
    const executor ours(pool, "ours");
    const executor theirs(pool, "theirs");
    const net::any_io_executor erased = ours;
    std::vector<std::string> order; // of "ours"
    std::atomic<bool> other_ran = false;
    const opener opens(end);
    pool.submit("ours", [&] {
        net::post(ours, [&] { order.push_back("posted"); });
        net::defer(ours, [&] { order.push_back("deferred"); });
        net::dispatch(ours, [&] { order.push_back("dispatched"); });
        net::dispatch(erased, [&] { order.push_back("dispatched through any_io_executor"); });
        net::dispatch(theirs,
                      [&, here = std::this_thread::get_id()] { other_ran = std::this_thread::get_id() != here; });
        EXPECT_TRUE(eventually([&] { return other_ran.load(); }));
        order.push_back("end");
    });
    pool.drain();
    EXPECT_EQ(order, (std::vector<std::string>{"dispatched", "dispatched through any_io_executor", "end", "posted",
                                               "deferred"}));
    const auto here = std::this_thread::get_id();
    std::thread::id there = here;
    net::dispatch(ours, [&] { there = std::this_thread::get_id(); });
    pool.drain();
    EXPECT_NE(there, here);
}

ASIO_TEST(executor, a_held_key_is_not_inside_its_lane) {
    task_pool pool({.threads = 1});
    const executor ours(pool, "key");
    taskpool::held held;
    pool.submit("key", [&](const taskpool::job_context& ctx) { held = ctx.hold(); });
    ASSERT_TRUE(eventually([&] { return pool.stats().suspended_lanes == 1; }));
    std::atomic<bool> ran = false;
    net::dispatch(ours, [&] { ran = true; });
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    held.release();
    pool.drain();
    EXPECT_TRUE(ran);
}

ASIO_TEST(executor, completions_of_an_event_loop_come_to_the_lane) {
    task_pool pool({.threads = 2});
    const executor ours(pool, "key");
    net::io_context io;
    net::steady_timer timer(io, 1ms);
    bool inside = false;
    std::thread::id there;
    timer.async_wait(net::bind_executor(ours, [&](auto) {
        there = std::this_thread::get_id();
        net::dispatch(ours, [&] { inside = true; });
        EXPECT_TRUE(inside);
    }));
    io.run();
    pool.drain();
    EXPECT_TRUE(inside);
    EXPECT_NE(there, std::this_thread::get_id());
}

ASIO_TEST(executor, a_timer_may_live_in_the_pool_itself) {
    task_pool pool({.threads = 2});
    const executor ours(pool, "key");
    net::steady_timer timer(ours, 1ms);
    std::vector<int> order; // touched in the lane only
    timer.async_wait([&](auto error) {
        EXPECT_FALSE(error);
        order.push_back(1);
        net::post(ours, [&] { order.push_back(2); });
    });
    pool.drain(); // the pending wait is outstanding work
    EXPECT_EQ(order, (std::vector{1, 2}));
}

/// Counts what it gives out. It has a state, so executors must carry it.
template <class T>
struct counting_allocator {
    using value_type = T;
    explicit counting_allocator(std::atomic<int>& count) : outstanding(&count) {}
    template <class U>
    counting_allocator(const counting_allocator<U>& other) : outstanding(other.outstanding) {}
    T* allocate(std::size_t n) {
        ++*outstanding;
        return static_cast<T*>(::operator new(n * sizeof(T)));
    }
    void deallocate(T* p, std::size_t) {
        --*outstanding;
        ::operator delete(p);
    }
    template <class U>
    friend bool operator==(const counting_allocator& a, const counting_allocator<U>& b) {
        return a.outstanding == b.outstanding;
    }
    std::atomic<int>* outstanding;
};

ASIO_TEST(executor, uses_its_allocator_and_gives_the_memory_back_before_the_call) {
    gate open;
    gate again;
    std::atomic<int> outstanding = 0;
    task_pool pool({.threads = 1});
    const auto ours = net::require(executor(pool, "key"), net::execution::blocking.never,
                                   net::execution::allocator(counting_allocator<char>(outstanding)));
    static_assert(net::execution::is_executor_v<std::remove_const_t<decltype(ours)>>);
    EXPECT_EQ(net::query(ours, net::execution::allocator).outstanding, &outstanding);
    const opener opens(open);
    occupy(pool, "key", open);
    int seen = -1;
    const std::array<char, 64> large{};
    ours.execute([&seen] { seen = -2; }); // fits the queue itself
    EXPECT_EQ(outstanding, 0);
    ours.execute([&seen, &outstanding, large] { seen = outstanding + large[0]; });
    EXPECT_EQ(outstanding, 1);
    open.open();
    pool.drain();
    EXPECT_EQ(seen, 0);

    const opener opens_again(again);
    occupy(pool, "key", again);
    ours.execute([large] { std::exit(large[0] + 1); });
    EXPECT_EQ(outstanding, 1);
    EXPECT_EQ(pool.cancel("key"), 1U);
    EXPECT_EQ(outstanding, 0);
    const auto plain = net::require(ours, net::execution::allocator);
    static_assert(std::is_same_v<std::remove_const_t<decltype(plain)>, executor>);
}

ASIO_TEST(executor, a_function_may_move_by_copying_executors_and_be_large) {
    task_pool pool({.threads = 2, .lane_capacity = 1});
    struct copies_to_move {
        explicit copies_to_move(executor ex) : tracked(net::prefer(ex, net::execution::outstanding_work.tracked)) {}
        copies_to_move(const copies_to_move&) noexcept = default; // and so no move
        executor tracked;
        void operator()() {
            net::post(tracked, [] {});
        }
    };
    struct large : copies_to_move {
        using copies_to_move::copies_to_move;
        std::array<char, 100> more{};
    };
    for (int i = 0; i < 100; ++i) {
        net::post(executor(pool, "key"), copies_to_move(executor(pool, "key")));
        executor(pool, "key").execute(large(executor(pool, "key")));
    }
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 400U);
}

ASIO_TEST(executor, drain_waits_for_work_that_moves_between_keys) {
    task_pool pool({.threads = 2});
    const auto tracked = [&](int key) {
        return net::require(executor(pool, std::to_string(key)), net::execution::outstanding_work.tracked);
    };
    for (int round = 0; round < 200 / slowness; ++round) {
        // No job is there but the last one: only the work passes from key to key, so also between shards.
        int seen = 0; // by the last job
        executor first = tracked(0);
        std::thread walker([&, at = std::move(first)]() mutable {
            for (int key = 1; key <= 200; ++key)
                at = tracked(key);
            net::post(at, [&] { seen = 200; });
        });
        pool.drain();
        const int seen_after_drain = seen;
        walker.join();
        ASSERT_EQ(seen_after_drain, 200);
    }
}

// --- The cells
// --------------------------------------------------------------------------------------------------------

ASIO_TEST(post, stop) {
    balance functions;
    std::atomic<int> reported = 0;
    gate open;
    task_pool pool({.threads = 1, .on_discard = [&](const taskpool::discard& what) {
                        reported += what.key == "key" && what.reason == taskpool::discard_reason::stopped ? 1 : 0;
                    }});
    const executor ours(pool, "key");
    const auto tracked = net::require(ours, net::execution::outstanding_work.tracked); // stop does not wait for it
    net::steady_timer never(ours, 24h);
    never.async_wait([f = counted(functions)](auto) mutable { f(); }); // an operation that is pending
    occupy(pool, "key", open);
    for (int i = 0; i < 10; ++i)
        net::post(ours, counted(functions));
    EXPECT_EQ(functions.alive, 11);
    std::thread stopper([&] {
        const auto report = pool.stop();
        EXPECT_EQ(report.discarded_by_stop, 10U);
        EXPECT_EQ(report.finished, 1U);
    });
    EXPECT_TRUE(eventually([&] { return functions.alive <= 1; })); // destroyed while the running job still runs
    net::post(ours, counted(functions));                           // refused: the pool is stopping
    EXPECT_LE(functions.alive, 1);
    open.open();
    stopper.join();
    EXPECT_EQ(reported, 10);
    EXPECT_EQ(functions.alive, 0); // the handler of the pending operation, too
    net::post(ours, counted(functions));
    net::dispatch(ours, counted(functions));
    EXPECT_EQ(functions.alive, 0);
    EXPECT_EQ(functions.run, 0);
    EXPECT_EQ(pool.stats().rejected, 3U);
}

ASIO_TEST(post, stop_lets_a_job_dispatch_to_its_own_lane) {
    gate started;
    task_pool pool({.threads = 1});
    const executor ours(pool, "key");
    bool dispatched = false;
    pool.submit("key", [&](const taskpool::job_context& ctx) {
        started.open();
        while (!ctx.stop_requested())
            std::this_thread::yield();
        net::dispatch(ours, [&] { dispatched = true; });
    });
    started.wait();
    pool.stop();
    EXPECT_TRUE(dispatched);
}

ASIO_TEST(post, close) {
    balance functions;
    gate open;
    task_pool pool({.threads = 1});
    const executor ours(pool, "key");
    const opener opens(open);
    occupy(pool, "key", open);
    net::post(ours, counted(functions)); // accepted: runs
    pool.close();
    net::post(ours, counted(functions)); // refused: destroyed
    EXPECT_EQ(functions.alive, 1);
    open.open();
    pool.drain();
    EXPECT_EQ(functions.alive, 0);
    EXPECT_EQ(functions.run, 1);
}

ASIO_TEST(post, drain) {
    task_pool pool({.threads = 2});
    const executor ours(pool, "key");
    int depth = 0;
    const std::function<void()> deeper = [&] {
        if (++depth < 100)
            net::post(ours, deeper);
    };
    net::post(ours, deeper);
    pool.drain(); // what is posted meanwhile included
    EXPECT_EQ(depth, 100);

    // Outstanding work keeps the pool from being drained, not the key.
    auto guard = std::make_optional(net::make_work_guard(ours));
    const auto report = pool.drain_for(5ms);
    EXPECT_FALSE(report);
    EXPECT_TRUE(report.keys.empty());
    pool.drain("key");
    std::atomic<bool> drained = false;
    std::thread drainer([&] {
        pool.drain();
        drained = true;
    });
    EXPECT_TRUE(for_a_while([&] { return !drained; }));
    bool last = false;
    net::post(ours, [&] { last = true; });
    guard.reset();
    drainer.join();
    EXPECT_TRUE(last);

    // stop() ends the drains that wait for work.
    guard.emplace(net::make_work_guard(ours));
    std::thread waits([&] { pool.drain(); });
    pool.stop();
    waits.join();
}

ASIO_TEST(post, cancel) {
    balance functions;
    std::atomic<int> reported = 0;
    gate open;
    task_pool pool({.threads = 1, .on_discard = [&](const taskpool::discard& what) {
                        reported += what.reason == taskpool::discard_reason::cancelled ? 1 : 0;
                    }});
    const executor ours(pool, "key");
    const opener opens(open);
    occupy(pool, "key", open);
    for (int i = 0; i < 150; ++i)
        net::post(ours, counted(functions));
    EXPECT_EQ(pool.cancel("key"), 150U);
    EXPECT_EQ(functions.alive, 0);
    EXPECT_EQ(functions.run, 0);
    EXPECT_EQ(reported, 150);
    net::post(ours, counted(functions)); // the key takes new ones at once
    open.open();
    pool.drain();
    EXPECT_EQ(functions.run, 1);
    EXPECT_EQ(functions.alive, 0);
}

ASIO_TEST(post, throws) {
    journal<std::string> failures;
    task_pool pool({.threads = 1, .on_failure = [&](const taskpool::failure& what) {
                        try {
                            std::rethrow_exception(what.error);
                        } catch (const std::exception& e) {
                            failures.add(std::string(what.key) + ": " + e.what());
                        }
                    }});
    const executor ours(pool, "key");
    bool went_on = false;
    bool next_ran = false;
    net::post(ours, [] { throw std::runtime_error("posted"); });
    net::post(ours, [&] {
        net::dispatch(ours, [] { throw std::runtime_error("dispatched"); }); // reaches the handler, not the caller
        went_on = true;
    });
    net::post(ours, [&] { next_ran = true; });
    pool.drain();
    EXPECT_EQ(failures.entries(), (std::vector<std::string>{"key: posted", "key: dispatched"}));
    EXPECT_TRUE(went_on);
    EXPECT_TRUE(next_ran);
    EXPECT_EQ(pool.stats().failed, 2U);
}

ASIO_TEST(post, lane_full) {
    using taskpool::overflow;
    for (const auto rule : {overflow::block, overflow::reject, overflow::drop_oldest, overflow::keep_latest}) {
        for (const bool pool_is_full : {false, true}) {
            balance functions;
            std::vector<int> order; // of the key
            gate open;
            gate again;
            task_pool pool({.threads = 1,
                            .lane_capacity = pool_is_full ? 100U : 2U,
                            .pool_capacity = pool_is_full ? 2U : 1000U,
                            .when_full = rule});
            const executor ours(pool, "key");
            const opener opens(open);
            occupy(pool, "key", open);
            for (int i = 0; i < 200; ++i)
                net::post(ours, [&order, i, f = counted(functions)]() mutable {
                    order.push_back(i);
                    f();
                }); // neither waits nor fails
            EXPECT_EQ(functions.alive, 200);
            EXPECT_EQ(pool.stats().waiting, 200U);
            // To others the lane is full; nothing is dropped for them.
            EXPECT_EQ(pool.try_submit("key", [] { std::abort(); }), submit_status::full);
            EXPECT_EQ(pool.try_submit("key", [] { std::abort(); }), submit_status::full);
            EXPECT_EQ(functions.alive, 200);
            // A submit that waits for room gets it when the posted ones have gone.
            std::thread waits;
            if (rule == overflow::block)
                waits = std::thread([&] { EXPECT_TRUE(pool.submit("key", [&] { order.push_back(200); })); });
            open.open();
            if (waits.joinable())
                waits.join();
            pool.drain();
            EXPECT_EQ(order, count_up(rule == overflow::block ? 201 : 200));
            EXPECT_EQ(functions.run, 200);
            EXPECT_EQ(functions.alive, 0);
            EXPECT_EQ(pool.stats().discarded, 0U);
            // The room is whole again.
            const opener opens_again(again);
            occupy(pool, "key", again);
            EXPECT_TRUE(pool.try_submit("key", [] {}));
            again.open();
            pool.drain();
        }
    }
}

ASIO_TEST(post, pool_destroyed) {
    balance functions;
    net::io_context io;
    net::steady_timer timer(io, 24h);
    std::optional<executor> ours;
    {
        task_pool pool({.threads = 1});
        ours.emplace(pool, "key");
        timer.async_wait(net::bind_executor(*ours, [f = counted(functions)](auto) mutable { f(); }));
    }
    EXPECT_EQ(functions.alive, 1); // the io_context has it
    timer.cancel();
    io.run(); // its completion finds no pool
    EXPECT_EQ(functions.alive, 0);
    net::post(*ours, counted(functions));
    net::dispatch(*ours, counted(functions));
    EXPECT_EQ(functions.alive, 0);
    EXPECT_EQ(functions.run, 0);
    const auto copy = net::require(*ours, net::execution::outstanding_work.tracked);
    EXPECT_EQ(&net::query(copy, net::execution::context), &net::query(*ours, net::execution::context));
}

ASIO_TEST(post, pool_destroyed_by_a_function_of_its_own) {
    balance functions;
    gate ended;
    auto pool = std::make_unique<task_pool>(taskpool::options{.threads = 1});
    const executor ours(*pool, "key");
    gate open;
    occupy(*pool, "key", open);
    net::post(ours, [&] {
        pool.reset();
        ended.open();
    });
    net::post(ours, counted(functions));
    open.open();
    ended.wait();
    EXPECT_TRUE(eventually([&] { return functions.alive == 0; }));
    EXPECT_EQ(functions.run, 0);
}

ASIO_TEST(post, key_submitted_to_meanwhile) {
    gate open;
    task_pool pool({.threads = 2});
    const executor ours(pool, "key");
    std::vector<int> order; // of the key
    const opener opens(open);
    occupy(pool, "key", open);
    for (int i = 0; i < 90; i += 3) { // one order for all ways of submitting
        pool.submit("key", [&order, i] { order.push_back(i); });
        net::post(ours, [&order, i] { order.push_back(i + 1); });
        ASSERT_TRUE(pool.try_submit("key", [&order, i] { order.push_back(i + 2); }));
    }
    open.open();
    pool.drain();
    EXPECT_EQ(order, count_up(90));

    // From several threads: each one's stay in order, and none overlap.
    std::array<int, 4> last{}; // of the key
    int jobs = 0;
    std::vector<std::thread> producers;
    for (std::size_t p = 0; p < last.size(); ++p)
        producers.emplace_back([&, p] {
            for (int i = 1; i <= 1000; ++i) {
                const auto job = [&, p, i] {
                    EXPECT_EQ(last[p] + 1, i);
                    last[p] = i;
                    ++jobs;
                };
                if (i % 2 == 0)
                    net::post(ours, job);
                else
                    pool.submit("key", job);
            }
        });
    for (auto& p : producers)
        p.join();
    pool.drain();
    EXPECT_EQ(jobs, 4000);
}

} // namespace
