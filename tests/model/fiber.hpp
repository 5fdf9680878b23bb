// SPDX-License-Identifier: Apache-2.0
// The threads of an execution: fibers of one thread of the system, so that a switch costs no sleep and no wake-up. Each
// has its own stack, its own copy of the program's thread_local variables, and its own exceptions in flight.
//
// For Linux with glibc, where the program's thread_local variables lie in one block. Those with constructors or
// destructors would need more; the core has none.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include <ucontext.h>

namespace taskpool::model {

class fiber {
  public:
    /// The one that runs now, and has a stack.
    fiber();
    /// Calls `body` when it is switched to for the first time. REQUIRES: that switches away in the end, for good.
    explicit fiber(std::function<void()> body);
    fiber(const fiber&) = delete;
    fiber& operator=(const fiber&) = delete;
    ~fiber();

    /// Goes on with `to`; returns when somebody goes on with this one. REQUIRES: this is the one that runs.
    void switch_to(fiber& to) noexcept;

  private:
    static void begin();

    struct exceptions { // as the C++ ABI has them
        void* caught = nullptr;
        unsigned uncaught = 0;
    };

    std::function<void()> body_;
    void* stack_ = nullptr;
    std::vector<std::byte> locals_; // while it does not run
    exceptions exceptions_;         // likewise
    ucontext_t context_;
};

} // namespace taskpool::model
