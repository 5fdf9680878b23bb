// SPDX-License-Identifier: Apache-2.0
// What becomes of a job for a later time, and of one that repeats, in each case. The first line of each test says the
// outcome.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

std::shared_ptr<manual_clock> new_clock() { return std::make_shared<manual_clock>(); }

// --- submit_after ----------------------------------------------------------------------------------------------------

TEST(Matrix_submit_after, stop) {
    // discarded and reported (stopped), or brought forward and run where on_stop is run; its callable has ended
    const auto alive = std::make_shared<int>();
    journal<discard_reason> reported;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 1, .on_discard = [&](const discard& d) { reported.add(d.reason); }});
    timer handle = pool.submit_after(1h, "key", [&ran, alive] { ++ran; });
    ASSERT_TRUE(pool.submit_after(
        1h, "key", [&ran, alive](const job_context& context) { ran += context.stop_requested() ? 100 : 0; },
        {.on_stop = stop_action::run}));
    const auto report = pool.stop();
    EXPECT_EQ(ran, 100);
    EXPECT_EQ(reported.entries(), std::vector<discard_reason>{discard_reason::stopped});
    EXPECT_EQ(report.finished, 1U);
    EXPECT_EQ(report.discarded_by_stop, 1U);
    EXPECT_EQ(alive.use_count(), 1);
    EXPECT_FALSE(handle.cancel());
}

TEST(Matrix_submit_after, drain) {
    // waited for, however far its time is
    const auto clock = new_clock();
    std::latch begin(3);
    std::atomic<bool> ran = false;
    task_pool pool({.threads = 1, .clock = clock});
    ASSERT_TRUE(pool.submit_after(1h, "key", [&] { ran = true; }));
    EXPECT_FALSE(pool.drain_for(1ms));
    std::vector<std::thread> drainers;
    drainers.emplace_back([&] {
        begin.arrive_and_wait();
        pool.drain();
        EXPECT_TRUE(ran);
    });
    drainers.emplace_back([&] {
        begin.arrive_and_wait();
        pool.drain("key");
        EXPECT_TRUE(ran);
    });
    begin.arrive_and_wait();
    clock->advance(1h);
    for (auto& drainer : drainers)
        drainer.join();
}

TEST(Matrix_submit_after, cancel_key) {
    // discarded, reported (cancelled) and counted in what cancel returns
    const auto clock = new_clock();
    journal<discard_reason> reported;
    task_pool pool({.threads = 1, .clock = clock, .on_discard = [&](const discard& d) { reported.add(d.reason); }});
    timer handle = pool.submit_after(1s, "key", [] { FAIL() << "it was cancelled"; });
    EXPECT_EQ(pool.cancel("key"), 1U);
    EXPECT_EQ(reported.entries(), std::vector<discard_reason>{discard_reason::cancelled});
    EXPECT_FALSE(handle.cancel());
    clock->advance(1h);
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 0U);
}

TEST(Matrix_submit_after, job_throws) {
    // goes to the failure handler; the key's other jobs go on
    const auto clock = new_clock();
    journal<std::string> failed;
    std::atomic<bool> ran = false;
    task_pool pool(
        {.threads = 1, .clock = clock, .on_failure = [&](const failure& f) { failed.add(std::string(f.key)); }});
    ASSERT_TRUE(pool.submit_after(1s, "key", [] { throw std::runtime_error("in a timed job"); }));
    ASSERT_TRUE(pool.submit_after(2s, "key", [&] { ran = true; }));
    clock->advance(2s);
    pool.drain();
    EXPECT_EQ(failed.entries(), std::vector<std::string>{"key"});
    EXPECT_TRUE(ran);
    EXPECT_EQ(pool.stats().failed, 1U);
    EXPECT_EQ(pool.stats().finished, 2U);
}

TEST(Matrix_submit_after, lane_full) {
    // as when_full says: block delivers it as soon as there is room, and nobody waits; reject discards it (no_room)
    for (const auto rule : {overflow::block, overflow::reject}) {
        const auto clock = new_clock();
        journal<discard_reason> reported;
        std::atomic<int> ran = 0;
        gate leave;
        task_pool pool(
            {.threads = 1, .lane_capacity = 1, .when_full = rule, .clock = clock, .on_discard = [&](const discard& d) {
                 reported.add(d.reason);
             }});
        const opener opens(leave);
        occupy(pool, "key", leave);
        ASSERT_TRUE(pool.submit("key", [] {}));
        ASSERT_TRUE(pool.submit_after(1s, "key", [&] { ++ran; }));
        clock->advance(1s);
        if (rule == overflow::reject) {
            EXPECT_TRUE(eventually([&] { return reported.size() == 1; }));
        }
        leave.open();
        pool.drain();
        EXPECT_EQ(ran, rule == overflow::block ? 1 : 0);
        EXPECT_EQ(reported.entries(),
                  std::vector<discard_reason>(rule == overflow::block ? 0 : 1, discard_reason::no_room));
    }
}

TEST(Matrix_submit_after, pool_destroyed) {
    // as with stop; the handle may go on, and cancels nothing
    const auto alive = std::make_shared<int>();
    journal<discard_reason> reported;
    timer handle;
    {
        task_pool pool({.threads = 1, .on_discard = [&](const discard& d) { reported.add(d.reason); }});
        handle = pool.submit_after(1h, "key", [alive] { FAIL() << "the pool was destroyed"; });
    }
    EXPECT_EQ(reported.entries(), std::vector<discard_reason>{discard_reason::stopped});
    EXPECT_EQ(alive.use_count(), 1);
    EXPECT_FALSE(handle.cancel());
}

TEST(Matrix_submit_after, key_submitted_to_meanwhile) {
    // the others run as they come; it takes its place behind them when its time has come
    const auto clock = new_clock();
    gate leave;
    task_pool pool({.threads = 1, .clock = clock});
    std::vector<int> ran; // of one key
    ASSERT_TRUE(pool.submit_after(1s, "key", [&] { ran.push_back(3); }));
    ASSERT_TRUE(pool.submit("key", [&] { ran.push_back(1); }));
    EXPECT_TRUE(eventually([&] { return pool.active_keys() == 0; }));
    const opener opens(leave);
    occupy(pool, "key", leave);
    ASSERT_TRUE(pool.submit("key", [&] { ran.push_back(2); }));
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return pool.stats().timers == 0; }));
    ASSERT_TRUE(pool.submit("key", [&] { ran.push_back(4); }));
    leave.open();
    pool.drain();
    EXPECT_EQ(ran, (std::vector<int>{1, 2, 3, 4}));
}

// --- submit_every ----------------------------------------------------------------------------------------------------

TEST(Matrix_submit_every, stop) {
    // ends, unreported; a beat that runs is asked to stop and waited for, one that waits is discarded (stopped)
    const auto clock = new_clock();
    const auto alive = std::make_shared<int>();
    journal<std::string> reported;
    std::atomic<int> beats = 0;
    gate leave;
    task_pool pool(
        {.threads = 2, .clock = clock, .on_discard = [&](const discard& d) { reported.add(std::string(d.key)); }});
    const opener opens(leave);
    occupy(pool, "waits", leave);
    ASSERT_TRUE(pool.submit_every(1s, "waits", [&, alive] { beats += 100; }));
    timer handle = pool.submit_every(1s, "runs", [&, alive](const job_context& context) {
        ++beats;
        while (!context.stop_requested())
            std::this_thread::yield();
        leave.open(); // only now, so that the other one waits
    });
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return beats == 1 && pool.stats().waiting == 1; }));
    const auto report = pool.stop();
    EXPECT_EQ(beats, 1);
    EXPECT_EQ(report.finished, 2U);
    EXPECT_EQ(report.discarded, 1U);
    EXPECT_EQ(reported.entries(), std::vector<std::string>{"waits"});
    EXPECT_EQ(alive.use_count(), 1);
    EXPECT_FALSE(handle.cancel());
}

TEST(Matrix_submit_every, drain) {
    // waits for its current beat, not for later ones; it goes on
    const auto clock = new_clock();
    gate leave;
    std::atomic<int> beats = 0;
    task_pool pool({.threads = 1, .clock = clock});
    const opener opens(leave);
    ASSERT_TRUE(pool.submit_every(1s, "key", [&] {
        leave.wait();
        ++beats;
    }));
    pool.drain();
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    EXPECT_FALSE(pool.drain_for(1ms));
    leave.open();
    pool.drain();
    pool.drain("key");
    EXPECT_EQ(beats, 1);
    clock->advance(1s);
    EXPECT_TRUE(eventually([&] { return beats == 2; }));
}

TEST(Matrix_submit_every, cancel_key) {
    // ends, unreported and uncounted; a beat that runs is asked to stop, one that waits is discarded (cancelled)
    const auto clock = new_clock();
    const auto alive = std::make_shared<int>();
    journal<discard_reason> reported;
    std::atomic<int> beats = 0;
    task_pool pool({.threads = 1, .clock = clock, .on_discard = [&](const discard& d) { reported.add(d.reason); }});
    timer idle = pool.submit_every(1h, "key", [alive] {});
    EXPECT_EQ(pool.cancel("key"), 0U);
    EXPECT_EQ(alive.use_count(), 1);
    EXPECT_FALSE(idle.cancel());

    ASSERT_TRUE(pool.submit_every(1s, "key", [&, alive](const job_context& context) {
        ++beats;
        while (!context.stop_requested())
            std::this_thread::yield();
    }));
    ASSERT_TRUE(pool.submit_every(1s, "key", [&, alive] { beats += 100; }));
    clock->advance(1s);
    ASSERT_TRUE(eventually([&] { return beats == 1 && pool.stats().waiting == 1; }));
    EXPECT_EQ(pool.cancel("key"), 1U); // the beat that waited
    EXPECT_TRUE(eventually([&] { return alive.use_count() == 1; }));
    EXPECT_EQ(reported.entries(), std::vector<discard_reason>{discard_reason::cancelled});
    clock->advance(1h);
    EXPECT_TRUE(for_a_while([&] { return beats == 1; }));
    EXPECT_EQ(pool.stats().timers, 0U);
}

TEST(Matrix_submit_every, job_throws) {
    // goes to the failure handler; the next beat comes
    const auto clock = new_clock();
    std::atomic<int> failed = 0;
    task_pool pool({.threads = 1, .clock = clock, .on_failure = [&](const failure&) { ++failed; }});
    timer handle = pool.submit_every(1s, "key", [] { throw std::runtime_error("in a beat"); });
    for (int i = 1; i <= 3; ++i) {
        clock->advance(1s);
        ASSERT_TRUE(eventually([&] { return failed == i && pool.active_keys() == 0; }));
    }
    EXPECT_EQ(handle.missed(), 0U);
    EXPECT_EQ(pool.stats().failed, 3U);
}

TEST(Matrix_submit_every, lane_full) {
    // the beat is passed over and counted as missed, but for drop_oldest and keep_latest, which make room for it
    for (const auto rule : {overflow::block, overflow::reject, overflow::drop_oldest, overflow::keep_latest}) {
        const bool makes_room = rule == overflow::drop_oldest || rule == overflow::keep_latest;
        const auto clock = new_clock();
        std::atomic<int> beats = 0;
        std::atomic<int> others = 0;
        gate leave;
        task_pool pool({.threads = 1, .lane_capacity = 1, .when_full = rule, .clock = clock});
        const opener opens(leave);
        occupy(pool, "key", leave);
        ASSERT_TRUE(pool.submit("key", [&] { ++others; }));
        timer handle = pool.submit_every(1s, "key", [&] { ++beats; });
        clock->advance(1s);
        ASSERT_TRUE(eventually([&] { return (makes_room ? pool.stats().discarded : handle.missed()) == 1; }));
        leave.open();
        pool.drain();
        EXPECT_EQ(beats, makes_room ? 1 : 0);
        EXPECT_EQ(others, makes_room ? 0 : 1);
        EXPECT_EQ(handle.missed(), makes_room ? 0U : 1U);
    }
}

TEST(Matrix_submit_every, pool_destroyed) {
    // as with stop; the handle may go on, and cancels nothing
    const auto alive = std::make_shared<int>();
    timer handle;
    {
        task_pool pool({.threads = 1});
        handle = pool.submit_every(1h, "key", [alive] {});
    }
    EXPECT_EQ(alive.use_count(), 1);
    EXPECT_FALSE(handle.cancel());
    EXPECT_EQ(handle.missed(), 0U);
}

TEST(Matrix_submit_every, key_submitted_to_meanwhile) {
    // each beat takes its place in the lane like another job; the key's jobs do not hold up its time
    const auto clock = new_clock();
    task_pool pool({.threads = 1, .clock = clock});
    std::vector<std::string> ran; // of one key
    ASSERT_TRUE(pool.submit_every(1s, "key", [&] { ran.emplace_back("beat"); }));
    for (const char* const name : {"first", "second"}) {
        gate leave;
        const opener opens(leave);
        occupy(pool, "key", leave);
        ASSERT_TRUE(pool.submit("key", [&ran, name] { ran.emplace_back(name); }));
        clock->advance(1s);
        ASSERT_TRUE(eventually([&] { return pool.stats().waiting == 2; }));
        leave.open();
        pool.drain();
    }
    EXPECT_EQ(ran, (std::vector<std::string>{"first", "beat", "second", "beat"}));
}

} // namespace
} // namespace taskpool::testing
