// SPDX-License-Identifier: Apache-2.0
// The command line's options, and nothing else: parsing and checking, no effects.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "key.hpp"
#include "record.hpp"

namespace taskpool::cli {

/// --on-fail
struct fail_policy {
    enum kind_t { go_on, skip_key, halt_soon, halt_now } kind = go_on;
    std::uint64_t count = 1; ///< Failures until it takes effect (skip_key: of that key) ...
    std::optional<double>
        percent; ///< ... or, instead, the share of finished jobs that failed, once that is >= 10 jobs.
};

enum class output_mode { grouped, raw, line_buffered };
enum class missing_key { error, skip, own };
enum class progress_mode { automatic, plain, json, none };

/// `taskpool run`, checked.
struct run_options {
    reader_options input;
    field_rule fields;
    std::string key; ///< -k
    missing_key without_key = missing_key::error;
    std::vector<std::string> command;
    bool shell = false;
    bool feed_stdin = false;
    unsigned slots = 0; ///< -j; set to the number of processors when not given.
    std::size_t buffer = 100'000;
    output_mode output = output_mode::grouped;
    bool tag = false;
    bool keep_order = false;
    std::string results; ///< --results DIR; empty: none.
    fail_policy on_fail;
    std::chrono::milliseconds timeout{0}; ///< 0: none.
    std::chrono::milliseconds kill_after{5'000};
    progress_mode progress = progress_mode::automatic;
    bool dry_run = false;
};

/// What the arguments ask for.
struct parsed {
    enum kind_t { run, text, error } kind;
    run_options options; ///< run
    std::string message; ///< text: for stdout, exit 0. error: one line for stderr, exit 1. Complete, with its newline.
};

/// Parses main's arguments (without the program's name). Options end at the first argument that is none, or at "--":
/// there the command begins. Key and placeholders are checked here, too, except with a CSV header, whose names are not
/// known yet. Never exits, never throws but std::bad_alloc.
parsed parse(const std::vector<std::string>& arguments);

} // namespace taskpool::cli
