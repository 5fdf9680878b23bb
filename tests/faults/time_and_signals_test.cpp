// SPDX-License-Identifier: Apache-2.0
// Trouble from outside: signals that interrupt every wait, a clock that leaps, many more threads than processors, a
// process that is stopped and goes on.
#if defined(__linux__)

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <taskpool/taskpool.hpp>

#include "../sanitizers.hpp"

namespace taskpool::testing {
namespace {

using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

#if defined(TASKPOOL_TEST_SANITIZER)
constexpr int load = 20'000;
#else
constexpr int load = 200'000;
#endif

// --- Signals ---------------------------------------------------------------------------------------------------------

std::atomic<std::uint64_t> signals = 0;

/// SIGALRM every 100 us, whose handler lets no system call go on by itself.
class storm {
  public:
    storm() {
        struct sigaction what {};
        what.sa_handler = [](int) { signals.fetch_add(1, std::memory_order_relaxed); }; // a figure
        sigaction(SIGALRM, &what, &before_);
        const itimerval often{{0, 100}, {0, 100}};
        setitimer(ITIMER_REAL, &often, nullptr);
    }
    ~storm() {
        const itimerval none{};
        setitimer(ITIMER_REAL, &none, nullptr);
        sigaction(SIGALRM, &before_, nullptr);
    }

  private:
    struct sigaction before_ {};
};

void pass(std::chrono::milliseconds time) { // on a worker, where no signal comes
    std::this_thread::sleep_for(time);
}

TEST(Fault_signals, interrupt_no_wait) {
    std::atomic<int> ran = 0;
    std::atomic<bool> may_end = false;
    const auto before = signals.load();
    task_pool pool({.threads = 2, .lane_capacity = 1});
    const storm blows;
    for (int round = 0; round < 5 || (signals - before <= 100 && round < 1'000); ++round) {
        // A submit that waits for room.
        for (int i = 0; i < 3; ++i)
            ASSERT_EQ(pool.submit("full",
                                  [&] {
                                      pass(5ms);
                                      ++ran;
                                  }),
                      submit_status::accepted);
        // One that waits for a time: it does not give up before.
        ASSERT_EQ(pool.submit_for("full", 60s, [&] { ++ran; }), submit_status::accepted);
        // A future.
        EXPECT_EQ(pool.async("other",
                             [] {
                                 pass(10ms);
                                 return 3;
                             })
                      .get(),
                  3);
        const auto begin = steady::now();
        may_end = false;
        auto late = pool.async("late", [&] {
            while (!may_end)
                pass(1ms);
        });
        EXPECT_FALSE(late.wait_for(20ms));
        EXPECT_GE(steady::now() - begin, 20ms);
        may_end = true;
        late.wait();
        // A drain of a key, and of all.
        ASSERT_TRUE(pool.submit("full", [] { pass(10ms); }));
        pool.drain("full");
        ASSERT_TRUE(pool.submit_after(10ms, "timed", [&] { ++ran; }));
        EXPECT_TRUE(pool.drain_for(60s));
        EXPECT_EQ(ran, (round + 1) * 5);
    }
    ASSERT_TRUE(pool.submit("end", [] { pass(20ms); }, {.on_stop = stop_action::run}));
    EXPECT_EQ(pool.stop().discarded, 0U);
    EXPECT_GT(signals - before, 100U) << "there was no storm";
}

TEST(Fault_signals, interrupt_no_submit_that_gives_up_in_time) {
    std::atomic<bool> done = false;
    task_pool pool({.threads = 1, .lane_capacity = 1});
    const storm blows;
    ASSERT_TRUE(pool.submit("key", [&] {
        while (!done)
            pass(1ms);
    }));
    while (pool.stats().running == 0)
        std::this_thread::yield();
    ASSERT_TRUE(pool.submit("key", [] {}));
    const auto begin = steady::now();
    EXPECT_EQ(pool.submit_for("key", 50ms, [] {}), submit_status::timed_out);
    EXPECT_GE(steady::now() - begin, 50ms);
    EXPECT_FALSE(pool.drain_for(20ms));
    done = true;
    pool.drain();
}

// --- Clocks ----------------------------------------------------------------------------------------------------------

TEST(Fault_clock, leaps_lose_no_timer_and_run_none_twice) {
    const auto clock = std::make_shared<manual_clock>();
    std::atomic<int> ran = 0, beats = 0, slept = 0;
    task_pool pool({.threads = 2, .clock = clock});
    constexpr std::array delays{1ns, 999'999ns, 1'000'000ns, 3'600'000'000'000ns, 86'400'000'000'000ns * 365};
    for (const auto delay : delays)
        for (int i = 0; i < 20; ++i)
            ASSERT_TRUE(pool.submit_after(delay, std::to_string(i), [&] { ++ran; }));
    auto beat = pool.submit_every(1h, "beat", [&] { ++beats; });
    ASSERT_TRUE(pool.submit("sleeper", [](std::atomic<int>& done) -> task<> {
        const bool whole = co_await sleep_for(24h * 400);
        done += whole ? 1 : 100;
    }(slept)));
    while (pool.stats().suspended_lanes == 0) // so that it sleeps from before the leaps on
        std::this_thread::yield();
    clock->advance(-1h); // it never goes back
    clock->advance_to(manual_clock::time_point::min());
    EXPECT_EQ(clock->now(), manual_clock::time_point{});
    clock->advance(24h * 365); // all but the sleeper, at one moment
    while (ran < 100 || beats < 1 || beat.missed() == 0)
        std::this_thread::yield();
    EXPECT_EQ(ran, 100);
    EXPECT_EQ(beat.missed() + static_cast<std::uint64_t>(beats), 24U * 365);
    EXPECT_EQ(slept, 0);
    clock->advance_to(manual_clock::time_point::max() - 1h);
    while (slept == 0)
        std::this_thread::yield();
    EXPECT_EQ(slept, 1);
    // Near the end of time it goes on.
    ASSERT_TRUE(pool.submit_after(0ns, "last", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit("now", [&] { ++ran; }));
    clock->advance(1ms); // it stood between two ticks
    beat.cancel();
    while (ran < 102)
        std::this_thread::yield();
    pool.drain();
    EXPECT_EQ(ran, 102);
}

TEST(Fault_clock, rates_and_retries_survive_a_leap) {
    const auto clock = std::make_shared<manual_clock>();
    std::atomic<int> ran = 0, attempts = 0;
    task_pool pool({.threads = 2, .clock = clock});
    pool.limit("key", rate{1, per_hour});
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit("again", with_retry({.max_attempts = 3, .backoff = {.first = 1h, .max = 24h * 400}}, [&] {
                                if (++attempts < 3)
                                    throw 1;
                            })));
    // Each leap is of years; but tokens that nobody could take are not saved up, so each gives one job at most.
    for (int leap = 1; leap < 3; ++leap) {
        // The attempt's key sleeps by then, until an hour after its failure, not after the leap.
        while (ran < leap || attempts < leap || pool.stats().suspended_lanes == 0)
            std::this_thread::yield();
        EXPECT_EQ(ran, leap);
        clock->advance(24h * 365 * 10);
    }
    pool.drain();
    EXPECT_EQ(ran, 3);
    EXPECT_EQ(attempts, 3);
}

// --- Too many threads, a process that is stopped ---------------------------------------------------------------------

/// A load whose order and exclusion are checked; whether all was right.
bool carry_a_load(unsigned threads, int jobs) {
    struct alignas(64) key_state {
        int last = -1; // only the key's jobs touch it
        bool right = true;
    };
    constexpr int keys = 64;
    std::array<key_state, keys> states;
    basic_task_pool<int> pool({.threads = threads});
    for (int i = 0; i < jobs; ++i) {
        auto& state = states[static_cast<std::size_t>(i % keys)];
        if (!pool.submit(i % keys, [&state, i] {
                state.right = state.right && (state.last < 0 || state.last == i - keys);
                state.last = i;
            }))
            return false;
    }
    pool.drain();
    bool right = pool.stats().finished == static_cast<std::uint64_t>(jobs);
    for (const auto& state : states)
        right = right && state.right;
    return right;
}

TEST(Fault_oversubscription, sixty_four_threads_on_few_processors) { EXPECT_TRUE(carry_a_load(64, load)); }

TEST(Fault_stopped_process, goes_on_where_it_was) {
#if defined(TASKPOOL_TEST_TSAN)
    GTEST_SKIP() << "ThreadSanitizer lets the child of a process with threads start none";
#endif
    int goes_on[2]; // until this pipe is closed
    ASSERT_EQ(pipe2(goes_on, O_NONBLOCK), 0);
    const pid_t child = fork(); // this process has no other thread here
    ASSERT_GE(child, 0);
    if (child == 0) {
        alarm(60); // a child that hangs dies of it
        close(goes_on[1]);
        // Timers and deadlines, too, run on over the stop: what was due meanwhile comes late, and once.
        std::atomic<int> timed = 0;
        bool right = true;
        {
            task_pool pool({.threads = 2});
            for (int i = 0; i < 300; ++i)
                right =
                    right && pool.submit_after(std::chrono::milliseconds(i), std::to_string(i % 10), [&] { ++timed; });
            auto beat = pool.submit_every(1ms, "beat", [] {});
            char none = 0;
            do {
                alarm(60); // anew: the parent may take its time
                right = carry_a_load(2, load) && right;
            } while (right && read(goes_on[0], &none, 1) != 0);
            beat.cancel();
            pool.drain();
        }
        _exit(right && timed == 300 ? 0 : 1);
    }
    for (int i = 0; i < 10; ++i) {
        std::this_thread::sleep_for(5ms);
        kill(child, SIGSTOP);
        int status = 0;
        ASSERT_TRUE(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status)) << "status " << status;
        std::this_thread::sleep_for(5ms);
        kill(child, SIGCONT);
    }
    close(goes_on[0]);
    close(goes_on[1]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

} // namespace
} // namespace taskpool::testing
#endif
