// SPDX-License-Identifier: Apache-2.0
// With --shell no byte of a record is read as a part of the command, and a real sh says so. Two kinds of input:
//
//   v and a letter   the letter chooses a template that prints what it gets; what follows are values, each of them once
//                    the record, the field and the key, until the next "\x1e\n". All their commands are one script, and
//                    its output must be the values, byte for byte.
//   t                each byte is a piece of sh's syntax, or a placeholder. Where taskpool takes such a template, it is
//                    run with values that would run a command where they were read as text; none may run.
//
// The templates of the second kind can do no harm: there is no PATH, no letter but x and E outside of a few keywords,
// no redirection to a file, no job in the background, no loop and no function.
#include "command.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuzz.hpp"

namespace {

using namespace taskpool::cli;
using taskpool::fuzz::must;

using strings = std::vector<std::string>;

// What a command prints: all of it, errors, too, or only what it writes to descriptor 9.
enum class listen { to_all, to_nine };

std::string output_of(strings arguments, listen what) {
    std::array<int, 2> ends{};
    must(::pipe2(ends.data(), O_CLOEXEC) == 0, "there is a pipe");
    std::vector<char*> pointers;
    for (auto& argument : arguments)
        pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    char path[] = "PATH=/nowhere";
    std::array<char*, 2> environment{path, nullptr};

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (what == listen::to_all) {
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
    } else {
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
        posix_spawn_file_actions_adddup2(&actions, ends[1], 9);
    }
    pid_t pid = 0;
    const int error = ::posix_spawn(&pid, pointers[0], &actions, nullptr, pointers.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    must(error == 0, "sh starts");

    std::string result;
    std::array<char, 16384> part{};
    for (ssize_t got = 0; (got = ::read(ends[0], part.data(), part.size())) != 0;)
        if (got > 0)
            result.append(part.data(), static_cast<std::size_t>(got));
    ::close(ends[0]);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return result;
}

// A command as a piece of a script: in a shell of its own, which a syntax error ends.
std::string in_a_script(const strings& command) {
    must(command.size() > 4 && command[0] == "/bin/sh" && command[1] == "-c", "sh runs it, with arguments");
    std::string result = "(set --";
    for (std::size_t i = 4; i < command.size(); ++i)
        result += ' ' + quote_for_shell(command[i]);
    return result + "; eval " + quote_for_shell(command[2]) + ")\n";
}

// --- Values

constexpr std::array templates{
    R"(printf '%s\0' {})",
    R"(printf '%s\0' {k} {1} "{a b}" {b})",
    R"(printf '%s\0' x{}y{k}z)",
    R"(x={}; printf '%s\0' "$x")",
    R"((printf '%s\0' {1}); printf '%s\0' "a'b"{k}'"')",
    R"(if :; then printf '%s\0' {} # it's {
       fi)",
    R"(printf '%s\0' $(printf %s {} >/dev/null){k})",
    R"(case x in y) ;; x) printf '%s\0' ""{}"";; esac)",
    R"(f() { printf '%s\0' "$1" {k}; }; f {})",
};

constexpr std::size_t longest_script = 100'000; // one argument may have 128 KiB

// What the template prints for one value.
std::string expected_of(std::size_t which, const std::string& value) {
    using namespace std::string_literals;
    switch (which) {
    case 1:
        return value + '\0' + value + '\0' + "{a b}\0"s + value + '\0';
    case 2:
        return 'x' + value + 'y' + value + 'z' + '\0';
    case 4:
        return value + '\0' + "a'b" + value + '"' + '\0';
    case 8:
        return value + '\0' + value + '\0';
    default:
        return value + '\0';
    }
}

void run_values(std::size_t which, std::string_view text) {
    const field_rule rule{.csv = true};
    const command_template command({templates[which]}, true, false, rule, {"b"});

    std::string script;
    std::string expected;
    for (const auto& value : taskpool::fuzz::split(text, "\x1e\n")) {
        const record from{.number = 1, .text = value, .fields = {value}};
        try {
            script += in_a_script(command({from, value, 1}));
            must(value.find('\0') == std::string::npos, "a NUL byte is refused");
        } catch (const input_error&) {
            must(value.find('\0') != std::string::npos, "only a NUL byte is refused");
            continue;
        }
        expected += expected_of(which, value);
    }
    if (script.size() > longest_script)
        return;
    const auto seen = output_of({"/bin/sh", "-c", script}, listen::to_all);
    must(seen == expected, "sh reads every value as it is", script + "\n--- " + seen);
}

// --- Templates

constexpr std::array pieces{
    "{}", "{k}",          "'",   "\"",    "\\",    "`",    "$",  "(", ")",   "{",  "}",    "#",  " ",   "\n",
    "<",  "<<E\n",        "E\n", ":",     ";",     "x",    "-",  "=", "${x", "$(", "$((",  "))", "<<-", "<<'E'\n",
    "!",  "case x in x)", ";;",  "esac",  "if :;", "then", "fi", "[", "]",   "\t", "\\\n", "x=", "%",   "+",
    "^",  "}}",           "'E'", "${x:-", "$'",    "$\"",
};
constexpr std::size_t most_pieces = 40;

// Something that runs when it is read as a command, and what might lead there out of any place.
constexpr std::array values{
    "';echo out >&9;'",     "\";echo out >&9;\"",  "$(echo out >&9)`echo out >&9`",
    "\necho out >&9\n",     "\nE\necho out >&9\n", "E\necho out >&9\n",
    "};echo out >&9;{",     ");echo out >&9;(",    "\\';echo out >&9;\\'",
    "'\";echo out >&9;\"'", "x;echo out >&9",      "`\necho out >&9\n:",
    "))\necho out >&9\n",
};

bool may_define_a_function(std::string_view text) {
    for (std::size_t at = text.find('('); at != std::string_view::npos; at = text.find('(', at + 1)) {
        const auto next = text.find_first_not_of(" \t\n\\", at + 1);
        if (next != std::string_view::npos && text[next] == ')')
            return true;
    }
    return false;
}

void run_template(std::string_view text) {
    std::string made;
    for (const char c : text.substr(0, most_pieces))
        made += pieces[static_cast<unsigned char>(c) % pieces.size()];
    if (made.find("{}") == std::string::npos || may_define_a_function(made))
        return;
    std::string script = "ulimit -t 5;";
    try {
        const command_template command({made}, true, false, {}, {});
        for (const std::string value : values) {
            const record from{.number = 1, .text = value, .fields = {}};
            script += in_a_script(command({from, value, 1}));
        }
    } catch (const std::invalid_argument&) {
        return;
    }
    must(output_of({"/bin/sh", "-c", script}, listen::to_nine).empty(), "no value is run", made);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto text = taskpool::fuzz::text_of(data, size);
    if (text.starts_with('v') && text.size() >= 2)
        run_values(static_cast<unsigned char>(text[1]) % templates.size(), text.substr(2));
    else if (text.starts_with('t'))
        run_template(text.substr(1));
    return 0;
}
