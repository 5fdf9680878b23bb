// SPDX-License-Identifier: Apache-2.0
// Transfers between accounts: each is a job of both, so neither needs a lock.
#include <array>
#include <string>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

bool transfers_between_accounts() {
    std::array<int, 3> balance{100, 100, 100}; // of accounts 0, 1, 2: only in jobs of the account
    taskpool::basic_task_pool<int> pool;

    pool.submit(0, [&] { balance[0] += 5; });
    pool.submit_together({0, 1}, [&] { // after that, and before what is submitted later under 0 or 1
        balance[0] -= 30;
        balance[1] += 30;
    });
    pool.submit_together({1, 0}, [&] { // the order of the keys says nothing
        balance[1] -= 10;
        balance[0] += 10;
    });
    pool.submit(2, [&] { balance[2] += 1; }); // not held up

    const std::vector<int> all{0, 1, 2};
    const int total = pool.async_together(all, [&] { return balance[0] + balance[1] + balance[2]; }).get();
    return total == 306;
}

} // namespace

int main() { return transfers_between_accounts() ? 0 : 1; }
