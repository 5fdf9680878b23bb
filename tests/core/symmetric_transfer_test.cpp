// SPDX-License-Identifier: Apache-2.0
// Compiled with -O2 in every build: symmetric transfer is a tail call, which a compiler that does not optimize need not
// make, and ThreadSanitizer and AddressSanitizer hinder.
#include "testing.hpp"

namespace taskpool::testing {
namespace {

task<int> one() { co_return 1; }

TEST(Task, a_loop_of_a_million_awaits_needs_no_stack) {
    constexpr int rounds = sanitized ? 1000 : 1'000'000;
    task_pool pool({.threads = 1});
    const auto loop = []() -> task<int> {
        int sum = 0;
        for (int i = 0; i < rounds; ++i)
            sum += co_await one();
        co_return sum;
    };
    EXPECT_EQ(pool.spawn("key", loop()).get(), rounds);
}

} // namespace
} // namespace taskpool::testing
