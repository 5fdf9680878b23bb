// SPDX-License-Identifier: Apache-2.0
// A job that starts something and returns, while its key waits for the answer with no thread.
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

using namespace std::chrono_literals;

/// Stands for a client library that answers through a callback on a thread of its own.
class mail_service {
  public:
    using callback = std::function<void(int status)>;

    void send(const std::string& text, callback done) {
        const std::lock_guard lock(mutex_);
        calls_.emplace_back([status = static_cast<int>(text.size()), done = std::move(done)] {
            std::this_thread::sleep_for(2ms);
            done(status);
        });
    }

  private:
    std::mutex mutex_;
    std::vector<std::jthread> calls_;
};

bool keeps_the_key_until_the_answer() {
    std::vector<int> statuses; // of one key, so no lock
    mail_service mail;
    taskpool::task_pool pool({.threads = 1});
    for (const std::string text : {"a", "bb", "ccc"}) {
        pool.submit("user-7", [&, text](const taskpool::job_context& ctx) {
            mail.send(text, [&, held = ctx.hold()](int status) mutable {
                statuses.push_back(status); // no other job of user-7 has started
                held.release();             // now the next one may
            });
        }); // returns at once: the worker is free for other keys
    }
    pool.drain(); // waits for holds, too
    return statuses == std::vector{1, 2, 3};
}

} // namespace

int main() { return keeps_the_key_until_the_answer() ? 0 : 1; }
