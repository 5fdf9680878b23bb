// SPDX-License-Identifier: Apache-2.0
// Seeds and counts of the random tests, by the environment.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

#include "../sanitizers.hpp"

namespace taskpool::random {

inline std::uint64_t number_in(const char* name, std::uint64_t otherwise) {
    const char* const text = std::getenv(name);
    return text != nullptr && *text != '\0' ? std::stoull(text) : otherwise;
}

inline std::uint64_t seed() { return number_in("TASKPOOL_RANDOM_SEED", 1); }

/// How many sequences: fewer under a sanitizer.
inline int cases(int usual) { return static_cast<int>(number_in("TASKPOOL_RANDOM_CASES", usual / testing::slowness)); }

/// Rapidcheck reads its settings from the environment, at its first check: so each test is a process of its own, as
/// ctest runs them. Without that the first test's count holds for all.
inline void set_rapidcheck(int count) {
    const auto settings = "seed=" + std::to_string(seed()) + " max_success=" + std::to_string(count);
    ::setenv("RC_PARAMS", settings.c_str(), 1);
}

} // namespace taskpool::random
