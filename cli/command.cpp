// SPDX-License-Identifier: Apache-2.0
#include "command.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

namespace taskpool::cli {

namespace {

constexpr std::string_view word_ends = " \t\n;|&()<>";

// Follows sh through the literal parts of its text, and knows whether a word in quotes may stand where it has come to.
// What it does not follow it takes for a place where none may. No shell is followed to its last corner. Where a text
// leads this one astray, values may be split into words, but are no part of the text; what reads a value once more, as
// arithmetic does and what follows >& in some shells, is the reason why this one looks out for these.
class shell_reader {
  public:
    void read(std::string_view text) {
        for (const char c : text)
            read(c);
    }

    // Nothing: a value may stand here. Else the place where we are.
    const char* objection() const {
        if (lost_ || half_closed_)
            return "after a here-document, or quotes or parentheses that taskpool cannot follow";
        if (comment_)
            return "in a comment";
        if (escaped_)
            return "after a backslash";
        if (single_quoted_ || within() == '"')
            return "in quotes";
        if (is_open('`'))
            return "in backquotes: $(...) would do";
        if (is_open(arithmetic))
            return "in $((...))";
        if (is_open('{'))
            return "in ${...}";
        if (target_)
            return "after >& or <&";
        return nullptr;
    }

    void read_value() { before_ = 'x'; }

  private:
    static constexpr char arithmetic = '+';

    char within() const { return open_.empty() ? '\0' : open_.back(); }
    bool is_open(char what) const { return open_.find(what) != std::string::npos; }

    void lose_if(bool unclear) { lost_ = lost_ || unclear; }

    void read(char c) {
        seen_ += c;
        // A backquote ends what another began, in its quotes and comments, too.
        lose_if(c == '`' && is_open('`') && (comment_ || single_quoted_));
        if (comment_) {
            comment_ = c != '\n';
            before_ = c;
            return;
        }
        // Arithmetic ends at two parentheses together; one alone is a part of it to some shells, and its end to others.
        lose_if(std::exchange(half_closed_, false) && c != ')');
        // Quotes in it are none to some.
        lose_if(is_open(arithmetic) && (c == '\'' || c == '"' || c == '`'));
        if (escaped_) {
            escaped_ = false;
            if (c == '\n') { // with its backslash nothing to sh: what comes next follows what was before them
                seen_.resize(seen_.size() - 2);
                return;
            }
            c = 'x';
        } else if (single_quoted_) {
            single_quoted_ = c != '\'';
            c = 'x';
        } else if (c == '\\') {
            escaped_ = true;
            return;
        } else if (before_ == '$' && c == '$') {
            c = 'x'; // a parameter: what follows belongs to no dollar
        } else if (before_ == '$' && c == '[') {
            lost_ = true; // arithmetic, to some
        } else if (before_ == '$' && c == '{') {
            open_ += '{';
        } else if (before_ == '$' && c == '(') {
            open_ += '(';
        } else if (c == '`') {
            read_backquote();
        } else if (within() == '"') {
            if (c == '"')
                open_.pop_back();
        } else if (within() == '{') {
            if (c == '}')
                open_.pop_back();
            lose_if(c == '"' || c == '\''); // shells differ
        } else {
            read_plain(c);
        }
        before_ = c;
    }

    void read_plain(char c) {
        const auto ends_word = [](char by) { return word_ends.find(by) != std::string_view::npos; };
        if (ends_word(c) && (!ends_word(before_) || before_ == ')'))
            end_target();
        switch (c) {
        case '\'':
            single_quoted_ = true;
            lose_if(before_ == '$'); // $'it\'s', in some shells
            break;
        case '"':
            open_ += '"';
            break;
        case '(':
            open_ += before_ == '(' ? arithmetic : '(';
            break;
        case ')':
            if (within() != '(' && within() != arithmetic)
                break;
            half_closed_ = within() == arithmetic;
            open_.pop_back();
            // It may have ended a pattern instead, and then the quotes around are not those that we think.
            lose_if(is_open('"') && seen_.find("case") != std::string::npos);
            break;
        case '<':
            lose_if(before_ == '<');
            break;
        case '&': // then a number, or in some shells a file's name; one of them expands that twice
            if (!target_ && (before_ == '<' || before_ == '>'))
                target_ = open_.size();
            break;
        case '#':
            comment_ = ends_word(before_);
            break;
        default:
            break;
        }
    }

    void read_backquote() {
        if (within() == '`') {
            end_target();
            open_.pop_back();
        } else if (is_open('`') || within() == '{')
            lost_ = true;
        else
            open_ += '`';
    }

    void end_target() {
        if (target_ == open_.size())
            target_.reset();
    }

    std::string open_; // what is open, the innermost last: " ( ` { and arithmetic
    bool single_quoted_ = false;
    bool escaped_ = false;
    bool comment_ = false;
    bool lost_ = false;
    bool half_closed_ = false;
    std::optional<std::size_t> target_; // in what follows >& or <&, up to the end of the word: the size of open_ there
    char before_ = '\n';
    std::string seen_;
};

bool begins_path(std::string_view inside) {
    if (inside.size() < 2 || inside[0] != '.')
        return false;
    const char c = inside[1];
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' || c == '@' || c == '"' ||
           c == '[' || static_cast<unsigned char>(c) >= 0x80;
}

} // namespace

// The placeholder that the text begins with. Nothing: it begins with a brace that is literal.
std::optional<command_template::piece> command_template::read_placeholder(std::string_view text, const field_rule& rule,
                                                                          const std::vector<std::string>& header) {
    const auto close = text.find('}');
    if (close == std::string_view::npos)
        return std::nullopt;
    const auto inside = text.substr(1, close - 1);
    piece result;
    result.text = text.substr(0, close + 1);
    if (inside.empty()) {
        result.kind = piece::whole;
    } else if (inside == "k") {
        result.kind = piece::key;
    } else if (inside == "#") {
        result.kind = piece::number;
    } else if (inside == "%") {
        result.kind = piece::slot;
    } else if (inside.find_first_not_of("0123456789") == std::string_view::npos) {
        if (inside == "0")
            throw std::invalid_argument("{0}: fields are counted from 1");
        if (inside.front() == '0')
            return std::nullopt;
        result.kind = piece::one_field;
        if (std::from_chars(inside.data(), inside.data() + inside.size(), result.index).ec != std::errc())
            throw std::invalid_argument(fmt::format("{}: no record has so many fields", result.text));
    } else if (const auto named = column(header, inside)) {
        result.kind = piece::one_field;
        result.index = *named;
    } else if (inside == "." || inside == "/" || inside == "//" || inside == "/.") {
        throw std::invalid_argument(fmt::format("{}: there is no such placeholder (parts of a path are the shell's "
                                                "business: --shell)",
                                                result.text));
    } else if (begins_path(inside)) {
        if (rule.csv)
            throw std::invalid_argument(fmt::format("{} is a value in JSON, and the input is CSV", result.text));
        result.kind = piece::path;
        auto rest = text.substr(1);
        try {
            result.json = json_path::read(rest);
            if (!rest.starts_with('}'))
                throw std::invalid_argument(R"(a name with other characters is quoted: {."a b"})");
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(fmt::format("{}: not a path in JSON: {}", result.text, error.what()));
        }
        result.text = text.substr(0, text.size() - rest.size() + 1);
    } else {
        return std::nullopt;
    }
    return result;
}

std::vector<command_template::piece> command_template::read_argument(std::string_view text, const field_rule& rule,
                                                                     const std::vector<std::string>& header) {
    std::vector<piece> result;
    std::string literal;
    for (std::size_t at = 0; at < text.size();) {
        const char before = at == 0 ? '\0' : text[at - 1];
        std::optional<piece> found;
        if (text[at] == '{' && before != '$') {
            try {
                found = read_placeholder(text.substr(at), rule, header);
            } catch (const std::invalid_argument&) {
                if (before != '{') // in doubled braces it is not ours
                    throw;
            }
            if (found && before == '{' && text.substr(at + found->text.size()).starts_with('}'))
                found.reset();
        }
        if (!found) {
            literal += text[at++];
            continue;
        }
        at += found->text.size();
        if (!literal.empty())
            result.push_back({piece::literal, std::exchange(literal, {})});
        result.push_back(*std::move(found));
    }
    if (!literal.empty() || result.empty())
        result.push_back({piece::literal, std::move(literal)});
    return result;
}

// A value is no part of the text, so none can be read as such: it is an argument, which the text takes into a variable
// at once. ("$1" itself would be another thing within a function.)
std::string command_template::shell_text(const std::vector<piece>& pieces) {
    shell_reader sh;
    std::string assignments;
    std::string text;
    std::size_t count = 0;
    for (const auto& p : pieces) {
        if (p.kind == piece::literal) {
            sh.read(p.text);
            text += p.text;
            continue;
        }
        if (const char* const where = sh.objection())
            throw std::invalid_argument(fmt::format(
                "--shell: {} stands {}; it is quoted by taskpool, and must stand by itself", p.text, where));
        sh.read_value();
        ++count;
        assignments += fmt::format("{1}taskpool_{0}=${{{0}}}", count, count == 1 ? "" : " ");
        text += fmt::format("\"$taskpool_{}\"", count);
    }
    return count == 0 ? text : fmt::format("{}; shift {}; {}", assignments, count, text);
}

command_template::command_template(const std::vector<std::string>& arguments, bool shell, bool stdin_feeds,
                                   const field_rule& rule, const std::vector<std::string>& header)
    : rule_(rule) {
    bool any = false;
    for (const auto& argument : arguments) {
        arguments_.push_back(read_argument(argument, rule, header));
        any = any || std::any_of(arguments_.back().begin(), arguments_.back().end(),
                                 [](const piece& p) { return p.kind != piece::literal; });
    }
    if (!any && !stdin_feeds)
        arguments_.push_back({piece{piece::whole, "{}"}});
    if (!shell)
        return;
    std::vector<piece> text;
    for (auto& argument : arguments_) {
        if (!text.empty())
            text.push_back({piece::literal, " "});
        std::move(argument.begin(), argument.end(), std::back_inserter(text));
    }
    arguments_ = {{{piece::literal, "/bin/sh"}}, {{piece::literal, "-c"}}, {{piece::literal, shell_text(text)}}};
    std::erase_if(text, [](const piece& p) { return p.kind == piece::literal; });
    if (!text.empty())
        arguments_.push_back({{piece::literal, "/bin/sh"}}); // $0, as it is without arguments
    for (auto& p : text)
        arguments_.push_back({std::move(p)});
}

void command_template::append(std::string& to, const piece& what, const job_values& values) const {
    std::string made;
    std::string_view value;
    switch (what.kind) {
    case piece::literal:
        to += what.text;
        return;
    case piece::whole:
        value = values.record.text;
        break;
    case piece::key:
        value = values.key;
        break;
    case piece::number:
        made = fmt::to_string(values.record.number);
        value = made;
        break;
    case piece::slot:
        made = fmt::to_string(values.slot);
        value = made;
        break;
    case piece::one_field: {
        const auto found = field(values.record, what.index, rule_);
        if (!found)
            throw input_error(fmt::format("record {}: there is no field {}, which the command asks for",
                                          values.record.number, what.index));
        value = *found;
        break;
    }
    case piece::path: {
        auto found = json_value(values.record, *what.json);
        if (!found)
            throw input_error(fmt::format("record {}: there is no value for {}, which the command asks for",
                                          values.record.number, what.text));
        made = *std::move(found);
        value = made;
        break;
    }
    }
    if (value.find('\0') != std::string_view::npos)
        throw input_error(
            fmt::format("record {}: {} holds a NUL byte, which no argument can", values.record.number, what.text));
    to += value;
}

std::vector<std::string> command_template::operator()(const job_values& values) const {
    std::vector<std::string> result;
    for (const auto& argument : arguments_) {
        auto& text = result.emplace_back();
        for (const auto& p : argument)
            append(text, p, values);
    }
    return result;
}

bool command_template::uses(piece::kind_t kind) const noexcept {
    return std::any_of(arguments_.begin(), arguments_.end(), [&](const std::vector<piece>& argument) {
        return std::any_of(argument.begin(), argument.end(), [&](const piece& p) { return p.kind == kind; });
    });
}

bool command_template::uses_json() const noexcept { return uses(piece::path); }
bool command_template::uses_fields() const noexcept { return uses(piece::one_field); }

std::string quote_for_shell(std::string_view text) {
    // Always in quotes: bare, a value could be read as a keyword, an assignment or the number of a descriptor.
    std::string result = "'";
    for (const char c : text) {
        if (c == '\'')
            result += R"('\'')";
        else
            result += c;
    }
    result += '\'';
    return result;
}

} // namespace taskpool::cli
