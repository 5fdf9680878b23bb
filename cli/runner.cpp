// SPDX-License-Identifier: Apache-2.0
// The run goes through these phases, never back:
//   running      records that are ready start, the one with the lowest number first, as long as there is a slot
//   finishing    none starts any more; those that wait are dropped and counted; running ones finish
//   terminating  running ones got TERM, and get KILL after the grace
//
// I-RUN-1: a key is released only after its record's output has been delivered or held, and its end counted.
// I-RUN-2: a slot that becomes free is kept for the next record of the key that left it, for the moment that its way
//          through the pool takes: it may be the oldest. Without this a hot key would lose its turn after every record.
//          An older record that is ready does not wait.
// I-RUN-3: each admitted record is over once: ended, skipped or dropped (I-IN-3), so the run ends when as many are
// over.
#include "runner.hpp"

#include <algorithm>
#include <csignal>
#include <functional>
#include <utility>

#include <fmt/format.h>

namespace taskpool::cli {

namespace {

constexpr auto successor_patience = std::chrono::milliseconds(2);
constexpr auto start_again_after = std::chrono::milliseconds(50);
constexpr auto resources_patience = std::chrono::seconds(10);
constexpr auto output_poll_interval = std::chrono::milliseconds(10);

bool later(const arrival& a, const arrival& b) { return a.number > b.number; }

} // namespace

runner::runner(runner_settings settings, const command_template& command, process_runner& processes, output& out,
               intake& in, std::function<void()> stop_reading)
    : settings_(std::move(settings)), command_(command), processes_(processes), output_(out), intake_(in),
      stop_reading_(std::move(stop_reading)), start_(processes.now()), tally_(settings_.on_fail),
      progress_(settings_.shown, start_), allowed_(settings_.slots) {}

int runner::run() {
    for (;;) {
        accept_arrivals();
        expire();
        start_ready();
        flush();
        if (all_over() && (!output_.congested() || processes_.now() >= give_up_output_))
            break;
        if (processes_.now() >= progress_.next())
            show(false);
        processes_.wait(*this, wait_until());
    }
    tally_.add_not_run(report_.dropped);
    show(true);
    for (flush(); output_.congested() && processes_.now() < give_up_output_; flush())
        processes_.wait(*this, wait_until());
    return exit_code();
}

bool runner::all_over() const noexcept {
    return report_.input_ended && running_ == 0 && ready_.empty() && over_ + report_.dropped == report_.admitted;
}

// --- Records on their way to a slot ----------------------------------------------------------------------------------

void runner::accept_arrivals() {
    intake_.take(report_);
    if (report_.error) {
        input_failed_ = true;
        say(*report_.error);
    }
    for (arrival& what : report_.arrivals) {
        if (what.work == nullptr) {
            output_.skip(what.number);
            if (what.skipped) {
                ++over_;
                tally_.add(outcome::skipped, "");
            } else {
                tally_.add_left_out();
            }
            continue;
        }
        if (!expected_.empty()) {
            const auto hash = text_hash()(*what.key);
            std::erase_if(expected_, [hash](const successor& s) { return s.key_hash == hash; });
        }
        ready_.push_back(std::move(what));
        std::push_heap(ready_.begin(), ready_.end(), later);
    }
    report_.arrivals.clear();
    if (phase_ != phase::running)
        drop_ready();
}

void runner::over(arrival& what) {
    const auto hash = text_hash()(*what.key);
    if (intake_.ended(*what.key) > 0 && phase_ == phase::running) {
        expected_.push_back({hash, what.number});
        expected_until_ = processes_.now() + successor_patience;
    }
    ++over_;
    what.held.release(); // the key is not ours from here on
    what.key = nullptr;
    what.work.reset();
}

void runner::drop_ready() {
    for (arrival& what : ready_) {
        tally_.add(outcome::not_run, "");
        over(what);
    }
    ready_.clear();
}

bool runner::leave_to_successors(std::uint64_t number, std::size_t free_slots) {
    if (expected_.empty())
        return false;
    if (processes_.now() >= expected_until_) {
        expected_.clear();
        return false;
    }
    const auto older =
        std::count_if(expected_.begin(), expected_.end(), [number](const successor& s) { return s.after < number; });
    return static_cast<std::size_t>(older) >= free_slots;
}

void runner::start_ready() {
    while (phase_ == phase::running && running_ < allowed_ && !ready_.empty()) {
        if (output_.congested()) { // then none starts; but it may be that we have just not tried to write
            flush();
            if (output_.congested())
                return;
            continue;
        }
        const std::uint64_t number = ready_.front().number;
        if (settings_.keep_order && number >= output_.next() + settings_.buffer)
            return; // so that what is held for its turn stays bounded
        if (leave_to_successors(number, allowed_ - running_))
            return;
        if (short_of_resources_ && processes_.now() < start_again_)
            return;
        std::pop_heap(ready_.begin(), ready_.end(), later);
        arrival what = std::move(ready_.back());
        ready_.pop_back();
        if (!start(std::move(what)))
            return;
    }
}

// False when nothing can be started for now.
bool runner::start(arrival what) {
    std::size_t slot = 0;
    while (slot < slots_.size() && slots_[slot].active)
        ++slot;
    if (slot == slots_.size())
        slots_.emplace_back();
    job& j = slots_[slot];
    const record& record = what.work->record;
    const std::string_view key = what.shown_key();

    std::vector<std::string> arguments;
    try {
        arguments = command_({record, key, static_cast<unsigned>(slot + 1)});
    } catch (const input_error& e) {
        give_up_start(std::move(what), e.what(), 1);
        return true;
    }
    launch request{arguments, key, what.number, 1, output_.captures(), std::nullopt};
    if (settings_.feed_stdin) {
        j.input = record.text + settings_.feed_terminator;
        request.input = j.input;
    }
    try {
        output_.start(slot, what.number, key);
    } catch (const output_error& e) {
        tally_.add(outcome::failed, key);
        output_.skip(what.number);
        over(what);
        output_failed(e);
        return true;
    }
    if (const auto failure = processes_.spawn(slot, request)) {
        output_.abandon(slot);
        const auto now = processes_.now();
        if (failure->kind == spawn_failure::no_resources) {
            if (!short_of_resources_ || running_ > 0)
                no_start_since_ = now;
            short_of_resources_ = true;
            start_again_ = now + start_again_after;
            if (now - no_start_since_ < resources_patience) {
                ready_.push_back(std::move(what));
                std::push_heap(ready_.begin(), ready_.end(), later);
                return false;
            }
        }
        const auto message =
            fmt::format("record {}: cannot run {}: {}", what.number, printable(arguments.front()), failure->message);
        give_up_start(std::move(what), message,
                      failure->kind == spawn_failure::not_found  ? 127
                      : failure->kind == spawn_failure::too_long ? 1
                                                                 : 126);
        return true;
    }
    short_of_resources_ = false;
    j.active = true;
    j.ending = j.timed_out = j.output_broken = false;
    j.what = std::move(what);
    j.start = processes_.now();
    j.deadline = settings_.timeout.count() > 0 ? j.start + settings_.timeout : clock::time_point::max();
    ++running_;
    return true;
}

// A record that cannot be run: with 1 it is the record's fault, and those before it run; otherwise the command's.
void runner::give_up_start(arrival what, const std::string& why, int code) {
    say(why);
    tally_.add(outcome::failed, what.shown_key());
    output_.skip(what.number);
    over(what);
    if (code == 1) {
        input_failed_ = true;
        stop_reading_();
    } else {
        cannot_run_ = code;
        finish_soon();
    }
}

// --- Jobs that run ---------------------------------------------------------------------------------------------------

void runner::on_output(std::size_t slot, stream which, std::string_view bytes) {
    if (slots_[slot].output_broken)
        return;
    try {
        output_.add(slot, which, bytes);
    } catch (const output_error& e) {
        slots_[slot].output_broken = true;
        output_failed(e);
    }
}

void runner::on_exit(std::size_t slot, exit_status status) {
    job& j = slots_[slot];
    try {
        output_.end(slot);
    } catch (const output_error& e) {
        j.output_broken = true;
        output_failed(e);
    }
    outcome what = outcome::ok;
    if (j.timed_out)
        what = outcome::timed_out;
    else if (j.output_broken)
        what = outcome::failed;
    else if (!status.success())
        what = j.ending ? outcome::cancelled : status.signal != 0 ? outcome::signalled : outcome::failed;

    const auto verdict = tally_.add(what, j.what.shown_key());
    if (verdict == tally::verdict::skip_key)
        intake_.skip_key(*j.what.key);
    j.active = false;
    --running_;
    over(j.what);
    if (phase_ == phase::running && (verdict == tally::verdict::halt_soon || verdict == tally::verdict::halt_now)) {
        halted_ = true;
        say(fmt::format("{} failed: {}", tally_.failures(),
                        verdict == tally::verdict::halt_now ? "ending the running jobs" : "no more jobs are started"));
        if (verdict == tally::verdict::halt_now)
            terminate();
        else
            finish_soon();
    }
}

void runner::finish_soon() {
    if (phase_ != phase::running)
        return;
    phase_ = phase::finishing;
    expected_.clear();
    intake_.close();
    stop_reading_();
    output_.release_all();
    drop_ready();
}

void runner::terminate() {
    finish_soon();
    if (phase_ == phase::terminating)
        return;
    phase_ = phase::terminating;
    give_up_output_ = processes_.now() + settings_.kill_after;
    for (std::size_t slot = 0; slot < slots_.size(); ++slot)
        if (slots_[slot].active && !slots_[slot].ending)
            end(slot, SIGTERM);
}

void runner::end(std::size_t slot, int signal) {
    job& j = slots_[slot];
    j.ending = true;
    j.deadline = signal == SIGKILL ? clock::time_point::max() : processes_.now() + settings_.kill_after;
    processes_.signal(slot, signal);
}

void runner::expire() {
    const auto now = processes_.now();
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
        job& j = slots_[slot];
        if (!j.active || now < j.deadline)
            continue;
        if (j.ending) {
            end(slot, SIGKILL);
        } else {
            j.timed_out = true;
            end(slot, SIGTERM);
        }
    }
}

// --- Output and the end ----------------------------------------------------------------------------------------------

void runner::flush() {
    try {
        output_.flush();
    } catch (const output_error& e) {
        output_failed(e);
    }
    poll_output_ = false;
    for (std::size_t i = 0; i < watched_.size(); ++i) {
        const sink& s = output_.sinks()[i];
        if (watched_[i] != !s.empty()) {
            watched_[i] = !watched_[i];
            if (!processes_.watch_writable(s.fd(), watched_[i]))
                watched_[i] = false;
        }
        poll_output_ = poll_output_ || (!s.empty() && !watched_[i]);
    }
    if (settings_.mode == output_mode::line_buffered)
        processes_.read_output(!output_.congested());
}

void runner::output_failed(const output_error& error) {
    if (!output_failed_)
        say(fmt::format("{}: stopping", error.what()));
    output_failed_ = true;
    terminate();
}

runner::clock::time_point runner::wait_until() const {
    auto until = progress_.next();
    if (!expected_.empty())
        until = std::min(until, expected_until_);
    if (short_of_resources_ && !ready_.empty())
        until = std::min(until, start_again_);
    if (poll_output_)
        until = std::min(until, processes_.now() + output_poll_interval);
    if (all_over())
        until = std::min(until, give_up_output_);
    for (const job& j : slots_)
        if (j.active)
            until = std::min(until, j.deadline);
    return until;
}

int runner::exit_code() const noexcept {
    if (signal_ != 0)
        return 128 + signal_;
    if (output_failed_)
        return 1;
    if (cannot_run_ != 0)
        return cannot_run_;
    if (halted_)
        return 124;
    if (input_failed_)
        return 1;
    return tally_.exit_code();
}

} // namespace taskpool::cli
