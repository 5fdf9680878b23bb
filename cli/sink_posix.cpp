// SPDX-License-Identifier: Apache-2.0
// A pipe, socket or terminal is asked by poll() first and then given no more than a pipe that said yes takes without
// blocking. It is not made non-blocking: that would show in every process that shares it.
#include "sink.hpp"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

namespace taskpool::cli {

namespace {

constexpr std::size_t chunk = std::size_t{64} << 10;

} // namespace

sink::sink(int fd, std::string name) : fd_(fd), name_(std::move(name)), terminal_(isatty(fd) != 0) {
    struct stat status {};
    may_block_ = terminal_ || (fstat(fd, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode)));
}

void sink::push(item what) {
    if (broken_ || what.data.empty())
        return;
    items_.push_back(std::move(what));
}

void sink::fill() {
    buffer_.clear();
    written_ = 0;
    record_ = 0;
    while (!items_.empty() && buffer_.size() < chunk) {
        item& front = items_.front();
        if (record_ == 0)
            record_ = front.record;
        if (front.prefix.empty()) {
            front.data.take(buffer_, chunk - buffer_.size());
            at_line_start_ = buffer_.back() == '\n';
        } else {
            scratch_.clear();
            front.data.take(scratch_, chunk);
            for (std::string_view rest = scratch_; !rest.empty();) {
                if (at_line_start_)
                    buffer_ += front.prefix;
                const auto newline = rest.find('\n');
                at_line_start_ = newline != std::string_view::npos;
                const auto line = rest.substr(0, at_line_start_ ? newline + 1 : rest.size());
                buffer_ += line;
                rest.remove_prefix(line.size());
            }
        }
        if (front.data.empty()) {
            if (front.end_line && !at_line_start_)
                buffer_ += '\n';
            at_line_start_ = true;
            items_.pop_front();
        }
    }
}

bool sink::ready() const noexcept {
    pollfd look{fd_, POLLOUT, 0};
    return !may_block_ || poll(&look, 1, 0) > 0;
}

bool sink::flush() {
    const auto give_up = [this] {
        broken_ = true;
        items_.clear();
        buffer_.clear();
        written_ = 0;
    };
    try {
        for (;;) {
            if (written_ == buffer_.size())
                fill();
            if (buffer_.empty())
                return true;
            if (!ready())
                return false;
            const std::size_t left = buffer_.size() - written_;
            const auto count =
                write(fd_, buffer_.data() + written_, may_block_ ? std::min<std::size_t>(left, PIPE_BUF) : left);
            if (count >= 0)
                written_ += static_cast<std::size_t>(count);
            else if (errno == EAGAIN)
                return false;
            else if (errno != EINTR)
                break;
        }
    } catch (const output_error&) { // what was kept cannot be read back
        give_up();
        throw;
    }
    const int error = errno;
    const std::uint64_t record = record_;
    if (record == 0) { // a message of our own, with nothing else behind it in the buffer
        buffer_.clear();
        written_ = 0;
        return flush();
    }
    give_up();
    throw output_error(fmt::format("record {}: cannot write its output to {}: {}", record, name_,
                                   std::generic_category().message(error)));
}

void sink::write_now(std::string_view text) noexcept {
    if (!broken_ && ready()) [[maybe_unused]]
        const auto written = write(fd_, text.data(), text.size());
}

} // namespace taskpool::cli
