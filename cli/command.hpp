// SPDX-License-Identifier: Apache-2.0
// The command's template: placeholders and their values, with or without a shell.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "key.hpp"
#include "record.hpp"

namespace taskpool::cli {

/// What the placeholders of one job stand for.
struct job_values {
    const cli::record& record; ///< {}, {1}, {.path}, {#} (its number)
    std::string_view key;      ///< {k}
    unsigned slot;             ///< {%}, from 1
};

/// Placeholders are exactly these, anywhere in an argument; all else in braces is literal, as in awk '{print $1}':
///   {}       the record           {#}  its number
///   {k}      its key              {%}  the slot
///   {1}      a field              {.user.id}  a value in JSON; see json_path
///   {name}   a field, by the name of its CSV column; a column that is named like another placeholder has only a number
/// After a $, as in ${1}, and in doubled braces, as in {{.Name}}, nothing is a placeholder.
class command_template {
  public:
    /// `arguments` as given after the options, at least one. With no placeholder in any of them the record is appended
    /// as a last argument (not when `stdin_feeds`). With `shell` they are joined by spaces and run by /bin/sh -c: each
    /// placeholder becomes a variable of the shell, in quotes, and its value an argument, so that no byte of a value is
    /// a part of the text. Throws std::invalid_argument with a message for the user: for a malformed placeholder, and
    /// with `shell` for one where quotes of our own would not be read as such, or we cannot tell: within quotes,
    /// backquotes, ${...}, $((...)) and comments, after a backslash, >& or a here-document.
    command_template(const std::vector<std::string>& arguments, bool shell, bool stdin_feeds, const field_rule& rule,
                     const std::vector<std::string>& header = {});

    /// The arguments to execute. Throws input_error naming the record when a field or path is missing, or when a value
    /// holds a NUL byte, which no argument can.
    std::vector<std::string> operator()(const job_values& values) const;

    bool uses_json() const noexcept;   ///< Whether there is a {.path}.
    bool uses_fields() const noexcept; ///< Whether there is a {1} or a {name}.

  private:
    struct piece {
        enum kind_t { literal, whole, key, one_field, path, number, slot } kind = literal;
        std::string text;      // the literal text, or the placeholder as it was written
        std::size_t index = 0; // of the field
        std::optional<json_path> json{};
    };

    static std::optional<piece> read_placeholder(std::string_view text, const field_rule& rule,
                                                 const std::vector<std::string>& header);
    static std::vector<piece> read_argument(std::string_view text, const field_rule& rule,
                                            const std::vector<std::string>& header);
    static std::string shell_text(const std::vector<piece>& pieces);
    void append(std::string& to, const piece& what, const job_values& values) const;
    bool uses(piece::kind_t kind) const noexcept;

    std::vector<std::vector<piece>> arguments_;
    field_rule rule_;
};

/// `text` quoted so that sh reads it as one word, whatever its bytes but NUL.
std::string quote_for_shell(std::string_view text);

} // namespace taskpool::cli
