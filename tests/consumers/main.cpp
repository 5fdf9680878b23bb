// SPDX-License-Identifier: Apache-2.0
// A user's program: the same for each way of getting the library.
#include <cstdio>
#include <vector>

#include <taskpool/taskpool.hpp>

int main() {
    std::vector<int> order; // touched under one key only, so it needs no lock
    taskpool::task_pool pool({.threads = 2});
    for (int i = 0; i < 100; ++i)
        pool.submit("key", [&order, i] { order.push_back(i); });
    auto answer = pool.async("other", [] { return 42; });
    pool.drain();
    for (int i = 0; i < 100; ++i)
        if (order.at(static_cast<std::size_t>(i)) != i)
            return 1;
    std::printf("taskpool %s\n", TASKPOOL_VERSION);
    return answer.get() == 42 ? 0 : 1;
}
