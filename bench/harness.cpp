// SPDX-License-Identifier: Apache-2.0
#include "harness.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <numeric>
#include <random>
#include <thread>

#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

namespace bench {

// --- Verification ---------------------------------------------------------------------------------------------------

ledger::ledger(std::size_t keys, unsigned producers)
    : keys_(keys), stride_(producers == 1 ? 1 : (producers + 8) / 8 * 8), counters_(new counter[keys * stride_]()) {}

void ledger::wait(const std::vector<std::uint32_t>& expected, std::chrono::milliseconds patience) {
    for (std::size_t key = 0; key < keys_; ++key) {
        std::uint64_t before = 0;
        auto until = clock::now() + patience;
        // acquire: what else the jobs wrote is visible to who waited, as far as x86 has it; record() only counts.
        while (of(key)->load(std::memory_order_acquire) < expected[key]) {
            std::this_thread::sleep_for(std::chrono::microseconds(20));
            if (clock::now() < until)
                continue;
            const auto now = ran();
            if (now == before)
                return;
            before = now;
            until = clock::now() + patience;
        }
    }
}

std::uint64_t ledger::ran() const noexcept {
    std::uint64_t sum = 0;
    for (std::size_t key = 0; key < keys_; ++key)
        sum += counters_[key * stride_].load(std::memory_order_relaxed);
    return sum;
}

// --- Measuring ------------------------------------------------------------------------------------------------------

double seconds_of(clock::duration time) noexcept { return std::chrono::duration<double>(time).count(); }

void sleep_until(clock::time_point time) { std::this_thread::sleep_until(time); }

usage usage::now() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return {seconds(used.ru_utime) + seconds(used.ru_stime), static_cast<double>(used.ru_nvcsw)};
}

double usage::cpu_of_this_thread() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

double resident_bytes() {
    malloc_trim(0);
    double total = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> total >> resident;
    return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double peak_resident_bytes() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    return static_cast<double>(used.ru_maxrss) * 1024;
}

namespace {

std::uint64_t compute(std::uint64_t steps) noexcept {
    std::uint64_t value = steps;
    for (std::uint64_t i = 0; i < steps; ++i)
        value = value * 6364136223846793005U + 1442695040888963407U; // each step waits for the one before
    return value;
}

std::atomic<std::uint64_t> sink;

double nanoseconds_of(std::uint64_t steps) {
    double best = std::numeric_limits<double>::max();
    for (int trial = 0; trial < 20; ++trial) {
        const auto begin = clock::now();
        sink.store(compute(steps), std::memory_order_relaxed); // relaxed: nobody reads it
        best = std::min(best, seconds_of(clock::now() - begin) * 1e9);
    }
    return best;
}

} // namespace

void computation::calibrate() {
    constexpr std::uint64_t many = 100'000;
    steps_ = static_cast<std::uint64_t>(1'000.0 / nanoseconds_of(many) * static_cast<double>(many));
}

double computation::microseconds() { return nanoseconds_of(steps_ * 100) / 1e5; }

void computation::run() noexcept {
    if (compute(steps_) == 0) // it cannot be known not to be: so the steps are made
        sink.store(1, std::memory_order_relaxed);
}

// --- A run ----------------------------------------------------------------------------------------------------------

std::vector<std::uint32_t> draw_keys(const workload& what, std::size_t draws) {
    std::vector<std::uint32_t> keys(draws);
    std::mt19937_64 random(42);
    if (what.keys_come == order::uniform) {
        std::uniform_int_distribution<std::uint32_t> any(0, what.keys - 1);
        std::generate(keys.begin(), keys.end(), [&] { return any(random); });
        return keys;
    }
    std::vector<double> share(what.keys);
    for (std::uint32_t key = 0; key < what.keys; ++key)
        share[key] = 1 / std::pow(key + 1, 0.99);
    std::partial_sum(share.begin(), share.end(), share.begin());
    std::uniform_real_distribution<double> any(0, share.back());
    std::generate(keys.begin(), keys.end(), [&] {
        const auto at = std::lower_bound(share.begin(), share.end() - 1, any(random));
        return static_cast<std::uint32_t>(at - share.begin());
    });
    return keys;
}

namespace {

using namespace std::chrono_literals;

struct sizes {
    workload full;
    std::uint32_t quick_keys;
    std::uint64_t quick_jobs;
    std::chrono::milliseconds quick_sleep{};
};

// The twelve of docs/performance.md, and three more of which only the pool's own figures are wanted.
constexpr std::array table{
    sizes{{"hot1", 1, 1, 5'000'000}, 1, 300'000},
    sizes{{"spread", 1, 10'000, 5'000'000, order::uniform}, 10'000, 100'000},
    sizes{{"many", 1, 1'000'000, 5'000'000}, 20'000, 100'000},
    sizes{{"contended1", 4, 1, 4'000'000}, 1, 200'000},
    sizes{{"contended", 4, 10'000, 4'000'000, order::zipf}, 10'000, 100'000},
    sizes{{"chain", 1, 64, 5'000'000}, 64, 200'000},
    sizes{{"idle", 1, 1, 2'000}, 1, 100},
    sizes{{"blocking", 1, 1'000, 1'000, order::in_turn, 100ms}, 40, 40, 10ms},
    sizes{{"memory", 1, 1'000'000, 1'000'000, order::in_turn, 1s}, 50'000, 50'000, 1s},
    sizes{{"churn", 1, 5'000'000, 5'000'000}, 50'000, 50'000},
    sizes{{"head-of-line", 1, 64, 20'000, order::in_turn, 5ms}, 64, 1'000, 5ms},
    sizes{{"work", 1, 10'000, 1'000'000, order::uniform}, 10'000, 30'000},
    sizes{{"distinct", 1, 10'000'000, 10'000'000, order::in_turn, 1s}, 500'000, 500'000, 1s},
    sizes{{"together", 8, 100, 10'000'000, order::uniform}, 100, 100'000},
    sizes{{"asleep", 1, 1, 1'000, order::in_turn, 10s}, 1, 1'000, 1s},
};

[[noreturn]] void wrong(const std::string& what) {
    std::fprintf(stderr, "bench: %s\n", what.c_str());
    std::exit(2);
}

template <class T>
T number(std::string_view name, std::string_view text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value == 0)
        wrong(std::string(name) + " wants a number above 0, not '" + std::string(text) + "'");
    return value;
}

} // namespace

settings parse(int argc, char** argv) {
    settings how;
    bool quick = false;
    std::string_view name;
    std::uint64_t jobs = 0;
    std::uint32_t keys = 0;
    unsigned producers = 0;
    for (int i = 1; i < argc; ++i) {
        const std::string_view option = argv[i];
        if (option == "--quick") {
            quick = true;
            continue;
        }
        if (i + 1 == argc)
            wrong("no such option, or its value is missing: " + std::string(option));
        const std::string_view value = argv[++i];
        if (option == "--workload")
            name = value;
        else if (option == "--jobs")
            jobs = number<std::uint64_t>(option, value);
        else if (option == "--keys")
            keys = number<std::uint32_t>(option, value);
        else if (option == "--workers")
            how.workers = number<unsigned>(option, value);
        else if (option == "--producers")
            producers = number<unsigned>(option, value);
        else if (option == "--patience-ms")
            how.patience = std::chrono::milliseconds(number<unsigned>(option, value));
        else
            wrong("no such option: " + std::string(option));
    }
    const auto found = std::find_if(table.begin(), table.end(), [&](const sizes& s) { return s.full.name == name; });
    if (found == table.end())
        wrong(name.empty() ? "--workload is missing" : "no such workload: " + std::string(name));
    how.what = found->full;
    if (quick) {
        how.what.keys = found->quick_keys;
        how.what.jobs = found->quick_jobs;
        how.what.sleep = found->quick_sleep;
    }
    if (jobs != 0)
        how.what.jobs = jobs;
    if (keys != 0)
        how.what.keys = keys;
    if (producers != 0)
        how.what.producers = producers;
    // A sleep of a thread would last 50 microseconds longer than it was told.
    prctl(PR_SET_TIMERSLACK, 1);
    return how;
}

void report::latencies(std::vector<std::int64_t> samples) {
    std::sort(samples.begin(), samples.end());
    const auto quantile = [&](double q) {
        const auto at = static_cast<std::size_t>(q * static_cast<double>(samples.size()));
        return static_cast<double>(samples[std::min(at, samples.size() - 1)]) / 1e3;
    };
    metric("p50_us", quantile(0.5));
    metric("p99_us", quantile(0.99));
    metric("p999_us", quantile(0.999));
}

void report::print_and_exit() const {
    const auto disorder = ledger::disorder.load();
    const bool exact = ran_ == accepted_;
    std::printf(R"({"peer":"%s","workload":"%s",)", std::string(peer_).c_str(), std::string(how_.what.name).c_str());
    if (!version_.empty())
        std::printf(R"("version":"%s",)", version_.c_str());
    if (!not_run_.empty()) {
        std::printf("\"not_run\":\"%s\"}\n", std::string(not_run_).c_str());
    } else {
        std::printf(R"("workers":%u,"producers":%u,"keys":%u,"jobs":%llu,"ran":%llu,"out_of_order":%u,)", how_.workers,
                    how_.what.producers, how_.what.keys, static_cast<unsigned long long>(accepted_),
                    static_cast<unsigned long long>(ran_), disorder);
        std::printf(R"("exact":%s,"in_order":%s,"wall_s":%.6f,"cpu_s":%.6f,"metrics":{)", exact ? "true" : "false",
                    disorder == 0 ? "true" : "false", wall_, cpu_);
        const char* comma = "";
        for (const auto& [name, value] : metrics_) {
            std::printf(R"(%s"%s":%.6g)", comma, std::string(name).c_str(), value);
            comma = ",";
        }
        std::printf("}}\n");
    }
    std::fflush(stdout);
    std::_Exit(not_run_.empty() && (!exact || disorder != 0) ? 1 : 0);
}

} // namespace bench
