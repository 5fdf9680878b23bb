// SPDX-License-Identifier: Apache-2.0
// A program with a static pool, for lifecycle_test.cpp, which runs it and looks at how it ends. The way of ending is
// the argument: "return" from main while jobs run and wait, or "exit" from there, or "exit in a job".
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

#include <taskpool/taskpool.hpp>

namespace {

std::atomic<int> accepted = 0, finished = 0, discarded = 0;
std::atomic<bool> running = false;
bool check_the_counts = true;

/// Made before the pool, so destroyed after it: by then no job is left.
struct observer {
    ~observer() {
        if (!check_the_counts)
            return;
        const bool whole = accepted == finished + discarded && accepted == 31;
        std::printf("%s\n", whole ? "all accounted for" : "jobs were lost");
        std::fflush(stdout);
        if (!whole)
            std::_Exit(1);
    }
} last_to_go;

taskpool::task_pool pool({.threads = 2, .on_discard = [](const taskpool::discard&) { ++discarded; }});

} // namespace

int main(int argc, char** argv) {
    const std::string_view how = argc > 1 ? argv[1] : "";
    if (how == "exit in a job") {
        // Static destruction happens on the worker then: the destructor of the pool must not wait for its own job.
        check_the_counts = false;
        pool.submit("key", [] { std::exit(0); });
        for (;;)
            std::this_thread::sleep_for(std::chrono::hours(1));
    }
    accepted += pool.submit("key",
                            [](const taskpool::job_context& context) {
                                running = true;
                                running.notify_all();
                                while (!context.stop_requested())
                                    std::this_thread::yield();
                                ++finished;
                            })
                    .accepted();
    running.wait(false);
    for (int i = 0; i < 30; ++i)
        accepted += pool.submit("key", [] { ++finished; }).accepted();
    if (how == "exit")
        std::exit(0);
    return how == "return" ? 0 : 2;
}
