// SPDX-License-Identifier: Apache-2.0
#include "signals.hpp"

#include <ctime>
#include <initializer_list>

#include <pthread.h>

namespace taskpool::cli {

namespace {

bool ignored(int signal) {
    struct sigaction action {};
    return sigaction(signal, nullptr, &action) == 0 && (action.sa_flags & SA_SIGINFO) == 0 &&
           action.sa_handler == SIG_IGN;
}

} // namespace

blocked_signals::blocked_signals() {
    sigemptyset(&to_read_);
    for (const int signal : {SIGINT, SIGHUP, SIGQUIT})
        if (!ignored(signal))
            sigaddset(&to_read_, signal);
    for (const int signal : {SIGTERM, SIGUSR1, SIGUSR2})
        sigaddset(&to_read_, signal);

    sigset_t to_block = to_read_;
    sigaddset(&to_block, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &to_block, &original_);
}

blocked_signals::~blocked_signals() {
    // What is still pending was meant for the run that is over; unblocked, it would end the process now.
    sigset_t pending = to_read_;
    sigaddset(&pending, SIGPIPE);
    const timespec none{};
    while (sigtimedwait(&pending, nullptr, &none) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &original_, nullptr);
}

const char* signal_name(int signal) noexcept {
    switch (signal) {
    case SIGINT:
        return "SIGINT";
    case SIGTERM:
        return "SIGTERM";
    case SIGHUP:
        return "SIGHUP";
    case SIGQUIT:
        return "SIGQUIT";
    case SIGUSR1:
        return "SIGUSR1";
    case SIGUSR2:
        return "SIGUSR2";
    case SIGKILL:
        return "SIGKILL";
    default:
        return "a signal";
    }
}

} // namespace taskpool::cli
