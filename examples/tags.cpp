// SPDX-License-Identifier: Apache-2.0
// Refreshes and notifications, of which only the latest counts.
#include <string>
#include <vector>

#include <taskpool/taskpool.hpp>

using namespace std::string_literals;

namespace {

bool runs_only_the_latest() {
    std::vector<std::string> sent; // of one key, so no lock
    taskpool::task_pool pool({.autostart = false});

    for (int unread = 1; unread <= 3; ++unread)
        pool.submit("user-7", taskpool::tag{"unread"}, [&, unread] { sent.push_back(std::to_string(unread)); });
    pool.submit("user-7", [&] { sent.push_back("a message"); });
    pool.submit("user-7", taskpool::tag{"unread"}, [&] { sent.push_back("4 unread"); });

    pool.start();
    pool.drain();
    return sent == std::vector{"4 unread"s, "a message"s} && pool.stats().replaced == 3;
}

} // namespace

int main() { return runs_only_the_latest() ? 0 : 1; }
