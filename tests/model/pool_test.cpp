// SPDX-License-Identifier: Apache-2.0
// The whole pool, with the core's own code from the submit to the join, in a few jobs' time. What jobs use is declared
// before the pool, as its users do.
//
// The keeper does not run before it is joined, unless a test says so: what it would mend a tick later is a deadlock.
#include <taskpool/detail/posting.hpp>
#include <taskpool/taskpool.hpp>

#include "scenario.hpp"

namespace taskpool::model {
namespace {

/// Some hundred steps have too many interleavings for all of them: the first ones are explored, and some at random.
struct pool_bounds {
    int preemptions = 1;
    int stale_reads = 0;
    std::uint64_t random = 1'500;
    bool keeper_runs = false;

    operator bounds() const { // NOLINT(google-explicit-constructor): written where bounds are wanted
        return {.preemptions = preemptions,
                .stale_reads = stale_reads,
                .systematic = 4'000,
                .random = random,
                .sleeper = keeper_runs ? "" : "taskpool-2"}; // of pools with two threads at most
    }
};

/// Sleeps until the pool has been quiet for that long.
void let_time_pass(std::chrono::milliseconds time) {
    detail::sync::event never;
    never.wait_until(std::chrono::steady_clock::now() + time);
}

// --- Lanes that go idle ----------------------------------------------------------------------------------------------

TEST(Pool, a_push_meets_its_lane_going_idle) {
    expect_all_pass(pool_bounds{.stale_reads = 1}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.submit("a", numbered_job(a, 0));
            pool.submit("a", numbered_job(a, 1));
            pool.drain();
            require(a.count() == 2, "both ran");
        }
    });
}

TEST(Pool, two_producers_push_to_one_key) {
    expect_all_pass(pool_bounds{}, [] {
        key_state a;
        checked<int> of_other(0);
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            std::thread other = start([&] { pool.submit("a", [&] { of_other.set(of_other.get() + a.last() + 2); }); });
            pool.submit("a", numbered_job(a, 0));
            pool.submit("a", numbered_job(a, 1));
            other.join();
            pool.drain();
            require(a.count() == 2, "all ran");
            require(of_other.get() >= 1 && of_other.get() <= 3, "the other's ran once");
        }
    });
}

TEST(Pool, a_key_is_forgotten_while_it_is_pushed_to) {
    // The keeper falls asleep and sweeps as the time of the second push comes.
    expect_all_pass(pool_bounds{.keeper_runs = true}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 1});
            pool.submit("a", numbered_job(a, 0));
            let_time_pass(std::chrono::milliseconds(3));
            pool.submit("a", numbered_job(a, 1));
            pool.drain();
            require(a.count() == 2, "both ran");
        }
    });
}

TEST(Pool, a_handle_keeps_a_key_that_is_swept) {
    // The keeper sweeps as the time of the other handle's end comes, and before that of the push.
    expect_all_pass(pool_bounds{.keeper_runs = true}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 1});
            std::thread other = start([&] {
                const auto handle = pool.lane("a");
                let_time_pass(std::chrono::milliseconds(3));
                handle.submit(numbered_job(a, 0));
            });
            std::optional handle = pool.lane("a");
            let_time_pass(std::chrono::milliseconds(2));
            handle.reset();
            other.join();
            pool.drain();
            require(a.count() == 1, "it ran");
        }
    });
}

// --- Waking ----------------------------------------------------------------------------------------------------------

TEST(Pool, no_wake_up_of_two_workers_is_lost) {
    // "a" and "b" have different homes; each worker parks, steals and is woken.
    expect_all_pass(pool_bounds{}, [] {
        key_state a;
        key_state b;
        {
            task_pool pool({.threads = 2, .max_threads = 2});
            pool.submit("a", numbered_job(a, 0));
            pool.submit("b", numbered_job(b, 0));
            pool.drain();
            pool.submit("b", numbered_job(b, 1));
            pool.drain();
            require(a.count() == 1 && b.count() == 2, "all ran");
        }
    });
}

TEST(Pool, two_workers_run_jobs_at_once) {
    // Neither worker can do both: who searches must wake the other for what it leaves.
    expect_all_pass(pool_bounds{.random = 3'000}, [] {
        gate b_runs;
        {
            task_pool pool({.threads = 2, .max_threads = 2});
            pool.submit("a", [&] { b_runs.pass(); });
            pool.submit("b", [&] { b_runs.open(); });
            pool.drain();
        }
    });
}

TEST(Pool, a_lane_is_ready_while_the_only_worker_parks) {
    expect_all_pass(pool_bounds{.preemptions = 2}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.submit("a", numbered_job(a, 0));
            pool.drain();
            pool.submit("a", numbered_job(a, 1));
            pool.drain();
            require(a.count() == 2, "both ran");
        }
    });
}

TEST(Pool, a_worker_whose_job_blocks_is_replaced) {
    // The job says so itself.
    expect_all_pass(pool_bounds{.keeper_runs = true}, [] {
        gate b_ran;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.submit("a", [&] {
                const blocking_scope blocks;
                b_ran.pass();
            });
            pool.submit("b", [&] { b_ran.open(); });
            pool.drain();
        }
    });
}

TEST(Pool, the_keeper_notices_a_worker_whose_job_blocks) {
    expect_all_pass(pool_bounds{.keeper_runs = true}, [] {
        gate b_ran;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.submit("a", [&] { b_ran.pass(); });
            pool.submit("b", [&] { b_ran.open(); });
            pool.drain();
        }
    });
}

// --- Room, and ends --------------------------------------------------------------------------------------------------

TEST(Pool, a_submitter_waits_for_room_while_the_pool_is_drained) {
    expect_all_pass(pool_bounds{.keeper_runs = true}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 1, .lane_capacity = 1});
            std::thread producer = start([&] {
                for (int i = 0; i < 3; ++i)
                    require(pool.submit("a", numbered_job(a, i)) == submit_status::accepted, "there will be room");
            });
            pool.drain();
            producer.join();
            pool.drain();
            require(a.count() == 3, "all ran");
        }
    });
}

TEST(Pool, a_submitter_waits_for_room_while_the_pool_is_stopped) {
    expect_all_pass(pool_bounds{.keeper_runs = true}, [] {
        key_state a;
        unsigned accepted = 0;
        {
            task_pool pool({.threads = 1, .max_threads = 1, .lane_capacity = 1});
            std::thread producer = start([&] {
                for (int i = 0; i < 3; ++i) {
                    const auto answer = pool.submit("a", numbered_job(a, i));
                    require(answer == submit_status::accepted || answer == submit_status::stopped, "one or the other");
                    accepted += answer == submit_status::accepted ? 1 : 0;
                }
            });
            const stop_report report = pool.stop();
            producer.join();
            require(report.finished + report.discarded == accepted, "each ran or was discarded");
            require(report.finished == static_cast<unsigned>(a.count()), "as many ran as are told");
        }
    });
}

TEST(Pool, two_threads_stop_it_while_a_third_submits) {
    expect_all_pass(pool_bounds{}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            std::thread producer = start([&] { pool.submit("a", numbered_job(a, 0)); });
            stop_report other;
            std::thread stops = start([&] { other = pool.stop(); });
            const stop_report report = pool.stop();
            stops.join();
            producer.join();
            require(report.finished == other.finished && report.discarded == other.discarded, "both are told the same");
            require(report.finished == static_cast<unsigned>(a.count()), "as many ran as are told");
        }
    });
}

TEST(Pool, a_key_is_cancelled_while_its_jobs_run) {
    expect_all_pass(pool_bounds{.stale_reads = 1}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.submit("a", numbered_job(a, 0));
            pool.submit("a", numbered_job(a, 1));
            const auto cancelled = static_cast<int>(pool.cancel("a"));
            pool.submit("a", numbered_job(a, 2)); // where the lane was left behind, perhaps
            pool.drain();
            require(a.last() == 2, "what was submitted later runs");
            require(a.count() == 3 - cancelled, "each ran or was cancelled");
        }
    });
}

// --- What lanes can do besides ---------------------------------------------------------------------------------------

TEST(Pool, a_hold_is_released_while_its_job_returns) {
    expect_all_pass(pool_bounds{.stale_reads = 1}, [] {
        key_state a;
        gate taken;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            std::optional<held> hold;
            std::thread releases = start([&] {
                taken.pass();
                a.add(1);
                hold.reset();
            });
            pool.submit("a", [&](const job_context& context) {
                a.add(0);
                hold = context.hold();
                taken.open();
            });
            pool.submit("a", numbered_job(a, 2));
            pool.drain();
            require(a.count() == 3, "all ran");
            releases.join();
        }
    });
}

TEST(Pool, a_key_is_resumed_while_it_is_pushed_to) {
    expect_all_pass(pool_bounds{}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.submit("a", numbered_job(a, 0));
            pool.pause("a");
            std::thread resumes = start([&] { require(pool.resume("a"), "it was paused"); });
            pool.submit("a", numbered_job(a, 1));
            resumes.join();
            pool.drain();
            require(a.count() == 2, "both ran");
        }
    });
}

TEST(Pool, a_paused_key_starts_nothing) {
    expect_all_pass(pool_bounds{.stale_reads = 1}, [] {
        key_state a;
        key_state b;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.pause("a");
            pool.submit("a", numbered_job(a, 0));
            pool.submit("b", numbered_job(b, 0));
            pool.drain("b");
            require(pool.stats().finished == 1, "only the other key's job ran");
            pool.resume("a");
            pool.drain();
            require(a.count() == 1, "it ran then");
        }
    });
}

TEST(Pool, jobs_of_two_keys_have_both) {
    expect_all_pass(pool_bounds{}, [] {
        key_state a;
        key_state b;
        checked<int> of_both(0);
        {
            task_pool pool({.threads = 2, .max_threads = 2});
            const auto job = [&] {
                of_both.set(of_both.get() + 1);
                a.add(a.last() + 1);
                b.add(b.last() + 1);
            };
            std::thread other = start([&] { pool.submit_together({"b", "a"}, job); });
            pool.submit_together({"a", "b"}, job);
            pool.submit("a", [&] { a.add(a.last() + 1); });
            other.join();
            pool.drain();
            require(of_both.get() == 2 && a.count() == 3 && b.count() == 2, "all ran");
        }
    });
}

TEST(Pool, a_job_of_two_keys_is_cancelled_in_one_of_them) {
    expect_all_pass(pool_bounds{}, [] {
        key_state b;
        checked<int> of_both(0);
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.submit_together({"a", "b"}, [&] { of_both.set(of_both.get() + 1); });
            pool.submit("b", numbered_job(b, 0));
            const auto cancelled = static_cast<int>(pool.cancel("a"));
            pool.drain();
            require(of_both.get() == 1 - cancelled && b.count() == 1, "each ran or was cancelled");
        }
    });
}

TEST(Pool, shared_jobs_run_side_by_side_and_exclusive_ones_alone) {
    expect_all_pass(pool_bounds{}, [] {
        checked<int> value(0);
        {
            task_pool pool({.threads = 2, .max_threads = 2});
            const auto write = [&] { value.set(value.get() + 1); };
            const auto read = [&](int expected) {
                return [&value, expected] { require(value.get() == expected, "what was written before"); };
            };
            pool.submit("a", write);
            pool.submit_shared("a", read(1));
            pool.submit_shared("a", read(1));
            pool.submit("a", write);
            pool.drain();
            require(value.get() == 2, "both wrote");
        }
    });
}

TEST(Pool, a_barrier_is_between_what_comes_before_and_after_it) {
    expect_all_pass(pool_bounds{.keeper_runs = true}, [] {
        key_state a;
        key_state b;
        {
            task_pool pool({.threads = 2, .max_threads = 2});
            pool.submit("a", numbered_job(a, 0));
            pool.submit_barrier([&] {
                require(a.last() == 0, "after what came before it");
                a.add(1);
                b.add(1);
            });
            pool.submit("b", [&] { b.add(2); });
            pool.drain();
            require(a.count() == 2 && b.count() == 2, "all ran");
        }
    });
}

TEST(Pool, a_barrier_finds_a_coroutine_that_is_about_to_run) {
    // A job waits for it: the barrier is not discarded as one that could never run.
    expect_all_pass(pool_bounds{.keeper_runs = true}, [] {
        checked<int> ran(0);
        {
            task_pool pool({.threads = 2, .max_threads = 2});
            auto one =
                pool.spawn("a", []() -> task<int> { co_return 1; }(), {.while_suspended = suspension::interleave});
            pool.submit("b", [&] { ran.set(one.get()); });
            pool.submit_barrier([&] { ran.set(ran.get() + 1); });
            pool.drain();
            require(ran.get() == 2, "both ran");
        }
    });
}

TEST(Pool, a_job_is_replaced_while_it_comes_to_its_turn) {
    expect_all_pass(pool_bounds{.stale_reads = 1}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.submit("a", tag{"t"}, numbered_job(a, 0));
            pool.submit("a", tag{"t"}, numbered_job(a, 1));
            pool.drain();
            require(a.last() == 1, "the second one ran");
            require(pool.stats().replaced == static_cast<unsigned>(2 - a.count()), "each ran or was replaced");
        }
    });
}

TEST(Pool, a_job_is_replaced_in_a_workers_hands_and_then_left_alone) {
    // It is the second job's content that runs, though the third one finds the place taken for cancelled.
    expect_all_pass(pool_bounds{.stale_reads = 1}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.submit("a", tag{"t"}, numbered_job(a, 0));
            pool.submit("a", tag{"t"}, numbered_job(a, 1));
            pool.cancel("a");
            pool.submit("a", tag{"t"}, numbered_job(a, 2));
            pool.drain();
            require(a.last() == 2, "the third one ran");
            require(pool.stats().discarded == static_cast<unsigned>(3 - a.count()), "each ran or was discarded");
        }
    });
}

TEST(Pool, a_result_is_waited_for) {
    expect_all_pass(pool_bounds{.stale_reads = 1}, [] {
        key_state a;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            auto first = pool.async("a", [&] {
                a.add(0);
                return 1;
            });
            pool.async("a", [&] { a.add(1); }); // nobody waits for that one
            require(first.get() == 1, "the result");
            pool.drain();
            require(a.count() == 2, "both ran");
        }
    });
}

TEST(Pool, a_coroutine_goes_on_while_it_is_about_to_be_suspended) {
    expect_all_pass(pool_bounds{}, [] {
        key_state a;
        {
            task_pool pool({.threads = 2, .max_threads = 2});
            auto other = pool.async("b", [] { return 1; });
            pool.submit("a", [](key_state& state, future<int> result) -> task<void> {
                state.add(0);
                state.add(co_await std::move(result));
            }(a, std::move(other)));
            pool.submit("a", numbered_job(a, 2));
            pool.drain();
            require(a.count() == 3, "all ran");
        }
    });
}

/// Comes from another thread, which it starts.
class from_elsewhere {
  public:
    explicit from_elsewhere(std::thread& there) noexcept : there_(there) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> coroutine) const {
        there_ = start([coroutine] { coroutine.resume(); });
    }
    checked<int> await_resume() const noexcept { return checked<int>(1); }

  private:
    std::thread& there_;
};

TEST(Pool, a_coroutine_awaits_what_may_have_come_already) {
    expect_all_pass(pool_bounds{.stale_reads = 1}, [] {
        key_state a;
        std::thread there;
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            pool.submit("a", [](key_state& state, std::thread& from) -> task<void> {
                state.add(0);
                const checked<int> value = co_await from_elsewhere(from);
                state.add(value.get());
            }(a, there));
            pool.submit("a", numbered_job(a, 2));
            pool.drain();
            require(a.count() == 3, "all ran");
            there.join();
        }
    });
}

TEST(Pool, what_follows_a_result_finds_its_lane_full) {
    expect_all_pass(pool_bounds{.stale_reads = 1, .keeper_runs = true}, [] {
        key_state b;
        {
            task_pool pool({.threads = 1, .max_threads = 1, .lane_capacity = 1});
            auto result = pool.async("a", [] { return 1; });
            pool.submit("b", numbered_job(b, 0));
            std::move(result).then("b", [&](int value) { b.add(value); });
            pool.drain();
            require(b.count() == 2, "both ran");
        }
    });
}

TEST(Pool, a_drain_waits_for_outstanding_work_of_executors) {
    expect_all_pass(pool_bounds{.stale_reads = 2}, [] {
        checked<int> ended(0);
        {
            task_pool pool({.threads = 1, .max_threads = 2});
            const auto handle = pool.lane("a");
            const auto lane = std::make_shared<detail::posting_lane>(handle);
            lane->begin_work();
            std::thread works = start([&] {
                lane->begin_work();
                lane->end_work();
                ended.set(1);
                lane->end_work();
            });
            pool.drain();
            require(ended.get() == 1, "not before the last end");
            works.join();
        }
    });
}

TEST(Pool, the_last_of_several_ends_of_work_tells_who_drains) {
    expect_all_pass(pool_bounds{.stale_reads = 1}, [] {
        task_pool pool({.threads = 1, .max_threads = 2});
        const auto handle = pool.lane("a");
        const auto lane = std::make_shared<detail::posting_lane>(handle);
        lane->begin_work();
        lane->begin_work();
        std::thread begins = start([&] {
            lane->begin_work();
            lane->end_work();
            lane->end_work();
        });
        std::thread ends = start([&] { lane->end_work(); });
        pool.drain();
        begins.join();
        ends.join();
    });
}

} // namespace
} // namespace taskpool::model
