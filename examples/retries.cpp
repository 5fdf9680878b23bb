// SPDX-License-Identifier: Apache-2.0
// Jobs that fail and are tried again, in the order of their key; and what becomes of those that never succeed.
#include <chrono>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <taskpool/taskpool.hpp>

using namespace std::chrono_literals;

namespace {

bool tries_again_in_order() {
    std::vector<std::string> sent; // of one key, so no lock
    taskpool::task_pool pool;

    const auto send = [&](const std::string& what, std::uint32_t attempt) {
        if (attempt < 3)
            throw std::runtime_error("the line is busy");
        sent.push_back(what);
    };
    pool.submit("account-7", taskpool::with_retry({.max_attempts = 5, .backoff = {.first = 10ms}},
                                                  [&](const taskpool::job_context& context) {
                                                      send("first", context.attempt()); // may throw
                                                  }));
    pool.submit("account-7", [&] { sent.push_back("second"); }); // when the first has been sent
    pool.drain();
    return sent == std::vector<std::string>{"first", "second"} && pool.stats().retries == 2;
}

bool keeps_what_never_succeeds() {
    std::optional<taskpool::stored_job> dead;
    bool served = false;
    taskpool::task_pool pool;

    taskpool::retry policy{.max_attempts = 2, .backoff = {.first = 1ms}};
    policy.when = [](const std::exception_ptr& error) { // only what may get better by itself
        try {
            std::rethrow_exception(error);
        } catch (const std::runtime_error&) {
            return true;
        } catch (...) {
            return false;
        }
    };
    policy.then = taskpool::given_up::pause; // what comes after it must not overtake it
    policy.handler = [&](taskpool::dead_letter&& letter) { dead = std::move(letter.job); };

    pool.submit("account-7", taskpool::with_retry(policy, [&](const taskpool::job_context& context) {
                    if (context.key() == "account-7")
                        throw std::runtime_error("no such account");
                    served = true;
                }));
    while (pool.paused_keys().empty())
        std::this_thread::sleep_for(1ms);
    pool.drain();
    pool.submit("by hand", std::move(*dead)); // it is a job like any other
    pool.drain();
    return served;
}

bool is_a_rule_of_the_pool() {
    taskpool::task_pool pool({.retry = taskpool::retry{.max_attempts = 3, .backoff = {.first = 1ms}}});
    auto answer = pool.async("account-7", [](const taskpool::job_context& context) {
        if (context.attempt() == 1)
            throw std::runtime_error("the line is busy");
        return 42;
    });
    return answer.get() == 42;
}

} // namespace

int main() { return tries_again_in_order() && keeps_what_never_succeeds() && is_a_rule_of_the_pool() ? 0 : 1; }
