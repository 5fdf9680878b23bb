// SPDX-License-Identifier: Apache-2.0
// A service that must not be called too often by any one customer, and customers that may do more than others.
#include <atomic>
#include <chrono>
#include <optional>
#include <string>

#include <taskpool/taskpool.hpp>

namespace {

using namespace std::chrono_literals;

bool limits_each_customer() {
    std::atomic<int> calls = 0;
    std::atomic<int> others = 0;
    const auto call = [&] { ++calls; };
    const auto begin = std::chrono::steady_clock::now();

    taskpool::task_pool pool({.rate = taskpool::rate{50, taskpool::per_second}}); // of each key one job in 20 ms
    pool.limit("customer-7", {100, taskpool::per_second, 20});                    // this one more, and 20 at once
    for (int i = 0; i < 3; ++i)
        pool.submit("customer-8", call);
    for (int i = 0; i < 20; ++i)
        pool.submit("customer-7", [&] { ++others; });
    pool.drain();

    const auto took = std::chrono::steady_clock::now() - begin;
    return calls == 3 && others == 20 && took >= 40ms;
}

bool changes_rates_while_it_runs() {
    std::atomic<int> calls = 0;
    taskpool::task_pool pool({.lane_capacity = 2});

    pool.limit_by([](const std::string& key) -> std::optional<taskpool::rate> {
        if (key.starts_with("free-"))
            return taskpool::rate{1, taskpool::per_hour};
        return std::nullopt; // what limit_all says: nothing, here
    });
    pool.drain();
    pool.async("free-1", [&] { ++calls; }).get();
    pool.submit("free-1", [&] { ++calls; });
    pool.submit("free-1", [&] { ++calls; });
    while (pool.stats().limited_keys == 0) { // for an hour
    }
    const auto answer = pool.try_submit("free-1", [&] { ++calls; });
    const bool told = answer == taskpool::submit_status::rate_limited; // and not `full`, as of a key that works

    pool.limit("free-1", taskpool::unlimited); // its owner has paid
    pool.drain();
    return told && calls == 3;
}

} // namespace

int main() { return limits_each_customer() && changes_rates_while_it_runs() ? 0 : 1; }
