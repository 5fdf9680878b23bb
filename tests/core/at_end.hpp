// SPDX-License-Identifier: Apache-2.0
// Callables whose destructors do something.
#pragma once

#include <functional>
#include <stdexcept>
#include <utility>

namespace taskpool::testing {

/// Calls something at its end.
struct at_end {
    std::function<void()> call;
    explicit at_end(std::function<void()> f) : call(std::move(f)) {}
    at_end(at_end&& other) noexcept : call(std::exchange(other.call, nullptr)) {}
    at_end& operator=(at_end&&) = delete;
    ~at_end() {
        if (call)
            call();
    }
    void operator()() const {}
};

/// Throws at its end.
struct throws_at_its_end {
    bool armed = true;
    throws_at_its_end() = default;
    throws_at_its_end(throws_at_its_end&& other) noexcept : armed(std::exchange(other.armed, false)) {}
    throws_at_its_end& operator=(throws_at_its_end&&) = delete;
    ~throws_at_its_end() noexcept(false) {
        if (armed)
            throw std::runtime_error("end");
    }
    void operator()() const {}
};

} // namespace taskpool::testing
