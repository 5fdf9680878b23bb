// SPDX-License-Identifier: Apache-2.0
// A user's program with a component: keys as executors.
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <taskpool/asio.hpp>
#include <taskpool/taskpool.hpp>

int main() {
    int jobs = 0; // touched under one key only
    taskpool::task_pool pool({.threads = 2});
    const taskpool::asio::executor key(pool, "key");
    asio::steady_timer timer(key, std::chrono::milliseconds(1));
    timer.async_wait([&](auto) { ++jobs; });
    asio::post(key, [&] { ++jobs; });
    pool.drain();
    return jobs == 2 ? 0 : 1;
}
