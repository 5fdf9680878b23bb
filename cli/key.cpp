// SPDX-License-Identifier: Apache-2.0
// Finding a record's key. Longer than 400 lines, half of which are paths in JSON.
#include "key.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>
#include <re2/re2.h>
#include <simdjson.h>

namespace taskpool::cli {

namespace {

constexpr std::string_view white_space = " \t\r\n\v\f";
constexpr std::size_t json_depth_limit = 1'000;

bool digit(char c) { return c >= '0' && c <= '9'; }

// Nothing: not a number, or one that is too large.
std::optional<std::size_t> whole_number(std::string_view text) {
    std::size_t result = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), result);
    if (error != std::errc() || stop != text.data() + text.size() || text.empty())
        return std::nullopt;
    return result;
}

// --- JSON ------------------------------------------------------------------------------------------------------------

bool bare_name_character(char c) {
    return digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' || c == '$' ||
           c == '@' || static_cast<unsigned char>(c) >= 0x80;
}

std::string read_quoted(std::string_view& text) {
    std::string result;
    for (std::size_t at = 1; at < text.size(); ++at) {
        if (text[at] == '"') {
            text.remove_prefix(at + 1);
            return result;
        }
        if (text[at] == '\\' && at + 1 < text.size() && (text[at + 1] == '"' || text[at + 1] == '\\'))
            ++at;
        result += text[at];
    }
    throw std::invalid_argument("a quote is not closed");
}

bool json_number(std::string_view text) {
    const auto digits = [&] {
        const auto count = std::min(text.find_first_not_of("0123456789"), text.size());
        text.remove_prefix(count);
        return count;
    };
    const auto skip = [&](std::string_view any) {
        const bool found = !text.empty() && any.find(text.front()) != std::string_view::npos;
        if (found)
            text.remove_prefix(1);
        return found;
    };
    skip("-");
    if (!skip("0") && digits() == 0)
        return false;
    if (skip(".") && digits() == 0)
        return false;
    if (skip("eE")) {
        skip("+-");
        if (digits() == 0)
            return false;
    }
    return text.empty();
}

struct json_fault {
    const char* what;
};

const char* describe(simdjson::error_code error) {
    switch (error) {
    case simdjson::EMPTY:
        return "it is empty";
    case simdjson::UTF8_ERROR:
        return "it is not UTF-8";
    case simdjson::UNCLOSED_STRING:
        return "a string is not closed";
    case simdjson::UNESCAPED_CHARS:
        return "a control character in a string";
    case simdjson::STRING_ERROR:
        return "a bad escape in a string";
    case simdjson::INCOMPLETE_ARRAY_OR_OBJECT:
        return "an object or array is not closed, or something follows it";
    case simdjson::CAPACITY:
        return "it is too long";
    case simdjson::MEMALLOC:
        return "out of memory";
    default:
        return "bad syntax";
    }
}

// Goes through the whole document, as the parser only looks at what it is asked for, and picks up the value on the way.
class json_walk {
  public:
    explicit json_walk(const std::vector<json_path::step>& steps) : steps_(steps) {}

    // `matched` steps of the path lead to this value; `off_path`: none does.
    template <typename Value>
    void visit(Value& value, std::size_t matched, std::size_t depth) {
        if (depth > json_depth_limit)
            throw json_fault{"it is nested too deeply"};
        switch (simdjson::ondemand::json_type(value.type())) {
        case simdjson::ondemand::json_type::object:
            visit_members(value, matched, depth);
            return;
        case simdjson::ondemand::json_type::array:
            visit_elements(value, matched, depth);
            return;
        case simdjson::ondemand::json_type::string: {
            const std::string_view text = value.get_string();
            if (matched == steps_.size())
                found_ = text;
            return;
        }
        default:
            visit_word(value, matched);
        }
    }

    std::size_t last_word() const noexcept { return last_word_; }
    std::optional<std::string> found() && { return std::move(found_); }

  private:
    static constexpr auto off_path = static_cast<std::size_t>(-1);

    template <typename Value>
    void visit_members(Value& value, std::size_t matched, std::size_t depth) {
        simdjson::ondemand::object object = value.get_object();
        for (auto member : object) {
            const std::string_view name = member.unescaped_key();
            const bool next = matched < steps_.size() && !steps_[matched].index && steps_[matched].name == name;
            if (next)
                found_.reset(); // by an earlier member with this name
            simdjson::ondemand::value child = member.value();
            visit(child, next ? matched + 1 : off_path, depth + 1);
        }
    }

    template <typename Value>
    void visit_elements(Value& value, std::size_t matched, std::size_t depth) {
        simdjson::ondemand::array array = value.get_array();
        std::size_t index = 0;
        for (auto element : array) {
            const bool next = matched < steps_.size() && steps_[matched].index == index;
            simdjson::ondemand::value child = element.value();
            visit(child, next ? matched + 1 : off_path, depth + 1);
            ++index;
        }
    }

    template <typename Value>
    void visit_word(Value& value, std::size_t matched) {
        std::string_view text = value.raw_json_token();
        text = text.substr(0, text.find_last_not_of(white_space) + 1);
        last_word_ = text.size();
        if (text == "null")
            return;
        if (text != "true" && text != "false" && !json_number(text))
            throw json_fault{"bad syntax"};
        if (matched == steps_.size())
            found_ = text;
    }

    const std::vector<json_path::step>& steps_;
    std::optional<std::string> found_;
    std::size_t last_word_ = 0; // the length of the last number, true, false or null
};

std::optional<std::string> find_in_json(const record& record, const json_path& path) {
    thread_local simdjson::ondemand::parser parser;
    thread_local std::vector<char> buffer;

    const auto first = std::min(record.text.find_first_not_of(white_space), record.text.size());
    const auto length = record.text.find_last_not_of(white_space) + 1 - (first == record.text.size() ? 0 : first);
    // The parser reads beyond the end; zeros there cannot be taken for a part of the document.
    buffer.assign(length + simdjson::SIMDJSON_PADDING, '\0');
    std::memcpy(buffer.data(), record.text.data() + first, length);

    simdjson::ondemand::document document;
    const auto fail = [&](const char* what, bool with_place = true) {
        const char* at = nullptr;
        std::string where;
        if (with_place && document.is_alive() && document.current_location().get(at) == simdjson::SUCCESS &&
            at >= buffer.data() && at < buffer.data() + length)
            where = fmt::format(", near byte {}", first + static_cast<std::size_t>(at - buffer.data()) + 1);
        throw input_error(fmt::format("record {}: not JSON: {}{}", record.number, what, where));
    };
    try {
        if (const auto error =
                parser.iterate(simdjson::padded_string_view(buffer.data(), length, buffer.size())).get(document))
            fail(describe(error));
        const auto type = simdjson::ondemand::json_type(document.type());
        json_walk walk(path.steps());
        walk.visit(document, 0, 1);
        const bool word = type == simdjson::ondemand::json_type::number ||
                          type == simdjson::ondemand::json_type::boolean || type == simdjson::ondemand::json_type::null;
        // A lone word is not consumed, all else is.
        if (word ? walk.last_word() != length : document.current_location().error() != simdjson::OUT_OF_BOUNDS)
            fail("something follows the value", !word);
        return std::move(walk).found();
    } catch (const simdjson::simdjson_error& error) {
        fail(describe(error.error()));
    } catch (const json_fault& fault) {
        fail(fault.what);
    }
    return std::nullopt; // not reached
}

} // namespace

json_path json_path::read(std::string_view& text) {
    json_path result;
    while (text.starts_with('.') || (!result.steps_.empty() && text.starts_with('['))) {
        step next;
        const bool dot = text.front() == '.';
        if (dot)
            text.remove_prefix(1);
        if (text.starts_with('[')) {
            text.remove_prefix(1);
            if (text.starts_with('"')) {
                next.name = read_quoted(text);
            } else {
                const auto digits = text.substr(0, text.find_first_not_of("0123456789"));
                next.index = whole_number(digits);
                if (!next.index)
                    throw std::invalid_argument("in [...] stands a number, or a name in double quotes");
                text.remove_prefix(digits.size());
            }
            if (!text.starts_with(']'))
                throw std::invalid_argument("a [ is not closed");
            text.remove_prefix(1);
        } else if (text.starts_with('"')) {
            next.name = read_quoted(text);
        } else {
            const auto stop = std::find_if_not(text.begin(), text.end(), bare_name_character);
            const auto size = static_cast<std::size_t>(stop - text.begin());
            if (size == 0)
                throw std::invalid_argument(R"(a name is missing; one with other characters is quoted: ."a b")");
            next.name = text.substr(0, size);
            text.remove_prefix(size);
        }
        result.steps_.push_back(std::move(next));
    }
    if (result.steps_.empty())
        throw std::invalid_argument("it begins with a dot");
    return result;
}

json_path::json_path(std::string_view text) {
    try {
        auto rest = text;
        *this = read(rest);
        if (!rest.empty())
            throw std::invalid_argument(
                fmt::format(R"(unexpected '{}'; a name with other characters is quoted: ."a b")", rest));
    } catch (const std::invalid_argument& error) {
        throw std::invalid_argument(fmt::format("'{}' is not a path in JSON: {}", text, error.what()));
    }
}

std::optional<std::string> json_value(const record& record, const json_path& path) {
    return find_in_json(record, path);
}

std::optional<std::string> json_value(const record& record, std::string_view path) {
    return find_in_json(record, json_path(path));
}

// --- Fields ----------------------------------------------------------------------------------------------------------

std::optional<std::string_view> field(const record& record, std::size_t n, const field_rule& rule) {
    if (n == 0)
        return std::nullopt;
    if (rule.csv) {
        if (n > record.fields.size())
            return std::nullopt;
        return record.fields[n - 1];
    }
    const std::string_view text = record.text;
    if (rule.separator) {
        std::size_t begin = 0;
        for (std::size_t i = 1; i < n; ++i) {
            begin = text.find(*rule.separator, begin);
            if (begin == std::string_view::npos)
                return std::nullopt;
            ++begin;
        }
        return text.substr(begin, text.find(*rule.separator, begin) - begin);
    }
    std::size_t end = 0;
    for (std::size_t i = 1;; ++i) {
        const auto begin = text.find_first_not_of(white_space, end);
        if (begin == std::string_view::npos)
            return std::nullopt;
        end = std::min(text.find_first_of(white_space, begin), text.size());
        if (i == n)
            return text.substr(begin, end - begin);
    }
}

std::optional<std::size_t> column(const std::vector<std::string>& header, std::string_view name) {
    const auto found = std::find(header.begin(), header.end(), name);
    if (found == header.end())
        return std::nullopt;
    if (std::find(found + 1, header.end(), name) != header.end())
        throw std::invalid_argument(fmt::format("several columns are named '{}': give its number", name));
    return static_cast<std::size_t>(found - header.begin()) + 1;
}

// --- Keys ------------------------------------------------------------------------------------------------------------

struct key_selector::parts {
    enum kind_t { whole, path, expression, fields } kind = whole;
    field_rule rule;
    std::vector<std::size_t> numbers;
    std::optional<json_path> json;
    std::unique_ptr<re2::RE2> characters;
    std::unique_ptr<re2::RE2> bytes;

    void compile(std::string_view text);
    std::optional<std::string> match(const std::string& text) const;
};

void key_selector::parts::compile(std::string_view text) {
    const auto program = [&](re2::RE2::Options::Encoding encoding) {
        re2::RE2::Options options;
        options.set_encoding(encoding);
        options.set_log_errors(false);
        auto result = std::make_unique<re2::RE2>(re2::StringPiece(text.data(), text.size()), options);
        if (!result->ok())
            throw std::invalid_argument(fmt::format("-k /{}/: {}", text, result->error()));
        if (result->NumberOfCapturingGroups() > 1)
            throw std::invalid_argument(
                fmt::format("-k /{}/: {} groups, and one at most can be the key: write (?:...) for the others", text,
                            result->NumberOfCapturingGroups()));
        return result;
    };
    characters = program(re2::RE2::Options::EncodingUTF8);
    bytes = program(re2::RE2::Options::EncodingLatin1);
}

std::optional<std::string> key_selector::parts::match(const std::string& text) const {
    // In characters, '.' stops at what is not UTF-8, so the key would be cut short there.
    const auto& program = simdjson::validate_utf8(text) ? *characters : *bytes;
    const int groups = program.NumberOfCapturingGroups();
    std::array<re2::StringPiece, 2> found;
    if (!program.Match(re2::StringPiece(text.data(), text.size()), 0, text.size(), re2::RE2::UNANCHORED, found.data(),
                       groups + 1))
        return std::nullopt;
    const auto& key = found.at(static_cast<std::size_t>(groups));
    if (key.data() == nullptr) // the group had no part in the match
        return std::nullopt;
    return std::string(key.data(), key.size());
}

key_selector::key_selector(std::string_view expression, const field_rule& rule, const std::vector<std::string>& header)
    : parts_(std::make_unique<parts>()) {
    parts_->rule = rule;
    if (expression.empty())
        throw std::invalid_argument("-k: the key's expression is empty");
    if (expression == "{}")
        return;
    const auto numbered = whole_number(expression);
    if (!numbered) {
        if (const auto named = column(header, expression)) {
            parts_->kind = parts::fields;
            parts_->numbers.push_back(*named);
            return;
        }
    }
    if (expression.front() == '.') {
        if (rule.csv)
            throw std::invalid_argument(
                header.empty() ? fmt::format("-k {} is a path in JSON, and the input is CSV", expression)
                               : fmt::format("-k {}: the header has no such column (a path needs JSON)", expression));
        try {
            parts_->json.emplace(expression);
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(fmt::format("-k: {}", error.what()));
        }
        parts_->kind = parts::path;
        return;
    }
    if (expression.front() == '/') {
        if (expression.size() < 2 || expression.back() != '/')
            throw std::invalid_argument(
                fmt::format("-k {}: a regular expression ends with a slash, too: /id=([0-9]+)/", expression));
        if (expression.size() == 2)
            throw std::invalid_argument("-k //: the regular expression is empty");
        parts_->kind = parts::expression;
        parts_->compile(expression.substr(1, expression.size() - 2));
        return;
    }
    parts_->kind = parts::fields;
    for (auto rest = expression;;) {
        const auto comma = rest.find(',');
        const auto part = rest.substr(0, comma);
        auto number = whole_number(part);
        if (number == std::size_t{0})
            throw std::invalid_argument(fmt::format("-k {}: fields are counted from 1", expression));
        if (!number)
            number = column(header, part);
        if (!number && !header.empty())
            throw std::invalid_argument(fmt::format("-k {}: the header has no column '{}'", expression, part));
        if (!number)
            throw std::invalid_argument(fmt::format(
                "-k {}: neither a field (2), fields (1,3), a path in JSON (.user.id), /a regular expression/ nor {{}}",
                expression));
        parts_->numbers.push_back(*number);
        if (comma == std::string_view::npos)
            return;
        rest.remove_prefix(comma + 1);
    }
}

key_selector::~key_selector() = default;
key_selector::key_selector(key_selector&&) noexcept = default;
key_selector& key_selector::operator=(key_selector&&) noexcept = default;

bool key_selector::needs_json() const noexcept { return parts_->kind == parts::path; }
bool key_selector::needs_fields() const noexcept { return parts_->kind == parts::fields; }

std::optional<std::string> key_selector::operator()(const record& record) const {
    switch (parts_->kind) {
    case parts::whole:
        return record.text;
    case parts::path:
        return json_value(record, *parts_->json);
    case parts::expression:
        return parts_->match(record.text);
    case parts::fields:
        break;
    }
    std::string key;
    for (std::size_t i = 0; i < parts_->numbers.size(); ++i) {
        const auto value = field(record, parts_->numbers[i], parts_->rule);
        if (!value)
            return std::nullopt;
        if (i > 0)
            key += '\t';
        key += *value;
    }
    return key;
}

} // namespace taskpool::cli
