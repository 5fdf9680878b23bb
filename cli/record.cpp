// SPDX-License-Identifier: Apache-2.0
// The reader: a buffer over a descriptor, and one function per format that cuts records out of it. A little over 400
// lines, as all formats share the buffer.
//
// I-READ-1: the buffer begins with the record in progress, and nothing of it is consumed before it is whole. So an
//           interruption loses nothing, and a record at fault stays where it is.
#include "record.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace taskpool::cli {

namespace {

constexpr std::size_t first_capacity = std::size_t{128} << 10;
constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";

struct interrupted {};

std::string reason(int error) { return std::generic_category().message(error); }

// Closes itself.
struct descriptor {
    int fd = -1;

    descriptor() = default;
    descriptor(const descriptor&) = delete;
    descriptor& operator=(const descriptor&) = delete;
    ~descriptor() {
        if (fd >= 0)
            ::close(fd);
    }
};

bool white(std::string_view text) { return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos; }

} // namespace

struct record_reader::parts {
    explicit parts(const reader_options& o);

    std::optional<record> next();
    std::optional<record> next_delimited(char terminator);
    std::optional<record> next_json();
    std::optional<record> next_csv();
    void read_header();

    // The buffer.
    const char* data() const noexcept { return buffer.data() + begin; }
    std::size_t size() const noexcept { return end - begin; }
    bool has(std::size_t position);
    std::size_t find(char c, std::size_t from);
    void consume(std::size_t bytes) noexcept { begin += bytes; }
    void skip_byte_order_mark();
    bool fill();

    // CSV.
    std::size_t split_quoted(std::vector<std::string>& fields, std::size_t& length);
    void split_plain(std::vector<std::string>& fields, std::string_view row) const;

    bool header_is_due() const { return options.header && options.format == input_format::csv && !header_read; }
    std::string place() const { return header_is_due() ? "the header" : fmt::format("record {}", number + 1); }
    void check_length(std::size_t length) const {
        if (length <= options.max_record)
            return;
        const bool in_quotes = options.format == input_format::csv && std::count(data(), data() + length, '"') % 2 != 0;
        throw input_error(fmt::format("{}: longer than {} bytes{}", place(), options.max_record,
                                      in_quotes ? " (is a quote not closed?)" : ""));
    }

    const reader_options options;
    std::string name;
    descriptor opened;
    int input = STDIN_FILENO;
    descriptor wake_read;
    descriptor wake_write;
    std::atomic<bool> stop{false};

    std::vector<char> buffer;
    std::size_t begin = 0;
    std::size_t end = 0;
    bool at_end = false;  // the input has no more bytes than those in the buffer
    bool started = false; // the byte order mark is behind us

    std::uint64_t number = 0; // of the last record
    std::uint64_t line = 1;   // CSV: that the buffer begins with
    bool header_read = false;
    std::vector<std::string> header;
};

record_reader::parts::parts(const reader_options& o) : options(o) {
    if (options.path == "-") {
        name = "standard input";
    } else {
        name = options.path;
        // Without O_NONBLOCK a FIFO that nobody writes to yet would hold us here, where nothing can interrupt.
        opened.fd = ::open(options.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (opened.fd < 0)
            throw input_error(fmt::format("cannot open {}: {}", name, reason(errno)));
        input = opened.fd;
    }
    struct stat status {};
    // Also finds out that standard input is closed, before the pipe below takes its number.
    if (::fstat(input, &status) != 0)
        throw input_error(fmt::format("cannot read {}: {}", name, reason(errno)));
    if (S_ISDIR(status.st_mode))
        throw input_error(fmt::format("cannot read {}: {}", name, reason(EISDIR)));

    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0)
        throw input_error(fmt::format("cannot read {}: no pipe: {}", name, reason(errno)));
    wake_read.fd = ends[0];
    wake_write.fd = ends[1];
    for (const int fd : ends) {
        ::fcntl(fd, F_SETFD, FD_CLOEXEC);
        ::fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    buffer.resize(first_capacity);
}

// Adds bytes at the end of the buffer. False at the end of the input.
bool record_reader::parts::fill() {
    if (at_end)
        return false;
    // Make room early, for a pipe that yields a little at a time would else be read in ever smaller pieces.
    if (buffer.size() - end < buffer.size() / 4) {
        if (begin >= buffer.size() / 2) {
            std::memmove(buffer.data(), data(), size());
            end -= begin;
            begin = 0;
        } else if (end == buffer.size()) {
            buffer.resize(buffer.size() * 2);
        }
    }
    for (;;) {
        std::array<pollfd, 2> polled{pollfd{input, POLLIN, 0}, pollfd{wake_read.fd, POLLIN, 0}};
        const int ready = ::poll(polled.data(), polled.size(), -1);
        // acquire pairs with the release in interrupt(): what was done before it is visible to who sees the end.
        if (stop.load(std::memory_order_acquire))
            throw interrupted();
        if (ready < 0) {
            if (errno == EINTR)
                continue;
            throw input_error(fmt::format("cannot read {}: {}", name, reason(errno)));
        }
        if (polled[0].revents == 0)
            continue;
        const auto got = ::read(input, buffer.data() + end, buffer.size() - end);
        if (got > 0) {
            end += static_cast<std::size_t>(got);
            return true;
        }
        if (got == 0) {
            at_end = true;
            return false;
        }
        if (errno != EINTR && errno != EAGAIN)
            throw input_error(fmt::format("cannot read {}: {}", name, reason(errno)));
    }
}

// Whether the input goes on to that position, counted from the start of the record.
bool record_reader::parts::has(std::size_t position) {
    while (position >= size()) {
        check_length(size() == 0 ? 0 : size() - 1); // the last byte may be part of the terminator
        if (!fill())
            return false;
    }
    return true;
}

// The position of the first such byte, or the end of the input.
std::size_t record_reader::parts::find(char c, std::size_t from) {
    for (;;) {
        const auto* const found =
            from < size() ? static_cast<const char*>(std::memchr(data() + from, c, size() - from)) : nullptr;
        if (found != nullptr)
            return static_cast<std::size_t>(found - data());
        from = size();
        check_length(from == 0 ? 0 : from - 1); // as in has()
        if (!fill())
            return from;
    }
}

void record_reader::parts::skip_byte_order_mark() {
    const auto so_far = [&] { return std::string_view(data(), std::min(size(), byte_order_mark.size())); };
    while (so_far().size() < byte_order_mark.size() && byte_order_mark.substr(0, size()) == so_far() && fill()) {
    }
    if (so_far() == byte_order_mark)
        consume(byte_order_mark.size());
    started = true;
}

std::optional<record> record_reader::parts::next_delimited(char terminator) {
    const auto length = find(terminator, 0);
    if (length == size() && length == 0)
        return std::nullopt;
    check_length(length);
    record result;
    result.number = ++number;
    result.text.assign(data(), length);
    consume(std::min(length + 1, size()));
    return result;
}

std::optional<record> record_reader::parts::next_json() {
    for (;;) {
        const auto length = find('\n', 0);
        std::string_view text(data(), length);
        if (length == size() && length == 0)
            return std::nullopt;
        if (text.ends_with('\r'))
            text.remove_suffix(1);
        check_length(text.size());
        if (!white(text)) {
            record result;
            result.number = ++number;
            result.text = text;
            consume(std::min(length + 1, size()));
            return result;
        }
        consume(std::min(length + 1, size()));
    }
}

void record_reader::parts::split_plain(std::vector<std::string>& fields, std::string_view row) const {
    for (;;) {
        const auto at = row.find(options.separator);
        fields.emplace_back(row.substr(0, at));
        if (at == std::string_view::npos)
            return;
        row.remove_prefix(at + 1);
    }
}

// Splits a row with quotes in it. Sets the length of its text, and returns that with the terminator.
std::size_t record_reader::parts::split_quoted(std::vector<std::string>& fields, std::size_t& length) {
    std::size_t at = 0;
    const auto row_ends = [&] { // at a newline, CRLF or the end; else at something else
        if (!has(at)) {
            length = at;
            return true;
        }
        const bool carriage_return = data()[at] == '\r';
        if (carriage_return && !has(at + 1)) {
            length = at;
            ++at;
            return true;
        }
        if (data()[at + (carriage_return ? 1 : 0)] != '\n')
            return false;
        length = at;
        at += carriage_return ? 2 : 1;
        return true;
    };
    for (;;) {
        std::string& field = fields.emplace_back();
        if (has(at) && data()[at] == '"') {
            const auto opened_at = at++;
            for (;;) {
                const auto* const quote =
                    at < size() ? static_cast<const char*>(std::memchr(data() + at, '"', size() - at)) : nullptr;
                if (quote == nullptr) {
                    field.append(data() + at, size() - at);
                    at = size();
                    check_length(at);
                    if (!fill()) {
                        const auto lines = std::count(data(), data() + opened_at, '\n');
                        throw input_error(fmt::format("{}: the quote that opens field {} on line {} is never closed",
                                                      place(), fields.size(),
                                                      line + static_cast<std::uint64_t>(lines)));
                    }
                    continue;
                }
                const auto closed_at = static_cast<std::size_t>(quote - data());
                field.append(data() + at, closed_at - at);
                at = closed_at + 1;
                if (!has(at) || data()[at] != '"')
                    break;
                field += '"';
                ++at;
            }
            if (row_ends())
                return at;
            if (data()[at] != options.separator)
                throw input_error(fmt::format("{}: text after the closing quote of field {}", place(), fields.size()));
            ++at;
            continue;
        }
        for (;;) {
            if (row_ends())
                return at;
            const char c = data()[at++];
            if (c == options.separator)
                break;
            field += c;
        }
    }
}

std::optional<record> record_reader::parts::next_csv() {
    for (;;) {
        record result;
        std::size_t used = 0;
        auto length = find('\n', 0);
        if (length == 0 && size() == 0)
            return std::nullopt;
        if (std::memchr(data(), '"', length) != nullptr) {
            used = split_quoted(result.fields, length);
            check_length(length);
            result.text.assign(data(), length);
        } else {
            used = std::min(length + 1, size());
            if (length > 0 && data()[length - 1] == '\r')
                --length;
            check_length(length);
            result.text.assign(data(), length);
            if (length > 0)
                split_plain(result.fields, result.text);
        }
        if (header_read && length > 0 && result.fields.size() != header.size())
            throw input_error(
                fmt::format("{}: {} fields, but the header has {}", place(), result.fields.size(), header.size()));
        line += static_cast<std::uint64_t>(std::count(data(), data() + used, '\n'));
        consume(used);
        if (length > 0) {
            result.number = header_is_due() ? 0 : ++number;
            return result;
        }
    }
}

void record_reader::parts::read_header() {
    if (!header_is_due())
        return;
    skip_byte_order_mark();
    auto row = next_csv();
    if (!row)
        throw input_error(fmt::format("{} is empty: there is no CSV header", name));
    header = std::move(row->fields);
    header_read = true;
}

std::optional<record> record_reader::parts::next() {
    switch (options.format) {
    case input_format::lines:
        return next_delimited('\n');
    case input_format::nul:
        return next_delimited('\0');
    case input_format::json_lines:
        if (!started)
            skip_byte_order_mark();
        return next_json();
    case input_format::csv:
        if (!started)
            skip_byte_order_mark();
        return next_csv();
    }
    return std::nullopt;
}

record_reader::record_reader(const reader_options& options) : parts_(std::make_unique<parts>(options)) {
    parts_->read_header();
}

record_reader::~record_reader() = default;

std::optional<record> record_reader::next() {
    // acquire: as in fill().
    if (parts_->stop.load(std::memory_order_acquire))
        return std::nullopt;
    try {
        return parts_->next();
    } catch (const interrupted&) {
        return std::nullopt;
    }
}

void record_reader::interrupt() noexcept {
    const int error = errno;
    // release pairs with the acquire in fill() and next().
    parts_->stop.store(true, std::memory_order_release);
    // A full pipe is as good: it wakes poll, too.
    [[maybe_unused]] const auto written = ::write(parts_->wake_write.fd, "", 1);
    errno = error;
}

const std::vector<std::string>& record_reader::header() const noexcept { return parts_->header; }

} // namespace taskpool::cli
