// SPDX-License-Identifier: Apache-2.0
// Jobs for a later time: submit_after, submit_at, submit_every, the handle, and the clock that is moved by hand.
#include "at_end.hpp"
#include "testing.hpp"

#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>

#if defined(__unix__)
#include <sys/resource.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace taskpool::testing {
namespace {

std::shared_ptr<manual_clock> new_clock() {
    return std::make_shared<manual_clock>(manual_clock::time_point(std::chrono::hours(1)));
}

/// Every accepted job has ended, one way or the other. For a pool that was stopped.
template <class Pool>
void expect_all_accounted_for(const Pool& pool) {
    const auto now = pool.stats();
    EXPECT_EQ(now.accepted, now.finished + now.discarded);
    EXPECT_EQ(now.timers, 0U);
    EXPECT_EQ(now.waiting, 0U);
    EXPECT_EQ(now.active_keys, 0U);
}

/// Knows how many of it exist, however they came to be.
struct counted {
    std::atomic<int>* alive;
    explicit counted(std::atomic<int>& count) : alive(&count) { ++*alive; }
    counted(const counted& other) : alive(other.alive) { ++*alive; }
    counted& operator=(const counted&) = delete;
    ~counted() { --*alive; }
};

// --- submit_after: when ----------------------------------------------------------------------------------------------

TEST(Submit_after, is_never_early) {
    std::atomic<int> early = 0;
    task_pool pool({.threads = 2});
    for (int i = 0; i < 60; ++i) {
        const auto delay = i * 500us;
        const auto due = steady::now() + delay;
        ASSERT_TRUE(pool.submit_after(delay, std::to_string(i), [&early, due] { early += steady::now() < due; }));
    }
    pool.drain();
    EXPECT_EQ(early, 0);
    EXPECT_EQ(pool.stats().finished, 60U);
}

TEST(Submit_after, runs_soon_after_its_time_though_the_pool_was_asleep) {
    std::atomic<steady::rep> late = -1;
    task_pool pool({.threads = 1});
    EXPECT_TRUE(for_a_while([] { return true; }, 150ms)); // the keeper dozes after some 50 ms
    const auto due = steady::now() + 300ms;
    ASSERT_TRUE(pool.submit_after(300ms, "key", [&] { late = (steady::now() - due).count(); }));
    pool.drain();
    EXPECT_GE(late, 0);
    EXPECT_LT(steady::duration(late), 20s * slowness);
}

TEST(Submit_after, an_earlier_one_wakes_a_keeper_that_sleeps_for_a_later_one) {
    // I-TIMER-2. Each round waits until the keeper sleeps.
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit_after(1h, "later", [] {}));
    for (int i = 0; i < 3; ++i) {
        EXPECT_TRUE(for_a_while([] { return true; }, 100ms));
        gate ran;
        ASSERT_TRUE(pool.submit_after(5ms, "sooner", [&] { ran.open(); }));
        EXPECT_TRUE(ran.wait_for(10s * slowness));
    }
}

TEST(Submit_after, runs_when_the_clock_has_come_to_its_time_and_not_before) {
    const auto clock = new_clock();
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 1, .clock = clock});
    ASSERT_TRUE(pool.submit_after(1s, "key", [&] { ran = true; }));
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    clock->advance(999ms);
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    clock->advance(1ms - 1ns);
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    clock->advance(1ns);
    EXPECT_TRUE(eventually([&] { return ran.load(); }));
}

TEST(Submit_after, goes_in_steps_of_a_tick_and_rounds_up) {
    const auto clock = new_clock();
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 1, .clock = clock});
    ASSERT_TRUE(pool.submit_after(100us, "key", [&] { ran = true; }));
    clock->advance(999us);
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    clock->advance(1us);
    EXPECT_TRUE(eventually([&] { return ran.load(); }));
}

TEST(Submit_after, no_delay_and_a_negative_one_are_due_at_once) {
    const auto clock = new_clock();
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .clock = clock});
    ASSERT_TRUE(pool.submit_after(0s, "a", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_after(-1h, "b", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_after(std::chrono::hours::min(), "c", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_after(-1.5s, "d", [&] { ++ran; }));
    pool.drain();
    EXPECT_EQ(ran, 4);
    EXPECT_EQ(clock->now(), manual_clock::time_point(1h));
}

TEST(Submit_after, delays_beyond_the_end_of_the_clock_are_never_due) {
    const auto clock = new_clock();
    std::atomic<int> ran = 0;
    std::atomic<int> discarded = 0;
    task_pool pool({.threads = 1, .clock = clock, .on_discard = [&](const discard&) { ++discarded; }});
    ASSERT_TRUE(pool.submit_after(std::chrono::hours::max(), "key", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_after(std::chrono::nanoseconds::max(), "key", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_after(std::chrono::duration<double>(1e300), "key", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_at(std::chrono::time_point<steady, std::chrono::hours>::max(), "key", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_at(steady::time_point::max(), "key", [&] { ++ran; }));
    clock->advance(24h * 365 * 100);
    EXPECT_TRUE(for_a_while([&] { return ran == 0; }));
    pool.stop();
    EXPECT_EQ(ran, 0);
    EXPECT_EQ(discarded, 5);
}

TEST(Submit_after, all_times_of_a_wide_range_come_in_order) {
    // Through all levels of the wheel: from a millisecond to some years.
    const auto clock = new_clock();
    std::atomic<int> early = 0;
    task_pool pool({.threads = 1, .lane_capacity = 10'000, .clock = clock});
    std::vector<std::chrono::milliseconds> delays;
    std::mt19937_64 random(1);
    for (int bits = 0; bits < 38; ++bits)
        for (int i = 0; i < 20; ++i)
            delays.emplace_back(random() % (std::uint64_t{1} << bits) + 1);
    std::shuffle(delays.begin(), delays.end(), random);
    std::vector<std::chrono::milliseconds> ran; // one key: no lock
    for (const auto delay : delays)
        ASSERT_TRUE(pool.submit_after(delay, "key", [&, delay] {
            early += clock->now() < manual_clock::time_point(1h) + delay;
            ran.push_back(delay);
        }));
    clock->advance(5min);
    clock->advance(24h * 365 * 20);
    pool.drain();
    EXPECT_EQ(early, 0);
    std::sort(delays.begin(), delays.end());
    EXPECT_EQ(ran, delays);
}

// --- submit_after: order ---------------------------------------------------------------------------------------------

TEST(Submit_after, jobs_of_a_key_run_in_the_order_of_their_times) {
    const auto clock = new_clock();
    task_pool pool({.threads = 2, .clock = clock});
    std::vector<int> ran;
    for (const int delay : {30, 10, 50, 20, 40})
        ASSERT_TRUE(
            pool.submit_after(std::chrono::milliseconds(delay), "key", [&ran, delay] { ran.push_back(delay); }));
    clock->advance(1h); // all are due at one look
    pool.drain();
    EXPECT_EQ(ran, (std::vector<int>{10, 20, 30, 40, 50}));
}

TEST(Submit_after, jobs_of_a_key_with_one_time_run_in_the_order_of_their_submits) {
    const auto clock = new_clock();
    task_pool pool({.threads = 2, .lane_capacity = 1'000, .clock = clock});
    std::vector<int> ran;
    for (int i = 0; i < 1'000; ++i)
        ASSERT_TRUE(pool.submit_at(manual_clock::time_point(2h), "key", [&ran, i] { ran.push_back(i); }));
    clock->advance(1h);
    pool.drain();
    EXPECT_EQ(ran, count_up(1'000));
}

TEST(Submit_after, it_takes_its_place_in_its_lane_when_its_time_has_come) {
    const auto clock = new_clock();
    gate leave;
    task_pool pool({.threads = 1, .clock = clock});
    std::vector<int> ran;
    const opener opens(leave);
    ASSERT_TRUE(pool.submit_after(1s, "key", [&] { ran.push_back(2); }));
    occupy(pool, "key", leave);
    ASSERT_TRUE(pool.submit("key", [&] { ran.push_back(1); }));
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return pool.stats().timers == 0; }));
    ASSERT_TRUE(pool.submit("key", [&] { ran.push_back(3); }));
    leave.open();
    pool.drain();
    EXPECT_EQ(ran, (std::vector<int>{1, 2, 3}));
}

TEST(Submit_after, from_inside_a_job_under_its_own_key) {
    const auto clock = new_clock();
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 1, .clock = clock});
    std::function<void()> again = [&] {
        if (++ran < 10) {
            EXPECT_TRUE(pool.submit_after(1s, "key", again));
        }
    };
    ASSERT_TRUE(pool.submit("key", again));
    for (int i = 1; i < 10; ++i) {
        ASSERT_TRUE(eventually([&] { return ran == i && pool.stats().timers == 1; }));
        clock->advance(1s);
    }
    pool.drain();
    EXPECT_EQ(ran, 10);
}

// --- submit_after: what counts ---------------------------------------------------------------------------------------

TEST(Submit_after, counts_as_accepted_at_once_but_not_as_waiting_in_a_lane) {
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit_after(1h, "key", [] {}));
    ASSERT_TRUE(pool.submit_after(1h, "other", [] {}));
    const auto now = pool.stats();
    EXPECT_EQ(now.accepted, 2U);
    EXPECT_EQ(now.timers, 2U);
    EXPECT_EQ(now.waiting, 0U);
    EXPECT_EQ(now.finished, 0U);
    EXPECT_EQ(pool.active_keys(), 0U);
    const auto report = pool.stop();
    EXPECT_EQ(report.discarded, 2U);
    EXPECT_EQ(report.discarded_by_stop, 2U);
    expect_all_accounted_for(pool);
}

TEST(Submit_after, is_accepted_once_and_finished_once) {
    const auto clock = new_clock();
    task_pool pool({.threads = 2, .clock = clock});
    for (int i = 0; i < 500; ++i)
        ASSERT_TRUE(pool.submit_after(std::chrono::milliseconds(i), std::to_string(i % 7), [] {}));
    clock->advance(250ms);
    ASSERT_TRUE(eventually([&] {
        const auto now = pool.stats();
        return now.finished == 251 && now.timers == 249;
    }));
    EXPECT_EQ(pool.stats().accepted, 500U);
    pool.stop();
    EXPECT_EQ(pool.stats().finished, 251U);
    EXPECT_EQ(pool.stats().discarded, 249U);
    EXPECT_EQ(pool.stats().rejected, 0U);
    expect_all_accounted_for(pool);
}

TEST(Submit_after, before_start_it_waits_for_that_too) {
    const auto clock = new_clock();
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 1, .autostart = false, .clock = clock});
    ASSERT_TRUE(pool.submit_after(1s, "key", [&] { ran = true; }));
    clock->advance(1h);
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    pool.start();
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Submit_after, an_rvalue_is_moved_and_an_lvalue_copied) {
    task_pool pool({.threads = 1});
    auto owner = [owned = std::make_unique<int>(7)] { EXPECT_EQ(*owned, 7); };
    ASSERT_TRUE(pool.submit_after(1ms, "key", std::move(owner)));
    const auto shared = std::make_shared<int>(8);
    auto sharer = [shared] { EXPECT_EQ(*shared, 8); };
    ASSERT_TRUE(pool.submit_after(1h, "key", sharer));
    EXPECT_EQ(shared.use_count(), 3);
    const auto constant = sharer;
    ASSERT_TRUE(pool.submit_after(1h, "key", constant));
    EXPECT_EQ(shared.use_count(), 5);
    pool.stop();
    EXPECT_EQ(shared.use_count(), 3);
}

TEST(Submit_after, a_refused_job_is_unmoved) {
    task_pool pool({.threads = 1, .timer_capacity = 2});
    const auto job = [owned = std::make_shared<int>(1)] { (void)owned; };
    const auto refused = [&](submit_status why) {
        auto mine = [owned = std::make_unique<int>(1)] { EXPECT_TRUE(owned); };
        const timer answer = pool.submit_after(1h, "key", std::move(mine));
        EXPECT_FALSE(answer);
        EXPECT_EQ(answer.status(), why);
        mine(); // NOLINT(bugprone-use-after-move): that it was not moved is what is tested
        auto every = [owned = std::make_unique<int>(1)] { EXPECT_TRUE(owned); };
        EXPECT_EQ(pool.submit_every(1h, "key", std::move(every)).status(), why);
        every(); // NOLINT(bugprone-use-after-move)
    };
    ASSERT_TRUE(pool.submit_after(1h, "key", job));
    timer second = pool.submit_every(1h, "key", job);
    ASSERT_TRUE(second);
    EXPECT_EQ(second.status(), submit_status::accepted);
    refused(submit_status::full);
    EXPECT_EQ(pool.stats().timers, 2U);
    EXPECT_EQ(pool.stats().rejected, 2U);
    EXPECT_TRUE(second.cancel());
    ASSERT_TRUE(pool.submit_after(1h, "key", job)); // there is room again
    refused(submit_status::full);
    pool.close();
    refused(submit_status::stopped);
    pool.stop();
    refused(submit_status::stopped);
    expect_all_accounted_for(pool);
}

TEST(Submit_after, a_capacity_of_none_refuses_all) {
    task_pool pool({.threads = 1, .timer_capacity = 0});
    EXPECT_EQ(pool.submit_after(0s, "key", [] {}).status(), submit_status::full);
    EXPECT_EQ(pool.submit_every(1s, "key", [] {}).status(), submit_status::full);
    EXPECT_EQ(pool.submit("key", [] {}), submit_status::accepted);
}

TEST(Submit_after, the_capacity_is_exact_with_many_submitters) {
    constexpr std::size_t capacity = 1'000;
    std::atomic<std::size_t> accepted = 0;
    task_pool pool({.threads = 1, .timer_capacity = capacity});
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread)
        threads.emplace_back([&, thread] {
            for (int i = 0; i < 1'000; ++i)
                accepted += pool.submit_after(1h, std::to_string(thread * 1'000 + i), [] {}) ? 1 : 0;
        });
    for (auto& thread : threads)
        thread.join();
    EXPECT_LE(accepted, capacity);
    EXPECT_EQ(accepted, pool.stats().timers);
    while (pool.submit_after(1h, "the rest", [] {}))
        ++accepted;
    EXPECT_EQ(accepted, capacity);
}

/// Its move throws as often as it is told to.
struct throws_when_moved {
    static inline std::atomic<int> throws = 0;
    counted alive;
    explicit throws_when_moved(std::atomic<int>& count) : alive(count) {}
    throws_when_moved(throws_when_moved&& other) : alive(other.alive) { // NOLINT: that is the point
        if (throws > 0 && throws-- > 0)
            throw std::runtime_error("move");
    }
    void operator()() const {}
};

TEST(Submit_after, a_move_that_throws_leaves_the_pool_as_it_was) {
    const auto clock = new_clock();
    std::atomic<int> alive = 0;
    const auto keys = counted_key::alive.load();
    {
        counted_pool pool({.threads = 1, .timer_capacity = 1, .clock = clock});
        throws_when_moved job(alive);
        for (int i = 0; i < 3; ++i) {
            throws_when_moved::throws = 1;
            EXPECT_THROW(pool.submit_after(1s, counted_key(1), std::move(job)), std::runtime_error);
            throws_when_moved::throws = 1;
            EXPECT_THROW(pool.submit_every(1s, counted_key(1), std::move(job)), std::runtime_error);
        }
        EXPECT_EQ(pool.stats().accepted, 0U);
        EXPECT_EQ(pool.stats().timers, 0U);
        EXPECT_EQ(alive, 1);
        EXPECT_EQ(counted_key::alive, keys);
        ASSERT_TRUE(pool.submit_after(1s, counted_key(1), std::move(job))); // its capacity of 1 is not used up
        clock->advance(1s);
        pool.drain();
        EXPECT_EQ(pool.stats().finished, 1U);
    }
    EXPECT_EQ(alive, 0);
    EXPECT_EQ(counted_key::alive, keys);
}

/// Copying it throws as often as it is told to.
struct throws_when_copied {
    int value = 0;
    static inline std::atomic<int> throws = 0;
    explicit throws_when_copied(int v) : value(v) {}
    throws_when_copied(const throws_when_copied& other) : value(other.value) {
        if (throws > 0 && throws-- > 0)
            throw std::bad_alloc();
    }
    throws_when_copied& operator=(const throws_when_copied&) = default;
    friend bool operator==(const throws_when_copied& a, const throws_when_copied& b) noexcept {
        return a.value == b.value;
    }
    struct hash {
        std::size_t operator()(const throws_when_copied& key) const noexcept {
            return static_cast<std::size_t>(key.value);
        }
    };
};

TEST(Submit_after, a_key_that_cannot_be_copied_leaves_the_pool_as_it_was) {
    basic_task_pool<throws_when_copied, throws_when_copied::hash> pool({.threads = 1});
    auto job = [owned = std::make_unique<int>(1)] { EXPECT_TRUE(owned); };
    const throws_when_copied key(1);
    throws_when_copied::throws = 1;
    EXPECT_THROW(pool.submit_after(1ms, key, std::move(job)), std::bad_alloc);
    EXPECT_EQ(pool.stats().timers, 0U);
    ASSERT_TRUE(pool.submit_after(1ms, key, std::move(job)));
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 1U);
}

TEST(Submit_after, without_memory_for_its_lane_it_is_tried_again_each_tick) {
    const auto clock = new_clock();
    basic_task_pool<throws_when_copied, throws_when_copied::hash> pool({.threads = 1, .clock = clock});
    std::vector<int> ran;
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(
            pool.submit_after(std::chrono::seconds(1 + i), throws_when_copied(1), [&ran, i] { ran.push_back(i); }));
    throws_when_copied::throws = 50;
    clock->advance(1h); // which never comes again
    pool.drain();
    EXPECT_EQ(throws_when_copied::throws, 0);
    EXPECT_EQ(ran, count_up(3));
}

// --- submit_after: keys ----------------------------------------------------------------------------------------------

struct no_key {
    friend bool operator==(no_key, no_key) noexcept { return true; }
    struct hash {
        std::size_t operator()(no_key) const noexcept { return 0; }
    };
};

template <std::size_t Size, std::size_t Alignment>
struct alignas(Alignment) shaped_key {
    std::array<unsigned char, Size> bytes{};
    explicit shaped_key(unsigned char value) { bytes.fill(value); }
    friend bool operator==(const shaped_key& a, const shaped_key& b) noexcept { return a.bytes == b.bytes; }
    struct hash {
        std::size_t operator()(const shaped_key& key) const noexcept { return key.bytes[0]; }
    };
};

template <class Key>
void use_shaped_keys() {
    const auto clock = new_clock();
    std::atomic<int> wrong = 0;
    std::atomic<int> ran = 0;
    basic_task_pool<Key, typename Key::hash> pool({.threads = 2, .clock = clock});
    for (int i = 0; i < 100; ++i) {
        const auto value = static_cast<unsigned char>(i);
        const auto check = [&, value](const basic_job_context<Key>& context) {
            wrong += reinterpret_cast<std::uintptr_t>(&context.key()) % alignof(Key) != 0;
            wrong += !(context.key() == Key(value));
            ++ran;
        };
        ASSERT_TRUE(pool.submit_after(1s, Key(value), check));
        ASSERT_TRUE(pool.submit_every(1s, Key(value), check));
    }
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return ran == 200; }));
    EXPECT_EQ(wrong, 0);
}

TEST(Submit_after, keys_of_any_size_and_alignment) {
    std::atomic<int> ran = 0;
    basic_task_pool<no_key, no_key::hash> pool({.threads = 1});
    ASSERT_TRUE(pool.submit_after(1ms, no_key(), [&] { ++ran; }));
    pool.drain(no_key());
    EXPECT_EQ(ran, 1);
    ASSERT_TRUE(pool.submit_after(1h, no_key(), [] {}));
    EXPECT_EQ(pool.cancel(no_key()), 1U);

    use_shaped_keys<shaped_key<1, 1>>();
    use_shaped_keys<shaped_key<5, 1>>();
    use_shaped_keys<shaped_key<3, 16>>();
    use_shaped_keys<shaped_key<64, 64>>();
    use_shaped_keys<shaped_key<100, 128>>();
    use_shaped_keys<shaped_key<3'000, 256>>();
}

TEST(Submit_after, an_empty_string_and_a_long_one_are_keys) {
    journal<std::string> ran;
    task_pool pool({.threads = 2});
    const std::string long_key(100'000, 'k');
    for (const auto& key : {std::string(), long_key})
        ASSERT_TRUE(pool.submit_after(1ms, key, [&](const job_context& context) { ran.add(context.key()); }));
    pool.drain();
    EXPECT_EQ(sorted(ran.entries()), (std::vector<std::string>{"", long_key}));
}

TEST(Submit_after, keys_of_one_hash_are_told_apart) {
    struct one_hash {
        std::size_t operator()(int) const noexcept { return 1; }
    };
    const auto clock = new_clock();
    std::atomic<int> ran = 0;
    basic_task_pool<int, one_hash> pool({.threads = 2, .clock = clock});
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(pool.submit_after(1s, i, [&ran, i] { ran += i; }));
    EXPECT_EQ(pool.cancel(7), 1U);
    EXPECT_EQ(pool.cancel(7), 0U);
    EXPECT_EQ(pool.cancel(100), 0U);
    pool.drain(7);
    clock->advance(1s);
    pool.drain(50);
    pool.drain();
    EXPECT_EQ(ran, 4'950 - 7);
}

// --- submit_after: drain, close, cancel, stop ------------------------------------------------------------------------

// I-TIMED-1
TEST(Submit_after, drain_waits_for_it) {
    const auto clock = new_clock();
    std::atomic<bool> ran = false;
    std::atomic<bool> drained = false;
    task_pool pool({.threads = 1, .clock = clock});
    ASSERT_TRUE(pool.submit_after(1s, "key", [&] { ran = true; }));
    std::thread drainer([&] {
        pool.drain();
        EXPECT_TRUE(ran);
        drained = true;
    });
    EXPECT_TRUE(for_a_while([&] { return !drained; }));
    clock->advance(1s);
    drainer.join();
}

TEST(Submit_after, drain_for_names_keys_whose_jobs_wait_for_their_time) {
    gate leave;
    task_pool pool({.threads = 1});
    const opener opens(leave);
    occupy(pool, "busy", leave);
    ASSERT_TRUE(pool.submit_after(1h, "busy", [] {}));
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit_after(1h, "later", [] {}));
    ASSERT_TRUE(pool.submit_every(1h, "again", [] {}));
    const auto report = pool.drain_for(1ms);
    EXPECT_FALSE(report);
    EXPECT_EQ(sorted(report.keys), (std::vector<std::string>{"busy", "later"}));
    leave.open();
    EXPECT_EQ(pool.cancel("later"), 3U);
    EXPECT_EQ(pool.cancel("busy"), 1U);
    EXPECT_TRUE(pool.drain_for(20s * slowness));
}

TEST(Submit_after, drain_of_a_key_waits_for_its_own) {
    const auto clock = new_clock();
    std::atomic<bool> ran = false;
    std::atomic<bool> drained = false;
    task_pool pool({.threads = 2, .clock = clock});
    ASSERT_TRUE(pool.submit_after(1s, "key", [&] { ran = true; }));
    ASSERT_TRUE(pool.submit_after(1h, "other", [] {}));
    pool.drain("third");
    std::thread drainer([&] {
        pool.drain("key");
        EXPECT_TRUE(ran);
        drained = true;
    });
    EXPECT_TRUE(for_a_while([&] { return !drained; }));
    clock->advance(1s);
    drainer.join();
    EXPECT_EQ(pool.stats().timers, 1U);
}

TEST(Submit_after, drain_inside_a_job_of_another_key_waits_and_of_the_own_key_is_refused) {
    const auto clock = new_clock();
    gate asked;
    std::atomic<bool> refused = false;
    std::atomic<bool> waited = false;
    task_pool pool({.threads = 2, .clock = clock});
    ASSERT_TRUE(pool.submit_after(1s, "later", [] {}));
    ASSERT_TRUE(pool.submit("key", [&] {
        EXPECT_TRUE(pool.submit_after(1s, "key", [] {}));
        try {
            pool.drain("key");
        } catch (const deadlock_error&) {
            refused = true;
        }
        asked.open();
        pool.drain("later");
        waited = true;
    }));
    asked.wait();
    EXPECT_TRUE(refused);
    EXPECT_TRUE(for_a_while([&] { return !waited; }));
    clock->advance(1s);
    pool.drain();
    EXPECT_TRUE(waited);
}

TEST(Submit_after, close_leaves_it_be) {
    const auto clock = new_clock();
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 1, .clock = clock});
    ASSERT_TRUE(pool.submit_after(1s, "key", [&] { ran = true; }));
    pool.close();
    EXPECT_EQ(pool.submit_after(1s, "key", [] {}).status(), submit_status::stopped);
    clock->advance(1s);
    pool.drain();
    EXPECT_TRUE(ran);
    EXPECT_EQ(pool.stats().finished, 1U);
}

TEST(Submit_after, cancel_of_a_key_discards_and_reports_its_own_and_counts_them) {
    std::vector<std::string> reported; // by this thread alone
    std::atomic<int> alive = 0;
    gate leave;
    task_pool pool({.threads = 1, .on_discard = [&](const discard& d) {
                        EXPECT_EQ(d.reason, discard_reason::cancelled);
                        if (reported.size() < 6) {
                            EXPECT_EQ(static_cast<std::size_t>(alive) + reported.size(), 6U); // before it is destroyed
                        }
                        reported.emplace_back(d.key);
                    }});
    const opener opens(leave);
    occupy(pool, "key", leave);
    for (int i = 0; i < 5; ++i)
        ASSERT_TRUE(pool.submit_after(1h, "key", [c = counted(alive)] {}));
    ASSERT_TRUE(pool.submit("key", [c = counted(alive)] {}));
    ASSERT_TRUE(pool.submit_after(1h, "other", [] {}));
    EXPECT_EQ(pool.cancel("key"), 6U);
    EXPECT_EQ(alive, 0);
    EXPECT_EQ(reported, std::vector<std::string>(6, "key"));
    EXPECT_EQ(pool.stats().discarded, 6U);
    EXPECT_EQ(pool.stats().timers, 1U);
    EXPECT_EQ(pool.cancel("key"), 0U);
    ASSERT_TRUE(pool.submit_after(1h, "key", [] {})); // welcome at once
    EXPECT_EQ(pool.cancel("key"), 1U);
    EXPECT_EQ(pool.cancel("other"), 1U);
}

TEST(Submit_after, stop_discards_reports_and_counts_it) {
    std::atomic<int> reported = 0;
    std::atomic<int> alive = 0;
    for (const bool started : {true, false}) {
        task_pool pool({.threads = 1, .autostart = started, .on_discard = [&](const discard& d) {
                            EXPECT_EQ(d.reason, discard_reason::stopped);
                            ++reported;
                        }});
        std::vector<timer> kept;
        for (int i = 0; i < 1'000; ++i)
            kept.push_back(pool.submit_after(1h, std::to_string(i), [c = counted(alive)] {}));
        EXPECT_EQ(alive, 1'000);
        const auto report = pool.stop();
        EXPECT_EQ(alive, 0); // though there are handles
        EXPECT_EQ(report.discarded_by_stop, 1'000U);
        EXPECT_EQ(reported.exchange(0), 1'000);
        expect_all_accounted_for(pool);
    }
}

// I-TIMED-3
TEST(Submit_after, a_job_that_must_not_be_lost_runs_at_stop_in_the_order_of_the_times) {
    for (const bool started : {true, false}) {
        const auto clock = new_clock();
        std::vector<int> ran; // one key
        std::atomic<int> others = 0;
        task_pool pool({.threads = 2, .lane_capacity = 3, .autostart = started, .clock = clock});
        for (const int delay : {3, 1, 2, 9, 7, 8, 5, 6, 4}) { // three times as many as find room
            ASSERT_TRUE(pool.submit_after(std::chrono::hours(delay), "key",
                                          [&ran, delay](const job_context& context) {
                                              EXPECT_TRUE(context.stop_requested());
                                              ran.push_back(delay);
                                          },
                                          {.on_stop = stop_action::run}));
            ASSERT_TRUE(pool.submit_after(std::chrono::hours(delay), "key", [&] { ++others; }));
        }
        const auto report = pool.stop();
        EXPECT_EQ(ran, (std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
        EXPECT_EQ(others, 0);
        EXPECT_EQ(report.finished, 9U);
        EXPECT_EQ(report.discarded_by_stop, 9U);
        expect_all_accounted_for(pool);
    }
}

TEST(Submit_after, a_pool_ends_with_many_pending) {
    std::atomic<int> alive = 0;
    {
        task_pool pool({.threads = 2});
        for (int i = 0; i < 20'000; ++i)
            ASSERT_TRUE(pool.submit_after(std::chrono::milliseconds(i % 100), std::to_string(i % 100),
                                          [c = counted(alive)] {}));
    }
    EXPECT_EQ(alive, 0);
}

TEST(Submit_after, a_pool_may_be_destroyed_by_its_own_job_with_many_pending) {
    std::atomic<int> alive = 0;
    std::atomic<int> must_run = 0;
    gate submitted, destroyed;
    auto pool = std::make_unique<task_pool>(options{.threads = 2});
    for (int i = 0; i < 1'000; ++i) {
        ASSERT_TRUE(pool->submit_after(1h, std::to_string(i), [c = counted(alive)] {}));
        ASSERT_TRUE(pool->submit_after(1h, std::to_string(i), [&, c = counted(alive)] { ++must_run; },
                                       {.on_stop = stop_action::run}));
    }
    ASSERT_TRUE(pool->submit_after(1ms, "last", [&] {
        submitted.wait(); // a pool must not be destroyed while somebody submits
        pool.reset();
        destroyed.open();
    }));
    submitted.open();
    destroyed.wait();
    EXPECT_TRUE(eventually([&] { return alive == 0; }));
    EXPECT_EQ(must_run, 1'000);
}

TEST(Submit_after, the_end_of_a_callable_may_call_the_pool) {
    const auto clock = new_clock();
    std::atomic<int> ends = 0;
    std::atomic<int> refused = 0;
    task_pool pool({.threads = 1, .clock = clock});
    const auto use = [&] {
        refused += pool.submit("key", [] {}) ? 0 : 1;
        refused += pool.submit_after(1h, "key", [] {}) ? 0 : 1;
        EXPECT_EQ(pool.cancel("none"), 0U);
        ++ends; // last: the main thread goes on at it, while a worker may be the one that is here
    };
    timer handle = pool.submit_after(1h, "first", at_end(use));
    EXPECT_TRUE(handle.cancel());
    EXPECT_EQ(ends, 1);
    ASSERT_TRUE(pool.submit_after(1h, "second", at_end(use)));
    EXPECT_EQ(pool.cancel("second"), 1U);
    EXPECT_EQ(ends, 2);
    ASSERT_TRUE(pool.submit_after(1s, "third", at_end(use)));
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return ends == 3; }));
    timer every = pool.submit_every(1s, "fourth", at_end(use));
    EXPECT_TRUE(every.cancel());
    EXPECT_EQ(ends, 4);
    EXPECT_EQ(refused, 0);
    ASSERT_TRUE(pool.submit_after(1h, "fifth", at_end(use)));
    pool.stop();
    EXPECT_EQ(ends, 5);
    EXPECT_EQ(refused, 2);
    expect_all_accounted_for(pool);
}

TEST(Submit_after, the_end_of_a_callable_may_throw) {
    std::atomic<int> failures = 0;
    task_pool pool({.threads = 1, .on_failure = [&](const failure& f) {
                        EXPECT_EQ(f.key, "key");
                        ++failures;
                    }});
    ASSERT_TRUE(pool.submit_after(1h, "key", throws_at_its_end()));
    EXPECT_EQ(pool.cancel("key"), 1U);
    EXPECT_EQ(failures, 1);
    timer every = pool.submit_every(1h, "key", throws_at_its_end());
    EXPECT_TRUE(every.cancel());
    EXPECT_EQ(failures, 2);
}

TEST(Submit_after, what_is_discarded_at_its_time_may_hold_the_last_reference_to_the_pool) {
    const auto clock = new_clock();
    gate leave;
    gate ended;
    auto pool = std::make_shared<task_pool>(
        options{.threads = 1, .lane_capacity = 1, .when_full = overflow::reject, .clock = clock});
    occupy(*pool, "key", leave);
    ASSERT_TRUE(pool->submit("key", [] {}));
    ASSERT_TRUE(pool->submit_after(1s, "key", at_end([&ended, held = pool]() mutable {
                                       held.reset();
                                       ended.open();
                                   })));
    pool.reset();
    clock->advance(1s);
    EXPECT_TRUE(ended.wait_for(20s * slowness));
    leave.open();
    // Its threads use the gate and the clock until they have ended.
    EXPECT_TRUE(eventually([&] { return clock.use_count() == 1; }));
}

TEST(Submit_after, a_discarded_job_on_the_pool_s_own_thread_is_refused_a_wait_for_that) {
    const auto clock = new_clock();
    gate leave;
    std::atomic<int> refused = 0;
    task_pool pool({.threads = 1, .lane_capacity = 1, .when_full = overflow::reject, .clock = clock});
    const opener opens(leave);
    occupy(pool, "key", leave);
    ASSERT_TRUE(pool.submit("key", [] {}));
    ASSERT_TRUE(pool.submit_after(1s, "key", at_end([&] {
                                      EXPECT_THROW(pool.stop(), deadlock_error);
                                      EXPECT_THROW(pool.drain(), deadlock_error);
                                      ++refused;
                                  })));
    clock->advance(1s);
    EXPECT_TRUE(eventually([&] { return refused == 1; }));
}

// --- submit_after: no room -------------------------------------------------------------------------------------------

// I-TIMED-3
TEST(Submit_after, block_a_full_lane_gets_it_as_soon_as_there_is_room_and_nobody_waits) {
    const auto clock = new_clock();
    gate leave;
    task_pool pool({.threads = 1, .lane_capacity = 2, .clock = clock});
    const opener opens(leave);
    std::vector<int> ran;
    occupy(pool, "key", leave);
    for (int i = 0; i < 2; ++i)
        ASSERT_TRUE(pool.submit("key", [&ran, i] { ran.push_back(i); }));
    for (int i = 2; i < 20; ++i)
        ASSERT_TRUE(pool.submit_after(std::chrono::milliseconds(i), "key", [&ran, i] { ran.push_back(i); }));
    clock->advance(1h);
    EXPECT_TRUE(for_a_while([&] { return pool.stats().timers == 18; })); // they still wait, and not in the lane
    EXPECT_EQ(pool.stats().waiting, 2U);
    ASSERT_TRUE(pool.submit_after(0s, "other", [&] {})); // which waits for no room of that key
    leave.open();
    pool.drain();
    EXPECT_EQ(ran, count_up(20)); // in the order of their times
    EXPECT_EQ(pool.stats().timers, 0U);
    EXPECT_EQ(pool.stats().finished, 22U);
    EXPECT_EQ(pool.stats().rejected, 0U);
}

TEST(Submit_after, block_a_key_without_room_holds_up_no_other) {
    const auto clock = new_clock();
    gate leave;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 4, .max_threads = 64, .lane_capacity = 1, .clock = clock});
    const opener opens(leave);
    occupy(pool, "full", leave);
    ASSERT_TRUE(pool.submit("full", [] {}));
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(pool.submit_after(1s, "full", [] {}));
    for (int i = 0; i < 1'000; ++i)
        ASSERT_TRUE(pool.submit_after(1s, std::to_string(i), [&] { ++ran; }));
    clock->advance(1s);
    EXPECT_TRUE(eventually([&] { return ran == 1'000 && pool.stats().timers == 100; }));
}

// I-TIMED-2
TEST(Submit_after, block_one_that_waits_for_room_can_be_taken_back_and_stopped) {
    const auto clock = new_clock();
    journal<discard_reason> reported;
    std::atomic<int> ran = 0;
    gate leave;
    task_pool pool({.threads = 1, .lane_capacity = 1, .clock = clock, .on_discard = [&](const discard& d) {
                        reported.add(d.reason);
                    }});
    const opener opens(leave);
    occupy(pool, "key", leave);
    ASSERT_TRUE(pool.submit("key", [] {}));
    timer first = pool.submit_after(1s, "key", [&] { ++ran; });
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit_after(1s, "key", [&] { ++ran; }));
    timer last = pool.submit_after(1s, "key", [&] { ++ran; });
    clock->advance(1s);
    EXPECT_TRUE(for_a_while([&] { return pool.stats().timers == 5; }));
    EXPECT_TRUE(last.cancel());
    EXPECT_FALSE(last.cancel());
    EXPECT_TRUE(eventually([&] { return reported.size() == 1; }));
    EXPECT_EQ(pool.cancel("key"), 5U); // the one in the lane, and four that wait for their turn there
    EXPECT_FALSE(first.cancel());
    EXPECT_TRUE(eventually([&] { return reported.size() == 6; }));
    EXPECT_EQ(reported.entries(), std::vector<discard_reason>(6, discard_reason::cancelled));

    ASSERT_TRUE(pool.submit("key", [] {}));
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit_after(0s, "key", [&] { ++ran; }));
    EXPECT_TRUE(for_a_while([&] { return pool.stats().timers == 3; }));
    std::thread stopper([&] { EXPECT_EQ(pool.stop().discarded_by_stop, 4U); });
    EXPECT_TRUE(eventually([&] { return reported.size() == 10; }));
    leave.open();
    stopper.join();
    EXPECT_EQ(ran, 0);
    expect_all_accounted_for(pool);
}

TEST(Submit_after, block_a_full_pool_gets_it_when_there_is_room) {
    const auto clock = new_clock();
    gate leave;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 1, .pool_capacity = 2, .clock = clock});
    const opener opens(leave);
    occupy(pool, "key", leave);
    for (int i = 0; i < 2; ++i)
        ASSERT_TRUE(pool.try_submit("key", [&] { ++ran; }));
    ASSERT_EQ(pool.try_submit("key", [] {}), submit_status::full);
    for (int i = 0; i < 50; ++i)
        ASSERT_TRUE(pool.submit_after(1s, std::to_string(i), [&] { ++ran; }));
    clock->advance(1s);
    EXPECT_TRUE(for_a_while([&] { return pool.stats().timers == 50; }));
    leave.open();
    pool.drain();
    EXPECT_EQ(ran, 52);
    EXPECT_EQ(pool.stats().finished, 53U);
}

TEST(Submit_after, reject_without_room_it_is_discarded_and_reported) {
    const auto clock = new_clock();
    journal<std::pair<std::string, discard_reason>> reported;
    for (const bool in_pool : {false, true}) {
        gate leave;
        std::atomic<int> alive = 0;
        task_pool pool({.threads = 1,
                        .lane_capacity = in_pool ? 100U : 1U,
                        .pool_capacity = in_pool ? 1U : 100U,
                        .when_full = overflow::reject,
                        .clock = clock,
                        .on_discard = [&](const discard& d) {
                            reported.add({std::string(d.key), d.reason});
                        }});
        const opener opens(leave);
        occupy(pool, "key", leave);
        ASSERT_TRUE(pool.submit("key", [] {}));
        timer handle = pool.submit_after(1s, "key", [c = counted(alive)] {});
        clock->advance(1s);
        pool.drain_for(0s);
        EXPECT_TRUE(eventually([&] { return alive == 0; }));
        EXPECT_FALSE(handle.cancel());
        EXPECT_EQ(pool.stats().discarded, 1U);
        EXPECT_EQ(pool.stats().rejected, 0U); // it had been accepted
        leave.open();
        pool.drain();
        EXPECT_EQ(pool.stats().finished, 2U);
    }
    EXPECT_EQ(reported.entries(),
              (std::vector<std::pair<std::string, discard_reason>>(2, {"key", discard_reason::no_room})));
}

TEST(Submit_after, drop_oldest_and_keep_latest_do_at_its_time_what_they_do_at_a_submit) {
    for (const auto rule : {overflow::drop_oldest, overflow::keep_latest}) {
        const auto clock = new_clock();
        journal<discard_reason> reported;
        std::vector<int> ran;
        gate leave;
        task_pool pool(
            {.threads = 1, .lane_capacity = 2, .when_full = rule, .clock = clock, .on_discard = [&](const discard& d) {
                 reported.add(d.reason);
             }});
        const opener opens(leave);
        occupy(pool, "key", leave);
        for (int i = 0; i < 5; ++i)
            ASSERT_TRUE(pool.submit_after(std::chrono::seconds(i + 1), "key", [&ran, i] { ran.push_back(i); }));
        clock->advance(1h);
        ASSERT_TRUE(eventually([&] { return pool.stats().timers == 0; }));
        leave.open();
        pool.drain();
        if (rule == overflow::drop_oldest) {
            EXPECT_EQ(ran, (std::vector<int>{3, 4}));
            EXPECT_EQ(reported.entries(), std::vector<discard_reason>(3, discard_reason::dropped_oldest));
        } else {
            EXPECT_EQ(ran, (std::vector<int>{4}));
            EXPECT_EQ(reported.entries(), std::vector<discard_reason>(4, discard_reason::replaced));
        }
        pool.stop();
        expect_all_accounted_for(pool);
    }
}

// --- submit_at -------------------------------------------------------------------------------------------------------

TEST(Submit_at, is_the_same_at_a_time_of_the_pool_s_clock) {
    const auto clock = new_clock();
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 1, .clock = clock});
    EXPECT_EQ(pool.now(), clock->now());
    ASSERT_TRUE(pool.submit_at(pool.now() + 1s, "key", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_at(std::chrono::time_point<steady, std::chrono::hours>(2h), "key", [&] { ++ran; }));
    EXPECT_TRUE(for_a_while([&] { return ran == 0; }));
    clock->advance(1s);
    EXPECT_TRUE(eventually([&] { return ran == 1; }));
    clock->advance_to(manual_clock::time_point(2h) - 1ns);
    EXPECT_TRUE(for_a_while([&] { return ran == 1; }));
    clock->advance(1ns);
    EXPECT_TRUE(eventually([&] { return ran == 2; }));
}

TEST(Submit_at, a_time_that_is_over_is_due_at_once) {
    const auto clock = new_clock();
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 1, .clock = clock});
    ASSERT_TRUE(pool.submit_at(pool.now(), "key", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_at(steady::time_point(), "key", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_at(steady::time_point::min(), "key", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit_at(std::chrono::time_point<steady, std::chrono::hours>::min(), "key", [&] { ++ran; }));
    pool.drain();
    EXPECT_EQ(ran, 4);
}

TEST(Submit_at, is_not_early_by_what_a_finer_time_is_rounded) {
    const auto clock = new_clock();
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 1, .clock = clock});
    using picoseconds = std::chrono::duration<std::int64_t, std::pico>;
    ASSERT_TRUE(pool.submit_at(std::chrono::time_point<steady, picoseconds>(picoseconds(1h) + picoseconds(1)), "key",
                               [&] { ran = true; }));
    EXPECT_TRUE(for_a_while([&] { return !ran; }));
    clock->advance(1ms);
    EXPECT_TRUE(eventually([&] { return ran.load(); }));
}

TEST(Submit_at, by_the_steady_clock_where_there_is_no_other) {
    std::atomic<bool> early = true;
    task_pool pool({.threads = 1});
    const auto before = steady::now();
    const auto now = pool.now();
    EXPECT_LE(before, now);
    EXPECT_LE(now, steady::now());
    ASSERT_TRUE(pool.submit_at(now + 20ms, "key", [&] { early = steady::now() < now + 20ms; }));
    pool.drain();
    EXPECT_FALSE(early);
}

// --- submit_every ----------------------------------------------------------------------------------------------------

TEST(Submit_every, the_first_time_after_a_period_and_then_every_period) {
    const auto clock = new_clock();
    std::atomic<int> beats = 0;
    task_pool pool({.threads = 1, .clock = clock});
    const timer handle = pool.submit_every(1s, "key", [&] { ++beats; });
    ASSERT_TRUE(handle);
    for (int i = 1; i <= 20; ++i) {
        clock->advance(999ms);
        EXPECT_TRUE(for_a_while([&] { return beats == i - 1; }, 2ms));
        clock->advance(1ms);
        ASSERT_TRUE(eventually([&] { return beats == i && pool.active_keys() == 0; }));
    }
    EXPECT_EQ(handle.missed(), 0U);
}

TEST(Submit_every, does_not_drift_over_thousands_of_beats) {
    // The period is no whole number of ticks, and the clock moves by what has nothing to do with it.
    const auto clock = new_clock();
    std::atomic<int> beats = 0;
    std::atomic<steady::rep> worst = 0;
    task_pool pool({.threads = 1, .clock = clock});
    constexpr auto period = 1'000'700us;
    constexpr int rounds = sanitized ? 2'000 : 10'000;
    const auto begin = clock->now();
    const timer handle = pool.submit_every(period, "key", [&] {
        const auto late = (clock->now() - (begin + ++beats * period)).count();
        if (late < 0 || late > worst)
            worst = late < 0 ? std::numeric_limits<steady::rep>::max() : late;
    });
    allow_time(100s * slowness);
    for (int i = 1; i <= rounds; ++i) {
        clock->advance_to(begin + i * period + 1ms + (i % 7) * 100ms);
        ASSERT_TRUE(eventually([&] { return beats == i && pool.active_keys() == 0; })) << i;
    }
    EXPECT_LE(steady::duration(worst), 601ms + 1ms);
    EXPECT_EQ(handle.missed(), 0U);
}

TEST(Submit_every, beats_whose_time_was_missed_are_passed_over_and_counted) {
    const auto clock = new_clock();
    std::atomic<int> beats = 0;
    task_pool pool({.threads = 1, .clock = clock});
    const timer handle = pool.submit_every(10ms, "key", [&] { ++beats; });
    clock->advance(105ms); // ten are due
    ASSERT_TRUE(eventually([&] { return beats == 1 && handle.missed() == 9; }));
    clock->advance(4ms);
    EXPECT_TRUE(for_a_while([&] { return beats == 1; }));
    clock->advance(1ms); // on the grid of the first
    EXPECT_TRUE(eventually([&] { return beats == 2; }));
    EXPECT_EQ(handle.missed(), 9U);
}

TEST(Submit_every, a_beat_never_overlaps_itself) {
    const auto clock = new_clock();
    gate leave;
    std::atomic<int> inside = 0;
    std::atomic<int> beats = 0;
    std::atomic<int> overlaps = 0;
    task_pool pool({.threads = 4, .clock = clock});
    const opener opens(leave);
    const timer handle = pool.submit_every(10ms, "key", [&] {
        overlaps += inside++ != 0;
        if (++beats == 1)
            leave.wait();
        --inside;
    });
    for (int i = 0; i < 10; ++i) {
        clock->advance(10ms);
        ASSERT_TRUE(eventually([&] { return beats == 1 && handle.missed() == static_cast<std::uint64_t>(i); }));
    }
    leave.open();
    ASSERT_TRUE(eventually([&] { return inside == 0; }));
    EXPECT_TRUE(for_a_while([&] { return beats == 1; })); // what was passed over is not made up for
    EXPECT_TRUE(eventually([&] { return pool.active_keys() == 0; }));
    clock->advance(10ms);
    EXPECT_TRUE(eventually([&] { return beats == 2; }));
    EXPECT_EQ(overlaps, 0);
    EXPECT_EQ(handle.missed(), 9U);
}

TEST(Submit_every, a_full_lane_passes_a_beat_over) {
    for (const auto rule : {overflow::block, overflow::reject}) {
        const auto clock = new_clock();
        std::atomic<int> discarded = 0;
        gate leave;
        std::atomic<int> beats = 0;
        task_pool pool(
            {.threads = 1, .lane_capacity = 1, .when_full = rule, .clock = clock, .on_discard = [&](const discard&) {
                 ++discarded;
             }});
        const opener opens(leave);
        occupy(pool, "key", leave);
        ASSERT_TRUE(pool.submit("key", [] {}));
        const timer handle = pool.submit_every(1s, "key", [&] { ++beats; });
        clock->advance(1s);
        ASSERT_TRUE(eventually([&] { return handle.missed() == 1; }));
        clock->advance(1s);
        ASSERT_TRUE(eventually([&] { return handle.missed() == 2; }));
        leave.open();
        pool.drain();
        EXPECT_EQ(beats, 0);
        clock->advance(1s);
        EXPECT_TRUE(eventually([&] { return beats == 1; }));
        EXPECT_EQ(handle.missed(), 2U);
        EXPECT_EQ(discarded, 0);
    }
}

TEST(Submit_every, goes_on_whatever_a_beat_throws) {
    const auto clock = new_clock();
    std::atomic<int> failures = 0;
    std::atomic<int> beats = 0;
    task_pool pool({.threads = 1, .clock = clock, .on_failure = [&](const failure& f) {
                        EXPECT_EQ(f.key, "key");
                        ++failures;
                    }});
    ASSERT_TRUE(pool.submit_every(1s, "key", [&] {
        if (++beats % 2 == 1)
            throw std::runtime_error("odd");
        throw 2; // NOLINT: that is the point
    }));
    for (int i = 1; i <= 6; ++i) {
        clock->advance(1s);
        ASSERT_TRUE(eventually([&] { return failures == i && pool.active_keys() == 0; }));
    }
    EXPECT_EQ(beats, 6);
    EXPECT_EQ(pool.stats().failed, 6U);
    EXPECT_EQ(pool.stats().finished, 6U);
}

TEST(Submit_every, keeps_one_callable_with_its_state) {
    const auto clock = new_clock();
    std::atomic<int> alive = 0;
    std::atomic<int> seen = 0;
    task_pool pool({.threads = 2, .clock = clock});
    timer handle = pool.submit_every(1s, "key",
                                     [&seen, c = counted(alive), owned = std::make_unique<int>(0),
                                      big = std::array<char, 100>()]() mutable { seen = ++*owned + big[7]; });
    for (int i = 1; i <= 5; ++i) {
        clock->advance(1s);
        ASSERT_TRUE(eventually([&] { return seen == i && pool.active_keys() == 0; }));
    }
    ASSERT_TRUE(pool.submit_after(0s, "after it", [] {}));
    pool.drain(); // the keeper is done with the beat: it does one after the other
    EXPECT_EQ(alive, 1);
    EXPECT_TRUE(handle.cancel());
    EXPECT_EQ(alive, 0); // though the handle is there
    EXPECT_EQ(handle.missed(), 0U);
}

TEST(Submit_every, each_beat_is_a_job_like_others) {
    const auto clock = new_clock();
    std::atomic<std::uint64_t> number = 0;
    std::atomic<int> beats = 0;
    task_pool pool({.threads = 1, .clock = clock});
    ASSERT_TRUE(pool.submit_every(1s, "key", [&](const job_context& context) {
        EXPECT_EQ(context.key(), "key");
        EXPECT_FALSE(context.stop_requested());
        number = context.number();
        ++beats;
    }));
    EXPECT_EQ(pool.stats().accepted, 0U);
    EXPECT_EQ(pool.stats().timers, 1U);
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return beats == 1 && pool.active_keys() == 0; }));
    EXPECT_EQ(number, 1U);
    EXPECT_EQ(pool.stats().accepted, 1U);
    EXPECT_EQ(pool.stats().finished, 1U);
    EXPECT_EQ(pool.stats().timers, 1U);
}

TEST(Submit_every, cancelled_by_its_handle_it_beats_no_more) {
    const auto clock = new_clock();
    std::atomic<int> discarded = 0;
    std::atomic<int> beats = 0;
    task_pool pool({.threads = 1, .clock = clock, .on_discard = [&](const discard&) { ++discarded; }});
    timer handle = pool.submit_every(1s, "key", [&] { ++beats; });
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return beats == 1; }));
    EXPECT_TRUE(handle.cancel());
    EXPECT_FALSE(handle.cancel());
    clock->advance(1h);
    EXPECT_TRUE(for_a_while([&] { return beats == 1; }));
    EXPECT_TRUE(eventually([&] { return pool.stats().timers == 0; }));
    EXPECT_EQ(discarded, 0); // it is not reported
    pool.stop();
    expect_all_accounted_for(pool);
}

TEST(Submit_every, cancelled_while_a_beat_runs_that_runs_to_its_end) {
    const auto clock = new_clock();
    gate leave;
    std::atomic<int> alive = 0;
    std::atomic<int> begun = 0;
    std::atomic<int> ended = 0;
    task_pool pool({.threads = 1, .clock = clock});
    const opener opens(leave);
    timer handle = pool.submit_every(1s, "key", [&, c = counted(alive)](const job_context& context) {
        ++begun;
        leave.wait();
        EXPECT_FALSE(context.stop_requested());
        EXPECT_EQ(*c.alive, 1);
        ++ended;
    });
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return begun == 1; }));
    EXPECT_TRUE(handle.cancel());
    EXPECT_EQ(alive, 1);
    EXPECT_TRUE(eventually([&] { return pool.stats().timers == 0; })); // when the keeper is done with this beat
    leave.open();
    EXPECT_TRUE(eventually([&] { return ended == 1 && alive == 0; }));
}

TEST(Submit_every, cancelled_with_its_key_while_a_beat_runs_that_is_asked_to_stop) {
    const auto clock = new_clock();
    std::atomic<int> alive = 0;
    std::atomic<int> begun = 0;
    task_pool pool({.threads = 1, .clock = clock});
    ASSERT_TRUE(pool.submit_every(1s, "key", [&, c = counted(alive)](const job_context& context) {
        ++begun;
        while (!context.stop_requested())
            std::this_thread::yield();
    }));
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return begun == 1; }));
    EXPECT_EQ(pool.cancel("key"), 0U); // no job that waited
    EXPECT_TRUE(eventually([&] { return alive == 0; }));
    clock->advance(1h);
    EXPECT_TRUE(for_a_while([&] { return begun == 1; }));
    EXPECT_EQ(pool.stats().timers, 0U);
}

TEST(Submit_every, a_beat_that_waits_in_its_lane_does_nothing_once_it_is_cancelled) {
    const auto clock = new_clock();
    gate leave;
    std::atomic<int> beats = 0;
    std::atomic<int> alive = 0;
    task_pool pool({.threads = 1, .clock = clock});
    const opener opens(leave);
    occupy(pool, "key", leave);
    timer handle = pool.submit_every(1s, "key", [&, c = counted(alive)] { ++beats; });
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return pool.stats().waiting == 1; }));
    EXPECT_TRUE(handle.cancel());
    leave.open();
    pool.drain();
    EXPECT_EQ(beats, 0);
    EXPECT_TRUE(eventually([&] { return alive == 0; }));
}

TEST(Submit_every, a_beat_may_cancel_itself_through_a_handle_that_it_owns) {
    const auto clock = new_clock();
    std::atomic<int> alive = 0;
    std::atomic<int> beats = 0;
    {
        gate stored;
        task_pool pool({.threads = 1, .clock = clock});
        const auto own = std::make_shared<timer>();
        *own = pool.submit_every(1s, "key", [&, own, c = counted(alive)] {
            stored.wait();
            if (++beats == 3) {
                EXPECT_TRUE(own->cancel());
            }
        });
        stored.open();
        for (int i = 1; i <= 3; ++i) {
            clock->advance(1s);
            ASSERT_TRUE(eventually([&] { return beats == i && pool.active_keys() == 0; }));
        }
        EXPECT_TRUE(eventually([&] { return pool.stats().timers == 0; })); // the keeper may not be done with it
    }
    EXPECT_EQ(beats, 3);
    EXPECT_EQ(alive, 0);
}

TEST(Submit_every, one_that_owns_its_handle_ends_with_the_pool) {
    std::atomic<int> alive = 0;
    for (const bool repeats : {true, false}) {
        task_pool pool({.threads = 1});
        const auto own = std::make_shared<timer>();
        auto job = [own, c = counted(alive)] {};
        *own = repeats ? pool.submit_every(1h, "key", std::move(job)) : pool.submit_after(1h, "key", std::move(job));
    }
    EXPECT_EQ(alive, 0);
}

TEST(Submit_every, ends_when_the_pool_is_closed) {
    const auto clock = new_clock();
    std::atomic<int> alive = 0;
    std::atomic<int> beats = 0;
    task_pool pool({.threads = 1, .clock = clock});
    timer handle = pool.submit_every(1s, "key", [&, c = counted(alive)] { ++beats; });
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return beats == 1; }));
    pool.close();
    pool.drain(); // does not wait for it
    clock->advance(1s);
    EXPECT_TRUE(eventually([&] { return alive == 0; }));
    EXPECT_EQ(beats, 1);
    EXPECT_FALSE(handle.cancel());
    EXPECT_EQ(pool.stats().timers, 0U);
}

TEST(Submit_every, ends_when_the_pool_is_stopped) {
    for (const bool started : {true, false}) {
        std::atomic<int> alive = 0;
        std::atomic<int> discarded = 0;
        task_pool pool({.threads = 1, .autostart = started, .on_discard = [&](const discard&) { ++discarded; }});
        timer handle = pool.submit_every(1h, "key", [c = counted(alive)] {});
        const auto report = pool.stop();
        EXPECT_EQ(alive, 0);
        EXPECT_EQ(report.discarded, 0U);
        EXPECT_EQ(discarded, 0);
        EXPECT_FALSE(handle.cancel());
        expect_all_accounted_for(pool);
    }
}

TEST(Submit_every, drain_waits_for_its_current_beat_only) {
    const auto clock = new_clock();
    gate leave;
    std::atomic<int> begun = 0;
    std::atomic<int> ended = 0;
    std::atomic<bool> drained = false;
    task_pool pool({.threads = 2, .clock = clock});
    const opener opens(leave);
    ASSERT_TRUE(pool.submit_every(1s, "key", [&] {
        ++begun;
        leave.wait();
        ++ended;
    }));
    pool.drain();
    pool.drain("key");
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return begun == 1; }));
    EXPECT_FALSE(pool.drain_for(5ms));
    std::thread drainer([&] {
        pool.drain("key");
        EXPECT_EQ(ended, 1);
        drained = true;
    });
    EXPECT_TRUE(for_a_while([&] { return !drained; }));
    leave.open();
    drainer.join();
    pool.drain();
    EXPECT_EQ(pool.stats().timers, 1U);
}

TEST(Submit_every, a_period_that_is_not_positive_is_an_error) {
    task_pool pool({.threads = 1});
    auto job = [owned = std::make_unique<int>(1)] { EXPECT_TRUE(owned); };
    EXPECT_THROW(pool.submit_every(0s, "key", std::move(job)), std::invalid_argument);
    EXPECT_THROW(pool.submit_every(-1ms, "key", std::move(job)), std::invalid_argument);
    EXPECT_THROW(pool.submit_every(std::chrono::hours::min(), "key", std::move(job)), std::invalid_argument);
    job(); // NOLINT(bugprone-use-after-move): it is unmoved
    EXPECT_EQ(pool.stats().timers, 0U);
}

TEST(Submit_every, periods_beyond_the_end_of_the_clock_beat_never) {
    const auto clock = new_clock();
    std::atomic<int> beats = 0;
    task_pool pool({.threads = 1, .clock = clock});
    ASSERT_TRUE(pool.submit_every(std::chrono::hours::max(), "key", [&] { ++beats; }));
    clock->advance(24h * 365 * 100);
    EXPECT_TRUE(for_a_while([&] { return beats == 0; }));
    clock->advance_to(manual_clock::time_point::max());
    EXPECT_TRUE(eventually([&] { return beats > 0; })); // the end of all times
}

TEST(Submit_every, a_period_below_a_tick_beats_once_a_tick_at_most) {
    std::atomic<std::uint64_t> beats = 0;
    task_pool pool({.threads = 1});
    const auto begin = steady::now();
    timer handle = pool.submit_every(100us, "key", [&] { ++beats; });
    ASSERT_TRUE(eventually([&] { return beats >= 10; }));
    ASSERT_TRUE(handle.cancel());
    const auto passed = steady::now() - begin;
    EXPECT_LE(beats, static_cast<std::uint64_t>(passed / 1ms) + 1);
    EXPECT_LE(beats + handle.missed(), static_cast<std::uint64_t>(passed / 100us) + 1);
    EXPECT_GT(handle.missed(), 0U);
}

TEST(Submit_every, a_beat_is_never_early_by_the_real_clock) {
    std::atomic<int> early = 0;
    std::atomic<int> beats = 0;
    task_pool pool({.threads = 1});
    const auto begin = steady::now();
    timer handle = pool.submit_every(5ms, "key", [&] { early += steady::now() < begin + ++beats * 5ms; });
    EXPECT_TRUE(eventually([&] { return beats >= 10; }));
    handle.cancel();
    EXPECT_EQ(early, 0);
}

// --- The handle ------------------------------------------------------------------------------------------------------

TEST(Timer, one_made_of_nothing_was_not_accepted) {
    timer none;
    EXPECT_FALSE(none);
    EXPECT_EQ(none.status(), submit_status::stopped);
    EXPECT_FALSE(none.cancel());
    EXPECT_EQ(none.missed(), 0U);
}

TEST(Timer, cancels_before_its_time) {
    const auto clock = new_clock();
    std::vector<std::string> reported; // by this thread alone
    std::atomic<int> alive = 0;
    task_pool pool({.threads = 1, .clock = clock, .on_discard = [&](const discard& d) {
                        EXPECT_EQ(d.reason, discard_reason::cancelled);
                        EXPECT_EQ(alive, 1); // before the callable is destroyed
                        reported.emplace_back(d.key);
                    }});
    timer handle = pool.submit_after(1s, "key", [c = counted(alive)] { FAIL() << "it was taken back"; });
    EXPECT_TRUE(handle.cancel());
    EXPECT_EQ(alive, 0);
    EXPECT_FALSE(handle.cancel());
    EXPECT_EQ(reported, std::vector<std::string>{"key"});
    EXPECT_EQ(pool.stats().discarded, 1U);
    EXPECT_EQ(pool.stats().timers, 0U);
    EXPECT_EQ(handle.status(), submit_status::accepted); // it was
    clock->advance(1h);
    pool.drain();
    pool.stop();
    expect_all_accounted_for(pool);
}

TEST(Timer, does_not_cancel_what_has_been_handed_to_its_lane) {
    const auto clock = new_clock();
    gate leave;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 1, .clock = clock});
    const opener opens(leave);
    occupy(pool, "key", leave);
    timer waits = pool.submit_after(1s, "key", [&] { ++ran; });
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return pool.stats().waiting == 1; }));
    EXPECT_FALSE(waits.cancel());
    leave.open();
    pool.drain();
    EXPECT_EQ(ran, 1);
    EXPECT_FALSE(waits.cancel());
    EXPECT_EQ(pool.stats().discarded, 0U);
}

// I-TIMER-1, I-TIMED-2
TEST(Timer, a_cancel_at_the_time_itself_tells_the_truth) {
    allow_time(100s * slowness);
    task_pool pool({.threads = 2});
    std::size_t cancelled = 0;
    std::size_t wrong = 0;
    constexpr int rounds = 3'000;
    for (int i = 0; i < rounds; ++i) {
        std::atomic<bool> ran = false;
        timer handle = pool.submit_after(1ms, std::to_string(i), [&] { ran = true; });
        burn(std::chrono::microseconds(i % 2'500));
        const bool taken_back = handle.cancel();
        cancelled += taken_back ? 1 : 0;
        pool.drain();
        wrong += ran == taken_back ? 1 : 0;
    }
    EXPECT_EQ(wrong, 0U);
    EXPECT_EQ(pool.stats().discarded, cancelled);
    EXPECT_EQ(pool.stats().finished, rounds - cancelled);
    EXPECT_GT(cancelled, 0U);
}

// I-TIMER-1
TEST(Timer, one_of_many_that_cancel_at_once_succeeds) {
    task_pool pool({.threads = 1});
    for (int round = 0; round < 200; ++round) {
        timer handle = pool.submit_after(1h, "key", [] {});
        std::atomic<int> succeeded = 0;
        std::latch begin(4);
        std::vector<std::thread> threads;
        for (int i = 0; i < 4; ++i)
            threads.emplace_back([&] {
                begin.arrive_and_wait();
                succeeded += handle.cancel() ? 1 : 0;
            });
        for (auto& thread : threads)
            thread.join();
        ASSERT_EQ(succeeded, 1);
    }
    EXPECT_EQ(pool.stats().discarded, 200U);
}

TEST(Timer, dropping_it_changes_nothing) {
    const auto clock = new_clock();
    std::atomic<int> ran = 0;
    std::atomic<int> alive = 0;
    task_pool pool({.threads = 1, .clock = clock});
    {
        const timer dropped = pool.submit_after(1s, "key", [&, c = counted(alive)] { ++ran; });
    }
    {
        const timer dropped = pool.submit_every(1s, "key", [&, c = counted(alive)] { ++ran; });
    }
    EXPECT_EQ(alive, 2);
    clock->advance(1s);
    EXPECT_TRUE(eventually([&] { return ran == 2; }));
}

TEST(Timer, may_outlive_the_pool) {
    timer once;
    timer every;
    timer done;
    std::atomic<int> alive = 0;
    {
        task_pool pool({.threads = 1});
        once = pool.submit_after(1h, "key", [c = counted(alive)] {});
        every = pool.submit_every(1h, "key", [c = counted(alive)] {});
        done = pool.submit_after(0s, "key", [c = counted(alive)] {});
        pool.drain_for(1ms);
    }
    EXPECT_EQ(alive, 0);
    EXPECT_FALSE(once.cancel());
    EXPECT_FALSE(every.cancel());
    EXPECT_FALSE(done.cancel());
    EXPECT_EQ(every.missed(), 0U);
    EXPECT_TRUE(once);
}

TEST(Timer, moves) {
    const auto clock = new_clock();
    std::atomic<int> first_ran = 0;
    std::atomic<int> second_ran = 0;
    task_pool pool({.threads = 1, .clock = clock});
    timer first = pool.submit_after(1s, "key", [&] { ++first_ran; });
    timer moved = std::move(first);
    EXPECT_FALSE(first.cancel()); // NOLINT(bugprone-use-after-move): it stands for nothing now
    EXPECT_EQ(first.missed(), 0U);
    EXPECT_TRUE(moved);
    timer second = pool.submit_after(1s, "key", [&] { ++second_ran; });
    moved = std::move(second); // which lets the first one be
    EXPECT_TRUE(moved.cancel());
    EXPECT_EQ(pool.stats().discarded, 1U);
    std::vector<timer> many;
    for (int i = 0; i < 100; ++i)
        many.push_back(pool.submit_after(1h, std::to_string(i), [] {}));
    for (auto& handle : many)
        EXPECT_TRUE(handle.cancel());
    clock->advance(1s);
    pool.drain();
    EXPECT_EQ(first_ran, 1);
    EXPECT_EQ(second_ran, 0);
}

// --- The clock -------------------------------------------------------------------------------------------------------

TEST(Manual_clock, stands_still_and_never_goes_back) {
    manual_clock clock;
    EXPECT_EQ(clock.now(), manual_clock::time_point());
    manual_clock later(manual_clock::time_point(5s));
    EXPECT_EQ(later.now(), manual_clock::time_point(5s));
    later.advance(1s);
    EXPECT_EQ(later.now(), manual_clock::time_point(6s));
    later.advance(-3s);
    later.advance(0s);
    later.advance_to(manual_clock::time_point(2s));
    later.advance(manual_clock::duration::min());
    EXPECT_EQ(later.now(), manual_clock::time_point(6s));
    later.advance_to(manual_clock::time_point(7s));
    EXPECT_EQ(later.now(), manual_clock::time_point(7s));
    later.advance(manual_clock::duration::max());
    EXPECT_EQ(later.now(), manual_clock::time_point::max());
    later.advance(1s);
    EXPECT_EQ(later.now(), manual_clock::time_point::max());
    manual_clock early(manual_clock::time_point::min());
    early.advance(1s);
    EXPECT_EQ(early.now(), manual_clock::time_point::min() + 1s);
}

TEST(Manual_clock, may_begin_and_end_anywhere) {
    for (const auto begin : {manual_clock::time_point::min(), manual_clock::time_point(-1ns),
                             manual_clock::time_point(), manual_clock::time_point::max() - 24h - 1ns}) {
        const auto clock = std::make_shared<manual_clock>(begin);
        std::atomic<int> ran = 0;
        task_pool pool({.threads = 1, .clock = clock});
        ASSERT_TRUE(pool.submit_after(1s, "key", [&] { ++ran; }));
        ASSERT_TRUE(pool.submit_after(12h, "key", [&] { ++ran; }));
        ASSERT_TRUE(pool.submit_at(manual_clock::time_point::max(), "key", [] {}));
        clock->advance(1s - 1ns);
        EXPECT_TRUE(for_a_while([&] { return ran == 0; }, 5ms));
        clock->advance(1ns);
        EXPECT_TRUE(eventually([&] { return ran == 1; }));
        clock->advance_to(manual_clock::time_point::max());
        EXPECT_TRUE(eventually([&] { return ran == 2 && pool.stats().timers == 1; }));
        EXPECT_TRUE(for_a_while([&] { return pool.stats().timers == 1; }, 5ms)); // the end of all times does not come
    }
}

TEST(Manual_clock, serves_several_pools_and_outlives_them) {
    const auto clock = new_clock();
    std::atomic<int> ran = 0;
    {
        task_pool first({.threads = 1, .clock = clock});
        ASSERT_TRUE(first.submit_after(1s, "key", [&] { ++ran; }));
        {
            task_pool second({.threads = 1, .clock = clock});
            ASSERT_TRUE(second.submit_after(1s, "key", [&] { ++ran; }));
            clock->advance(1s);
            EXPECT_TRUE(eventually([&] { return ran == 2; }));
        }
        ASSERT_TRUE(first.submit_after(1s, "key", [&] { ++ran; }));
        clock->advance(1s);
        EXPECT_TRUE(eventually([&] { return ran == 3; }));
    }
    clock->advance(1s);
    EXPECT_EQ(clock.use_count(), 1);
}

TEST(Manual_clock, may_be_moved_by_a_job_and_by_many_threads) {
    const auto clock = new_clock();
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .clock = clock});
    for (int i = 1; i <= 100; ++i)
        ASSERT_TRUE(pool.submit_after(std::chrono::seconds(i), std::to_string(i), [&] {
            ++ran;
            clock->advance(100ms);
        }));
    std::vector<std::thread> movers;
    for (int i = 0; i < 4; ++i)
        movers.emplace_back([&] {
            for (int step = 0; step < 250; ++step)
                clock->advance(100ms);
        });
    for (auto& mover : movers)
        mover.join();
    pool.drain();
    EXPECT_EQ(ran, 100);
}

// --- What they cost --------------------------------------------------------------------------------------------------

#if defined(__GLIBC__)
#if !defined(TASKPOOL_TEST_ASAN) && !defined(TASKPOOL_TEST_TSAN) // their allocators have no mallinfo2
std::size_t bytes_in_use() {
    const auto info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/// "key-0000042", made with no allocation.
std::string_view short_key(std::array<char, 12>& room, int i) {
    std::snprintf(room.data(), room.size(), "key-%07d", i);
    return {room.data(), 11};
}

TEST(Submit_after, memory_of_a_million_is_below_150_bytes_each_and_is_given_back) {
    constexpr int count = 1'000'000;
    std::array<char, 12> room{};
    std::atomic<std::uint64_t> ran = 0;
    const auto clock = new_clock();
    task_pool pool({.threads = 2, .clock = clock});
    const std::size_t before = bytes_in_use();
    for (int i = 0; i < count; ++i)
        ASSERT_TRUE(pool.submit_after(std::chrono::milliseconds(i + 1), short_key(room, i), [&ran, i] {
            ran.fetch_add(static_cast<unsigned>(i), std::memory_order_relaxed);
        }));
    const auto grown = [&] { return bytes_in_use() > before ? bytes_in_use() - before : 0; };
    RecordProperty("bytes_each", std::to_string(grown() / count));
    EXPECT_LT(grown(), std::size_t{150} * count) << grown() / count << " bytes each";

    // Half a million are cancelled by their keys, which takes microseconds each, not a walk over all.
    const auto begin = steady::now();
    for (int i = 0; i < count / 2; ++i)
        ASSERT_EQ(pool.cancel(short_key(room, i * 2)), 1U);
    const auto each = (steady::now() - begin) / (count / 2);
    RecordProperty("nanoseconds_of_a_cancel", std::to_string(each / 1ns));
    EXPECT_LT(each, 100us);

    const auto stopping = steady::now();
    EXPECT_EQ(pool.stop().discarded_by_stop, count / 2U);
    RecordProperty("milliseconds_of_the_stop", std::to_string((steady::now() - stopping) / 1ms));
    EXPECT_LT(steady::now() - stopping, 20s);
    EXPECT_LT(grown(), std::size_t{2} << 20);
}

TEST(Submit_after, memory_of_what_is_over_is_given_back_though_some_are_still_pending) {
    constexpr int count = 300'000;
    const auto clock = new_clock();
    task_pool pool({.threads = 2, .lane_capacity = count, .clock = clock});
    for (int i = 0; i < 1'000; ++i)
        ASSERT_TRUE(pool.submit_after(24h, std::to_string(i), [] {}));
    const std::size_t before = bytes_in_use();
    for (int i = 0; i < count; ++i)
        ASSERT_TRUE(pool.submit_after(1h, std::to_string(i), [] {}));
    clock->advance(1h);
    EXPECT_TRUE(eventually([&] { return pool.stats().finished == count; }, 50s));
    const auto grown = [&] { return bytes_in_use() > before ? bytes_in_use() - before : 0; };
    EXPECT_TRUE(eventually([&] { return grown() < std::size_t{300} << 10; }, 10s)) << grown();
}
#endif
#endif

TEST(Submit_after, a_million_of_one_key_are_cancelled_in_time) {
    constexpr int count = sanitized ? 50'000 : 1'000'000;
    allow_time(100s * slowness);
    task_pool pool({.threads = 1});
    for (int i = 0; i < count; ++i)
        ASSERT_TRUE(pool.submit_after(1h, "key", [] {}));
    const auto begin = steady::now();
    EXPECT_EQ(pool.cancel("other"), 0U);
    EXPECT_EQ(pool.cancel("key"), static_cast<std::size_t>(count));
    EXPECT_LT(steady::now() - begin, 20s * slowness);
}

#if defined(__unix__)
TEST(Submit_after, timing_of_a_pool_that_only_waits_for_far_away_times_uses_no_processor) {
    task_pool pool({.threads = 2});
    std::vector<timer> handles;
    for (int i = 0; i < 10'000; ++i)
        handles.push_back(pool.submit_after(1h + std::chrono::seconds(i), std::to_string(i), [] {}));
    handles.push_back(pool.submit_every(2h, "every", [] {}));
    // What has been done until now is cleared away first.
    const auto usage = [] {
        rusage used{};
        getrusage(RUSAGE_SELF, &used);
        return used;
    };
    const auto switches = [&] {
        const auto used = usage();
        return used.ru_nvcsw;
    };
    const auto processor = [&] {
        const auto used = usage();
        return std::chrono::seconds(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               std::chrono::microseconds(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    };
    std::this_thread::sleep_for(1'500ms);
    const auto switches_before = switches();
    const auto processor_before = processor();
    std::this_thread::sleep_for(1'500ms);
    // Asleep, this thread wakes once and the watchdog never; a keeper that looks each tick would wake 1,500 times.
    EXPECT_LT(switches() - switches_before, 50);
    EXPECT_LT(processor() - processor_before, 100ms);
}
#endif

} // namespace
} // namespace taskpool::testing
