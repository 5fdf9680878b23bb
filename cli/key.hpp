// SPDX-License-Identifier: Apache-2.0
// -k: how a record gets its key. Fields, a path in JSON, a regular expression, or the whole record.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "record.hpp"

namespace taskpool::cli {

/// How a record's fields are found: by CSV, by a separator (each one separates), or by white space (runs of it count
/// once, at the ends it does not count; blank, tab, CR, LF, VT, FF).
struct field_rule {
    std::optional<char> separator; ///< -d; nothing: white space.
    bool csv = false;              ///< Take record::fields; the separator was the reader's.
};

/// The n-th field (from 1), or nothing when the record has fewer.
std::optional<std::string_view> field(const record& record, std::size_t n, const field_rule& rule);

/// A path such as .user.id, .tags[0], .[0], ."a b" or .["a b"]. Outside of quotes a name is made of letters, digits,
/// underscores, '-', '$', '@' and whatever is not ASCII; within quotes \" and \\ stand for a quote and a backslash.
class json_path {
  public:
    /// Throws std::invalid_argument with a message for the user.
    explicit json_path(std::string_view text);

    /// Reads a path from the front of `text` as far as it goes, and takes that off.
    static json_path read(std::string_view& text);

    struct step {
        std::string name;                 ///< of a member, if there is no
        std::optional<std::size_t> index; ///< in an array, from 0
    };
    const std::vector<step>& steps() const noexcept { return steps_; } ///< At least one.

  private:
    json_path() = default;

    std::vector<step> steps_;
};

/// The value at a path in a record that is a JSON document: strings without quotes and escapes, other scalars as
/// written. Nothing when the path leads nowhere, to null, or to an object or array. Of members with the same name the
/// last one counts. Throws input_error naming the record when it is not JSON throughout, or is nested more than 1,000
/// deep.
std::optional<std::string> json_value(const record& record, const json_path& path);
std::optional<std::string> json_value(const record& record, std::string_view path);

/// The number (from 1) of the column with that name; nothing when there is none. Throws std::invalid_argument with a
/// message for the user when there are several.
std::optional<std::size_t> column(const std::vector<std::string>& header, std::string_view name);

class key_selector {
  public:
    /// Parses -k's argument; with a CSV header, fields may be given by name:
    ///   {}                 the whole record
    ///   NAME               with a header: one column, whatever its name but a number
    ///   .user.id           a path in JSON (not with CSV)
    ///   /id=([0-9]+)/      a regular expression, in RE2's syntax: its group, or the whole match when it has none. In a
    ///                      record that is not UTF-8 it matches bytes instead of characters.
    ///   2   1,3   NAME,3   fields
    /// Throws std::invalid_argument with a message for the user.
    key_selector(std::string_view expression, const field_rule& rule, const std::vector<std::string>& header = {});
    ~key_selector();
    key_selector(key_selector&&) noexcept;
    key_selector& operator=(key_selector&&) noexcept;

    /// Whether records are read as JSON documents, or by fields. Neither: their text alone matters.
    bool needs_json() const noexcept;
    bool needs_fields() const noexcept;

    /// The record's key; nothing when it has none (several fields are joined by one tab; one of them missing is none).
    /// Throws input_error. An empty field is a key: the empty one.
    std::optional<std::string> operator()(const record& record) const;

  private:
    struct parts;
    std::unique_ptr<parts> parts_;
};

} // namespace taskpool::cli
