// SPDX-License-Identifier: Apache-2.0
// Random operations on a pool without threads, compared with the model; and that a pool, or a model, that is broken on
// purpose is found out. What fails is shrunk to a few operations, which are printed as they would be written in a test.
// The seed is fixed; TASKPOOL_RANDOM_SEED is another one, TASKPOOL_RANDOM_CASES how many sequences there are.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "manual_run.hpp"
#include "settings.hpp"

namespace rc {

template <>
struct Arbitrary<taskpool::random::operation> {
    static Gen<taskpool::random::operation> arbitrary() {
        using taskpool::random::operation;
        const auto any = gen::resize(kNominalSize, gen::arbitrary<std::uint8_t>());
        return gen::build<operation>(gen::set(&operation::what, any), gen::set(&operation::key, any),
                                     gen::set(&operation::how, any), gen::set(&operation::with, any));
    }
};

} // namespace rc

namespace taskpool::random {
namespace {

/// Whether all sequences that are tried do what the model says; the smallest one that does not comes in `smallest`.
bool all_agree(int cases, fault broken, operations& smallest) {
    set_rapidcheck(cases);
    return rc::check([&](const operations& all) {
        if (const auto difference = run_manual(all, broken); !difference.empty()) {
            smallest = all; // while it is shrunk, what still fails is smaller than what failed before
            RC_FAIL(difference);
        }
    });
}

TEST(Random_manual, does_what_the_model_says) {
    operations smallest;
    EXPECT_TRUE(all_agree(cases(3000), fault::none, smallest));
}

void expect_found_and_shrunk(fault broken) {
    operations smallest;
    ::testing::internal::CaptureStderr(); // what rapidcheck tells of the failure that is wanted
    const bool agree = all_agree(2000, broken, smallest);
    const auto told = ::testing::internal::GetCapturedStderr();
    EXPECT_FALSE(agree);
    EXPECT_LE(smallest.size(), 6U) << told; // the setting of the pool, and five operations
    EXPECT_EQ(run_manual(smallest), "") << "it is the fault that fails, not the pool";
}

TEST(Random_manual, finds_two_jobs_that_are_swapped) { expect_found_and_shrunk(fault::swaps_two_jobs); }
TEST(Random_manual, finds_a_job_that_is_lost) { expect_found_and_shrunk(fault::loses_a_job); }
TEST(Random_manual, finds_a_job_that_runs_twice) { expect_found_and_shrunk(fault::runs_a_job_twice); }
TEST(Random_manual, finds_a_discard_that_is_not_reported) { expect_found_and_shrunk(fault::hides_a_discard); }
TEST(Random_manual, finds_a_lane_that_is_too_short) { expect_found_and_shrunk(fault::miscounts_room); }
TEST(Random_manual, finds_a_pause_that_is_forgotten) { expect_found_and_shrunk(fault::forgets_pauses); }
TEST(Random_manual, finds_a_timer_that_is_early) { expect_found_and_shrunk(fault::wakes_early); }

} // namespace
} // namespace taskpool::random
