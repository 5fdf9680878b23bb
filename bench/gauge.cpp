// SPDX-License-Identifier: Apache-2.0
// For gauge.py, which counts this program's instructions:
//     gauge WAY JOBS     submits so many 16-byte jobs to a pool of one worker, which then runs them, and prints how
//                        many allocations that took. WAY: `known` (all under one key), `new` (each under a key of its
//                        own) or `handle` (all through one handle).
//     gauge WAY steady   prints how many allocations a job costs that finds no other one waiting.
//     gauge made by      prints what the instructions depend on besides the sources.
#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <optional>
#include <string_view>
#include <vector>

#include <taskpool/taskpool.hpp>

namespace {
std::atomic<std::uint64_t> allocations = 0;

void* allocate(std::size_t size, std::size_t alignment) {
    allocations.fetch_add(1, std::memory_order_relaxed); // relaxed: read when the pool rests
    void* const at = alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__
                         ? std::malloc(size)
                         : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (at == nullptr)
        throw std::bad_alloc();
    return at;
}
} // namespace

void* operator new(std::size_t size) { return allocate(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment) {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* at) noexcept { std::free(at); }
void operator delete(void* at, std::size_t) noexcept { std::free(at); }
void operator delete(void* at, std::align_val_t) noexcept { std::free(at); }
void operator delete(void* at, std::size_t, std::align_val_t) noexcept { std::free(at); }

namespace {

struct job {
    std::uint64_t* ran;
    std::uint64_t number;
    void operator()() const noexcept { *ran += 1; }
};
static_assert(sizeof(job) == 16);

[[noreturn]] void wrong() {
    std::fputs("usage: gauge known|new|handle JOBS|steady\n", stderr);
    std::exit(2);
}

enum class way : std::uint8_t { known, fresh, handle };

way way_of(std::string_view text) {
    if (text == "known")
        return way::known;
    if (text == "new")
        return way::fresh;
    if (text == "handle")
        return way::handle;
    wrong();
}

/// So many texts are made for keys, whatever the number of jobs: their cost is no part of a difference.
constexpr std::size_t most_jobs = 30'000;

/// Keys of 11 bytes.
std::vector<std::array<char, 12>> texts(std::size_t count) {
    std::vector<std::array<char, 12>> keys(count);
    for (std::size_t i = 0; i < count; ++i)
        std::snprintf(keys[i].data(), keys[i].size(), "user-%06u", static_cast<unsigned>(i) % 1'000'000);
    return keys;
}

class gauge {
  public:
    gauge(way how, bool autostart)
        : keys_(texts(how == way::fresh ? most_jobs : 1)),
          pool_({.threads = 1, .lane_capacity = most_jobs, .autostart = autostart}) {
        if (how == way::handle)
            handle_ = pool_.lane(keys_[0].data());
    }

    void submit(std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            if (handle_)
                handle_->submit(job{&ran_, i});
            else
                pool_.submit(keys_[next_].data(), job{&ran_, i});
            if (++next_ == keys_.size())
                next_ = 0;
        }
    }
    void run() {
        pool_.start();
        pool_.drain();
    }
    std::uint64_t ran() const noexcept { return ran_; }

  private:
    std::vector<std::array<char, 12>> keys_;
    std::size_t next_ = 0;
    std::uint64_t ran_ = 0; // of one worker
    taskpool::task_pool pool_;
    std::optional<taskpool::task_pool::lane_handle> handle_;
};

int backlog(way how, std::size_t jobs) {
    gauge g(how, false);
    const auto before = allocations.load(std::memory_order_relaxed);
    g.submit(jobs);
    g.run();
    std::printf("%llu\n", static_cast<unsigned long long>(allocations.load(std::memory_order_relaxed) - before));
    return g.ran() == jobs ? 0 : 1;
}

int steady(way how) {
    gauge g(how, true);
    // A round may meet a sweep of the lanes, or a sample: the least is what its jobs cost. New keys allocate until
    // their table has forgotten some, whose memory they take.
    constexpr int rounds = 1'000, jobs = 25;
    std::uint64_t least = UINT64_MAX;
    for (int round = 0; round < rounds; ++round) {
        const auto before = allocations.load(std::memory_order_relaxed);
        for (int i = 0; i < jobs; ++i) {
            g.submit(1);
            g.run();
        }
        least = std::min(least, allocations.load(std::memory_order_relaxed) - before);
    }
    std::printf("%.2f\n", static_cast<double>(least) / jobs);
    return g.ran() == rounds * jobs ? 0 : 1;
}

int made_by() {
#if defined __clang__
    const char* const compiler = "clang";
#else
    const char* const compiler = "g++";
#endif
#if defined __x86_64__
    const char* const processor = "x86-64";
#elif defined __aarch64__
    const char* const processor = "AArch64";
#else
    const char* const processor = "another processor";
#endif
#if defined __GLIBC__
    std::printf("%s %s, glibc %d.%d, %s\n", compiler, __VERSION__, __GLIBC__, __GLIBC_MINOR__, processor);
#else
    std::printf("%s %s, another libc, %s\n", compiler, __VERSION__, processor);
#endif
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 3)
        wrong();
    const std::string_view text = argv[2];
    if (std::string_view(argv[1]) == "made" && text == "by")
        return made_by();
    const auto how = way_of(argv[1]);
    if (text == "steady")
        return steady(how);
    std::size_t jobs = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), jobs);
    if (error != std::errc() || end != text.data() + text.size() || jobs == 0 || jobs > most_jobs)
        wrong();
    return backlog(how, jobs);
}
