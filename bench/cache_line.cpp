// SPDX-License-Identifier: Apache-2.0
// What the machine takes for a cache line that another core has written: to take it by an atomic exchange, as who takes
// a lock does, and to read it while others are on their way; and for an exchange of a line that is one's own. That is
// what ../docs/performance.md holds the workloads against. Prints a line of JSON, in nanoseconds a line.
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>

namespace {

struct alignas(128) line { // two of 64 bytes: some processors fetch them in pairs
    std::atomic<std::uint64_t> value{0};
};

constexpr std::size_t lines_in_all = 128; // fit into any first-level cache
std::array<line, lines_in_all> lines;

/// Each line tells which is next, in an order that no prefetcher knows, and that comes to all of them (Knuth vol. 2,
/// 3.2.1.2, theorem A).
constexpr std::uint64_t after(std::uint64_t i) { return (i * 5 + 37) % lines_in_all; }

void write_all() {
    for (std::size_t i = 0; i < lines_in_all; ++i)
        lines[i].value.store(after(i), std::memory_order_relaxed); // relaxed: what counts is where the line is
}

/// One after the other: which is next, only the exchange tells.
std::uint64_t exchange_all() {
    std::uint64_t at = 0;
    for (std::size_t i = 0; i < lines_in_all; ++i)
        at = lines[at].value.exchange(after(at), std::memory_order_acquire); // as a lock does
    return at;
}

/// Several at once.
std::uint64_t read_all() {
    std::uint64_t sum = 0;
    std::uint64_t at = 0;
    for (std::size_t i = 0; i < lines_in_all; ++i, at = after(at))
        sum += lines[at].value.load(std::memory_order_relaxed); // relaxed: as above
    return sum;
}

std::atomic<std::uint64_t> sink; // so that nothing is left out

double ns_a_line(std::uint64_t (*what)()) {
    const auto begin = std::chrono::steady_clock::now();
    sink.store(what(), std::memory_order_relaxed); // relaxed: nobody reads it
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - begin;
    return time.count() / lines_in_all;
}

bool stay_on(std::size_t cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    return sched_setaffinity(0, sizeof only, &only) == 0;
}

/// The first and the last processor that this process may use; what they have in common, a virtual machine mostly does
/// not tell. None if there is only one, or it cannot be told.
std::optional<std::pair<std::size_t, std::size_t>> two_processors() {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2)
        return std::nullopt;
    std::pair<std::size_t, std::size_t> found{CPU_SETSIZE, 0};
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &allowed))
            found = {std::min(found.first, cpu), cpu};
    return found;
}

/// Has a thread on that processor write the lines. False if it could not be there.
bool write_on(std::size_t cpu) {
    bool is_there = false;
    std::thread([&] {
        is_there = stay_on(cpu);
        write_all();
    }).join();
    return is_there;
}

/// The median of some tries, in any of which a thread may lose its processor.
template <class Before>
double median(std::uint64_t (*what)(), Before before) {
    std::array<double, 101> tries{};
    for (double& each : tries) {
        before();
        each = ns_a_line(what);
    }
    std::nth_element(tries.begin(), tries.begin() + tries.size() / 2, tries.end());
    return tries[tries.size() / 2];
}

} // namespace

int main() {
    write_all();
    std::optional<std::pair<double, double>> of_other;
    if (const auto cpus = two_processors(); cpus && stay_on(cpus->first) && write_on(cpus->second)) {
        const auto write = [&] { write_on(cpus->second); };
        of_other = {median(exchange_all, write), median(read_all, write)};
    }
    std::printf(R"({"exchange_own_ns":%.3g)", median(exchange_all, [] {}));
    if (of_other)
        std::printf(R"(,"exchange_ns":%.3g,"read_ns":%.3g)", of_other->first, of_other->second);
    std::printf("}\n");
}
