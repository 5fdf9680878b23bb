// SPDX-License-Identifier: Apache-2.0
// Whether a pool's options make sense.
#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>

#include <taskpool/retry.hpp>

#include "platform.hpp"
#include "pool_core.hpp"

namespace taskpool::detail {

options checked(options settings) {
    const auto refuse = [](const char* why) { throw std::invalid_argument(std::string("taskpool::options: ") + why); };
    constexpr unsigned most_threads = 1U << 16;
    constexpr auto most_max_wait = std::chrono::hours(24);
    if (settings.threads == 0)
        settings.threads = platform::available_processors();
    if (settings.max_threads == 0)
        settings.max_threads = std::max(1024U, settings.threads);
    if (settings.threads > most_threads || settings.max_threads > most_threads)
        refuse("more than 65,536 threads");
    if (settings.max_threads < settings.threads)
        refuse("max_threads is less than threads");
    if (settings.lane_capacity < 1 || settings.lane_capacity > 1'000'000'000)
        refuse("lane_capacity is not from 1 to 1,000,000,000");
    if (settings.pool_capacity < 1)
        refuse("pool_capacity is 0");
    if (settings.max_shared < 1)
        refuse("max_shared is 0");
    if (settings.when_full > overflow::keep_latest)
        refuse("when_full is not one of its values");
    if (settings.ageing < settings.ageing.zero() || settings.ageing > std::chrono::hours(1))
        refuse("ageing is not from 0 to 1 h");
    if (settings.max_wait && (*settings.max_wait < std::chrono::milliseconds(1) || *settings.max_wait > most_max_wait))
        refuse("max_wait is not from 1 ms to 24 h");
    if (settings.retry)
        check(&*settings.retry);
    return settings;
}

} // namespace taskpool::detail
