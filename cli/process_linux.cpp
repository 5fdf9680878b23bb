// SPDX-License-Identifier: Apache-2.0
// The real process runner: one epoll over a pidfd per child, the pipes of its output, one signalfd and one eventfd.
//
// A child is
//   running    from spawn() until its pidfd is readable. Then it is reaped, and its pipes are emptied of what is there
//              and closed: a grandchild that keeps one open is not waited for, and gets SIGPIPE when it writes on.
//   lingering  only when it was signalled through signal(): it is reaped, and others of its process group live. We look
//              every few milliseconds, as nothing tells of the end of a group. Meanwhile orphans come to us and not to
//              init, so that we can reap them: a zombie counts as a member.
//   gone       on_exit() has been called, the slot is free.
//
// I-PROC-1: a pipe is read only when poll said so or when it has no writer, so no read ever blocks, although the pipes
//           are in blocking mode, as the children share them and expect it.
// I-PROC-2: an event names the child by slot and generation, so one that was fetched before the slot changed hands is
//           recognised and dropped.
// I-PROC-3: a process group is signalled only while its leader is not reaped or a member was seen: its number cannot
//           have passed to others.
#include "process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spawn.hpp"

namespace taskpool::cli {

namespace {

using clock = process_runner::clock;

constexpr auto group_look_interval = std::chrono::milliseconds(5);
constexpr auto group_patience_after_kill = std::chrono::milliseconds(200);

// Closes itself.
class descriptor {
  public:
    descriptor() = default;
    explicit descriptor(int fd) : fd_(fd) {}
    descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    descriptor& operator=(descriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~descriptor() { reset(); }

    int get() const noexcept { return fd_; }
    explicit operator bool() const noexcept { return fd_ >= 0; }
    void reset() noexcept {
        if (fd_ >= 0)
            close(std::exchange(fd_, -1));
    }

  private:
    int fd_ = -1;
};

// What an event is about; with `wake` to `writable` the slot means nothing.
enum class source : std::uint8_t { exit, out, err, in, wake, signals, writable };

std::uint64_t event_tag(source what, std::size_t slot = 0, std::uint32_t generation = 0) {
    return static_cast<std::uint64_t>(what) | std::uint64_t{slot & 0x1FFFFFFF} << 3 | std::uint64_t{generation} << 32;
}

// REQUIRES: the leader is reaped.
bool group_lives(int leader) {
    siginfo_t info{};
    do {
        info.si_pid = 0;
    } while (waitid(P_PGID, static_cast<id_t>(leader), &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0);
    return kill(-leader, 0) == 0;
}

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

class linux_process_runner final : public process_runner {
  public:
    explicit linux_process_runner(const blocked_signals& signals)
        : spawn_(signals), epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
          signals_(signalfd(-1, &signals.to_read(), SFD_CLOEXEC | SFD_NONBLOCK)),
          null_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {
        if (!epoll_ || !wake_ || !signals_)
            fail("cannot set up the event loop");
        if (!null_)
            fail("/dev/null");
        add(wake_.get(), EPOLLIN, event_tag(source::wake));
        add(signals_.get(), EPOLLIN, event_tag(source::signals));
    }

    ~linux_process_runner() override {
        for (child& c : children_)
            if (c.state != child::none)
                kill(-c.pid, SIGKILL);
    }

    std::optional<spawn_failure> spawn(std::size_t slot, const launch& what) override;

    void signal(std::size_t slot, int signal) override {
        child& c = children_[slot];
        if (!std::exchange(c.signalled, true) && signalled_++ == 0)
            prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        kill(-c.pid, signal);
        if (signal == SIGKILL)
            c.give_up = now() + group_patience_after_kill;
        else
            kill(-c.pid, SIGCONT); // a stopped one would not notice
    }

    long pid(std::size_t slot) const override { return children_[slot].pid; }

    void read_output(bool on) override {
        if (on == reading_)
            return;
        reading_ = on;
        for (std::size_t slot = 0; slot < children_.size(); ++slot)
            for (const source which : {source::out, source::err})
                if (const int fd = children_[slot].pipe(which).get(); fd >= 0) {
                    epoll_event event{on ? EPOLLIN : 0U, {.u64 = event_tag(which, slot, children_[slot].generation)}};
                    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
                }
    }

    bool watch_writable(int fd, bool on) override {
        epoll_event event{EPOLLOUT, {.u64 = event_tag(source::writable)}};
        return epoll_ctl(epoll_.get(), on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &event) == 0 || errno == EEXIST;
    }

    void wait(process_events& events, clock::time_point until) override;

    void wake() noexcept override {
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = write(wake_.get(), &one, sizeof one); // fails only when it is set already
    }

    clock::time_point now() const override { return clock::now(); }

  private:
    struct child {
        enum state_t : std::uint8_t { none, running, lingering } state = none;
        bool signalled = false;
        std::uint32_t generation = 0;
        int pid = -1;
        descriptor pidfd;
        descriptor out, err, in;
        std::string_view input; // what is still to be fed
        exit_status status;
        clock::time_point give_up = clock::time_point::max(); // lingering: when to wait for the group no more

        descriptor& pipe(source which) { return which == source::out ? out : which == source::err ? err : in; }
    };

    void add(int fd, std::uint32_t what, std::uint64_t tag) {
        epoll_event event{what, {.u64 = tag}};
        if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
            fail("epoll_ctl");
    }

    void read_once(process_events& events, std::size_t slot, source which);
    void drain(process_events& events, std::size_t slot, source which);
    void feed(child& c);
    void reap(process_events& events, std::size_t slot);
    void finish(process_events& events, std::size_t slot);
    void look_at_groups(process_events& events);
    void read_signals(process_events& events);

    spawner spawn_;
    descriptor epoll_, wake_, signals_, null_;
    bool reading_ = true;
    std::size_t signalled_ = 0; // children that were, and are not gone
    std::size_t lingering_ = 0;
    std::vector<child> children_; // by slot
    std::array<char, std::size_t{64} << 10> buffer_;
};

std::optional<spawn_failure> linux_process_runner::spawn(std::size_t slot, const launch& what) {
    if (slot >= children_.size())
        children_.resize(slot + 1);
    child& c = children_[slot];

    descriptor theirs[3]; // in, out, err
    descriptor* const ours[3] = {&c.in, &c.out, &c.err};
    const auto fail_with = [&](spawn_failure failure) {
        for (descriptor* end : ours)
            end->reset();
        return failure;
    };
    for (int i = 0; i < 3; ++i) {
        if (i == 0 ? !what.input.has_value() : !what.capture)
            continue;
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0)
            return fail_with({spawn_failure::no_resources, std::generic_category().message(errno)});
        *ours[i] = descriptor(ends[i == 0 ? 1 : 0]);
        theirs[i] = descriptor(ends[i == 0 ? 0 : 1]);
    }
    if (c.in) { // most records fit into the pipe at once
        fcntl(c.in.get(), F_SETFL, O_NONBLOCK);
        c.input = *what.input;
        feed(c);
    }

    spawner::child started;
    const int in = theirs[0] ? theirs[0].get() : null_.get();
    if (auto failure = spawn_(slot, what, in, theirs[1].get(), theirs[2].get(), started))
        return fail_with(*std::move(failure));
    c.pid = started.pid;
    c.pidfd = descriptor(started.pidfd);
    c.state = child::running;
    c.signalled = false;
    c.give_up = clock::time_point::max();
    ++c.generation;
    add(c.pidfd.get(), EPOLLIN, event_tag(source::exit, slot, c.generation));
    for (const source which : {source::out, source::err})
        if (c.pipe(which))
            add(c.pipe(which).get(), reading_ ? EPOLLIN : 0U, event_tag(which, slot, c.generation));
    if (c.in)
        add(c.in.get(), EPOLLOUT, event_tag(source::in, slot, c.generation));
    return std::nullopt;
}

void linux_process_runner::feed(child& c) {
    while (!c.input.empty()) {
        const auto written = write(c.in.get(), c.input.data(), c.input.size());
        if (written > 0)
            c.input.remove_prefix(static_cast<std::size_t>(written));
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR)
            break; // EPIPE: the child does not want to read it all, which is its right
    }
    c.in.reset();
}

void linux_process_runner::read_once(process_events& events, std::size_t slot, source which) {
    descriptor& from = children_[slot].pipe(which);
    const auto count = read(from.get(), buffer_.data(), buffer_.size());
    if (count > 0)
        events.on_output(slot, which == source::out ? stream::out : stream::err,
                         {buffer_.data(), static_cast<std::size_t>(count)});
    else if (count == 0 || errno != EINTR)
        from.reset();
}

// Reports what a pipe holds now and closes it, whether or not it has writers left.
void linux_process_runner::drain(process_events& events, std::size_t slot, source which) {
    // A writer that is quicker than we are could keep us here for ever; a pipe holds no more than this at one time.
    std::size_t left = std::size_t{1} << 20;
    descriptor& from = children_[slot].pipe(which);
    while (from && left > 0) {
        pollfd ready{from.get(), POLLIN, 0};
        if (poll(&ready, 1, 0) <= 0)
            break;
        left -= std::min(left, buffer_.size());
        read_once(events, slot, which);
    }
    from.reset();
}

void linux_process_runner::reap(process_events& events, std::size_t slot) {
    child& c = children_[slot];
    siginfo_t info;
    info.si_pid = 0;
    if (waitid(P_PIDFD, static_cast<id_t>(c.pidfd.get()), &info, WEXITED | WNOHANG) != 0)
        fail("waitid");
    if (info.si_pid == 0)
        return;
    c.status = info.si_code == CLD_EXITED ? exit_status{info.si_status, 0} : exit_status{0, info.si_status};
    c.pidfd.reset();
    c.in.reset();
    if (c.signalled && group_lives(c.pid)) {
        c.state = child::lingering;
        ++lingering_;
    } else {
        finish(events, slot);
    }
}

void linux_process_runner::finish(process_events& events, std::size_t slot) {
    drain(events, slot, source::out);
    drain(events, slot, source::err);
    child& c = children_[slot];
    if (c.state == child::lingering)
        --lingering_;
    if (c.signalled && --signalled_ == 0)
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
    c.state = child::none;
    events.on_exit(slot, c.status);
}

void linux_process_runner::look_at_groups(process_events& events) {
    for (std::size_t slot = 0; slot < children_.size() && lingering_ > 0; ++slot)
        if (const child& c = children_[slot];
            c.state == child::lingering && (!group_lives(c.pid) || now() >= c.give_up))
            finish(events, slot);
}

void linux_process_runner::read_signals(process_events& events) {
    signalfd_siginfo info;
    while (read(signals_.get(), &info, sizeof info) == sizeof info)
        events.on_signal(static_cast<int>(info.ssi_signo));
}

void linux_process_runner::wait(process_events& events, clock::time_point until) {
    if (lingering_ > 0)
        until = std::min(until, now() + group_look_interval);
    int timeout = -1;
    if (until != clock::time_point::max()) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - now()).count();
        timeout = static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000));
    }
    std::array<epoll_event, 64> ready;
    const int count = epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), timeout);
    if (count < 0 && errno != EINTR)
        fail("epoll_wait");
    for (int i = 0; i < count; ++i) {
        const auto tag = ready[static_cast<std::size_t>(i)].data.u64;
        const auto what = static_cast<source>(tag & 7);
        if (what == source::wake) {
            std::uint64_t ignored;
            [[maybe_unused]] const auto cleared = read(wake_.get(), &ignored, sizeof ignored);
        } else if (what == source::signals) {
            read_signals(events);
        } else if (what != source::writable) {
            const std::size_t slot = (tag >> 3) & 0x1FFFFFFF;
            child& c = children_[slot];
            if (c.generation != tag >> 32 || c.state == child::none)
                continue;
            if (what == source::exit && c.pidfd)
                reap(events, slot);
            else if (what == source::in && c.in)
                feed(c);
            else if ((what == source::out || what == source::err) && c.pipe(what))
                read_once(events, slot, what);
        }
    }
    if (lingering_ > 0)
        look_at_groups(events);
}

} // namespace

std::unique_ptr<process_runner> make_process_runner(const blocked_signals& signals) {
    return std::make_unique<linux_process_runner>(signals);
}

} // namespace taskpool::cli
