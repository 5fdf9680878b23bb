// SPDX-License-Identifier: Apache-2.0
// What the core needs of the system beyond the standard library. One file for each system, and one for the rest.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>

namespace taskpool::detail::platform {

/// Processors that this process may use: the affinity mask, and the quota of its control group rounded up. At least 1.
unsigned available_processors() noexcept;

/// Starts a thread that blocks all signals and bears the name "name-number". Throws std::system_error.
std::thread start_thread(void (*body)(void*), void* argument, const std::string& name, unsigned number);

/// A thread seen from another one. Made by the thread itself.
class thread_probe {
  public:
    /// REQUIRES: called by the thread to be watched.
    static thread_probe of_this_thread() noexcept;

    /// The processor time it has used, or nothing where the system cannot tell.
    std::optional<std::chrono::nanoseconds> cpu_time() const noexcept;

    /// Whether it sleeps in the system, as opposed to running or waiting for a processor, and why: it has called the
    /// system, or it waits for a page of memory, which who only computes may do, too. `no` when in doubt.
    enum class sleep { no, for_memory, in_call };
    sleep asleep() const noexcept;

  private:
    std::int64_t clock_ = 0;
    std::int64_t id_ = 0;
};

/// Calls `prepare` before each fork, `parent` and `child` after it. REQUIRES: called once. Nothing where there is no
/// fork.
void at_fork(void (*prepare)(), void (*parent)(), void (*child)()) noexcept;

} // namespace taskpool::detail::platform
