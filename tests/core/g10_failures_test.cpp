// SPDX-License-Identifier: Apache-2.0
// G10: a job that throws ends that job alone; its exception goes to its future if it has one, else to the failure
// handler, and its lane goes on.
#include "testing.hpp"

#include <cstdio>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace taskpool::testing {
namespace {

std::string what(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& known) {
        return known.what();
    } catch (int number) {
        return "int " + std::to_string(number);
    } catch (...) {
        return "something else";
    }
}

using report = std::pair<std::string, std::string>;

/// A pool that writes its failures down.
options reporting(journal<report>& reports, unsigned threads = 2) {
    return {.threads = threads, .on_failure = [&reports](const failure& job) {
                reports.add({std::string(job.key), what(job.error)});
            }};
}

TEST(G10_failures, a_job_that_throws_ends_itself_alone) {
    journal<report> reports;
    journal<int> ran;
    task_pool pool(reporting(reports));
    for (int i = 0; i < 10; ++i) {
        ASSERT_TRUE(pool.submit("key", [&, i] {
            if (i % 3 == 1)
                throw std::runtime_error("number " + std::to_string(i));
            ran.add(i);
        }));
    }
    pool.drain();
    EXPECT_EQ(ran.entries(), (std::vector{0, 2, 3, 5, 6, 8, 9}));
    EXPECT_EQ(reports.entries(), (std::vector<report>{{"key", "number 1"}, {"key", "number 4"}, {"key", "number 7"}}));
    EXPECT_EQ(pool.stats().failed, 3U);
    EXPECT_EQ(pool.stats().finished, 10U);
}

TEST(G10_failures, anything_may_be_thrown) {
    journal<report> reports;
    task_pool pool(reporting(reports));
    ASSERT_TRUE(pool.submit("key", [] { throw 42; }));
    ASSERT_TRUE(pool.submit("key", [] { throw std::string("text"); }));
    pool.drain();
    EXPECT_EQ(reports.entries(), (std::vector<report>{{"key", "int 42"}, {"key", "something else"}}));
}

TEST(G10_failures, the_handler_gets_the_key_as_text) {
    journal<report> reports;
    basic_task_pool<int> pool(reporting(reports));
    ASSERT_TRUE(pool.submit(-17, [] { throw 1; }));
    pool.drain();
    EXPECT_EQ(reports.entries(), (std::vector<report>{{"-17", "int 1"}}));
}

TEST(G10_failures, an_exception_with_a_future_goes_there_and_nowhere_else) {
    journal<report> reports;
    task_pool pool(reporting(reports));
    auto broken = pool.async("key", []() -> int { throw std::out_of_range("too far"); });
    auto whole = pool.async("key", [] { return 3; });
    EXPECT_THROW(broken.get(), std::out_of_range);
    EXPECT_EQ(whole.get(), 3);
    pool.drain();
    EXPECT_EQ(reports.size(), 0U);
    EXPECT_EQ(pool.stats().failed, 1U);
    EXPECT_EQ(pool.stats().finished, 2U);
}

TEST(G10_failures, a_handler_that_throws_is_cut_short) {
    std::atomic<int> called = 0, ran = 0;
    task_pool pool({.threads = 2, .on_failure = [&](const failure&) {
                        ++called;
                        throw std::runtime_error("from the handler");
                    }});
    for (int i = 0; i < 5; ++i) {
        ASSERT_TRUE(pool.submit("key", [] { throw 1; }));
        ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
    }
    pool.drain();
    EXPECT_EQ(called, 5);
    EXPECT_EQ(ran, 5);
    EXPECT_EQ(pool.stats().failed, 5U);
}

/// Its destructor throws, once it has not been moved from.
struct throws_at_its_end {
    explicit throws_at_its_end(std::atomic<int>& where) : ran(&where) {}
    throws_at_its_end(throws_at_its_end&& other) noexcept : ran(std::exchange(other.ran, nullptr)) {}
    ~throws_at_its_end() noexcept(false) {
        if (ran != nullptr)
            throw std::runtime_error("from a destructor");
    }
    void operator()() { ++*ran; }
    std::atomic<int>* ran;
};

TEST(G10_failures, an_exception_from_a_callable_s_destructor_is_a_failure_too) {
    journal<report> reports;
    std::atomic<int> ran = 0;
    task_pool pool(reporting(reports));
    for (int i = 0; i < 5; ++i)
        ASSERT_TRUE(pool.submit("key", throws_at_its_end(ran)));
    // The same in a box.
    ASSERT_TRUE(pool.submit("key", [large = std::array<char, 100>(), last = throws_at_its_end(ran)]() mutable {
        last.ran->fetch_add(1 + large[0]);
    }));
    ASSERT_TRUE(pool.submit("key", [&] { ++ran; }));
    pool.drain();
    EXPECT_EQ(ran, 7);
    EXPECT_EQ(reports.entries(), std::vector<report>(6, {"key", "from a destructor"}));
    EXPECT_EQ(pool.stats().finished, 7U);
    EXPECT_EQ(pool.stats().failed, 6U);
}

TEST(G10_failures, an_exception_from_the_destructor_of_a_discarded_callable_harms_nobody) {
    journal<report> reports;
    std::atomic<int> ran = 0;
    task_pool pool({.autostart = false, .on_failure = [&](const failure& job) {
                        reports.add({std::string(job.key), what(job.error)});
                    }});
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit("key", throws_at_its_end(ran)));
    EXPECT_EQ(pool.cancel("key"), 3U);
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(pool.submit("other", throws_at_its_end(ran)));
    EXPECT_EQ(pool.stop().discarded, 6U);
    EXPECT_EQ(ran, 0);
    EXPECT_EQ(reports.size(), 6U);
}

TEST(G10_failures, jobs_that_throw_on_many_keys_harm_no_other) {
    journal<report> reports;
    std::atomic<int> ran = 0;
    basic_task_pool<int> pool(reporting(reports, 4));
    for (int i = 0; i < 20'000; ++i) {
        ASSERT_TRUE(pool.submit(i % 321, [&ran, i] {
            if (i % 10 == 0)
                throw std::runtime_error("tenth");
            ++ran;
        }));
    }
    pool.drain();
    EXPECT_EQ(ran, 18'000);
    EXPECT_EQ(reports.size(), 2'000U);
    EXPECT_EQ(pool.stats().failed, 2'000U);
}

#if defined(__unix__) || defined(__APPLE__)
/// What is written to stderr while it lives.
class stderr_capture {
  public:
    stderr_capture() : file_(std::tmpfile()), before_(dup(STDERR_FILENO)) {
        std::fflush(stderr);
        dup2(fileno(file_), STDERR_FILENO);
    }
    ~stderr_capture() {
        restore();
        std::fclose(file_);
    }
    std::string end() {
        restore();
        std::rewind(file_);
        std::string text;
        for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_))
            text.push_back(static_cast<char>(c));
        return text;
    }

  private:
    void restore() {
        if (before_ >= 0) {
            std::fflush(stderr);
            dup2(before_, STDERR_FILENO);
            close(before_);
            before_ = -1;
        }
    }
    std::FILE* file_;
    int before_;
};

TEST(G10_failures, without_a_handler_one_line_on_stderr_tells_the_key_and_what) {
    stderr_capture captured;
    {
        task_pool pool({.threads = 1});
        ASSERT_TRUE(pool.submit("the key", [] { throw std::runtime_error("the reason"); }));
        pool.drain();
        EXPECT_EQ(pool.stats().failed, 1U);
    }
    const auto text = captured.end();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
    EXPECT_TRUE(text.ends_with('\n')) << text;
    EXPECT_NE(text.find("the key"), std::string::npos) << text;
    EXPECT_NE(text.find("the reason"), std::string::npos) << text;
}

TEST(G10_failures, without_a_handler_one_line_tells_of_what_is_no_exception) {
    stderr_capture captured;
    {
        task_pool pool({.threads = 1});
        ASSERT_TRUE(pool.submit("the key", [] { throw 42; }));
        pool.drain();
    }
    const auto text = captured.end();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
    EXPECT_NE(text.find("the key"), std::string::npos) << text;
}
#endif

} // namespace
} // namespace taskpool::testing
