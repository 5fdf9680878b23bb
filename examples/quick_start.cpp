// SPDX-License-Identifier: Apache-2.0
// Two accounts, each changed only by the jobs of its key: no lock.
#include <taskpool/taskpool.hpp>

int main() {
    long ann = 0, bob = 0; // each is touched by the jobs of one key only, so it needs no lock
    taskpool::task_pool pool;
    for (int i = 0; i < 1000; ++i) {
        pool.submit("ann", [&] { ann += 10; }); // one at a time, in this order
        pool.submit("bob", [&] { bob += 20; }); // in parallel with ann's
    }
    pool.drain(); // until nothing is left
    return ann == 10'000 && bob == 20'000 ? 0 : 1;
}
