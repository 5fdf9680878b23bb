// SPDX-License-Identifier: Apache-2.0
// Results and exceptions of jobs.
#include <chrono>
#include <future>
#include <stdexcept>
#include <string>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

using namespace std::chrono_literals;

bool gives_results_and_exceptions() {
    taskpool::task_pool pool;
    taskpool::future<int> sum = pool.async("account-1", [] { return 40 + 2; });
    auto failed = pool.async("account-2", []() -> int { throw std::runtime_error("no such account"); });

    const bool in_time = sum.wait_for(10s);
    const int value = sum.get();
    std::string error;
    try {
        failed.get();
    } catch (const std::runtime_error& e) {
        error = e.what();
    }
    return in_time && value == 42 && error == "no such account";
}

bool tells_what_never_ran() {
    taskpool::task_pool pool({.autostart = false});
    auto waiting = pool.async("account-1", [] { return 1; });
    pool.stop();
    auto late = pool.async("account-1", [] { return 2; });

    bool discarded = false, rejected = false;
    try {
        waiting.get();
    } catch (const taskpool::job_discarded&) { // it was accepted, and stop(), cancel() or a full queue discarded it
        discarded = true;
    }
    try {
        late.get();
    } catch (const taskpool::job_rejected& e) { // it was never accepted
        rejected = e.status() == taskpool::submit_status::stopped;
    }
    return discarded && rejected;
}

/// A job may wait for jobs of other keys: its thread counts as blocked, and another one takes its place.
bool may_be_waited_for_in_jobs() {
    taskpool::task_pool pool({.threads = 1});
    auto total = pool.async("report", [&] {
        auto left = pool.async("account-1", [] { return 20; });
        auto right = pool.async("account-2", [] { return 22; });
        return left.get() + right.get();
    });
    return total.get() == 42;
}

/// What comes next, under a key of its own, with nobody waiting.
bool may_be_followed() {
    taskpool::task_pool pool;
    taskpool::future<std::string> receipt =
        pool.async("account-1", [] { return 42; }).then("mailer", [](int amount) { // a job of "mailer"
            return "paid " + std::to_string(amount);
        });
    std::future<int> plain = pool.async("account-2", [] { return 7; }); // for interfaces that want one
    return receipt.get() == "paid 42" && plain.get() == 7;
}

/// A wait that could never end is an error at once.
bool never_hangs() {
    taskpool::task_pool pool;
    auto outer = pool.async("account-1", [&] {
        auto inner = pool.async("account-1", [] {}); // runs after this job, and this job waits for it
        inner.get();
    });
    try {
        outer.get();
    } catch (const taskpool::deadlock_error& e) {
        return e.keys() == std::vector<std::string>{"account-1"};
    }
    return false;
}

} // namespace

int main() {
    const bool right = gives_results_and_exceptions() && tells_what_never_ran() && may_be_waited_for_in_jobs() &&
                       may_be_followed() && never_hangs();
    return right ? 0 : 1;
}
