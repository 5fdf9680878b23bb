// SPDX-License-Identifier: Apache-2.0
#include "captured.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace taskpool::cli {

spill_file::spill_file(std::string directory) : directory_(std::move(directory)) {
    if (directory_.empty()) {
        const char* const variable = std::getenv("TMPDIR");
        directory_ = variable != nullptr && *variable != '\0' ? variable : "/tmp";
    }
}

spill_file::~spill_file() {
    if (fd_ >= 0)
        close(fd_);
}

void spill_file::open() {
#ifdef O_TMPFILE
    fd_ = ::open(directory_.c_str(), O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
#endif
    if (fd_ < 0) { // not every file system has files without a name
        std::string name = directory_ + "/taskpool-XXXXXX";
        fd_ = mkostemp(name.data(), O_CLOEXEC);
        if (fd_ >= 0)
            unlink(name.c_str());
    }
    if (fd_ < 0)
        throw output_error(fmt::format("cannot create a temporary file in {}: {}", directory_,
                                       std::generic_category().message(errno)));
}

std::uint64_t spill_file::append(std::string_view bytes) {
    if (fd_ < 0)
        open();
    const std::uint64_t start = end_;
    std::uint64_t at = start;
    while (!bytes.empty()) {
        const auto written = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at));
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            throw output_error(fmt::format("cannot write to a temporary file in {}: {}", directory_,
                                           std::generic_category().message(written == 0 ? ENOSPC : errno)));
        at += static_cast<std::uint64_t>(written);
        bytes.remove_prefix(static_cast<std::size_t>(written));
    }
    end_ = at;
    live_ += at - start;
    return start;
}

void spill_file::read(std::uint64_t offset, char* to, std::size_t size) const {
    while (size > 0) {
        const auto count = pread(fd_, to, size, static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            throw output_error(fmt::format("cannot read a temporary file in {}: {}", directory_,
                                           std::generic_category().message(count == 0 ? EIO : errno)));
        offset += static_cast<std::uint64_t>(count);
        to += count;
        size -= static_cast<std::size_t>(count);
    }
}

void spill_file::release(std::uint64_t offset, std::uint64_t size) noexcept {
    live_ -= size;
    if (live_ == 0) {
        end_ = 0;
        [[maybe_unused]] const int done = ftruncate(fd_, 0); // if not, it is overwritten
        return;
    }
#ifdef FALLOC_FL_PUNCH_HOLE
    // Where the file system cannot, the space comes back when nothing is live.
    [[maybe_unused]] const int punched = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                   static_cast<off_t>(offset), static_cast<off_t>(size));
#endif
}

captured::captured(captured&& other) noexcept
    : spill_(other.spill_), spilled_(std::move(other.spilled_)), memory_(std::move(other.memory_)),
      taken_(std::exchange(other.taken_, 0)) {
    other.spilled_.clear();
    other.memory_.clear();
}

captured& captured::operator=(captured&& other) noexcept {
    captured moved(std::move(other));
    std::swap(spill_, moved.spill_);
    std::swap(spilled_, moved.spilled_);
    std::swap(memory_, moved.memory_);
    std::swap(taken_, moved.taken_);
    return *this;
}

void captured::release() noexcept {
    for (const extent& part : spilled_)
        spill_->release(part.offset, part.size);
    spilled_.clear();
}

void captured::append(std::string_view bytes, std::size_t memory_limit) {
    memory_.append(bytes);
    if (memory() > memory_limit)
        spill_all();
}

void captured::spill_all() {
    if (memory() == 0)
        return;
    const auto bytes = std::string_view(memory_).substr(taken_);
    const std::uint64_t offset = spill_->append(bytes);
    if (!spilled_.empty() && spilled_.back().offset + spilled_.back().size == offset)
        spilled_.back().size += bytes.size();
    else
        spilled_.push_back({offset, bytes.size()});
    std::string().swap(memory_);
    taken_ = 0;
}

void captured::take(std::string& to, std::size_t most) {
    while (most > 0 && !spilled_.empty()) {
        extent& part = spilled_.front();
        const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(part.size, most));
        const std::size_t before = to.size();
        to.resize(before + size);
        spill_->read(part.offset, to.data() + before, size);
        spill_->release(part.offset, size);
        part.offset += size;
        part.size -= size;
        most -= size;
        if (part.size == 0)
            spilled_.pop_front();
    }
    const std::size_t size = std::min(most, memory());
    if (to.empty() && size == memory_.size()) {
        to.swap(memory_);
        memory_.clear();
        return;
    }
    to.append(memory_, taken_, size);
    taken_ += size;
    if (taken_ == memory_.size()) {
        memory_.clear();
        taken_ = 0;
    }
}

captured captured::take_lines() {
    captured lines(*spill_);
    const auto newline = memory_.rfind('\n');
    if (newline == std::string::npos || newline < taken_)
        return lines;
    std::swap(lines, *this);
    memory_.assign(lines.memory_, newline + 1);
    lines.memory_.resize(newline + 1);
    return lines;
}

} // namespace taskpool::cli
