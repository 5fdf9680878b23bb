// SPDX-License-Identifier: Apache-2.0
// The built program under signals, on a terminal, and when it is itself killed: no child is ever left behind.
#include <chrono>
#include <csignal>
#include <set>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include "cli_process.hpp"

namespace taskpool::cli {
namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Some jobs that say that they run, and then do until "go" appears, or as long as a test may take.
class Signals : public testing::Test {
  protected:
    std::vector<std::string> command(const std::string& prologue = "") const {
        return {"sh", "-c",
                prologue + "echo $$ > \"$0/new$1\"; mv \"$0/new$1\" \"$0/pid$1\"; "
                           "while ! test -e \"$0/go\"; do sleep 0.02; done; echo done $1",
                dir.path(), "{#}"};
    }
    std::vector<std::string> arguments(std::vector<std::string> options, const std::string& prologue = "") const {
        options.insert(options.begin(), {"run", "-k", "1", "-j", "2"});
        for (auto& word : command(prologue))
            options.push_back(word);
        return options;
    }
    bool runs(int record) const { return std::filesystem::exists(dir / ("pid" + std::to_string(record))); }
    bool two_run() const {
        return eventually([&] { return runs(1) && runs(2); });
    }
    long pid(int record) const { return std::stol(contents(dir / ("pid" + std::to_string(record)))); }
    void go() const { std::ofstream(dir / "go") << ""; }

    scratch dir;
};

TEST_F(Signals, FirstInterruptLetsJobsFinish) {
    cli_process process(arguments({}), {.input = count_to(10)});
    ASSERT_TRUE(two_run());
    process.kill(SIGINT);
    ASSERT_TRUE(eventually([&] { return has(process.err(), "interrupted: no new jobs; 2 running jobs will finish"); }));
    go();
    EXPECT_EQ(process.wait(), 128 + SIGINT);
    EXPECT_TRUE(has(process.out(), "done 1\n") && has(process.out(), "done 2\n")) << process.out();
    EXPECT_FALSE(runs(3));
    EXPECT_TRUE(rest_not_run(process.err(), 2, "2 ok")) << process.err();
}

TEST_F(Signals, SecondInterruptEndsThem) {
    cli_process process(arguments({}), {.input = count_to(10)});
    ASSERT_TRUE(two_run());
    process.kill(SIGINT);
    ASSERT_TRUE(eventually([&] { return has(process.err(), "interrupted:"); }));
    process.kill(SIGINT);
    EXPECT_EQ(process.wait(), 128 + SIGINT);
    EXPECT_TRUE(group_ends(pid(1)) && group_ends(pid(2)));
    EXPECT_TRUE(rest_not_run(process.err(), 2, "0 ok, 2 ended early")) << process.err();
}

TEST_F(Signals, TermKillsThoseThatDoNotListen) {
    cli_process process(arguments({"--kill-after", "200ms"}, "trap '' TERM; "), {.input = count_to(10)});
    ASSERT_TRUE(two_run());
    process.kill(SIGTERM);
    EXPECT_EQ(process.wait(), 128 + SIGTERM);
    EXPECT_TRUE(group_ends(pid(1)) && group_ends(pid(2)));
}

TEST_F(Signals, HangupLetsJobsFinish) {
    cli_process process(arguments({}), {.input = count_to(10)});
    ASSERT_TRUE(two_run());
    process.kill(SIGHUP);
    ASSERT_TRUE(eventually([&] { return has(process.err(), "hangup:"); }));
    go();
    EXPECT_EQ(process.wait(), 128 + SIGHUP);
    EXPECT_TRUE(rest_not_run(process.err(), 2, "2 ok")) << process.err();
}

TEST_F(Signals, ReadingIsInterruptedToo) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    cli_process process(arguments({}), {.in = ends[0]});
    ASSERT_EQ(write(ends[1], "1\n2\n", 4), 4);
    ASSERT_TRUE(two_run()); // and the reader waits for more, which does not come
    process.kill(SIGTERM);
    EXPECT_EQ(process.wait(), 128 + SIGTERM);
    EXPECT_TRUE(group_ends(pid(1)) && group_ends(pid(2)));
    close(ends[0]);
    close(ends[1]);
}

TEST_F(Signals, SlotsComeAndGo) {
    cli_process process(arguments({}), {.input = count_to(4)});
    ASSERT_TRUE(two_run());
    EXPECT_FALSE(runs(3));
    process.kill(SIGUSR1);
    EXPECT_TRUE(eventually([&] { return runs(3); }));
    process.kill(SIGUSR2);
    EXPECT_TRUE(eventually([&] { return has(process.err(), "2 slots now"); }));
    go();
    EXPECT_EQ(process.wait(), 0);
}

TEST_F(Signals, QuitListsWhatRuns) {
    cli_process process(arguments({}), {.input = "a\nb\nc\n"});
    ASSERT_TRUE(two_run());
    ASSERT_TRUE(eventually([&] { // the third record may have yet to come
        process.kill(SIGQUIT);
        return has(process.err(), "2 of 2 slots in use, 1 ready, 0 done");
    }));
    ASSERT_TRUE(eventually([&] { return has(process.err(), "slot 2: record 2, key b, "); }));
    EXPECT_TRUE(has(process.err(), "slot 1: record 1, key a, ")) << process.err();
    EXPECT_TRUE(has(process.err(), "pid " + std::to_string(pid(1)))) << process.err();
    go();
    EXPECT_EQ(process.wait(), 0);
}

TEST_F(Signals, AnIgnoredInterruptStaysIgnored) {
    cli_process process(arguments({}), {.input = "a\nb\nc\n", .ignore_interrupt = true});
    ASSERT_TRUE(two_run());
    process.kill(SIGINT);
    process.kill(SIGQUIT); // handled after it, so what it prints comes after what INT would have printed
    ASSERT_TRUE(eventually([&] { return has(process.err(), "slot 2"); }));
    EXPECT_FALSE(has(process.err(), "interrupted"));
    go();
    EXPECT_EQ(process.wait(), 0);
}

TEST_F(Signals, KilledItselfItTakesItsChildrenAlong) {
    cli_process process({"run", "-k", "1", "-j", "2", "--", "sh", "-c",
                         "echo $$ > \"$0/new$1\"; mv \"$0/new$1\" \"$0/pid$1\"; exec sleep 600", dir.path(), "{#}"},
                        {.input = count_to(10)});
    ASSERT_TRUE(two_run());
    process.kill(SIGKILL);
    EXPECT_EQ(process.wait(), 1000 + SIGKILL);
    // Whoever adopts them may take its time to reap them: a zombie is as good as gone.
    const auto gone = [](long child) {
        const auto status = contents("/proc/" + std::to_string(child) + "/stat");
        return status.empty() || has(status, ") Z ") || has(status, ") X ");
    };
    EXPECT_TRUE(eventually([&] { return gone(pid(1)) && gone(pid(2)); }));
}

TEST_F(Signals, TermIsHeardWhileNobodyReadsTheOutput) {
    using words = std::vector<std::string>;
    for (const auto& how :
         {words{"--line-buffer", "sh", "-c", "while :; do echo; done"},
          words{"-K", "head", "-c", "300000", "/dev/zero"}, words{"-u", "sh", "-c", "while :; do echo; done"}}) {
        int ends[2];
        ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
        words arguments = {"run", "-k", "1", "-j", "2", "--stdin", "--kill-after", "200ms"};
        arguments.insert(arguments.end(), how.begin(), how.end());
        cli_process process(arguments, {.input = count_to(10), .out = ends[1]});
        EXPECT_TRUE(eventually([&] {
            pollfd room{ends[1], POLLOUT, 0};
            return poll(&room, 1, 0) == 0;
        })) << how[0];
        process.kill(SIGTERM);
        EXPECT_EQ(process.wait(), 128 + SIGTERM) << how[0];
        close(ends[0]);
        close(ends[1]);
    }
}

TEST_F(Signals, ProgressLineOnATerminal) {
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    ASSERT_GE(terminal, 0);
    ASSERT_EQ(grantpt(terminal), 0);
    ASSERT_EQ(unlockpt(terminal), 0);
    const int end = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
    ASSERT_GE(end, 0);
    std::string seen;
    const auto read_some = [&] {
        char buffer[4096];
        const auto count = read(terminal, buffer, sizeof buffer);
        if (count > 0)
            seen.append(buffer, static_cast<std::size_t>(count));
        return count > 0;
    };
    {
        cli_process process(arguments({}), {.input = "a\nb\nc\n", .err = end});
        close(end);
        while (!has(seen, "0/3 done, 0 ok, 2/2 running, 3 keys") && read_some()) {
        }
        EXPECT_TRUE(has(seen, "\r\033[K0/3 done")) << seen;
        go();
        while (read_some()) { // until the program has closed it
        }
        EXPECT_EQ(process.wait(), 0);
    }
    const auto summary = seen.find("taskpool: 3 records: 3 ok");
    ASSERT_NE(summary, std::string::npos) << seen;
    EXPECT_EQ(seen.substr(summary - 4, 4), "\r\033[K") << "the line is cleared before anything else is written";
    close(terminal);
}

} // namespace
} // namespace taskpool::cli
