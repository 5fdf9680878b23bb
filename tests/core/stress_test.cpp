// SPDX-License-Identifier: Apache-2.0
// Ten million jobs under mixed operations. In every case each job checks that it is alone under its key (by state that
// no lock guards), that the jobs of its producer come in order, and at the end the counts are exact.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

constexpr std::size_t most_producers = 4;

/// What belongs to a key: plain, for G2 guards it.
struct key_state {
    bool inside = false;
    std::uint32_t ran = 0;
    std::array<std::uint32_t, most_producers> last{}; // of each producer's jobs, numbered from 1
};

std::atomic<std::uint64_t> overlaps = 0, disorders = 0;

void enter(key_state& state, std::uint32_t producer, std::uint32_t number) {
    if (std::exchange(state.inside, true))
        overlaps.fetch_add(1, std::memory_order_relaxed);
    if (number <= std::exchange(state.last[producer], number))
        disorders.fetch_add(1, std::memory_order_relaxed);
    ++state.ran;
}

/// The job of most cases: 16 bytes.
struct checked_job {
    key_state* state;
    std::uint32_t producer;
    std::uint32_t number;
    void operator()() const {
        enter(*state, producer, number);
        state->inside = false;
    }
};

/// A sequence of keys of which some are hot: rank r comes up in proportion to 1 / r.
std::vector<std::uint32_t> zipf_keys(std::uint32_t keys, std::size_t draws, unsigned seed) {
    std::vector<double> weights(keys);
    for (std::uint32_t rank = 0; rank < keys; ++rank)
        weights[rank] = 1.0 / (rank + 1);
    std::mt19937 random(seed);
    std::discrete_distribution<std::uint32_t> distribution(weights.begin(), weights.end());
    std::vector<std::uint32_t> drawn(draws);
    for (auto& key : drawn)
        key = distribution(random);
    return drawn;
}

template <class Body>
void run_producers(std::size_t count, Body body) {
    overlaps = 0;
    disorders = 0;
    std::latch begin(static_cast<std::ptrdiff_t>(count));
    std::vector<std::thread> threads;
    for (std::size_t producer = 0; producer < count; ++producer) {
        threads.emplace_back([&, producer] {
            begin.arrive_and_wait();
            body(static_cast<std::uint32_t>(producer));
        });
    }
    for (auto& thread : threads)
        thread.join();
}

std::uint64_t ran_in_all(const std::vector<key_state>& states) {
    std::uint64_t ran = 0;
    for (const auto& state : states)
        ran += state.ran;
    return ran;
}

template <class Pool>
void expect_settled(const Pool& pool, std::uint64_t accepted) {
    const auto stats = pool.stats();
    EXPECT_EQ(overlaps, 0U);
    EXPECT_EQ(disorders, 0U);
    EXPECT_EQ(stats.accepted, accepted);
    EXPECT_EQ(stats.accepted, stats.finished + stats.discarded);
    EXPECT_EQ(stats.waiting, 0U);
    EXPECT_EQ(stats.running, 0U);
    EXPECT_EQ(stats.active_keys, 0U);
    EXPECT_EQ(stats.ready_lanes, 0U);
    EXPECT_EQ(stats.suspended_lanes, 0U);
    EXPECT_EQ(stats.wait_time.total(), stats.finished);
}

TEST(Stress, stress_four_million_jobs_under_hot_and_cold_keys) {
    allow_time(550s);
    constexpr std::uint32_t keys = 10'000, jobs = 1'000'000;
    std::vector<key_state> states(keys);
    basic_task_pool<std::uint32_t> pool({.threads = 3});
    run_producers(4, [&](std::uint32_t producer) {
        const auto draws = zipf_keys(keys, 1 << 16, producer + 1);
        for (std::uint32_t i = 1; i <= jobs; ++i) {
            const auto key = draws[i % draws.size()];
            if (!pool.submit(key, checked_job{&states[key], producer, i}))
                ADD_FAILURE() << "refused";
        }
    });
    pool.drain();
    EXPECT_EQ(ran_in_all(states), 4U * jobs);
    expect_settled(pool, 4U * jobs);
}

// I-LANE-6
TEST(Stress, stress_two_million_jobs_through_handles) {
    allow_time(550s);
    constexpr std::uint32_t keys = 1'000, jobs = 1'000'000;
    std::vector<key_state> states(keys);
    basic_task_pool<std::uint32_t> pool({.threads = 2});
    run_producers(2, [&](std::uint32_t producer) {
        std::vector<basic_lane<std::uint32_t>> lanes;
        for (std::uint32_t key = 0; key < keys; ++key)
            lanes.push_back(pool.lane(key));
        std::minstd_rand random(producer + 1);
        for (std::uint32_t i = 1; i <= jobs; ++i) {
            const auto key = static_cast<std::uint32_t>(random() % keys);
            if (i % 1'024 == 0)
                lanes[key] = pool.lane(key); // handles come and go
            if (!lanes[key].submit(checked_job{&states[key], producer, i}))
                ADD_FAILURE() << "refused";
        }
    });
    pool.drain();
    EXPECT_EQ(ran_in_all(states), 2U * jobs);
    expect_settled(pool, 2U * jobs);
}

TEST(Stress, stress_a_million_and_a_half_jobs_under_as_many_keys) {
    allow_time(550s);
    constexpr std::uint64_t jobs = 750'000;
    std::array<std::atomic<std::uint64_t>, 2> sums{};
    basic_task_pool<std::uint64_t> pool({.threads = 2, .pool_capacity = 100'000});
    run_producers(2, [&](std::uint32_t producer) {
        for (std::uint64_t i = 0; i < jobs; ++i) {
            const auto key = i * 2 + producer;
            if (!pool.submit(key, [&sum = sums[producer], key](const basic_job_context<std::uint64_t>& context) {
                    if (context.key() != key || context.number() != 1)
                        disorders.fetch_add(1, std::memory_order_relaxed);
                    sum.fetch_add(context.key(), std::memory_order_relaxed);
                }))
                ADD_FAILURE() << "refused";
        }
    });
    pool.drain();
    EXPECT_EQ(sums[0], jobs * (jobs - 1));
    EXPECT_EQ(sums[1], jobs * jobs);
    expect_settled(pool, 2 * jobs);
}

TEST(Stress, stress_half_a_million_jobs_through_tiny_lanes_in_a_tiny_pool) {
    allow_time(550s);
    constexpr std::uint32_t keys = 40, jobs = 125'000;
    std::vector<key_state> states(keys);
    basic_task_pool<std::uint32_t> pool({.threads = 2, .lane_capacity = 3, .pool_capacity = 16});
    run_producers(4, [&](std::uint32_t producer) {
        const auto draws = zipf_keys(keys, 1 << 12, producer + 1);
        for (std::uint32_t i = 1; i <= jobs; ++i) {
            const auto key = draws[i % draws.size()];
            if (!pool.submit(key, checked_job{&states[key], producer, i}))
                ADD_FAILURE() << "refused";
        }
    });
    pool.drain();
    EXPECT_EQ(ran_in_all(states), 4U * jobs);
    expect_settled(pool, 4U * jobs);
}

/// What can be done to a pool, by chance. Each producer has a share of every kind.
class mixture {
  public:
    static constexpr std::uint32_t keys = 500;

    explicit mixture(options settings)
        : states_(keys), pool_(with_handlers(std::move(settings))), releaser_([this] { release_holds(); }) {}

    ~mixture() {
        done_ = true;
        releaser_.join();
    }

    void produce(std::uint32_t producer, std::uint32_t jobs) {
        const auto draws = zipf_keys(keys, 1 << 14, producer + 1);
        std::minstd_rand random(producer + 1);
        std::vector<basic_lane<std::uint32_t>> lanes;
        for (std::uint32_t key = 0; key < keys; ++key)
            lanes.push_back(pool_.lane(key));
        for (std::uint32_t i = 1; i <= jobs; ++i) {
            const auto key = draws[random() % draws.size()];
            const checked_job job{&states_[key], producer, i};
            const auto what = random() % 1'000;
            if (what < 300)
                count(pool_.submit(key, job));
            else if (what < 500)
                count(lanes[key].submit(job));
            else if (what < 600)
                count(pool_.try_submit(key, job));
            else if (what < 650)
                count(pool_.submit_for(key, 1ms, job));
            else if (what < 700)
                count(pool_.submit(key, [job, large = std::array<char, 40>()] { // boxed
                    job();
                    (void)large;
                }));
            else if (what < 750)
                count(pool_.submit(key, [job, this] {
                    job();
                    thrown_.fetch_add(1, std::memory_order_relaxed);
                    throw 1;
                }));
            else if (what < 850)
                count(pool_.submit(
                    key, [job, this](const basic_job_context<std::uint32_t>& context) { hold(job, context); }));
            else if (what < 950)
                submit_one_that_submits(key, job);
            else if (what < 985)
                wait_for(key, job, what % 2 == 0);
            else if (what < 990)
                cancelled_ += pool_.cancel(key), count(pool_.submit(key, job));
            else if (what < 992)
                pool_.drain(key), count(pool_.submit(key, job));
            else if (what < 996)
                count(pool_.submit(key, [job](std::stop_token token) {
                    job();
                    (void)token.stop_requested();
                }));
            else
                (void)pool_.stats(), (void)pool_.active_keys(), count(pool_.submit(key, job));
        }
    }

    /// After the producers: the counts are exact.
    void expect_exact() {
        pool_.drain();
        const auto stats = pool_.stats();
        expect_settled(pool_, accepted_);
        EXPECT_EQ(stats.finished, ran_in_all(states_));
        EXPECT_EQ(stats.failed, thrown_);
        EXPECT_EQ(failures_ + future_failures_, thrown_);
        EXPECT_EQ(stats.discarded, discards_);
        EXPECT_EQ(stats.rejected, rejected_);
    }

    auto& pool() { return pool_; }
    std::uint64_t accepted() const { return accepted_; }
    std::uint64_t cancelled() const { return cancelled_; }

    void expect_exact_after_stop() {
        const auto report = pool_.stop();
        EXPECT_EQ(report.finished + report.discarded, accepted_);
        EXPECT_EQ(report.finished, ran_in_all(states_));
        EXPECT_EQ(report.discarded, discards_);
        EXPECT_EQ(overlaps, 0U);
        EXPECT_EQ(disorders, 0U);
        EXPECT_EQ(pool_.active_keys(), 0U);
    }

  private:
    options with_handlers(options settings) {
        settings.on_failure = [this](const failure&) { failures_.fetch_add(1, std::memory_order_relaxed); };
        settings.on_discard = [this](const discard&) { discards_.fetch_add(1, std::memory_order_relaxed); };
        return settings;
    }

    bool count(const submit_result& result) {
        (result ? accepted_ : rejected_).fetch_add(1, std::memory_order_relaxed);
        return result.accepted();
    }

    /// Stays inside its key after it has returned, until another thread lets it go.
    void hold(const checked_job& job, const basic_job_context<std::uint32_t>& context) {
        enter(*job.state, job.producer, job.number);
        const std::lock_guard lock(mutex_);
        holds_.push_back({context.hold(), job.state});
    }

    void release_holds() {
        while (!done_) {
            std::vector<std::pair<held, key_state*>> taken;
            {
                const std::lock_guard lock(mutex_);
                taken.swap(holds_);
            }
            for (auto& [kept, state] : taken) {
                // The job may not have returned yet, but it touches the state no more.
                state->inside = false;
                kept.release();
            }
            if (taken.empty())
                std::this_thread::yield();
        }
    }

    /// Jobs submit to other keys and to their own, and may be refused for a deadlock.
    void submit_one_that_submits(std::uint32_t key, const checked_job& job) {
        count(pool_.submit(key, [job, this, key] {
            job();
            const auto next = (key * 7 + 1) % keys;
            count(pool_.submit(next, [state = &states_[next]] {
                if (std::exchange(state->inside, true))
                    overlaps.fetch_add(1, std::memory_order_relaxed);
                ++state->ran;
                state->inside = false;
            }));
        }));
    }

    void wait_for(std::uint32_t key, const checked_job& job, bool throws) {
        auto result = pool_.async(key, [job, throws, this] {
            job();
            if (throws) {
                thrown_.fetch_add(1, std::memory_order_relaxed);
                throw std::runtime_error("expected");
            }
            return job.number;
        });
        bool accepted = true;
        try {
            EXPECT_EQ(result.get(), job.number);
            EXPECT_FALSE(throws);
        } catch (const job_discarded&) {
        } catch (const job_rejected&) {
            accepted = false;
        } catch (const std::runtime_error&) {
            EXPECT_TRUE(throws);
            future_failures_.fetch_add(1, std::memory_order_relaxed);
        }
        (accepted ? accepted_ : rejected_).fetch_add(1, std::memory_order_relaxed);
    }

    std::vector<key_state> states_;
    std::atomic<std::uint64_t> accepted_ = 0, rejected_ = 0, thrown_ = 0, failures_ = 0, future_failures_ = 0;
    std::atomic<std::uint64_t> discards_ = 0, cancelled_ = 0;
    std::mutex mutex_;
    std::vector<std::pair<held, key_state*>> holds_;
    std::atomic<bool> done_ = false;
    basic_task_pool<std::uint32_t> pool_;
    std::thread releaser_;
};

// I-LANE-7: locks taken in another order would meet
TEST(Stress, stress_two_million_jobs_of_all_kinds_with_cancels_holds_throws_and_waits) {
    allow_time(550s);
    mixture mixed({.threads = 3});
    run_producers(3, [&](std::uint32_t producer) { mixed.produce(producer, 700'000); });
    mixed.expect_exact();
    EXPECT_GE(mixed.accepted(), 2'000'000U);
}

TEST(Stress, stress_stop_in_the_middle_of_all_kinds_of_jobs) {
    allow_time(550s);
    for (std::uint64_t round = 1; round <= 10; ++round) {
        mixture mixed({.threads = 2, .lane_capacity = 10});
        std::thread stopper([&] {
            EXPECT_TRUE(eventually([&] { return mixed.pool().stats().accepted > round * 500; }));
            mixed.pool().stop();
        });
        run_producers(2, [&](std::uint32_t producer) { mixed.produce(producer, 10'000); });
        stopper.join();
        mixed.expect_exact_after_stop();
    }
}

} // namespace
} // namespace taskpool::testing
