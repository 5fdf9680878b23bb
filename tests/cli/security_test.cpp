// SPDX-License-Identifier: Apache-2.0
// What docs/guide.md promises under "Security", seen from outside, with the program itself. What a record may do to a
// shell is in Shell, with a real one; fuzz/shell.cpp goes on from there.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "cli_process.hpp"

namespace taskpool::cli {
namespace {

using namespace std::string_literals;

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

// Prints where each open descriptor of this shell leads, but for the one that it lists them with.
constexpr auto list_descriptors = "readlink /proc/$$/fd/* || true";

// --- The shell

// All bytes, pairs of those that mean something to a shell, and what else has ever gone wrong.
std::vector<std::string> difficult_values(bool with_pairs) {
    std::vector<std::string> values = {
        "",          "''",
        "\n\n",      "a\n",
        "\n'\n",     "-n",
        "-e x",      "--help",
        "-",         "--",
        "+x",        "\xff\xfe",
        "\xc3",      "\xe2\x82",
        "\\n",       "%s%n",
        "a=b",       "2",
        "if",        "};x",
        "() {",      "\xed\xa0\x80",
        "$(exit 1)", "a'b\"c $(echo x) `echo y` \\ ; & | > < * ? [a] ~ # ! {k}\n\ttail\\"};
    for (int byte = 1; byte < 256; ++byte)
        values.emplace_back(1, static_cast<char>(byte));
    constexpr std::string_view special = "'\"\\$`!\n\r\t #~*?[](){}<>|&;=%^-\x80\xff";
    for (const char a : special)
        for (const char b : special)
            if (with_pairs)
                values.push_back({a, b});
    std::mt19937 random(5);
    for (int i = 0; i < 200; ++i) {
        std::string value;
        for (auto left = random() % 60; left > 0; --left)
            value += random() % 2 == 0 ? special[random() % special.size()] : static_cast<char>(1 + random() % 255);
        values.push_back(value);
    }
    return values;
}

TEST(Shell, EveryValueArrivesAsItIs) {
    const auto values = difficult_values(true);
    std::string input, expected;
    for (const auto& value : values) {
        input += value + '\0';
        for (int i = 0; i < 4; ++i) // the record, in a word, the key, the variable
            expected += (i == 1 ? "x" + value + "y" : value) + '\0';
    }
    const auto result =
        run_cli({"run", "-0", "-k", "{}", "-j", "2", "--keep-order", "--shell",
                 R"(a={}; printf '%s\0' "$a" x{}y; if :; then printf '%s\0' {k} "$TASKPOOL_KEY"; fi # it's all)"},
                input);
    EXPECT_EQ(result.code, 0);
    EXPECT_EQ(result.err, "");
    EXPECT_TRUE(result.out == expected);
}

TEST(Shell, EveryFieldAndJsonValueArrivesAsItIs) {
    std::string table = "\"it's a column\",n\n", documents, expected;
    int count = 0;
    for (const auto& value : difficult_values(false)) {
        std::string quoted, escaped;
        for (const char c : value) {
            quoted += c == '"' ? "\"\"" : std::string(1, c);
            if (c == '"' || c == '\\')
                escaped += '\\';
            if (static_cast<unsigned char>(c) >= ' ')
                escaped += c;
            else
                escaped += "\\u00"s + (c < 16 ? '0' : '1') + "0123456789abcdef"[c % 16];
        }
        table += "\"" + quoted + "\",1\n";
        if (std::all_of(value.begin(), value.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) {
            documents += "{\"v\":[\"" + escaped + "\"]}\n";
            expected += value + '\0';
            ++count;
        }
    }
    ASSERT_GT(count, 100);
    const std::vector<std::string> common = {"run", "-j", "2", "--keep-order", "--shell"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.begin(), common.begin(), common.end());
        return more;
    };
    const auto json = run_cli(with({"-k", "{}", R"(printf '%s\0' {.v[0]})"}), documents);
    EXPECT_EQ(json.err, "");
    EXPECT_TRUE(json.out == expected);
    expected.clear();
    for (const auto& value : difficult_values(false))
        expected += value + '\0' + value + '\0';
    const auto csv = run_cli(with({"--csv", "--header", "-k", "2", R"(printf '%s\0' {1} {it's a column})"}), table);
    EXPECT_EQ(csv.err, "");
    EXPECT_TRUE(csv.out == expected);
}

TEST(Security, NoShellUnlessAsked) {
    const scratch dir;
    const std::string nasty = "$(touch " + dir / "made" + ") `touch " + dir / "made" + "` ; touch " + dir / "made" +
                              " | > " + dir / "made" + " & * ~ '\" \\";
    const auto plain = run_cli({"run", "-0", "-k", "{}", "printf", "[%s]", "{}", "{k}"}, nasty);
    EXPECT_EQ(plain.code, 0) << plain.err;
    EXPECT_EQ(plain.out, "[" + nasty + "][" + nasty + "]");
    EXPECT_FALSE(std::filesystem::exists(dir / "made"));
    // Nothing stands between taskpool and the command.
    cli_process process({"run", "-k", "1", "--", "sh", "-c", "echo $PPID"}, {.input = "a\n"});
    const auto pid = process.pid();
    EXPECT_EQ(process.wait(), 0);
    EXPECT_EQ(process.out(), std::to_string(pid) + "\n");
}

// --- Bytes that cannot be passed

TEST(Security, NulBytesAreRefusedOrPassedButNothingIsCutShort) {
    const auto refused = [](std::vector<std::string> arguments, const std::string& input, std::string_view why) {
        const auto result = run_cli(std::move(arguments), input);
        EXPECT_EQ(result.code, 1);
        EXPECT_EQ(result.out, "");
        EXPECT_TRUE(has(result.err, why)) << result.err;
    };
    refused({"run", "-k", "1", "echo", "{}"}, "key a\0b\n"s, "record 1: {} holds a NUL byte, which no argument can");
    refused({"run", "-k", "1", "--shell", "echo {2}"}, "key a\0b\n"s, "record 1: {2} holds a NUL byte");
    refused({"run", "-k", ".k", "--stdin", "cat"}, R"({"k":"a\u0000b"})", "record 1: its key holds a NUL byte");
    refused({"run", "-k", "{}", "--stdin", "cat"}, "a\0b\n"s, "record 1: its key holds a NUL byte");
    refused({"run", "-k", "1", "echo", "{.v}"}, R"({"v":"a\u0000"})", ""); // fields in JSON: refused anyway
    const auto passed = run_cli({"run", "-k", "1", "--stdin", "cat"}, "key a\0b\n"s);
    EXPECT_EQ(passed.code, 0) << passed.err;
    EXPECT_EQ(passed.out, "key a\0b\n"s);
    const auto unused = run_cli({"run", "-k", "1", "echo", "{1}"}, "key a\0b\n"s);
    EXPECT_EQ(unused.out, "key\n");
}

TEST(Security, WhatIsTooLongForAnArgumentIsRefused) {
    const std::string longest(4 << 20, 'x');
    for (const std::vector<std::string>& how : {std::vector<std::string>{"-k", "1", "echo", "{2}"},
                                                {"-k", "2", "true", "{1}"},
                                                {"-k", "1", "--shell", "echo {2}"}}) {
        auto arguments = how;
        arguments.insert(arguments.begin(), "run");
        const auto result = run_cli(arguments, "key " + longest + "\n");
        EXPECT_EQ(result.code, 1);
        EXPECT_EQ(result.out, "");
        EXPECT_TRUE(has(result.err, "record 1: cannot run")) << result.err.substr(0, 200);
        EXPECT_TRUE(has(result.err, "longer than the system allows")) << result.err.substr(0, 200);
    }
}

TEST(Security, TheEnvironmentHasTheWholeKeyAndNothingElseOfTheRecord) {
    const std::string key = "a=b\nPATH=/tmp\nTASKPOOL_SEQ=9 () { :;}; \xff";
    cli_process process(
        {"run", "-0", "-k", "{}", "--", "sh", "-c", "env -0 | sort -z | grep -az '^TASKPOOL_\\|^PATH='"},
        {.input = key + '\0', .environment = {{"TASKPOOL_KEY", "of ours"}, {"PATH", "/usr/bin:/bin"}}});
    EXPECT_EQ(process.wait(), 0) << process.err();
    EXPECT_EQ(process.out(),
              "PATH=/usr/bin:/bin\0TASKPOOL_ATTEMPT=1\0TASKPOOL_KEY="s + key + "\0TASKPOOL_SEQ=1\0TASKPOOL_SLOT=1\0"s);
}

// --- Files and descriptors

TEST(Security, ACommandGetsThreeDescriptorsAndWhatWasGivenToUs) {
    const scratch dir;
    std::ofstream(dir / "input") << "a\nb\n";
    // The second one starts while output of the first has gone to a temporary file, and all else is open, too.
    const auto result =
        run_cli({"run", "-k", "1", "-j", "1", "--keep-order", "--stdin", "-a", dir / "input", "--results",
                 dir / "results", "--", "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' '\\n'; "s + list_descriptors});
    EXPECT_EQ(result.code, 0) << result.err;
    for (const auto* record : {"1", "2"}) {
        auto lines = lines_of(contents(dir / ("results/"s + record + "/stdout")));
        std::erase(lines, "");
        ASSERT_EQ(lines.size(), 3U) << record;
        for (const auto& line : lines)
            EXPECT_TRUE(line.starts_with("pipe:")) << line;
    }
    const auto raw = run_cli({"run", "-k", "1", "-u", "--", "sh", "-c", list_descriptors}, "a\n");
    ASSERT_EQ(lines_of(raw.out).size(), 3U) << raw.out;
    EXPECT_EQ(lines_of(raw.out)[0], "/dev/null");

    // What whoever starts taskpool leaves open for its commands reaches them, as with any other program.
    const auto given = run_cli({"run", "-k", "1", "--stdin", "--shell",
                                "exec 5</dev/zero; "s + TASKPOOL_EXE + " run -k 1 -- sh -c '" + list_descriptors + "'"},
                               "a\n");
    ASSERT_EQ(lines_of(given.out).size(), 4U) << given.out << given.err;
    EXPECT_EQ(lines_of(given.out)[3], "/dev/zero");
}

// A temporary file in `directory` that a process has open, if it has one.
std::string open_file_in(const std::string& directory, pid_t pid, struct stat& status) {
    std::error_code gone;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", gone)) {
        const auto leads_to = std::filesystem::read_symlink(entry.path(), gone).string();
        if (leads_to.starts_with(directory) && ::stat(entry.path().c_str(), &status) == 0)
            return leads_to;
    }
    return "";
}

TEST(Security, TemporaryFilesHaveNoNameAndOneReader) {
    for (const int signal : {0, SIGINT, SIGTERM, SIGKILL}) {
        const scratch dir;
        std::filesystem::create_directory(dir / "tmp");
        umask(0);
        cli_process process({"run", "-k", "1", "--", "sh", "-c",
                             "head -c 300000 /dev/zero; : >\"$1/runs\"; while ! test -e \"$1/go\"; do sleep 0.01; done",
                             "sh", dir.path()},
                            {.input = "a\n", .environment = {{"TMPDIR", dir / "tmp"}}});
        umask(022);
        struct stat status {};
        EXPECT_TRUE(eventually([&] { return std::filesystem::exists(dir / "runs"); })); // so signals are expected
        // A file system that knows no files without a name has one for a moment.
        EXPECT_TRUE(eventually(
            [&] { return !open_file_in(dir / "tmp", process.pid(), status).empty() && status.st_nlink == 0; }));
        EXPECT_EQ(status.st_mode & 07777U, 0600U);
        EXPECT_TRUE(std::filesystem::is_empty(dir / "tmp"));
        if (signal != 0)
            process.kill(signal);
        if (signal == 0 || signal == SIGINT) // what runs ends by itself
            std::ofstream(dir / "go") << "";
        EXPECT_EQ(process.wait(), signal == 0 ? 0 : signal == SIGKILL ? 1000 + SIGKILL : 128 + signal);
        if (signal == 0 || signal == SIGINT) {
            EXPECT_EQ(process.out().size(), 300'000U);
        }
        EXPECT_TRUE(std::filesystem::is_empty(dir / "tmp")) << signal;
    }
}

TEST(Security, ResultsLeadNowhereElse) {
    const scratch dir;
    std::ofstream(dir / "other") << "not ours";
    std::filesystem::create_directories(dir / "results/1");
    std::filesystem::create_symlink(dir / "other", dir / "results/1/stdout");
    std::filesystem::create_directories(dir / "elsewhere");
    std::filesystem::create_directory_symlink(dir / "elsewhere", dir / "results/2");
    const auto result = run_cli({"run", "-k", "1", "-j", "1", "--results", dir / "results", "echo"}, "../../a\nb\n");
    EXPECT_EQ(result.code, 1);
    EXPECT_TRUE(has(result.err, "record 2: cannot open " + (dir / "results/2"))) << result.err;
    EXPECT_EQ(contents(dir / "other"), "not ours");
    EXPECT_EQ(contents(dir / "results/1/stdout"), "../../a\n");
    EXPECT_TRUE(std::filesystem::is_empty(dir / "elsewhere"));
}

// --- The terminal

TEST(Security, OurOwnLinesShowKeysWithTheirControlCharactersEscaped) {
    const auto result =
        run_cli({"run", "-k", "{}", "--tag", "--", "sh", "-c", "echo x; exit 1"}, "\x1b]0;title\x07\n\xc2\x9b"
                                                                                  "2J\n");
    EXPECT_EQ(result.code, 123);
    for (const auto& text : {result.out, result.err}) {
        EXPECT_FALSE(has(text, "\x1b")) << text;
        EXPECT_FALSE(has(text, "\xc2\x9b")) << text;
    }
    EXPECT_TRUE(has(result.out, "\\x1b]0;title\\x07\tx\n")) << result.out;
    EXPECT_TRUE(has(result.err, "\\xc2\\x9b2J")) << result.err;
}

} // namespace
} // namespace taskpool::cli
