// SPDX-License-Identifier: Apache-2.0
// The parts that threads meet in, each by itself: small enough for many preemptions and stale reads.
#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "gate.hpp"
#include "lane.hpp"
#include "ready_queue.hpp"
#include "scenario.hpp"
#include "timers.hpp"

#include <taskpool/detail/future.hpp>

namespace taskpool::model {
namespace {

using namespace detail;

/// A lane whose jobs add to a key's state, and the lock of its shard.
class lane_in_use {
  public:
    ~lane_in_use() {
        cut_jobs rest = lane_.cut_locked();
        discard(rest);
        lane_.rewind_locked();
    }

    /// Whether the lane was idle, and is the caller's now.
    bool push() {
        const std::lock_guard lock(shard_lock_);
        auto make = [&](lane&) { return numbered_job(state_, next_number_); };
        job_source_of<int, numbered_job, decltype(make)> source(make);
        lane_.push_locked(source, 0, {});
        ++next_number_;
        return lane_.state == lane_state::idle && lane_.become_active_locked();
    }

    /// Takes and runs the oldest job; false when there is none. REQUIRES: ownership.
    bool run_next() {
        job_slot job;
        {
            const std::lock_guard lock(lane_.head_lock);
            if (lane_.front_locked() == nullptr)
                return false;
            lane_.take_locked(job);
        }
        alignas(64) std::byte no_job[64] = {}; // at which the job does not look
        job.ops->run(job.storage, *reinterpret_cast<const running_job*>(no_job));
        job.ops->destroy(job.storage);
        return true;
    }

    /// Runs jobs until the lane goes idle. REQUIRES: ownership. As pool_core::let_go() does.
    void serve() {
        for (;;) {
            while (run_next()) {
            }
            const std::lock_guard lock(shard_lock_);
            if (lane_.pushed.load(std::memory_order_relaxed) != lane_.taken.load(std::memory_order_relaxed))
                continue;
            lane_.rewind_locked();
            lane_.state = lane_state::idle;
            return;
        }
    }

    /// Discards what waits; how much that was.
    int cut() {
        cut_jobs all;
        {
            const std::lock_guard shard_lock(shard_lock_);
            const std::lock_guard lock(lane_.head_lock);
            all = lane_.cut_locked();
        }
        return discard(all);
    }

    const key_state& state() const noexcept { return state_; }

  private:
    static int discard(cut_jobs& jobs) {
        int count = 0;
        for (job_slot job; jobs.next(job); ++count)
            job.ops->destroy(job.storage);
        return count;
    }

    key_state state_;
    sync::spin_lock shard_lock_;
    int next_number_ = 0; // under shard_lock_
    lane lane_;
};

TEST(Parts, a_lanes_tail_is_pushed_to_while_its_head_is_taken_from) {
    // Four jobs lie in the lane itself and in two chunks.
    expect_all_pass({.preemptions = 3, .stale_reads = 2, .systematic = 6'000, .random = 1'000}, [] {
        lane_in_use lane;
        std::thread pushes = start([&] {
            for (int i = 0; i < 4; ++i)
                lane.push();
        });
        for (int i = 0; i < 3; ++i)
            lane.run_next();
        pushes.join();
        while (lane.run_next()) {
        }
        require(lane.state().count() == 4, "all ran");
    });
}

TEST(Parts, a_lane_goes_idle_while_it_is_pushed_to) {
    // Who makes it active serves it.
    expect_all_pass({.preemptions = 3, .stale_reads = 1, .systematic = 6'000, .random = 1'000}, [] {
        lane_in_use lane;
        const auto push_and_serve = [&] {
            if (lane.push())
                lane.serve();
        };
        std::thread other = start([&] {
            push_and_serve();
            push_and_serve();
        });
        push_and_serve();
        other.join();
        require(lane.state().count() == 3, "all ran");
    });
}

TEST(Parts, a_lane_is_cut_while_both_ends_are_used) {
    expect_all_pass({.preemptions = 2, .stale_reads = 1, .systematic = 6'000, .random = 1'000}, [] {
        lane_in_use lane;
        int discarded = 0;
        lane.push();
        std::thread cuts = start([&] { discarded = lane.cut(); });
        std::thread pushes = start([&] { lane.push(); });
        while (lane.run_next()) {
        }
        cuts.join();
        pushes.join();
        while (lane.run_next()) {
        }
        require(lane.state().count() + discarded == 2, "each ran or was discarded");
    });
}

TEST(Parts, a_ready_queue_gives_each_lane_once) {
    expect_all_pass({.preemptions = 2, .stale_reads = 2, .systematic = 6'000, .random = 1'000}, [] {
        ready_queue queue;
        std::array<lane, 3> lanes;
        std::array<checked<int>, 3> times;
        const auto take = [&] {
            const detail::lane* const l = queue.pop();
            if (l != nullptr) {
                auto& count = times[static_cast<std::size_t>(l - lanes.data())];
                count.set(count.get() + 1);
            }
        };
        queue.push(lanes[0], 7, 7);
        std::thread pushes = start([&] {
            queue.push(lanes[1], 8, 8);
            queue.push(lanes[2], 7, 7);
        });
        std::thread takes = start(take);
        take();
        pushes.join();
        takes.join();
        while (!queue.is_empty())
            take();
        for (const auto& count : times)
            require(count.get() == 1, "once");
        require(!queue.front().has_value(), "the hint says so (I-QUEUE-2)");
    });
}

TEST(Parts, an_event_may_end_as_soon_as_it_was_waited_for) {
    expect_all_pass({.preemptions = 4, .stale_reads = 2, .random = 1'000}, [] {
        auto event = std::make_unique<sync::event>();
        std::thread signals = start([at = event.get()] { at->signal(); });
        event->wait();
        event.reset();
        signals.join();
    });
}

TEST(Parts, an_event_that_is_waited_for_in_vain_keeps_a_late_signal) {
    expect_all_pass({.preemptions = 3, .stale_reads = 1, .random = 1'000, .time_passes = true}, [] {
        sync::event event;
        std::thread signals = start([&] { event.signal(); });
        if (!event.wait_until(std::chrono::steady_clock::now() + std::chrono::milliseconds(1)))
            event.wait();
        signals.join();
    });
}

TEST(Parts, a_result_passes_from_its_job_to_who_waits) {
    expect_all_pass({.preemptions = 3, .stale_reads = 2, .systematic = 6'000, .random = 1'000}, [] {
        checked<int> before(0);
        auto* const state = new allocated_future_state<std::unique_ptr<int>>;
        std::thread job = start([&, state] {
            before.set(1);
            state->set_from([] { return std::make_unique<int>(7); });
            state->finish({});
            state->drop();
        });
        require(state->wait({patience::for_ever}), "it is there");
        require(before.get() == 1, "what the job did before happens before");
        require(*state->take() == 7, "the value");
        state->drop();
        job.join();
    });
}

TEST(Parts, a_results_last_reference_comes_after_all_others) {
    // What either thread did with it happens before its end.
    struct counted final : future_state<void> {
        explicit counted(checked<int>& uses)
            : future_state<void>([](future_core& self) noexcept { delete static_cast<counted*>(&self); }, 2),
              uses_(uses) {}
        ~counted() {
            require(mine.get() + others.get() == 2, "both were there");
            uses_.set(1);
        }
        checked<int>& uses_;
        checked<int> mine{0};
        checked<int> others{0};
    };
    expect_all_pass({.preemptions = 3, .stale_reads = 2, .random = 1'000}, [] {
        checked<int> ended(0);
        auto* const state = new counted(ended);
        std::thread other = start([=] {
            state->others.set(1);
            state->drop();
        });
        state->mine.set(1);
        state->drop();
        other.join();
        require(ended.get() == 1, "it ended");
    });
}

TEST(Parts, a_wait_that_gives_up_leaves_nothing_behind) {
    expect_all_pass(
        {.preemptions = 2, .stale_reads = 1, .systematic = 6'000, .random = 1'000, .time_passes = true}, [] {
            auto* const state = new allocated_future_state<void>;
            std::thread job = start([state] {
                state->finish({});
                state->drop();
            });
            state->wait({patience::until_deadline, 1, std::chrono::steady_clock::now() + std::chrono::milliseconds(1)});
            state->wait({patience::for_ever});
            state->drop();
            job.join();
        });
}

TEST(Parts, the_gate_grants_no_more_than_there_is) {
    struct part {
        mutable sync::spin_lock lock;
        std::uint32_t budget = 0;
    };
    expect_all_pass({.preemptions = 2, .stale_reads = 1, .systematic = 6'000, .random = 1'000}, [] {
        std::array<part, 2> shards;
        pool_gate gate(1, 8);
        const auto spend = [&](part& s) {
            const auto answer = gate.grant(shards, s, [] { return std::uint64_t{0}; });
            const std::lock_guard lock(s.lock);
            const bool gets = s.budget > 0;
            if (gets)
                --s.budget;
            return gets && answer == pool_gate::answer::granted ? 1 : 0;
        };
        int others = 0;
        std::thread other = start([&] { others = spend(shards[1]); });
        const int mine = spend(shards[0]);
        other.join();
        require(mine + others <= 1, "the capacity is kept (I-GATE-1)");
    });
}

TEST(Parts, a_timer_is_fired_or_taken_back) {
    expect_all_pass({.preemptions = 2, .stale_reads = 1, .systematic = 6'000, .random = 1'000}, [] {
        struct counting : pool_timer {
            int fired = 0;
        } timer;
        timer.fire = [](pool_core&, pool_timer& self) noexcept { ++static_cast<counting&>(self).fired; };
        timers all(nullptr);
        static_cast<void>(all.add(timer, std::chrono::steady_clock::now()));
        std::thread fires = start([&] {
            alignas(64) std::byte no_core[64] = {}; // at which the timer does not look
            all.fire_due(*reinterpret_cast<pool_core*>(no_core));
        });
        const bool taken_back = all.remove(timer);
        fires.join();
        require(timer.fired == (taken_back ? 0 : 1), "one or the other (I-TIMER-1)");
    });
}

} // namespace
} // namespace taskpool::model
