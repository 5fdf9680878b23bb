// SPDX-License-Identifier: Apache-2.0
// G9: a wait inside a job that could never end is refused at once, with the keys of the cycle; it never hangs (the
// watchdog sees to that here). A wait that can end is not refused.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

using names = std::vector<std::string>;

/// What the waits of one test were told.
class outcomes {
  public:
    /// Runs `wait`, which may throw deadlock_error.
    template <class Wait>
    bool attempt(const std::string& who, Wait wait) {
        try {
            wait();
            return true;
        } catch (const deadlock_error& error) {
            for (const auto& key : error.keys())
                EXPECT_NE(std::string(error.what()).find(key), std::string::npos) << error.what();
            errors_.add({who, error.keys()});
            return false;
        }
    }
    void refused(const std::string& who, const submit_result& result) {
        EXPECT_EQ(result, submit_status::would_deadlock);
        refusals_.add({who, std::string(result.message())});
    }
    std::vector<std::pair<std::string, names>> errors() const { return errors_.entries(); }
    std::vector<std::pair<std::string, std::string>> refusals() const { return refusals_.entries(); }
    std::size_t total() const { return errors_.size() + refusals_.size(); }
    std::string text() const {
        std::string all;
        for (const auto& [who, keys] : errors()) {
            all += who + " was told of";
            for (const auto& key : keys)
                all += " " + key;
            all += "; ";
        }
        for (const auto& [who, message] : refusals())
            all += who + ": " + message + "; ";
        return all;
    }

  private:
    journal<std::pair<std::string, names>> errors_;
    journal<std::pair<std::string, std::string>> refusals_;
};

/// `keys` turned so that it begins with `first`.
names beginning_with(const std::string& first, names keys) {
    std::rotate(keys.begin(), std::find(keys.begin(), keys.end(), first), keys.end());
    return keys;
}

bool mentions(std::string_view message, std::string_view key) { return message.find(key) != std::string_view::npos; }

TEST(G9_no_deadlock, a_submit_to_the_job_s_own_full_lane_is_refused) {
    outcomes seen;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .lane_capacity = 3});
    auto lane = pool.lane("alpha");
    ASSERT_TRUE(pool.submit("alpha", [&] {
        for (int i = 0; i < 3; ++i)
            EXPECT_TRUE(pool.submit("alpha", [&] { ++ran; }));
        seen.refused("alpha", pool.submit("alpha", [&] { ++ran; }));
        seen.refused("alpha", lane.submit([&] { ++ran; }));
        // Nor does it wait an hour for what cannot come.
        seen.refused("alpha", pool.submit_for("alpha", 1h, [&] { ++ran; }));
        EXPECT_EQ(pool.try_submit("alpha", [&] { ++ran; }), submit_status::full);
        auto result = pool.async("alpha", [&] { ++ran; });
        EXPECT_TRUE(result.is_ready());
        try {
            result.get();
            ADD_FAILURE() << "accepted";
        } catch (const job_rejected& error) {
            EXPECT_EQ(error.status(), submit_status::would_deadlock);
        }
    }));
    pool.drain();
    ASSERT_EQ(seen.refusals().size(), 3U);
    for (const auto& [who, message] : seen.refusals()) {
        EXPECT_TRUE(message.starts_with("would deadlock")) << message;
        EXPECT_TRUE(mentions(message, "alpha")) << message;
    }
    EXPECT_EQ(ran, 3);
}

TEST(G9_no_deadlock, a_wait_for_a_job_of_the_own_key_throws) {
    outcomes seen;
    future<int> behind;
    task_pool pool({.threads = 2});
    ASSERT_TRUE(pool.submit("alpha", [&] {
        behind = pool.async("alpha", [] { return 42; });
        EXPECT_FALSE(seen.attempt("get", [&] { behind.get(); }));
        EXPECT_FALSE(seen.attempt("wait", [&] { behind.wait(); }));
        EXPECT_FALSE(seen.attempt("wait_for", [&] { (void)behind.wait_for(1h); }));
        EXPECT_FALSE(seen.attempt("wait_until", [&] { (void)behind.wait_until(steady::now() + 1h); }));
        EXPECT_TRUE(behind.valid());
    }));
    pool.drain();
    ASSERT_EQ(seen.errors().size(), 4U);
    for (const auto& [who, keys] : seen.errors())
        EXPECT_EQ(keys, names{"alpha"});
    EXPECT_EQ(behind.get(), 42); // the error left the future as it was
}

TEST(G9_no_deadlock, a_drain_of_the_own_key_or_of_the_pool_throws) {
    outcomes seen;
    task_pool pool({.threads = 2});
    ASSERT_TRUE(pool.submit("alpha", [&] {
        EXPECT_FALSE(seen.attempt("key", [&] { pool.drain("alpha"); }));
        EXPECT_FALSE(seen.attempt("pool", [&] { pool.drain(); }));
        EXPECT_FALSE(seen.attempt("pool for", [&] { pool.drain_for(1h); }));
        EXPECT_FALSE(seen.attempt("stop", [&] { pool.stop(); }));
    }));
    pool.drain();
    ASSERT_EQ(seen.errors().size(), 4U);
    for (const auto& [who, keys] : seen.errors())
        EXPECT_EQ(keys, names{"alpha"}) << who;
    EXPECT_TRUE(pool.submit("alpha", [] {})); // none of them did anything
}

TEST(G9_no_deadlock, two_keys_that_wait_for_each_other_s_jobs) {
    for (int round = 0; round < 200; ++round) {
        outcomes seen;
        future<void> behind_alpha, behind_beta;
        std::latch both_run(2), both_submitted(2);
        task_pool pool({.threads = 2});
        ASSERT_TRUE(pool.submit("alpha", [&] {
            both_run.arrive_and_wait();
            behind_beta = pool.async("beta", [] {});
            both_submitted.arrive_and_wait();
            seen.attempt("alpha", [&] { behind_beta.get(); });
        }));
        ASSERT_TRUE(pool.submit("beta", [&] {
            both_run.arrive_and_wait();
            behind_alpha = pool.async("alpha", [] {});
            both_submitted.arrive_and_wait();
            seen.attempt("beta", [&] { behind_alpha.get(); });
        }));
        pool.drain();
        // The one that closed the cycle was told; so the other's wait could end.
        ASSERT_EQ(seen.errors().size(), 1U);
        const auto [who, keys] = seen.errors().front();
        EXPECT_EQ(keys, beginning_with(who, {"alpha", "beta"}));
    }
}

TEST(G9_no_deadlock, a_blocked_submit_is_a_wait_too) {
    // Alpha waits for a future of beta, and beta for room in alpha's lane. Either may be the one to close the cycle.
    for (int round = 0; round < 200; ++round) {
        outcomes seen;
        std::atomic<int> ran = 0;
        task_pool pool({.threads = 2, .lane_capacity = 1});
        ASSERT_TRUE(pool.submit("alpha", [&] {
            EXPECT_TRUE(pool.submit("alpha", [&] { ++ran; })); // now it is full
            auto from_beta = pool.async("beta", [&] {
                const auto result = pool.submit("alpha", [&] { ++ran; });
                if (!result) {
                    seen.refused("beta", result);
                    EXPECT_TRUE(mentions(result.message(), "alpha")) << result.message();
                    EXPECT_TRUE(mentions(result.message(), "beta")) << result.message();
                }
            });
            seen.attempt("alpha", [&] { from_beta.get(); });
        }));
        pool.drain();
        ASSERT_EQ(seen.total(), 1U);
        if (!seen.errors().empty()) {
            EXPECT_EQ(seen.errors().front().second, (names{"alpha", "beta"}));
        }
        EXPECT_EQ(ran, seen.errors().empty() ? 1 : 2);
    }
}

TEST(G9_no_deadlock, two_keys_that_submit_to_each_other_s_full_lanes) {
    for (int round = 0; round < 200; ++round) {
        outcomes seen;
        std::atomic<int> ran = 0;
        std::latch both_run(2), both_full(2);
        task_pool pool({.threads = 2, .lane_capacity = 1});
        const auto job = [&](const std::string& own, const std::string& other) {
            return [&, own, other] {
                both_run.arrive_and_wait();
                EXPECT_TRUE(pool.submit(own, [&] { ++ran; }));
                both_full.arrive_and_wait();
                if (const auto result = pool.submit(other, [&] { ++ran; }); !result) {
                    seen.refused(own, result);
                    EXPECT_TRUE(mentions(result.message(), "alpha")) << result.message();
                    EXPECT_TRUE(mentions(result.message(), "beta")) << result.message();
                }
            };
        };
        ASSERT_TRUE(pool.submit("alpha", job("alpha", "beta")));
        ASSERT_TRUE(pool.submit("beta", job("beta", "alpha")));
        pool.drain();
        ASSERT_EQ(seen.total(), 1U);
        EXPECT_EQ(ran, 3);
    }
}

TEST(G9_no_deadlock, three_keys_in_a_ring) {
    for (int round = 0; round < 100; ++round) {
        outcomes seen;
        const names keys = {"alpha", "beta", "gamma"};
        std::array<future<void>, 3> behind;
        std::latch all_run(3), all_submitted(3);
        task_pool pool({.threads = 3});
        for (std::size_t i = 0; i < 3; ++i) {
            ASSERT_TRUE(pool.submit(keys[i], [&, i] {
                all_run.arrive_and_wait();
                behind[i] = pool.async(keys[(i + 1) % 3], [] {});
                all_submitted.arrive_and_wait();
                seen.attempt(keys[i], [&] { behind[i].get(); });
            }));
        }
        pool.drain();
        ASSERT_EQ(seen.errors().size(), 1U);
        const auto [who, cycle] = seen.errors().front();
        EXPECT_EQ(cycle, beginning_with(who, keys));
    }
}

TEST(G9_no_deadlock, three_keys_with_a_future_a_full_lane_and_a_drain) {
    // Alpha waits for a future of beta, beta for room in gamma's lane, gamma until alpha has no work.
    for (int round = 0; round < 100; ++round) {
        outcomes seen;
        future<void> from_beta;
        std::latch all_run(3);
        task_pool pool({.threads = 3, .lane_capacity = 1});
        ASSERT_TRUE(pool.submit("gamma", [&] {
            EXPECT_TRUE(pool.submit("gamma", [] {}));
            all_run.arrive_and_wait();
            seen.attempt("gamma", [&] { pool.drain("alpha"); });
        }));
        from_beta = pool.async("beta", [&] {
            all_run.arrive_and_wait();
            if (const auto result = pool.submit("gamma", [] {}); !result) {
                seen.refused("beta", result);
                for (const auto* key : {"alpha", "beta", "gamma"})
                    EXPECT_TRUE(mentions(result.message(), key)) << result.message();
            }
        });
        ASSERT_TRUE(pool.submit("alpha", [&] {
            all_run.arrive_and_wait();
            seen.attempt("alpha", [&] { from_beta.get(); });
        }));
        pool.drain();
        // Gamma's drain may find alpha done only if somebody else was told.
        ASSERT_EQ(seen.total(), 1U);
        for (const auto& [who, keys] : seen.errors())
            EXPECT_EQ(keys, beginning_with(who, {"alpha", "beta", "gamma"}));
    }
}

TEST(G9_no_deadlock, two_jobs_that_drain_each_other_s_key) {
    for (int round = 0; round < 100; ++round) {
        outcomes seen;
        std::latch both_run(2);
        task_pool pool({.threads = 2});
        ASSERT_TRUE(pool.submit("alpha", [&] {
            both_run.arrive_and_wait();
            seen.attempt("alpha", [&] { pool.drain("beta"); });
        }));
        ASSERT_TRUE(pool.submit("beta", [&] {
            both_run.arrive_and_wait();
            seen.attempt("beta", [&] { pool.drain("alpha"); });
        }));
        pool.drain();
        ASSERT_EQ(seen.errors().size(), 1U);
        for (const auto& [who, keys] : seen.errors())
            EXPECT_EQ(keys, beginning_with(who, {"alpha", "beta"}));
    }
}

TEST(G9_no_deadlock, a_submit_into_a_pool_full_of_the_job_s_own_jobs_is_refused) {
    outcomes seen;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .pool_capacity = 2});
    ASSERT_TRUE(pool.submit("alpha", [&] {
        EXPECT_TRUE(pool.submit("alpha", [&] { ++ran; }));
        EXPECT_TRUE(pool.submit("alpha", [&] { ++ran; }));
        seen.refused("alpha", pool.submit("beta", [&] { ++ran; }));
    }));
    pool.drain();
    ASSERT_EQ(seen.refusals().size(), 1U);
    EXPECT_TRUE(mentions(seen.refusals().front().second, "alpha")) << seen.refusals().front().second;
    EXPECT_EQ(ran, 2);
}

TEST(G9_no_deadlock, with_one_thread_a_wait_for_another_key_throws) {
    outcomes seen;
    future<int> from_beta;
    task_pool pool({.threads = 1, .max_threads = 1, .lane_capacity = 1});
    ASSERT_TRUE(pool.submit("alpha", [&] {
        from_beta = pool.async("beta", [] { return 1; });
        EXPECT_FALSE(seen.attempt("get", [&] { from_beta.get(); }));
        EXPECT_FALSE(seen.attempt("drain", [&] { pool.drain("beta"); }));
        seen.refused("submit", pool.submit("beta", [] {})); // its lane is full
    }));
    pool.drain();
    EXPECT_EQ(seen.errors().size(), 2U);
    for (const auto& [who, keys] : seen.errors()) {
        ASSERT_FALSE(keys.empty());
        EXPECT_EQ(keys.front(), "alpha");
    }
    ASSERT_EQ(seen.refusals().size(), 1U);
    EXPECT_TRUE(mentions(seen.refusals().front().second, "alpha")) << seen.refusals().front().second;
    EXPECT_EQ(from_beta.get(), 1);
}

TEST(G9_no_deadlock, with_one_thread_a_submit_into_a_full_pool_is_refused) {
    outcomes seen;
    task_pool pool({.threads = 1, .max_threads = 1, .pool_capacity = 2});
    ASSERT_TRUE(pool.submit("alpha", [&] {
        EXPECT_TRUE(pool.submit("beta", [] {}));
        EXPECT_TRUE(pool.submit("gamma", [] {}));
        seen.refused("alpha", pool.submit("delta", [] {}));
    }));
    pool.drain();
    EXPECT_EQ(seen.refusals().size(), 1U);
}

TEST(G9_no_deadlock, when_every_thread_would_wait_for_a_key_without_one_the_last_is_told) {
    for (int round = 0; round < 100; ++round) {
        outcomes seen;
        std::latch both_run(2);
        task_pool pool({.threads = 2, .max_threads = 2});
        for (const std::string key : {"alpha", "beta"}) {
            ASSERT_TRUE(pool.submit(key, [&, key] {
                both_run.arrive_and_wait();
                auto result = pool.async(key + "'s", [] {}); // which no thread is left to run
                seen.attempt(key, [&] { result.get(); });
            }));
        }
        pool.drain();
        ASSERT_EQ(seen.errors().size(), 1U);
        for (const auto& [who, keys] : seen.errors()) {
            ASSERT_FALSE(keys.empty());
            EXPECT_EQ(keys.front(), who);
        }
    }
}

TEST(G9_no_deadlock, a_wait_that_can_end_is_not_refused) {
    // A chain of sixteen jobs, each waiting for the next key's; on one thread, with others to take its place.
    std::atomic<int> deepest = 0;
    basic_task_pool<int> pool({.threads = 1});
    std::function<int(int)> dig = [&](int depth) -> int {
        deepest = depth;
        if (depth == 16)
            return 0;
        return 1 + pool.async(depth + 1, [&dig, depth] { return dig(depth + 1); }).get();
    };
    EXPECT_EQ(pool.async(0, [&] { return dig(0); }).get(), 16);
    EXPECT_EQ(deepest, 16);
}

TEST(G9_no_deadlock, a_wait_for_another_key_s_room_or_drain_is_not_refused) {
    gate until;
    std::atomic<int> ran = 0;
    std::atomic<bool> waiting = false;
    task_pool pool({.threads = 2, .lane_capacity = 1});
    const opener at_end(until);
    occupy(pool, "beta", until);
    ASSERT_TRUE(pool.submit("beta", [&] { ++ran; }));
    ASSERT_TRUE(pool.submit("alpha", [&] {
        waiting = true;
        EXPECT_TRUE(pool.submit("beta", [&] { ++ran; }));
        pool.drain("beta");
        EXPECT_EQ(ran, 2);
        ++ran;
    }));
    ASSERT_TRUE(eventually([&] { return waiting.load(); }));
    until.open();
    pool.drain();
    EXPECT_EQ(ran, 3);
}

TEST(G9_no_deadlock, a_job_may_wait_for_what_has_ended) {
    task_pool pool({.threads = 1, .max_threads = 1});
    auto done = pool.async("alpha", [] { return 5; });
    done.wait();
    auto seen = pool.async("alpha", [&] {
        pool.drain("beta"); // has no work
        done.wait();        // of the own key, but over
        return done.get();
    });
    EXPECT_EQ(seen.get(), 5);
}

TEST(G9_no_deadlock, a_job_may_drain_and_stop_another_pool) {
    std::atomic<int> ran = 0;
    task_pool outer({.threads = 1});
    task_pool inner({.threads = 1, .lane_capacity = 1});
    auto done = outer.async("alpha", [&] {
        for (int i = 0; i < 100; ++i)
            EXPECT_TRUE(inner.submit("alpha", [&] { ++ran; }));
        inner.drain("alpha");
        inner.drain();
        EXPECT_EQ(inner.async("alpha", [&] { return ran.load(); }).get(), 100);
        return inner.stop().finished;
    });
    EXPECT_EQ(done.get(), 101U);
}

TEST(G9_no_deadlock, a_wait_for_another_pool_s_key_needs_no_thread_of_the_own) {
    task_pool outer({.threads = 1, .max_threads = 1});
    task_pool inner({.threads = 1, .lane_capacity = 1});
    auto done = outer.async("alpha", [&] {
        for (int i = 0; i < 20; ++i)
            EXPECT_TRUE(inner.submit("alpha", [] {}));
        inner.drain("alpha");
        return inner.async("beta", [] { return 5; }).get();
    });
    EXPECT_EQ(done.get(), 5);
}

// I-GRAPH-1
TEST(G9_no_deadlock, a_wait_is_not_refused_for_one_that_is_over) {
    // Of two threads one waits for gamma's job. Gamma's ends, and its thread goes on with beta's, which waits in turn
    // while the first thread may not have woken up yet. It does, though, so a thread will be free.
    for (int round = 0; round < 500; ++round) {
        outcomes seen;
        task_pool pool({.threads = 2, .max_threads = 2});
        ASSERT_TRUE(pool.submit("alpha", [&] {
            auto from_gamma = pool.async("gamma", [&] {
                pool.submit("beta", [&] {
                    auto from_delta = pool.async("delta", [] {});
                    seen.attempt("beta", [&] { from_delta.get(); });
                });
            });
            seen.attempt("alpha", [&] { from_gamma.get(); });
        }));
        pool.drain();
        ASSERT_EQ(seen.total(), 0U) << seen.text() << "in round " << round;
    }
}

TEST(G9_no_deadlock, a_wait_for_one_that_has_got_its_room_is_not_refused) {
    // Alpha waits for room in beta's lane. Beta's first job ends, which makes room; its second waits for alpha, which
    // has perhaps not woken up yet but will.
    for (int round = 0; round < 200; ++round) {
        outcomes seen;
        std::atomic<int> ran = 0;
        future<void> from_alpha;
        std::atomic<bool> alpha_known = false;
        task_pool pool({.threads = 2, .lane_capacity = 1});
        ASSERT_TRUE(pool.submit("beta", [&] {
            while (pool.stats().blocked_threads == 0)
                std::this_thread::yield();
        }));
        ASSERT_TRUE(eventually([&] { return pool.stats().running == 1; }));
        ASSERT_TRUE(pool.submit("beta", [&] {
            while (!alpha_known)
                std::this_thread::yield();
            seen.attempt("beta", [&] { from_alpha.get(); });
        }));
        from_alpha = pool.async("alpha", [&] {
            if (const auto result = pool.submit("beta", [&] { ++ran; }); !result)
                seen.refused("alpha", result);
        });
        alpha_known = true;
        pool.drain();
        ASSERT_EQ(seen.total(), 0U) << seen.text() << "in round " << round;
        EXPECT_EQ(ran, 1);
    }
}

TEST(G9_no_deadlock, a_wait_beside_one_whose_room_in_the_pool_has_come_is_not_refused) {
    // Of two threads one waits for room in the pool, which the other makes by taking a job; that waits in turn, while
    // the first thread may not have woken up yet.
    for (int round = 0; round < 200; ++round) {
        outcomes seen;
        gate goes_on;
        task_pool pool({.threads = 2, .max_threads = 2, .pool_capacity = 1});
        const opener at_end(goes_on);
        auto from_alpha = pool.async("alpha", [&] {
            goes_on.wait();
            if (const auto result = pool.submit("new", [] {}); !result)
                seen.refused("alpha", result);
        });
        ASSERT_TRUE(eventually([&] { return pool.stats().running == 1; }));
        ASSERT_TRUE(pool.submit("beta", [&] {
            goes_on.wait();
            while (pool.stats().blocked_threads == 0)
                std::this_thread::yield();
        }));
        ASSERT_TRUE(eventually([&] { return pool.stats().running == 2; }));
        ASSERT_TRUE(pool.submit("beta", [&] { seen.attempt("beta", [&] { from_alpha.get(); }); }));
        goes_on.open();
        pool.drain();
        ASSERT_EQ(seen.total(), 0U) << seen.text() << "in round " << round;
    }
}

TEST(G9_no_deadlock, a_wait_for_one_that_is_told_of_a_stop_or_a_close_is_not_refused) {
    // Alpha waits for room in the pool, or in beta's lane, which beta's waiting job fills; beta waits for alpha, but
    // only when the pool is being stopped, or closed, which ends alpha's wait.
    for (int round = 0; round < 400; ++round) {
        outcomes seen;
        future<void> from_alpha;
        gate alpha_known;
        const bool closes = round % 4 >= 2;
        std::atomic<bool> is_closed = false;
        task_pool pool(round % 2 == 0 ? options{.threads = 2, .pool_capacity = 1}
                                      : options{.threads = 2, .lane_capacity = 1});
        const opener at_end(alpha_known);
        ASSERT_TRUE(pool.submit("beta", [&](const job_context& context) {
            alpha_known.wait();
            while (!(closes ? is_closed.load() : context.stop_requested()))
                std::this_thread::yield();
            seen.attempt("beta", [&] { from_alpha.get(); });
        }));
        ASSERT_TRUE(eventually([&] { return pool.stats().running == 1; }));
        from_alpha = pool.async("alpha", [&] {
            alpha_known.wait();
            EXPECT_EQ(pool.submit("beta", [] {}), submit_status::stopped);
        });
        ASSERT_TRUE(eventually([&] { return pool.stats().running == 2; }));
        ASSERT_TRUE(pool.submit("beta", [] {}));
        alpha_known.open();
        ASSERT_TRUE(eventually([&] { return pool.stats().blocked_threads == 1; }));
        if (closes) {
            pool.close();
            is_closed = true;
            pool.drain();
        } else {
            pool.stop();
        }
        ASSERT_EQ(seen.total(), 0U) << seen.text() << "in round " << round;
    }
}

TEST(G9_no_deadlock, a_drain_of_a_timed_job_that_is_discarded_where_there_is_no_room_is_not_refused) {
    gate goes_on;
    std::atomic<int> discarded = 0;
    task_pool pool(
        {.threads = 2, .pool_capacity = 1, .when_full = overflow::reject, .on_discard = [&](const discard& d) {
             EXPECT_EQ(d.reason, discard_reason::no_room);
             ++discarded;
         }});
    const opener at_end(goes_on);
    ASSERT_TRUE(pool.submit("alpha", [&] {
        goes_on.wait();
        pool.drain("timed");
    }));
    ASSERT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    ASSERT_TRUE(pool.submit("alpha", [] {}));
    ASSERT_TRUE(pool.submit_after(50ms, "timed", [] { ADD_FAILURE(); }));
    goes_on.open();
    pool.drain();
    EXPECT_EQ(pool.stats().discarded, 1U);
    EXPECT_TRUE(eventually([&] { return discarded == 1; })); // told a moment after it is counted
    EXPECT_EQ(pool.stats().failed, 0U);
}

TEST(G9_no_deadlock, a_stop_makes_no_room_for_what_must_run) {
    // In a pool that is full of alpha's next job, alpha waits for a timed job, which has yet to find room.
    outcomes seen;
    gate goes_on;
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .pool_capacity = 1});
    const opener at_end(goes_on);
    ASSERT_TRUE(pool.submit("alpha", [&](const job_context& context) {
        goes_on.wait();
        while (!context.stop_requested())
            std::this_thread::yield();
        seen.attempt("alpha", [&] { pool.drain("timed"); });
    }));
    ASSERT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    ASSERT_TRUE(pool.submit("alpha", [&] { ++ran; }, {.on_stop = stop_action::run}));
    ASSERT_TRUE(pool.submit_after(1h, "timed", [&] { ++ran; }, {.on_stop = stop_action::run}));
    goes_on.open();
    pool.stop();
    EXPECT_EQ(seen.total(), 1U);
    EXPECT_EQ(ran, 2);
}

TEST(G9_no_deadlock, a_drain_of_a_pool_whose_waits_can_all_end_is_not_refused) {
    // In the inner pool: yota waits for room in the pool, which alpha's and beta's waiting jobs fill; alpha waits for
    // yota's future, beta for gamma's, and gamma for nobody. So all of it can end, and so can a drain.
    for (int i = 0; i < 8; ++i) {
        const std::string alpha = "alpha" + std::to_string(i),
                          beta = "beta" + std::to_string(i); // in either order of hash
        outcomes seen;
        gate until;
        std::atomic<int> turn = 0;
        task_pool inner({.threads = 6, .pool_capacity = 2});
        task_pool outer({.threads = 1});
        const opener at_end(until);
        const auto wait_for_turn = [&](int mine) {
            while (turn < mine)
                std::this_thread::yield();
        };
        auto from_gamma = inner.async("gamma", [&] { until.wait(); });
        ASSERT_TRUE(eventually([&] { return inner.stats().running == 1; }));
        auto from_yota = inner.async("yota", [&] {
            wait_for_turn(1);
            if (const auto result = inner.submit("new", [] {}); !result)
                seen.refused("yota", result);
        });
        ASSERT_TRUE(inner.submit(alpha, [&] {
            wait_for_turn(2);
            seen.attempt("alpha", [&] { from_yota.get(); });
        }));
        ASSERT_TRUE(eventually([&] { return inner.stats().running == 3; }));
        ASSERT_TRUE(inner.submit(beta, [&] {
            wait_for_turn(3);
            seen.attempt("beta", [&] { from_gamma.get(); });
        }));
        ASSERT_TRUE(eventually([&] { return inner.stats().running == 4; }));
        ASSERT_TRUE(inner.submit(alpha, [] {}));
        ASSERT_TRUE(inner.submit(beta, [] {}));
        const auto blocked = inner.stats().blocked_threads;
        for (int next = 1; next <= 3; ++next) {
            turn = next;
            ASSERT_TRUE(
                eventually([&] { return inner.stats().blocked_threads >= blocked + static_cast<std::size_t>(next); }));
        }
        auto drained = outer.async("outer", [&] { seen.attempt("outer", [&] { inner.drain(); }); });
        EXPECT_TRUE(eventually([&] { return drained.is_ready() || outer.stats().blocked_threads == 1; }));
        until.open();
        drained.get();
        inner.drain();
        ASSERT_EQ(seen.total(), 0U) << seen.text() << "with keys " << i;
    }
}

TEST(G9_no_deadlock, a_job_drains_a_key_whose_timed_job_finds_no_room_behind_it) {
    gate begins;
    task_pool pool({.threads = 2, .pool_capacity = 1});
    const opener opens(begins);
    auto drained = pool.async("a", [&] {
        begins.wait();
        pool.drain("k");
    });
    EXPECT_TRUE(eventually([&] { return pool.stats().running == 1; }));
    pool.submit("a", [] {}); // the room
    pool.submit_after(1ms, "k", [] {});
    begins.open();
    EXPECT_THROW(drained.get(), deadlock_error);
    pool.drain();
}

// I-GRAPH-1
TEST(G9_no_deadlock, submits_among_many_keys_with_tiny_lanes_never_hang) {
    // Each job submits to random keys, blocking when they are full: cycles of all lengths come up, and each is refused.
    constexpr int keys = 6;
    std::atomic<std::uint64_t> accepted = 0, refused = 0, ran = 0;
    basic_task_pool<int> pool({.threads = 3, .lane_capacity = 1});
    std::function<void(unsigned, int)> job = [&](unsigned seed, int depth) {
        ++ran;
        std::minstd_rand random(seed);
        for (int i = 0; depth > 0 && i < 2; ++i) {
            const auto next = static_cast<unsigned>(random());
            const auto result =
                pool.submit(static_cast<int>(random() % keys), [&job, next, depth] { job(next, depth - 1); });
            if (result)
                ++accepted;
            else if (result == submit_status::would_deadlock)
                ++refused;
            else
                ADD_FAILURE() << result.message();
        }
    };
    for (unsigned i = 1; i <= 300; ++i) {
        ASSERT_TRUE(pool.submit(static_cast<int>(i % keys), [&job, i] { job(i, 5); }));
        ++accepted;
    }
    pool.drain();
    EXPECT_EQ(ran, accepted);
    EXPECT_GT(refused, 0U);
}

} // namespace
} // namespace taskpool::testing
