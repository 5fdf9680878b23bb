// SPDX-License-Identifier: Apache-2.0
// A server that turns requests away while those that it has wait for too long, and says whose they are.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <latch>
#include <string>

#include <taskpool/taskpool.hpp>
#include <taskpool/testing.hpp>

namespace {

using namespace std::chrono_literals;

bool turns_requests_away() {
    std::atomic<int> handled = 0;
    int turned_away = 0;
    const auto reply_busy = [&] { ++turned_away; };
    const auto request = [&] { ++handled; };
    std::latch started(1), go_on(1);

    taskpool::task_pool pool({.threads = 1, .max_threads = 1, .max_wait = 50ms});
    pool.submit("slow", [&] {
        started.count_down();
        go_on.wait();
    });
    started.wait();
    int submitted = 0;
    while (turned_away == 0) {
        const std::string user = "user-" + std::to_string(++submitted % 1000);
        const auto answer = pool.submit(user, request);
        if (answer == taskpool::submit_status::overloaded)
            reply_busy(); // 503, at once: nobody waits
    }

    const auto wait = pool.stats().oldest_wait;
    for (const auto& key : pool.oldest_keys(3))
        std::printf("%s has waited for %lld ms\n", key.c_str(), static_cast<long long>(wait.count()));
    const bool known = wait > 50ms && !pool.oldest_keys().empty();

    go_on.count_down();
    pool.drain();
    return known && handled == submitted - 1;
}

bool is_tested_without_waiting() {
    taskpool::testing::manual_pool pool({.max_wait = 50ms});
    pool.submit("user-1", [] {});
    pool.clock().advance(51ms); // and nothing has run
    const bool refused = pool.submit("user-2", [] {}) == taskpool::submit_status::overloaded;
    pool.run_until_idle();
    return refused && pool.submit("user-2", [] {});
}

} // namespace

int main() { return turns_requests_away() && is_tested_without_waiting() ? 0 : 1; }
