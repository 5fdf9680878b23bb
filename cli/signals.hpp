// SPDX-License-Identifier: Apache-2.0
// The signals that `taskpool run` acts on. They are blocked in every thread and read by the engine, so no handler ever
// runs, and a child process has nothing to undo but the mask.
#pragma once

#include <csignal>

namespace taskpool::cli {

/// Blocks INT, TERM, HUP, QUIT, USR1, USR2 and PIPE in the calling thread and in those started later. INT, HUP and QUIT
/// that were ignored when the program started stay ignored, as a shell's background jobs and nohup expect. A blocked
/// PIPE makes a write to a closed pipe fail with EPIPE.
class blocked_signals {
  public:
    blocked_signals();
    ~blocked_signals(); ///< Restores the mask of the calling thread.
    blocked_signals(const blocked_signals&) = delete;
    blocked_signals& operator=(const blocked_signals&) = delete;

    const sigset_t& to_read() const noexcept { return to_read_; }   ///< Those the engine reads.
    const sigset_t& original() const noexcept { return original_; } ///< The mask that children get.

  private:
    sigset_t to_read_;
    sigset_t original_;
};

/// "SIGTERM" and so on, for messages.
const char* signal_name(int signal) noexcept;

} // namespace taskpool::cli
