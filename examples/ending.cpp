// SPDX-License-Identifier: Apache-2.0
// The ways in which a pool ends.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

using namespace std::chrono_literals;

bool in_peace() {
    std::atomic<int> done = 0;
    taskpool::task_pool pool;
    for (int i = 0; i < 100; ++i)
        pool.submit("user-" + std::to_string(i), [&] { ++done; });
    pool.close(); // no new jobs
    pool.drain(); // those that were accepted run
    const auto report = pool.stop();
    return done == 100 && report.finished == 100 && report.discarded == 0;
}

bool with_a_time_limit() {
    std::latch go_on(1);
    taskpool::task_pool pool;
    pool.submit("slow-host", [&] { go_on.wait(); });
    pool.close();
    const auto report = pool.drain_for(20ms);
    if (!report) {
        for (const auto& key : report.keys)
            std::printf("still busy: %s\n", key.c_str());
    }
    go_on.count_down();
    return !report && report.keys == std::vector<std::string>{"slow-host"};
} // the destructor stops the pool

/// stop() discards what waits, except for jobs that must not be lost.
bool at_once() {
    std::latch started(1);
    bool saved = false, sent = false;
    taskpool::task_pool pool;
    pool.submit("user-7", [&](const taskpool::job_context& ctx) {
        started.count_down();
        while (!ctx.stop_requested())
            std::this_thread::yield();
    });
    pool.submit("user-7", [&] { sent = true; });
    pool.submit("user-7", [&] { saved = true; }, {.on_stop = taskpool::stop_action::run});
    started.wait();
    const auto report = pool.stop();
    std::printf("finished %llu, discarded %llu\n", static_cast<unsigned long long>(report.finished),
                static_cast<unsigned long long>(report.discarded));
    return saved && !sent && report.finished == 2 && report.discarded_by_stop == 1;
}

bool by_one_of_its_jobs() {
    std::latch destroyed(1);
    auto pool = std::make_unique<taskpool::task_pool>();
    pool->submit("last", [&] {
        pool.reset(); // does not wait for this job, which goes on
        destroyed.count_down();
    });
    destroyed.wait();
    return pool == nullptr;
}

} // namespace

int main() { return in_peace() && with_a_time_limit() && at_once() && by_one_of_its_jobs() ? 0 : 1; }
