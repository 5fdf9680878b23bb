// SPDX-License-Identifier: Apache-2.0
// Jobs that block their thread.
#include <atomic>
#include <chrono>
#include <latch>
#include <string>
#include <thread>

#include <taskpool/taskpool.hpp>

namespace {

using namespace std::chrono_literals;

/// One worker, and a job that waits for a job of another key: a fixed pool would hang.
bool another_thread_takes_over() {
    std::latch answered(1);
    bool done = false;
    taskpool::task_pool pool({.threads = 1});
    pool.submit("asks", [&] {
        const taskpool::blocking_scope blocking; // tells the pool at once; on Linux it would notice by itself
        answered.wait();
        done = true;
    });
    pool.submit("answers", [&] { answered.count_down(); });
    pool.drain();
    return done;
}

/// Many keys whose jobs sleep: threads are added while they do, up to max_threads, and retired afterwards.
bool many_may_sleep() {
    std::atomic<int> done = 0;
    taskpool::task_pool pool({.threads = 2, .max_threads = 64});
    for (int i = 0; i < 64; ++i)
        pool.submit("host-" + std::to_string(i), [&] {
            const taskpool::blocking_scope blocking;
            std::this_thread::sleep_for(10ms);
            ++done;
        });
    pool.drain();
    return done == 64;
}

} // namespace

int main() { return another_thread_takes_over() && many_may_sleep() ? 0 : 1; }
