// SPDX-License-Identifier: Apache-2.0
// Systems other than Linux: the standard library alone. Blocked jobs are not noticed there; only blocking_scope tells.
#if !defined(__linux__)

#include "platform.hpp"

#include <algorithm>

#if !defined(_WIN32)
#include <pthread.h>
#include <signal.h>
#endif

namespace taskpool::detail::platform {

unsigned available_processors() noexcept { return std::max(1U, std::thread::hardware_concurrency()); }

std::thread start_thread(void (*body)(void*), void* argument, const std::string&, unsigned) {
#if defined(_WIN32)
    return std::thread(body, argument);
#else
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT})
        sigdelset(&all, fault); // a thread's own faults must reach whoever reports them
    pthread_sigmask(SIG_SETMASK, &all, &before);
    struct restore {
        const sigset_t& mask;
        ~restore() { pthread_sigmask(SIG_SETMASK, &mask, nullptr); }
    } restored{before};
    return std::thread(body, argument);
#endif
}

thread_probe thread_probe::of_this_thread() noexcept { return {}; }
std::optional<std::chrono::nanoseconds> thread_probe::cpu_time() const noexcept { return std::nullopt; }
thread_probe::sleep thread_probe::asleep() const noexcept { return sleep::no; }

void at_fork([[maybe_unused]] void (*prepare)(), [[maybe_unused]] void (*parent)(),
             [[maybe_unused]] void (*child)()) noexcept {
#if !defined(_WIN32)
    pthread_atfork(prepare, parent, child);
#endif
}

} // namespace taskpool::detail::platform

#endif
