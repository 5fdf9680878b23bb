// SPDX-License-Identifier: Apache-2.0
// The ready queue with no threads: order by age, first come first served within a tick.
#include "ready_queue.hpp"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace taskpool::detail {
namespace {

TEST(Ready_queue, is_empty_at_first) {
    ready_queue queue;
    EXPECT_EQ(queue.pop(), nullptr);
    EXPECT_FALSE(queue.front());
    EXPECT_TRUE(queue.is_empty());
}

// I-QUEUE-1
TEST(Ready_queue, gives_the_oldest_and_within_a_tick_the_first) {
    ready_queue queue;
    std::vector<lane> lanes(6);
    const std::vector<tick> ages = {5, 5, 7, 3, 5, 7};
    for (std::size_t i = 0; i < lanes.size(); ++i)
        queue.push(lanes[i], ages[i], ages[i]);
    EXPECT_EQ(queue.front(), 3U);
    for (const std::size_t i : {3, 0, 1, 4, 2, 5})
        EXPECT_EQ(queue.pop(), &lanes[i]);
    EXPECT_EQ(queue.pop(), nullptr);
    EXPECT_EQ(queue.state().pops, 6U);
}

TEST(Ready_queue, ages_compare_across_the_end_of_the_clock) {
    ready_queue queue;
    std::vector<lane> lanes(3);
    queue.push(lanes[0], 5, 5);
    queue.push(lanes[1], 0xFFFF'FFFEU, 0xFFFF'FFFEU); // seven ticks before
    queue.push(lanes[2], 0, 0);
    for (const std::size_t i : {1, 2, 0})
        EXPECT_EQ(queue.pop(), &lanes[i]);
}

// I-QUEUE-3
TEST(Ready_queue, tells_since_when_the_longest_waiting_lanes_do_whatever_their_turn) {
    ready_queue queue;
    EXPECT_FALSE(queue.oldest_since());
    std::vector<lane> lanes(5);
    const auto waiting_since = [&](tick since, std::size_t most = 10) {
        std::vector<const lane*> found;
        queue.each_since(since, most, [&](const lane& l) { found.push_back(&l); });
        return found;
    };
    queue.push(lanes[0], 7, 0xFFFF'FFFFU); // its turn is late, and it has waited for long
    queue.push(lanes[1], 3, 5);
    queue.push(lanes[2], 3, 4); // with the one before
    queue.push(lanes[3], 9, 9);
    queue.push(lanes[4], 8, 0xFFFF'FFFFU);
    EXPECT_EQ(queue.oldest_since(), 0xFFFF'FFFFU);
    EXPECT_EQ(waiting_since(0xFFFF'FFFFU), (std::vector<const lane*>{&lanes[0], &lanes[4]}));
    EXPECT_EQ(waiting_since(0xFFFF'FFFFU, 1), (std::vector<const lane*>{&lanes[0]}));
    EXPECT_EQ(waiting_since(4), (std::vector<const lane*>{&lanes[1], &lanes[2]}));
    EXPECT_TRUE(waiting_since(5).empty());
    for (int i = 0; i < 4; ++i)
        queue.pop();
    EXPECT_EQ(queue.oldest_since(), 9U);
    queue.pop();
    EXPECT_FALSE(queue.oldest_since());
}

// I-QUEUE-1, I-QUEUE-2
TEST(Ready_queue, a_random_mix_is_a_stable_priority_queue) {
    // Long enough, with ages wide enough, for the ring of buckets to grow and go round.
    ready_queue queue;
    std::vector<lane> lanes(5'000);
    std::vector<lane*> free;
    for (auto& l : lanes)
        free.push_back(&l);
    struct entry {
        tick age;
        lane* l;
    };
    std::vector<entry> model;
    std::minstd_rand random(11);
    tick now = 0xFFFF'F000U;
    for (int step = 0; step < 100'000; ++step) {
        now += random() % 3 == 0;
        if (!free.empty() && random() % 100 < (step < 50'000 ? 55 : 45)) {
            const tick age = random() % 4 == 0 ? now - random() % 800 : now;
            queue.push(*free.back(), age, age);
            model.push_back({age, free.back()});
            free.pop_back();
        } else {
            const auto oldest = std::min_element(model.begin(), model.end(),
                                                 [](const entry& a, const entry& b) { return older(a.age, b.age); });
            const auto front = queue.front();
            lane* const l = queue.pop();
            if (oldest == model.end()) {
                ASSERT_EQ(l, nullptr);
                continue;
            }
            ASSERT_EQ(front, oldest->age);
            ASSERT_EQ(l, oldest->l);
            free.push_back(l);
            model.erase(oldest);
        }
        ASSERT_EQ(queue.state().lanes, model.size());
        ASSERT_EQ(queue.front().has_value(), !model.empty());
    }
}

} // namespace
} // namespace taskpool::detail
