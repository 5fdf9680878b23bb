// SPDX-License-Identifier: Apache-2.0
// What a full queue does.
#include <latch>
#include <utility>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

/// Runs 1, 2, 3, 4 under one key while the first of them is kept from ending, and says what ran.
std::vector<int> what_ran(taskpool::options settings) {
    std::vector<int> ran;
    std::latch started(1), go_on(1);
    taskpool::task_pool pool(std::move(settings));
    pool.submit("sensor-3", [&] {
        started.count_down();
        go_on.wait();
        ran.push_back(1);
    });
    started.wait();
    for (int i = 2; i <= 4; ++i)
        pool.submit("sensor-3", [&ran, i] { ran.push_back(i); });
    go_on.count_down();
    pool.drain();
    return ran;
}

bool blocks() {
    // Readers slow down to the pace of the slowest key that they feed. Nothing is lost.
    taskpool::task_pool pool({.lane_capacity = 100, .when_full = taskpool::overflow::block});
    int jobs = 0;
    for (int i = 0; i < 1000; ++i)
        pool.submit("sensor-3", [&jobs] { ++jobs; }); // waits while 100 jobs of the key wait
    pool.drain();
    return jobs == 1000;
}

bool rejects() {
    return what_ran({.lane_capacity = 2, .when_full = taskpool::overflow::reject}) == std::vector{1, 2, 3};
}

bool drops_the_oldest() {
    return what_ran({.lane_capacity = 2, .when_full = taskpool::overflow::drop_oldest}) == std::vector{1, 3, 4};
}

bool keeps_the_latest() { return what_ran({.when_full = taskpool::overflow::keep_latest}) == std::vector{1, 4}; }

} // namespace

int main() { return blocks() && rejects() && drops_the_oldest() && keeps_the_latest() ? 0 : 1; }
