// SPDX-License-Identifier: Apache-2.0
// Jobs that are worth nothing if they start too late.
#include <chrono>
#include <thread>

#include <taskpool/taskpool.hpp>

using namespace std::chrono_literals;

namespace {

bool drops_what_comes_too_late() {
    bool answered = false;
    taskpool::task_pool pool;

    const auto latest = pool.now() + 10ms;
    pool.submit("client-7", [latest] { std::this_thread::sleep_until(latest + 1ms); });
    auto answer = pool.async("client-7", taskpool::with_deadline(latest, [&] { answered = true; }));
    try {
        answer.get();
    } catch (const taskpool::job_expired&) { // a job_discarded, too
        pool.drain();
        return !answered && pool.stats().expired == 1;
    }
    return false;
}

} // namespace

int main() { return drops_what_comes_too_late() ? 0 : 1; }
