// SPDX-License-Identifier: Apache-2.0
// What the workloads share, whatever the peer: keys, the ledger by which each run is verified, what is measured, and
// the line of JSON that a program prints.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bench {

using clock = std::chrono::steady_clock;

/// The text of a key: "user-" and six digits to the base of 32, 11 bytes. Made of whole words in a few nanoseconds: of
/// bytes that were stored one by one, the first look at eight of them at once (each hash function's) waits until the
/// last is in the cache.
class key_text {
  public:
    explicit key_text(std::uint32_t key) noexcept {
        std::uint64_t digits = 0; // the first one in the lowest byte
        for (int i = 0; i < 6; ++i, key >>= 5)
            digits = digits << 8 | static_cast<unsigned char>("0123456789abcdefghijklmnopqrstuv"[key & 31]);
        words_ = {0x2D'72'65'73'75 | digits << 40, digits >> 24}; // "user-"
    }
    operator std::string_view() const noexcept { return {reinterpret_cast<const char*>(words_.data()), 11}; }

  private:
    static_assert(std::endian::native == std::endian::little);
    std::array<std::uint64_t, 2> words_;
};

// --- Verification ---------------------------------------------------------------------------------------------------

using counter = std::atomic<std::uint32_t>;

/// What the jobs of each key have done. A job knows its producer and its number among those of its key and producer.
/// It checks that it is next and counts, by separate loads and stores, so that jobs of a key that overlap are seen as
/// well: they miscount. One key's counters are an array: [0] counts all its jobs; where there are several producers,
/// [1 + p] those of producer p, padded to 32 bytes or a multiple.
class ledger {
  public:
    ledger(std::size_t keys, unsigned producers);

    counter* of(std::size_t key) noexcept { return &counters_[key * stride_]; }
    std::uint32_t slot(unsigned producer) const noexcept { return stride_ == 1 ? 0 : 1 + producer; }

    /// Called by each job. All orders are relaxed: to order the jobs of a key is what the peer is here for.
    static void record(counter* key, std::uint32_t slot, std::uint32_t number) noexcept {
        const auto at = key[slot].load(std::memory_order_relaxed);
        if (at != number) [[unlikely]]
            disorder.fetch_add(1, std::memory_order_relaxed);
        key[slot].store(at + 1, std::memory_order_relaxed);
        if (slot != 0)
            key[0].store(key[0].load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

    /// Waits until each key has run as many jobs as this, or none has for `patience`. Looks every 20 microseconds, and
    /// at one key after the other. The same for all peers, which so need no way of their own to wait for all.
    void wait(const std::vector<std::uint32_t>& expected, std::chrono::milliseconds patience);

    std::uint64_t ran() const noexcept;

    /// Jobs that were not the next of their key and producer.
    static inline counter disorder{0};

  private:
    std::size_t keys_;
    std::size_t stride_;
    std::unique_ptr<counter[]> counters_;
};

/// The empty job: all it does is to be counted. Trivially copyable, 16 bytes.
struct counting_job {
    counter* key;
    std::uint32_t slot;
    std::uint32_t number;
    void operator()() const noexcept { ledger::record(key, slot, number); }
};

// --- Measuring ------------------------------------------------------------------------------------------------------

double seconds_of(clock::duration time) noexcept;
void sleep_until(clock::time_point time);

/// What this process has used so far.
struct usage {
    double cpu_seconds;
    double switches; // voluntary context switches of all threads
    static usage now();
    static double cpu_of_this_thread();
};

/// Bytes of this process in memory, after free memory was given back to the system as far as malloc can.
double resident_bytes();
/// The most it has been, in bytes.
double peak_resident_bytes();

/// Computes for about a microsecond of CPU time: a fixed count of steps, measured once, so that a thread that is
/// preempted meanwhile gets no work for free.
class computation {
  public:
    static void calibrate();
    static double microseconds(); // what a call takes, measured again
    static void run() noexcept;

  private:
    static inline std::uint64_t steps_ = 0;
};

// --- A run ----------------------------------------------------------------------------------------------------------

/// Where the next key comes from.
enum class order : std::uint8_t { in_turn, uniform, zipf };

/// A workload and its sizes.
struct workload {
    std::string_view name;
    unsigned producers;
    std::uint32_t keys;
    std::uint64_t jobs;
    order keys_come = order::in_turn;
    std::chrono::milliseconds sleep{}; // of a job that sleeps, or of the pool
};

struct settings {
    workload what;
    unsigned workers = 2;
    std::chrono::milliseconds patience{10'000}; // with a peer that makes no progress
};

/// Reads the command line. On a wrong one it prints one line and exits with 2.
settings parse(int argc, char** argv);

/// For `uniform` and `zipf` (s = 0.99): keys drawn beforehand, which a producer goes through in a circle.
std::vector<std::uint32_t> draw_keys(const workload& what, std::size_t draws);

class report {
  public:
    report(std::string_view peer, const settings& how) : peer_(peer), how_(how) {}
    void metric(std::string_view name, double value) { metrics_.emplace_back(name, value); }
    /// p50_us, p99_us and p999_us. The samples are nanoseconds.
    void latencies(std::vector<std::int64_t> samples);
    void version(std::string_view of_peer) { version_ = of_peer; }
    void not_run(std::string_view why) { not_run_ = why; }
    void verify(std::uint64_t accepted, std::uint64_t ran) {
        accepted_ = accepted;
        ran_ = ran;
    }
    void took(double wall_seconds, double cpu_seconds) {
        wall_ = wall_seconds;
        cpu_ = cpu_seconds;
    }
    /// Prints the line, and ends the program without cleaning up, which is not measured and may take long: with 0, or
    /// with 1 where the run was not exact or not in order.
    [[noreturn]] void print_and_exit() const;

  private:
    std::string_view peer_;
    const settings& how_;
    std::vector<std::pair<std::string_view, double>> metrics_;
    std::string version_;
    std::string_view not_run_;
    std::uint64_t accepted_ = 0;
    std::uint64_t ran_ = 0;
    double wall_ = 0;
    double cpu_ = 0;
};

} // namespace bench
