// SPDX-License-Identifier: Apache-2.0
// A clock that a test moves by hand.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

#include <taskpool/export.hpp>

namespace taskpool {

/// The time by which a pool's timers and sleeping coroutines go, when options::clock is set to one. It stands still
/// until somebody moves it; what has come due then is fired by the pool's own thread, soon. One clock may serve several
/// pools, and outlive them. All members are thread-safe.
class TASKPOOL_EXPORT manual_clock {
  public:
    using duration = std::chrono::steady_clock::duration;
    using time_point = std::chrono::steady_clock::time_point;

    /// Throws std::bad_alloc.
    explicit manual_clock(time_point start = {});
    ~manual_clock();
    manual_clock(const manual_clock&) = delete;
    manual_clock& operator=(const manual_clock&) = delete;

    time_point now() const noexcept;

    /// Moves it on. Negative times change nothing: it never goes back.
    void advance(duration by) noexcept;
    void advance_to(time_point time) noexcept;

    /// For pools: `wake(who)` is called after each move, until forget(who). Throws std::bad_alloc.
    void tell(void* who, void (*wake)(void* who) noexcept);
    void forget(void* who) noexcept;

  private:
    struct parts;
    const std::unique_ptr<parts> parts_;
};

} // namespace taskpool
