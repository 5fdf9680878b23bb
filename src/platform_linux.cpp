// SPDX-License-Identifier: Apache-2.0
#if defined(__linux__)

#include "platform.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace taskpool::detail::platform {

namespace {

/// The quota of one control group in processors, by the file of version 2 ("max 100000" or "150000 100000").
std::optional<double> quota_v2(const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");
    std::string quota;
    double period = 0;
    if (!(file >> quota >> period) || quota == "max" || period <= 0)
        return std::nullopt;
    return std::stod(quota) / period;
}

std::optional<double> quota_v1(const std::string& folder) {
    std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
    std::ifstream period_file(folder + "/cpu.cfs_period_us");
    double quota = 0;
    double period = 0;
    if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0 || period <= 0)
        return std::nullopt;
    return quota / period;
}

/// The smallest quota of this process's control group and those above it.
std::optional<double> smallest_quota() {
    std::ifstream groups("/proc/self/cgroup");
    std::optional<double> smallest;
    // Lines are "0::/path" for version 2 and "4:cpu,cpuacct:/path" for version 1.
    for (std::string line; std::getline(groups, line);) {
        const auto first = line.find(':');
        const auto second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos)
            continue;
        const auto controllers = line.substr(first + 1, second - first - 1);
        const bool v2 = controllers.empty();
        if (!v2 && controllers != "cpu" && controllers.find("cpu,") == std::string::npos &&
            controllers.find(",cpu") == std::string::npos)
            continue;
        auto path = line.substr(second + 1);
        for (;;) {
            const auto quota = v2 ? quota_v2("/sys/fs/cgroup" + path) : quota_v1("/sys/fs/cgroup/cpu" + path);
            if (quota && (!smallest || *quota < *smallest))
                smallest = quota;
            if (path.empty() || path == "/")
                break;
            path.resize(path.rfind('/')); // ends at "", the mount point itself
        }
    }
    return smallest;
}

/// Reads the beginning of a thread's file as text; whether there was any.
template <std::size_t N>
bool read_file(char (&text)[N], std::int64_t thread, const char* name) noexcept {
    std::snprintf(text, N, "/proc/self/task/%lld/%s", static_cast<long long>(thread), name);
    const int file = open(text, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    const auto length = read(file, text, N - 1);
    close(file);
    text[std::max<decltype(length)>(length, 0)] = '\0';
    return length > 0;
}

} // namespace

unsigned available_processors() noexcept {
    unsigned count = std::max(1U, std::thread::hardware_concurrency());
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        count = static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
    try {
        if (const auto quota = smallest_quota())
            count = std::min(count, static_cast<unsigned>(std::max(1.0, *quota + 0.999)));
    } catch (...) { // NOLINT(bugprone-empty-catch): an unreadable quota is none
    }
    return count;
}

std::thread start_thread(void (*body)(void*), void* argument, const std::string& name, unsigned number) {
    // A thread inherits the mask of its creator.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT})
        sigdelset(&all, fault); // a thread's own faults must reach whoever reports them
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread thread;
    try {
        thread = std::thread(body, argument);
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    const auto suffix = "-" + std::to_string(number);
    constexpr std::size_t limit = 15; // the system's
    pthread_setname_np(thread.native_handle(), (name.substr(0, limit - suffix.size()) + suffix).c_str());
    return thread;
}

thread_probe thread_probe::of_this_thread() noexcept {
    thread_probe probe;
    clockid_t clock = 0;
    if (pthread_getcpuclockid(pthread_self(), &clock) == 0)
        probe.clock_ = clock;
    probe.id_ = syscall(SYS_gettid);
    return probe;
}

std::optional<std::chrono::nanoseconds> thread_probe::cpu_time() const noexcept {
    timespec time{};
    if (clock_ == 0 || clock_gettime(static_cast<clockid_t>(clock_), &time) != 0)
        return std::nullopt;
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

thread_probe::sleep thread_probe::asleep() const noexcept {
    char text[512];
    // "running", the number of the system call that it is in, or -1 in none. Not every kernel has it.
    if (read_file(text, id_, "syscall"))
        return text[0] == 'r' ? sleep::no : text[0] == '-' ? sleep::for_memory : sleep::in_call;
    if (!read_file(text, id_, "stat"))
        return sleep::no;
    // The state follows the name, which stands in parentheses and may hold any bytes.
    const char* const name_end = std::strrchr(text, ')');
    return name_end != nullptr && (name_end[2] == 'S' || name_end[2] == 'D') ? sleep::in_call : sleep::no;
}

void at_fork(void (*prepare)(), void (*parent)(), void (*child)()) noexcept { pthread_atfork(prepare, parent, child); }

} // namespace taskpool::detail::platform

#endif
