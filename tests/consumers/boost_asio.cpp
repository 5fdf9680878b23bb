// SPDX-License-Identifier: Apache-2.0
// A user's program with a component: keys as executors.
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <taskpool/boost_asio.hpp>
#include <taskpool/taskpool.hpp>

int main() {
    int jobs = 0; // touched under one key only
    taskpool::task_pool pool({.threads = 2});
    const taskpool::boost_asio::executor key(pool, "key");
    boost::asio::steady_timer timer(key, std::chrono::milliseconds(1));
    timer.async_wait([&](auto) { ++jobs; });
    boost::asio::post(key, [&] { ++jobs; });
    pool.drain();
    return jobs == 2 ? 0 : 1;
}
