// SPDX-License-Identifier: Apache-2.0
// A descriptor that output goes to, and what waits to be written to it. It never blocks on a pipe, socket or terminal,
// so that signals are heard although the reader sleeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "captured.hpp"

namespace taskpool::cli {

class sink {
  public:
    /// `name` is for messages. The descriptor stays the caller's.
    sink(int fd, std::string name);

    struct item {
        captured data;
        std::string prefix;       ///< Put before each line.
        bool end_line = false;    ///< Whether a newline is added when the last line has none.
        std::uint64_t record = 0; ///< Whose output it is; 0: a message of our own, which may be lost without harm.
    };
    void push(item what);

    /// Writes what the descriptor takes now. True when nothing is left. Throws output_error, and then drops all that
    /// waits and all that comes.
    bool flush();

    /// Writes at once or not at all: for decoration. REQUIRES: empty(), or that the order does not matter.
    void write_now(std::string_view text) noexcept;

    bool empty() const noexcept { return items_.empty() && written_ == buffer_.size(); }
    bool terminal() const noexcept { return terminal_; }
    int fd() const noexcept { return fd_; }

  private:
    void fill();
    bool ready() const noexcept;

    const int fd_;
    const std::string name_;
    bool may_block_;
    bool terminal_;
    bool broken_ = false;

    std::deque<item> items_;
    bool at_line_start_ = true; // of the first item
    std::uint64_t record_ = 0;  // the first whose output is in the buffer
    std::string buffer_;        // taken from the items, of which `written_` bytes are written
    std::size_t written_ = 0;
    std::string scratch_;
};

} // namespace taskpool::cli
