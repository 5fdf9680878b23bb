// SPDX-License-Identifier: Apache-2.0
// What a pool says of itself.
#include <cstdio>
#include <string>

#include <taskpool/taskpool.hpp>

namespace {

std::string summary(const taskpool::task_pool& pool) {
    const taskpool::pool_stats s = pool.stats();
    std::string text = "waiting " + std::to_string(s.waiting) + ", running " + std::to_string(s.running) + ", keys " +
                       std::to_string(s.active_keys) + ", failed " + std::to_string(s.failed) +
                       ", 99% waited less than " + std::to_string(s.wait_time.quantile(0.99).count()) + " ms; busiest:";
    for (const auto& hot : pool.hottest_keys(3))
        text += " " + hot.key + " (about " + std::to_string(hot.jobs) + ")";
    return text;
}

} // namespace

int main() {
    taskpool::task_pool pool;
    for (int i = 0; i < 20'000; ++i)
        pool.submit(i % 2 == 0 ? "user-7" : "user-" + std::to_string(i % 100), [] {});
    pool.drain();
    std::puts(summary(pool).c_str());

    const auto stats = pool.stats();
    const auto hottest = pool.hottest_keys(1);
    const bool right = stats.accepted == 20'000 && stats.finished == 20'000 && stats.waiting == 0 &&
                       stats.wait_time.total() == 20'000 && pool.active_keys() == 0 && !hottest.empty() &&
                       hottest.front().key == "user-7";
    return right ? 0 : 1;
}
