// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <algorithm>
#include <sstream>
#include <thread>

#include <gtest/gtest.h>
#include <taskpool/version.hpp>

namespace taskpool::cli {
namespace {

using strings = std::vector<std::string>;
using namespace std::chrono_literals;
using namespace std::string_literals;

run_options accepted(const strings& arguments) {
    auto result = parse(arguments);
    EXPECT_EQ(result.kind, parsed::run) << result.message;
    EXPECT_EQ(result.message, "");
    return std::move(result.options);
}

/// `run -k 1`, the given arguments, then `cmd`.
run_options options_with(strings arguments) {
    arguments.insert(arguments.begin(), {"run", "-k", "1"});
    arguments.emplace_back("cmd");
    return accepted(arguments);
}

/// The error without "taskpool: " and the newline; "accepted" if there is none.
std::string error(const strings& arguments) {
    const auto result = parse(arguments);
    if (result.kind != parsed::error)
        return "accepted";
    EXPECT_TRUE(result.message.starts_with("taskpool: ")) << result.message;
    EXPECT_TRUE(result.message.ends_with('\n')) << result.message;
    EXPECT_EQ(std::count(result.message.begin(), result.message.end(), '\n'), 1) << result.message;
    return result.message.substr(10, result.message.size() - 11);
}

std::string error_with(strings arguments) {
    arguments.insert(arguments.begin(), {"run", "-k", "1"});
    arguments.emplace_back("cmd");
    return error(arguments);
}

// --- What is accepted

TEST(Options, have_the_documented_defaults) {
    const auto o = accepted({"run", "-k", "1", "cmd"});
    EXPECT_EQ(o.input.path, "-");
    EXPECT_EQ(o.input.format, input_format::lines);
    EXPECT_FALSE(o.input.header);
    EXPECT_EQ(o.input.max_record, 16U * 1024 * 1024);
    EXPECT_FALSE(o.fields.separator);
    EXPECT_FALSE(o.fields.csv);
    EXPECT_EQ(o.key, "1");
    EXPECT_EQ(o.without_key, missing_key::error);
    EXPECT_EQ(o.command, strings{"cmd"});
    EXPECT_FALSE(o.shell);
    EXPECT_FALSE(o.feed_stdin);
    EXPECT_EQ(o.slots, std::max(1U, std::thread::hardware_concurrency()));
    EXPECT_EQ(o.buffer, 100'000U);
    EXPECT_EQ(o.output, output_mode::grouped);
    EXPECT_FALSE(o.tag);
    EXPECT_FALSE(o.keep_order);
    EXPECT_EQ(o.results, "");
    EXPECT_EQ(o.on_fail.kind, fail_policy::go_on);
    EXPECT_EQ(o.timeout, 0ms);
    EXPECT_EQ(o.kill_after, 5s);
    EXPECT_EQ(o.progress, progress_mode::automatic);
    EXPECT_FALSE(o.dry_run);
}

TEST(Options, are_all_understood_in_their_long_form) {
    const auto o = accepted({"run",
                             "--key=2",
                             "--arg-file",
                             "in.txt",
                             "--null",
                             "--delimiter=,",
                             "--max-record=4k",
                             "--buffer",
                             "7",
                             "--missing-key=own",
                             "--jobs=3",
                             "--timeout=2m",
                             "--kill-after=1.5s",
                             "--on-fail=halt-soon=4",
                             "--results=out",
                             "--progress=json",
                             "--shell",
                             "--stdin",
                             "--dry-run",
                             "--line-buffer",
                             "--keep-order",
                             "--tag",
                             "cmd"});
    EXPECT_EQ(o.key, "2");
    EXPECT_EQ(o.input.path, "in.txt");
    EXPECT_EQ(o.input.format, input_format::nul);
    EXPECT_EQ(o.fields.separator, ',');
    EXPECT_EQ(o.input.max_record, 4096U);
    EXPECT_EQ(o.buffer, 7U);
    EXPECT_EQ(o.without_key, missing_key::own);
    EXPECT_EQ(o.slots, 3U);
    EXPECT_EQ(o.timeout, 2min);
    EXPECT_EQ(o.kill_after, 1'500ms);
    EXPECT_EQ(o.on_fail.kind, fail_policy::halt_soon);
    EXPECT_EQ(o.on_fail.count, 4U);
    EXPECT_EQ(o.results, "out");
    EXPECT_EQ(o.progress, progress_mode::json);
    EXPECT_TRUE(o.shell && o.feed_stdin && o.dry_run && o.keep_order && o.tag);
    EXPECT_EQ(o.output, output_mode::line_buffered);
    EXPECT_EQ(options_with({"--ungroup"}).output, output_mode::raw);
    EXPECT_EQ(options_with({"--missing-key", "skip"}).without_key, missing_key::skip);
}

TEST(Options, are_understood_in_their_short_form_attached_and_in_clusters) {
    const auto o = accepted({"run", "-0Kj4", "-k2", "-a", "-", "-d;", "cmd"});
    EXPECT_EQ(o.input.format, input_format::nul);
    EXPECT_TRUE(o.keep_order);
    EXPECT_EQ(o.slots, 4U);
    EXPECT_EQ(o.key, "2");
    EXPECT_EQ(o.input.path, "-");
    EXPECT_EQ(o.fields.separator, ';');
    EXPECT_EQ(options_with({"-P", "5"}).slots, 5U);
    EXPECT_EQ(options_with({"-u"}).output, output_mode::raw);
}

TEST(Options, the_last_of_several_counts) {
    EXPECT_EQ(options_with({"-j", "2", "--jobs=8"}).slots, 8U);
    EXPECT_EQ(options_with({"-j", "8", "-P2"}).slots, 2U);
}

TEST(Options, values_may_look_like_anything) {
    EXPECT_EQ(accepted({"run", "-k", "{}", "cmd"}).key, "{}");
    EXPECT_EQ(accepted({"run", "--key={}", "cmd"}).key, "{}");
    EXPECT_EQ(accepted({"run", "-k", "/[a-z]=([0-9]+)/", "cmd"}).key, "/[a-z]=([0-9]+)/");
    EXPECT_EQ(accepted({"run", "--key=/x=(y)/", "cmd"}).key, "/x=(y)/");
    EXPECT_EQ(options_with({"-a", "--tag"}).input.path, "--tag");
    EXPECT_EQ(options_with({"-a", "--"}).input.path, "--");
    EXPECT_EQ(options_with({"-a", "[x,y]"}).input.path, "[x,y]");
    EXPECT_EQ(options_with({"--results", "%%"}).results, "%%");
    EXPECT_EQ(options_with({"-d", "-"}).fields.separator, '-');
    EXPECT_EQ(options_with({"-d", " "}).fields.separator, ' ');
}

TEST(Options, end_where_the_command_begins) {
    EXPECT_EQ(accepted({"run", "-k", "1", "cmd", "-j", "--tag", "--", "--help"}).command,
              (strings{"cmd", "-j", "--tag", "--", "--help"}));
    EXPECT_EQ(accepted({"run", "-k", "1", "--", "-cmd", "-j"}).command, (strings{"-cmd", "-j"}));
    EXPECT_EQ(accepted({"run", "-k", "1", "--", "--", "x"}).command, (strings{"--", "x"}));
    EXPECT_EQ(accepted({"run", "-k", "1", "run", "run"}).command, (strings{"run", "run"}));
    EXPECT_EQ(accepted({"run", "-k", "1", "cmd", "", "{}"}).command, (strings{"cmd", "", "{}"}));
    EXPECT_FALSE(accepted({"run", "-k", "1", "cmd", "--tag"}).tag);
    EXPECT_EQ(accepted({"run", "-k", "1", "--tag", "cmd", "a b", "[c,d]"}).command, (strings{"cmd", "a b", "[c,d]"}));
}

TEST(Options, delimiters_have_escapes) {
    EXPECT_EQ(options_with({"-d", "\\t"}).fields.separator, '\t');
    EXPECT_EQ(options_with({"-d", "\\0"}).fields.separator, '\0');
    EXPECT_EQ(options_with({"-d", "\\\\"}).fields.separator, '\\');
    EXPECT_EQ(options_with({"-d", "\\"}).fields.separator, '\\');
    EXPECT_EQ(options_with({"-0", "-d", "\\n"}).fields.separator, '\n');
    for (const auto* const text : {"", "ab", "\\x", "\xc3\xa9"})
        EXPECT_EQ(error_with({"-d", text}), "-d "s + text + R"(: one byte is expected, or \t, \0, \n or \\)");
}

TEST(Options, csv_sets_reader_and_fields) {
    const auto o = accepted({"run", "--csv", "--header", "-k", "user id", "cmd", "{user id}"});
    EXPECT_EQ(o.input.format, input_format::csv);
    EXPECT_TRUE(o.input.header);
    EXPECT_EQ(o.input.separator, ',');
    EXPECT_TRUE(o.fields.csv);
    const auto semicolons = options_with({"--csv", "-d", ";"});
    EXPECT_EQ(semicolons.input.separator, ';');
    EXPECT_TRUE(semicolons.fields.csv);
}

TEST(Options, json_is_told_or_implied_by_a_path) {
    EXPECT_EQ(accepted({"run", "--json", "-k", "{}", "cmd"}).input.format, input_format::json_lines);
    EXPECT_EQ(accepted({"run", "-k", ".user.id", "cmd"}).input.format, input_format::json_lines);
    EXPECT_EQ(accepted({"run", "-k", "/id=(.)/", "cmd", "{.id}"}).input.format, input_format::json_lines);
    EXPECT_EQ(accepted({"run", "-k", "/id=(.)/", "cmd", "{{.id}}"}).input.format, input_format::lines);
    EXPECT_EQ(accepted({"run", "-0", "-k", ".id", "cmd"}).input.format, input_format::nul);
    EXPECT_EQ(accepted({"run", "-0", "--json", "-k", "{}", "cmd"}).input.format, input_format::nul);
}

TEST(Options, times_have_units) {
    const auto time = [](const char* text) { return options_with({"--timeout", text}).timeout; };
    EXPECT_EQ(time("500ms"), 500ms);
    EXPECT_EQ(time("1s"), 1s);
    EXPECT_EQ(time("1.5s"), 1'500ms);
    EXPECT_EQ(time("2m"), 2min);
    EXPECT_EQ(time("1.5h"), 90min);
    EXPECT_EQ(time("1d"), 24h);
    EXPECT_EQ(time("10"), 10s);
    EXPECT_EQ(time("0.25"), 250ms);
    EXPECT_EQ(time(".5"), 500ms);
    EXPECT_EQ(time("5."), 5s);
    EXPECT_EQ(time("0"), 0ms);
    EXPECT_EQ(time("36500d"), 24h * 36'500);
    // Never down to nothing, which would be no limit at all.
    EXPECT_EQ(time("0.1ms"), 1ms);
    EXPECT_EQ(time("0.0000000001s"), 1ms);
    EXPECT_EQ(time("1.0001s"), 1'001ms);
    for (const auto* const text : {"", "s", "ms", ".", "1.5.2s", "-1s", "1 s", "1x", "1S", "s1", "1e3", "0x1", "1,5s",
                                   "inf", "1s1", "9999999999999"})
        EXPECT_EQ(error_with({"--timeout", text}),
                  "--timeout "s + text + ": a time such as 500ms, 1.5s, 2m or 1h is expected");
    for (const auto* const text : {"36501d", "1000000000000s", "999999999999d"})
        EXPECT_EQ(error_with({"--kill-after", text}), "--kill-after "s + text + ": that is more than 100 years");
}

TEST(Options, sizes_have_units) {
    const auto size = [](const char* text) { return options_with({"--max-record", text}).input.max_record; };
    EXPECT_EQ(size("1"), 1U);
    EXPECT_EQ(size("4k"), 4096U);
    EXPECT_EQ(size("4K"), 4096U);
    EXPECT_EQ(size("16M"), 16U << 20);
    EXPECT_EQ(size("2G"), 2ULL << 30);
    for (const auto* const text : {"", "k", "-1", "1.5M", "1x", "1kk", "16m", "1 k", "99999999999999999999"})
        EXPECT_EQ(error_with({"--max-record", text}),
                  "--max-record "s + text + ": a size such as 4k, 16M or a number of bytes is expected");
    for (const auto* const text : {"0", "0M", "3G", "2147483649", "18446744073709551615", "18014398509481985k"})
        EXPECT_EQ(error_with({"--max-record", text}), "--max-record "s + text + ": a size from 1 to 2G is expected");
}

TEST(Options, failure_policies_have_limits) {
    const auto policy = [](const char* text) { return options_with({"--on-fail", text}).on_fail; };
    EXPECT_EQ(policy("continue").kind, fail_policy::go_on);
    EXPECT_EQ(policy("skip-key").kind, fail_policy::skip_key);
    EXPECT_EQ(policy("skip-key").count, 1U);
    EXPECT_EQ(policy("halt-now").kind, fail_policy::halt_now);
    EXPECT_FALSE(policy("halt-now").percent);
    EXPECT_EQ(policy("skip-key=3").count, 3U);
    EXPECT_FALSE(policy("halt-soon=3").percent);
    EXPECT_EQ(policy("halt-soon=5%").percent, 5.0);
    EXPECT_EQ(policy("halt-soon=0.5%").percent, 0.5);
    EXPECT_EQ(policy("halt-now=100%").percent, 100.0);
    for (const auto* const text : {"", "halt", "stop", "=3", "halt-soon "})
        EXPECT_TRUE(
            error_with({"--on-fail", text}).ends_with(": one of continue, skip-key, halt-soon, halt-now is expected"))
            << text;
    for (const auto* const text :
         {"halt-soon=", "halt-soon=0", "halt-soon=-1", "halt-soon=x", "halt-soon=1.5", "skip-key=3=4"})
        EXPECT_EQ(error_with({"--on-fail", text}),
                  "--on-fail "s + text + ": after = a number from 1 or a share such as 5% is expected");
    for (const auto* const text :
         {"halt-soon=0%", "halt-soon=%", "halt-soon=101%", "halt-soon=-5%", "halt-soon=5%%", "halt-soon=1e1%"})
        EXPECT_EQ(error_with({"--on-fail", text}),
                  "--on-fail "s + text + ": a share above 0% and up to 100% is expected");
    EXPECT_EQ(error_with({"--on-fail", "continue=3"}),
              "--on-fail continue=3: continue takes no number, as it never stops");
}

// --- What is refused

TEST(Options, numbers_are_whole_and_in_range) {
    for (const auto* const text :
         {"0", "-1", "+2", "", "1.5", "200%", "x", "4x", " 4", "65537", "99999999999999999999"})
        EXPECT_EQ(error_with({"-j", text}), "-j "s + text + ": a whole number from 1 to 65536 is expected");
    EXPECT_EQ(options_with({"-j", "65536"}).slots, 65'536U);
    for (const auto* const text : {"0", "-1", "x", "1000000001"})
        EXPECT_EQ(error_with({"--buffer", text}),
                  "--buffer "s + text + ": a whole number from 1 to 1000000000 is expected");
}

TEST(Options, choices_are_listed) {
    EXPECT_EQ(error_with({"--missing-key", "ignore"}), "--missing-key ignore: one of error, skip, own is expected");
    EXPECT_EQ(error_with({"--progress="}), "--progress : one of auto, plain, json, none is expected");
}

TEST(Options, values_are_needed_where_they_are_and_refused_where_not) {
    EXPECT_EQ(error({"run", "-k"}), "-k needs a value");
    EXPECT_EQ(error({"run", "-k", "1", "--jobs"}), "--jobs needs a value");
    EXPECT_EQ(error({"run", "-k", "1", "-0j"}), "-j needs a value");
    EXPECT_EQ(error_with({"--tag=yes"}), "--tag takes no value");
    EXPECT_EQ(error_with({"--help=run"}), "--help takes no value");
    EXPECT_EQ(error_with({"-a", ""}), "-a: the name of the file is empty");
    EXPECT_EQ(error_with({"--results="}), "--results: the name of the directory is empty");
}

TEST(Options, key_and_command_are_needed) {
    EXPECT_EQ(error({"run"}), "-k KEY is missing: what makes records wait for each other; taskpool run --help");
    EXPECT_EQ(error({"run", "cmd"}), "-k KEY is missing: what makes records wait for each other; taskpool run --help");
    EXPECT_EQ(error({"run", "-k", "1"}), "the command to run is missing; taskpool run --help");
    EXPECT_EQ(error({"run", "-k", "1", "--"}), "the command to run is missing; taskpool run --help");
    EXPECT_EQ(error({"run", "-k", "1", ""}), "the command to run is empty");
    EXPECT_EQ(error({"run", "-k", "1", "-k", "3", "cmd"}),
              "-k is given twice; several fields are one key as in -k 1,3");
}

TEST(Options, key_and_placeholders_are_checked) {
    EXPECT_EQ(error({"run", "-k", "", "cmd"}), "-k: the key's expression is empty");
    EXPECT_EQ(error({"run", "--csv", "--header", "-k", "", "cmd"}), "-k: the key's expression is empty");
    EXPECT_EQ(error({"run", "-k", "0", "cmd"}), "-k 0: fields are counted from 1");
    EXPECT_EQ(error({"run", "-k", "/(a)(b)/", "cmd"}),
              "-k /(a)(b)/: 2 groups, and one at most can be the key: write (?:...) for the others");
    EXPECT_EQ(error({"run", "-k", "1", "cmd", "{0}"}), "{0}: fields are counted from 1");
    EXPECT_EQ(error({"run", "-k", "1", "--shell", "echo '{}'"}),
              "--shell: {} stands in quotes; it is quoted by taskpool, and must stand by itself");
    // With a header only the reader knows whether there is such a column.
    EXPECT_EQ(error({"run", "--csv", "--header", "-k", "nobody", "cmd"}), "accepted");
}

TEST(Options, contradictions_are_named) {
    EXPECT_EQ(error_with({"--csv", "-0"}), "--csv and -0 exclude each other");
    EXPECT_EQ(error_with({"--csv", "--json"}), "--csv and --json exclude each other");
    EXPECT_EQ(error_with({"--header"}), "--header needs --csv");
    EXPECT_EQ(error_with({"-u", "--line-buffer"}), "-u and --line-buffer exclude each other");
    EXPECT_TRUE(error_with({"-u", "-K"}).starts_with("-u and --keep-order exclude each other"));
    EXPECT_TRUE(error_with({"-u", "--tag"}).starts_with("-u and --tag exclude each other"));
    EXPECT_TRUE(error_with({"-u", "--results", "x"}).starts_with("-u and --results exclude each other"));
    for (const auto* const separator : {"\"", "\\n", "\r", "\\0"})
        EXPECT_EQ(error_with({"--csv", "-d", separator}),
                  "-d: quotes, line ends and NUL cannot separate the fields of CSV");
    EXPECT_EQ(error_with({"-d", "\\n"}), "-d: what ends a record cannot separate its fields");
    EXPECT_EQ(error_with({"-0", "-d", "\\0"}), "-d: what ends a record cannot separate its fields");
}

TEST(Options, records_in_json_have_no_fields) {
    EXPECT_EQ(error_with({"--json"}), "-k 1: records in JSON have no fields, but paths such as .user.id");
    EXPECT_EQ(error({"run", "-k", "1", "cmd", "{.a}"}),
              "-k 1: records in JSON have no fields, but paths such as .user.id");
    EXPECT_EQ(error({"run", "-k", ".a", "cmd", "{1}"}),
              "a number in braces: records in JSON have no fields, but paths such as .user.id");
    EXPECT_EQ(error({"run", "-k", ".a", "-d", ",", "cmd"}), "-d: records in JSON have no fields");
    EXPECT_EQ(error({"run", "--csv", "-k", ".a", "cmd"}), "-k .a is a path in JSON, and the input is CSV");
    EXPECT_EQ(error({"run", "--csv", "-k", "1", "cmd", "{.a}"}), "{.a} is a value in JSON, and the input is CSV");
}

TEST(Options, what_may_be_combined_is_accepted) {
    EXPECT_EQ(error_with({"--stdin", "--shell"}), "accepted");
    EXPECT_EQ(error_with({"--tag", "--keep-order", "--line-buffer"}), "accepted");
    EXPECT_EQ(error_with({"--kill-after", "1s"}), "accepted");
}

TEST(Options, an_unknown_one_names_the_nearest) {
    EXPECT_EQ(error_with({"--timout", "3"}), "unknown option --timout; did you mean --timeout?");
    EXPECT_EQ(error_with({"--time=3"}), "unknown option --time; did you mean --timeout?");
    EXPECT_EQ(error_with({"--keep-odrer"}), "unknown option --keep-odrer; did you mean --keep-order?");
    EXPECT_EQ(error_with({"--dryrun"}), "unknown option --dryrun; did you mean --dry-run?");
    EXPECT_EQ(error_with({"--job", "3"}), "unknown option --job; did you mean --jobs?");
    EXPECT_EQ(error_with({"--onfail=x"}), "unknown option --onfail; did you mean --on-fail?");
    EXPECT_EQ(error_with({"--TAG"}), "unknown option --TAG; taskpool run --help lists them");
    EXPECT_EQ(error_with({"--something-else"}), "unknown option --something-else; taskpool run --help lists them");
    EXPECT_EQ(error_with({"-J", "3"}), "unknown option -J; did you mean -j?");
    EXPECT_EQ(error_with({"-U"}), "unknown option -U; did you mean -u?");
    EXPECT_EQ(error_with({"-0x"}), "unknown option -x; taskpool run --help lists them");
    EXPECT_EQ(error_with({"---"}), "unknown option ---; taskpool run --help lists them");
    EXPECT_EQ(error_with({"--=3"}), "unknown option --; taskpool run --help lists them");
}

TEST(Options, those_of_later_versions_are_told_apart) {
    for (const auto* const name : {"--retries", "--retry-delay", "--rate", "--load", "--memfree", "--delay",
                                   "--dead-letter", "--joblog", "--joblog-format", "--resume"}) {
        EXPECT_EQ(error_with({name, "3"}), name + ": not in this version"s);
        EXPECT_EQ(error_with({name + "=3"s}), name + ": not in this version"s);
    }
    EXPECT_EQ(error_with({"--retrys=3"}),
              "unknown option --retrys; did you mean --retries, which is not in this version?");
}

TEST(Options, those_of_similar_programs_are_translated) {
    EXPECT_EQ(error_with({"--colsep", ","}), "unknown option --colsep: it is --delimiter here");
    EXPECT_EQ(error_with({"--max-procs=4"}), "unknown option --max-procs: it is --jobs here");
    EXPECT_EQ(error_with({"-n1"}), "unknown option -n: each command gets one record");
    EXPECT_EQ(error_with({"-I{}"}), "unknown option -I: the placeholders are fixed: {} {k} {1} {.path} {#} {%}");
}

TEST(Options, messages_are_one_line_whatever_the_arguments) {
    EXPECT_EQ(error_with({"--a\nb\x1b[2J"}), "unknown option --a?b?[2J; taskpool run --help lists them");
    EXPECT_EQ(error({"run", "-k", "/(\n/", "cmd"}).find('\n'), std::string::npos);
}

// --- The rest of the command line

TEST(Command_line_of_taskpool, without_arguments_tells_the_usage) {
    EXPECT_EQ(error({}), "a command is missing: taskpool run -k KEY [options] COMMAND [ARG...]; see taskpool --help");
}

TEST(Command_line_of_taskpool, unknown_commands_and_stray_options_are_named) {
    EXPECT_EQ(error({"rum"}), "unknown command rum; did you mean run?");
    EXPECT_EQ(error({"start"}), "unknown command start; there is: taskpool run -k KEY ...");
    EXPECT_EQ(error({""}), "unknown command ; there is: taskpool run -k KEY ...");
    EXPECT_EQ(error({"-k", "1", "cmd"}), "unknown option -k; options follow a command: taskpool run ...");
}

TEST(Command_line_of_taskpool, prints_the_version) {
    for (const auto& arguments :
         {strings{"--version"}, strings{"-V"}, strings{"run", "--version"}, strings{"run", "-0V"}}) {
        const auto result = parse(arguments);
        EXPECT_EQ(result.kind, parsed::text);
        EXPECT_EQ(result.message, "taskpool " TASKPOOL_VERSION "\n");
    }
}

TEST(Command_line_of_taskpool, prints_help) {
    for (const auto& arguments : {strings{"--help"}, strings{"-h"}, strings{"help"}, strings{"run", "--help"},
                                  strings{"run", "-h"}, strings{"run", "-j", "0", "-h", "--nonsense"}}) {
        const auto result = parse(arguments);
        EXPECT_EQ(result.kind, parsed::text);
        EXPECT_NE(result.message.find("Usage: taskpool run -k KEY"), std::string::npos);
        EXPECT_TRUE(result.message.ends_with('\n'));
    }
    EXPECT_EQ(accepted({"run", "-k", "1", "cmd", "--help"}).command, (strings{"cmd", "--help"}));
    EXPECT_EQ(error({"run", "--nonsense", "--help"}), "unknown option --nonsense; taskpool run --help lists them");
}

TEST(Command_line_of_taskpool, help_fits_a_terminal_and_names_every_option) {
    const auto help = parse({"run", "--help"}).message;
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) {
        EXPECT_LE(line.size(), 80U) << line;
        EXPECT_FALSE(line.ends_with(' ')) << line;
    }
    for (const auto* const option :
         {"-k, --key",     "-j, -P, --jobs", "-a, --arg-file", "-0, --null",       "-d, --delimiter", "--csv",
          "--header",      "--json",         "--missing-key",  "--shell",          "--stdin",         "--buffer",
          "-u, --ungroup", "--line-buffer",  "--tag",          "-K, --keep-order", "--results",       "--on-fail",
          "--timeout",     "--kill-after",   "--max-record",   "--progress",       "--dry-run",       "-h, --help",
          "-V, --version"})
        EXPECT_NE(help.find(option), std::string::npos) << option;
}

/// Splits a line as sh does, as far as the examples need it; stops at redirections and pipes.
strings words(const std::string& line) {
    strings result;
    std::string word;
    bool any = false;
    char quote = '\0';
    for (const char c : line + ' ') {
        if (quote != '\0') {
            quote = c == quote ? '\0' : quote;
            if (quote != '\0')
                word += c;
        } else if (c == '\'') {
            quote = c;
            any = true;
        } else if (c == ' ') {
            if (any && (word == "<" || word == "|"))
                break;
            if (any)
                result.push_back(word);
            word.clear();
            any = false;
        } else {
            word += c;
            any = true;
        }
    }
    return result;
}

TEST(Command_line_of_taskpool, the_examples_in_help_are_accepted) {
    std::istringstream lines(parse({"run", "--help"}).message);
    int examples = 0;
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with("    ") || line.find("taskpool run ") == std::string::npos)
            continue;
        auto arguments = words(line.substr(line.find("taskpool run ")));
        arguments.erase(arguments.begin());
        EXPECT_EQ(error(arguments), "accepted") << line;
        ++examples;
    }
    EXPECT_EQ(examples, 6);
}

} // namespace
} // namespace taskpool::cli
