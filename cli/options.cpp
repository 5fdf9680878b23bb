// SPDX-License-Identifier: Apache-2.0
// CLI11 holds the table of options and takes their values. What comes before it: finding where the command begins, as
// everything from there on belongs to the command whatever it looks like, and errors that name the option that was
// meant. Longer than 400 lines, most of which are the table.
#include "options.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <functional>
#include <limits>
#include <new>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <taskpool/version.hpp>

#include "command.hpp"

namespace taskpool::cli {

namespace {

constexpr auto help_of_all = R"(taskpool runs commands: in order under each key, in parallel across keys.

Usage: taskpool run -k KEY [-j N] [options] [--] COMMAND [ARG...]
       taskpool run --help      all options, with examples
       taskpool --version
)";

constexpr auto help_of_run = R"(Usage: taskpool run -k KEY [-j N] [options] [--] COMMAND [ARG...]

Runs COMMAND once per record of the input: one at a time and in order for
records with the same key, in parallel for different keys, while it reads.
Options end where COMMAND begins; what follows belongs to the command.

Input
  -a, --arg-file FILE    read FILE instead of standard input
  -0, --null             records end with a NUL byte instead of a newline
      --csv              records are CSV, with quotes as in RFC 4180
      --header           the first CSV row names the columns
      --json             records are JSON, one per line (implied by -k .PATH and
                         by {.PATH} in the command)
  -d, --delimiter C      one byte between fields, such as , or \t (default:
                         white space; a comma with --csv)
      --max-record SIZE  the longest record allowed (default: 16M)
      --buffer N         records that may wait before reading pauses
                         (default: 100000)

Key
  -k, --key KEY          2         the second field;  1,3  two fields
                         NAME      a CSV column, with --header
                         .user.id  a value in JSON; also .tags[0] and ."a b"
                         /RE/      what the group in a regular expression
                                   matches, or all of it without a group
                         {}        the whole record
      --missing-key X    a record without a key is an error (default), is
                         skipped (skip), or gets a key of its own (own)

Command
  {} record   {k} key   {1} field   {NAME} column   {.PATH} value in JSON
  {#} number of the record   {%} slot. Without any of them the record is the
  last argument. Everything else in braces is left as it is.
      --shell            run COMMAND by sh -c, each value a word in quotes
      --stdin            give the record to the command as its input instead of
                         as an argument
      --dry-run          print the keys and commands only

Scheduling
  -j, -P, --jobs N       run N commands at a time (default: one per processor)
      --timeout TIME     end a command that takes longer, as failed
      --kill-after TIME  and kill it if it still runs after that (default: 5s)
      --on-fail POLICY   continue, skip-key (the rest of that key), halt-soon
                         (start nothing more), halt-now (and end what runs);
                         from the first failure, the N-th (=N), or once a share
                         of the finished commands failed (=N%)
                         (default: continue)

Output
  Each command's output comes in one piece when it ends, except with:
  -u, --ungroup          output goes straight through, mixed
      --line-buffer      output comes as lines are complete
  -K, --keep-order       output comes in the order of the input
      --tag              each line begins with the key
      --results DIR      output is kept in files under DIR, too
      --progress X       auto (default: a line on a terminal), plain, json, none

  -h, --help             print this
  -V, --version          print the version

TIME is 500ms, 1.5s, 2m, 1h or a number of seconds; SIZE is 4k, 16M or bytes.

Examples
  Each user's events in order, users in parallel, eight at a time:
    taskpool run -k .user.id -j 8 -a events.jsonl -- ./notify {.user.id} {}
  Per client address, the first word of each line of a log:
    tail -f access.log | taskpool run -k 1 -- ./count-visit {1}
  A CSV table with a header, by the column "account":
    taskpool run --csv --header -k account ./book {account} {sum} < moves.csv
  By a part of the line, three failures end it:
    taskpool run -k '/order=([0-9]+)/' --on-fail halt-soon=3 ./ship < orders
  Through the shell; taskpool quotes the values, so they stand without quotes:
    taskpool run -k 1 -d , --shell 'curl -s host/{1} | sort > out/{k}.txt' < ids
  Any file names, one per folder at a time:
    find . -name '*.raw' -print0 | taskpool run -0 -k '/(.*)\//' ./develop {}

Exit status
  0 all is well; 123 a command failed or timed out, or records were skipped; 124
  halted by policy; 125 a command died by a signal; 126 and 127 a command cannot
  be run or found; 1 wrong usage or input; 128+N ended by signal N.
)";

// A mistake of the user; what() is for the user.
struct usage_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct hint {
    std::string_view name;
    std::string_view text;
};

constexpr std::array planned{
    std::string_view("--retries"),     std::string_view("--retry-delay"),   std::string_view("--rate"),
    std::string_view("--load"),        std::string_view("--memfree"),       std::string_view("--delay"),
    std::string_view("--joblog"),      std::string_view("--joblog-format"), std::string_view("--resume"),
    std::string_view("--dead-letter"),
};

// What those who come from xargs and GNU parallel will try.
constexpr std::array from_elsewhere{
    hint{"--max-procs", "it is --jobs here"},
    hint{"--colsep", "it is --delimiter here"},
    hint{"-C", "it is -d here"},
    hint{"--halt", "it is --on-fail here"},
    hint{"--pipe", "it is --stdin here"},
    hint{"--group", "that is the default"},
    hint{"--verbose", "--dry-run prints the commands, without running them"},
    hint{"-v", "--dry-run prints the commands, without running them"},
    hint{"-t", "--dry-run prints the commands, without running them"},
    hint{"-I", "the placeholders are fixed: {} {k} {1} {.path} {#} {%}"},
    hint{"-i", "the placeholders are fixed: {} {k} {1} {.path} {#} {%}"},
    hint{"--max-args", "each command gets one record"},
    hint{"-n", "each command gets one record"},
    hint{"--max-lines", "each command gets one record"},
    hint{"-L", "each command gets one record"},
    hint{"-r", "without records nothing is run anyway"},
    hint{"--no-run-if-empty", "without records nothing is run anyway"},
};

// How many insertions, deletions, changes and swaps of neighbours lead from one to the other.
std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> before_last(b.size() + 1);
    std::vector<std::size_t> last(b.size() + 1);
    std::vector<std::size_t> now(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j)
        last[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        now[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
            now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + change});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = std::min(now[j], before_last[j - 2] + 1);
        }
        std::swap(before_last, last);
        std::swap(last, now);
    }
    return last[b.size()];
}

// The candidate that was meant, or an empty string when none comes close.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
    std::string best;
    auto best_distance = std::numeric_limits<std::size_t>::max();
    for (const auto& candidate : candidates) {
        // Half a word is more likely cut short than misspelt.
        const bool cut_short = word.size() >= 4 && candidate.starts_with(word);
        const auto distance = cut_short ? 1 : edit_distance(word, candidate);
        if (distance < best_distance) {
            best = candidate;
            best_distance = distance;
        }
    }
    return best_distance <= std::max<std::size_t>(2, word.size() / 2) ? best : std::string();
}

bool is_planned(std::string_view name) { return std::find(planned.begin(), planned.end(), name) != planned.end(); }

// --- Values ----------------------------------------------------------------------------------------------------------

std::optional<std::uint64_t> whole_number(std::string_view text) {
    std::uint64_t result = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), result);
    if (error != std::errc() || stop != text.data() + text.size())
        return std::nullopt;
    return result;
}

std::uint64_t number_between(std::string_view option, std::string_view text, std::uint64_t low, std::uint64_t high) {
    const auto number = whole_number(text);
    if (!number || *number < low || *number > high)
        throw usage_error(fmt::format("{} {}: a whole number from {} to {} is expected", option, text, low, high));
    return *number;
}

// Digits with at most one point among them, as a multiple of 1e-6. Nothing: something else, or too large.
std::optional<std::uint64_t> decimal_millionths(std::string_view text) {
    const auto point = text.find('.');
    const auto before = text.substr(0, point);
    auto after = point == std::string_view::npos ? std::string_view() : text.substr(point + 1);
    if (before.empty() && after.empty())
        return std::nullopt;
    if (text.find_first_not_of("0123456789.") != std::string_view::npos || after.find('.') != std::string_view::npos)
        return std::nullopt;
    const auto whole = before.empty() ? std::optional<std::uint64_t>(0) : whole_number(before);
    if (!whole || *whole > std::uint64_t{1'000'000'000'000})
        return std::nullopt;
    auto result = *whole;
    for (std::size_t i = 0; i < 6; ++i)
        result = result * 10 + (i < after.size() ? static_cast<std::uint64_t>(after[i] - '0') : 0);
    // What is lost is rounded up, so that nothing becomes zero.
    return result + (after.size() > 6 && after.find_first_not_of('0', 6) != std::string_view::npos ? 1 : 0);
}

std::chrono::milliseconds duration(std::string_view option, std::string_view text) {
    constexpr std::uint64_t longest = std::uint64_t{1000} * 60 * 60 * 24 * 36'500; // ms; deadlines must not overflow
    const auto unit_at = std::min(text.find_first_not_of("0123456789."), text.size());
    const auto unit = text.substr(unit_at);
    const std::uint64_t unit_ms = unit == "ms"                  ? 1
                                  : unit.empty() || unit == "s" ? 1000
                                  : unit == "m"                 ? std::uint64_t{60} * 1000
                                  : unit == "h"                 ? std::uint64_t{60} * 60 * 1000
                                  : unit == "d"                 ? std::uint64_t{24} * 60 * 60 * 1000
                                                                : 0;
    const auto millionths = decimal_millionths(text.substr(0, unit_at));
    if (unit_ms == 0 || !millionths)
        throw usage_error(fmt::format("{} {}: a time such as 500ms, 1.5s, 2m or 1h is expected", option, text));
    const auto whole = *millionths / 1'000'000;
    if (whole > longest / unit_ms)
        throw usage_error(fmt::format("{} {}: that is more than 100 years", option, text));
    const auto part = (*millionths % 1'000'000 * unit_ms + 999'999) / 1'000'000;
    return std::chrono::milliseconds(whole * unit_ms + part);
}

std::size_t size(std::string_view option, std::string_view text) {
    constexpr std::uint64_t largest = std::uint64_t{2} << 30;
    auto digits = text;
    unsigned shift = 0;
    if (!digits.empty()) {
        const char unit = digits.back();
        shift = unit == 'k' || unit == 'K' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : 0;
        if (shift != 0)
            digits.remove_suffix(1);
    }
    const auto number = whole_number(digits);
    if (!number)
        throw usage_error(fmt::format("{} {}: a size such as 4k, 16M or a number of bytes is expected", option, text));
    if (*number == 0 || *number > largest >> shift)
        throw usage_error(fmt::format("{} {}: a size from 1 to 2G is expected", option, text));
    return static_cast<std::size_t>(*number << shift);
}

char separator(std::string_view text) {
    if (text == "\\t")
        return '\t';
    if (text == "\\0")
        return '\0';
    if (text == "\\n")
        return '\n';
    if (text == "\\\\")
        return '\\';
    if (text.size() != 1)
        throw usage_error(fmt::format(R"(-d {}: one byte is expected, or \t, \0, \n or \\)", text));
    return text.front();
}

template <typename T, std::size_t Count>
T one_of(std::string_view option, std::string_view text, const std::array<std::pair<const char*, T>, Count>& choices) {
    std::vector<std::string> names;
    for (const auto& [name, value] : choices) {
        if (name == text)
            return value;
        names.emplace_back(name);
    }
    throw usage_error(fmt::format("{} {}: one of {} is expected", option, text, fmt::join(names, ", ")));
}

fail_policy policy(std::string_view text) {
    using choice = std::pair<const char*, fail_policy::kind_t>;
    const auto equals = text.find('=');
    fail_policy result;
    result.kind =
        one_of("--on-fail", text.substr(0, equals),
               std::array{choice{"continue", fail_policy::go_on}, choice{"skip-key", fail_policy::skip_key},
                          choice{"halt-soon", fail_policy::halt_soon}, choice{"halt-now", fail_policy::halt_now}});
    if (equals == std::string_view::npos)
        return result;
    auto limit = text.substr(equals + 1);
    if (result.kind == fail_policy::go_on)
        throw usage_error(fmt::format("--on-fail {}: continue takes no number, as it never stops", text));
    if (limit.ends_with('%')) {
        limit.remove_suffix(1);
        const auto millionths = decimal_millionths(limit);
        if (!millionths || *millionths == 0 || *millionths > 100'000'000)
            throw usage_error(fmt::format("--on-fail {}: a share above 0% and up to 100% is expected", text));
        result.percent = static_cast<double>(*millionths) / 1e6;
        return result;
    }
    const auto count = whole_number(limit);
    if (!count || *count == 0)
        throw usage_error(fmt::format("--on-fail {}: after = a number from 1 or a share such as 5% is expected", text));
    result.count = *count;
    return result;
}

// --- The options of run ----------------------------------------------------------------------------------------------

struct run_parser {
    run_parser();

    parsed operator()(const std::vector<std::string>& arguments);

    void define(const char* names, const std::function<void(const std::string&)>& take) {
        run->add_option_function<std::string>(names, take)->take_last();
    }
    std::vector<std::string> split(const std::vector<std::string>& arguments);
    [[noreturn]] void unknown(const std::string& name) const;
    void finish();

    CLI::App app;
    CLI::App* run;
    run_options options;
    std::optional<char> delimiter;
    bool null = false;
    bool csv = false;
    bool json = false;
    bool ungroup = false;
    bool line_buffer = false;
    std::optional<parsed> text; // --help or --version came up
};

run_parser::run_parser() : run(app.add_subcommand("run")) {
    app.set_help_flag();
    run->set_help_flag();

    define("-k,--key", [this](const std::string& v) { options.key = v; });
    define("-a,--arg-file", [this](const std::string& v) {
        if (v.empty())
            throw usage_error("-a: the name of the file is empty");
        options.input.path = v;
    });
    define("-d,--delimiter", [this](const std::string& v) { delimiter = separator(v); });
    define("--max-record", [this](const std::string& v) { options.input.max_record = size("--max-record", v); });
    define("--buffer", [this](const std::string& v) {
        options.buffer = static_cast<std::size_t>(number_between("--buffer", v, 1, 1'000'000'000));
    });
    define("--missing-key", [this](const std::string& v) {
        using choice = std::pair<const char*, missing_key>;
        options.without_key = one_of("--missing-key", v,
                                     std::array{choice{"error", missing_key::error}, choice{"skip", missing_key::skip},
                                                choice{"own", missing_key::own}});
    });
    define("-j,-P,--jobs",
           [this](const std::string& v) { options.slots = static_cast<unsigned>(number_between("-j", v, 1, 65'536)); });
    define("--timeout", [this](const std::string& v) { options.timeout = duration("--timeout", v); });
    define("--kill-after", [this](const std::string& v) { options.kill_after = duration("--kill-after", v); });
    define("--on-fail", [this](const std::string& v) { options.on_fail = policy(v); });
    define("--results", [this](const std::string& v) {
        if (v.empty())
            throw usage_error("--results: the name of the directory is empty");
        options.results = v;
    });
    define("--progress", [this](const std::string& v) {
        using choice = std::pair<const char*, progress_mode>;
        options.progress =
            one_of("--progress", v,
                   std::array{choice{"auto", progress_mode::automatic}, choice{"plain", progress_mode::plain},
                              choice{"json", progress_mode::json}, choice{"none", progress_mode::none}});
    });
    run->add_flag("-0,--null", null);
    run->add_flag("--csv", csv);
    run->add_flag("--header", options.input.header);
    run->add_flag("--json", json);
    run->add_flag("--shell", options.shell);
    run->add_flag("--stdin", options.feed_stdin);
    run->add_flag("--dry-run", options.dry_run);
    run->add_flag("-u,--ungroup", ungroup);
    run->add_flag("--line-buffer", line_buffer);
    run->add_flag("-K,--keep-order", options.keep_order);
    run->add_flag("--tag", options.tag);
    run->add_flag("-h,--help");
    run->add_flag("-V,--version");
}

void run_parser::unknown(const std::string& name) const {
    if (is_planned(name))
        throw usage_error(fmt::format("{}: not in this version", name));
    for (const auto& [foreign, hint] : from_elsewhere) {
        if (name == foreign)
            throw usage_error(fmt::format("unknown option {}: {}", name, hint));
    }
    std::string meant;
    if (name.starts_with("--")) {
        std::vector<std::string> names;
        for (const auto* option : run->get_options()) {
            for (const auto& known : option->get_lnames())
                names.push_back("--" + known);
        }
        names.insert(names.end(), planned.begin(), planned.end());
        meant = nearest(name, names);
    } else {
        // Another letter is no misspelling, but the other case may be.
        auto other = name;
        for (char& c : other)
            c = (c >= 'a' && c <= 'z')   ? static_cast<char>(c - 'a' + 'A')
                : (c >= 'A' && c <= 'Z') ? static_cast<char>(c - 'A' + 'a')
                                         : c;
        if (run->get_option_no_throw(other) != nullptr)
            meant = other;
    }
    if (meant.empty())
        throw usage_error(fmt::format("unknown option {}; taskpool run --help lists them", name));
    throw usage_error(fmt::format("unknown option {}; did you mean {}{}?", name, meant,
                                  is_planned(meant) ? ", which is not in this version" : ""));
}

// Leaves the command in `options`, and returns what is before it with every option spelt out.
std::vector<std::string> run_parser::split(const std::vector<std::string>& arguments) {
    std::vector<std::string> result{"run"};
    auto at = arguments.begin();
    const auto take = [&](const std::string& name, std::optional<std::string> value) {
        const auto* const option = run->get_option_no_throw(name);
        if (option == nullptr)
            unknown(name);
        const auto full = "--" + option->get_lnames().front();
        result.push_back(full);
        if (option->get_items_expected_max() == 0) {
            if (value)
                throw usage_error(fmt::format("{} takes no value", name));
            if (full == "--help")
                text = parsed{parsed::text, {}, help_of_run};
            else if (full == "--version")
                text = parsed{parsed::text, {}, "taskpool " TASKPOOL_VERSION "\n"};
            return;
        }
        if (!value) {
            if (at == arguments.end())
                throw usage_error(fmt::format("{} needs a value", name));
            value = *at++;
        }
        if (full == "--key" && std::count(result.begin(), result.end(), full) > 1)
            throw usage_error("-k is given twice; several fields are one key as in -k 1,3");
        result.push_back(*std::move(value));
    };
    while (at != arguments.end() && at->size() > 1 && at->front() == '-' && !text) {
        const auto argument = *at++;
        if (argument == "--")
            break;
        if (argument.starts_with("--")) {
            const auto equals = argument.find('=');
            if (equals == std::string::npos)
                take(argument, std::nullopt);
            else
                take(argument.substr(0, equals), argument.substr(equals + 1));
            continue;
        }
        for (std::size_t i = 1; i < argument.size(); ++i) {
            const std::string name{'-', argument[i]};
            const auto* const option = run->get_option_no_throw(name);
            const bool with_value = option != nullptr && option->get_items_expected_max() > 0;
            if (with_value && i + 1 < argument.size()) {
                take(name, argument.substr(i + 1));
                break;
            }
            take(name, std::nullopt);
        }
    }
    options.command.assign(at, arguments.end());
    return result;
}

// What one option alone cannot tell.
void run_parser::finish() {
    if (run->count("--key") == 0)
        throw usage_error("-k KEY is missing: what makes records wait for each other; taskpool run --help");
    if (options.key.empty())
        throw usage_error("-k: the key's expression is empty"); // also where a header is to name columns
    if (options.command.empty())
        throw usage_error("the command to run is missing; taskpool run --help");
    if (options.command.front().empty())
        throw usage_error("the command to run is empty");

    if (csv && null)
        throw usage_error("--csv and -0 exclude each other");
    if (csv && json)
        throw usage_error("--csv and --json exclude each other");
    if (options.input.header && !csv)
        throw usage_error("--header needs --csv");
    if (ungroup && line_buffer)
        throw usage_error("-u and --line-buffer exclude each other");
    if (ungroup && options.keep_order)
        throw usage_error("-u and --keep-order exclude each other: output that goes straight through has no order");
    if (ungroup && options.tag)
        throw usage_error("-u and --tag exclude each other: output that goes straight through has no tags");
    if (ungroup && !options.results.empty())
        throw usage_error("-u and --results exclude each other: output that goes straight through is not kept");
    if (csv && delimiter && (*delimiter == '"' || *delimiter == '\n' || *delimiter == '\r' || *delimiter == '\0'))
        throw usage_error("-d: quotes, line ends and NUL cannot separate the fields of CSV");
    if (!csv && delimiter && *delimiter == (null ? '\0' : '\n'))
        throw usage_error("-d: what ends a record cannot separate its fields");

    options.fields.csv = csv;
    options.fields.separator = delimiter;
    if (csv) {
        options.input.format = input_format::csv;
        options.input.separator = delimiter.value_or(',');
    }
    if (ungroup)
        options.output = output_mode::raw;
    else if (line_buffer)
        options.output = output_mode::line_buffered;
    if (options.slots == 0)
        options.slots = std::max(1U, std::thread::hardware_concurrency());

    if (options.input.header)
        return; // key and command may name columns
    const key_selector key(options.key, options.fields);
    const command_template command(options.command, options.shell, options.feed_stdin, options.fields);
    json = json || key.needs_json() || command.uses_json();
    if (json && (key.needs_fields() || command.uses_fields()))
        throw usage_error(fmt::format("{}: records in JSON have no fields, but paths such as .user.id",
                                      key.needs_fields() ? "-k " + options.key : "a number in braces"));
    if (json && delimiter)
        throw usage_error("-d: records in JSON have no fields");
    if (null)
        options.input.format = input_format::nul;
    else if (json)
        options.input.format = input_format::json_lines;
}

parsed run_parser::operator()(const std::vector<std::string>& arguments) {
    auto spelt_out = split(arguments);
    if (text)
        return *std::move(text);
    std::reverse(spelt_out.begin(), spelt_out.end()); // as CLI11 wants it
    app.parse(std::move(spelt_out));
    finish();
    return {parsed::run, std::move(options), {}};
}

parsed parse_or_throw(const std::vector<std::string>& arguments) {
    if (arguments.empty())
        throw usage_error("a command is missing: taskpool run -k KEY [options] COMMAND [ARG...]; see taskpool --help");
    const auto& first = arguments.front();
    if (first == "run")
        return run_parser()({arguments.begin() + 1, arguments.end()});
    if (first == "--help" || first == "-h" || first == "help")
        return {parsed::text, {}, help_of_all};
    if (first == "--version" || first == "-V")
        return {parsed::text, {}, "taskpool " TASKPOOL_VERSION "\n"};
    if (first.starts_with('-'))
        throw usage_error(fmt::format("unknown option {}; options follow a command: taskpool run ...", first));
    throw usage_error(nearest(first, {"run"}).empty()
                          ? fmt::format("unknown command {}; there is: taskpool run -k KEY ...", first)
                          : fmt::format("unknown command {}; did you mean run?", first));
}

parsed failure(std::string_view what) {
    std::string line = fmt::format("taskpool: {}", what);
    // Arguments may hold anything, and the message is one line.
    for (char& c : line) {
        if (static_cast<unsigned char>(c) < ' ' || c == '\x7f')
            c = '?';
    }
    return {parsed::error, {}, line + '\n'};
}

} // namespace

parsed parse(const std::vector<std::string>& arguments) {
    try {
        return parse_or_throw(arguments);
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        return failure(error.what());
    }
}

} // namespace taskpool::cli
