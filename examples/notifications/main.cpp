// SPDX-License-Identifier: Apache-2.0
// notify: sends notifications by HTTP. Those of a user one by one, in order and no faster than is good for a user;
// users side by side. What fails is tried again before the next one of its user. Nothing that was read is lost: it was
// sent, or is a dead letter, or is in the file of what was not sent. How to use it: docs/notifications.md.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <list>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <taskpool/taskpool.hpp>

#include "files.hpp"
#include "http.hpp"
#include "options.hpp"

namespace {

using namespace std::chrono_literals;
using notify::http_server;
using notify::line_file;
using notify::line_reader;
using notify::settings;

std::chrono::milliseconds seconds(double n) { return std::chrono::milliseconds(std::llround(n * 1000)); }

/// What has been read and not been settled, in the order of the input. A notification leaves when the server has taken
/// it, or the file of dead letters has. So what is left at the end is what was not sent, whatever the reason.
class outbox {
  public:
    struct notification {
        std::string user; ///< Empty: the line has none, and `text` is all of it.
        std::string text;
    };
    using entry = std::list<notification>::const_iterator;

    entry add(std::string user, std::string text) {
        const std::lock_guard lock(mutex_);
        return left_.insert(left_.end(), {std::move(user), std::move(text)});
    }
    void settle(entry e) {
        const std::lock_guard lock(mutex_);
        left_.erase(e);
    }
    std::string lines() const {
        const std::lock_guard lock(mutex_);
        std::string all;
        for (const auto& [user, text] : left_)
            all.append(user).append(user.empty() ? "" : "\t").append(text).append("\n");
        return all;
    }
    std::size_t size() const {
        const std::lock_guard lock(mutex_);
        return left_.size();
    }

  private:
    mutable std::mutex mutex_;
    std::list<notification> left_;
};

/// An attempt that failed: of what, and whether another one may succeed.
struct not_delivered : std::runtime_error {
    not_delivered(outbox::entry e, bool maybe, const std::string& why)
        : std::runtime_error(why), about(e), temporary(maybe) {}
    outbox::entry about;
    bool temporary;
};

/// The exception itself, which lives as long as `error`; null if it is another one.
const not_delivered* as_not_delivered(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const not_delivered& e) {
        return &e;
    } catch (...) {
        return nullptr;
    }
}

volatile std::sig_atomic_t first_signal = 0;
volatile std::sig_atomic_t second_signal = 0;

/// Runs on the main thread, since the pool's threads block all signals. A handler may do next to nothing, so the main
/// thread, which waits for nothing longer than 100 ms, looks at what it leaves.
void on_signal(int signal) { (first_signal == 0 ? first_signal : second_signal) = signal; }

void listen_to_signals() {
    std::signal(SIGPIPE, SIG_IGN); // a pipe that nobody reads is an error like others
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        if (std::signal(signal, on_signal) == SIG_IGN)
            std::signal(signal, SIG_IGN); // as nohup wants it
    }
}

class notifier {
  public:
    notifier(const settings& s, const http_server& server, line_file& dead, line_file& unsent, int input)
        : settings_(s), server_(server), dead_(dead), unsent_(unsent),
          input_(input, [this] { return first_signal != 0 || failed_; }), pool_(pool_options()) {}

    /// All of it; gives the exit status.
    int run() {
        tries([&] { read_all(); }); // what has been read before an error is sent all the same
        finish();
        const std::string left = outbox_.lines();
        tries([&] { dead_.sync(); });
        if (!tries([&] { unsent_.append(left), unsent_.sync(); }))
            std::fwrite(left.data(), 1, left.size(), stderr); // better here than nowhere
        std::fprintf(stderr, "read %ju lines: sent %zu, retried %ju, dead %zu, unsent %zu\n",
                     std::uintmax_t{input_.number()}, sent_.load(), std::uintmax_t{pool_.stats().retries},
                     buried_.load(), outbox_.size());
        if (failed_)
            return 2;
        return first_signal != 0 ? 128 + first_signal : buried_ != 0;
    }

  private:
    /// Until the input ends, or it is to stop.
    void read_all() {
        for (std::string line; input_.next(line);) {
            if (line.empty())
                continue;
            const auto tab = line.find('\t');
            if (tab == std::string::npos || tab == 0) {
                bury(outbox_.add("", line), "line " + std::to_string(input_.number()) + " is not USER<TAB>TEXT");
                continue;
            }
            const std::string user = line.substr(0, tab);
            const auto e = outbox_.add(user, line.substr(tab + 1));
            // While the queue is full no more is read. If it is to stop meanwhile, this one stays in the outbox.
            const auto job = [this, e] { send(e); };
            while (first_signal == 0 && !failed_ && !pool_.submit_for(user, 100ms, job)) {
            }
        }
    }

    /// Lets go on what was accepted: after a signal for the time of grace, or until the second one.
    void finish() {
        using clock = std::chrono::steady_clock;
        auto last = clock::time_point::max();
        pool_.close();
        while (!pool_.drain_for(100ms) && second_signal == 0 && clock::now() < last) {
            if (first_signal != 0 && last == clock::time_point::max()) {
                last = clock::now() + seconds(settings_.grace);
                std::fprintf(stderr, "notify: stopping within %g s; a second signal stops it at once\n",
                             settings_.grace);
            }
        }
        pool_.stop(); // discards what waits; but requests that are on their way end, so it is known how
    }

    taskpool::options pool_options() {
        taskpool::retry again{.max_attempts = static_cast<std::uint32_t>(settings_.attempts),
                              .backoff = {.first = seconds(settings_.backoff)}};
        again.when = [](const std::exception_ptr& error) {
            const auto* e = as_not_delivered(error);
            return e != nullptr && e->temporary;
        };
        again.handler = [this](taskpool::dead_letter&& letter) { give_up(letter); };
        return {
            // A request waits, and hardly computes: one thread that does, and others in place of those that wait.
            .threads = 1,
            .max_threads = static_cast<unsigned>(settings_.connections),
            .lane_capacity = 1000, // one who has more than that waiting holds up the reading, and so the others
            .pool_capacity = 10'000,
            .retry = std::move(again),
            .rate = taskpool::rate{settings_.rate, taskpool::per_second, static_cast<std::uint32_t>(settings_.burst)},
        };
    }

    /// An attempt, in a job of the user.
    void send(outbox::entry e) {
        const taskpool::blocking_scope waits_for_the_server;
        int status = 0;
        try {
            status = server_.post("/users/" + notify::url_encoded(e->user) + "/notifications", e->text);
        } catch (const std::runtime_error& error) {
            throw not_delivered(e, true, error.what());
        }
        if (status / 100 != 2)
            throw not_delivered(e, status / 100 == 5 || status == 429, "status " + std::to_string(status));
        ++sent_;
        outbox_.settle(e);
    }

    /// The job has failed and is not tried again. The next one of its user waits until this returns.
    void give_up(const taskpool::dead_letter& letter) {
        const auto* e = as_not_delivered(letter.error);
        if (e == nullptr)
            fail("out of memory: one is not sent");
        else if (!e->temporary || letter.attempts >= settings_.attempts)
            bury(e->about, e->what());
        // Else only stop() kept it from its next attempt: it stays in the outbox.
    }

    void bury(outbox::entry e, const std::string& reason) {
        const std::lock_guard lock(dead_mutex_);
        // Where that fails, the outbox keeps it. It must not keep ever more, so no more is read.
        dead_works_ = dead_works_ && tries([&] { dead_.append(e->user + '\t' + e->text + '\t' + reason + '\n'); });
        if (dead_works_) {
            ++buried_;
            outbox_.settle(e);
        }
    }

    template <class F>
    bool tries(F f) {
        try {
            f();
            return true;
        } catch (const std::exception& e) {
            fail(e.what());
            return false;
        }
    }

    void fail(const char* why) {
        std::fprintf(stderr, "notify: %s\n", why);
        failed_ = true;
    }

    const settings& settings_;
    const http_server& server_;
    line_file& dead_; // under dead_mutex_
    line_file& unsent_;
    std::mutex dead_mutex_;
    bool dead_works_ = true; // under dead_mutex_
    outbox outbox_;
    std::atomic<std::size_t> sent_ = 0;
    std::atomic<std::size_t> buried_ = 0;
    std::atomic<bool> failed_ = false;
    line_reader input_;
    taskpool::task_pool pool_; // the last one: its jobs use the others
};

int run(const settings& s) {
    const notify::descriptor file(s.input == "-" ? ::dup(STDIN_FILENO) : ::open(s.input.c_str(), O_RDONLY));
    if (file.get() < 0)
        notify::fail(errno, s.input);
    // At the end it would be too late to find out that these cannot be written, or nobody is there.
    line_file dead(s.dead), unsent(s.unsent);
    if (dead.is(file.get()) || unsent.is(file.get()))
        throw std::invalid_argument("the input cannot be a file that is written");
    const http_server server(s.server, seconds(s.timeout));
    (void)server.connect();
    listen_to_signals();
    return notifier(s, server, dead, unsent, file.get()).run();
}

} // namespace

int main(int argc, char** argv) {
    for (int fd = 0; fd <= 2; ++fd) { // of one that is closed no other file must take the place
        if (::fcntl(fd, F_GETFD) < 0)
            ::open("/dev/null", O_RDWR);
    }
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (std::ranges::count(arguments, "--help") != 0) {
        std::fputs(notify::usage, stdout);
        return 0;
    }
    try {
        return run(notify::parse(arguments));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "notify: %s\n", e.what());
        return 2;
    }
}
