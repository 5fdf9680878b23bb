// SPDX-License-Identifier: Apache-2.0
// Jobs for a later time while everything happens at once: they come due, are cancelled by handle and by key, drained
// and stopped. Every job says what became of it, and the counts are exact.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

struct fates {
    std::atomic<std::uint64_t> ran = 0;
    std::atomic<std::uint64_t> ended = 0;     // callables
    std::atomic<std::uint64_t> reported = 0;  // as discarded
    std::atomic<std::uint64_t> cancelled = 0; // as cancel() said
    std::atomic<std::uint64_t> accepted = 0;
    std::atomic<std::uint64_t> lies = 0; // it ran, though cancel() had said that it will not
    std::atomic<std::uint64_t> overlaps = 0;
};

constexpr int keys = 16;

/// What is under each key, touched by its jobs only: plain, for G2 guards it.
struct key_state {
    bool inside = false;
};

/// One job that runs once: its callable ends exactly once, and runs at most once.
class once {
  public:
    once(fates& of, key_state& key, std::shared_ptr<std::atomic<int>> state)
        : of_(&of), key_(&key), state_(std::move(state)) {}
    once(once&&) noexcept = default;
    once& operator=(once&&) = delete;
    ~once() {
        if (state_)
            ++of_->ended;
    }
    void operator()() const {
        of_->overlaps += std::exchange(key_->inside, true) ? 1 : 0;
        of_->lies += state_->exchange(1) != 0 ? 1 : 0; // 2: cancelled
        ++of_->ran;
        key_->inside = false;
    }

  private:
    fates* of_;
    key_state* key_;
    std::shared_ptr<std::atomic<int>> state_;
};

template <class Random>
std::string some_key(Random& random) {
    return std::to_string(random() % keys);
}

void add_and_cancel(task_pool& pool, fates& all, std::array<key_state, keys>& states, unsigned seed, int rounds) {
    std::mt19937 random(seed);
    std::vector<std::pair<timer, std::shared_ptr<std::atomic<int>>>> handles;
    for (int i = 0; i < rounds; ++i) {
        const auto key = random() % keys;
        const auto state = std::make_shared<std::atomic<int>>(0);
        const job_options how{.on_stop = random() % 4 == 0 ? stop_action::run : stop_action::discard};
        timer handle = pool.submit_after(std::chrono::microseconds(random() % 4'000), std::to_string(key),
                                         once(all, states[key], state), how);
        if (handle) {
            ++all.accepted;
            if (random() % 2 == 0)
                handles.emplace_back(std::move(handle), state);
        } else {
            --all.ended; // the one that was refused has ended here
        }
        if (handles.size() > 20 || (!handles.empty() && random() % 3 == 0)) {
            auto& [chosen, its_state] = handles[random() % handles.size()];
            if (chosen.cancel()) {
                ++all.cancelled;
                all.lies += its_state->exchange(2) != 0 ? 1 : 0;
            }
            if (random() % 2 == 0) {
                std::swap(handles[random() % handles.size()], handles.back());
                handles.pop_back();
            }
        }
        if (random() % 64 == 0)
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
    }
}

struct stress_case {
    overflow when_full;
    std::size_t lane_capacity;
    bool by_job; // the pool is destroyed by a job of its own
};

void run_stress(const stress_case& what, int rounds, unsigned seed) {
    fates all;
    std::array<key_state, keys> states;
    auto pool = std::make_unique<task_pool>(options{.threads = 3,
                                                    .lane_capacity = what.lane_capacity,
                                                    .when_full = what.when_full,
                                                    .on_discard = [&](const discard&) { ++all.reported; }});
    std::atomic<std::uint64_t> beats_begun = 0;
    std::atomic<std::uint64_t> beats_alive = 0;
    std::atomic<bool> over = false;
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 3; ++i)
        threads.emplace_back([&, i] { add_and_cancel(*pool, all, states, seed + i, rounds); });
    threads.emplace_back([&] { // keys are cancelled and drained
        std::mt19937 random(seed + 100);
        while (!over) {
            const auto key = some_key(random);
            switch (random() % 4) {
            case 0:
                pool->cancel(key);
                break;
            case 1:
                (void)pool->drain_for(std::chrono::microseconds(random() % 500));
                break;
            case 2:
                (void)pool->stats();
                break;
            default:
                pool->drain(key);
                break;
            }
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
        }
    });
    threads.emplace_back([&] { // some that repeat come and go
        std::mt19937 random(seed + 200);
        std::vector<timer> handles;
        struct alive {
            std::atomic<std::uint64_t>* count;
            explicit alive(std::atomic<std::uint64_t>& c) : count(&c) { ++*count; }
            alive(alive&& other) noexcept : count(std::exchange(other.count, nullptr)) {}
            alive& operator=(alive&&) = delete;
            ~alive() {
                if (count != nullptr)
                    --*count;
            }
        };
        while (!over) {
            const auto key = random() % keys;
            auto* const state = &states[key];
            handles.push_back(pool->submit_every(std::chrono::microseconds(500 + random() % 2'000), std::to_string(key),
                                                 [&, state, counts = alive(beats_alive)] {
                                                     all.overlaps += std::exchange(state->inside, true) ? 1 : 0;
                                                     ++beats_begun;
                                                     state->inside = false;
                                                 }));
            if (handles.size() > 8) {
                auto& chosen = handles[random() % handles.size()];
                if (random() % 2 == 0)
                    chosen.cancel();
                (void)chosen.missed();
                std::swap(chosen, handles.back());
                handles.pop_back();
            }
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 2'000));
        }
    });
    for (unsigned i = 0; i < 3; ++i)
        threads[i].join();
    over = true;
    for (unsigned i = 3; i < threads.size(); ++i)
        threads[i].join();

    // Some more that come due while it is stopped; some of them are cancelled meanwhile.
    std::vector<timer> last;
    std::mt19937 random(seed + 300);
    for (int i = 0; i < 300; ++i) {
        const auto key = random() % keys;
        last.push_back(pool->submit_after(std::chrono::microseconds(random() % 3'000), std::to_string(key),
                                          once(all, states[key], std::make_shared<std::atomic<int>>(0)),
                                          {.on_stop = i % 2 == 0 ? stop_action::run : stop_action::discard}));
        all.accepted += last.back() ? 1 : 0;
    }
    std::atomic<bool> stopped = false;
    std::thread canceller([&] {
        for (std::size_t i = 0; !stopped; i = (i + 7) % last.size()) {
            all.cancelled += last[i].cancel() ? 1 : 0;
            std::this_thread::yield();
        }
    });
    const auto end_canceller = [&] { // it may be telling of one that it has cancelled
        stopped = true;
        canceller.join();
    };
    if (what.by_job) {
        gate submitted, destroyed;
        ASSERT_TRUE(pool->submit_after(0s, "the last", [&] {
            submitted.wait(); // a pool must not be destroyed while somebody submits
            pool.reset();
            destroyed.open();
        }));
        submitted.open();
        destroyed.wait();
        EXPECT_TRUE(eventually([&] { return all.ended == all.accepted && beats_alive == 0; }));
        end_canceller();
    } else {
        std::thread second([&] { pool->stop(); });
        pool->stop();
        second.join();
        end_canceller();
        const auto now = pool->stats();
        EXPECT_EQ(now.accepted, now.finished + now.discarded);
        EXPECT_EQ(now.timers, 0U);
        EXPECT_EQ(now.waiting, 0U);
        EXPECT_EQ(now.discarded, all.reported);
    }
    EXPECT_EQ(all.ended, all.accepted);
    EXPECT_EQ(beats_alive, 0U);
    EXPECT_EQ(all.lies, 0U);
    EXPECT_EQ(all.overlaps, 0U);
    EXPECT_LE(all.ran, all.accepted);
    EXPECT_GE(all.ran + all.reported, all.accepted); // beats are reported, too
    EXPECT_LE(all.cancelled, all.reported);
    if (!what.by_job)
        pool.reset();
}

constexpr int rounds = 6'000 / slowness;

TEST(Timers_stress, come_due_are_cancelled_drained_and_stopped_at_once) {
    allow_time(300s);
    for (unsigned seed = 0; seed < 5; ++seed)
        run_stress({overflow::block, 100, false}, rounds, seed * 1'000);
}

TEST(Timers_stress, with_lanes_that_are_full) {
    allow_time(300s);
    for (unsigned seed = 0; seed < 3; ++seed) {
        run_stress({overflow::block, 1, false}, rounds, seed * 1'000 + 1);
        run_stress({overflow::reject, 1, false}, rounds, seed * 1'000 + 2);
        run_stress({overflow::drop_oldest, 2, false}, rounds, seed * 1'000 + 3);
        run_stress({overflow::keep_latest, 2, false}, rounds, seed * 1'000 + 4);
    }
}

TEST(Timers_stress, with_a_pool_that_its_own_job_destroys) {
    allow_time(300s);
    for (unsigned seed = 0; seed < 10; ++seed)
        run_stress({overflow::block, 3, true}, rounds / 4, seed * 1'000 + 5);
}

TEST(Timers_stress, pools_that_live_shortly) {
    allow_time(300s);
    for (int round = 0; round < 1'000 / slowness; ++round) {
        std::atomic<int> ended = 0;
        struct end {
            std::atomic<int>* count;
            explicit end(std::atomic<int>& c) : count(&c) {}
            end(end&& other) noexcept : count(std::exchange(other.count, nullptr)) {}
            end& operator=(end&&) = delete;
            ~end() {
                if (count != nullptr)
                    ++*count;
            }
        };
        timer kept;
        {
            task_pool pool({.threads = 2});
            for (int i = 0; i < 10; ++i) {
                kept = pool.submit_after(std::chrono::microseconds(i * round % 3'000), std::to_string(i % 3),
                                         [e = end(ended)] {});
                kept = pool.submit_every(1ms, std::to_string(i % 3), [e = end(ended)] {});
            }
            burn(std::chrono::microseconds(round % 1'500));
            if (round % 3 == 0)
                pool.close();
            if (round % 5 == 0) {
                EXPECT_TRUE(pool.drain_for(10s * slowness));
            }
        }
        ASSERT_EQ(ended, 20);
    }
}

} // namespace
} // namespace taskpool::testing
