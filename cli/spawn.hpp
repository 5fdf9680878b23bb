// SPDX-License-Identifier: Apache-2.0
// Starting one child process: its path, its environment, and the call itself.
#pragma once

#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "process.hpp"

namespace taskpool::cli {

/// Starts children at the least cost: the environment is built once and patched, a command is looked up once, and the
/// child shares our memory until it executes (CLONE_VFORK), so nothing is copied whatever our size.
///
/// A child is in a process group of its own, has the original signal mask, and is killed when the calling thread ends,
/// which is how none outlives a taskpool that is killed itself (set-user-ID programs excepted: the kernel drops it).
class spawner {
  public:
    explicit spawner(const blocked_signals& signals);
    ~spawner();
    spawner(const spawner&) = delete;
    spawner& operator=(const spawner&) = delete;

    struct child {
        int pid = -1;
        int pidfd = -1; ///< Readable once the child has ended. The caller's to close.
    };

    /// The descriptors become the child's 0, 1 and 2; -1: ours is inherited. REQUIRES: they are above 2.
    std::optional<spawn_failure> operator()(std::size_t slot, const launch& what, int in, int out, int err,
                                            child& result);

  private:
    std::optional<spawn_failure> find(const std::string& command, bool again);
    int start(const char* path, int in, int out, int err, child& result);
    std::optional<spawn_failure> set_environment(std::size_t slot, const launch& what);

    const sigset_t mask_;
    void* stack_; // of the child until it executes; one at a time, as the call waits for that

    std::vector<std::string> own_; // the variables we add, then those of our environment
    std::vector<char*> environment_;
    std::vector<char*> arguments_;

    std::string command_; // the last one that was looked up ...
    std::string path_;    // ... and where it was found
};

} // namespace taskpool::cli
