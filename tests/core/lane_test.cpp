// SPDX-License-Identifier: Apache-2.0
// The lane's FIFO with no threads: both ends, chunks, cutting, rewinding, strong guarantee.
#include "lane.hpp"

#include <array>
#include <deque>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

namespace taskpool::detail {
namespace {

/// A lane, and jobs that record the number they were given, in one thread.
class Lane : public ::testing::Test {
  protected:
    ~Lane() override {
        cut_jobs rest = lane_.cut_locked();
        while (rest.next(slot_))
            destroy();
        lane_.rewind_locked();
    }

    void push(int value, std::size_t padding = 0) {
        if (padding == 0) {
            put([this, value, alive = alive_] { ran_.push_back(value); });
        } else {
            put([this, value, alive = alive_, pad = std::array<char, 200>()] { ran_.push_back(value + pad[0]); });
        }
    }

    template <class F>
    void put(F job) {
        auto make = [&](lane&) { return std::move(job); };
        job_source_of<int, F, decltype(make)> source(make);
        lane_.push_locked(source, 7, {});
    }

    /// Takes and runs the front; false when there is none.
    bool run_front() {
        if (lane_.front_locked() == nullptr)
            return false;
        number_ = lane_.take_locked(slot_);
        slot_.ops->run(slot_.storage, no_job()); // none of the jobs looks at it
        destroy();
        return true;
    }

    void destroy() {
        if (slot_.ops->destroy != nullptr)
            slot_.ops->destroy(slot_.storage);
    }

    const running_job& no_job() const { return *reinterpret_cast<const running_job*>(blank_); }

    long alive() const { return alive_.use_count() - 1; }

    alignas(64) std::byte blank_[64] = {};
    lane lane_;
    job_slot slot_;
    std::uint64_t number_ = 0;
    std::vector<int> ran_;
    std::shared_ptr<int> alive_ = std::make_shared<int>();
};

TEST_F(Lane, an_empty_lane_has_no_front) {
    EXPECT_EQ(lane_.front_locked(), nullptr);
    EXPECT_EQ(lane_.waiting(), 0U);
    EXPECT_FALSE(lane_.cut_locked().next(slot_));
}

// I-LANE-3
TEST_F(Lane, jobs_leave_in_the_order_in_which_they_came_across_many_chunks) {
    for (int i = 0; i < 1'000; ++i)
        push(i, i % 7 == 0 ? 200 : 0);
    EXPECT_EQ(lane_.waiting_locked(1), 1'000U);
    for (int i = 0; i < 1'000; ++i) {
        ASSERT_TRUE(run_front());
        EXPECT_EQ(number_, static_cast<std::uint64_t>(i) + 1);
        EXPECT_EQ(ran_.back(), i);
    }
    EXPECT_FALSE(run_front());
    EXPECT_EQ(alive(), 0);
}

TEST_F(Lane, the_first_job_after_idle_needs_no_chunk) {
    for (int round = 0; round < 3; ++round) {
        push(round);
        EXPECT_EQ(lane_.tail, nullptr);
        EXPECT_TRUE(run_front());
        lane_.rewind_locked();
        EXPECT_EQ(number_, 1U); // numbers begin anew with each stretch of work
    }
}

// I-LANE-1
TEST_F(Lane, keeps_one_chunk_when_it_runs_dry_and_none_when_rewound) {
    for (int i = 0; i < 100; ++i)
        push(i);
    while (run_front()) {
    }
    EXPECT_NE(lane_.head, nullptr);
    EXPECT_EQ(lane_.head, lane_.tail);
    lane_.rewind_locked();
    EXPECT_EQ(lane_.head, nullptr);
    EXPECT_EQ(lane_.tail, nullptr);
}

TEST_F(Lane, a_random_mix_of_pushes_takes_cuts_and_rewinds_is_a_queue) {
    std::minstd_rand random(5);
    std::deque<int> model;
    int next = 0;
    for (int step = 0; step < 200'000; ++step) {
        const auto choice = random() % 100;
        if (choice < 52) {
            model.push_back(next);
            push(next++, choice % 10 == 0 ? 200 : 0);
        } else if (choice < 98) {
            ASSERT_EQ(run_front(), !model.empty());
            if (!model.empty()) {
                ASSERT_EQ(ran_.back(), model.front());
                model.pop_front();
            } else {
                lane_.rewind_locked();
            }
        } else if (choice == 98) {
            cut_jobs cut = lane_.cut_locked();
            ASSERT_EQ(cut.count, model.size());
            while (cut.next(slot_))
                destroy();
            model.clear();
        } else {
            ASSERT_EQ(lane_.waiting_locked(static_cast<std::uint32_t>(model.size())), model.size());
            ASSERT_EQ(alive(), static_cast<long>(model.size()));
        }
        ASSERT_EQ(lane_.waiting(), model.size());
    }
}

TEST_F(Lane, jobs_that_were_cut_out_come_in_order) {
    for (int i = 0; i < 50; ++i)
        push(i);
    for (int i = 0; i < 10; ++i)
        run_front();
    cut_jobs cut = lane_.cut_locked();
    push(1'000);
    while (cut.next(slot_)) {
        slot_.ops->run(slot_.storage, no_job());
        destroy();
    }
    EXPECT_TRUE(run_front());
    std::vector<int> expected;
    for (int i = 0; i < 50; ++i)
        expected.push_back(i);
    expected.push_back(1'000);
    EXPECT_EQ(ran_, expected);
}

TEST_F(Lane, a_job_whose_move_throws_leaves_the_lane_as_it_was) {
    struct fragile {
        int* moves_left;
        explicit fragile(int* left) : moves_left(left) {}
        fragile(fragile&& other) : moves_left(other.moves_left) {
            if ((*moves_left)-- == 0)
                throw std::runtime_error("no");
        }
        void operator()() const {}
    };
    for (int before : {0, 1, 5, 22, 43}) {
        for (int i = 0; i < before; ++i)
            push(i);
        int moves_left = 0;
        EXPECT_THROW(put(fragile(&moves_left)), std::runtime_error);
        EXPECT_EQ(lane_.waiting(), static_cast<std::uint32_t>(before));
        push(99);
        for (int i = 0; i <= before; ++i)
            EXPECT_TRUE(run_front());
        EXPECT_EQ(ran_.back(), 99);
        lane_.rewind_locked();
    }
}

// I-LANE-5
TEST_F(Lane, counters_may_wrap_around) {
    push(0);
    run_front();
    const std::uint64_t near_the_end = 0xFFFF'FFF0U;
    lane_.pushed.store(static_cast<std::uint32_t>(near_the_end));
    lane_.taken.store(near_the_end);
    lane_.pushed_seen = lane_.taken_seen = static_cast<std::uint32_t>(near_the_end);
    for (int i = 1; i <= 100; ++i) {
        push(i);
        ASSERT_EQ(lane_.waiting_locked(1), 1U);
        ASSERT_TRUE(run_front());
        ASSERT_EQ(number_, near_the_end + static_cast<std::uint64_t>(i));
    }
    EXPECT_EQ(lane_.waiting(), 0U);
}

} // namespace
} // namespace taskpool::detail
