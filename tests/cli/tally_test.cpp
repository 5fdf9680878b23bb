// SPDX-License-Identifier: Apache-2.0
#include "tally.hpp"

#include <gtest/gtest.h>

namespace taskpool::cli {
namespace {

using verdict = tally::verdict;

fail_policy policy(fail_policy::kind_t kind, std::uint64_t count = 1, std::optional<double> percent = std::nullopt) {
    return {kind, count, percent};
}

TEST(Tally, ExitCodes) {
    tally all_ok(policy(fail_policy::go_on));
    EXPECT_EQ(all_ok.exit_code(), 0);
    all_ok.add(outcome::ok, "a");
    EXPECT_EQ(all_ok.exit_code(), 0);
    for (const auto what : {outcome::failed, outcome::timed_out, outcome::skipped}) {
        tally one(policy(fail_policy::go_on));
        one.add(what, "a");
        EXPECT_EQ(one.exit_code(), 123);
    }
    all_ok.add(outcome::signalled, "a");
    all_ok.add(outcome::failed, "a");
    EXPECT_EQ(all_ok.exit_code(), 125);
}

TEST(Tally, ContinueNeverStops) {
    tally t(policy(fail_policy::go_on));
    for (int i = 0; i < 100; ++i)
        EXPECT_EQ(t.add(outcome::failed, "a"), verdict::go_on);
}

TEST(Tally, SkipKeyCountsByKey) {
    tally t(policy(fail_policy::skip_key, 2));
    EXPECT_EQ(t.add(outcome::failed, "a"), verdict::go_on);
    EXPECT_EQ(t.add(outcome::failed, "b"), verdict::go_on);
    EXPECT_EQ(t.add(outcome::ok, "a"), verdict::go_on);
    EXPECT_EQ(t.add(outcome::timed_out, "a"), verdict::skip_key);
}

TEST(Tally, HaltAtACount) {
    tally t(policy(fail_policy::halt_soon, 2));
    EXPECT_EQ(t.add(outcome::failed, "a"), verdict::go_on);
    EXPECT_EQ(t.add(outcome::ok, "a"), verdict::go_on);
    EXPECT_EQ(t.add(outcome::cancelled, "a"), verdict::go_on);
    EXPECT_EQ(t.add(outcome::signalled, "b"), verdict::halt_soon);
}

TEST(Tally, HaltAtAShareOnceTenAreDone) {
    tally t(policy(fail_policy::halt_now, 1, 50.0));
    for (int i = 0; i < 5; ++i)
        EXPECT_EQ(t.add(outcome::failed, "a"), verdict::go_on);
    for (int i = 0; i < 4; ++i)
        EXPECT_EQ(t.add(outcome::ok, "a"), verdict::go_on);
    EXPECT_EQ(t.add(outcome::ok, "a"), verdict::halt_now) << "5 of 10, although the tenth is a success";

    tally u(policy(fail_policy::halt_now, 1, 50.0));
    for (int i = 0; i < 20; ++i)
        EXPECT_EQ(u.add(i % 3 == 2 ? outcome::failed : outcome::ok, "a"), verdict::go_on);
}

TEST(Tally, SummaryCountsAndNamesKeys) {
    tally t(policy(fail_policy::go_on));
    t.add(outcome::ok, "a");
    t.add(outcome::failed, "z\n");
    t.add(outcome::failed, "z\n");
    t.add(outcome::timed_out, "");
    t.add_not_run(3);
    t.add_left_out();
    EXPECT_EQ(t.summary(1.25),
              "7 records: 1 ok, 2 failed, 1 timed out, 3 not run, 1 left out for want of a key; 1.2 s\n"
              "taskpool: failed keys: z\\n (2 times), (the empty key)");
    for (int i = 0; i < 25; ++i)
        t.add(outcome::failed, std::to_string(i));
    const std::string text = t.summary(1);
    EXPECT_NE(text.find("z\\n (2 times), (the empty key), 0, 1, "), std::string::npos) << text;
    EXPECT_NE(text.find(", 17 and 7 more"), std::string::npos) << text;
}

TEST(Tally, ManyFailedKeysAreNotAllRemembered) {
    tally t(policy(fail_policy::go_on));
    for (int i = 0; i < 10'100; ++i)
        t.add(outcome::failed, std::to_string(i));
    EXPECT_EQ(t.failures(), 10'100U);
    EXPECT_NE(t.summary(1).find("and more than 9980 more"), std::string::npos) << t.summary(1);
}

} // namespace
} // namespace taskpool::cli
