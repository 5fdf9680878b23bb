// SPDX-License-Identifier: Apache-2.0
// What the machine takes for a cache line that moves between two cores, and for an atomic exchange that nobody
// disturbs: the limits that ../docs/performance.md holds the workloads against. Prints a line of JSON, in nanoseconds.
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

using clock = std::chrono::steady_clock;

struct alignas(128) line { // two of 64 bytes: some processors fetch them in pairs
    std::atomic<std::uint64_t> value{0};
};

/// The first two processors that this process may use; false if there is only one.
bool two_processors(std::array<int, 2>& found) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return false;
    unsigned count = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && count < 2; ++cpu)
        if (CPU_ISSET(cpu, &allowed))
            found[count++] = cpu;
    return count == 2;
}

void stay_on(int cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    sched_setaffinity(0, sizeof only, &only);
}

double ns_each(clock::time_point begin, std::uint64_t count) {
    return std::chrono::duration<double, std::nano>(clock::now() - begin).count() / static_cast<double>(count);
}

/// What `here` takes on one processor while `there` runs on the other one.
template <class Here, class There>
double side_by_side(const std::array<int, 2>& cpus, std::uint64_t count, Here here, There there) {
    std::atomic<bool> ready{false};
    std::thread other([&] {
        stay_on(cpus[1]);
        ready.store(true, std::memory_order_release); // pairs with the acquire below: the other side is on its way
        there();
    });
    stay_on(cpus[0]);
    while (!ready.load(std::memory_order_acquire)) {
    }
    const auto begin = clock::now();
    here();
    const double each = ns_each(begin, count);
    other.join();
    return each;
}

/// A line goes to and fro, each side waiting for the other one's number: half of a round trip.
double moved(const std::array<int, 2>& cpus) {
    constexpr std::uint64_t trips = 20'000;
    line ball;
    // acquire and release pair with those of the other side.
    return side_by_side(
               cpus, trips,
               [&] {
                   for (std::uint64_t i = 0; i < trips; ++i) {
                       ball.value.store(2 * i + 1, std::memory_order_release);
                       while (ball.value.load(std::memory_order_acquire) != 2 * i + 2) {
                       }
                   }
               },
               [&] {
                   for (std::uint64_t i = 0; i < trips; ++i) {
                       while (ball.value.load(std::memory_order_acquire) != 2 * i + 1) {
                       }
                       ball.value.store(2 * i + 2, std::memory_order_release);
                   }
               }) /
           2;
}

/// Lines that one side fills and the other reads, a ring of them, so that several are on their way at once.
double streamed(const std::array<int, 2>& cpus) {
    constexpr std::uint64_t lines = 200'000;
    std::vector<line> ring(256);
    line read; // how many were
    return side_by_side(
        cpus, lines,
        [&] {
            for (std::uint64_t i = 0; i < lines; ++i) {
                // acquire and release pair with those of the writer: a line is filled before it is read, and read
                // before it is filled again.
                while (ring[i % ring.size()].value.load(std::memory_order_acquire) != i + 1) {
                }
                if (i % 32 == 31)
                    read.value.store(i + 1, std::memory_order_release);
            }
            read.value.store(lines, std::memory_order_release);
        },
        [&] {
            for (std::uint64_t i = 0; i < lines; ++i) {
                while (i >= read.value.load(std::memory_order_acquire) + ring.size()) {
                }
                ring[i % ring.size()].value.store(i + 1, std::memory_order_release);
            }
        });
}

double exchanged() {
    constexpr std::uint64_t count = 200'000;
    line own;
    const auto begin = clock::now();
    for (std::uint64_t i = 0; i < count; ++i)
        own.value.exchange(i, std::memory_order_acq_rel); // as a lock does
    return ns_each(begin, count);
}

/// The median of some tries of a few milliseconds: in one of them a thread may have lost its processor.
template <class Try>
double median(Try what) {
    std::array<double, 15> tries{};
    for (double& each : tries)
        each = what();
    std::nth_element(tries.begin(), tries.begin() + tries.size() / 2, tries.end());
    return tries[tries.size() / 2];
}

} // namespace

int main() {
    std::array<int, 2> cpus{};
    const bool two = two_processors(cpus);
    const double exchange = median(exchanged);
    std::printf(R"({"exchange_ns":%.4g)", exchange);
    if (two) {
        const double move = median([&] { return moved(cpus); });
        const double stream = median([&] { return streamed(cpus); });
        std::printf(R"(,"moved_ns":%.4g,"streamed_ns":%.4g)", move, stream);
    }
    std::printf("}\n");
}
