// SPDX-License-Identifier: Apache-2.0
// What may be submitted, and what a submit answers.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

using namespace std::chrono_literals;

struct message {
    std::string text;
};

bool takes_three_kinds_of_callable() {
    int sum = 0;
    std::vector<std::uint64_t> numbers;
    taskpool::task_pool pool;
    pool.submit("user-7", [&] { sum += 1; });
    pool.submit("user-7", [&](std::stop_token stop) { sum += stop.stop_requested() ? 0 : 10; });
    pool.submit("user-7", [&](const taskpool::job_context& ctx) {
        sum += 100;
        numbers.push_back(ctx.number()); // 1, 2, 3, ... since the key last had no work
        std::printf("a job of %s\n", ctx.key().c_str());
    });
    pool.drain();
    return sum == 111 && numbers.size() == 1;
}

bool moves_what_cannot_be_copied() {
    std::string delivered;
    taskpool::task_pool pool;
    auto note = std::make_unique<message>(message{"hello"});
    pool.submit("user-7", [&delivered, note = std::move(note)] { delivered = note->text; });
    pool.drain();
    return delivered == "hello";
}

/// What is not accepted stays with the caller.
bool keeps_a_refused_job() {
    taskpool::task_pool pool;
    pool.close();
    bool spoiled = true;
    auto job = [&, note = std::make_unique<message>(message{"hello"})] { spoiled = note->text.empty(); };
    const auto answer = pool.submit("user-7", std::move(job));
    if (!answer) {
        std::fprintf(stderr, "not accepted: %s\n", std::string(answer.message()).c_str());
        job(); // the pool has not touched it
    }
    return answer == taskpool::submit_status::stopped && !spoiled;
}

bool says_why() {
    taskpool::task_pool pool({.lane_capacity = 1, .autostart = false}); // nothing runs yet, so queues stay full
    int accepted = 0, given_up = 0, refused = 0;
    const auto send = [&] {};
    for (int i = 0; i < 3; ++i) {
        switch (pool.submit_for("user-7", 5ms, send).status()) {
        case taskpool::submit_status::accepted: // it runs once, or its discard is reported
            ++accepted;
            break;
        case taskpool::submit_status::timed_out: // no room within 5 ms
            ++given_up;
            break;
        case taskpool::submit_status::full:           // no room, and no wait: try_submit, or overflow::reject
        case taskpool::submit_status::rate_limited:   // the same, and the key waits for its rate
        case taskpool::submit_status::overloaded:     // only with max_wait: ready keys wait for too long
        case taskpool::submit_status::stopped:        // closed or stopped
        case taskpool::submit_status::would_deadlock: // inside a job: the wait would never end
            ++refused;
            break;
        }
    }
    const bool full = pool.try_submit("user-7", send) == taskpool::submit_status::full;
    return accepted == 1 && given_up == 2 && refused == 0 && full;
}

} // namespace

int main() {
    const bool right =
        takes_three_kinds_of_callable() && moves_what_cannot_be_copied() && keeps_a_refused_job() && says_why();
    return right ? 0 : 1;
}
