// SPDX-License-Identifier: Apache-2.0
// Coroutines that keep their key while they wait, with no thread.
#include <atomic>
#include <chrono>
#include <coroutine>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

using namespace std::chrono_literals;

struct order {
    int amount;
};

std::map<std::string, int> stock{{"apples", 5}};

/// Reserves what is ordered, asks another key, and takes it back if that says no. Its state needs no lock: no other job
/// of the item's key runs between its lines.
taskpool::task<bool> sell(taskpool::task_pool& pool, std::string item, std::string customer, order what) {
    if (stock[item] < what.amount)
        co_return false;
    stock[item] -= what.amount;

    const bool paid = co_await pool.run("account-" + customer, [&] { // the account's key; no thread waits for it
        return what.amount < 4;
    });
    co_await taskpool::sleep_for(5ms); // nor for this
    if (!paid)
        stock[item] += what.amount;
    co_return paid;
}

bool keeps_its_key() {
    taskpool::task_pool pool({.threads = 1, .max_threads = 1});
    auto first = pool.spawn("item-apples", sell(pool, "apples", "ann", {4}));
    auto second = pool.spawn("item-apples", sell(pool, "apples", "bob", {2})); // begins when the first has ended
    return !first.get() && second.get() && stock["apples"] == 3;
}

bool may_lend_its_key() {
    taskpool::task_pool pool({.autostart = false});
    std::vector<std::string> lines;
    const auto report = [](std::vector<std::string>& to) -> taskpool::task<> {
        to.push_back("begins");
        co_await taskpool::sleep_for(20ms);
        to.push_back("goes on"); // no other job of the key runs at this moment either
    };
    pool.submit("user-7", report(lines), {.while_suspended = taskpool::suspension::interleave});
    pool.submit("user-7", [&] { lines.push_back("another job"); });
    pool.start();
    pool.drain();
    return lines == std::vector<std::string>{"begins", "another job", "goes on"};
}

bool hears_of_a_stop() {
    taskpool::task_pool pool;
    std::atomic<bool> listens = false;
    auto polls = pool.spawn("feed-1", [&listens]() -> taskpool::task<int> {
        const auto job = co_await taskpool::this_job(); // its key, its number, its stop token
        int rounds = 0;
        for (; !job.stop_requested(); ++rounds) {
            listens = true;
            co_await taskpool::sleep_for(1h); // ends at once when the key is cancelled
        }
        co_return rounds;
    });
    while (!listens)
        std::this_thread::yield();
    pool.cancel("feed-1");
    return polls.get() == 1;
}

bool waits_for_many() {
    taskpool::task_pool pool;
    const auto total = [](taskpool::task_pool& on) -> taskpool::task<int> {
        auto [left, right] = co_await taskpool::when_all( // both run at the same time
            on.async("account-1", [] { return 20; }), on.async("account-2", [] { return 22; }));
        co_return left + right;
    };
    return pool.spawn("report", total(pool)).get() == 42;
}

/// Somebody else's library, which calls back on a thread of its own.
class mail_service {
  public:
    ~mail_service() {
        for (auto& t : threads_)
            t.join();
    }
    void send(const std::string& text, std::function<void(int)> then) {
        threads_.emplace_back([text, then = std::move(then)] { then(static_cast<int>(text.size())); });
    }

  private:
    std::vector<std::thread> threads_;
};

/// Makes it awaitable, as any coroutine library wants it.
struct sending {
    mail_service& mail;
    std::string text;
    int status = 0;

    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiting) {
        mail.send(text, [this, waiting](int s) {
            status = s;
            waiting.resume();
        });
    }
    int await_resume() const noexcept { return status; }
};

bool comes_back_to_its_lane() {
    mail_service mail;
    taskpool::task_pool pool;
    const auto notify = [](mail_service& by) -> taskpool::task<int> {
        sending message{by, "hello"};
        const int status = co_await message; // the callback runs on a thread of the mail service ...
        co_return status;                    // ... and this on a worker again, in its lane
    };
    return pool.spawn("user-7", notify(mail)).get() == 5;
}

} // namespace

int main() {
    const bool right =
        keeps_its_key() && may_lend_its_key() && hears_of_a_stop() && waits_for_many() && comes_back_to_its_lane();
    return right ? 0 : 1;
}
