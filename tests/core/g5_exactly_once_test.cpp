// SPDX-License-Identifier: Apache-2.0
// G5: an accepted job runs exactly once, or is discarded, counted and reported; a submit that was not accepted says why
// and leaves the job with the caller.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

/// A job that counts how often it ran and how often it was destroyed after it was given away.
class tracked_job {
  public:
    struct counts {
        std::atomic<int> ran = 0;
        std::atomic<int> destroyed = 0;
    };
    explicit tracked_job(counts& where) : counts_(&where) {}
    tracked_job(tracked_job&& other) noexcept : counts_(std::exchange(other.counts_, nullptr)) {}
    ~tracked_job() {
        if (counts_ != nullptr)
            ++counts_->destroyed;
    }
    void operator()() { ++counts_->ran; }
    bool is_here() const { return counts_ != nullptr; }

  private:
    counts* counts_;
};

TEST(G5_exactly_once, every_accepted_job_runs_once) {
    constexpr std::size_t producers = 4, jobs = 20'000;
    std::vector<tracked_job::counts> counts(producers * jobs);
    std::latch begin(producers);
    basic_task_pool<std::size_t> pool({.threads = 4});
    std::vector<std::thread> threads;
    for (std::size_t producer = 0; producer < producers; ++producer) {
        threads.emplace_back([&, producer] {
            begin.arrive_and_wait();
            for (std::size_t i = 0; i < jobs; ++i)
                EXPECT_TRUE(pool.submit(i * i % 997, tracked_job(counts[producer * jobs + i])));
        });
    }
    for (auto& thread : threads)
        thread.join();
    pool.drain();
    for (const auto& job : counts) {
        ASSERT_EQ(job.ran, 1);
        ASSERT_EQ(job.destroyed, 1);
    }
    EXPECT_EQ(pool.stats().accepted, counts.size());
    EXPECT_EQ(pool.stats().finished, counts.size());
    EXPECT_EQ(pool.stats().discarded, 0U);
}

TEST(G5_exactly_once, what_stop_discards_is_reported_once_and_never_runs) {
    constexpr std::size_t keys = 100, jobs = 50;
    std::vector<tracked_job::counts> counts(keys * jobs);
    std::array<std::atomic<int>, keys> reported{};
    std::atomic<int> other_reasons = 0;
    basic_task_pool<std::size_t> pool({.threads = 2, .on_discard = [&](const discard& job) {
                                           ++reported[std::stoul(std::string(job.key))];
                                           other_reasons += job.reason != discard_reason::stopped;
                                       }});
    for (std::size_t i = 0; i < counts.size(); ++i)
        ASSERT_TRUE(pool.submit(i % keys, tracked_job(counts[i])));
    const auto report = pool.stop();
    for (std::size_t key = 0; key < keys; ++key) {
        int discarded = 0;
        for (std::size_t i = key; i < counts.size(); i += keys) {
            ASSERT_LE(counts[i].ran, 1);
            ASSERT_EQ(counts[i].destroyed, 1);
            discarded += counts[i].ran == 0;
        }
        EXPECT_EQ(reported[key], discarded);
    }
    EXPECT_EQ(other_reasons, 0);
    EXPECT_EQ(report.finished + report.discarded, counts.size());
}

TEST(G5_exactly_once, each_reason_for_a_discard_is_told_with_the_key) {
    const auto reported = [](overflow when_full, auto discards) {
        journal<std::pair<std::string, discard_reason>> reports;
        task_pool pool(
            {.lane_capacity = 1, .when_full = when_full, .autostart = false, .on_discard = [&](const discard& job) {
                 reports.add({std::string(job.key), job.reason});
             }});
        discards(pool);
        const auto seen = reports.entries();
        EXPECT_EQ(pool.stats().discarded, seen.size());
        return seen;
    };
    using list = std::vector<std::pair<std::string, discard_reason>>;
    EXPECT_EQ(reported(overflow::block,
                       [](task_pool& pool) {
                           EXPECT_TRUE(pool.submit("one", [] {}));
                           EXPECT_EQ(pool.cancel("one"), 1U);
                       }),
              (list{{"one", discard_reason::cancelled}}));
    EXPECT_EQ(reported(overflow::drop_oldest,
                       [](task_pool& pool) {
                           EXPECT_TRUE(pool.submit("two", [] {}));
                           EXPECT_TRUE(pool.submit("two", [] {}));
                       }),
              (list{{"two", discard_reason::dropped_oldest}}));
    EXPECT_EQ(reported(overflow::keep_latest,
                       [](task_pool& pool) {
                           EXPECT_TRUE(pool.submit("three", [] {}));
                           EXPECT_TRUE(pool.submit("three", [] {}));
                       }),
              (list{{"three", discard_reason::replaced}}));
    EXPECT_EQ(reported(overflow::block,
                       [](task_pool& pool) {
                           EXPECT_TRUE(pool.submit("four", [] {}));
                           pool.stop();
                       }),
              (list{{"four", discard_reason::stopped}}));
}

TEST(G5_exactly_once, the_destructor_reports_what_it_discards) {
    std::atomic<int> reports = 0;
    {
        task_pool pool({.autostart = false,
                        .on_discard = [&](const discard& job) { reports += job.reason == discard_reason::stopped; }});
        for (int i = 0; i < 10; ++i)
            ASSERT_TRUE(pool.submit("key" + std::to_string(i % 3), [] {}));
    }
    EXPECT_EQ(reports, 10);
}

TEST(G5_exactly_once, a_discard_is_reported_before_the_callable_is_destroyed) {
    tracked_job::counts counts;
    int destroyed_when_reported = -1;
    task_pool pool(
        {.autostart = false, .on_discard = [&](const discard&) { destroyed_when_reported = counts.destroyed; }});
    ASSERT_TRUE(pool.submit("key", tracked_job(counts)));
    EXPECT_EQ(pool.cancel("key"), 1U);
    EXPECT_EQ(destroyed_when_reported, 0);
    EXPECT_EQ(counts.destroyed, 1);
    EXPECT_EQ(counts.ran, 0);
}

TEST(G5_exactly_once, a_discard_handler_that_throws_loses_nothing) {
    std::vector<tracked_job::counts> counts(10);
    task_pool pool(
        {.autostart = false, .on_discard = [](const discard&) { throw std::runtime_error("from a handler"); }});
    for (auto& job : counts)
        ASSERT_TRUE(pool.submit("key", tracked_job(job)));
    EXPECT_EQ(pool.cancel("key"), 10U);
    for (const auto& job : counts)
        EXPECT_EQ(job.destroyed, 1);
    EXPECT_EQ(pool.stats().discarded, 10U);
}

TEST(G5_exactly_once, a_submit_not_accepted_says_why_and_leaves_the_job) {
    tracked_job::counts counts;
    tracked_job job(counts);
    task_pool pool({.lane_capacity = 1, .autostart = false});
    ASSERT_TRUE(pool.submit("key", [] {}));

    const auto full = pool.try_submit("key", std::move(job));
    EXPECT_EQ(full, submit_status::full);
    EXPECT_EQ(full.message(), "full");
    ASSERT_TRUE(job.is_here());

    const auto late = pool.submit_for("key", 2ms, std::move(job));
    EXPECT_EQ(late, submit_status::timed_out);
    EXPECT_EQ(late.message(), "timed out");
    ASSERT_TRUE(job.is_here());

    pool.stop();
    const auto stopped = pool.submit("key", std::move(job));
    EXPECT_EQ(stopped, submit_status::stopped);
    EXPECT_EQ(stopped.message(), "stopped");
    ASSERT_TRUE(job.is_here());

    EXPECT_EQ(pool.stats().rejected, 3U);
    EXPECT_EQ(counts.destroyed, 0);
    job();
    EXPECT_EQ(counts.ran, 1);
}

TEST(G5_exactly_once, a_job_refused_for_a_deadlock_is_left_with_the_caller) {
    tracked_job::counts counts;
    std::atomic<bool> left = false;
    std::atomic<submit_status> status = submit_status::accepted;
    task_pool pool({.threads = 1, .lane_capacity = 1});
    ASSERT_TRUE(pool.submit("key", [&] {
        EXPECT_TRUE(pool.submit("key", [] {}));
        tracked_job job(counts);
        status = pool.submit("key", std::move(job)).status();
        left = job.is_here();
    }));
    pool.drain();
    EXPECT_EQ(status, submit_status::would_deadlock);
    EXPECT_TRUE(left);
    EXPECT_EQ(counts.ran, 0);
}

TEST(G5_exactly_once, submits_that_race_with_stop_are_accepted_and_accounted_for_or_refused) {
    for (int round = 0; round < 50; ++round) {
        constexpr std::size_t producers = 3, jobs = 300;
        std::vector<tracked_job::counts> counts(producers * jobs);
        std::vector<char> accepted(producers * jobs);
        std::atomic<std::uint64_t> reported = 0;
        std::latch begin(producers + 1);
        task_pool pool({.threads = 2, .on_discard = [&](const discard&) { ++reported; }});
        std::vector<std::thread> threads;
        for (std::size_t producer = 0; producer < producers; ++producer) {
            threads.emplace_back([&, producer] {
                begin.arrive_and_wait();
                for (std::size_t i = producer; i < counts.size(); i += producers) {
                    tracked_job job(counts[i]);
                    accepted[i] = pool.submit("key" + std::to_string(i % 7), std::move(job)).accepted();
                    EXPECT_EQ(job.is_here(), accepted[i] == 0);
                }
            });
        }
        begin.arrive_and_wait();
        while (pool.stats().accepted < static_cast<std::uint64_t>(round) * 10) // stop at various points
            std::this_thread::yield();
        const auto report = pool.stop();
        for (auto& thread : threads)
            thread.join();
        std::uint64_t taken = 0, ran = 0;
        for (std::size_t i = 0; i < counts.size(); ++i) {
            taken += accepted[i] != 0;
            ran += static_cast<std::uint64_t>(counts[i].ran);
            ASSERT_LE(counts[i].ran, accepted[i] != 0 ? 1 : 0);
            ASSERT_EQ(counts[i].destroyed, 1);
        }
        EXPECT_EQ(report.finished, ran);
        EXPECT_EQ(report.discarded, taken - ran);
        EXPECT_EQ(reported, taken - ran);
        const auto stats = pool.stats();
        EXPECT_EQ(stats.accepted, taken);
        EXPECT_EQ(stats.finished + stats.discarded, taken);
        EXPECT_EQ(stats.rejected, counts.size() - taken);
    }
}

TEST(G5_exactly_once, a_cancel_that_races_with_the_worker_discards_or_lets_run_but_not_both) {
    constexpr std::size_t jobs = 20'000;
    std::vector<tracked_job::counts> counts(jobs);
    std::atomic<std::uint64_t> reported = 0;
    std::atomic<bool> done = false;
    task_pool pool({.threads = 2, .on_discard = [&](const discard&) { ++reported; }});
    std::uint64_t cancelled = 0;
    std::thread canceller([&] {
        while (!done)
            cancelled += pool.cancel("key");
    });
    for (auto& job : counts)
        EXPECT_TRUE(pool.submit("key", tracked_job(job)));
    pool.drain();
    done = true;
    canceller.join();
    std::uint64_t ran = 0;
    for (const auto& job : counts) {
        ASSERT_LE(job.ran, 1);
        ASSERT_EQ(job.destroyed, 1);
        ran += static_cast<std::uint64_t>(job.ran);
    }
    EXPECT_EQ(ran + cancelled, jobs);
    EXPECT_EQ(reported, cancelled);
}

} // namespace
} // namespace taskpool::testing
