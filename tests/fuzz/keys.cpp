// SPDX-License-Identifier: Apache-2.0
// Key selectors (-k). Input: one byte (w: white space, c: CSV, another: the separator), the key's expression, a
// newline, the record; with CSV the record's first line is the header, and commas separate.
//
// Holds: a selector is refused with a reason, or selects, each time the same, what an independent reading of its
// expression would: a field by counting, a match that stands in the record, a JSON value that simdjson's other parser
// finds, too.
#include "key.hpp"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>

#include <simdjson.h>

#include "fuzz.hpp"

namespace {

using namespace taskpool::cli;
using taskpool::fuzz::must;

struct outcome {
    std::optional<std::string> key;
    std::string error;
    bool operator==(const outcome&) const = default;
};

outcome select(const key_selector& selector, const record& from) {
    try {
        return {selector(from), ""};
    } catch (const input_error& e) {
        return {std::nullopt, e.what()};
    }
}

std::optional<std::string> field_by_counting(const record& from, std::size_t number, const field_rule& rule) {
    std::vector<std::string> all;
    if (rule.csv) {
        all = from.fields;
    } else if (rule.separator) {
        all.emplace_back();
        for (const char c : from.text)
            if (c == *rule.separator)
                all.emplace_back();
            else
                all.back() += c;
    } else {
        bool inside = false;
        for (const char c : from.text) {
            const bool white = c == ' ' || (c >= '\t' && c <= '\r');
            if (!white && !inside)
                all.emplace_back();
            if (!white)
                all.back() += c;
            inside = !white;
        }
    }
    if (number == 0 || number > all.size())
        return std::nullopt;
    return all[number - 1];
}

// The last of the members with a name counts.
simdjson::error_code follow(simdjson::dom::element& at, const json_path::step& step) {
    if (step.index) {
        simdjson::dom::array array;
        if (const auto error = at.get(array))
            return error;
        return array.at(*step.index).get(at);
    }
    simdjson::dom::object object;
    if (const auto error = at.get(object))
        return error;
    auto result = simdjson::NO_SUCH_FIELD;
    for (const auto member : object)
        if (member.key == step.name) {
            at = member.value;
            result = simdjson::SUCCESS;
        }
    return result;
}

void check_json(const record& from, const json_path& path, const outcome& found) {
    constexpr std::string_view white = " \t\r\n\v\f";
    const auto begin = std::min(from.text.find_first_not_of(white), from.text.size());
    const auto text = from.text.substr(begin, from.text.find_last_not_of(white) + 1 - begin);
    static simdjson::dom::parser parser;
    simdjson::dom::element at;
    const auto error = parser.parse(text).get(at);
    const std::string_view fault = simdjson::error_message(error);
    if (error == simdjson::DEPTH_ERROR || fault.find("number") != fault.npos || fault.find("nteger") != fault.npos)
        return; // a number that is wrong, or too large for that one
    if (found.error.find("nested too deeply") != std::string::npos)
        return;
    must((error != simdjson::SUCCESS) == !found.error.empty(), "both parsers agree on what is JSON",
         found.error.empty() ? fault : found.error);
    if (error)
        return;
    bool there = true;
    for (const auto& step : path.steps())
        there = there && follow(at, step) == simdjson::SUCCESS;
    there = there && !at.is_null() && !at.is_object() && !at.is_array();
    must(there == found.key.has_value(), "both parsers agree on whether there is a value");
    if (!there)
        return;
    if (at.is_string()) {
        must(at.get_string().value_unsafe() == *found.key, "both parsers agree on a string", *found.key);
    } else {
        must(from.text.find(*found.key) != std::string::npos, "a scalar is as written", *found.key);
        static simdjson::dom::parser again;
        const std::string one = simdjson::minify(at);
        const std::string other = simdjson::minify(again.parse(*found.key));
        must(one == other, "both parsers agree on a scalar", *found.key);
    }
}

// A path that is written down with every name in quotes is the same path.
void check_path(const json_path& path) {
    std::string text = ".";
    for (const auto& step : path.steps()) {
        if (step.index) {
            text += '[' + std::to_string(*step.index) + ']';
            continue;
        }
        text += "[\"";
        for (const char c : step.name)
            (c == '"' || c == '\\' ? text += '\\' : text) += c;
        text += "\"]";
    }
    const json_path again(text);
    must(again.steps().size() == path.steps().size(), "a path has the same steps when it is read again", text);
    for (std::size_t i = 0; i < path.steps().size(); ++i)
        must(again.steps()[i].name == path.steps()[i].name && again.steps()[i].index == path.steps()[i].index,
             "a path has the same steps when it is read again", text);
}

std::string refusal(std::string_view expression, const field_rule& rule, const std::vector<std::string>& header) {
    try {
        const key_selector selector(expression, rule, header);
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "";
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto text = taskpool::fuzz::text_of(data, size);
    if (text.empty())
        return 0;
    const char mode = text.front();
    text.remove_prefix(1);
    const std::string expression(taskpool::fuzz::take(text));

    field_rule rule;
    std::vector<std::string> header;
    record from{.number = 7, .text = "", .fields = {}};
    if (mode == 'c') {
        rule.csv = true;
        header = taskpool::fuzz::split(taskpool::fuzz::take(text), ",");
        from.fields = taskpool::fuzz::split(text, ",");
    } else if (mode != 'w') {
        rule.separator = mode;
    }
    from.text = text;

    std::optional<key_selector> made;
    try {
        made.emplace(expression, rule, header);
    } catch (const std::invalid_argument& e) {
        must(*e.what() != '\0', "a refusal says why");
        must(e.what() == refusal(expression, rule, header), "a refusal is the same again");
        return 0;
    }
    const outcome first = select(*made, from);
    must(first == select(*made, from), "a key selected twice is the same");
    must(first == select(key_selector(expression, rule, header), from), "as it is by another selector");
    const key_selector moved(std::move(*made));
    must(first == select(moved, from), "and by one that was moved");
    must(first.error.empty() || first.error.starts_with("record 7: "), "an error names the record", first.error);
    must(!moved.needs_json() || !moved.needs_fields(), "a record is read in one way");

    if (moved.needs_json()) {
        const json_path path{std::string_view(expression)};
        check_path(path);
        check_json(from, path, first);
    } else if (expression == "{}") {
        must(first.key == from.text, "the whole record is the key");
    } else if (!moved.needs_fields()) {
        must(!first.key || from.text.find(*first.key) != std::string::npos, "a match stands in the record");
    } else if (expression.find_first_not_of("0123456789,") == std::string::npos && header.empty()) {
        std::optional<std::string> expected;
        for (const auto& number : taskpool::fuzz::split(expression, ",")) {
            const auto one = field_by_counting(from, std::stoull(number), rule);
            if (!one) {
                expected.reset();
                break;
            }
            expected = expected ? *expected + '\t' + *one : *one;
        }
        must(first.key == expected, "fields are found by counting", first.key.value_or("(none)"));
    }
    return 0;
}
