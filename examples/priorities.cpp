// SPDX-License-Identifier: Apache-2.0
// Keys that take turns by more than their age.
#include <chrono>
#include <string>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

bool lets_the_urgent_go_first() {
    std::vector<std::string> ran; // one thread writes it
    taskpool::task_pool pool({.threads = 1, .max_threads = 1, .ageing = std::chrono::hours(1), .autostart = false});
    const auto job = [&](const taskpool::job_context& context) { ran.push_back(context.key()); };

    pool.submit("nightly report", job, {.priority = taskpool::priority::low});
    pool.submit("account-7", job);
    pool.submit("alarm", job, {.priority = taskpool::priority::high});
    pool.start();
    pool.drain();
    return ran == std::vector<std::string>{"alarm", "account-7", "nightly report"};
}

} // namespace

int main() { return lets_the_urgent_go_first() ? 0 : 1; }
