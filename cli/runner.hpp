// SPDX-License-Identifier: Apache-2.0
// The engine: which record runs when, in which slot, and what its end means. One thread, one loop; the outside world is
// behind process_runner, so all of it is tested without processes.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "command.hpp"
#include "intake.hpp"
#include "output.hpp"
#include "process.hpp"
#include "progress.hpp"
#include "tally.hpp"

namespace taskpool::cli {

struct runner_settings {
    unsigned slots = 1;
    std::size_t buffer = 100'000;
    output_mode mode = output_mode::grouped;
    bool keep_order = false;
    bool feed_stdin = false;
    std::string feed_terminator = "\n"; ///< Follows the record on the child's stdin.
    fail_policy on_fail;
    std::chrono::milliseconds timeout{0}; ///< 0: none.
    std::chrono::milliseconds kill_after{5'000};
    progress::kind shown = progress::kind::none;
};

class runner final : private process_events {
  public:
    /// All are used until run() returns. `stop_reading` makes the reader end soon; it is called on the thread of run().
    runner(runner_settings settings, const command_template& command, process_runner& processes, output& out,
           intake& in, std::function<void()> stop_reading);

    /// Runs what comes until the input has ended and all is over, or until it is broken off. Returns the exit code.
    int run();

  private:
    using clock = process_runner::clock;

    struct job {
        bool active = false;
        bool ending = false;        // TERM was sent
        bool timed_out = false;     // ... for that reason
        bool output_broken = false; // some of its output is lost
        arrival what;
        std::string input;
        clock::time_point start;
        clock::time_point deadline = clock::time_point::max(); // for TERM, and then for KILL
    };
    struct successor {
        std::size_t key_hash;
        std::uint64_t after; // its number is higher than this one
    };
    enum class phase { running, finishing, terminating };

    void on_output(std::size_t slot, stream which, std::string_view bytes) override;
    void on_exit(std::size_t slot, exit_status status) override;
    void on_signal(int signal) override;

    void accept_arrivals();
    void start_ready();
    bool leave_to_successors(std::uint64_t number, std::size_t free_slots);
    bool start(arrival what);
    void give_up_start(arrival what, const std::string& why, int code);
    void over(arrival& what);
    void drop_ready();
    void finish_soon();
    void terminate();
    void end(std::size_t slot, int signal);
    void expire();
    void flush();
    void output_failed(const output_error& error);
    void show(bool final);
    void list_running();
    picture look();
    bool all_over() const noexcept;
    clock::time_point wait_until() const;
    int exit_code() const noexcept;
    void say(std::string_view text);

    const runner_settings settings_;
    const command_template& command_;
    process_runner& processes_;
    output& output_;
    intake& intake_;
    const std::function<void()> stop_reading_;

    const clock::time_point start_;
    phase phase_ = phase::running;
    tally tally_;
    progress progress_;
    intake::report report_;
    std::uint64_t over_ = 0; // of the admitted records

    std::vector<arrival> ready_; // a heap: the lowest number first
    std::vector<job> slots_;     // grows to the highest slot ever used
    std::size_t allowed_;        // how many may be used
    std::size_t running_ = 0;
    std::vector<successor> expected_;  // records that the pool will hand on within moments
    clock::time_point expected_until_; // then they are not waited for any more
    clock::time_point start_again_;    // after a start for which there were no resources ...
    clock::time_point no_start_since_; // ... and since when there have been none
    bool short_of_resources_ = false;
    std::array<bool, 2> watched_{}; // output's sinks
    bool poll_output_ = false;
    clock::time_point give_up_output_ = clock::time_point::max();

    // Why it ends, for the exit code.
    int signal_ = 0;
    bool output_failed_ = false;
    int cannot_run_ = 0; // 126 or 127
    bool halted_ = false;
    bool input_failed_ = false;
    int interrupts_ = 0;
};

} // namespace taskpool::cli
