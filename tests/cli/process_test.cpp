// SPDX-License-Identifier: Apache-2.0
#include "process.hpp"

#include "cli_process.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

namespace taskpool::cli {
namespace {

using namespace std::chrono_literals;

class Process : public testing::Test, protected process_events {
  protected:
    struct ended {
        std::string out, err;
        exit_status status;
    };

    void on_output(std::size_t slot, stream which, std::string_view bytes) override {
        (which == stream::out ? running[slot].out : running[slot].err) += bytes;
    }
    void on_exit(std::size_t slot, exit_status status) override {
        running[slot].status = status;
        done[slot] = std::move(running[slot]);
        running.erase(slot);
    }
    void on_signal(int signal) override { seen_signals.push_back(signal); }

    std::optional<spawn_failure> spawn(std::size_t slot, std::vector<std::string> arguments, std::string_view key = "k",
                                       std::optional<std::string_view> input = std::nullopt) {
        return runner->spawn(slot, {arguments, key, slot + 100, 1, true, input});
    }
    const ended& wait_for(std::size_t slot) {
        done.erase(slot);
        while (!done.contains(slot))
            runner->wait(*this, process_runner::clock::time_point::max());
        return done[slot];
    }
    ended shell(const std::string& script, std::optional<std::string_view> input = std::nullopt) {
        EXPECT_FALSE(spawn(0, {"sh", "-c", script, "name"}, "k", input));
        return wait_for(0);
    }

    blocked_signals signals;
    std::unique_ptr<process_runner> runner = make_process_runner(signals);
    std::map<std::size_t, ended> running, done;
    std::vector<int> seen_signals;
};

bool group_exists(long leader) { return kill(static_cast<pid_t>(-leader), 0) == 0; }

TEST_F(Process, OutputAndExitCode) {
    const auto result = shell("echo out; echo err >&2; exit 3");
    EXPECT_EQ(result.out, "out\n");
    EXPECT_EQ(result.err, "err\n");
    EXPECT_EQ(result.status.code, 3);
    EXPECT_EQ(result.status.signal, 0);
}

TEST_F(Process, DeathByASignal) {
    const auto result = shell("kill -USR1 $$");
    EXPECT_EQ(result.status.signal, SIGUSR1) << "the child has neither our mask nor our dispositions";
    EXPECT_EQ(shell("kill -PIPE $$").status.signal, SIGPIPE);
}

TEST_F(Process, EnvironmentOfAChild) {
    setenv("TASKPOOL_KEY", "from outside", 1);
    setenv("TASKPOOL_TEST_VARIABLE", "kept", 1);
    runner = make_process_runner(signals);
    ASSERT_FALSE(spawn(4, {"sh", "-c", "env | grep ^TASKPOOL_ | sort"}, "a key\nof two lines"));
    EXPECT_EQ(wait_for(4).out, "TASKPOOL_ATTEMPT=1\nTASKPOOL_KEY=a key\nTASKPOOL_SEQ=104\nTASKPOOL_SLOT=5\n"
                               "TASKPOOL_TEST_VARIABLE=kept\n");
    ASSERT_FALSE(spawn(0, {"sh", "-c", "echo \"[$TASKPOOL_KEY]\""}, ""));
    EXPECT_EQ(wait_for(0).out, "[]\n");
    unsetenv("TASKPOOL_KEY");
    unsetenv("TASKPOOL_TEST_VARIABLE");
}

TEST_F(Process, NothingIsInherited) {
    // What this program was itself given open goes on to the child; what it opens does not. `ls` has one more.
    int given = 0;
    for (int fd = 0; fd < 1024; ++fd)
        given += fcntl(fd, F_GETFD) == 0 ? 1 : 0; // open, and not close-on-exec
    EXPECT_EQ(shell("ls /proc/self/fd | wc -l").out, std::to_string(given + 1) + "\n");
    EXPECT_EQ(shell("readlink /proc/self/fd/0").out, "/dev/null\n");
}

TEST_F(Process, AGroupOfItsOwn) {
    ASSERT_FALSE(spawn(0, {"sh", "-c", "echo $$; ps -o pgid= -p $$"}));
    const long pid = runner->pid(0);
    const auto result = wait_for(0);
    EXPECT_EQ(std::strtol(result.out.c_str(), nullptr, 10), pid);
    EXPECT_NE(getpgrp(), pid);
}

TEST_F(Process, WhatCannotBeStarted) {
    const auto kind = [&](std::vector<std::string> arguments) {
        const auto failure = spawn(0, std::move(arguments));
        return failure ? static_cast<int>(failure->kind) : -1;
    };
    EXPECT_EQ(kind({"no-such-command-anywhere"}), spawn_failure::not_found);
    EXPECT_EQ(kind({"/no/such/command"}), spawn_failure::not_found);
    EXPECT_EQ(kind({""}), spawn_failure::not_found);
    EXPECT_EQ(kind({"/etc/passwd"}), spawn_failure::cannot_run);
    EXPECT_EQ(kind({"/etc"}), spawn_failure::cannot_run);
    EXPECT_EQ(kind({"true", std::string(10'000'000, 'x')}), spawn_failure::too_long);
    std::vector<std::string> none = {"true"};
    const auto nul = runner->spawn(0, {none, std::string_view("a\0b", 3), 1, 1, true, std::nullopt});
    ASSERT_TRUE(nul);
    EXPECT_EQ(nul->kind, spawn_failure::too_long);
    EXPECT_EQ(shell("echo fine").out, "fine\n") << "a failure leaves nothing behind";
}

class scratch_script {
  public:
    explicit scratch_script(std::string_view text, mode_t mode = 0700) {
        std::string name = "/tmp/taskpool-test-XXXXXX";
        const int fd = mkstemp(name.data());
        EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
        fchmod(fd, mode);
        close(fd);
        path = name;
    }
    ~scratch_script() { unlink(path.c_str()); }
    scratch_script(const scratch_script&) = delete;
    scratch_script& operator=(const scratch_script&) = delete;
    std::string path;
};

TEST_F(Process, ScriptsWithAndWithoutAnInterpreter) {
    const scratch_script plain("echo \"$0 $1\"\n"), broken("#!/no/such/interpreter\n");
    ASSERT_FALSE(spawn(0, {plain.path, "a b"}));
    EXPECT_EQ(wait_for(0).out, plain.path + " a b\n");
    const auto failure = spawn(0, {broken.path});
    ASSERT_TRUE(failure);
    EXPECT_EQ(failure->kind, spawn_failure::cannot_run);
    EXPECT_EQ(failure->message, "its interpreter does not exist");
}

TEST_F(Process, AScriptThatIsNamedLikeAnOptionIsNone) {
    const scratch folder;
    const auto before = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    for (const std::string option : {"-c", "+e"}) {
        std::filesystem::create_directory(option);
        const auto script = option + "/script";
        std::ofstream(script) << "echo \"ran $1\"\n"; // has no interpreter of its own, so /bin/sh gets it
        chmod(script.c_str(), 0700);
        ASSERT_FALSE(spawn(0, {script, "echo out"}));
        EXPECT_EQ(wait_for(0).out, "ran echo out\n");
    }
    std::filesystem::current_path(before);
}

TEST_F(Process, ACommandThatMovesIsLookedUpAgain) {
    char first[] = "/tmp/taskpool-test-XXXXXX", second[] = "/tmp/taskpool-test-XXXXXX";
    ASSERT_TRUE(mkdtemp(first) && mkdtemp(second));
    const std::string path = std::getenv("PATH");
    setenv("PATH", (std::string(first) + ":" + second + ":" + path).c_str(), 1);
    const std::string before = std::string(first) + "/moving-command", after = std::string(second) + "/moving-command";
    std::ofstream(before) << "#!/bin/sh\necho moved\n";
    chmod(before.c_str(), 0700);
    ASSERT_FALSE(spawn(0, {"moving-command"}));
    EXPECT_EQ(wait_for(0).out, "moved\n");
    ASSERT_EQ(rename(before.c_str(), after.c_str()), 0);
    ASSERT_FALSE(spawn(0, {"moving-command"}));
    EXPECT_EQ(wait_for(0).out, "moved\n");
    unlink(after.c_str());
    const auto failure = spawn(0, {"moving-command"});
    ASSERT_TRUE(failure);
    EXPECT_EQ(failure->kind, spawn_failure::not_found);
    setenv("PATH", path.c_str(), 1);
    rmdir(first);
    rmdir(second);
}

TEST_F(Process, Input) {
    EXPECT_EQ(shell("cat", "record\n").out, "record\n");
    EXPECT_EQ(shell("cat", "").out, "");
    const std::string big(3'000'000, 'x');
    EXPECT_EQ(shell("cat", big).out, big);
    EXPECT_TRUE(shell("exec <&-; true", big).status.success()) << "a child need not read it";
    EXPECT_EQ(shell("head -c 5", big).out, "xxxxx");
}

TEST_F(Process, MuchOutputOfManyChildren) {
    for (std::size_t slot = 0; slot < 8; ++slot)
        ASSERT_FALSE(spawn(slot, {"sh", "-c", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"}));
    while (done.size() < 8)
        runner->wait(*this, process_runner::clock::time_point::max());
    for (const auto& [slot, result] : done) {
        EXPECT_EQ(result.out.size(), 1'000'000U);
        EXPECT_EQ(result.err.size(), 1'000'000U);
        EXPECT_TRUE(result.status.success());
    }
}

TEST_F(Process, AGrandchildThatKeepsThePipeIsNotWaitedFor) {
    const auto before = process_runner::clock::now();
    const auto result = shell("echo early; sleep 60 & echo $!");
    EXPECT_LT(process_runner::clock::now() - before, 30s);
    EXPECT_EQ(result.out.substr(0, 6), "early\n");
    const long grandchild = std::strtol(result.out.c_str() + 6, nullptr, 10);
    EXPECT_EQ(kill(static_cast<pid_t>(grandchild), SIGKILL), 0) << "it was left alone";
}

TEST_F(Process, TheWholeGroupIsGoneWhenASignalledChildIsReported) {
    ASSERT_FALSE(spawn(0, {"sh", "-c", "sleep 600 & sleep 600 & echo ready; wait"}));
    while (running[0].out.empty())
        runner->wait(*this, process_runner::clock::time_point::max());
    const long leader = runner->pid(0);
    EXPECT_TRUE(group_exists(leader));
    runner->signal(0, SIGTERM);
    EXPECT_EQ(wait_for(0).status.signal, SIGTERM);
    EXPECT_FALSE(group_exists(leader));
}

TEST_F(Process, AMemberThatIgnoresTermIsWaitedForUntilItIsKilled) {
    ASSERT_FALSE(spawn(0, {"sh", "-c", "sh -c 'trap \"\" TERM; echo ready; sleep 600; sleep 600' & wait"}));
    while (running[0].out.empty())
        runner->wait(*this, process_runner::clock::time_point::max());
    const long leader = runner->pid(0);
    runner->signal(0, SIGTERM);
    for (int i = 0; i < 20; ++i)
        runner->wait(*this, process_runner::clock::now() + 10ms);
    EXPECT_FALSE(done.contains(0));
    runner->signal(0, SIGKILL);
    wait_for(0);
    EXPECT_TRUE(group_ends(leader));
}

TEST_F(Process, AStoppedChildHearsTerm) {
    ASSERT_FALSE(spawn(0, {"sh", "-c", "echo ready; kill -STOP $$; exit 0"}));
    while (running[0].out.empty())
        runner->wait(*this, process_runner::clock::time_point::max());
    runner->signal(0, SIGTERM);
    wait_for(0);
}

TEST_F(Process, SignalsAndWakesEndAWait) {
    kill(getpid(), SIGUSR1);
    runner->wait(*this, process_runner::clock::time_point::max());
    EXPECT_EQ(seen_signals, std::vector<int>{SIGUSR1});
    runner->wake();
    runner->wait(*this, process_runner::clock::time_point::max());
    const auto before = process_runner::clock::now();
    runner->wait(*this, before + 20ms);
    EXPECT_GE(process_runner::clock::now() - before, 20ms);
}

TEST_F(Process, ReadingCanPause) {
    runner->read_output(false);
    ASSERT_FALSE(spawn(0, {"sh", "-c", "head -c 1000000 /dev/zero"}));
    for (int i = 0; i < 10; ++i)
        runner->wait(*this, process_runner::clock::now() + 10ms);
    EXPECT_TRUE(running[0].out.empty());
    runner->read_output(true);
    EXPECT_EQ(wait_for(0).out.size(), 1'000'000U);
}

TEST_F(Process, NoDescriptorIsLeft) {
    const auto count = [] {
        int open = 0;
        for (int fd = 0; fd < 256; ++fd)
            open += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
        return open;
    };
    shell("echo a");
    const int before = count();
    for (int i = 0; i < 20; ++i) {
        shell("echo a; echo b >&2", "in");
        spawn(0, {"no-such-command-anywhere"});
    }
    EXPECT_EQ(count(), before);
}

} // namespace
} // namespace taskpool::cli
