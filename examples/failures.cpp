// SPDX-License-Identifier: Apache-2.0
// Jobs that throw, and jobs that are discarded.
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {

class event_log {
  public:
    void write(const std::string& line) {
        const std::lock_guard lock(mutex_);
        lines_.push_back(line);
    }
    const std::vector<std::string>& lines() const { return lines_; }

  private:
    std::mutex mutex_;
    std::vector<std::string> lines_;
};

std::string what(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& e) {
        return e.what();
    } catch (...) {
        return "something else";
    }
}

bool are_reported() {
    event_log log;
    bool next_ran = false;
    taskpool::task_pool pool({
        .on_failure = [&](const taskpool::failure& f) { log.write(std::string(f.key) + ": " + what(f.error)); },
        .on_discard = [&](const taskpool::discard& d) { log.write(std::string(d.key) + ": discarded"); },
    });
    pool.submit("order-5", [] { throw std::runtime_error("out of stock"); });
    pool.submit("order-5", [&] { next_ran = true; }); // its lane goes on
    pool.drain();
    const auto counted = pool.stats().failed;
    return counted == 1 && next_ran && log.lines() == std::vector<std::string>{"order-5: out of stock"};
}

bool discards_are_reported_too() {
    event_log log;
    taskpool::task_pool pool({
        .autostart = false,
        .on_discard = [&](const taskpool::discard& d) { log.write(std::string(d.key) + ": discarded"); },
    });
    pool.submit("order-5", [] {});
    const auto discarded = pool.cancel("order-5");
    return discarded == 1 && log.lines() == std::vector<std::string>{"order-5: discarded"};
}

} // namespace

int main() { return are_reported() && discards_are_reported_too() ? 0 : 1; }
