// SPDX-License-Identifier: Apache-2.0
// Runs the built `taskpool` as a user would, for the black-box tests.
#pragma once

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace taskpool::cli {

inline std::string contents(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// A directory that is gone at the end.
class scratch {
  public:
    scratch() {
        std::string name = (std::filesystem::temp_directory_path() / "taskpool-test-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr)
            throw std::runtime_error("mkdtemp");
        path_ = name;
    }
    ~scratch() { std::filesystem::remove_all(path_); }
    scratch(const scratch&) = delete;
    scratch& operator=(const scratch&) = delete;

    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

/// Waits until something can be seen to have happened. Gives up after a time that only a hang reaches.
inline bool eventually(const std::function<bool()>& happened) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!happened()) {
        if (std::chrono::steady_clock::now() > deadline)
            return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
}

/// Whether a process of the group may still do something. One that was killed is there until it gets the processor for
/// the last time, and its parent has looked.
inline bool group_lives(long leader) {
    for (const auto& process : std::filesystem::directory_iterator("/proc")) {
        std::ifstream file(process.path() / "stat"); // PID (NAME) STATE PARENT GROUP ...; see proc(5)
        std::string stat;
        std::getline(file, stat); // which is empty where there is none, or no more
        const auto name_end = stat.rfind(") ");
        char state = 0;
        long parent = 0, group = 0;
        if (name_end != std::string::npos &&
            std::sscanf(stat.c_str() + name_end + 2, "%c %ld %ld", &state, &parent, &group) == 3 && group == leader &&
            state != 'Z' && state != 'X')
            return true;
    }
    return false;
}
inline bool group_ends(long leader) {
    return eventually([&] { return !group_lives(leader); });
}

/// One `taskpool` that runs. Its input is `input` unless `in` is given; its output goes to files unless `out` or `err`
/// is.
class cli_process {
  public:
    struct settings {
        std::string input = "";
        int in = -1, out = -1, err = -1;
        std::map<std::string, std::string> environment = {};
        bool ignore_interrupt = false;
        std::size_t longest_file = 0; ///< Bytes: a stand-in for a disk that is full. 0: no limit.
    };

    explicit cli_process(std::vector<std::string> arguments) : cli_process(std::move(arguments), settings{}) {}

    cli_process(std::vector<std::string> arguments, const settings& how) {
        std::ofstream(files_ / "in", std::ios::binary) << how.input;
        arguments.insert(arguments.begin(), TASKPOOL_EXE);
        std::vector<char*> pointers;
        for (std::string& argument : arguments)
            pointers.push_back(argument.data());
        pointers.push_back(nullptr);
        const std::string in = files_ / "in", out = files_ / "out", err = files_ / "err";
        pid_ = fork();
        if (pid_ < 0)
            throw std::runtime_error("fork");
        if (pid_ == 0) {
            const auto become = [](int fd, int given, const char* path, int flags) {
                const int from = given >= 0 ? given : open(path, flags | O_CLOEXEC, 0600);
                if (from < 0 || dup2(from, fd) < 0)
                    _exit(99);
            };
            become(0, how.in, in.c_str(), O_RDONLY);
            become(1, how.out, out.c_str(), O_WRONLY | O_CREAT | O_APPEND);
            become(2, how.err, err.c_str(), O_WRONLY | O_CREAT | O_APPEND);
            for (int fd = 3; fd < 256; ++fd)
                close(fd);
            for (const auto& [name, value] : how.environment)
                setenv(name.c_str(), value.c_str(), 1);
            if (how.ignore_interrupt)
                std::signal(SIGINT, SIG_IGN);
            if (how.longest_file > 0) {
                const rlimit limit{how.longest_file, how.longest_file};
                std::signal(SIGXFSZ, SIG_IGN); // so that the write fails
                setrlimit(RLIMIT_FSIZE, &limit);
            }
            execv(pointers[0], pointers.data());
            _exit(98);
        }
    }

    ~cli_process() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            wait();
        }
    }
    cli_process(const cli_process&) = delete;
    cli_process& operator=(const cli_process&) = delete;

    void kill(int signal) const { ::kill(pid_, signal); }
    pid_t pid() const { return pid_; }

    /// Its exit code; 1000 and the signal's number when it died by one.
    int wait() {
        if (pid_ > 0) {
            int status = 0;
            while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
            }
            pid_ = -1;
            code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        }
        return code_;
    }

    std::string out() const { return contents(files_ / "out"); }
    std::string err() const { return contents(files_ / "err"); }

  private:
    scratch files_;
    pid_t pid_ = -1;
    int code_ = -1;
};

struct cli_result {
    int code;
    std::string out, err;
};

/// Runs `taskpool` to its end.
inline cli_result run_cli(std::vector<std::string> arguments, std::string input = "") {
    cli_process process(std::move(arguments), {.input = std::move(input)});
    const int code = process.wait();
    return {code, process.out(), process.err()};
}

/// Whether the summary in `err` counts `ended` records as `outcomes` says ("2 ok, 1 failed") and all others that were
/// read as not run. How many were read before the run stopped reading is not the program's promise.
inline bool rest_not_run(const std::string& err, std::uint64_t ended, const std::string& outcomes) {
    const std::regex summary("([0-9]+) records?: " + outcomes + "(, ([0-9]+) not run)?;");
    std::smatch found;
    if (!std::regex_search(err, found, summary))
        return false;
    const auto not_run = found[3].matched ? std::stoull(found[3]) : 0;
    return std::stoull(found[1]) == ended + not_run;
}

/// The numbers from 1 to `last`, one on each line.
inline std::string count_to(int last) {
    std::string text;
    for (int i = 1; i <= last; ++i)
        text += std::to_string(i) + "\n";
    return text;
}

inline std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const auto end = text.find('\n', at);
        lines.push_back(text.substr(at, end - at));
        at = end == std::string::npos ? text.size() : end + 1;
    }
    return lines;
}

} // namespace taskpool::cli
