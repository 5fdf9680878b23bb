// SPDX-License-Identifier: Apache-2.0
// How a running job learns that it should end: by cancel(key) and by stop().
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include <taskpool/taskpool.hpp>

namespace {

bool ends_a_loop() {
    std::atomic<int> polls = 0;
    std::atomic<bool> next_ran = false;
    const auto poll_feed = [&] { ++polls; };
    taskpool::task_pool pool;
    pool.submit("feed-1", [&](const taskpool::job_context& ctx) {
        while (!ctx.stop_requested())
            poll_feed();
    });
    pool.submit("feed-1", [&] { next_ran = true; });
    while (polls == 0) // until the first job runs
        std::this_thread::yield();

    const auto discarded = pool.cancel("feed-1"); // asks the running job to stop, discards what waits behind it
    pool.drain("feed-1");
    pool.submit("feed-1", [&] { ++polls; }); // the key takes new jobs at once
    pool.drain();
    return discarded == 1 && !next_ran;
}

bool ends_a_wait() {
    std::mutex mutex;
    std::condition_variable_any arrived;
    std::deque<std::string> inbox;
    std::atomic<bool> waits = false;
    bool was_stopped = false;
    taskpool::task_pool pool;
    pool.submit("feed-2", [&](std::stop_token stop) {
        std::unique_lock lock(mutex);
        waits = true;
        const bool came = arrived.wait(lock, stop, [&] { return !inbox.empty(); }); // a stop ends the wait
        was_stopped = !came;
    });
    while (!waits)
        std::this_thread::yield();
    pool.stop();
    return was_stopped;
}

} // namespace

int main() { return ends_a_loop() && ends_a_wait() ? 0 : 1; }
