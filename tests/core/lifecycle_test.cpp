// SPDX-License-Identifier: Apache-2.0
// How a pool begins and ends, and the corners of its life: fork, static destruction, a pool destroyed by its own job,
// keys of any size and type, a million of them.
#include "testing.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include <taskpool/testing.hpp>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <filesystem>
#include <fstream>
#include <sched.h>
#endif

namespace taskpool::testing {
namespace {

// --- Options and starting
// ---------------------------------------------------------------------------------------------

TEST(Lifecycle, options_that_make_no_sense_are_refused) {
    EXPECT_THROW(task_pool({.lane_capacity = 0}), std::invalid_argument);
    EXPECT_THROW(task_pool({.lane_capacity = 1'000'000'001}), std::invalid_argument);
    EXPECT_THROW(task_pool({.pool_capacity = 0}), std::invalid_argument);
    EXPECT_THROW(task_pool({.threads = 8, .max_threads = 4}), std::invalid_argument);
    EXPECT_THROW(task_pool({.when_full = static_cast<overflow>(17)}), std::invalid_argument);
    EXPECT_NO_THROW(task_pool({.threads = 4, .max_threads = 4, .lane_capacity = 1, .pool_capacity = 1}));
    EXPECT_NO_THROW(task_pool({.lane_capacity = 1'000'000'000, .pool_capacity = SIZE_MAX}));
}

TEST(Lifecycle, a_pool_without_autostart_has_no_threads_until_it_is_started) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .autostart = false});
    for (int i = 0; i < 50; ++i)
        ASSERT_TRUE(pool.submit(std::to_string(i), [&] { ++ran; }));
    EXPECT_EQ(pool.stats().threads, 0U);
    EXPECT_TRUE(for_a_while([&] { return ran == 0; }));
    EXPECT_FALSE(pool.drain_for(5ms));
    pool.start();
    pool.drain();
    EXPECT_EQ(ran, 50);
}

TEST(Lifecycle, start_is_idempotent_also_from_several_threads) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .max_threads = 2, .autostart = false});
    for (int i = 0; i < 20; ++i)
        ASSERT_TRUE(pool.submit(std::to_string(i), [&] { ++ran; }));
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] { pool.start(); });
    for (auto& thread : threads)
        thread.join();
    pool.start();
    pool.drain();
    EXPECT_EQ(ran, 20);
    EXPECT_LE(pool.stats().threads, 2U);
    task_pool started({.threads = 1});
    started.start();
    EXPECT_TRUE(started.submit("key", [] {}));
    started.drain();
}

TEST(Lifecycle, start_after_stop_starts_nothing) {
    task_pool pool({.autostart = false});
    pool.stop();
    pool.start();
    EXPECT_EQ(pool.stats().threads, 0U);
    EXPECT_EQ(pool.submit("key", [] {}), submit_status::stopped);
}

TEST(Lifecycle, a_pool_that_did_nothing_ends) {
    for (int i = 0; i < 100; ++i)
        const task_pool pool({.threads = 3});
    const task_pool unstarted({.autostart = false});
}

TEST(Lifecycle, a_pool_closed_before_it_is_started_runs_what_it_has) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 1, .autostart = false});
    ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
    pool.close();
    pool.start();
    pool.drain();
    EXPECT_EQ(ran, 1);
}

// --- Ends ------------------------------------------------------------------------------------------------------------

TEST(Lifecycle, a_pool_may_be_destroyed_by_its_own_job) {
    for (int round = 0; round < 50; ++round) {
        gate destroyed, others_may_end;
        std::latch other_runs(1);
        std::atomic<int> discarded = 0, ran = 0;
        std::atomic<bool> other_asked = false, own_asked = false, other_ended = false;
        auto pool =
            std::make_unique<task_pool>(options{.threads = 2, .on_discard = [&](const discard&) { ++discarded; }});
        ASSERT_TRUE(pool->submit("other", [&](const job_context& context) {
            other_runs.count_down();
            while (!context.stop_requested())
                std::this_thread::yield();
            other_asked = true;
            others_may_end.wait();
            other_ended = true;
        }));
        for (int i = 0; i < 10; ++i)
            ASSERT_TRUE(pool->submit("other", [&] { ++ran; }));
        other_runs.wait();
        auto lane = pool->lane("key");
        ASSERT_TRUE(lane.submit([&](const job_context& context) {
            pool.reset(); // does not wait: not for this job, nor for the other
            own_asked = context.stop_requested();
            EXPECT_EQ(context.key(), "key");
            destroyed.open();
        }));
        destroyed.wait();
        EXPECT_TRUE(own_asked);
        EXPECT_FALSE(other_ended);
        EXPECT_EQ(lane.submit([&] { ++ran; }), submit_status::stopped);
        EXPECT_TRUE(eventually([&] { return other_asked.load(); }));
        others_may_end.open();
        EXPECT_TRUE(eventually([&] { return other_ended.load(); }));
        EXPECT_EQ(ran, 0);
        EXPECT_EQ(discarded, 10);
    }
}

TEST(Lifecycle, a_pool_may_be_owned_by_its_own_job) {
    // The last owner is the callable: the pool goes with it, on the pool's own thread.
    for (int round = 0; round < 50; ++round) {
        // Shared, for nothing tells when the job has let go of it.
        const auto until = std::make_shared<gate>();
        std::weak_ptr<task_pool> watched;
        {
            auto pool = std::make_shared<task_pool>(options{.threads = 2});
            watched = pool;
            ASSERT_TRUE(pool->submit("key", [pool, until] { until->wait(); }));
        }
        EXPECT_FALSE(watched.expired());
        until->open();
        EXPECT_TRUE(eventually([&] { return watched.expired(); }));
    }
}

TEST(Lifecycle, a_hold_may_outlive_the_pool_that_its_own_job_destroyed) {
    held kept;
    gate submitted, destroyed;
    auto pool = std::make_unique<task_pool>(options{.threads = 2});
    ASSERT_TRUE(pool->submit("held", [&](const job_context& context) { kept = context.hold(); }));
    ASSERT_TRUE(eventually([&] { return pool->stats().suspended_lanes == 1; }));
    ASSERT_TRUE(pool->submit("key", [&] {
        submitted.wait(); // a pool must not be destroyed while somebody submits
        pool.reset();
        destroyed.open();
    }));
    submitted.open();
    destroyed.wait();
    EXPECT_TRUE(kept.stop_requested());
    kept.release();
}

#if defined(__linux__)
/// How many threads of this process bear a name that begins so.
int threads_named(const std::string& prefix) {
    int count = 0;
    std::error_code error;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", error)) {
        std::ifstream file(task.path() / "comm"); // fails when the thread has just ended
        std::string name;
        std::getline(file, name);
        count += name.starts_with(prefix);
    }
    return count;
}

// I-PARK-2
TEST(Lifecycle, no_thread_is_left_behind) {
    {
        task_pool pool({.threads = 3, .name = "leftover"});
        for (int i = 0; i < 10; ++i)
            ASSERT_TRUE(pool.submit(std::to_string(i), [] {}));
        pool.drain();
        EXPECT_GE(threads_named("leftover"), 1);
    }
    // The system may show a thread that has been joined for a moment.
    EXPECT_TRUE(eventually([&] { return threads_named("leftover") == 0; }));
    gate submitted, destroyed;
    auto pool = std::make_unique<task_pool>(options{.threads = 3, .name = "leftover"});
    ASSERT_TRUE(pool->submit("key", [&] {
        submitted.wait(); // a pool must not be destroyed while somebody submits
        pool.reset();
        destroyed.open();
    }));
    submitted.open();
    destroyed.wait();
    EXPECT_TRUE(eventually([&] { return threads_named("leftover") == 0; }));
}

TEST(Lifecycle, threads_are_named_as_far_as_the_system_allows) {
    const auto name_in = [](const std::string& pool_name) {
        task_pool pool({.threads = 1, .name = pool_name});
        return pool
            .async("key",
                   [] {
                       std::array<char, 64> name{};
                       pthread_getname_np(pthread_self(), name.data(), name.size());
                       return std::string(name.data());
                   })
            .get();
    };
    const auto name = name_in("mine");
    EXPECT_TRUE(name.starts_with("mine-")) << name;
    EXPECT_TRUE(name.size() > 5 && std::isdigit(static_cast<unsigned char>(name[5]))) << name;
    const auto cut = name_in("a name beyond what the system takes");
    EXPECT_TRUE(cut.starts_with("a name b")) << cut;
    EXPECT_LE(cut.size(), 15U);
    EXPECT_TRUE(std::isdigit(static_cast<unsigned char>(cut.back()))) << cut;
}

TEST(Lifecycle, all_its_threads_block_all_signals) {
    std::latch both(2);
    task_pool pool({.threads = 2, .name = "silent"});
    for (const auto* key : {"a", "b"}) {
        ASSERT_TRUE(pool.submit(key, [&] {
            both.arrive_and_wait();
            sigset_t blocked;
            ASSERT_EQ(pthread_sigmask(SIG_SETMASK, nullptr, &blocked), 0);
            for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGCHLD,
                                     SIGCONT, SIGTSTP, SIGWINCH, SIGIO})
                EXPECT_EQ(sigismember(&blocked, signal), 1) << signal;
        }));
    }
    pool.drain();
    // The housekeeper, too, which no job can ask.
    int seen = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::ifstream comm(task.path() / "comm");
        std::string name;
        std::getline(comm, name);
        if (!name.starts_with("silent"))
            continue;
        ++seen;
        std::ifstream status(task.path() / "status");
        for (std::string line; std::getline(status, line);) {
            if (line.starts_with("SigBlk:")) {
                const auto mask = std::stoull(line.substr(7), nullptr, 16);
                for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGALRM, SIGCHLD})
                    EXPECT_NE(mask & (1ULL << (signal - 1)), 0U) << name << " " << signal;
            }
        }
    }
    EXPECT_GE(seen, 2);
}

TEST(Lifecycle, as_many_threads_as_the_affinity_mask_allows_which_they_inherit) {
    cpu_set_t before, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &before))
        ++cpu;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    {
        std::atomic<int> running = 0, most = 0, wrong = 0;
        task_pool pool; // threads = 0
        for (int i = 0; i < 4; ++i) {
            ASSERT_TRUE(pool.submit(std::to_string(i), [&] {
                most = std::max(most.load(), ++running);
                cpu_set_t mine;
                wrong += sched_getaffinity(0, sizeof mine, &mine) != 0 || !CPU_EQUAL(&mine, &one);
                burn(5ms);
                --running;
            }));
        }
        pool.drain();
        EXPECT_EQ(most, 1);
        EXPECT_EQ(wrong, 0);
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}
#endif

#if defined(__unix__) || defined(__APPLE__)
TEST(Lifecycle, the_child_of_a_fork_is_refused_and_may_destroy_the_pool) {
    // The pool is busy at every fork, so some of its locks are held by threads that the child does not have.
    auto pool = std::make_unique<task_pool>(options{.threads = 2});
    auto lane = pool->lane("handle");
    std::atomic<bool> done = false;
    std::atomic<int> ran = 0;
    std::thread producer([&] {
        for (int i = 0; !done; ++i) {
            EXPECT_TRUE(pool->submit(std::to_string(i % 100), [&] { ++ran; }));
            EXPECT_TRUE(lane.submit([&] { ++ran; }));
        }
    });
    for (int round = 0; round < 30; ++round) {
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            alarm(20); // a child that hangs dies of it
            bool right = pool->submit("5", [] {}) == submit_status::stopped;
            right = right && pool->try_submit("new", [] {}) == submit_status::stopped;
            right = right && lane.submit([] {}) == submit_status::stopped;
            pool.reset();
            right = right && lane.submit([] {}) == submit_status::stopped;
            _exit(right ? 0 : 1);
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
    }
    done = true;
    producer.join();
    // The parent has noticed nothing.
    const auto accepted = pool->stats().accepted;
    pool->drain();
    EXPECT_EQ(pool->stats().finished, accepted);
}

TEST(Lifecycle, the_child_of_a_fork_in_a_handler_comes_to_the_end_of_its_call) {
    if (sanitized)
        GTEST_SKIP() << "their allocators do not survive a fork at a moment when another thread has one of their locks";
    std::latch begun(1);
    std::latch gate(1);
    pid_t child = -1;
    bool forks = false;
    task_pool pool({.threads = 2, .on_discard = [&](const discard&) {
                        if (!std::exchange(forks, false))
                            return;
                        child = fork();
                        if (child == 0)
                            alarm(20); // a child that hangs dies of it
                    }});
    pool.submit("a", [&] {
        begun.count_down();
        gate.wait();
    });
    begun.wait();
    std::atomic<bool> done = false;
    std::thread other([&] { // has the shard's lock now and then
        while (!done) {
            static_cast<void>(pool.pause("a"));
            static_cast<void>(pool.resume("a"));
        }
    });
    for (int round = 0; round < 200; ++round) {
        if (round % 2 == 0)
            pool.submit_together({"a"}, [] {});
        else
            static_cast<void>(pool.submit_after(1h, "a", [] {}));
        child = -1;
        forks = true;
        pool.cancel("a");
        if (child == 0)
            _exit(0);
        int status = 0;
        const bool ended = child > 0 && waitpid(child, &status, 0) == child;
        EXPECT_TRUE(ended && WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
        if (HasFailure())
            break;
    }
    done = true;
    other.join();
    gate.count_down();
}

TEST(Lifecycle, a_new_pool_works_in_the_child_of_a_fork) {
#if defined(TASKPOOL_TEST_TSAN)
    GTEST_SKIP() << "ThreadSanitizer lets the child of a process with threads start none";
#endif
    // AddressSanitizer's allocator does not survive a fork at a moment when another thread has one of its locks, as a
    // thread has that begins: there the parent's pool has no threads.
    std::optional<task_pool> of_the_parent;
    std::optional<manual_pool> without_threads;
    if (sanitized)
        without_threads.emplace();
    else
        of_the_parent.emplace(options{.threads = 1});
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        alarm(20);
        std::atomic<int> ran = 0;
        {
            task_pool pool({.threads = 2});
            for (int i = 0; i < 100; ++i)
                pool.submit(std::to_string(i), [&] { ++ran; });
            pool.drain();
        }
        _exit(ran == 100 ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

/// Runs a program of tests/core/helpers; its status and what it wrote to stdout.
std::optional<std::pair<int, std::string>> run_helper(const std::string& name, const std::string& argument) {
    std::string folder;
#if defined(TASKPOOL_HELPERS_DIR)
    folder = TASKPOOL_HELPERS_DIR;
#endif
    if (const char* set = std::getenv("TASKPOOL_HELPERS_DIR"))
        folder = set;
    if (folder.empty())
        return std::nullopt;
    std::FILE* output = popen(("'" + folder + "/" + name + "' '" + argument + "'").c_str(), "r");
    if (output == nullptr)
        return std::nullopt;
    std::string text;
    for (int c = std::fgetc(output); c != EOF; c = std::fgetc(output))
        text.push_back(static_cast<char>(c));
    return std::pair(pclose(output), text);
}

TEST(Lifecycle, a_static_pool_ends_with_the_program) {
    for (const auto* how : {"return", "exit"}) {
        const auto ended = run_helper("static_pool", how);
        if (!ended)
            GTEST_SKIP() << "TASKPOOL_HELPERS_DIR is not set";
        EXPECT_EQ(ended->first, 0) << how;
        EXPECT_EQ(ended->second, "all accounted for\n") << how;
    }
}

TEST(Lifecycle, a_job_may_end_the_program_and_with_it_a_static_pool) {
    const auto ended = run_helper("static_pool", "exit in a job");
    if (!ended)
        GTEST_SKIP() << "TASKPOOL_HELPERS_DIR is not set";
    EXPECT_EQ(ended->first, 0);
}
#endif

// --- Keys ------------------------------------------------------------------------------------------------------------

TEST(Lifecycle, keys_may_have_no_bytes_or_a_mebibyte) {
    const std::string large(std::size_t{1} << 20, 'L');
    std::string almost = large;
    almost.back() = 'M';
    task_pool pool({.threads = 2});
    std::array<std::vector<int>, 3> ran;
    std::size_t which = 0;
    for (const auto& key : {std::string(), large, almost}) {
        auto& of_key = ran[which++];
        auto lane = pool.lane(key);
        EXPECT_EQ(lane.key(), key);
        for (int i = 0; i < 50; ++i) {
            ASSERT_TRUE(pool.submit(key, [&of_key, &key = lane.key(), i](const job_context& context) {
                of_key.push_back(context.key() == key ? i : -1);
            }));
        }
        pool.drain(key);
    }
    for (const auto& of_key : ran)
        EXPECT_EQ(of_key, count_up(50));
}

TEST(Lifecycle, a_job_may_submit_a_million_others_to_as_many_keys) {
    constexpr int many = sanitized ? 100'000 : 1'000'000;
    std::atomic<int> ran = 0;
    basic_task_pool<int> pool({.threads = 2, .pool_capacity = many});
    ASSERT_TRUE(pool.submit(-1, [&] {
        for (int key = 0; key < many; ++key)
            EXPECT_EQ(pool.submit(key, [&] { ran.fetch_add(1, std::memory_order_relaxed); }), submit_status::accepted);
    }));
    pool.drain();
    EXPECT_EQ(ran, many);
    EXPECT_EQ(pool.stats().finished, many + 1U);
}

TEST(Lifecycle, a_job_may_submit_a_million_others_to_a_few_keys_waiting_for_room) {
    constexpr int many = sanitized ? 100'000 : 1'000'000;
    std::atomic<int> ran = 0;
    basic_task_pool<int> pool({.threads = 1});
    ASSERT_TRUE(pool.submit(-1, [&] {
        for (int i = 0; i < many; ++i)
            EXPECT_EQ(pool.submit(i % 8, [&] { ran.fetch_add(1, std::memory_order_relaxed); }),
                      submit_status::accepted);
    }));
    pool.drain();
    EXPECT_EQ(ran, many);
}

TEST(Lifecycle, a_job_that_submits_a_million_others_to_its_own_key_is_told_when_it_is_full) {
    constexpr int many = sanitized ? 100'000 : 1'000'000;
    constexpr int tries = many / 10; // each of which is refused with a message that says why
    std::atomic<int> accepted = 0, refused = 0, ran = 0;
    std::atomic<int> all = 0;
    task_pool pool({.threads = 1});
    ASSERT_TRUE(pool.submit("key", [&] {
        for (int i = 0; i < tries; ++i) {
            const auto answer = pool.submit("key", [&] { ++ran; });
            accepted += answer == submit_status::accepted;
            refused += answer == submit_status::would_deadlock;
        }
    }));
    pool.drain();
    EXPECT_EQ(accepted, 100);
    EXPECT_EQ(refused, tries - 100);
    EXPECT_EQ(ran, 100);
    // With a lane that is wide enough it gets them all in.
    task_pool wide({.threads = 1, .lane_capacity = many});
    ASSERT_TRUE(wide.submit("key", [&] {
        for (int i = 0; i < many; ++i)
            EXPECT_TRUE(wide.submit("key", [&] { all.fetch_add(1, std::memory_order_relaxed); }));
    }));
    wide.drain();
    EXPECT_EQ(all, many);
}

/// A key of the user's own, with hash and equality of its own: of two fields only one counts.
struct order_id {
    int customer = 0;
    std::string note;
};
struct by_customer {
    std::size_t operator()(const order_id& id) const noexcept { return static_cast<std::size_t>(id.customer) * 31; }
};
struct same_customer {
    bool operator()(const order_id& a, const order_id& b) const noexcept { return a.customer == b.customer; }
};

TEST(Lifecycle, keys_may_be_of_any_type_with_a_hash_and_an_equality) {
    std::vector<int> ran;
    std::atomic<int> others = 0;
    basic_task_pool<order_id, by_customer, same_customer> pool({.threads = 2});
    for (int i = 0; i < 500; ++i) {
        ASSERT_TRUE(pool.submit({1, "note " + std::to_string(i)}, [&ran, i] { ran.push_back(i); }));
        ASSERT_TRUE(pool.submit({2 + i % 5, ""}, [&] { ++others; }));
    }
    pool.drain(order_id{1, "any"});
    pool.drain();
    EXPECT_EQ(ran, count_up(500));
    EXPECT_EQ(others, 500);
    EXPECT_EQ(pool.lane({7, "kept"}).key().note, "kept");
}

TEST(Lifecycle, keys_may_be_numbers_and_pointers) {
    basic_task_pool<int> numbers({.threads = 2});
    std::vector<int> ran;
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(numbers.submit(
            7, [&ran, i](const basic_job_context<int>& context) { ran.push_back(i + context.key() - 7); }));
    numbers.drain(7);
    EXPECT_EQ(ran, count_up(100));
    std::array<int, 10> objects{};
    basic_task_pool<int*> pointers({.threads = 2});
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(pointers.submit(&objects[static_cast<std::size_t>(i % 10)],
                                    [](const basic_job_context<int*>& context) { ++*context.key(); }));
    pointers.drain();
    for (const int count : objects)
        EXPECT_EQ(count, 10);
}

/// Hash and equality with state of their own.
struct caseless {
    bool on = true;
    static char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
    std::size_t operator()(std::string_view key) const noexcept {
        std::size_t hash = 7;
        for (const char c : key)
            hash = hash * 31 + static_cast<unsigned char>(on ? lower(c) : c);
        return hash;
    }
    bool operator()(std::string_view a, std::string_view b) const noexcept {
        return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                          [&](char x, char y) { return on ? lower(x) == lower(y) : x == y; });
    }
};

TEST(Lifecycle, hash_and_equality_may_have_state) {
    for (const bool on : {false, true}) {
        gate until;
        basic_task_pool<std::string, caseless, caseless> pool({.threads = 2}, caseless{on}, caseless{on});
        const opener at_end(until);
        occupy(pool, "Key", until);
        ASSERT_TRUE(pool.submit("KEY", [&] { until.wait(); }));
        EXPECT_EQ(pool.active_keys(), on ? 1U : 2U);
    }
}

struct alignas(128) aligned_key {
    std::uint64_t value = 0;
    friend bool operator==(const aligned_key& a, const aligned_key& b) noexcept { return a.value == b.value; }
    struct hash {
        std::size_t operator()(const aligned_key& key) const noexcept { return key.value; }
    };
};

TEST(Lifecycle, keys_of_any_alignment_are_kept_aligned) {
    std::atomic<int> wrong = 0;
    basic_task_pool<aligned_key, aligned_key::hash> pool({.threads = 2});
    for (std::uint64_t i = 0; i < 200; ++i) {
        ASSERT_TRUE(pool.submit(aligned_key{i}, [&wrong, i](const basic_job_context<aligned_key>& context) {
            wrong += reinterpret_cast<std::uintptr_t>(&context.key()) % alignof(aligned_key) != 0;
            wrong += context.key().value != i;
        }));
    }
    pool.drain();
    EXPECT_EQ(wrong, 0);
}

/// Throws when it is copied, as often as told to.
struct throwing_key {
    int value = 0;
    static inline int throw_copies = 0;
    explicit throwing_key(int v) : value(v) {}
    throwing_key(const throwing_key& other) : value(other.value) {
        if (throw_copies > 0 && throw_copies-- > 0)
            throw std::runtime_error("copy of a key");
    }
    throwing_key& operator=(const throwing_key&) = default;
    friend bool operator==(const throwing_key& a, const throwing_key& b) noexcept { return a.value == b.value; }
    struct hash {
        std::size_t operator()(const throwing_key& key) const noexcept { return static_cast<std::size_t>(key.value); }
    };
};

TEST(Lifecycle, a_key_whose_copy_throws_leaves_the_pool_as_it_was) {
    basic_task_pool<throwing_key, throwing_key::hash> pool({.autostart = false});
    auto job = [owned = std::make_unique<int>(1)] { (void)owned; };
    const throwing_key key(1);
    throwing_key::throw_copies = 1;
    EXPECT_THROW(pool.submit(key, std::move(job)), std::runtime_error);
    EXPECT_EQ(pool.stats().accepted, 0U);
    EXPECT_EQ(pool.stats().waiting, 0U);
    EXPECT_EQ(pool.active_keys(), 0U);
    throwing_key::throw_copies = 1;
    EXPECT_THROW(pool.lane(key), std::runtime_error);
    throwing_key::throw_copies = 0;
    ASSERT_TRUE(pool.submit(key, std::move(job)));
    pool.start();
    pool.drain();
    EXPECT_EQ(pool.stats().finished, 1U);
}

TEST(Lifecycle, a_key_that_has_work_is_not_copied_by_a_submit) {
    counted_pool pool({.autostart = false});
    const counted_key key(1);
    ASSERT_TRUE(pool.submit(key, [] {}));
    const auto before = counted_key::copies.load();
    for (int i = 0; i < 50; ++i)
        ASSERT_TRUE(pool.submit(key, [] {}));
    EXPECT_EQ(counted_key::copies, before);
}

} // namespace
} // namespace taskpool::testing
