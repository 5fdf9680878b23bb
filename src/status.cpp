// SPDX-License-Identifier: Apache-2.0
#include <taskpool/stats.hpp>
#include <taskpool/status.hpp>

#include <algorithm>
#include <cmath>

namespace taskpool {

std::string_view to_string(submit_status status) noexcept {
    switch (status) {
    case submit_status::accepted:
        return "accepted";
    case submit_status::full:
        return "full";
    case submit_status::timed_out:
        return "timed out";
    case submit_status::stopped:
        return "stopped";
    case submit_status::would_deadlock:
        return "would deadlock";
    case submit_status::rate_limited:
        return "rate limited";
    case submit_status::overloaded:
        return "overloaded";
    }
    return "unknown";
}

deadlock_error::deadlock_error(const std::string& what, std::vector<std::string> keys)
    : std::logic_error(what), keys_(std::make_shared<const std::vector<std::string>>(std::move(keys))) {}

const char* job_discarded::what() const noexcept { return "the job was discarded before it ran"; }

const char* job_expired::what() const noexcept { return "the job was not started by its deadline"; }

job_rejected::job_rejected(const submit_result& result)
    : std::runtime_error("the job was not accepted: " + std::string(result.message())), status_(result.status()) {}

std::uint64_t histogram::total() const noexcept {
    std::uint64_t sum = 0;
    for (const auto count : counts)
        sum += count;
    return sum;
}

std::chrono::milliseconds histogram::quantile(double q) const noexcept {
    const auto rank = static_cast<double>(total()) * std::clamp(q, 0.0, 1.0);
    double seen = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
        seen += static_cast<double>(counts[i]);
        if (counts[i] > 0 && seen >= rank)
            return std::chrono::milliseconds(std::int64_t{1} << i);
    }
    return std::chrono::milliseconds(0);
}

} // namespace taskpool
