// SPDX-License-Identifier: Apache-2.0
// One record of the input, and the reader that yields them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace taskpool::cli {

/// A fault of the input or of a file. what() names the record's number where there is one.
struct input_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What ends a record:
///   lines       a newline. A carriage return before it is part of the record; there is no quoting.
///   nul         a NUL byte.
///   csv         a newline or CRLF outside of quotes (RFC 4180). Empty lines are skipped. A quote inside a field is a
///               plain character unless the field begins with one.
///   json_lines  a newline or CRLF. Lines of white space are skipped. Whether the rest is JSON is not looked at.
/// For csv and json_lines a byte order mark at the start of the input is skipped. What is skipped is not counted.
enum class input_format { lines, nul, csv, json_lines };

/// One record as it was read, with nothing interpreted yet.
struct record {
    std::uint64_t number = 0;        ///< From 1, in the order of the input; a CSV header is not counted.
    std::string text;                ///< The record without its terminator, byte for byte.
    std::vector<std::string> fields; ///< For CSV only: the fields with their quoting removed.
};

struct reader_options {
    std::string path = "-"; ///< "-": standard input.
    input_format format = input_format::lines;
    bool header = false;                            ///< CSV: the first row names the fields, each record has as many.
    char separator = ',';                           ///< CSV
    std::size_t max_record = std::size_t{16} << 20; ///< Bytes; a longer record is an input_error.
};

/// Reads records one after the other. Not thread-safe. A last record without a terminator counts. Once a record is at
/// fault there is no way past it: next() throws the same again.
class record_reader {
  public:
    /// Opens the input, and reads the CSV header if there is to be one. That may wait for it, and interrupt() is not
    /// there yet: so make the reader while signals still end the program. Throws input_error.
    explicit record_reader(const reader_options& options);
    ~record_reader();
    record_reader(const record_reader&) = delete;
    record_reader& operator=(const record_reader&) = delete;

    /// The next record, or nothing at the end. Throws input_error. Interrupted reads (EINTR) return nothing early only
    /// when `interrupt()` was called.
    std::optional<record> next();

    /// Makes a blocked or later next() return nothing; async-signal-safe and callable from any thread.
    void interrupt() noexcept;

    /// The names in the CSV header; empty without one.
    const std::vector<std::string>& header() const noexcept;

  private:
    struct parts;
    std::unique_ptr<parts> parts_;
};

} // namespace taskpool::cli
