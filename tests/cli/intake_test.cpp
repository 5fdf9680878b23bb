// SPDX-License-Identifier: Apache-2.0
#include "intake.hpp"

#include <atomic>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <taskpool/task_pool.hpp>

namespace taskpool::cli {
namespace {

class Intake : public testing::Test {
  protected:
    void submit(const std::string& key) {
        ASSERT_TRUE(in.admit(key));
        auto job = std::make_unique<work>(work{{++number, "", {}}, false});
        pool.submit(key, [this, job = std::move(job)](const job_context& context) mutable {
            in.offer(std::move(job), context);
        });
    }
    // Takes until `count` have come in all.
    std::vector<arrival> take(std::size_t count) {
        std::vector<arrival> all;
        while (all.size() < count) {
            woken.wait(false);
            woken = false;
            in.take(report);
            for (arrival& what : report.arrivals)
                all.push_back(std::move(what));
        }
        return all;
    }
    void end(arrival& what) {
        in.ended(*what.key);
        what.held.release();
    }

    std::atomic<bool> woken = false;
    std::uint64_t number = 0;
    intake in{2, [this] {
                  woken = true;
                  woken.notify_one();
              }};
    intake::report report;
    task_pool pool{{.threads = 1}};
};

TEST_F(Intake, OneOfAKeyAtATime) {
    submit("a");
    submit("a");
    auto first = take(1);
    EXPECT_EQ(first[0].number, 1U);
    EXPECT_EQ(*first[0].key, "a");
    EXPECT_EQ(first[0].shown_key(), "a");
    const auto load = in.look();
    EXPECT_EQ(load.keys, 1U);
    EXPECT_EQ(load.hottest, "a");
    EXPECT_EQ(load.waiting, 1U);
    EXPECT_EQ(in.ended("a"), 1U) << "one more is on its way";
    first[0].held.release();
    auto second = take(1);
    EXPECT_EQ(second[0].number, 2U);
    EXPECT_EQ(in.ended("a"), 0U);
    EXPECT_EQ(in.look().keys, 0U);
}

TEST_F(Intake, AFullBufferHoldsTheReader) {
    submit("a");
    submit("b");
    auto both = take(2);
    std::atomic<bool> admitted = false;
    std::thread reader([&] {
        EXPECT_TRUE(in.admit("c"));
        admitted = true;
        EXPECT_FALSE(in.admit("d")) << "closed while it waited";
    });
    EXPECT_FALSE(admitted);
    end(both[0]);
    while (!admitted)
        std::this_thread::yield();
    in.close();
    reader.join();
    EXPECT_FALSE(in.admit("e"));
    end(both[1]);
    in.withdraw("c");
    in.take(report);
    EXPECT_EQ(report.admitted, 2U);
}

TEST_F(Intake, MoreSlotsMakeRoom) {
    submit("a");
    submit("b");
    std::thread reader([&] { EXPECT_TRUE(in.admit("c")); });
    in.set_room(3);
    reader.join();
    auto both = take(2);
    end(both[0]);
    end(both[1]);
}

TEST_F(Intake, WhatComesAfterTheCloseIsDropped) {
    submit("a");
    submit("a");
    auto first = take(1);
    in.close();
    end(first[0]);
    pool.drain();
    in.take(report);
    EXPECT_TRUE(report.arrivals.empty());
    EXPECT_EQ(report.admitted, 2U);
    EXPECT_EQ(report.dropped, 1U);
}

TEST_F(Intake, EachDropIsToldThoughOthersAreOnTheirWay) {
    submit("a");
    auto first = take(1);
    pool.pause("b");
    submit("b");
    in.close();
    woken = false;
    pool.resume("b");
    pool.drain("b");
    EXPECT_TRUE(woken) << "the engine may have looked before, and end the other one before it waits";
    end(first[0]);
}

TEST_F(Intake, ASkippedKeyIsNotHeld) {
    submit("a");
    submit("a");
    auto first = take(1);
    in.skip_key("a");
    end(first[0]);
    auto second = take(1);
    EXPECT_EQ(second[0].work, nullptr);
    EXPECT_TRUE(second[0].skipped);
    EXPECT_EQ(second[0].number, 2U);
    pool.drain();
}

TEST_F(Intake, TheEndAndTheErrorAreReported) {
    in.leave_out(7);
    in.finish("record 8 has no key");
    auto left_out = take(1);
    EXPECT_EQ(left_out[0].number, 7U);
    EXPECT_FALSE(left_out[0].skipped);
    EXPECT_TRUE(report.input_ended);
    EXPECT_EQ(report.error, "record 8 has no key");
    in.take(report);
    EXPECT_FALSE(report.error) << "it is reported once";
}

} // namespace
} // namespace taskpool::cli
