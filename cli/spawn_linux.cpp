// SPDX-License-Identifier: Apache-2.0
// The child runs `become_command` on a stack of its own and in our memory, while the calling thread waits. So it must
// not allocate, throw, or call what keeps state; raw system calls also keep sanitizers out, whose bookkeeping would
// not survive a function that never returns. It reports a failure at the lower end of its stack, which is shared
// memory.
#include "spawn.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace taskpool::cli {

namespace {

constexpr std::size_t stack_size = std::size_t{64} << 10;
constexpr std::size_t kernel_mask_size = _NSIG / 8;
constexpr std::array<const char*, 4> own_names = {
    "TASKPOOL_KEY=", "TASKPOOL_SEQ=", "TASKPOOL_SLOT=", "TASKPOOL_ATTEMPT="};

struct command_to_become {
    const char* path;
    char* const* arguments;
    char* const* environment;
    const sigset_t* mask;
    int descriptors[3];
    int* error;
};

// ThreadSanitizer takes every clone() for a fork and would change the state of the calling thread as if it were the
// child; there the child gets a copy of our memory, and shares but the stack.
#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
constexpr int clone_flags = CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
#else
constexpr int clone_flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
#endif

#define TASKPOOL_NO_SANITIZERS __attribute__((no_sanitize("address", "thread", "undefined"), noinline))

TASKPOOL_NO_SANITIZERS int become_command(void* argument) {
    auto* const command = static_cast<command_to_become*>(argument);
    syscall(SYS_setpgid, 0, 0);
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    bool ready = true;
    for (int target = 0; target < 3 && ready; ++target)
        if (command->descriptors[target] >= 0)
            ready = syscall(SYS_dup3, command->descriptors[target], target, 0) >= 0;
    if (ready) {
        // No handler is installed in this program, so a signal that arrives from here on ends the child alone.
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, command->mask, nullptr, kernel_mask_size);
        syscall(SYS_execve, command->path, command->arguments, command->environment);
    }
    *command->error = errno;
    syscall(SYS_exit_group, 127);
    return 127;
}

std::string text_of(int error) { return std::generic_category().message(error); }

spawn_failure failure_for(int error) {
    switch (error) {
    case E2BIG:
        return {spawn_failure::too_long,
                "its arguments or the key are longer than the system allows (--stdin feeds a record of any length)"};
    case EAGAIN:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return {spawn_failure::no_resources, text_of(error)};
    case ENOENT: // the file was found: what its first line names was not
        return {spawn_failure::cannot_run, "its interpreter does not exist"};
    default:
        return {spawn_failure::cannot_run, text_of(error)};
    }
}

/// So that sh does not take it for options, should it come to that.
std::string as_file(const std::string& path) {
    return path.starts_with('-') || path.starts_with('+') ? "./" + path : path;
}

} // namespace

spawner::spawner(const blocked_signals& signals)
    : mask_(signals.original()),
      stack_(mmap(nullptr, stack_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (stack_ == MAP_FAILED)
        throw std::system_error(errno, std::generic_category(), "cannot allocate a stack");
    own_.resize(own_names.size());
    environment_.resize(own_names.size());
    for (char** variable = environ; *variable != nullptr; ++variable) {
        bool ours = false;
        for (const char* name : own_names)
            ours = ours || std::strncmp(*variable, name, std::strlen(name)) == 0;
        if (!ours)
            environment_.push_back(*variable);
    }
    environment_.push_back(nullptr);
}

spawner::~spawner() { munmap(stack_, stack_size); }

std::optional<spawn_failure> spawner::set_environment(std::size_t slot, const launch& what) {
    if (what.key.find('\0') != std::string_view::npos)
        return spawn_failure{spawn_failure::too_long, "the key holds a NUL byte, which TASKPOOL_KEY cannot"};
    own_[0].assign(own_names[0]).append(what.key);
    const std::array<std::uint64_t, 3> numbers = {what.number, slot + 1, what.attempt};
    for (std::size_t i = 0; i < numbers.size(); ++i)
        own_[i + 1].assign(own_names[i + 1]).append(fmt::format_int(numbers[i]).c_str());
    for (std::size_t i = 0; i < own_.size(); ++i)
        environment_[i] = own_[i].data();
    return std::nullopt;
}

std::optional<spawn_failure> spawner::find(const std::string& command, bool again) {
    if (command == command_ && !again && !path_.empty())
        return std::nullopt;
    command_ = command;
    path_.clear();
    if (command.find('/') != std::string::npos) {
        path_ = as_file(command);
        if (access(path_.c_str(), F_OK) == 0)
            return std::nullopt;
        const int error = errno;
        path_.clear();
        if (error == ENOENT || error == ENOTDIR)
            return spawn_failure{spawn_failure::not_found, "no such command"};
        return spawn_failure{spawn_failure::cannot_run, text_of(error)};
    }
    const char* const variable = std::getenv("PATH");
    std::string_view directories = variable != nullptr ? variable : "/usr/local/bin:/usr/bin:/bin";
    int found_but = 0;
    while (!command.empty()) {
        const auto colon = directories.find(':');
        std::string candidate(directories.substr(0, colon));
        candidate.append(candidate.empty() ? "./" : "/").append(command);
        struct stat status {};
        if (stat(candidate.c_str(), &status) == 0 && S_ISREG(status.st_mode)) {
            if (access(candidate.c_str(), X_OK) == 0) {
                path_ = as_file(candidate);
                return std::nullopt;
            }
            found_but = errno;
        }
        if (colon == std::string_view::npos)
            break;
        directories.remove_prefix(colon + 1);
    }
    if (found_but != 0)
        return spawn_failure{spawn_failure::cannot_run, text_of(found_but)};
    return spawn_failure{spawn_failure::not_found, "no such command"};
}

int spawner::start(const char* path, int in, int out, int err, child& result) {
    int* const error = static_cast<int*>(stack_);
    *error = 0;
    command_to_become command{path, arguments_.data(), environment_.data(), &mask_, {in, out, err}, error};
    const int pid =
        clone(become_command, static_cast<char*>(stack_) + stack_size, clone_flags, &command, &result.pidfd);
    if (pid < 0)
        return errno;
    result.pid = pid;
    if (*error == 0)
        return 0;
    siginfo_t ignored;
    while (waitid(P_PIDFD, static_cast<id_t>(result.pidfd), &ignored, WEXITED) != 0 && errno == EINTR) {
    }
    close(result.pidfd);
    return *error;
}

std::optional<spawn_failure> spawner::operator()(std::size_t slot, const launch& what, int in, int out, int err,
                                                 child& result) {
    const std::string& command = what.arguments.front();
    if (auto failure = find(command, false))
        return failure;
    if (auto failure = set_environment(slot, what))
        return failure;
    const auto set_arguments = [&](const char* shell) {
        arguments_.clear();
        if (shell != nullptr) {
            arguments_.push_back(const_cast<char*>(shell));
            arguments_.push_back(path_.data());
        } else {
            arguments_.push_back(const_cast<char*>(command.c_str()));
        }
        for (const std::string& argument : what.arguments.subspan(1))
            arguments_.push_back(const_cast<char*>(argument.c_str()));
        arguments_.push_back(nullptr);
    };

    set_arguments(nullptr);
    int error = start(path_.c_str(), in, out, err, result);
    if (error == ENOENT && access(path_.c_str(), F_OK) != 0) { // it has moved since it was looked up
        if (auto failure = find(command, true))
            return failure;
        error = start(path_.c_str(), in, out, err, result);
    }
    if (error == ENOEXEC) { // a script that does not name its interpreter: the shell's, as execvp has it
        set_arguments("/bin/sh");
        error = start("/bin/sh", in, out, err, result);
    }
    if (error != 0)
        return failure_for(error);
    return std::nullopt;
}

} // namespace taskpool::cli
