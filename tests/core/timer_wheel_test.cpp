// SPDX-License-Identifier: Apache-2.0
// The timing wheel with no threads and no clock: what is due, in which order, and when it wants to be looked at.
#include "timer_wheel.hpp"

#include <algorithm>
#include <deque>
#include <limits>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace taskpool::detail {
namespace {

using ticks = std::uint64_t;
constexpr ticks the_end = std::numeric_limits<ticks>::max();
constexpr ticks hour = 3'600'000;
constexpr ticks year = 365 * 24 * hour;

timer_node node(ticks due) {
    timer_node n;
    n.due = due;
    return n;
}

std::vector<timer_node*> list(const timer_wheel::batch& b) {
    std::vector<timer_node*> nodes;
    for (timer_node* n = b.first; n != nullptr; n = n->next)
        nodes.push_back(n);
    return nodes;
}

/// All that is due, which must fit into one batch.
std::vector<timer_node*> due_at(timer_wheel& wheel, ticks now) {
    const auto batch = wheel.advance(now);
    EXPECT_FALSE(batch.more);
    EXPECT_EQ(wheel.time(), now);
    return list(batch);
}

using nodes = std::vector<timer_node*>;

TEST(Timer_wheel, is_empty_at_first) {
    timer_wheel wheel;
    EXPECT_EQ(wheel.size(), 0U);
    EXPECT_FALSE(wheel.next_wake());
    EXPECT_EQ(due_at(wheel, 100 * year), nodes{});
    EXPECT_FALSE(wheel.next_wake());
    EXPECT_EQ(due_at(wheel, the_end), nodes{});
}

// I-WHEEL-2
TEST(Timer_wheel, gives_a_node_at_its_tick_and_not_before) {
    for (const ticks begin : {ticks{0}, ticks{1}, ticks{63}, ticks{4'095}, ticks{1} << 35, (ticks{1} << 36) - 1,
                              (ticks{1} << 60) - 1, the_end / 2, the_end - 5 * year}) {
        for (const ticks after :
             {ticks{1}, ticks{2}, ticks{63}, ticks{64}, ticks{65}, ticks{4'096}, hour, year, 5 * year}) {
            timer_wheel wheel(begin);
            auto n = node(begin + after);
            wheel.insert(n);
            EXPECT_TRUE(n.is_linked());
            EXPECT_EQ(wheel.size(), 1U);
            ASSERT_EQ(due_at(wheel, begin), nodes{});
            ASSERT_EQ(due_at(wheel, begin + after - 1), nodes{});
            ASSERT_EQ(wheel.next_wake(), begin + after);
            ASSERT_EQ(due_at(wheel, begin + after), nodes{&n});
            EXPECT_FALSE(n.is_linked());
            EXPECT_EQ(wheel.size(), 0U);
        }
    }
}

TEST(Timer_wheel, reaches_the_last_tick) {
    timer_wheel wheel(17);
    auto last = node(the_end);
    auto before = node(the_end - 1);
    wheel.insert(last);
    wheel.insert(before);
    EXPECT_EQ(due_at(wheel, the_end - 1), nodes{&before});
    EXPECT_EQ(due_at(wheel, the_end), nodes{&last});
    wheel.insert(before);
    EXPECT_EQ(wheel.next_wake(), the_end);
    EXPECT_EQ(due_at(wheel, the_end), nodes{&before});
}

TEST(Timer_wheel, gives_what_is_past_or_present_at_the_next_advance_in_order_of_insertion) {
    timer_wheel wheel(1'000);
    auto past = node(10);
    auto present = node(1'000);
    auto long_past = node(0);
    auto future = node(1'001);
    for (timer_node* const n : {&future, &past, &present, &long_past})
        wheel.insert(*n);
    EXPECT_EQ(past.due, 1'000U); // raised
    EXPECT_EQ(wheel.next_wake(), 1'000U);
    EXPECT_EQ(due_at(wheel, 1'000), (nodes{&past, &present, &long_past}));
    EXPECT_EQ(wheel.next_wake(), 1'001U);
}

TEST(Timer_wheel, time_never_goes_back) {
    timer_wheel wheel;
    EXPECT_EQ(due_at(wheel, 500), nodes{});
    auto past = node(3);
    auto future = node(501);
    wheel.insert(past);
    wheel.insert(future);
    EXPECT_EQ(list(wheel.advance(2)), nodes{&past});
    EXPECT_EQ(wheel.time(), 500U);
    EXPECT_EQ(due_at(wheel, 501), nodes{&future});
}

// I-WHEEL-4
TEST(Timer_wheel, keeps_the_order_of_insertion_within_a_tick_after_cascades) {
    // All due at one tick, inserted from further and further below: each at another level, were time to stand still.
    const ticks due = 3 * year + 1'234'567;
    timer_wheel wheel;
    std::deque<timer_node> all;
    std::vector<timer_node*> order;
    for (ticks ahead = due; ahead > 0; ahead = ahead * 3 / 4) {
        ASSERT_EQ(due_at(wheel, due - ahead), nodes{});
        for (int i = 0; i < 3; ++i) {
            order.push_back(&all.emplace_back(node(due)));
            wheel.insert(*order.back());
        }
    }
    ASSERT_GT(order.size(), 150U);
    EXPECT_EQ(due_at(wheel, due + 1), order);
}

// I-WHEEL-1, I-WHEEL-5
TEST(Timer_wheel, removes_at_every_level_at_every_place_in_a_slot) {
    for (unsigned level = 0; level < 11; ++level) {
        for (const std::vector<int>& gone :
             std::vector<std::vector<int>>{{0}, {1}, {2}, {0, 2}, {2, 1}, {0, 1}, {0, 1, 2}}) {
            const ticks due = ticks{5} << (6 * level);
            timer_wheel wheel;
            std::vector<timer_node> same(3, node(due));
            auto later = node(due + 1);
            std::vector<timer_node*> left;
            for (auto& n : same) {
                wheel.insert(n);
                left.push_back(&n);
            }
            wheel.insert(later);
            for (const int i : gone) {
                wheel.remove(same[i]);
                EXPECT_FALSE(same[i].is_linked());
                std::erase(left, &same[i]);
            }
            EXPECT_EQ(wheel.size(), left.size() + 1);
            // What was removed may come back, to the end.
            wheel.insert(same[gone.front()]);
            left.push_back(&same[gone.front()]);
            ASSERT_EQ(due_at(wheel, due), left) << "level " << level;
            wheel.remove(later); // has cascaded by now
            EXPECT_EQ(wheel.size(), 0U);
            EXPECT_FALSE(wheel.next_wake());
        }
    }
}

TEST(Timer_wheel, gives_batches_and_says_whether_more_are_due) {
    timer_wheel wheel;
    std::vector<timer_node> all;
    for (const ticks due : {200, 200, 300, 200, 5'000, 9'000})
        all.push_back(node(due));
    for (auto& n : all)
        wheel.insert(n);
    auto batch = wheel.advance(6'000, 2);
    EXPECT_EQ(list(batch), (nodes{&all[0], &all[1]}));
    EXPECT_TRUE(batch.more);
    EXPECT_EQ(wheel.time(), 200U);
    EXPECT_EQ(wheel.next_wake(), 200U);

    // Between two batches the owner may do as it likes.
    auto past = node(100);
    wheel.insert(past);
    auto between = node(4'999);
    wheel.insert(between);
    wheel.remove(all[2]);
    batch = wheel.advance(6'000, 2);
    EXPECT_EQ(list(batch), (nodes{&all[3], &past}));
    EXPECT_TRUE(batch.more);
    EXPECT_EQ(wheel.time(), 4'999U);
    batch = wheel.advance(6'000, 0);
    EXPECT_EQ(list(batch), nodes{});
    EXPECT_TRUE(batch.more);
    batch = wheel.advance(6'000, 2); // exactly what there is, and a slot that cascades to nothing due
    EXPECT_EQ(list(batch), (nodes{&between, &all[4]}));
    EXPECT_FALSE(batch.more);
    EXPECT_EQ(wheel.time(), 6'000U);
    batch = wheel.advance(8'999, 0);
    EXPECT_FALSE(batch.more);
    EXPECT_EQ(wheel.size(), 1U);
}

// I-WHEEL-3
TEST(Timer_wheel, wakes_seldom_for_a_far_timer_and_never_late) {
    const auto wakes = [](ticks begin, ticks after) {
        timer_wheel wheel(begin);
        auto n = node(begin + after);
        wheel.insert(n);
        int count = 0;
        for (; n.is_linked(); ++count) {
            const auto wake = wheel.next_wake();
            EXPECT_TRUE(wake && *wake > wheel.time() && *wake <= n.due) << begin << " + " << after;
            if (!wake || *wake > n.due)
                break;
            (void)wheel.advance(*wake);
        }
        EXPECT_EQ(wheel.time(), begin + after);
        return count;
    };
    std::mt19937_64 random(3);
    for (int i = 0; i < 2'000; ++i) {
        // Also just before the ends of blocks, of all levels.
        const unsigned level = random() % 11;
        const ticks begin =
            i % 2 == 0 ? random() >> (1 + random() % 60) : (ticks{1} << (6 * level)) - 1 - random() % 2 * level / 2;
        EXPECT_LE(wakes(begin, 1 + random() % 63), 2);
        EXPECT_LE(wakes(begin, hour), 5);
        EXPECT_LE(wakes(begin, 1 + random() % (ticks{1} << 24)), 5);
        EXPECT_LE(wakes(begin, the_end / 4 + random() % year), 11);
    }
}

TEST(Timer_wheel, jumps_years_at_once) {
    // A loop per tick, or per slot of a low level, would not end.
    timer_wheel wheel;
    auto n = node(0);
    for (int i = 1; i <= 100'000; ++i) {
        n.due = wheel.time() + 100 * year + i;
        wheel.insert(n);
        ASSERT_EQ(due_at(wheel, n.due - 1), nodes{});
        ASSERT_EQ(due_at(wheel, n.due), nodes{&n});
    }
}

/// The wheel beside a multimap, which keeps the order of insertion of equal keys.
class Timer_wheel_random : public testing::TestWithParam<unsigned> {
  protected:
    std::mt19937_64 random{GetParam()};

    /// Any magnitude is as likely as any other, up to `bits` bits.
    ticks any(unsigned bits) {
        const unsigned width = random() % (bits + 1);
        return width == 0 ? 0 : random() >> (64 - width);
    }
};

// I-WHEEL-1, I-WHEEL-2, I-WHEEL-3, I-WHEEL-4, I-WHEEL-5
TEST_P(Timer_wheel_random, does_as_a_multimap) {
    struct timed : timer_node {
        std::multimap<ticks, timed*>::iterator in_model;
    };
    std::vector<timed> all(3'000);
    std::vector<timed*> free;
    std::vector<timed*> linked;
    for (auto& n : all)
        free.push_back(&n);
    const auto pick = [this](std::vector<timed*>& from) {
        std::swap(from[random() % from.size()], from.back());
        timed* const n = from.back();
        from.pop_back();
        return n;
    };
    // Some begin where high digits are about to change, some near the end.
    ticks now = GetParam() % 3 == 0 ? 0 : GetParam() % 3 == 1 ? (ticks{1} << 42) - 1'000 : any(63);
    timer_wheel wheel(now);
    std::multimap<ticks, timed*> model;

    for (int step = 0; step < 60'000; ++step) {
        const unsigned what = random() % 100;
        const bool filling = step / 5'000 % 2 == 0;
        if (what < (filling ? 70U : 45U) && !free.empty()) {
            timed* const n = pick(free);
            const ticks ahead = any(random() % 50 == 0 ? 50 : 16);
            ticks due = now + ahead;
            if (random() % 10 == 0)
                due = now - std::min(now, ahead);
            if (random() % 5 == 0 && !model.empty()) // ties, from another distance
                due = model.lower_bound(due) != model.end() ? model.lower_bound(due)->first : model.begin()->first;
            n->due = due;
            n->in_model = model.emplace(std::max(due, now), n);
            wheel.insert(*n);
            linked.push_back(n);
        } else if (what < 80 && !linked.empty()) {
            timed* const n = pick(linked);
            wheel.remove(*n);
            model.erase(n->in_model);
            free.push_back(n);
        } else {
            ticks to = now + any(random() % 200 == 0 ? 48 : random() % 10 == 0 ? 14 : 7);
            if (random() % 20 == 0)
                to = now - std::min<ticks>(now, 5);
            else if (random() % 3 == 0 && wheel.next_wake())
                to = *wheel.next_wake();
            const std::size_t most = random() % 3 == 0 ? random() % 20 : the_end;
            const auto batch = wheel.advance(to, most);
            to = std::max(to, now);
            std::size_t count = 0;
            for (timer_node* i = batch.first; i != nullptr; i = i->next, ++count) {
                ASSERT_FALSE(model.empty());
                ASSERT_EQ(i, model.begin()->second);
                ASSERT_EQ(i->due, model.begin()->first);
                ASSERT_LE(i->due, to);
                ASSERT_FALSE(i->is_linked());
                model.erase(model.begin());
                free.push_back(static_cast<timed*>(i));
            }
            ASSERT_LE(count, most);
            const bool more = !model.empty() && model.begin()->first <= to;
            ASSERT_EQ(batch.more, more);
            ASSERT_TRUE(!more || count == most);
            std::erase_if(linked, [](const timed* n) { return !n->is_linked(); });
            now = more ? model.begin()->first : to;
        }
        ASSERT_EQ(wheel.time(), now);
        ASSERT_EQ(wheel.size(), model.size());
        const auto wake = wheel.next_wake();
        ASSERT_EQ(wake.has_value(), !model.empty());
        if (wake) {
            const ticks first = model.begin()->first;
            ASSERT_LE(*wake, first);
            ASSERT_GE(*wake, now);
            if (first / 64 == now / 64) {
                ASSERT_EQ(*wake, first);
            } else {
                ASSERT_GT(*wake, now);
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Seeds, Timer_wheel_random, testing::Range(1U, 13U));

TEST(Timer_wheel, holds_a_million) {
    std::mt19937_64 random(7);
    timer_wheel wheel(year);
    std::vector<timer_node> all(1'000'000);
    for (auto& n : all) {
        n.due = year + random() % (3 * hour);
        wheel.insert(n);
    }
    for (std::size_t i = 0; i < all.size(); i += 3)
        wheel.remove(all[i]);
    std::size_t left = all.size() - (all.size() + 2) / 3;
    EXPECT_EQ(wheel.size(), left);
    const timer_node* last = nullptr;
    for (ticks now = year; wheel.size() > 0;) {
        const auto batch = wheel.advance(now, 1'000);
        for (const timer_node* n = batch.first; n != nullptr; n = n->next, --left) {
            // Of one tick, the one inserted first lies first in `all`.
            ASSERT_TRUE(last == nullptr || last->due < n->due || (last->due == n->due && last < n));
            ASSERT_LE(n->due, now);
            last = n;
        }
        ASSERT_EQ(wheel.size(), left);
        if (!batch.more)
            now += 1 + random() % 20'000;
    }
    EXPECT_EQ(left, 0U);
}

} // namespace
} // namespace taskpool::detail
