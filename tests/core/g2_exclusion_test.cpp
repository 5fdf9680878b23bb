// SPDX-License-Identifier: Apache-2.0
// G2: two jobs of one key never overlap, and the end of one happens-before the start of the next. The plain, unguarded
// state of these tests is the point: ThreadSanitizer sees where the second half is broken.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

struct guarded_by_key {
    bool inside = false;
    std::uint64_t count = 0;
    std::vector<int> entries;
};

// I-LANE-2, I-LANE-4: plain state, under ThreadSanitizer
TEST(G2_exclusion, per_key_state_needs_no_lock) {
    constexpr std::size_t keys = 8, producers = 4;
    constexpr int jobs = 30'000;
    std::array<guarded_by_key, keys> states;
    std::atomic<int> overlaps = 0;
    std::latch begin(producers);
    basic_task_pool<std::size_t> pool({.threads = 4});
    std::vector<std::thread> threads;
    for (std::size_t producer = 0; producer < producers; ++producer) {
        threads.emplace_back([&, producer] {
            begin.arrive_and_wait();
            for (int i = 0; i < jobs; ++i) {
                const std::size_t key = (static_cast<std::size_t>(i) + producer) % keys;
                pool.submit(key, [&overlaps, &state = states[key], i] {
                    if (std::exchange(state.inside, true))
                        ++overlaps;
                    ++state.count;
                    if (state.entries.size() > 1'000)
                        state.entries.clear();
                    state.entries.push_back(i);
                    state.inside = false;
                });
            }
        });
    }
    for (auto& thread : threads)
        thread.join();
    pool.drain();
    EXPECT_EQ(overlaps, 0);
    std::uint64_t count = 0;
    for (const auto& state : states)
        count += state.count;
    EXPECT_EQ(count, producers * jobs);
}

TEST(G2_exclusion, holds_while_a_job_blocks_and_other_threads_are_free) {
    gate until;
    std::atomic<int> others = 0;
    bool second_ran = false;
    task_pool pool({.threads = 4});
    const opener at_end(until);
    occupy(pool, "key", until);
    ASSERT_TRUE(pool.submit("key", [&] { second_ran = true; }));
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(pool.submit("other" + std::to_string(i), [&] { ++others; }));
    // Four threads have run all else there is, so one of them would have run the second job.
    ASSERT_TRUE(eventually([&] { return others == 100; }));
    EXPECT_TRUE(for_a_while([&] { return pool.stats().waiting == 1; }));
    until.open();
    pool.drain();
    EXPECT_TRUE(second_ran);
}

// I-LANE-2
TEST(G2_exclusion, holds_while_the_pool_replaces_blocked_threads) {
    // Each job blocks for a moment, so the key's jobs and their threads come and go.
    constexpr int keys = 20, jobs = 20;
    std::array<bool, keys> inside{};
    std::array<int, keys> count{};
    std::atomic<int> overlaps = 0;
    basic_task_pool<int> pool({.threads = 1});
    for (int i = 0; i < jobs; ++i) {
        for (int key = 0; key < keys; ++key) {
            ASSERT_TRUE(pool.submit(key, [&, key] {
                const auto k = static_cast<std::size_t>(key);
                if (std::exchange(inside[k], true))
                    ++overlaps;
                {
                    const blocking_scope blocking;
                    std::this_thread::yield();
                }
                ++count[k];
                inside[k] = false;
            }));
        }
    }
    pool.drain();
    EXPECT_EQ(overlaps, 0);
    for (const int of_key : count)
        EXPECT_EQ(of_key, jobs);
}

TEST(G2_exclusion, the_end_of_a_job_happens_before_drain_returns) {
    int plain = 0;
    task_pool pool({.threads = 2});
    for (int i = 0; i < 2'000; ++i) {
        ASSERT_TRUE(pool.submit("key", [&] { ++plain; }));
        pool.drain("key");
        ASSERT_EQ(plain, i + 1); // read without a lock
    }
}

TEST(G2_exclusion, a_callable_is_destroyed_before_the_next_job_of_its_key_starts) {
    struct resource {
        explicit resource(int& in_use) : count(&in_use) { ++*count; }
        resource(resource&& other) noexcept : count(std::exchange(other.count, nullptr)) {}
        ~resource() {
            if (count != nullptr)
                --*count;
        }
        int* count;
    };
    int in_use = 0; // changed by jobs of one key, and by callables they own
    bool wrong = false;
    task_pool pool({.threads = 4});
    for (int i = 0; i < 1'000; ++i) {
        ASSERT_TRUE(pool.submit("key", [&, kept = std::unique_ptr<resource>()]() mutable {
            wrong = wrong || in_use != 0;
            kept = std::make_unique<resource>(in_use);
        }));
    }
    pool.drain();
    EXPECT_FALSE(wrong);
    EXPECT_EQ(in_use, 0);
}

} // namespace
} // namespace taskpool::testing
