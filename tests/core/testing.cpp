// SPDX-License-Identifier: Apache-2.0
// The watchdog of the tests, and an operator new that counts.
#include "testing.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>

#if defined(__clang__) && (defined(TASKPOOL_TEST_TSAN) || defined(TASKPOOL_TEST_ASAN))
#define TASKPOOL_TEST_CLANG_SANITIZER 1
#include <sanitizer/allocator_interface.h>
#endif

namespace taskpool::testing {

namespace {

/// Aborts the process when a test runs longer than it may. One for the whole binary; its thread belongs to no test.
class watchdog final : public ::testing::EmptyTestEventListener {
  public:
    void allow(std::chrono::seconds time) {
        const std::lock_guard lock(mutex_);
        end_ = steady::now() + time;
        changed_.notify_all();
    }

  private:
    void OnTestProgramStart(const ::testing::UnitTest&) override {
        std::unique_lock lock(mutex_);
        if (thread_.joinable())
            return;
        thread_ = std::thread([this] { watch(); });
        // While a thread begins, it may hold a lock of a sanitizer's allocator: no test is to fork just then.
        changed_.wait(lock, [&] { return watches_; });
    }
    void OnTestStart(const ::testing::TestInfo& test) override {
        {
            const std::lock_guard lock(mutex_);
            name_ = std::string(test.test_suite_name()) + "." + test.name();
        }
        allow(sanitized ? 110s : 60s);
    }
    void OnTestEnd(const ::testing::TestInfo&) override {
        const std::lock_guard lock(mutex_);
        end_ = steady::time_point::max();
    }
    void OnTestProgramEnd(const ::testing::UnitTest&) override {
        {
            const std::lock_guard lock(mutex_);
            ended_ = true;
            changed_.notify_all();
        }
        if (thread_.joinable())
            thread_.join();
    }

    void watch() {
        std::unique_lock lock(mutex_);
        watches_ = true;
        changed_.notify_all();
        while (!ended_) {
            if (end_ == steady::time_point::max())
                changed_.wait(lock);
            else if (changed_.wait_until(lock, end_) == std::cv_status::timeout && steady::now() >= end_) {
                std::fprintf(stderr, "\nwatchdog: %s hangs\n", name_.c_str());
                std::abort();
            }
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    steady::time_point end_ = steady::time_point::max();
    std::string name_;
    bool watches_ = false;
    bool ended_ = false;
    std::thread thread_;
};

// gtest owns it and deletes it when the program ends.
watchdog& the_watchdog = []() -> watchdog& {
    auto* made = new watchdog;
    ::testing::UnitTest::GetInstance()->listeners().Append(made);
    return *made;
}();

thread_local std::uint64_t allocated = 0;

#if defined(TASKPOOL_TEST_CLANG_SANITIZER)
// Clang's sanitizers bring operators of their own, which cannot be replaced; but they tell of each allocation.
[[maybe_unused]] const int hooks = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t) { ++allocated; }, [](const volatile void*) {});
#else
void* count_and_allocate(std::size_t size, std::size_t alignment) {
    ++allocated;
    size = std::max<std::size_t>(size, 1);
    void* memory = alignment <= alignof(std::max_align_t)
                       ? std::malloc(size)
                       : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (memory == nullptr)
        throw std::bad_alloc();
    return memory;
}
#endif

} // namespace

void allow_time(std::chrono::seconds time) { the_watchdog.allow(time); }

std::uint64_t allocations_of_this_thread() noexcept { return allocated; }

} // namespace taskpool::testing

#if !defined(TASKPOOL_TEST_CLANG_SANITIZER)
// The forms of the standard library for arrays call these; so does the one without exceptions, but AddressSanitizer's
// does not.
void* operator new(std::size_t size) { return taskpool::testing::count_and_allocate(size, 1); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    try {
        return operator new(size);
    } catch (...) {
        return nullptr;
    }
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    return taskpool::testing::count_and_allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
#endif
