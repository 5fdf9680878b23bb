// SPDX-License-Identifier: Apache-2.0
// Output that waits: the first bytes of it in a temporary file once there are too many, the rest in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <stdexcept>
#include <string>
#include <string_view>

namespace taskpool::cli {

/// Output could not be kept or delivered. what() says where and why, and names the record where there is one.
struct output_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// One private temporary file for all that does not fit into memory: mode 0600, and no name, so nobody else can open
/// it, and nothing is left behind however the program ends. Its space is given back as its parts are released.
class spill_file {
  public:
    explicit spill_file(
        std::string directory = ""); ///< Empty: $TMPDIR, or /tmp. Nothing is opened before the first append.
    ~spill_file();
    spill_file(const spill_file&) = delete;
    spill_file& operator=(const spill_file&) = delete;

    std::uint64_t append(std::string_view bytes);                      ///< Returns where they are. Throws output_error.
    void read(std::uint64_t offset, char* to, std::size_t size) const; ///< Throws output_error.
    void release(std::uint64_t offset, std::uint64_t size) noexcept;

    std::uint64_t live() const noexcept { return live_; } ///< Bytes that are not released.

  private:
    void open();

    std::string directory_;
    int fd_ = -1;
    std::uint64_t end_ = 0;
    std::uint64_t live_ = 0;
};

/// A FIFO of bytes with a bound on its memory. Move-only; its part of the spill file is released with it.
class captured {
  public:
    explicit captured(spill_file& spill) noexcept : spill_(&spill) {}
    captured(captured&& other) noexcept;
    captured& operator=(captured&& other) noexcept;
    ~captured() { release(); }

    /// Throws output_error when the spill file is needed and fails; the bytes before stay.
    void append(std::string_view bytes, std::size_t memory_limit);

    /// Moves up to `most` bytes from the front to the end of `to`. Throws output_error.
    void take(std::string& to, std::size_t most);

    /// Splits off the whole lines at the front. What follows the last newline stays, and so may lines that have been
    /// spilled, until another newline comes.
    captured take_lines();

    /// Moves all of it to the spill file. Throws output_error.
    void spill_all();

    bool empty() const noexcept { return spilled_.empty() && memory() == 0; }
    std::size_t memory() const noexcept { return memory_.size() - taken_; }

  private:
    struct extent {
        std::uint64_t offset;
        std::uint64_t size;
    };

    void release() noexcept;

    spill_file* spill_;
    std::deque<extent> spilled_;
    std::string memory_;
    std::size_t taken_ = 0; // bytes at the front of memory_ that are gone
};

} // namespace taskpool::cli
