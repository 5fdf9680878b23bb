// SPDX-License-Identifier: Apache-2.0
// A key whose jobs wait while what they need is away, and others that go on.
#include <atomic>
#include <string>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

bool waits_for_the_account_to_be_unlocked() {
    std::vector<int> booked; // of one key, so no lock
    std::atomic<bool> other = false;
    taskpool::task_pool pool;

    pool.pause("account-7"); // say, while its owner's identity is checked
    for (int amount = 1; amount <= 3; ++amount)
        pool.submit("account-7", [&, amount] { booked.push_back(amount); }); // accepted, up to the lane's capacity
    pool.submit("account-8", [&] { other = true; });                         // not held up
    pool.drain("account-8");
    const bool waited = pool.paused_keys() == std::vector<std::string>{"account-7"} && pool.stats().waiting == 3;

    pool.resume("account-7"); // they run, in their order
    pool.drain();
    return waited && other && booked == std::vector{1, 2, 3};
}

} // namespace

int main() { return waits_for_the_account_to_be_unlocked() ? 0 : 1; }
