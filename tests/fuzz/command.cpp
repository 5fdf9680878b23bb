// SPDX-License-Identifier: Apache-2.0
// Placeholders. Input: a line of options, then the arguments, one a line; in JSON the last line is the record.
//   d or s   direct, or by the shell
//   w or j or the separator of fields
//   i        the record goes to the command's input
//
// Holds: a template is refused with a reason, or it replaces placeholders by their values and touches nothing else.
// That is seen by values which no template holds: putting the placeholders back in their places restores it. No value
// is split, nor expanded again, and a NUL byte never comes through.
#include "command.hpp"

#include <limits>
#include <optional>
#include <stdexcept>

#include "fuzz.hpp"

namespace {

using namespace taskpool::cli;
using taskpool::fuzz::must;
using taskpool::fuzz::with_all;

using strings = std::vector<std::string>;

struct settings {
    bool shell = false;
    bool json = false;
    bool stdin_feeds = false;
    field_rule rule;
};

std::optional<command_template> make(const strings& arguments, const settings& how) {
    try {
        return command_template(arguments, how.shell, how.stdin_feeds, how.rule);
    } catch (const std::invalid_argument& e) {
        must(*e.what() != '\0', "a refusal says why");
        return std::nullopt;
    }
}

struct outcome {
    strings arguments;
    std::string error;
    bool operator==(const outcome&) const = default;
};

outcome expand(const command_template& command, const record& from, std::string_view key, unsigned slot) {
    try {
        return {command({from, key, slot}), ""};
    } catch (const input_error& e) {
        return {{}, e.what()};
    }
}

std::string joined(const strings& arguments) {
    std::string text;
    for (const auto& argument : arguments)
        text += (text.empty() && &argument == &arguments.front() ? "" : " ") + argument;
    return text;
}

std::size_t count_of(std::string_view text, std::string_view what) {
    std::size_t count = 0;
    for (auto at = text.find(what); at != text.npos; at = text.find(what, at + 1))
        ++count;
    return count;
}

// The text for sh, with the values in quotes in place of the variables that it takes them into.
std::string with_values(const strings& command) {
    must(command.size() >= 3 && command[0] == "/bin/sh" && command[1] == "-c", "a shell runs it");
    std::string text = command[2];
    if (command.size() == 3)
        return text;
    must(command.size() > 4 && command[3] == "/bin/sh", "the values follow the shell's name");
    const auto count = command.size() - 4;
    std::string head;
    for (std::size_t i = 1; i <= count; ++i)
        head += (i > 1 ? " " : "") + ("taskpool_" + std::to_string(i)) + "=${" + std::to_string(i) + "}";
    head += "; shift " + std::to_string(count) + "; ";
    must(text.starts_with(head), "each value has its variable", text);
    text.erase(0, head.size());
    for (std::size_t i = 1; i <= count; ++i) {
        const auto before = text;
        text = with_all(std::move(text), "\"$taskpool_" + std::to_string(i) + '"', '\'' + command[3 + i] + '\'');
        must(text != before, "each variable is used", before);
    }
    return text;
}

// Fields, key and numbers, with values that can be found again.
void check_fields(const command_template& command, const strings& arguments, const settings& how) {
    constexpr std::uint64_t number = std::numeric_limits<std::uint64_t>::max() - 58;
    constexpr unsigned slot = std::numeric_limits<unsigned>::max() - 28;
    constexpr int fields = 12;
    const std::string separator(1, how.rule.separator.value_or(' '));
    if ((separator[0] >= '\0' && separator[0] <= '\3') || separator[0] == '\'')
        return; // what marks our values, or changes them
    const auto value_of = [](int field) { return '\1' + std::string(static_cast<std::size_t>(field), '\3') + '\1'; };
    record from{.number = number, .text = "", .fields = {}};
    for (int i = 1; i <= fields; ++i)
        from.text += (i > 1 ? separator : "") + value_of(i);
    const std::string key = "\2\2";

    std::vector<std::pair<std::string, std::string>> back; // the whole record first, as it holds the fields
    back.emplace_back(from.text, "{}");
    for (int i = 1; i <= fields; ++i)
        back.emplace_back(value_of(i), '{' + std::to_string(i) + '}');
    back.emplace_back(key, "{k}");
    back.emplace_back(std::to_string(number), "{#}");
    back.emplace_back(std::to_string(slot), "{%}");
    for (const auto& argument : arguments)
        if (argument.find_first_of("\1\2\3") != std::string::npos || argument.find("taskpool_") != std::string::npos ||
            argument.find(std::to_string(number)) != std::string::npos ||
            argument.find(std::to_string(slot)) != std::string::npos)
            return;

    const auto seen = expand(command, from, key, slot);
    if (!seen.error.empty()) {
        must(seen.error.find("there is no field") != std::string::npos && command.uses_fields(),
             "only a field can be missing", seen.error);
        return;
    }
    const strings all_made = how.shell ? strings{with_values(seen.arguments)} : seen.arguments;
    strings restored = all_made;
    bool replaced = false;
    for (auto& argument : restored)
        for (const auto& [value, placeholder] : back) {
            const auto before = argument;
            argument = with_all(std::move(argument), how.shell ? '\'' + value + '\'' : value, placeholder);
            replaced = replaced || argument != before;
        }
    strings expected = arguments;
    if (!how.stdin_feeds && restored != (how.shell ? strings{joined(expected)} : expected))
        expected.emplace_back("{}"); // for want of a placeholder
    must(restored == (how.shell ? strings{joined(expected)} : expected), "nothing but placeholders was touched",
         joined(restored));
    must(replaced || how.stdin_feeds, "without a placeholder the record is the last argument");

    // Which ones are placeholders cannot be seen so: those that are left must be none, by what stands before and
    // behind.
    for (const std::string_view made : all_made)
        for (const auto& [value, placeholder] : back) {
            for (auto at = made.find(placeholder); at != made.npos; at = made.find(placeholder, at + 1)) {
                const char before = at == 0 ? '\0' : made[at - 1];
                const auto behind = made.substr(at + placeholder.size());
                must(before == '$' || (before == '{' && behind.starts_with('}')), "no placeholder is left", made);
            }
        }
    for (const auto& literal : {"${k}", "${1}", "${}", "{{k}}", "{{1}}", "{{}}"})
        must(count_of(joined(all_made), literal) == count_of(joined(arguments), literal),
             "what is no placeholder is left", joined(all_made));
}

void check_json(const command_template& command, const strings& arguments, const settings& how, const record& from,
                const outcome& seen) {
    must(seen.error.empty() || seen.error.starts_with("record 7: "), "an error names the record", seen.error);
    if (!seen.error.empty() || how.shell)
        return;
    must(seen.arguments.size() == arguments.size() || seen.arguments.size() == arguments.size() + 1,
         "no value is split");
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        std::string_view inside = arguments[i];
        if (!command.uses_json() || !inside.starts_with("{.") || !inside.ends_with('}') || inside == seen.arguments[i])
            continue;
        inside = inside.substr(1, inside.size() - 2);
        try {
            const json_path path(inside);
            must(json_value(from, path) == seen.arguments[i], "a path is replaced by its value", seen.arguments[i]);
        } catch (const std::invalid_argument&) { // more than a path
        }
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto text = taskpool::fuzz::text_of(data, size);
    const auto options = taskpool::fuzz::take(text);
    auto arguments = taskpool::fuzz::split(text);
    if (options.size() < 2 || arguments.empty())
        return 0;
    settings how;
    how.shell = options[0] == 's';
    how.json = options[1] == 'j';
    how.stdin_feeds = options.size() > 2 && options[2] == 'i';
    if (!how.json && options[1] != 'w')
        how.rule.separator = options[1];
    record from{.number = 7, .text = "", .fields = {}};
    if (how.json) {
        from.text = arguments.back();
        arguments.pop_back();
    }
    if (arguments.empty())
        return 0;
    for (const auto& argument : arguments)
        if (argument.find('\0') != std::string::npos)
            return 0; // no argument of ours can

    const auto command = make(arguments, how);
    must(command.has_value() == make(arguments, how).has_value(), "a refusal is the same again");
    if (!command)
        return 0;
    const auto seen = expand(*command, from, "the key", 3);
    must(seen == expand(*command, from, "the key", 3), "the same record makes the same command");
    for (const auto& argument : seen.arguments)
        must(argument.find('\0') == std::string::npos, "no NUL byte comes through");
    if (how.json)
        check_json(*command, arguments, how, from, seen);
    else if (!command->uses_json())
        check_fields(*command, arguments, how);
    return 0;
}
