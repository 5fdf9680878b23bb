// SPDX-License-Identifier: Apache-2.0
// Lines in and lines out, over POSIX descriptors: a wait for input can be ended, and lines are written whole or not.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

namespace notify {

[[noreturn]] inline void fail(int error, const std::string& what) {
    throw std::system_error(error, std::generic_category(), what);
}

/// Owns a descriptor, which may be none (-1).
class descriptor {
  public:
    explicit descriptor(int fd) noexcept : fd_(fd) {}
    descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    ~descriptor() {
        if (fd_ >= 0)
            ::close(fd_);
    }
    int get() const noexcept { return fd_; }

  private:
    int fd_;
};

/// The lines of a descriptor, which it does not own, until that ends or `stopping` says so.
class line_reader {
  public:
    line_reader(int input, std::function<bool()> stopping) : input_(input), stopping_(std::move(stopping)) {}

    /// The next line; false when there is none. When it is to stop, it still gives what has been read, with the rest of
    /// a line that has begun: what came out of a pipe is in nobody else's hands any more. Throws std::system_error, and
    /// std::length_error for a line of more than 64 KiB, so that no input takes all memory.
    bool next(std::string& line) {
        std::size_t searched = 0;
        while (true) {
            const auto end = buffer_.find('\n', searched);
            if (end != std::string::npos || (ended_ && !buffer_.empty())) {
                line = buffer_.substr(0, end);
                buffer_.erase(0, end == std::string::npos ? end : end + 1);
                ++number_;
                return true;
            }
            if (ended_)
                return false;
            if (buffer_.size() > longest)
                throw std::length_error("line " + std::to_string(number_ + 1) + " is too long");
            searched = buffer_.size();
            read_more();
        }
    }

    /// How many lines there were.
    std::uint64_t number() const noexcept { return number_; }

  private:
    static constexpr std::size_t longest = 64 << 10;

    void read_more() {
        const bool stopped = stopping_();
        if (stopped && buffer_.empty()) {
            ended_ = true;
            return;
        }
        // To stop, it need not be woken: it looks every 100 ms. Then, one who writes a line has no reason to pause in
        // the middle of it; what has not ended after a second is taken as it is.
        pollfd ready{input_, POLLIN, 0};
        if (::poll(&ready, 1, stopped ? 1000 : 100) <= 0) {
            ended_ = stopped;
            return;
        }
        char chunk[16 * 1024];
        const auto n = ::read(input_, chunk, stopped ? 1 : sizeof chunk); // nothing of the line after it
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            fail(errno, "cannot read the input");
        ended_ = n == 0;
        if (n > 0)
            buffer_.append(chunk, static_cast<std::size_t>(n));
    }

    const int input_;
    const std::function<bool()> stopping_;
    std::string buffer_;
    std::uint64_t number_ = 0;
    bool ended_ = false;
};

/// A file to which lines are appended.
class line_file {
  public:
    explicit line_file(std::string name)
        : name_(std::move(name)), fd_(::open(name_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666)) {
        if (fd_.get() < 0)
            fail(errno, name_);
    }

    /// All of `lines`; or nothing, when it throws std::system_error.
    void append(std::string_view lines) {
        const off_t before = ::lseek(fd_.get(), 0, SEEK_END);
        while (!lines.empty()) {
            const auto n = ::write(fd_.get(), lines.data(), lines.size());
            if (n < 0 && errno != EINTR) {
                const int error = errno;
                [[maybe_unused]] const int undone = ::ftruncate(fd_.get(), before);
                fail(error, name_);
            }
            lines.remove_prefix(n < 0 ? 0 : static_cast<std::size_t>(n));
        }
    }

    /// Throws std::system_error if the disk did not take what was appended.
    void sync() {
        if (::fdatasync(fd_.get()) != 0 && errno != EINVAL) // which says that it is no file: a pipe, a device
            fail(errno, name_);
    }

    /// Whether `other` is this file.
    bool is(int other) const {
        struct stat a {
        }, b{};
        return ::fstat(fd_.get(), &a) == 0 && ::fstat(other, &b) == 0 && S_ISREG(a.st_mode) && a.st_dev == b.st_dev &&
               a.st_ino == b.st_ino;
    }

  private:
    const std::string name_;
    const descriptor fd_;
};

} // namespace notify
