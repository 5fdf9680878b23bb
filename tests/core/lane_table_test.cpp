// SPDX-License-Identifier: Apache-2.0
// The table of lanes with no threads: look-up, creation, sweeping, shrinking, keys that throw.
#include "lane_table.hpp"

#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include <gtest/gtest.h>

namespace taskpool::detail {
namespace {

using keys = key_type_for<std::string, std::hash<std::string_view>, std::equal_to<>>;

class Lane_table : public ::testing::Test {
  protected:
    Lane_table() : maker_(keys::table, std::make_shared<const keys::functions>()) { table_.use(maker_, 0, 64); }

    lane& make(std::string_view key, std::uint32_t hash) { return table_.find_or_make_locked({&key, 0}, hash); }
    lane* find(std::string_view key, std::uint32_t hash) { return table_.find_locked({&key, 0}, hash); }

    lane_maker maker_;
    lane_table table_;
};

TEST_F(Lane_table, finds_what_was_made_and_nothing_else) {
    EXPECT_EQ(find("a", 1), nullptr);
    lane& a = make("a", 1);
    EXPECT_EQ(find("a", 1), &a);
    EXPECT_EQ(&make("a", 1), &a);
    EXPECT_EQ(find("b", 1), nullptr); // the same hash is not the same key
    EXPECT_EQ(*static_cast<const std::string*>(maker_.key_of(a)), "a");
}

// I-TABLE-1
TEST_F(Lane_table, a_random_mix_is_a_map) {
    std::unordered_map<std::string, lane*> model;
    std::minstd_rand random(3);
    for (int step = 0; step < 200'000; ++step) {
        const auto number = random() % 3'000;
        const auto key = "key-" + std::to_string(number);
        const auto hash = static_cast<std::uint32_t>(number % 1'000 * 7); // three keys to a hash, and clusters
        const auto at = model.find(key);
        ASSERT_EQ(find(key, hash), at == model.end() ? nullptr : at->second);
        if (random() % 4 == 0) {
            lane& l = make(key, hash);
            l.pins = 1; // a sweep leaves it alone until it is unpinned
            model[key] = &l;
        } else if (at != model.end() && random() % 4 == 0) {
            at->second->pins = 0;
            model.erase(at);
            while (table_.sweep_locked(97) > 0) {
            }
            ASSERT_EQ(table_.size_locked(), model.size());
        }
    }
}

TEST_F(Lane_table, growing_sweeps_first_so_that_passing_keys_take_no_room) {
    for (int i = 0; i < 100'000; ++i)
        make("passing-" + std::to_string(i), static_cast<std::uint32_t>(i) * 2'654'435'761U);
    EXPECT_LE(table_.places_locked().size(), 16U);
}

TEST_F(Lane_table, grows_for_idle_keys_that_come_again_up_to_a_bound) {
    const auto name = [](int i) { return "key-" + std::to_string(i); };
    const auto hash = [](int i) { return static_cast<std::uint32_t>(i) * 2'654'435'761U; };
    std::minstd_rand random(5);
    const auto come_and_go = [&](int keys) {
        for (int step = 0; step < 100 * keys; ++step) {
            const auto i = static_cast<int>(random() % static_cast<unsigned>(keys));
            make(name(i), hash(i));
        }
    };
    come_and_go(300);
    EXPECT_EQ(table_.size_locked(), 300U); // all of them have a lane
    const lane* const first = find(name(0), hash(0));
    ASSERT_NE(first, nullptr);
    come_and_go(300);
    EXPECT_EQ(find(name(0), hash(0)), first);
    come_and_go(3'000);
    EXPECT_EQ(table_.places_locked().size(), 1'024U);
    for (int rounds = 0; rounds < 2; ++rounds) { // the first one goes on where the last sweep was
        while (table_.sweep_locked(512) > 0) {
        }
    }
    EXPECT_EQ(table_.size_locked(), 0U);
    EXPECT_EQ(table_.places_locked().size(), 8U);
}

TEST_F(Lane_table, who_looks_again_for_a_lane_that_he_has_made_makes_no_room) {
    for (int i = 0; i < 10'000; ++i) {
        const auto key = "passing-" + std::to_string(i);
        const auto hash = static_cast<std::uint32_t>(i) * 2'654'435'761U;
        EXPECT_EQ(&make(key, hash), &make(key, hash));
    }
    EXPECT_LE(table_.places_locked().size(), 16U);
}

TEST_F(Lane_table, shrinks_when_it_was_swept) {
    for (int i = 0; i < 10'000; ++i)
        make("key-" + std::to_string(i), static_cast<std::uint32_t>(i) * 2'654'435'761U).pins = 1;
    EXPECT_GE(table_.places_locked().size(), 10'000U);
    for (lane* const l : table_.places_locked())
        if (l != nullptr)
            l->pins = 0;
    while (table_.sweep_locked(512) > 0) {
    }
    EXPECT_EQ(table_.size_locked(), 0U);
    EXPECT_EQ(table_.places_locked().size(), 8U);
}

// I-LANE-6, I-TABLE-2
TEST_F(Lane_table, active_and_left_behind_lanes_are_not_swept) {
    make("active", 1).state = lane_state::active;
    make("suspended", 2).state = lane_state::suspended;
    make("left behind", 3).left_behind = true;
    make("idle", 4);
    while (table_.sweep_locked(512) > 0) {
    }
    EXPECT_EQ(table_.size_locked(), 3U);
    EXPECT_EQ(find("idle", 4), nullptr);
}

// A run of places that goes over the table's end: what shifts back may come to lie behind the sweep.
TEST_F(Lane_table, a_sweep_passes_over_none_where_a_run_of_places_wraps) {
    make("goes", 6);
    lane& stays = make("stays", 6); // in place 7
    stays.pins = 1;
    make("wraps", 7); // in place 0
    ASSERT_EQ(table_.places_locked().size(), 8U);
    ASSERT_EQ(table_.places_locked()[7], &stays);
    while (table_.sweep_locked(512) > 0) {
    }
    EXPECT_EQ(find("wraps", 7), nullptr);
    EXPECT_EQ(find("stays", 6), &stays);
    EXPECT_EQ(table_.size_locked(), 1U);
}

TEST(Lane_table_keys, a_key_whose_copy_throws_leaves_the_table_as_it_was) {
    struct fragile {
        int value;
        explicit fragile(int v) : value(v) {}
        fragile(const fragile& other) : value(other.value) {
            if (value < 0)
                throw std::runtime_error("no");
        }
        bool operator==(const fragile&) const = default;
    };
    struct hash_it {
        std::size_t operator()(const fragile& key) const { return static_cast<std::size_t>(key.value); }
    };
    using fragile_keys = key_type_for<fragile, hash_it, std::equal_to<>>;
    lane_maker maker(fragile_keys::table, std::make_shared<const fragile_keys::functions>());
    lane_table table;
    table.use(maker, 0, 64);
    const fragile good(1);
    const fragile bad(-1);
    lane& l = table.find_or_make_locked({&good, 0}, 5);
    EXPECT_THROW(table.find_or_make_locked({&bad, 0}, 5), std::runtime_error);
    EXPECT_EQ(table.size_locked(), 1U);
    EXPECT_EQ(table.find_locked({&good, 0}, 5), &l);
}

} // namespace
} // namespace taskpool::detail
