// SPDX-License-Identifier: Apache-2.0
// Tells the pool that the running job is about to block its thread.
#pragma once

#include <taskpool/export.hpp>

namespace taskpool {

/// While one lives, the thread counts as blocked and the pool may run another in its place at once, instead of
/// noticing within a few ticks. Outside a job it does nothing. Scopes may nest. Not to be moved to another thread.
///
///     taskpool::blocking_scope blocking;
///     auto row = connection.query("...");
class TASKPOOL_EXPORT blocking_scope {
  public:
    blocking_scope() noexcept;
    ~blocking_scope();
    blocking_scope(const blocking_scope&) = delete;
    blocking_scope& operator=(const blocking_scope&) = delete;

  private:
    void* worker_; // null outside a job, and in a nested scope
};

} // namespace taskpool
