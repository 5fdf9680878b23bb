// SPDX-License-Identifier: Apache-2.0
// The built program from outside: what runs, in which order, what comes out and how it ends. Signals: signals_test.cpp.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

#include "cli_process.hpp"

namespace taskpool::cli {
namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string sorted(const std::string& text) {
    auto lines = lines_of(text);
    std::sort(lines.begin(), lines.end());
    std::string result;
    for (const auto& line : lines)
        result += line + "\n";
    return result;
}

// --- Order and exclusion
// ----------------------------------------------------------------------------------------------

TEST(Run, RecordsOfAKeyInOrderAndNeverTwoAtOnce) {
    const scratch dir;
    std::string input;
    for (int i = 0; i < 300; ++i)
        input += "key" + std::to_string(i * 7 % 11) + " " + std::to_string(i) + "\n";
    const auto result = run_cli({"run", "-k", "1", "-j", "6", "--", "sh", "-c",
                                 "echo \"+ $1 $2\" >> \"$0\"; echo \"- $1 $2\" >> \"$0\"", dir / "log", "{1}", "{2}"},
                                input);
    EXPECT_EQ(result.code, 0) << result.err;
    std::map<std::string, int> last;
    std::set<std::string> running;
    std::size_t most_running = 0;
    const auto lines = lines_of(contents(dir / "log"));
    EXPECT_EQ(lines.size(), 600U);
    for (const auto& line : lines) {
        std::istringstream in(line);
        std::string what, key;
        int number = 0;
        in >> what >> key >> number;
        if (what == "+") {
            EXPECT_TRUE(running.insert(key).second) << line;
            if (last.contains(key)) {
                EXPECT_LT(last[key], number) << line;
            }
            last[key] = number;
        } else {
            EXPECT_EQ(running.erase(key), 1U) << line;
        }
        most_running = std::max(most_running, running.size());
    }
    EXPECT_EQ(last.size(), 11U);
    EXPECT_LE(most_running, 6U);
}

TEST(Run, DifferentKeysRunAtTheSameTime) {
    const scratch dir;
    // Each waits for the other: in turn they would never end.
    const auto result = run_cli({"run", "-k", "1", "-j", "2", "--timeout", "60", "--", "sh", "-c",
                                 ": > \"$0/$1\"; while ! test -e \"$0/a\" || ! test -e \"$0/b\"; do sleep 0.01; done",
                                 dir.path(), "{}"},
                                "a\nb\n");
    EXPECT_EQ(result.code, 0) << result.err;
}

TEST(Run, TheRealLog_stress) {
    const auto log = std::filesystem::path(__FILE__).parent_path() / "../../../shared/data/access.log";
    if (!std::filesystem::exists(log))
        GTEST_SKIP() << "no log here";
    const auto result =
        run_cli({"run", "-k", "1", "-j", "4", "-a", log.string(), "--", "printf", "%s %s\\n", "{1}", "{#}"});
    EXPECT_EQ(result.code, 0) << result.err;
    std::map<std::string, std::uint64_t> last;
    std::set<std::uint64_t> seen;
    for (const auto& line : lines_of(result.out)) {
        const auto space = line.find(' ');
        const auto number = std::stoull(line.substr(space + 1));
        EXPECT_LT(last[line.substr(0, space)], number);
        last[line.substr(0, space)] = number;
        seen.insert(number);
    }
    EXPECT_EQ(seen.size(), 10'000U);
    EXPECT_EQ(last.size(), 1'753U);
}

// --- What a command gets
// ----------------------------------------------------------------------------------------------

TEST(Run, CommandLineAndEnvironment) {
    EXPECT_EQ(run_cli({"run", "-k", "1", "echo", "{k}", "{#}", "{2}"}, "a b\n").out, "a 1 b\n");
    EXPECT_EQ(run_cli({"run", "-k", "1", "-j", "1", "sh", "-c",
                       "echo $TASKPOOL_KEY $TASKPOOL_SEQ $TASKPOOL_SLOT $TASKPOOL_ATTEMPT"},
                      "a b\nc d\n")
                  .out,
              "a 1 1 1\nc 2 1 1\n");
    EXPECT_EQ(run_cli({"run", "-k", "1", "--shell", "echo {} | tr a-z A-Z"}, "it's $HOME\n").out, "IT'S $HOME\n");
}

TEST(Run, Stdin) {
    EXPECT_EQ(run_cli({"run", "-k", "1", "cat"}, "a b\n").code, 123) << "its stdin is empty and its argument no file";
    EXPECT_EQ(run_cli({"run", "-k", "1", "--stdin", "cat"}, "a b\n").out, "a b\n");
    EXPECT_EQ(run_cli({"run", "-k", "{}", "-0", "--stdin", "cat"}, std::string("a\nb\0", 4)).out, "a\nb");
    const std::string big(1'000'000, 'x');
    EXPECT_EQ(run_cli({"run", "-k", "/^(.)/", "--stdin", "cat"}, big + "\n").out, big + "\n");
    EXPECT_EQ(run_cli({"run", "-k", "/^(.)/", "--stdin", "true"}, big + "\n").code, 0);
}

TEST(Run, InputFromAFileAndNoRecordsAtAll) {
    const scratch dir;
    std::ofstream(dir / "in") << "a\nb";
    EXPECT_EQ(sorted(run_cli({"run", "-k", "1", "-a", dir / "in", "echo"}).out), "a\nb\n");
    const auto none = run_cli({"run", "-k", "1", "echo"}, "");
    EXPECT_EQ(none.code, 0);
    EXPECT_EQ(none.out + none.err, "");
}

TEST(Run, DryRunRunsNothing) {
    const auto result = run_cli({"run", "-k", "1", "--dry-run", "touch", "a b", "{2}"}, "k x'y\nl z\n");
    EXPECT_EQ(result.code, 0);
    const auto lines = lines_of(result.out);
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_EQ(lines[0].substr(0, 2), "k\t");
    // What is printed can be given to a shell.
    EXPECT_EQ(run_cli({"run", "-k", "1", "sh", "-c", "printf '<%s>' " + lines[0].substr(2)}, "a\n").out,
              "<touch><a b><x'y>");
}

// --- Output
// -------------------------------------------------------------------------------------------------------------

TEST(Run, GroupedOutputIsNotMixed) {
    const auto result =
        run_cli({"run", "-k", "1", "-j", "4", "--", "sh", "-c", "for i in 1 2 3 4 5; do echo $0; done"}, count_to(40));
    const auto lines = lines_of(result.out);
    ASSERT_EQ(lines.size(), 200U);
    for (std::size_t i = 0; i < lines.size(); i += 5)
        for (std::size_t j = 1; j < 5; ++j)
            EXPECT_EQ(lines[i], lines[i + j]);
}

TEST(Run, TagAndStderr) {
    const auto result = run_cli({"run", "-k", "1", "--tag", "sh", "-c", "echo $0; echo e >&2; printf x"}, "a\n");
    EXPECT_EQ(result.out, "a\ta\na\tx\n");
    EXPECT_EQ(result.err, "a\te\n");
}

TEST(Run, KeepOrder) {
    const scratch dir;
    // The first ends last.
    const auto result =
        run_cli({"run", "-k", "1", "-j", "3", "-K", "--", "sh", "-c",
                 "if test $1 = 1; then while ! test -e \"$0/3\"; do sleep 0.01; done; fi; echo $1; : > \"$0/$1\"",
                 dir.path(), "{}"},
                count_to(20));
    EXPECT_EQ(result.out, count_to(20));
}

TEST(Run, RawOutputIsOurOwn) {
    const auto result = run_cli({"run", "-k", "1", "-u", "--", "sh", "-c", "echo out; echo err >&2"}, "a\n");
    EXPECT_EQ(result.out, "out\n");
    EXPECT_EQ(result.err, "err\n");
}

TEST(Run, LinesAsTheyCome) {
    const scratch dir;
    cli_process process({"run", "-k", "1", "--line-buffer", "--", "sh", "-c",
                         "echo first; while ! test -e \"$0\"; do sleep 0.01; done; echo second", dir / "go"},
                        {.input = "a\n"});
    EXPECT_TRUE(eventually([&] { return process.out() == "first\n"; }));
    std::ofstream(dir / "go") << "";
    EXPECT_EQ(process.wait(), 0);
    EXPECT_EQ(process.out(), "first\nsecond\n");
}

TEST(Run, MuchOutputIsSpilledAndWhole) {
    for (const auto* how : {"--tag", "--line-buffer", "-K"}) {
        const auto result = run_cli(
            {"run", "-k", "1", "-j", "3", how, "--", "sh", "-c", "head -c 700000 /dev/zero | tr '\\0' $0; echo"},
            "a\nb\nc\n");
        EXPECT_EQ(result.code, 0) << result.err;
        for (const auto* key : {"a", "b", "c"})
            EXPECT_TRUE(has(result.out, std::string(700'000, *key) + "\n")) << how << key;
    }
}

TEST(Run, Results) {
    const scratch dir;
    const auto result =
        run_cli({"run", "-k", "1", "--results", dir / "r", "sh", "-c", "echo $0; echo e >&2"}, "../x\n");
    EXPECT_EQ(result.code, 0);
    EXPECT_EQ(result.out, "../x\n");
    EXPECT_EQ(contents(dir / "r/1/stdout"), "../x\n");
    EXPECT_EQ(contents(dir / "r/1/stderr"), "e\n");
    EXPECT_EQ(run_cli({"run", "-k", "1", "-u", "--results", dir / "r", "echo"}, "a\n").code, 1);
}

TEST(Run, ResultsOnAFullDisk) {
    const scratch dir;
    const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    cli_process process(
        {"run", "-k", "1", "-j", "1", "--stdin", "--results", dir / "r", "--", "head", "-c", "20000", "/dev/zero"},
        {.input = count_to(100), .out = nowhere, .longest_file = 10'000});
    EXPECT_EQ(process.wait(), 1);
    EXPECT_TRUE(has(process.err(), "record 1: cannot write " + (dir / "r/1/stdout") + ": File too large"))
        << process.err();
    EXPECT_TRUE(rest_not_run(process.err(), 1, "0 ok, 1 failed")) << process.err();
    close(nowhere);
}

TEST(Run, SpillThatCannotBeWritten) {
    cli_process process({"run", "-k", "1", "-j", "1", "--", "head", "-c", "1000000", "/dev/zero"},
                        {.input = "a\nb\n", .environment = {{"TMPDIR", "/nowhere"}}});
    EXPECT_EQ(process.wait(), 1);
    EXPECT_TRUE(has(process.err(), "record 1: cannot create a temporary file in /nowhere")) << process.err();
}

TEST(Run, AFullStdout) {
    const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    cli_process process({"run", "-k", "1", "-j", "2", "echo"}, {.input = count_to(1000), .out = full});
    EXPECT_EQ(process.wait(), 1);
    EXPECT_TRUE(has(process.err(), "cannot write its output to standard output: No space left on device"))
        << process.err();
    cli_process help({"run", "--help"}, {.out = full});
    EXPECT_EQ(help.wait(), 1);
    cli_process dry({"run", "-k", "1", "--dry-run", "echo"}, {.input = "a\n", .out = full});
    EXPECT_EQ(dry.wait(), 1);
    close(full);
}

TEST(Run, AClosedStdoutEndsTheRunAndLeavesNothing) {
    const scratch dir;
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    // The first one's output meets a closed pipe while the second runs on.
    cli_process process({"run", "-k", "1", "-j", "2", "--", "sh", "-c",
                         "echo $$ > \"$0/$1.new\"; mv \"$0/$1.new\" \"$0/$1\"; test $1 = 1 || exec sleep 600; "
                         "while ! test -e \"$0/go\"; do sleep 0.01; done; echo",
                         dir.path(), "{}"},
                        {.input = count_to(50), .out = ends[1]});
    close(ends[1]);
    close(ends[0]);
    ASSERT_TRUE(eventually([&] { return std::filesystem::exists(dir / "2"); }));
    std::ofstream(dir / "go") << "";
    EXPECT_EQ(process.wait(), 1);
    EXPECT_TRUE(has(process.err(), "record 1: cannot write its output to standard output: Broken pipe"))
        << process.err();
    EXPECT_TRUE(group_ends(std::stol(contents(dir / "2"))));
}

// --- How it ends
// ----------------------------------------------------------------------------------------------------------

TEST(Run, ExitCodes) {
    EXPECT_EQ(run_cli({"run", "-k", "1", "true"}, "a\n").code, 0);
    EXPECT_EQ(run_cli({"run", "-k", "1", "false"}, "a\n").code, 123);
    EXPECT_EQ(run_cli({"run", "-k", "1", "sh", "-c", "kill -KILL $$"}, "a\n").code, 125);
    EXPECT_EQ(run_cli({"run", "-k", "1", "sh", "-c", "exit 126"}, "a\n").code, 123);
    const auto found = run_cli({"run", "-k", "1", "no-such-command-anywhere"}, "a\nb\n");
    EXPECT_EQ(found.code, 127);
    EXPECT_TRUE(has(found.err, "taskpool: record 1: cannot run no-such-command-anywhere: no such command\n"))
        << found.err;
    const auto runnable = run_cli({"run", "-k", "1", "/etc/passwd"}, "a\nb\n");
    EXPECT_EQ(runnable.code, 126);
    EXPECT_TRUE(has(runnable.err, "record 1: cannot run /etc/passwd: Permission denied\n")) << runnable.err;
    EXPECT_EQ(run_cli({"run", "--no-such-option"}).code, 1);
    EXPECT_EQ(run_cli({"run", "--help"}).code, 0);
}

TEST(Run, InputErrorsNameTheRecordAndLoseNothing) {
    const auto no_key = run_cli({"run", "-k", "2", "-j", "1", "echo"}, "a 1\nb 2\nc\nd 4\n");
    EXPECT_EQ(no_key.code, 1);
    EXPECT_EQ(no_key.out, "a 1\nb 2\n") << "what came before is run";
    EXPECT_TRUE(has(no_key.err, "record 3 has no key")) << no_key.err;

    const auto bad_json = run_cli({"run", "-k", ".id", "-j", "1", "echo"}, "{\"id\":1}\n{\"id\":\n{\"id\":3}\n");
    EXPECT_EQ(bad_json.code, 1);
    EXPECT_EQ(bad_json.out, "{\"id\":1}\n");
    EXPECT_TRUE(has(bad_json.err, "record 2")) << bad_json.err;

    const auto too_long = run_cli({"run", "-k", "1", "-j", "1", "--max-record", "10", "echo"}, "a\n12345678901\nb\n");
    EXPECT_EQ(too_long.code, 1);
    EXPECT_EQ(too_long.out, "a\n");
    EXPECT_TRUE(has(too_long.err, "record 2")) << too_long.err;

    const auto no_field = run_cli({"run", "-k", "1", "-j", "1", "echo", "{2}"}, "a 1\nb\n");
    EXPECT_EQ(no_field.code, 1);
    EXPECT_EQ(no_field.out, "1\n");
    EXPECT_TRUE(has(no_field.err, "record 2")) << no_field.err;

    const auto nul = run_cli({"run", "-k", "1", "-j", "1", "--stdin", "cat"}, std::string("a\nb\0c\n", 6));
    EXPECT_EQ(nul.code, 1);
    EXPECT_EQ(nul.out, "a\n");
    EXPECT_TRUE(has(nul.err, "record 2")) << nul.err;

    const auto no_file = run_cli({"run", "-k", "1", "-a", "/no/such/file", "echo"});
    EXPECT_EQ(no_file.code, 1);
    EXPECT_TRUE(has(no_file.err, "/no/such/file")) << no_file.err;
    EXPECT_EQ(run_cli({"run", "-k", "1", "-a", "/", "echo"}).code, 1);

    const auto argument =
        run_cli({"run", "-k", "/^(.)/", "-j", "1", "echo"}, "a\n" + std::string(3'000'000, 'x') + "\nb\n");
    EXPECT_EQ(argument.code, 1);
    EXPECT_TRUE(has(argument.err, "record 2: cannot run echo: ")) << argument.err;
}

TEST(Run, RecordsWithoutAKey) {
    EXPECT_EQ(run_cli({"run", "-k", "2", "-j", "1", "--missing-key=skip", "echo"}, "a 1\nb\nc 3\n").out, "a 1\nc 3\n");
    EXPECT_EQ(run_cli({"run", "-k", "2", "-K", "--missing-key=skip", "echo"}, "a\nb 1\nb\nc 3\n").out, "b 1\nc 3\n");
    EXPECT_EQ(run_cli({"run", "-k", "2", "-K", "--missing-key=own", "echo", "<{k}>"}, "a 1\nb\nc\n").out,
              "<1>\n<>\n<>\n");
}

TEST(Run, Policies) {
    const auto skip = run_cli(
        {"run", "-k", "1", "-j", "1", "--on-fail", "skip-key", "sh", "-c", "echo $0; test $0 != a"}, "a\nb\na\na\nb\n");
    EXPECT_EQ(skip.code, 123);
    EXPECT_EQ(skip.out, "a\nb\nb\n");
    EXPECT_TRUE(has(skip.err, "5 records: 2 ok, 1 failed, 2 skipped")) << skip.err;

    const auto soon = run_cli({"run", "-k", "1", "-j", "1", "--on-fail", "halt-soon=2", "false"}, count_to(50));
    EXPECT_EQ(soon.code, 124);
    EXPECT_TRUE(rest_not_run(soon.err, 2, "0 ok, 2 failed")) << soon.err;

    const auto share =
        run_cli({"run", "-k", "1", "-j", "1", "--on-fail", "halt-soon=20%", "sh", "-c", "test $0 -gt 3"}, count_to(50));
    EXPECT_EQ(share.code, 124);
    EXPECT_TRUE(rest_not_run(share.err, 10, "7 ok, 3 failed")) << share.err;
}

TEST(Run, HaltNowEndsWhatRuns) {
    const scratch dir;
    const auto result =
        run_cli({"run", "-k", "1", "-j", "2", "--on-fail", "halt-now", "sh", "-c",
                 "if test $1 = 2; then echo $$ > \"$0/new\"; mv \"$0/new\" \"$0/pid\"; exec sleep 600; fi; "
                 "while ! test -e \"$0/pid\"; do sleep 0.01; done; exit 1",
                 dir.path(), "{}"},
                count_to(20));
    EXPECT_EQ(result.code, 124);
    EXPECT_TRUE(rest_not_run(result.err, 2, "0 ok, 1 failed, 1 ended early")) << result.err;
    EXPECT_TRUE(group_ends(std::stol(contents(dir / "pid"))));
}

TEST(Run, TimeoutsEndTheWholeGroup) {
    const scratch dir;
    // Again with more time, where it had none to say that it runs.
    for (int ms = 300; ms < 30'000 && !std::filesystem::exists(dir / "pid"); ms *= 4) {
        const auto result =
            run_cli({"run", "-k", "1", "--timeout", std::to_string(ms) + "ms", "--kill-after", "100ms", "sh", "-c",
                     "trap '' TERM; echo $$ > \"$0/new\"; "
                     "sh -c 'mv \"$0/new\" \"$0/pid\"; while :; do sleep 600; done' \"$0\"",
                     dir.path()},
                    "a\n");
        ASSERT_EQ(result.code, 123) << result.err;
        ASSERT_TRUE(has(result.err, "1 record: 0 ok, 1 timed out")) << result.err;
    }
    ASSERT_TRUE(std::filesystem::exists(dir / "pid"));
    EXPECT_TRUE(group_ends(std::stol(contents(dir / "pid"))));
}

TEST(Run, ASmallBufferHoldsTheReaderBack) {
    EXPECT_EQ(run_cli({"run", "-k", "1", "-j", "2", "-K", "--buffer", "1", "echo"}, count_to(100)).out, count_to(100));
    std::string one_key;
    for (int i = 0; i < 100; ++i)
        one_key += "a " + std::to_string(i) + "\n";
    EXPECT_EQ(run_cli({"run", "-k", "1", "-j", "2", "--buffer", "1", "echo"}, one_key).out, one_key);
}

TEST(Run, ProgressInLinesAndJson) {
    const auto plain = run_cli({"run", "-k", "1", "--progress=plain", "true"}, "a\n");
    EXPECT_TRUE(has(plain.err, "taskpool: 1 record: 1 ok; ")) << plain.err;
    const auto json = run_cli({"run", "-k", "1", "--progress=json", "true"}, "a\n");
    EXPECT_TRUE(has(json.err, "\"done\":1,\"ok\":1,")) << json.err;
    EXPECT_TRUE(has(json.err, "\"final\":true}\n")) << json.err;
}

} // namespace
} // namespace taskpool::cli
