// SPDX-License-Identifier: Apache-2.0
// The engine with the library's own pool and no processes.
#include "runner.hpp"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <deque>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <taskpool/task_pool.hpp>
#include <unistd.h>

#include "fake_process_runner.hpp"

namespace taskpool::cli {
namespace {

using namespace std::chrono_literals;
using numbers = std::vector<std::uint64_t>;

class Runner : public testing::Test {
  protected:
    ~Runner() override {
        std::fclose(out_);
        std::fclose(err_);
    }

    // A record for each key, in order, and then the end of the input; runs them and returns the exit code.
    int run(std::initializer_list<std::string> keys, std::optional<std::string> input_error = std::nullopt) {
        taskpool::options pool_settings;
        pool_settings.threads = pool_settings.max_threads = 1;
        pool_settings.lane_capacity = pool_settings.pool_capacity = 1000;
        output_settings where;
        where.out = fileno(out_);
        where.err = fileno(err_);
        where.keep_order = settings.keep_order;
        output out(where);
        intake in(1000, [this] { fake.wake(); });
        {
            task_pool pool(pool_settings);
            pool_ = &pool;
            fake.settled = [&pool] { return pool.active_keys() == pool.stats().suspended_lanes; };
            runner engine(settings, command_, fake, out, in, [this] { ++reading_stopped; });
            std::uint64_t number = 0;
            for (const std::string& key : keys) {
                ++number;
                if (key == left_out) {
                    in.leave_out(number);
                    continue;
                }
                EXPECT_TRUE(in.admit(key));
                auto job = std::make_unique<work>(work{{number, "text of " + key, {}}, false});
                pool.submit(key, [&in, job = std::move(job)](const job_context& context) mutable {
                    in.offer(std::move(job), context);
                });
            }
            in.finish(input_error);
            while (!fake.settled())
                std::this_thread::yield();
            const int code = engine.run();
            EXPECT_FALSE(fake.overlap);
            EXPECT_EQ(pool.active_keys(), 0U) << "every key is released";
            return code;
        }
    }

    // Ends the oldest running child with what `statuses` has for its record; when none runs, lets time pass.
    std::function<bool(process_events&)> end_oldest() {
        return [this](process_events& events) {
            const auto running = fake.running();
            if (running.empty())
                return false;
            const auto number = running.front()->number;
            fake.end(events, number, statuses.contains(number) ? statuses[number] : exit_status{});
            return true;
        };
    }

    // Does the steps one after the other, one in each wait, then end_oldest().
    void play(std::deque<std::function<bool(process_events&)>> steps) {
        fake.script = [this, steps = std::move(steps)](process_events& events) mutable {
            if (steps.empty())
                return end_oldest()(events);
            auto step = std::move(steps.front());
            steps.pop_front();
            return step(events);
        };
    }
    static std::function<bool(process_events&)> signal(int number) {
        return [number](process_events& events) {
            events.on_signal(number);
            return true;
        };
    }
    std::function<bool(process_events&)> end(std::uint64_t number, exit_status status = {}) {
        return [this, number, status](process_events& events) {
            fake.end(events, number, status);
            return true;
        };
    }
    std::function<bool(process_events&)> check(std::function<void()> what) {
        return [what = std::move(what)](process_events&) {
            what();
            return true;
        };
    }
    static std::function<bool(process_events&)> pass_time() {
        return [](process_events&) { return false; };
    }

    static std::string text(std::FILE* file) {
        std::string result(100'000, '\0');
        const auto count = pread(fileno(file), result.data(), result.size(), 0);
        result.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
        return result;
    }
    std::string said() const { return text(err_); }

    static constexpr const char* left_out = "(left out)";
    runner_settings settings = [] {
        runner_settings s;
        s.slots = 2;
        return s;
    }();
    fake_process_runner fake;
    std::map<std::uint64_t, exit_status> statuses;
    int reading_stopped = 0;
    task_pool* pool_ = nullptr; // during run()
    std::FILE* out_ = std::tmpfile();
    std::FILE* err_ = std::tmpfile();
    command_template command_{{"cmd", "{k}", "{%}"}, false, false, {}};
};

TEST_F(Runner, OldestRecordFirst) {
    fake.script = end_oldest();
    EXPECT_EQ(run({"a", "a", "b", "c", "a", "d"}), 0);
    // 2 has to wait for 1, so 3 runs beside it; then 2, the oldest, takes the slot that 1 leaves.
    EXPECT_EQ(fake.order(), (numbers{1, 3, 2, 4, 5, 6}));
    EXPECT_EQ(fake.most_running, 2U);
    EXPECT_EQ(said(), "");
}

TEST_F(Runner, AHotKeyKeepsItsTurn) {
    settings.slots = 4;
    fake.script = end_oldest();
    EXPECT_EQ(run({"h", "h", "h", "h", "a", "b", "c", "d", "e", "f", "g", "i"}), 0);
    EXPECT_EQ(fake.order(), (numbers{1, 5, 6, 7, 2, 8, 9, 10, 3, 11, 12, 4})) << "2, 3 and 4 start as soon as they may";
}

// The pool is slow to hand on the record that follows the one that ends.
class SlowPool : public Runner {
  protected:
    std::function<bool(process_events&)> block_and_end(std::uint64_t number) {
        return [this, number](process_events& events) {
            pool_->submit("another", [this] {
                blocked = true;
                blocked.notify_one();
                go_on.wait(false);
            });
            blocked.wait(false);
            settled = std::exchange(fake.settled, [] { return true; });
            fake.end(events, number);
            return true;
        };
    }
    void unblock() {
        go_on = true;
        go_on.notify_one();
        fake.settled = settled;
    }

    std::atomic<bool> blocked = false, go_on = false;
    std::function<bool()> settled;
};

TEST_F(SlowPool, ASlotIsKeptForTheNextRecordOfItsKey) {
    play({block_and_end(1), check([this] {
              EXPECT_EQ(fake.running().size(), 1U);
              unblock();
          })});
    EXPECT_EQ(run({"h", "h", "a", "b"}), 0);
    EXPECT_EQ(fake.order(), (numbers{1, 3, 2, 4}));
}

TEST_F(SlowPool, ButNotForLong) {
    play({block_and_end(1), pass_time(), check([this] {
              EXPECT_EQ(fake.running().size(), 2U);
              unblock();
          })});
    EXPECT_EQ(run({"h", "h", "a", "b"}), 0);
    EXPECT_EQ(fake.order(), (numbers{1, 3, 4, 2}));
}

TEST_F(SlowPool, AnOlderRecordDoesNotWait) {
    play({end(2), signal(SIGUSR2), end(1), // 3 is ready, with 4 in the only slot
          block_and_end(4), check([this] {
              EXPECT_EQ(fake.order(), (numbers{1, 2, 4, 3}));
              unblock();
          })});
    EXPECT_EQ(run({"a", "h", "a", "h", "h"}), 0);
}

TEST_F(Runner, CommandAndSlots) {
    fake.script = end_oldest();
    EXPECT_EQ(run({"a", "b", "c"}), 0);
    EXPECT_EQ(fake.find(1)->arguments, (std::vector<std::string>{"cmd", "a", "1"}));
    EXPECT_EQ(fake.find(2)->arguments, (std::vector<std::string>{"cmd", "b", "2"}));
    EXPECT_EQ(fake.find(3)->arguments, (std::vector<std::string>{"cmd", "c", "1"})) << "the slot that 1 left";
    EXPECT_EQ(fake.find(1)->input, "(none)");
}

TEST_F(Runner, TheRecordOnStdin) {
    settings.feed_stdin = true;
    fake.script = end_oldest();
    EXPECT_EQ(run({"a"}), 0);
    EXPECT_EQ(fake.find(1)->input, "text of a\n");
}

TEST_F(Runner, ExitCodesAndSummary) {
    fake.script = end_oldest();
    statuses[2] = {3, 0};
    EXPECT_EQ(run({"a", "b", "c"}), 123);
    EXPECT_EQ(said(), "taskpool: 3 records: 2 ok, 1 failed; 0.0 s\ntaskpool: failed keys: b\n");
}

TEST_F(Runner, DeathByASignal) {
    fake.script = end_oldest();
    statuses[2] = {0, SIGSEGV};
    statuses[3] = {1, 0};
    EXPECT_EQ(run({"a", "b", "c"}), 125);
}

TEST_F(Runner, AnInputErrorLetsWhatWasReadFinish) {
    fake.script = end_oldest();
    EXPECT_EQ(run({"a", "a", "b"}, "record 4 has no key"), 1);
    EXPECT_EQ(fake.started.size(), 3U);
    EXPECT_EQ(said(), "taskpool: record 4 has no key\n");
}

TEST_F(Runner, SkipKey) {
    settings.on_fail = {fail_policy::skip_key, 2, std::nullopt};
    fake.script = end_oldest();
    for (std::uint64_t number = 1; number <= 6; ++number)
        statuses[number] = {1, 0};
    EXPECT_EQ(run({"a", "b", "a", "a", "a", "c"}), 123);
    EXPECT_EQ(fake.order(), (numbers{1, 2, 3, 6}));
    EXPECT_EQ(said(),
              "taskpool: 6 records: 0 ok, 4 failed, 2 skipped; 0.0 s\ntaskpool: failed keys: a (2 times), b, c\n");
}

TEST_F(Runner, HaltSoonLetsRunningOnesFinish) {
    settings.on_fail = {fail_policy::halt_soon, 1, std::nullopt};
    fake.script = end_oldest();
    statuses[1] = {1, 0};
    EXPECT_EQ(run({"a", "b", "c", "a"}), 124);
    EXPECT_EQ(fake.order(), (numbers{1, 2}));
    EXPECT_TRUE(fake.find(2)->signals.empty());
    EXPECT_EQ(reading_stopped, 1);
    EXPECT_EQ(said(), "taskpool: 1 failed: no more jobs are started\n"
                      "taskpool: 4 records: 1 ok, 1 failed, 2 not run; 0.0 s\ntaskpool: failed keys: a\n");
}

TEST_F(Runner, HaltNowEndsAndThenKills) {
    settings.on_fail = {fail_policy::halt_now, 1, std::nullopt};
    play({end(1, {1, 0}), check([this] { EXPECT_EQ(fake.find(2)->signals, std::vector<int>{SIGTERM}); }), pass_time(),
          check([this] {
              EXPECT_EQ(fake.find(2)->signals, (std::vector<int>{SIGTERM, SIGKILL}));
          }),
          end(2, {0, SIGKILL})});
    EXPECT_EQ(run({"a", "b", "c"}), 124);
    EXPECT_NE(said().find("3 records: 0 ok, 1 failed, 1 ended early, 1 not run; 5.0 s"), std::string::npos) << said();
}

TEST_F(Runner, Timeout) {
    settings.timeout = 2s;
    settings.kill_after = 3s;
    settings.slots = 1;
    play({pass_time(), check([this] { EXPECT_EQ(fake.find(1)->signals, std::vector<int>{SIGTERM}); }), pass_time(),
          check([this] {
              EXPECT_EQ(fake.find(1)->signals, (std::vector<int>{SIGTERM, SIGKILL}));
          }),
          end(1, {0, SIGKILL})});
    EXPECT_EQ(run({"a", "a"}), 123) << "it did not die by a signal of its own";
    EXPECT_EQ(fake.order(), (numbers{1, 2}));
    EXPECT_NE(said().find("2 records: 1 ok, 1 timed out; 5.0 s"), std::string::npos) << said();
}

TEST_F(Runner, CommandNotFound) {
    fake.failures[2] = {{spawn_failure::not_found, "no such command"}};
    fake.script = end_oldest();
    EXPECT_EQ(run({"a", "b", "c"}), 127);
    EXPECT_EQ(fake.order(), (numbers{1})) << "it stops at once";
    EXPECT_EQ(said(), "taskpool: record 2: cannot run cmd: no such command\n"
                      "taskpool: 3 records: 1 ok, 1 failed, 1 not run; 0.0 s\ntaskpool: failed keys: b\n");
}

TEST_F(Runner, CommandCannotRun) {
    fake.failures[1] = {{spawn_failure::cannot_run, "Permission denied"}};
    fake.script = end_oldest();
    EXPECT_EQ(run({"a", "b"}), 126);
}

TEST_F(Runner, TooLongIsTheRecordsFault) {
    fake.failures[1] = {{spawn_failure::too_long, "too long"}};
    fake.script = end_oldest();
    EXPECT_EQ(run({"a", "b", "a"}), 1);
    EXPECT_EQ(fake.order(), (numbers{2, 3})) << "what was read is run";
    EXPECT_EQ(reading_stopped, 1);
}

// Its message was once taken for output that nobody reads, and the next record waited for an event that did not come.
TEST_F(Runner, ARecordThatCannotRunDoesNotHoldUpTheNext) {
    settings.slots = 1;
    fake.failures[1] = {{spawn_failure::too_long, "too long"}};
    fake.script = end_oldest();
    EXPECT_EQ(run({"a", "b"}), 1);
    EXPECT_EQ(fake.order(), (numbers{2}));
}

TEST_F(Runner, WaitsForResources) {
    const spawn_failure none{spawn_failure::no_resources, "Resource temporarily unavailable"};
    fake.failures[1] = {none, none, none};
    fake.failures[2] = {none};
    fake.script = end_oldest();
    EXPECT_EQ(run({"a", "b", "a"}), 0);
    EXPECT_EQ(fake.order(), (numbers{1, 2, 3})) << "and keeps the order";
}

TEST_F(Runner, DoesNotWaitForResourcesForEver) {
    fake.failures[1] = std::vector<spawn_failure>(1000, {spawn_failure::no_resources, "no more processes"});
    fake.script = end_oldest();
    EXPECT_EQ(run({"a", "b"}), 126);
    EXPECT_NE(said().find("record 1: cannot run cmd: no more processes"), std::string::npos) << said();
}

TEST_F(Runner, FirstInterruptFinishesSecondEndsThirdKills) {
    play({signal(SIGINT), check([this] { EXPECT_TRUE(fake.find(1)->signals.empty()); }), end(2), signal(SIGINT),
          check([this] { EXPECT_EQ(fake.find(1)->signals, std::vector<int>{SIGTERM}); }), signal(SIGINT), check([this] {
              EXPECT_EQ(fake.find(1)->signals, (std::vector<int>{SIGTERM, SIGKILL}));
          }),
          end(1, {0, SIGKILL})});
    EXPECT_EQ(run({"a", "b", "c"}), 128 + SIGINT);
    EXPECT_EQ(fake.order(), (numbers{1, 2}));
    EXPECT_NE(said().find("interrupted: no new jobs; 2 running jobs will finish (once more: end them)"),
              std::string::npos);
    EXPECT_NE(said().find("interrupted again: ending 1 running job\n"), std::string::npos);
    EXPECT_NE(said().find("3 records: 1 ok, 1 ended early, 1 not run"), std::string::npos) << said();
}

TEST_F(Runner, TermEndsAtOnce) {
    play({signal(SIGTERM), check([this] { EXPECT_EQ(fake.find(1)->signals, std::vector<int>{SIGTERM}); }),
          end(1, {0, 0}), end(2, {0, SIGTERM})});
    EXPECT_EQ(run({"a", "b", "c"}), 128 + SIGTERM);
    EXPECT_NE(said().find("3 records: 1 ok, 1 ended early, 1 not run"), std::string::npos) << said();
}

TEST_F(Runner, HangupFinishes) {
    play({signal(SIGHUP)});
    EXPECT_EQ(run({"a", "b", "c"}), 128 + SIGHUP);
    EXPECT_EQ(fake.order(), (numbers{1, 2}));
    EXPECT_TRUE(fake.find(1)->signals.empty());
}

TEST_F(Runner, SlotsComeAndGo) {
    play({signal(SIGUSR1), check([this] { EXPECT_EQ(fake.running().size(), 3U); }), signal(SIGUSR2), signal(SIGUSR2),
          signal(SIGUSR2), end(1), end(2), check([this] { EXPECT_EQ(fake.running().size(), 1U); }), end(3),
          check([this] { EXPECT_EQ(fake.running().size(), 1U); })});
    EXPECT_EQ(run({"a", "b", "c", "d", "e"}), 0);
    EXPECT_NE(said().find("taskpool: 3 slots now\n"), std::string::npos);
    EXPECT_NE(said().find("taskpool: 1 slot now\n"), std::string::npos);
}

TEST_F(Runner, QuitListsWhatRuns) {
    play({signal(SIGQUIT)});
    EXPECT_EQ(run({"a", "b", "c"}), 0);
    EXPECT_EQ(said(), "taskpool: 2 of 2 slots in use, 1 ready, 0 done\n"
                      "taskpool:   slot 1: record 1, key a, 0.0 s, pid 1000\n"
                      "taskpool:   slot 2: record 2, key b, 0.0 s, pid 1001\n");
}

TEST_F(Runner, KeepOrderDoesNotRunFarAhead) {
    settings.keep_order = true;
    settings.buffer = 3;
    settings.slots = 2;
    play({end(2), check([this] { EXPECT_EQ(fake.running().size(), 1U) << "4 is more than the buffer after 1"; })});
    EXPECT_EQ(run({"a", "b", left_out, "c", "d"}), 0) << said();
    EXPECT_EQ(fake.order(), (numbers{1, 2, 4, 5}));
}

TEST_F(Runner, ProgressAsJson) {
    settings.shown = progress::kind::json;
    settings.slots = 1;
    play({pass_time()});
    EXPECT_EQ(run({"a", "a", "b"}), 0);
    EXPECT_NE(
        said().find(R"({"seconds":1.000,"done":0,"ok":0,"failed":0,"skipped":0,"running":1,"slots":1,"waiting":2,)"
                    R"("keys":2,"rate":0.0,"total":3,"seconds_left":null,"hottest":{"key":"a","waiting":1},)"
                    R"("final":false})"),
        std::string::npos)
        << said();
    EXPECT_NE(said().find(R"("final":true})"), std::string::npos);
}

TEST_F(Runner, OutputThatCannotBeWrittenEndsTheRun) {
    std::FILE* const full = std::freopen("/dev/full", "w", out_);
    ASSERT_NE(full, nullptr);
    play({[](process_events& events) {
              events.on_output(0, stream::out, "lost");
              return true;
          },
          end(1), check([this] { EXPECT_EQ(fake.find(2)->signals, std::vector<int>{SIGTERM}); }),
          end(2, {0, SIGTERM})});
    EXPECT_EQ(run({"a", "b", "c"}), 1);
    EXPECT_NE(said().find(
                  "taskpool: record 1: cannot write its output to standard output: No space left on device: stopping"),
              std::string::npos)
        << said();
}

} // namespace
} // namespace taskpool::cli
