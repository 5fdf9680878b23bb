// SPDX-License-Identifier: Apache-2.0
// A handle to one key, for many submits.
#include <taskpool/taskpool.hpp>

int main() {
    long bytes = 0;
    taskpool::task_pool pool;
    const auto lane = pool.lane("connection-12");
    for (int i = 0; i < 10'000; ++i)
        lane.submit([&bytes] { bytes += 64; });             // no hash, no look-up
    pool.submit("connection-12", [&bytes] { bytes += 1; }); // the same queue
    pool.drain();
    return bytes == 640'001 && lane.key() == "connection-12" ? 0 : 1;
}
