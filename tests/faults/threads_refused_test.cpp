// SPDX-License-Identifier: Apache-2.0
// What happens when the system gives no thread: pthread_create is replaced by one that refuses when it is told to. The
// pool works with what it has, goes on trying, and says so in its figures; with no thread at all it is not made.
#if defined(__linux__)

#include <atomic>
#include <cerrno>
#include <chrono>
#include <latch>
#include <string>
#include <system_error>
#include <thread>

#include <dlfcn.h>
#include <pthread.h>

#include <gtest/gtest.h>

#include <taskpool/taskpool.hpp>

#include "../core/testing.hpp"

#if !defined(TASKPOOL_TEST_SANITIZER) // the sanitizers have replaced it themselves
namespace {
std::atomic<int> threads_left = 1'000'000; // that may still be made
std::atomic<int> asked = 0;
} // namespace

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*),
                              void* argument) {
    using function = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
    static const auto real = reinterpret_cast<function>(dlsym(RTLD_NEXT, "pthread_create"));
    ++asked;
    if (threads_left.fetch_sub(1) <= 0) {
        threads_left = 0;
        return EAGAIN;
    }
    return real(thread, attributes, body, argument);
}

namespace taskpool::testing {
namespace {

using namespace std::chrono_literals;

class threads_limit {
  public:
    explicit threads_limit(int count) { threads_left = count; }
    ~threads_limit() { threads_left = 1'000'000; }
};

TEST(Fault_threads, without_any_the_constructor_says_so) {
    for (int threads = 0; threads < 2; ++threads) { // none, and one that is the keeper's
        const threads_limit limit(threads);
        EXPECT_THROW(task_pool({.threads = 2}), std::system_error);
    }
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2});
    ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
    pool.drain();
    EXPECT_EQ(ran, 1);
}

TEST(Fault_threads, start_may_be_tried_again_and_loses_no_job) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 2, .autostart = false});
    for (int i = 0; i < 100; ++i)
        ASSERT_TRUE(pool.submit(std::to_string(i % 7), [&] { ++ran; }));
    for (int threads = 0; threads < 2; ++threads) {
        const threads_limit limit(threads);
        EXPECT_THROW(pool.start(), std::system_error);
    }
    EXPECT_EQ(ran, 0);
    EXPECT_EQ(pool.stats().waiting, 100U);
    EXPECT_GE(pool.stats().threads_refused, 1U);
    pool.start();
    pool.drain();
    EXPECT_EQ(ran, 100);
}

TEST(Fault_threads, a_pool_that_could_not_be_started_ends) {
    std::atomic<int> discarded = 0;
    {
        task_pool pool({.threads = 1, .autostart = false, .on_discard = [&](const discard&) { ++discarded; }});
        for (int i = 0; i < 10; ++i)
            ASSERT_TRUE(pool.submit("key", [] {}));
        const threads_limit limit(0);
        EXPECT_THROW(pool.start(), std::system_error);
    }
    EXPECT_EQ(discarded, 10);
}

TEST(Fault_threads, jobs_that_must_run_need_one_and_stop_says_so) {
    std::atomic<int> ran = 0;
    task_pool pool({.threads = 1, .autostart = false});
    ASSERT_TRUE(pool.submit("key", [&] { ++ran; }, {.on_stop = stop_action::run}));
    {
        const threads_limit limit(0);
        EXPECT_THROW(pool.stop(), std::system_error);
    }
    EXPECT_EQ(pool.stop().finished, 1U);
    EXPECT_EQ(ran, 1);
}

TEST(Fault_threads, it_works_with_what_it_has_and_takes_more_when_they_come) {
    std::atomic<int> ran = 0;
    std::latch both(2); // only two threads get past it
    threads_left = 2;
    task_pool pool({.threads = 4}); // the keeper and one
    EXPECT_EQ(pool.stats().threads, 1U);
    EXPECT_GE(pool.stats().threads_refused, 1U);
    for (int i = 0; i < 1000; ++i)
        ASSERT_TRUE(pool.submit(std::to_string(i % 30), [&] { ++ran; }));
    pool.drain();
    EXPECT_EQ(ran, 1000);
    for (int i = 0; i < 2; ++i) // the first blocks the only thread there is
        ASSERT_TRUE(pool.submit("waits" + std::to_string(i), [&] {
            const blocking_scope blocking;
            both.arrive_and_wait();
        }));
    const auto before = asked.load();
    EXPECT_TRUE(eventually([&] { return asked > before; })); // it asks for another, in vain
    threads_left = 1'000'000;
    pool.drain();
    EXPECT_GT(pool.stats().threads, 1U);
}

} // namespace
} // namespace taskpool::testing
#endif
#endif
