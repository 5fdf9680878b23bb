// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"

#include <gtest/gtest.h>

namespace taskpool::cli {
namespace {

using namespace std::chrono_literals;

picture some() {
    picture now;
    now.seconds = 12.3;
    now.done = 100;
    now.ok = 97;
    now.failed = 3;
    now.running = 4;
    now.slots = 4;
    now.waiting = 900;
    now.keys = 57;
    now.hottest = "a\tb";
    now.hottest_waiting = 33;
    now.rate = 8.2;
    return now;
}

TEST(Progress, Line) {
    auto now = some();
    EXPECT_EQ(progress_line(now, 200),
              "100 done, 97 ok, 3 failed, 4/4 running, 57 keys, 8/s, hottest a\\tb (33 waiting)");
    now.total = 1004;
    now.seconds_left = 3725;
    now.failed = 0;
    now.hottest_waiting = 0;
    EXPECT_EQ(progress_line(now, 200), "100/1004 done, 97 ok, 4/4 running, 57 keys, 8/s, 1:02:05 left");
    EXPECT_EQ(progress_line(now, 10), "100/1004 d");
    EXPECT_EQ(progress_plain(now), "12 s: 100/1004 done, 97 ok, 4/4 running, 57 keys, 8/s, 1:02:05 left");
}

TEST(Progress, ALineIsNotCutInsideACharacter) {
    auto now = some();
    now.hottest = "\xC3\xA9\xC3\xA9";
    const auto whole = progress_line(now, 200);
    const auto at = whole.find('\xC3');
    EXPECT_EQ(progress_line(now, at + 1), whole.substr(0, at));
    EXPECT_EQ(progress_line(now, at + 2), whole.substr(0, at + 2));
    EXPECT_EQ(progress_line(now, at + 3), whole.substr(0, at + 2));
}

TEST(Progress, Json) {
    auto now = some();
    now.hottest = "q\"\\\n\xC3\xA9\xFF\xC3";
    EXPECT_EQ(progress_json(now, false),
              R"({"seconds":12.300,"done":100,"ok":97,"failed":3,"skipped":0,"running":4,"slots":4,"waiting":900,)"
              R"("keys":57,"rate":8.2,"total":null,"seconds_left":null,)"
              "\"hottest\":{\"key\":\"q\\\"\\\\\\u000a\xC3\xA9\\ufffd\\ufffd\",\"waiting\":33},\"final\":false}");
    now.total = 100;
    now.seconds_left = 0;
    now.hottest_waiting = 0;
    EXPECT_NE(progress_json(now, true).find(R"("total":100,"seconds_left":0.0,"hottest":null,"final":true})"),
              std::string::npos);
}

TEST(Progress, RateOfLateAndTimeLeft) {
    const progress::clock::time_point start{};
    progress p(progress::kind::plain, start);
    EXPECT_EQ(p.next(), start + 1s);
    picture now;
    for (int second = 1; second <= 30; ++second) { // 10 a second, and from the 15th second on 100
        now = picture{};
        now.done = static_cast<std::uint64_t>(second <= 15 ? second * 10 : 150 + (second - 15) * 100);
        now.total = 2650;
        p.complete(now, start + std::chrono::seconds(second));
        if (second == 10) {
            EXPECT_NEAR(now.rate, 10, 0.1);
        }
    }
    EXPECT_NEAR(now.rate, 100, 1);
    EXPECT_NEAR(*now.seconds_left, 10, 0.2);
    EXPECT_EQ(p.next(), start + 31s);
    EXPECT_EQ(progress(progress::kind::none, start).next(), progress::clock::time_point::max());
    EXPECT_EQ(progress(progress::kind::line, start).next(), start + 100ms);
}

} // namespace
} // namespace taskpool::cli
