// SPDX-License-Identifier: Apache-2.0
// Priorities among ready keys, and what becomes of jobs that have one in each event: the row of priority in
// docs/waiting.md, cell by cell.
#include <stdexcept>

#include <taskpool/testing.hpp>

#include "testing.hpp"

namespace taskpool::testing {
namespace {

using strings = std::vector<std::string>;

constexpr job_options high{.priority = priority::high};
constexpr job_options low{.priority = priority::low};

TEST(Priority, of_ready_keys_the_higher_goes_first_and_in_a_class_the_older) {
    strings ran;
    manual_pool pool;
    const auto job = [&ran](const job_context& context) { ran.push_back(context.key()); };
    pool.submit("low1", job, low);
    pool.submit("normal1", job);
    pool.submit("high1", job, high);
    pool.submit("low2", job, low);
    pool.submit("high2", job, high);
    pool.submit("normal2", job);
    pool.run_until_idle();
    EXPECT_EQ(ran, (strings{"high1", "high2", "normal1", "normal2", "low1", "low2"}));
    EXPECT_EQ(pool.stats().high, 2U);
    EXPECT_EQ(pool.stats().low, 2U);
}

TEST(Priority, within_a_key_the_order_is_that_of_the_submits) {
    strings ran;
    manual_pool pool;
    const auto job = [&ran](std::string name) { return [&ran, name] { ran.push_back(name); }; };
    pool.submit("a", job("a1"), low);
    pool.submit("a", job("a2"), high);
    pool.submit("b", job("b1"));
    pool.submit("a", job("a3"));
    pool.submit("c", job("c1"), high);
    pool.submit("c", job("c2"), low);
    pool.run_until_idle();
    EXPECT_EQ(ran, (strings{"c1", "b1", "a1", "a2", "a3", "c2"})); // a's turn comes by its next job: low, then high
}

TEST(Priority, holds_for_every_way_to_submit) {
    strings ran;
    manual_pool pool;
    const auto job = [&ran](const job_context& context) { ran.push_back(context.key()); };
    auto lane = pool.lane("lane");
    pool.submit("normal", job);
    ASSERT_TRUE(pool.try_submit("try", job, high));
    ASSERT_TRUE(pool.submit_for("for", 1s, job, high));
    auto result = pool.async("async", job, high);
    lane.submit(job, high);
    pool.submit("coroutine",
                [&ran]() -> task<> {
                    ran.push_back("coroutine");
                    co_return;
                },
                {.priority = priority::high});
    pool.run_until_idle();
    EXPECT_EQ(ran, (strings{"try", "for", "async", "lane", "coroutine", "normal"}));
    ran.clear();
    pool.submit_after(1s, "a", job, low);
    pool.submit_after(1s, "b", job);
    pool.submit_after(1s, "c", job, high);
    pool.run_for(1s);
    EXPECT_EQ(ran, (strings{"c", "b", "a"}));
}

TEST(Priority, under_a_seed_classes_are_kept) {
    for_each_seed(50, [](std::uint64_t seed) {
        strings ran;
        manual_pool pool({}, seed);
        for (int i = 0; i < 5; ++i) {
            pool.submit(
                "low" + std::to_string(i), [&] { ran.push_back("low"); }, low);
            pool.submit("normal" + std::to_string(i), [&] { ran.push_back("normal"); });
            pool.submit(
                "high" + std::to_string(i), [&] { ran.push_back("high"); }, high);
        }
        pool.run_until_idle();
        strings expected(5, "high");
        expected.insert(expected.end(), 5, "normal");
        expected.insert(expected.end(), 5, "low");
        EXPECT_EQ(ran, expected);
    });
}

/// A pool of one thread that is busy until the gate opens, so that what is submitted meanwhile is ready at once.
class busy_pool {
  public:
    explicit busy_pool(std::chrono::milliseconds ageing)
        : pool({.threads = 1, .max_threads = 1, .ageing = ageing}), opens_(busy) {
        occupy(pool, "busy", busy);
    }
    auto job(const char* name) {
        return [this, name] { ran.push_back(name); };
    }

    gate busy;
    strings ran; // by the only thread
    task_pool pool;

  private:
    const opener opens_;
};

TEST(Priority, the_higher_goes_first_on_threads_too) {
    busy_pool b(1h);
    for (int i = 0; i < 10; ++i)
        b.pool.submit("low" + std::to_string(i), b.job("low"), low);
    let_ticks_pass();
    for (int i = 0; i < 10; ++i)
        b.pool.submit("normal" + std::to_string(i), b.job("normal"));
    let_ticks_pass();
    for (int i = 0; i < 10; ++i)
        b.pool.submit("high" + std::to_string(i), b.job("high"), high);
    b.busy.open();
    b.pool.drain();
    strings expected(10, "high");
    expected.insert(expected.end(), 10, "normal");
    expected.insert(expected.end(), 10, "low");
    EXPECT_EQ(b.ran, expected);
}

TEST(Priority, what_has_waited_long_enough_goes_before_a_higher_class) {
    busy_pool b(5ms);
    b.pool.submit("normal", b.job("normal"));
    b.pool.submit("low", b.job("low"), low);
    const auto so_far = b.pool.stats().oldest_wait;
    ASSERT_TRUE(oldest_waits(b.pool, so_far + 30ms)); // over twice the ageing
    b.pool.submit("high", b.job("high"), high);
    b.busy.open();
    b.pool.drain();
    EXPECT_EQ(b.ran, (strings{"normal", "low", "high"}));
}

TEST(Priority, none_starves_while_a_higher_class_keeps_coming) {
    std::atomic<bool> done = false;
    task_pool pool({.threads = 1, .max_threads = 1, .ageing = 20ms});
    std::thread producer([&] {
        for (int i = 0; !done; ++i)
            pool.submit(
                "high" + std::to_string(i % 100), [] { burn(50us); }, high); // more than one thread can do
    });
    EXPECT_TRUE(eventually([&] { return pool.stats().waiting > 100; }));
    pool.submit(
        "low", [&] { done = true; }, low);
    EXPECT_TRUE(eventually([&] { return done.load(); }));
    producer.join();
}

TEST(Priority, waits_are_told_as_they_were) {
    busy_pool b(1h);
    b.pool.submit(
        "low", [] {}, low);
    b.pool.submit(
        "high", [] {}, high);
    b.busy.open();
    b.pool.drain();
    EXPECT_EQ(b.pool.stats().wait_time.total(), 3U);
    EXPECT_LT(b.pool.stats().wait_time.quantile(1), 10min);
}

TEST(Priority, an_ageing_without_sense_is_refused) {
    EXPECT_THROW(task_pool({.ageing = -1ms}), std::invalid_argument);
    EXPECT_THROW(task_pool({.ageing = 2h}), std::invalid_argument);
    task_pool none({.ageing = 0ms});
    EXPECT_TRUE(none.submit(
        "key", [] {}, high));
    none.drain();
    strings ran;
    manual_pool by_age({.ageing = 0ms});
    by_age.submit("normal", [&] { ran.push_back("normal"); });
    by_age.submit(
        "high", [&] { ran.push_back("high"); }, high);
    by_age.drain();
    EXPECT_EQ(ran, (strings{"normal", "high"}));
}

TEST(Priority, order_and_counts_with_random_priorities_stress) {
    constexpr int jobs = 100'000 / slowness;
    std::array<std::array<int, 20>, 4> last{}; // per producer and key
    std::array<std::atomic<std::uint64_t>, 3> submitted{};
    task_pool pool({.threads = 2, .ageing = 2ms});
    std::vector<std::thread> producers;
    for (std::size_t p = 0; p < last.size(); ++p)
        producers.emplace_back([&, p] {
            std::minstd_rand random(static_cast<unsigned>(p + 1));
            for (int i = 1; i <= jobs; ++i) {
                const std::size_t key = random() % 20;
                const auto how = static_cast<priority>(random() % 3);
                ++submitted[static_cast<std::size_t>(how)];
                ASSERT_TRUE(pool.submit(std::to_string(key),
                                        [&last, p, key, i] { EXPECT_LT(std::exchange(last[p][key], i), i); },
                                        {.priority = how}));
            }
        });
    for (auto& producer : producers)
        producer.join();
    pool.drain();
    const auto stats = pool.stats();
    EXPECT_EQ(stats.finished, static_cast<std::uint64_t>(jobs) * last.size());
    EXPECT_EQ(stats.high, submitted[static_cast<std::size_t>(priority::high)]);
    EXPECT_EQ(stats.low, submitted[static_cast<std::size_t>(priority::low)]);
}

TEST(Priority, a_coroutine_that_goes_on_counts_as_normal_whatever_waits_behind_it) {
    strings ran;
    manual_pool pool;
    held kept;
    pool.submit("key",
                [&]() -> task<> {
                    kept = (co_await this_job()).hold();
                    co_await sleep_for(1s);
                    ran.push_back("coroutine");
                },
                {.while_suspended = suspension::interleave});
    pool.run_until_idle();
    pool.submit(
        "key", [&] { ran.push_back("behind"); }, low);
    kept.release(); // it lends its key now, which is queued
    pool.clock().advance(2s);
    pool.submit(
        "other", [&] { ran.push_back("other"); }, high);
    for (int i = 0; i < 3; ++i)
        pool.submit("other" + std::to_string(i), [&] { ran.push_back("other"); });
    pool.run_until_idle();
    EXPECT_EQ(ran, (strings{"other", "coroutine", "other", "other", "other", "behind"}));
}

// --- Matrix ----------------------------------------------------------------------------------------------------------

TEST(Matrix_priority, stop) {
    strings ran;
    manual_pool pool;
    pool.submit("must1", [&] { ran.push_back("low"); }, {.on_stop = stop_action::run, .priority = priority::low});
    pool.submit(
        "may", [&] { ran.push_back("discarded"); }, high);
    pool.submit("must2", [&] { ran.push_back("high"); }, {.on_stop = stop_action::run, .priority = priority::high});
    EXPECT_EQ(pool.stop().discarded, 1U);
    EXPECT_EQ(ran, (strings{"high", "low"}));
}

TEST(Matrix_priority, drain) {
    bool ran = false;
    manual_pool pool;
    pool.submit(
        "key", [&] { ran = true; }, low);
    pool.drain();
    EXPECT_TRUE(ran);
}

TEST(Matrix_priority, cancel_key) {
    manual_pool pool;
    pool.submit(
        "key", [] { FAIL(); }, high);
    EXPECT_EQ(pool.cancel("key"), 1U);
    pool.drain();
    EXPECT_EQ(pool.stats().high, 0U); // it never came to its turn
}

TEST(Matrix_priority, job_throws) {
    strings ran;
    manual_pool pool({.on_failure = [&](const failure& f) { ran.emplace_back(f.key); }});
    pool.submit("normal", [&] { ran.push_back("normal"); });
    pool.submit(
        "high", [] { throw std::runtime_error("no"); }, high);
    pool.drain();
    EXPECT_EQ(ran, (strings{"high", "normal"}));
}

TEST(Matrix_priority, lane_full) {
    manual_pool pool({.lane_capacity = 1});
    ASSERT_TRUE(pool.submit(
        "key", [] {}, low));
    EXPECT_EQ(pool.try_submit(
                  "key", [] {}, high),
              submit_status::full); // no class has room of its own
}

TEST(Matrix_priority, pool_full) {
    manual_pool pool({.pool_capacity = 1});
    ASSERT_TRUE(pool.submit(
        "key", [] {}, low));
    EXPECT_EQ(pool.try_submit(
                  "other", [] {}, high),
              submit_status::full);
}

TEST(Matrix_priority, overflow_rules) {
    strings ran;
    manual_pool pool({.lane_capacity = 1, .when_full = overflow::drop_oldest});
    pool.submit(
        "key", [&] { ran.push_back("high"); }, high);
    pool.submit(
        "key", [&] { ran.push_back("low"); }, low); // the oldest goes, whatever its class
    pool.drain();
    EXPECT_EQ(ran, strings{"low"});
}

TEST(Matrix_priority, key_paused) {
    strings ran;
    manual_pool pool;
    pool.pause("high");
    pool.submit(
        "high", [&] { ran.push_back("high"); }, high);
    pool.submit("normal", [&] { ran.push_back("normal"); });
    pool.run_until_idle();
    pool.submit("normal", [&] { ran.push_back("normal"); });
    pool.resume("high");
    pool.run_until_idle();
    EXPECT_EQ(ran, (strings{"normal", "high", "normal"}));
}

} // namespace
} // namespace taskpool::testing
