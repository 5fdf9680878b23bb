// SPDX-License-Identifier: Apache-2.0
// Waits inside jobs that could never end are refused, with the keys of the cycle.
#include <cstddef>
#include <latch>
#include <string>

#include <taskpool/taskpool.hpp>

namespace {

bool full_lane_of_its_own() {
    std::string answer;
    taskpool::task_pool pool({.lane_capacity = 1});
    pool.submit("user-7", [&] {
        pool.submit("user-7", [] {});
        answer = pool.submit("user-7", [] {}).message(); // its lane is full, and only this job's end makes room
    });
    pool.drain();
    return answer == "would deadlock: a job waits for its own key: \"user-7\"";
}

bool cycle_of_two_keys() {
    std::latch both_run(2);
    taskpool::task_pool pool({.threads = 2});
    const auto wait_for = [&](const char* other) {
        both_run.arrive_and_wait();
        try {
            pool.drain(other);
        } catch (const taskpool::deadlock_error& e) {
            return e.keys().size(); // the two keys, the asking job's first
        }
        return std::size_t{0};
    };
    auto a = pool.async("a", [&] { return wait_for("b"); });
    auto b = pool.async("b", [&] { return wait_for("a"); });
    const auto named = a.get() + b.get(); // one of the two is refused, and so the other's wait ends
    return named == 2;
}

} // namespace

int main() { return full_lane_of_its_own() && cycle_of_two_keys() ? 0 : 1; }
