// SPDX-License-Identifier: Apache-2.0
// G7: a key with no work keeps no memory for longer than about a second; any number of distinct keys may pass through.
#include "testing.hpp"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace taskpool::testing {
namespace {

// What the pool may keep for hottest_keys(): 256 keys. Some more for what is being looked at.
constexpr std::int64_t few_keys = 300;

TEST(G7_forgets, keys_without_work_are_gone_within_seconds_though_nothing_else_happens) {
    counted_pool pool({.threads = 2});
    const auto before = counted_key::alive.load();
    for (std::uint64_t i = 0; i < 100'000; ++i)
        ASSERT_TRUE(pool.submit(counted_key(i), [] {}));
    pool.drain();
    EXPECT_EQ(pool.active_keys(), 0U);
    EXPECT_TRUE(eventually([&] { return counted_key::alive - before <= few_keys; }, 10s))
        << counted_key::alive - before << " keys are still there";
}

TEST(G7_forgets, keys_without_work_are_gone_while_another_key_is_busy) {
    counted_pool pool({.threads = 2});
    const auto before = counted_key::alive.load();
    for (std::uint64_t i = 0; i < 100'000; ++i)
        ASSERT_TRUE(pool.submit(counted_key(i), [] {}));
    std::uint64_t more = 0;
    EXPECT_TRUE(eventually(
        [&] {
            for (int i = 0; i < 10; ++i)
                pool.submit(counted_key(1'000'000), [&] { ++more; });
            return counted_key::alive - before <= few_keys;
        },
        10s))
        << counted_key::alive - before << " keys are still there";
    pool.drain();
}

TEST(G7_forgets, a_cancelled_key_is_gone_too) {
    counted_pool pool({.threads = 2, .autostart = false});
    const auto before = counted_key::alive.load();
    for (std::uint64_t i = 0; i < 10'000; ++i)
        ASSERT_TRUE(pool.submit(counted_key(i), [] {}));
    for (std::uint64_t i = 0; i < 10'000; ++i)
        ASSERT_EQ(pool.cancel(counted_key(i)), 1U);
    EXPECT_EQ(pool.active_keys(), 0U);
    pool.start();
    EXPECT_TRUE(eventually([&] { return counted_key::alive - before <= few_keys; }, 10s))
        << counted_key::alive - before << " keys are still there";
}

TEST(G7_forgets, a_key_that_was_only_looked_at_is_not_remembered) {
    counted_pool pool({.threads = 2});
    const auto before = counted_key::alive.load();
    for (std::uint64_t i = 0; i < 10'000; ++i) {
        EXPECT_EQ(pool.cancel(counted_key(i)), 0U);
        pool.drain(counted_key(i));
        (void)pool.lane(counted_key(i));
    }
    EXPECT_TRUE(eventually([&] { return counted_key::alive - before <= few_keys; }, 10s))
        << counted_key::alive - before << " keys are still there";
}

// I-LANE-6
TEST(G7_forgets, a_handle_keeps_its_key_and_lets_it_go) {
    counted_pool pool({.threads = 2});
    const auto before = counted_key::alive.load();
    {
        std::vector<counted_pool::lane_handle> handles;
        for (std::uint64_t i = 0; i < 1'000; ++i) {
            handles.push_back(pool.lane(counted_key(i)));
            ASSERT_TRUE(handles.back().submit([] {}));
        }
        pool.drain();
        EXPECT_TRUE(for_a_while([&] { return counted_key::alive - before >= 1'000; }, 2s));
    }
    EXPECT_TRUE(eventually([&] { return counted_key::alive - before <= few_keys; }, 10s))
        << counted_key::alive - before << " keys are still there";
}

TEST(G7_forgets, a_key_that_comes_back_again_and_again_is_forgotten_between) {
    // Numbers begin anew once a key had no work.
    task_pool pool({.threads = 2});
    for (int i = 0; i < 1'000; ++i) {
        std::uint64_t number = 0;
        ASSERT_TRUE(pool.submit("key", [&](const job_context& context) { number = context.number(); }));
        pool.drain("key");
        ASSERT_EQ(number, 1U);
    }
}

TEST(G7_forgets, everything_is_freed_with_the_pool) {
    const auto before = counted_key::alive.load();
    {
        counted_pool pool({.threads = 2, .autostart = false});
        for (std::uint64_t i = 0; i < 1'000; ++i)
            ASSERT_TRUE(pool.submit(counted_key(i), [] {}));
        EXPECT_GE(counted_key::alive - before, 1'000);
    }
    EXPECT_EQ(counted_key::alive - before, 0);
}

#if defined(__GLIBC__)
#if !defined(TASKPOOL_TEST_ASAN) && !defined(TASKPOOL_TEST_TSAN) // their allocators have no mallinfo2
std::size_t bytes_in_use() {
    const auto info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

TEST(G7_forgets, a_million_distinct_keys_pass_through_in_bounded_memory) {
    // To remember a million such keys would take 200 MB.
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .pool_capacity = 10'000});
    const std::size_t before = bytes_in_use();
    const std::string prefix(100, 'k');
    for (int i = 0; i < 1'000'000; ++i)
        ASSERT_TRUE(pool.submit(prefix + std::to_string(i), [&] { ran.fetch_add(1, std::memory_order_relaxed); }));
    pool.drain();
    EXPECT_EQ(ran, 1'000'000);
    const auto grown = [&] { return bytes_in_use() > before ? bytes_in_use() - before : 0; };
    EXPECT_TRUE(eventually([&] { return grown() < std::size_t{20} << 20; }, 10s))
        << grown() << " bytes are still in use";
}

TEST(G7_forgets, an_idle_key_behind_a_handle_holds_no_queue) {
    // Fifty jobs have waited under each key, which take some 3 kB; an idle one may keep 500 bytes.
    constexpr std::size_t keys = 10'000;
    task_pool pool({.threads = 2, .autostart = false});
    std::vector<task_pool::lane_handle> handles;
    handles.reserve(keys);
    const std::size_t before = bytes_in_use();
    for (std::size_t key = 0; key < keys; ++key) {
        handles.push_back(pool.lane(std::to_string(key)));
        for (int i = 0; i < 50; ++i)
            ASSERT_TRUE(handles.back().submit([] {}));
    }
    const auto grown = [&] { return bytes_in_use() > before ? bytes_in_use() - before : 0; };
    EXPECT_GT(grown(), keys * 2'000);
    pool.start();
    pool.drain();
    EXPECT_TRUE(eventually([&] { return grown() < keys * 500; }, 10s)) << grown() << " bytes are still in use";
}
#endif
#endif

} // namespace
} // namespace taskpool::testing
