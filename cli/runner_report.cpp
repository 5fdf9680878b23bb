// SPDX-License-Identifier: Apache-2.0
// The runner's talk: what it makes of signals, and what it says on stderr. What it does is in runner.cpp.
#include "runner.hpp"

#include <algorithm>
#include <csignal>

#include <fmt/format.h>

#include "descriptors.hpp"

namespace taskpool::cli {

void runner::on_signal(int signal) {
    const auto jobs = [this] { return fmt::format("{} running job{}", running_, running_ == 1 ? "" : "s"); };
    switch (signal) {
    case SIGUSR1:
    case SIGUSR2:
        allowed_ = signal == SIGUSR1 ? allowed_ + 1 : std::max<std::size_t>(allowed_ - 1, 1);
        intake_.set_room(settings_.buffer + allowed_);
        say(fmt::format("{} slot{} now", allowed_, allowed_ == 1 ? "" : "s"));
        return;
    case SIGQUIT:
        list_running();
        return;
    case SIGHUP:
        say(fmt::format("hangup: no new jobs; {} will finish", jobs()));
        finish_soon();
        break;
    case SIGINT:
        ++interrupts_;
        if (interrupts_ == 1) {
            say(fmt::format("interrupted: no new jobs; {} will finish (once more: end them)", jobs()));
            finish_soon();
            break;
        }
        [[fallthrough]];
    default:
        if (phase_ == phase::terminating && signal == SIGINT) {
            say(fmt::format("killing {}", jobs()));
            for (std::size_t slot = 0; slot < slots_.size(); ++slot)
                if (slots_[slot].active)
                    end(slot, SIGKILL);
        } else {
            say(fmt::format("{}: ending {}", signal == SIGINT ? "interrupted again" : "terminated", jobs()));
            terminate();
        }
    }
    if (signal_ == 0)
        signal_ = signal;
}

void runner::list_running() {
    say(fmt::format("{} of {} slots in use, {} ready, {} done", running_, allowed_, ready_.size(), tally_.done()));
    const auto now = processes_.now();
    for (std::size_t slot = 0; slot < slots_.size(); ++slot)
        if (const job& j = slots_[slot]; j.active)
            say(fmt::format("  slot {}: record {}, key {}, {:.1f} s, pid {}", slot + 1, j.what.number,
                            printable(j.what.shown_key()), std::chrono::duration<double>(now - j.start).count(),
                            processes_.pid(slot)));
}

void runner::say(std::string_view text) { output_.note(fmt::format("taskpool: {}\n", text)); }

picture runner::look() {
    picture now;
    now.done = tally_.done();
    now.ok = tally_.count(outcome::ok);
    now.failed = tally_.failures();
    now.skipped = tally_.count(outcome::skipped);
    now.running = running_;
    now.slots = allowed_;
    now.waiting = report_.admitted - over_ - report_.dropped - running_;
    const auto load = intake_.look();
    now.keys = load.keys;
    now.hottest = load.hottest;
    now.hottest_waiting = load.waiting;
    if (report_.input_ended && phase_ == phase::running)
        now.total = report_.admitted;
    progress_.complete(now, processes_.now());
    return now;
}

void runner::show(bool final) {
    const auto kind = progress_.what();
    if (final) {
        output_.status("");
        if (kind == progress::kind::json)
            output_.note(progress_json(look(), true) + '\n');
        else if (kind != progress::kind::none || tally_.count(outcome::ok) != tally_.done())
            say(tally_.summary(std::chrono::duration<double>(processes_.now() - start_).count()));
        return;
    }
    const auto now = look();
    if (kind == progress::kind::line)
        output_.status(progress_line(now, columns(output_.sinks()[1].fd()) - 1));
    else if (kind == progress::kind::plain)
        say(progress_plain(now));
    else
        output_.note(progress_json(now, false) + '\n');
}

} // namespace taskpool::cli
