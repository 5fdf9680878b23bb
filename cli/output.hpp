// SPDX-License-Identifier: Apache-2.0
// Where the output of the jobs goes: grouped by job or by line, with or without a tag, in the order in which jobs end
// or in that of the records, to our own stdout and stderr and to files.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "captured.hpp"
#include "options.hpp"
#include "process.hpp"
#include "sink.hpp"

namespace taskpool::cli {

struct output_settings {
    output_mode mode = output_mode::grouped;
    bool tag = false;
    bool keep_order = false;
    std::string results;                             ///< A directory; empty: none.
    std::size_t job_memory = std::size_t{64} << 10;  ///< Bytes of each stream of a job before they go to a file.
    std::size_t held_memory = std::size_t{32} << 20; ///< The same of all that waits for its turn (keep_order).
    std::string spill_directory;                     ///< Empty: $TMPDIR, or /tmp.
    int out = 1;
    int err = 2;
};

/// The length of the UTF-8 character at `at`; 0 where there is none.
std::size_t character_at(std::string_view text, std::size_t at) noexcept;

/// `text` with control characters escaped, so that it stays on its line and cannot steer a terminal: those of ASCII,
/// and U+0080 to U+009F, which some terminals obey, too, in UTF-8 and as single bytes.
std::string printable(std::string_view text);

/// Not thread-safe. Members that throw throw output_error, after which the job's output is incomplete and the object is
/// still good for the others.
class output {
  public:
    /// Creates the directory for results where it is missing. Throws output_error.
    explicit output(output_settings settings);
    ~output();
    output(const output&) = delete;
    output& operator=(const output&) = delete;

    /// Whether jobs write to pipes that come here through add().
    bool captures() const noexcept { return settings_.mode != output_mode::raw; }

    /// A job: start, add as often as it writes, end. REQUIRES: the slot is free; `number` was not seen before.
    void start(std::size_t slot, std::uint64_t number,
               std::string_view key);                                 ///< Throws, and then the job is not started.
    void add(std::size_t slot, stream which, std::string_view bytes); ///< Throws.
    void end(std::size_t slot);                                       ///< Throws; the job is ended all the same.

    void abandon(std::size_t slot) noexcept; ///< As if start() had not been called.

    /// This record will have no output: with keep_order the ones behind it need not wait.
    void skip(std::uint64_t number);

    /// No record will be started any more: what waits for an earlier one need not.
    void release_all();

    /// With keep_order, the record whose output is next.
    std::uint64_t next() const noexcept { return next_; }

    /// A message of our own, with its prefix and newline, on stderr. Never lost but when stderr is broken.
    void note(std::string_view text);

    /// A line that stays the last on the terminal until something else is written; empty: none.
    void status(std::string_view line);

    /// Writes what can be written without waiting. Throws.
    void flush();

    /// Whether something waits for stdout or stderr to take it.
    bool congested() const noexcept { return !sinks_[0].empty() || !sinks_[1].empty(); }
    const std::array<sink, 2>& sinks() const noexcept { return sinks_; }

  private:
    struct job {
        bool active = false;
        std::uint64_t number = 0;
        std::string prefix;
        std::vector<captured> data; // stdout, stderr
        std::array<int, 2> files{-1, -1};
    };
    struct finished {
        std::uint64_t last = 0; // without data it may stand for several records in a row
        std::string prefix;
        std::vector<captured> data;
    };

    bool live(const job& j) const noexcept;
    void push(std::size_t which, captured data, const std::string& prefix, std::uint64_t number, bool end_line);
    void deliver(finished& what, std::uint64_t number);
    void advance();
    void open_results(job& j);
    void write_results(job& j, std::size_t which, std::string_view bytes);
    void close_results(job& j);

    const output_settings settings_;
    spill_file spill_;
    std::array<sink, 2> sinks_;
    std::vector<job> jobs_; // by slot
    int results_ = -1;      // the directory
    bool status_shown_ = false;
    bool no_more_ = false; // release_all() was called

    // For keep_order: what has ended before its turn. A record without output has no data.
    std::uint64_t next_ = 1;
    std::map<std::uint64_t, finished> held_;
    std::size_t held_memory_ = 0;
};

} // namespace taskpool::cli
