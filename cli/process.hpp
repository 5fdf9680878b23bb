// SPDX-License-Identifier: Apache-2.0
// The outside world of `taskpool run` behind one small interface: child processes, their output, signals and the clock.
// The runner knows nothing else of them, so its logic is tested with a fake.
//
// A child sits in a slot, numbered from 0, from a successful spawn() until on_exit(). At most one child is in a slot.
// All members are for one thread, the engine's, but wake().
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "signals.hpp"

namespace taskpool::cli {

/// How a child ended: by exit with `code`, or by `signal` when that is not 0.
struct exit_status {
    int code = 0;
    int signal = 0;

    bool success() const noexcept { return code == 0 && signal == 0; }
};

enum class stream : std::uint8_t { out, err };

/// What to start. The views must stay valid during spawn(), `input` until on_exit().
struct launch {
    std::span<const std::string> arguments; ///< At least one; the first is looked up in PATH unless it holds a slash.
    std::string_view key;                   ///< TASKPOOL_KEY
    std::uint64_t number = 0;               ///< TASKPOOL_SEQ
    unsigned attempt = 1;                   ///< TASKPOOL_ATTEMPT; TASKPOOL_SLOT is the slot from 1.
    bool capture =
        true; ///< Whether the child writes to pipes, reported by on_output; else to our own stdout and stderr.
    std::optional<std::string_view> input; ///< What the child finds on its stdin; nothing: /dev/null.
};

struct spawn_failure {
    enum kind_t {
        not_found,   ///< There is no such command.
        cannot_run,  ///< There is, but the system refuses to run it.
        too_long,    ///< The arguments or the key are longer than the system allows.
        no_resources ///< Too many processes or open files for now: worth another try later.
    } kind;
    std::string message; ///< The reason, without the name of the command.
};

/// What wait() reports. Called on the thread that waits; may call the runner's other members.
class process_events {
  public:
    virtual void on_output(std::size_t slot, stream which, std::string_view bytes) = 0;
    /// The last report of this child: its output is complete. When it was signalled through signal(), its whole process
    /// group is gone, or was killed.
    virtual void on_exit(std::size_t slot, exit_status status) = 0;
    virtual void on_signal(int signal) = 0;

  protected:
    ~process_events() = default;
};

class process_runner {
  public:
    using clock = std::chrono::steady_clock;

    virtual ~process_runner() = default;

    /// Starts a child in a process group of its own. REQUIRES: the slot is free.
    virtual std::optional<spawn_failure> spawn(std::size_t slot, const launch& what) = 0;

    /// Sends `signal` to the process group of the child in `slot`.
    virtual void signal(std::size_t slot, int signal) = 0;

    /// The process id of the child in `slot`.
    virtual long pid(std::size_t slot) const = 0;

    /// Whether the children's output is read. While it is not, they block once their pipes are full.
    virtual void read_output(bool on) = 0;

    /// Makes wait() return when `fd` can be written to. False when that cannot be waited for, as with files.
    virtual bool watch_writable(int fd, bool on) = 0;

    /// Reports what has happened, waiting up to `until` for something to happen, or for wake().
    virtual void wait(process_events& events, clock::time_point until) = 0;

    /// Makes the current or the next wait() return. Any thread.
    virtual void wake() noexcept = 0;

    virtual clock::time_point now() const = 0;
};

/// The real one. `signals` has them blocked, in this thread and in all that are started later. Throws
/// std::system_error.
std::unique_ptr<process_runner> make_process_runner(const blocked_signals& signals);

} // namespace taskpool::cli
