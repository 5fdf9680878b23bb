// SPDX-License-Identifier: Apache-2.0
// A process runner without processes: children are entries in a list, time stands still but for waits, and a script
// says what happens in each of them.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "process.hpp"

namespace taskpool::cli {

class fake_process_runner final : public process_runner {
  public:
    struct child {
        std::uint64_t number;
        std::string key;
        std::size_t slot;
        std::vector<std::string> arguments;
        std::string input;
        std::vector<int> signals; // that it got
        bool running = true;
    };

    /// What happens in a wait when all records have settled. Returns false to let the time pass that was asked for.
    std::function<bool(process_events&)> script;
    /// Whether nothing is on its way to the engine.
    std::function<bool()> settled = [] { return true; };
    /// The failure of the next starts, by record number.
    std::map<std::uint64_t, std::vector<spawn_failure>> failures;

    std::vector<child> started; ///< All, in the order of their start.
    std::size_t most_running = 0;
    bool overlap = false; ///< Two children of one key ran at one time.

    std::vector<child*> running() {
        std::vector<child*> result;
        for (child& c : started)
            if (c.running)
                result.push_back(&c);
        return result;
    }
    child* find(std::uint64_t number) {
        const auto found =
            std::find_if(started.begin(), started.end(), [&](const child& c) { return c.number == number; });
        return found == started.end() ? nullptr : &*found;
    }
    void end(process_events& events, std::uint64_t number, exit_status status = {}) {
        if (find(number) == nullptr)
            throw std::logic_error("a record that has not been started cannot end");
        child& c = *find(number);
        c.running = false;
        events.on_exit(c.slot, status);
    }
    void advance(clock::duration time) { now_ += time; }
    std::vector<std::uint64_t> order() const {
        std::vector<std::uint64_t> numbers;
        for (const child& c : started)
            numbers.push_back(c.number);
        return numbers;
    }

    std::optional<spawn_failure> spawn(std::size_t slot, const launch& what) override {
        if (auto& planned = failures[what.number]; !planned.empty()) {
            auto failure = planned.front();
            planned.erase(planned.begin());
            return failure;
        }
        for (const child* c : running())
            overlap = overlap || (c->key == what.key && !what.key.empty()) || c->slot == slot;
        started.push_back({what.number,
                           std::string(what.key),
                           slot,
                           {what.arguments.begin(), what.arguments.end()},
                           std::string(what.input.value_or("(none)")),
                           {},
                           true});
        most_running = std::max(most_running, running().size());
        return std::nullopt;
    }
    void signal(std::size_t slot, int signal) override {
        for (child* c : running())
            if (c->slot == slot)
                c->signals.push_back(signal);
    }
    long pid(std::size_t slot) const override { return 1000 + static_cast<long>(slot); }
    void read_output(bool) override {}
    bool watch_writable(int, bool) override { return true; }
    void wait(process_events& events, clock::time_point until) override {
        while (!settled() && !woken_)
            std::this_thread::yield();
        if (woken_.exchange(false) || script(events))
            return;
        if (until == clock::time_point::max())
            throw std::logic_error("the runner waits for ever");
        now_ = std::max(now_, until);
    }
    void wake() noexcept override { woken_ = true; }
    clock::time_point now() const override { return now_; }

  private:
    std::atomic<bool> woken_ = false;
    clock::time_point now_{std::chrono::hours(1)};
};

} // namespace taskpool::cli
