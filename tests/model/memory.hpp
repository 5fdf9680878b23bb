// SPDX-License-Identifier: Apache-2.0
// What threads may see of atomics and of plain cells, by the memory model of C++.
//
// Each atomic location keeps its latest stores in the order in which they were made, which is its modification order.
// A load may yield an older store than the newest, unless the thread knows better: I-MEMORY-1.
//
// What a thread knows is a vector clock: how many steps of each thread happen before what it does now. A store with
// release order carries its thread's clock; a load with acquire order that yields it takes that clock over. A
// read-modify-write takes the newest store's place, and carries on what that one released.
//
//   I-MEMORY-1  A load yields no store that is older than one which was made, or seen, by a step that happens before
//               the load. Hence a location is coherent: by what the thread itself has read and written, and by what
//               others had when they released.
//   I-MEMORY-2  A plain cell is written by no step that does not happen after all its earlier reads and writes, and
//               read by none that does not happen after its last write: else that is a race, and an error. So is the
//               end of an atomic object that does not happen after all its uses.
//
// Less than C++ allows: a load never yields a store that is made later (load buffering); stores take their places in
// the modification order as they are made; seq_cst loads yield the newest store; of a location's stores the latest
// eight, and not many more, can be read.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace taskpool::model {

constexpr std::size_t most_threads = 12; // in one execution

struct vector_clock {
    std::array<std::uint32_t, most_threads> steps{};

    void join(const vector_clock& other) noexcept;
};

/// A thread, as the memory sees it.
struct observer {
    unsigned thread = 0;
    vector_clock clock; // of what happens before the present step, which is counted
};

class memory {
  public:
    /// Thrown, and caught by the scheduler, before anything has changed.
    struct error {
        const char* what;
    };

    /// An atomic object begins and ends. One that was never begun is as old as the execution.
    void begin(const void* at, std::uint64_t value, const observer& by);
    void end(const void* at, const observer& by);

    /// Which stores a load might yield: so many of the newest. `present` is what lies in the location now: where that
    /// is not the newest store, somebody has written it by other means, and that is all there is.
    std::size_t readable(const void* at, std::uint64_t present, std::memory_order order, const observer& by);
    /// The store that is so many older than the newest. REQUIRES: it is readable.
    std::uint64_t load(const void* at, std::size_t age, std::memory_order order, observer& by);
    void store(const void* at, std::uint64_t present, std::uint64_t value, std::memory_order order, observer& by);
    void exchange(const void* at, std::uint64_t present, std::uint64_t value, std::memory_order order, observer& by);

    /// Plain cells.
    void read_cell(const void* at, const observer& by);
    void write_cell(const void* at, const observer& by);

    void clear();

  private:
    struct made_store {
        std::uint64_t value;
        bool releases;
        vector_clock released;
        std::array<std::uint32_t, most_threads> seen; // since which of its steps each thread has known of it
    };
    struct location {
        std::vector<made_store> stores; // the oldest first
        vector_clock used;              // the latest step of each thread in which it was
        bool ended = false;
    };
    struct cell {
        unsigned writer = 0;
        std::uint32_t written = 0;
        vector_clock reads;
    };

    location& use(const void* where, std::uint64_t present, const observer& by);
    static void add(location& l, std::uint64_t value, const observer& by);

    std::unordered_map<const void*, location> locations_;
    std::unordered_map<const void*, cell> cells_;
};

} // namespace taskpool::model
