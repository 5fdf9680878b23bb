// SPDX-License-Identifier: Apache-2.0
// A server of loopback TCP sessions, one lane each, 1,000 of them at once: what a session's handlers share needs no
// lock, and what is echoed is exact.
#include <asio.hpp>
#include <taskpool/asio.hpp>

#include <deque>
#include <sys/resource.h>

#include "../core/testing.hpp"

namespace {

using namespace taskpool::testing;
using ::asio::ip::tcp;
using taskpool::task_pool;
using taskpool::asio::executor;

constexpr int sessions = 1000;
constexpr std::size_t payload_size = 6000;

/// Room for both ends of all connections.
bool raise_file_limit() {
    constexpr rlim_t wanted = 2 * sessions + 200;
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return false;
    if (limit.rlim_cur >= wanted)
        return true;
    limit.rlim_cur = std::min(limit.rlim_max, wanted);
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= wanted;
}

/// What the server saw, of all sessions.
struct sights {
    std::atomic<int> accepted{0};
    std::atomic<int> overlaps{0};
    std::atomic<int> out_of_order{0};
    std::atomic<int> ended{0};
    std::atomic<std::size_t> echoed{0};
};

/// What a session's handlers share. No locks: a lack of exclusion is a data race, too.
class watched {
  public:
    explicit watched(sights& all) : all_(all) {}
    ~watched() {
        all_.echoed += echoed_;
        ++all_.ended;
    }

    class inside {
      public:
        explicit inside(watched& in) : in_(in) {
            if (in_.busy_.exchange(true))
                ++in_.all_.overlaps;
        }
        ~inside() { in_.busy_ = false; }

      private:
        watched& in_;
    };

    void count(std::size_t bytes) { echoed_ += bytes; }

    /// Posts a numbered function to the lane, behind those that were posted before.
    template <class Self>
    void post_next(const executor& lane, std::shared_ptr<Self> self) {
        ::asio::post(lane, [this, self, number = ++posted_] {
            const inside here(*this);
            if (number != ++ran_)
                ++all_.out_of_order;
        });
    }

  private:
    sights& all_;
    std::atomic<bool> busy_{false};
    std::size_t echoed_ = 0; // in the lane only, as the rest
    int posted_ = 0;
    int ran_ = 0;
};

/// Reads while it writes: two chains of handlers that share a queue.
class callback_session : public std::enable_shared_from_this<callback_session> {
  public:
    callback_session(tcp::socket socket, executor lane, sights& all)
        : socket_(std::move(socket)), lane_(std::move(lane)), watch_(all) {}

    static void start(tcp::socket socket, const executor& lane, sights& all) {
        ::asio::post(lane, [self = std::make_shared<callback_session>(std::move(socket), lane, all)] { self->read(); });
    }

  private:
    void read() {
        socket_.async_read_some(::asio::buffer(in_),
                                ::asio::bind_executor(lane_, [self = shared_from_this()](auto error, std::size_t n) {
                                    const watched::inside here(self->watch_);
                                    if (error)
                                        return;
                                    self->out_.emplace_back(self->in_.data(), n);
                                    if (self->out_.size() == 1)
                                        self->write();
                                    self->watch_.post_next(self->lane_, self);
                                    self->read();
                                }));
    }
    void write() {
        ::asio::async_write(socket_, ::asio::buffer(out_.front()),
                            ::asio::bind_executor(lane_, [self = shared_from_this()](auto error, std::size_t n) {
                                const watched::inside here(self->watch_);
                                if (error)
                                    return;
                                self->watch_.count(n);
                                self->out_.pop_front();
                                if (!self->out_.empty())
                                    self->write();
                            }));
    }

    tcp::socket socket_;
    const executor lane_;
    watched watch_;
    std::array<char, 512> in_{};
    std::deque<std::string> out_;
};

/// One coroutine in its lane, where others are posted to meanwhile.
struct coroutine_session {
    static void start(tcp::socket socket, const executor& lane, sights& all) {
        ::asio::co_spawn(lane, echo(std::move(socket), lane, std::make_shared<watched>(all)), ::asio::detached);
    }
    static ::asio::awaitable<void> echo(tcp::socket socket, executor lane, std::shared_ptr<watched> watch) {
        std::array<char, 512> in{};
        ::asio::error_code error;
        const auto token = [&] { return ::asio::redirect_error(::asio::use_awaitable, error); };
        for (;;) {
            const auto n = co_await socket.async_read_some(::asio::buffer(in), token());
            if (error)
                break;
            {
                const watched::inside here(*watch);
                watch->post_next(lane, watch);
            }
            co_await ::asio::async_write(socket, ::asio::buffer(in, n), token());
            if (error)
                break;
            const watched::inside here(*watch);
            watch->count(n);
        }
    }
};

/// Sends all of its text while it reads it back.
class client : public std::enable_shared_from_this<client> {
  public:
    client(::asio::io_context& io, int number) : socket_(io) {
        std::mt19937 random(static_cast<unsigned>(number));
        for (auto& c : sent_)
            c = static_cast<char>('a' + random() % 26);
    }
    template <class Then>
    void connect(const tcp::endpoint& to, Then then) {
        socket_.async_connect(to, [self = shared_from_this(), then](auto error) { then(!error); });
    }
    template <class Then>
    void talk(Then then) {
        ::asio::async_write(socket_, ::asio::buffer(sent_), [self = shared_from_this()](auto, std::size_t) {});
        ::asio::async_read(socket_, ::asio::buffer(received_),
                           [self = shared_from_this(), then](auto error, std::size_t) {
                               then(!error && self->received_ == self->sent_);
                               self->socket_.close();
                           });
    }

  private:
    tcp::socket socket_;
    std::string sent_ = std::string(payload_size, ' ');
    std::string received_ = std::string(payload_size, ' ');
};

enum class sockets { in_an_io_context, in_the_pool };

template <class Session>
void serve(sockets where) {
    ASSERT_TRUE(raise_file_limit());
    sights all;
    ::asio::io_context io;
    task_pool pool({.threads = 4}); // after the loop that its sessions use
    ::asio::io_context client_io;
    int connected = 0; // on the clients' thread, as the next two
    int exact = 0;
    std::vector<std::shared_ptr<client>> clients;
    const auto talk_if_all_are_there = [&] {
        if (connected == sessions && all.accepted == sessions)
            for (const auto& each : std::exchange(clients, {}))
                each->talk([&](bool was_exact) { exact += was_exact ? 1 : 0; });
    };

    tcp::acceptor acceptor(io, tcp::endpoint(::asio::ip::address_v4::loopback(), 0));
    acceptor.listen(2 * sessions);
    std::function<void()> accept = [&] {
        const executor lane(pool, "session-" + std::to_string(all.accepted));
        const auto start = [&, lane](auto error, tcp::socket socket) {
            ASSERT_FALSE(error);
            Session::start(std::move(socket), lane, all);
            if (++all.accepted < sessions)
                accept();
            else
                ::asio::post(client_io, talk_if_all_are_there);
        };
        if (where == sockets::in_the_pool)
            acceptor.async_accept(lane, ::asio::bind_executor(io, start));
        else
            acceptor.async_accept(start);
    };
    accept();
    auto served = ::asio::make_work_guard(io); // a session that has not begun to read is no work of its sockets' loop
    std::thread server([&] { io.run(); });

    for (int i = 0; i < sessions; ++i) {
        clients.push_back(std::make_shared<client>(client_io, i));
        clients.back()->connect(acceptor.local_endpoint(), [&](bool did) {
            connected += did ? 1 : 0;
            talk_if_all_are_there();
        });
    }
    // Ends when all clients are served; a connection that breaks ends it, too.
    auto guard = ::asio::make_work_guard(client_io);
    client_io.poll();
    while (exact < sessions && client_io.run_one_for(20s * slowness) > 0) {
    }
    EXPECT_EQ(connected, sessions);
    EXPECT_EQ(all.accepted, sessions);
    EXPECT_EQ(exact, sessions);
    clients.clear();
    EXPECT_TRUE(pool.drain_for(20s * slowness)); // the sessions end when their clients are gone
    served.reset();
    io.stop();
    server.join();
    EXPECT_EQ(all.ended, sessions);
    EXPECT_EQ(all.echoed, sessions * payload_size);
    EXPECT_EQ(all.overlaps, 0);
    EXPECT_EQ(all.out_of_order, 0);
    EXPECT_EQ(pool.stats().failed, 0U);
    EXPECT_EQ(pool.active_keys(), 0U);
}

TEST(Asio_sessions, a_thousand_at_once_by_callbacks) { serve<callback_session>(sockets::in_an_io_context); }
TEST(Asio_sessions, a_thousand_at_once_by_coroutines) { serve<coroutine_session>(sockets::in_an_io_context); }
TEST(Asio_sessions, a_thousand_at_once_with_sockets_in_the_pool) { serve<callback_session>(sockets::in_the_pool); }
TEST(Asio_sessions, a_thousand_coroutines_with_sockets_in_the_pool) { serve<coroutine_session>(sockets::in_the_pool); }

// stop() in the middle: the sessions' frames are destroyed, each with its socket, and nothing is run any more.
TEST(Asio_sessions, stop_ends_them) {
    sights all;
    ::asio::io_context io;
    std::vector<tcp::socket> ours;
    task_pool pool({.threads = 2});
    tcp::acceptor acceptor(io, tcp::endpoint(::asio::ip::address_v4::loopback(), 0));
    for (int i = 0; i < 20; ++i) {
        ours.emplace_back(io).connect(acceptor.local_endpoint());
        const executor lane(pool, "session-" + std::to_string(i));
        if (i % 2 == 0)
            coroutine_session::start(acceptor.accept(lane), lane, all);
        else
            callback_session::start(acceptor.accept(lane), lane, all);
    }
    for (auto& socket : ours) {
        ::asio::write(socket, ::asio::buffer("hello", 5));
        std::array<char, 5> back{};
        ::asio::read(socket, ::asio::buffer(back));
    }
    EXPECT_FALSE(pool.drain_for(5ms)); // they wait for more
    pool.stop();
    EXPECT_EQ(all.ended, 20);
    for (auto& socket : ours) { // the other end sees the end
        std::array<char, 1> none{};
        ::asio::error_code error;
        EXPECT_EQ(socket.read_some(::asio::buffer(none), error), 0U);
        EXPECT_TRUE(error);
    }
}

// A coroutine whose resumption is discarded is unwound in its own lane.
TEST(Asio_sessions, cancel_unwinds_a_coroutine_in_its_lane) {
    ::asio::io_context io;
    gate open;
    std::atomic<bool> inside = false;
    task_pool pool({.threads = 2});
    const executor lane(pool, "key");
    ::asio::steady_timer timer(io, 24h);
    struct unwound {
        const executor& lane;
        std::atomic<bool>& inside;
        ~unwound() {
            ::asio::dispatch(
                lane, [this, here = std::this_thread::get_id()] { inside = std::this_thread::get_id() == here; });
        }
    };
    ::asio::co_spawn(
        lane,
        [&]() -> ::asio::awaitable<void> {
            const unwound at_end{lane, inside};
            co_await timer.async_wait(::asio::use_awaitable);
        },
        ::asio::detached);
    pool.drain("key");
    const opener opens(open);
    occupy(pool, "key", open);
    timer.cancel();
    io.run(); // posts the resumption, which waits
    EXPECT_EQ(pool.cancel("key"), 1U);
    EXPECT_FALSE(inside);
    open.open();
    pool.drain();
    EXPECT_TRUE(inside);
}

} // namespace
