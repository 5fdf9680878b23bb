// SPDX-License-Identifier: Apache-2.0
// Keys that are not strings.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>

#include <taskpool/taskpool.hpp>

namespace {

struct device {
    std::uint32_t site;
    std::uint32_t number;
    bool operator==(const device&) const = default;
    // Reports and messages show keys by it; without it they say "(a key with no text)".
    friend std::ostream& operator<<(std::ostream& out, const device& d) { return out << d.site << '/' << d.number; }
};

struct device_hash {
    std::size_t operator()(const device& d) const noexcept {
        return std::hash<std::uint64_t>()(std::uint64_t{d.site} << 32 | d.number);
    }
};

using device_pool = taskpool::basic_task_pool<device, device_hash>;

bool of_our_own() {
    std::string seen;
    device_pool pool;
    pool.submit({.site = 4, .number = 17}, [&seen](const device_pool::job_context& ctx) {
        seen = std::to_string(ctx.key().site) + "/" + std::to_string(ctx.key().number);
    });
    pool.drain();
    return seen == "4/17";
}

bool numbers() {
    long sum = 0;
    taskpool::basic_task_pool<int> pool;
    for (int i = 1; i <= 100; ++i)
        pool.submit(42, [&sum, i] { sum += i; });
    pool.drain(42);
    return sum == 5050;
}

} // namespace

int main() { return of_our_own() && numbers() ? 0 : 1; }
