// SPDX-License-Identifier: Apache-2.0
// Jobs for a later time.
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include <taskpool/taskpool.hpp>

namespace {

using namespace std::chrono_literals;

bool later() {
    taskpool::task_pool pool;
    std::atomic<int> reminders = 0;

    taskpool::timer reminder = pool.submit_after(10ms, "user-7", [&] { ++reminders; });
    taskpool::timer second = pool.submit_at(pool.now() + 1h, "user-7", [&] { ++reminders; });
    const bool taken_back = second.cancel(); // it will not run

    pool.drain(); // waits for what waits for its time, too
    return reminder && taken_back && reminders == 1;
}

bool again_and_again() {
    taskpool::task_pool pool;
    std::atomic<int> beats = 0;
    auto beat = pool.submit_every(2ms, "device-3", [&] { ++beats; });
    while (beats < 3)
        std::this_thread::yield();
    beat.cancel();
    return beat.missed() < 1'000'000; // beats that were passed over, for want of time or room
}

bool by_a_clock_of_one_s_own() {
    const auto clock = std::make_shared<taskpool::manual_clock>();
    taskpool::task_pool pool({.clock = clock});
    std::atomic<bool> rang = false;
    pool.submit_after(24h, "alarm", [&] { rang = true; });
    clock->advance(24h); // a day has passed, says the test
    pool.drain();
    return rang;
}

} // namespace

int main() { return later() && again_and_again() && by_a_clock_of_one_s_own() ? 0 : 1; }
