// SPDX-License-Identifier: Apache-2.0
// The explorer finds what it is there to find, and does not find what cannot be. Without this no other test of its kind
// is worth anything.
#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>

#include <gtest/gtest.h>

#include "checked.hpp"
#include "explorer.hpp"
#include "sync.hpp"

namespace taskpool::model {
namespace {

namespace sync = detail::sync;

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acquire = std::memory_order_acquire;
constexpr auto release = std::memory_order_release;
constexpr auto acq_rel = std::memory_order_acq_rel;
constexpr auto seq_cst = std::memory_order_seq_cst;

const bounds all = {.preemptions = 4, .stale_reads = 4, .random = 200};

/// Two threads; waits for both.
void both(std::function<void()> a, std::function<void()> b) {
    std::thread first = start(std::move(a));
    std::thread second = start(std::move(b));
    first.join();
    second.join();
}

void message_passing(std::memory_order store_flag, std::memory_order load_flag) {
    sync::atomic<int> data{0};
    sync::atomic<bool> flag{false};
    both(
        [&] {
            data.store(1, relaxed);
            flag.store(true, store_flag);
        },
        [&] {
            if (flag.load(load_flag))
                require(data.load(relaxed) == 1, "the message has come");
        });
}

TEST(Explorer, finds_stale_data_behind_a_flag_without_acquire_or_release) {
    EXPECT_NE(explore(all, [] { message_passing(relaxed, relaxed); }).failure, "");
    EXPECT_NE(explore(all, [] { message_passing(release, relaxed); }).failure, "");
    EXPECT_NE(explore(all, [] { message_passing(relaxed, acquire); }).failure, "");
}

TEST(Explorer, finds_nothing_in_message_passing_by_acquire_and_release) {
    const outcome result = explore(all, [] { message_passing(release, acquire); });
    EXPECT_EQ(result.failure, "");
    EXPECT_TRUE(result.complete);
    EXPECT_GT(result.systematic, 10U);
    EXPECT_EQ(result.random, 200U);
}

TEST(Explorer, finds_it_at_random_too) {
    const bounds only_random = {.preemptions = 0, .stale_reads = 0, .random = 1'000};
    EXPECT_NE(explore(only_random, [] { message_passing(relaxed, acquire); }).failure, "");
}

TEST(Explorer, finds_nothing_in_message_passing_through_a_read_modify_write_in_between) {
    // The relaxed addition carries on what the store released.
    const outcome result = explore(all, [] {
        int data = 0;
        sync::atomic<int> flag{0};
        std::thread adds = start([&] { flag.fetch_add(1, relaxed); });
        both(
            [&] {
                data = 1;
                flag.store(10, release);
            },
            [&] {
                if (flag.load(acquire) == 11)
                    require(data == 1, "the message has come");
            });
        adds.join();
    });
    EXPECT_EQ(result.failure, "");
    EXPECT_TRUE(result.complete);
}

void store_buffering(std::memory_order store, std::memory_order load) {
    sync::atomic<int> x{0};
    sync::atomic<int> y{0};
    int seen_x = 0;
    int seen_y = 0;
    both(
        [&] {
            x.store(1, store);
            seen_y = y.load(load);
        },
        [&] {
            y.store(1, store);
            seen_x = x.load(load);
        });
    require(seen_x + seen_y > 0, "one of the two sees the other's store");
}

TEST(Explorer, finds_store_buffering_under_acquire_and_release_but_not_under_seq_cst) {
    EXPECT_NE(explore(all, [] { store_buffering(release, acquire); }).failure, "");
    const outcome result = explore(all, [] { store_buffering(seq_cst, seq_cst); });
    EXPECT_EQ(result.failure, "");
    EXPECT_TRUE(result.complete);
}

TEST(Explorer, finds_that_two_readers_see_independent_writes_in_different_orders) {
    EXPECT_NE(explore({.preemptions = 3, .stale_reads = 3, .random = 0},
                      [] {
                          sync::atomic<int> x{0};
                          sync::atomic<int> y{0};
                          int seen[4];
                          std::thread writes_x = start([&] { x.store(1, release); });
                          std::thread writes_y = start([&] { y.store(1, release); });
                          both([&] { seen[0] = x.load(acquire), seen[1] = y.load(acquire); },
                               [&] { seen[2] = y.load(acquire), seen[3] = x.load(acquire); });
                          writes_x.join();
                          writes_y.join();
                          require(!(seen[0] == 1 && seen[1] == 0 && seen[2] == 1 && seen[3] == 0), "one order");
                      })
                  .failure,
              "");
}

TEST(Explorer, a_location_is_coherent) {
    // What a thread has read, it never unreads; nor does who was told by it.
    const outcome result = explore({.preemptions = 2, .stale_reads = 2, .random = 1'000}, [] {
        sync::atomic<int> x{0};
        sync::atomic<bool> told{false};
        std::thread writes = start([&] {
            x.store(1, relaxed);
            x.store(2, relaxed);
        });
        both(
            [&] {
                const int first = x.load(relaxed);
                require(x.load(relaxed) >= first, "never backwards");
                if (first == 2)
                    told.store(true, release);
            },
            [&] {
                if (told.load(acquire))
                    require(x.load(relaxed) == 2, "never backwards across threads");
            });
        writes.join();
    });
    EXPECT_EQ(result.failure, "");
}

TEST(Explorer, a_read_modify_write_reads_the_newest_store) {
    const outcome result = explore(all, [] {
        sync::atomic<int> x{0};
        both([&] { x.fetch_add(1, relaxed); }, [&] { x.fetch_add(1, relaxed); });
        require(x.load(relaxed) == 2, "both count");
    });
    EXPECT_EQ(result.failure, "");
    EXPECT_TRUE(result.complete);
}

TEST(Explorer, finds_an_update_that_is_lost) {
    EXPECT_NE(explore(all,
                      [] {
                          sync::atomic<int> x{0};
                          const auto add = [&] { x.store(x.load(seq_cst) + 1, seq_cst); };
                          both(add, add);
                          require(x.load(seq_cst) == 2, "both count");
                      })
                  .failure,
              "");
}

TEST(Explorer, finds_every_interleaving_of_two_threads) {
    // 2 x 2 stores: 6 orders, and all of them with three preemptions.
    std::set<std::array<int, 4>> orders;
    const outcome result = explore({.preemptions = 3, .stale_reads = 0, .random = 0}, [&] {
        std::array<int, 4> order{};
        std::size_t next = 0;
        sync::atomic<int> x{0};
        const auto twice = [&](int who) {
            for (int i = 0; i < 2; ++i) {
                x.store(who, relaxed);
                order[next++] = who;
            }
        };
        both([&] { twice(1); }, [&] { twice(2); });
        orders.insert(order);
    });
    EXPECT_TRUE(result.complete);
    EXPECT_EQ(orders.size(), 6U);
}

TEST(Explorer, finds_a_race_for_a_plain_cell_and_none_under_a_lock) {
    EXPECT_NE(explore(all,
                      [] {
                          checked<int> cell(0);
                          const auto add = [&] { cell.set(cell.get() + 1); };
                          both(add, add);
                      })
                  .failure.find("race"),
              std::string::npos);
    const outcome result = explore(all, [] {
        checked<int> cell(0);
        sync::spin_lock lock;
        const auto add = [&] {
            const std::lock_guard guard(lock);
            cell.set(cell.get() + 1);
        };
        both(add, add);
        require(cell.get() == 2, "both count");
    });
    EXPECT_EQ(result.failure, "");
    EXPECT_TRUE(result.complete);
}

TEST(Explorer, finds_a_wake_up_that_is_lost_as_a_deadlock) {
    const auto failure = explore(all, [] {
                             sync::mutex mutex;
                             sync::condition_variable came;
                             sync::atomic<bool> is_there{false};
                             both(
                                 [&] {
                                     is_there.store(true, seq_cst); // not under the lock
                                     came.notify_one();
                                 },
                                 [&] {
                                     std::unique_lock lock(mutex);
                                     came.wait(lock, [&] { return is_there.load(seq_cst); });
                                 });
                         }).failure;
    EXPECT_NE(failure.find("deadlock"), std::string::npos) << failure;
}

TEST(Explorer, finds_no_deadlock_where_the_flag_is_set_under_the_lock) {
    const outcome result = explore(all, [] {
        sync::event event; // the product's own
        both([&] { event.signal(); }, [&] { event.wait(); });
    });
    EXPECT_EQ(result.failure, "");
    EXPECT_TRUE(result.complete);
}

TEST(Explorer, finds_a_deadlock_of_two_locks_that_are_taken_in_two_orders) {
    const auto in_both_orders = [](auto& a, auto& b) {
        both(
            [&] {
                const std::lock_guard first(a);
                const std::lock_guard second(b);
            },
            [&] {
                const std::lock_guard first(b);
                const std::lock_guard second(a);
            });
    };
    EXPECT_NE(explore(all,
                      [&] {
                          sync::mutex a;
                          sync::mutex b;
                          in_both_orders(a, b);
                      })
                  .failure.find("deadlock"),
              std::string::npos);
    bounds few_steps = all;
    few_steps.steps = 300;
    EXPECT_NE(explore(few_steps,
                      [&] {
                          sync::spin_lock a;
                          sync::spin_lock b;
                          in_both_orders(a, b);
                      })
                  .failure.find("no end in sight"),
              std::string::npos);
}

TEST(Explorer, finds_an_atomic_that_is_used_after_its_end) {
    const auto failure = explore(all, [] {
                             auto x = std::make_unique<sync::atomic<int>>(0);
                             std::thread uses = start([&, at = x.get()] { at->store(1, relaxed); });
                             x.reset();
                             uses.join();
                         }).failure;
    EXPECT_TRUE(failure.find("after its end") != std::string::npos || failure.find("the end of") != std::string::npos)
        << failure;
}

TEST(Explorer, finds_that_the_last_reference_is_dropped_before_another_drop_is_known) {
    const auto drop_both = [](std::memory_order order) {
        auto* const references = new sync::atomic<int>(2);
        const auto drop = [=] {
            if (references->fetch_sub(1, order) == 1)
                delete references;
        };
        both(drop, drop);
    };
    for (const auto order : {relaxed, acquire, release})
        EXPECT_NE(explore(all, [&] { drop_both(order); }).failure.find("race"), std::string::npos);
    EXPECT_EQ(explore(all, [&] { drop_both(acq_rel); }).failure, "");
}

TEST(Explorer, time_passes_only_when_nobody_can_run) {
    const outcome result = explore(all, [] {
        sync::event event;
        const auto begin = std::chrono::steady_clock::now();
        std::thread signals = start([&] { event.signal(); });
        require(event.wait_until(begin + std::chrono::seconds(1)), "in time");
        require(!event.wait_until(begin + std::chrono::seconds(2)), "nobody signals twice");
        require(std::chrono::steady_clock::now() == begin + std::chrono::seconds(2), "as late as that");
        signals.join();
    });
    EXPECT_EQ(result.failure, "");
    EXPECT_TRUE(result.complete);

    bounds impatient = all;
    impatient.time_passes = true;
    EXPECT_NE(explore(impatient,
                      [] {
                          sync::event event;
                          std::thread signals = start([&] { event.signal(); });
                          require(event.wait_until(std::chrono::steady_clock::now() + std::chrono::seconds(1)),
                                  "in time");
                          signals.join();
                      })
                  .failure,
              "");
}

TEST(Explorer, a_schedule_leads_to_the_same_failure_again) {
    const auto scenario = [] { store_buffering(relaxed, relaxed); };
    for (const bounds& by : {bounds{.preemptions = 3, .stale_reads = 2, .random = 0},
                             bounds{.preemptions = 0, .stale_reads = 0, .random = 10'000}}) {
        const outcome found = explore(by, scenario);
        ASSERT_NE(found.failure, "");
        setenv("TASKPOOL_MODEL_SCHEDULE", found.schedule.c_str(), 1);
        const outcome again = explore(by, scenario);
        setenv("TASKPOOL_MODEL_SCHEDULE", "", 1);
        const outcome usual = explore(by, scenario); // the one without a decision against the usual
        unsetenv("TASKPOOL_MODEL_SCHEDULE");
        EXPECT_EQ(again.failure, found.failure);
        EXPECT_EQ(again.systematic + again.random, 0U);
        EXPECT_EQ(usual.failure, "");
    }
}

} // namespace
} // namespace taskpool::model
