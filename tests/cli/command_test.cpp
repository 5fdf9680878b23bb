// SPDX-License-Identifier: Apache-2.0
#include "command.hpp"

#include <array>
#include <cstdio>
#include <filesystem>
#include <random>
#include <stdexcept>

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "cli_process.hpp"

namespace taskpool::cli {
namespace {

using strings = std::vector<std::string>;
using namespace std::string_literals;

const field_rule white;
const field_rule csv{.csv = true};

record line(std::string text) { return {.number = 7, .text = std::move(text), .fields = {}}; }

struct way {
    bool shell = false;
    bool stdin_feeds = false;
    field_rule rule = white;
    strings header = {};
};

command_template make(const strings& arguments, const way& w = {}) {
    return {arguments, w.shell, w.stdin_feeds, w.rule, w.header};
}

strings run(const strings& arguments, const record& r, const way& w = {}) {
    return make(arguments, w)({r, "the key", 3});
}

/// One argument, expanded for a record of three fields.
std::string expand(std::string argument, const way& w = {}) {
    return run({"cmd", std::move(argument)}, line("one two three"), {w.shell, true, w.rule, w.header}).at(1);
}

/// What follows /bin/sh -c for one argument.
strings for_shell(std::string argument) {
    auto made = run({std::move(argument)}, line("it's two"), {.shell = true});
    EXPECT_EQ(made.at(0), "/bin/sh");
    EXPECT_EQ(made.at(1), "-c");
    made.erase(made.begin(), made.begin() + 2);
    return made;
}

template <class Error, class F>
std::string error_of(F&& f) {
    try {
        f();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

std::string refusal(std::string argument, const way& w = {}) {
    return error_of<std::invalid_argument>([&] { make({"cmd", argument}, w); });
}

/// What sh prints for a script.
std::string output_of(const strings& arguments, bool succeeds = true) {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0)
        throw std::runtime_error("no pipe");
    std::vector<char*> argv;
    for (const auto& a : arguments)
        argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    const auto pid = ::fork();
    if (pid == 0) {
        ::dup2(ends[1], STDOUT_FILENO);
        ::close(ends[0]);
        ::close(ends[1]);
        ::execv(argv[0], argv.data());
        ::_exit(126);
    }
    ::close(ends[1]);
    std::string result;
    std::array<char, 4096> part{};
    for (ssize_t got = 0; (got = ::read(ends[0], part.data(), part.size())) > 0;)
        result.append(part.data(), static_cast<std::size_t>(got));
    ::close(ends[0]);
    int status = 0;
    ::waitpid(pid, &status, 0);
    EXPECT_TRUE(status == 0 || !succeeds) << arguments.back();
    return result;
}

TEST(Command_template, fills_in_each_placeholder) {
    const auto r = line(R"({"user":{"id":"u 1"},"n":[5]})");
    EXPECT_EQ(run({"cmd", "{}", "{k}", "{#}", "{%}", "{.user.id}", "{.n[0]}", R"({."user"["id"]})"}, r),
              (strings{"cmd", r.text, "the key", "7", "3", "u 1", "5", "u 1"}));
    EXPECT_EQ(run({"{2}", "{1}", "{3}"}, line("a b c")), (strings{"b", "a", "c"}));
}

TEST(Command_template, placeholders_may_stand_anywhere_and_often) {
    EXPECT_EQ(expand("{1}-{2}{2}/{#}.txt"), "one-twotwo/7.txt");
    EXPECT_EQ(expand("--x={}"), "--x=one two three");
    EXPECT_EQ(run({"{1}-cmd"}, line("a")), (strings{"a-cmd"}));
}

TEST(Command_template, values_are_not_expanded_again_nor_split) {
    EXPECT_EQ(run({"cmd", "{}"}, line("{k} {1} $(x) *")), (strings{"cmd", "{k} {1} $(x) *"}));
    EXPECT_EQ(run({"cmd", "{}"}, line("")), (strings{"cmd", ""}));
}

TEST(Command_template, without_a_placeholder_the_record_is_the_last_argument) {
    EXPECT_EQ(run({"cmd", "-x"}, line("a b")), (strings{"cmd", "-x", "a b"}));
    EXPECT_EQ(run({"cmd", "-x"}, line("a b"), {.stdin_feeds = true}), (strings{"cmd", "-x"}));
    EXPECT_EQ(run({"cmd", "{k}"}, line("a b"), {.stdin_feeds = true}), (strings{"cmd", "the key"}));
    EXPECT_EQ(run({"cmd", "", "{k}"}, line("a b")), (strings{"cmd", "", "the key"}));
}

TEST(Command_template, all_else_in_braces_is_literal) {
    for (const auto* const text :
         {"{print $1}", "{",   "}",    "{ }",       "{ 1}",   "{1,3}", "{-1}",   "{+1}",      "{01}", "{1..3}",
          "{a,b}",      "{K}", "{kk}", "{k }",      "{name}", "{##}",  "{...x}", "{./a,./b}", "{..}", "{.5}",
          "a{",         "{{",  "}}",   "{\"a\":1}", "{\n}",   "{!}",   "{1",     "{.a",       "{.-x}"})
        EXPECT_EQ(expand(text), text);
    EXPECT_EQ(expand("{print {1}}"), "{print one}");
    EXPECT_EQ(expand("{{1}"), "{one");
    EXPECT_EQ(expand(R"({"id":{1}})"), R"({"id":one})");
}

TEST(Command_template, after_a_dollar_and_in_doubled_braces_nothing_is_a_placeholder) {
    for (const auto* const text :
         {"${1}", "${k}", "${}", "{{1}}", "{{k}}", "{{.Names}}", "{{.}}", "{{.A.B | json}}", "{{}}", "${.x y}"})
        EXPECT_EQ(expand(text), text);
    EXPECT_EQ(expand("{{1}} {1}"), "{{1}} one");
    EXPECT_EQ(expand("$ {1}"), "$ one");
}

TEST(Command_template, columns_have_names) {
    const way w{.rule = csv, .header = {"id", "full name", "k", "2", ".x", "twice", "twice"}};
    const record r{.number = 7, .text = "raw", .fields = {"i", "n", "c", "d", "e", "f", "g"}};
    EXPECT_EQ(run({"cmd", "{id}", "{full name}", "{k}", "{2}", "{3}", "{.x}", "{name}", "{}"}, r, w),
              (strings{"cmd", "i", "n", "the key", "n", "c", "e", "{name}", "raw"}));
    EXPECT_EQ(refusal("{twice}", w), "several columns are named 'twice': give its number");
    EXPECT_EQ(refusal("{.y}", w), "{.y} is a value in JSON, and the input is CSV");
}

TEST(Command_template, malformed_placeholders_are_refused) {
    EXPECT_EQ(refusal("{0}"), "{0}: fields are counted from 1");
    EXPECT_EQ(refusal("{99999999999999999999}"), "{99999999999999999999}: no record has so many fields");
    for (const auto* const text : {"{.}", "{/}", "{//}", "{/.}"})
        EXPECT_TRUE(refusal(text).starts_with(text + ": there is no such placeholder"s)) << text;
    for (const auto* const text : {"{.a.}", "{.a b}", "{.a[x]}", "{.a..b}", "{.\"a}", "{.a[0}"})
        EXPECT_TRUE(refusal(text).starts_with(text + ": not a path in JSON: "s)) << refusal(text);
}

TEST(Command_template, a_brace_in_a_quoted_name_does_not_end_the_placeholder) {
    EXPECT_EQ(run({"cmd", R"({."a}b"}{.c["}"]})"}, line(R"({"a}b":1,"c":{"}":2}})")), (strings{"cmd", "12"}));
}

TEST(Command_template, a_value_that_is_missing_is_an_error_naming_the_record) {
    EXPECT_EQ(error_of<input_error>([] {
                  run({"cmd", "{3}"}, line("a b"));
              }),
              "record 7: there is no field 3, which the command asks for");
    EXPECT_EQ(error_of<input_error>([] {
                  run({"cmd", "{.a.b}"}, line("{\"a\":{}}"));
              }),
              "record 7: there is no value for {.a.b}, which the command asks for");
    EXPECT_EQ(error_of<input_error>([] {
                  run({"cmd", "{.a}"}, line("a"));
              }),
              "record 7: not JSON: bad syntax, near byte 1");
}

TEST(Command_template, a_nul_byte_in_a_value_is_an_error_naming_the_record) {
    EXPECT_EQ(error_of<input_error>([] { run({"cmd"}, line("a\0b"s)); }),
              "record 7: {} holds a NUL byte, which no argument can");
    EXPECT_EQ(error_of<input_error>([] {
                  run({"cmd", "{.a}"}, line(R"({"a":"\u0000"})"));
              }),
              "record 7: {.a} holds a NUL byte, which no argument can");
    EXPECT_EQ(error_of<input_error>([] { run({"cmd {}"}, line("a\0b"s), {.shell = true}); }),
              "record 7: {} holds a NUL byte, which no argument can");
    EXPECT_EQ(run({"cmd", "{1}"}, line("a \0"s)), (strings{"cmd", "a"})); // what is not used does no harm
}

TEST(Command_template, tells_what_it_uses) {
    EXPECT_TRUE(make({"cmd", "x{.a}"}).uses_json());
    EXPECT_FALSE(make({"cmd", "{1}{k}{}"}).uses_json());
    EXPECT_TRUE(make({"cmd", "{k}{1}"}).uses_fields());
    EXPECT_FALSE(make({"cmd", "{k}"}).uses_fields());
    EXPECT_TRUE(make({"cmd {.a}"}, {.shell = true}).uses_json());
}

// --- With a shell

TEST(Command_template_shell, joins_the_arguments_and_passes_each_value_in_a_variable) {
    EXPECT_EQ(run({"echo", "{2}", ">", "out/{1}.txt"}, line("a b;c"), {.shell = true}),
              (strings{"/bin/sh", "-c",
                       R"(taskpool_1=${1} taskpool_2=${2}; shift 2; echo "$taskpool_1" > out/"$taskpool_2".txt)",
                       "/bin/sh", "b;c", "a"}));
    EXPECT_EQ(run({"cat | wc"}, line("x"), {.shell = true, .stdin_feeds = true}),
              (strings{"/bin/sh", "-c", "cat | wc"}));
    EXPECT_EQ(for_shell("echo"), (strings{R"(taskpool_1=${1}; shift 1; echo "$taskpool_1")", "/bin/sh", "it's two"}));
    EXPECT_EQ(for_shell("echo {#}>&2"), // bare, the number would be that of a descriptor
              (strings{R"(taskpool_1=${1}; shift 1; echo "$taskpool_1">&2)", "/bin/sh", "7"}));
    EXPECT_EQ(for_shell("printf %s ${k} {k}"),
              (strings{R"(taskpool_1=${1}; shift 1; printf %s ${k} "$taskpool_1")", "/bin/sh", "the key"}));
}

TEST(Command_template_shell, values_arrive_as_they_are) {
    const std::string nasty = "a'b\"c $(echo x) `echo y` \\ ; & | > < * ? [a] ~ # ! {k}\n\ttail\\";
    for (const auto* const script : {"printf %s {}",
                                     "printf %s",
                                     "x={}; printf %s \"$x\"",
                                     "printf %s $(printf %s {} >&2; echo){}",
                                     "printf '%s' \"\"{}\"\"",
                                     "(printf %s {})",
                                     "if true; then printf %s {}; fi",
                                     "echo \"it's\" >&2; printf %s {}",
                                     "echo $((1+(2))) >&2; printf %s {}",
                                     "echo \"$(echo \"`echo ${x:-y}`\")\" >&2; printf %s {} # end",
                                     "echo '\"' >&2;printf %s {}",
                                     "echo \\\" a#b $# >&2; printf %s {}",
                                     "f() { printf %s {}; }; set -- a b; f c",
                                     "printf %s \"$@\" {}",
                                     "echo \"$$(\" >&2; printf %s {}",
                                     "echo $$$(echo $$) 3>&- 1>&2; printf %s {}",
                                     "exec 3>&1 >& 2 1>&$((1+2)); printf %s {}",
                                     "printf %s 1>&$(echo 1) {}",
                                     "echo $\\[ >&2; printf %s {}",
                                     "exec 3>&2 1>&$(echo 1) && printf %s {}",
                                     "x=`echo 2>&1`; printf %s {}",
                                     "echo \"$(echo `echo 2>&1`)\" >&2; printf %s {}",
                                     "# \"\nprintf %s {}",
                                     "echo \"$(printf %s {})\" >&2; printf %s {}"})
        EXPECT_EQ(output_of(run({script}, line(nasty), {.shell = true})), nasty) << script;
    // Within a substitution the trailing newline goes, by sh's rules, but nothing else does.
    EXPECT_EQ(output_of(run({"printf %s \"$(printf %s {})\""}, line(nasty), {.shell = true})), nasty);
    EXPECT_EQ(output_of(run({"case x in a) ;; x) printf %s {};; esac"}, line(nasty), {.shell = true})), nasty);
}

// What stands in a text that this reader does not follow may be split, but it is nowhere read as a command.
TEST(Command_template_shell, a_value_is_no_part_of_the_text) {
    const scratch dir;
    const std::string made = dir / "made";
    for (const auto* const script : {": ${x:-$(case x in x) #}{}\n:;;esac)}", "alias e=\"echo '\"\ne {}",
                                     ": $(:)#'\n{}'", "false && : ${x\\} # }{}"}) {
        for (const auto& value : {"$(: >" + made + ")\n: >" + made + " #", "';: >" + made + ";'",
                                  "`\n: >" + made + "\n:", "}\n: >" + made + " #"}) {
            output_of(run({script}, line(value), {.shell = true}), false);
            EXPECT_FALSE(std::filesystem::exists(made)) << script;
        }
    }
}

TEST(Command_template_shell, a_value_is_refused_where_quotes_would_not_protect) {
    const auto where = [](std::string script) {
        return error_of<std::invalid_argument>([&] { make({std::move(script)}, {.shell = true}); });
    };
    const auto expect = [&](const char* script, const std::string& place) {
        EXPECT_EQ(where(script), "--shell: {} stands " + place + "; it is quoted by taskpool, and must stand by itself")
            << script;
    };
    expect("echo '{}'", "in quotes");
    expect("echo \"{}\"", "in quotes");
    expect("echo \"a $(x) {}\"", "in quotes");
    expect("echo \"$(echo \"{}\")\"", "in quotes");
    expect("echo \"$(echo ')' \"{}\")\"", "in quotes");
    expect("echo \"$(echo '{}')\"", "in quotes");
    expect("echo \\'\"{}\"", "in quotes");
    expect("echo \"$$({})\"", "in quotes"); // $$ is a parameter
    expect("echo \"\\\"{}\"", "in quotes");
    expect("echo `echo {}`", "in backquotes: $(...) would do");
    expect("echo \"`echo {}`\"", "in backquotes: $(...) would do");
    expect("echo ${x:-{}}", "in ${...}");
    expect("echo \"${x:-{}}\"", "in ${...}");
    expect("echo $((1+{}))", "in $((...))");
    expect("echo $((1+(2*{})))", "in $((...))");
    expect("echo a # {}", "in a comment");
    expect("echo a;# it's {}", "in a comment");
    expect("echo a # x", "in a comment");
    expect("echo a ># {}", "in a comment");
    expect("echo \\{}", "after a backslash");
    expect("echo >&{}", "after >& or <&"); // a file to some, and the name is read once more
    expect("echo >& {}", "after >& or <&");
    expect("echo >&2{} 1", "after >& or <&");
    expect("echo 3<&\\\n{}", "after >& or <&");
    expect("echo >&\"a b\"$(echo; echo){}", "after >& or <&");
    expect("echo >&$(echo a 2>&1; echo b){}", "after >& or <&");
    expect("echo \\\n# {}", "in a comment"); // a line that goes on
    expect("echo $\\\n(\\\n(1+{}))", "in $((...))");
    expect("echo \"$\\\n{x:-{}}\"", "in ${...}");
    const std::string lost = "after a here-document, or quotes or parentheses that taskpool cannot follow";
    expect("cat <<E\n{}\nE\n", lost);
    expect("cat <\\\n<E\n{}\nE\n", lost);
    expect("echo \"$(ca\\\nse x in x) echo \"{}\";; esac)\"", lost);
    expect("echo $((x) {}))", lost); // to some shells that is still arithmetic
    expect("echo $((x); echo {})", lost);
    expect("echo $(('))')) {}", lost);
    expect("echo $[1+{}]", lost); // arithmetic, to some
    expect("cat <<'E'\nx\nE\necho {}", lost);
    expect("echo $'it\\'s' {}", lost);
    expect("echo ${x:-\"a\"} {}", lost);
    expect("echo ${x:-'a'} {}", lost);
    expect("echo ${x:-`a`} {}", lost);
    expect("echo $((`echo 1`)) {}", lost);
    expect("`#'`'`{}", lost); // comments and quotes end where backquotes do
    expect("`'`'`{}", lost);
    expect("echo \"$(case x in x) echo \"{}\";; esac)\"", lost);
    expect("echo `echo \"\\`echo x\\`\" \"`\" {}`", lost);
    EXPECT_EQ(error_of<std::invalid_argument>([] {
                  make({"echo", "it's", "{k}"}, {.shell = true});
              }),
              "--shell: {k} stands in quotes; it is quoted by taskpool, and must stand by itself");
}

TEST(Quote_for_shell, quotes_always) {
    EXPECT_EQ(quote_for_shell(""), "''");
    EXPECT_EQ(quote_for_shell("if"), "'if'");
    EXPECT_EQ(quote_for_shell("a'b''"), R"('a'\''b'\'''\''')");
}

TEST(Quote_for_shell, a_real_sh_reads_back_every_byte) {
    std::string all;
    for (int byte = 1; byte < 256; ++byte)
        all += static_cast<char>(byte);
    EXPECT_EQ(output_of({"/bin/sh", "-c", "printf %s " + quote_for_shell(all)}), all);
}

TEST(Quote_for_shell, a_real_sh_reads_back_random_bytes) {
    std::mt19937 random(11);
    constexpr std::string_view nasty = "'\"\\$`!\n\r\t #~*?[](){}<>|&;=%^\x01\x7f\x80\xff";
    std::string script;
    std::string expected;
    for (int i = 0; i < 2'000; ++i) {
        std::string value;
        for (auto left = random() % 40; left > 0; --left)
            value += random() % 2 == 0 ? nasty[random() % nasty.size()] : static_cast<char>(1 + random() % 255);
        script += "printf '%s\\0' " + quote_for_shell(value) + "\n";
        expected += value + '\0';
    }
    // A script this long is no argument.
    std::string name = ::testing::TempDir() + "taskpool-quote-XXXXXX";
    const int fd = ::mkstemp(name.data());
    ASSERT_GE(fd, 0);
    ASSERT_EQ(::write(fd, script.data(), script.size()), static_cast<ssize_t>(script.size()));
    ::close(fd);
    EXPECT_EQ(output_of({"/bin/sh", name}), expected);
    ::unlink(name.c_str());
}

} // namespace
} // namespace taskpool::cli
