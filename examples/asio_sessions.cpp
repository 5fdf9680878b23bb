// SPDX-License-Identifier: Apache-2.0
// Keys as executors of Asio: functions, coroutines and sockets whose handlers run one at a time for each key.
#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <asio.hpp>
#include <taskpool/asio.hpp>
#include <taskpool/taskpool.hpp>

namespace {

using namespace std::chrono_literals;
using asio::ip::tcp;

// What people write by hand: a strand for each account, in a map that only grows.
class strand_map {
  public:
    using strand = asio::strand<asio::thread_pool::executor_type>;

    explicit strand_map(asio::thread_pool& threads) : threads_(threads) {}

    strand of(const std::string& account) {
        const std::lock_guard lock(mutex_);
        const auto found = strands_.try_emplace(account, asio::make_strand(threads_)).first;
        return found->second; // when may it be erased?
    }

  private:
    asio::thread_pool& threads_;
    std::mutex mutex_;
    std::map<std::string, strand> strands_;
};

bool by_hand() {
    std::map<std::string, int> balances{{"account-1", 0}, {"account-2", 0}};
    asio::thread_pool threads(2);
    strand_map strands(threads);
    for (int i = 0; i < 100; ++i)
        asio::post(strands.of("account-1"), [&balance = balances["account-1"]] { balance += 1; });
    threads.join();
    return balances["account-1"] == 100;
}

bool posts_to_a_key() {
    int balance = 0; // of one key, so no lock
    taskpool::task_pool pool;
    for (int i = 0; i < 100; ++i) {
        asio::post(taskpool::asio::executor(pool, "account-1"), [&] { balance += 1; });
        pool.submit("account-1", [&] { balance += 10; }); // the same queue
    }
    pool.drain();
    return balance == 1100;
}

bool dispatches_inside_the_lane() {
    std::string order;
    taskpool::task_pool pool;
    const taskpool::asio::executor account(pool, "account-1");
    asio::post(account, [&] {
        asio::post(account, [&] { order += "c"; });     // behind what waits
        asio::dispatch(account, [&] { order += "a"; }); // at once: this thread is inside the lane
        order += "b";
    });
    pool.drain();
    return order == "abc";
}

bool binds_handlers() {
    bool expired = false;
    asio::io_context io; // before the pool, so that it outlives the sessions
    taskpool::task_pool pool;
    const taskpool::asio::executor account(pool, "account-1");
    asio::steady_timer timer(io, 1ms);
    timer.async_wait(asio::bind_executor(account, [&](asio::error_code) { expired = true; })); // a job of account-1
    io.run();
    pool.drain();
    return expired;
}

asio::awaitable<void> echo(tcp::socket socket) {
    std::array<char, 1024> data{};
    asio::error_code error;
    while (!error) {
        const auto n =
            co_await socket.async_read_some(asio::buffer(data), asio::redirect_error(asio::use_awaitable, error));
        if (!error)
            co_await asio::async_write(socket, asio::buffer(data, n), asio::redirect_error(asio::use_awaitable, error));
    }
}

asio::awaitable<void> serve(taskpool::task_pool& pool, tcp::acceptor& acceptor, int sessions) {
    for (int i = 0; i < sessions; ++i) {
        const taskpool::asio::executor session(pool, "session-" + std::to_string(i));
        tcp::socket socket = co_await acceptor.async_accept(session, asio::use_awaitable); // it lives in the pool
        asio::co_spawn(session, echo(std::move(socket)), asio::detached);
    }
}

bool serves_sessions() {
    taskpool::task_pool pool({.threads = 2});
    const taskpool::asio::executor listener(pool, "listener");
    tcp::acceptor acceptor(listener, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    const auto address = acceptor.local_endpoint();
    asio::co_spawn(listener, serve(pool, acceptor, 3), asio::detached);

    bool exact = true;
    {
        asio::io_context io;
        std::vector<tcp::socket> clients;
        for (int i = 0; i < 3; ++i)
            clients.emplace_back(io).connect(address);
        for (auto& client : clients) {
            std::string answer(5, ' ');
            asio::write(client, asio::buffer("hello", 5));
            asio::read(client, asio::buffer(answer));
            exact &= answer == "hello";
        }
    }             // the clients leave, so the sessions end
    pool.drain(); // until no session is left: their pending reads are outstanding work
    return exact && pool.active_keys() == 0;
}

bool waits_for_outstanding_work() {
    std::string answer;
    taskpool::task_pool pool;
    const taskpool::asio::executor account(pool, "account-1");
    std::thread other([&, work = asio::make_work_guard(account)] { // a promise that something is to come
        asio::post(account, [&] { answer = "paid"; });
    });
    pool.drain(); // waits for the promise, too
    const bool paid = answer == "paid";
    other.join();
    return paid;
}

bool stops() {
    std::atomic<bool> ran = false;
    taskpool::task_pool pool;
    const taskpool::asio::executor account(pool, "account-1");
    asio::steady_timer timer(account, 24h);
    timer.async_wait([&](asio::error_code) { ran = true; });
    pool.stop();                              // destroys the pending handler unrun
    asio::post(account, [&] { ran = true; }); // and this one: no job is taken any more
    return !ran && pool.stats().rejected == 1;
}

} // namespace

int main() {
    return by_hand() && posts_to_a_key() && dispatches_inside_the_lane() && binds_handlers() && serves_sessions() &&
                   waits_for_outstanding_work() && stops()
               ? 0
               : 1;
}
