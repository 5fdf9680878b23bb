// SPDX-License-Identifier: Apache-2.0
// A snapshot of what all keys stand for, and a change of what all jobs read, with no lock.
#include <map>
#include <string>

#include <taskpool/taskpool.hpp>

namespace {

bool snapshot() {
    std::map<std::string, int> balances = {{"account-7", 100}, {"account-8", 200}};
    std::map<std::string, int> copy;

    taskpool::task_pool pool;
    auto* const seven = &balances["account-7"];
    auto* const eight = &balances["account-8"];
    pool.submit("account-7", [=] { *seven -= 30; });
    pool.submit("account-8", [=] { *eight += 30; });
    pool.submit_barrier([&] { copy = balances; });  // both are done, and nothing else runs
    pool.submit("account-8", [=] { *eight -= 5; }); // waits for that
    pool.drain();
    return copy["account-7"] == 70 && copy["account-8"] == 230 && *eight == 225;
}

bool reconfiguration() {
    struct {
        int fee = 1;
    } settings; // jobs read it with no lock
    std::map<std::string, int> paid = {{"a", 0}, {"b", 0}};

    taskpool::task_pool pool;
    for (auto& [key, sum] : paid)
        pool.submit(key, [&settings, &sum = sum] { sum += settings.fee; });
    auto fee_before = pool.async_barrier([&] { return std::exchange(settings.fee, 10); });
    for (auto& [key, sum] : paid)
        pool.submit(key, [&settings, &sum = sum] { sum += settings.fee; });
    pool.drain();
    return fee_before.get() == 1 && paid["a"] == 11 && paid["b"] == 11;
}

} // namespace

int main() { return snapshot() && reconfiguration() ? 0 : 1; }
