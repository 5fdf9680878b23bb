// SPDX-License-Identifier: Apache-2.0
// A job's output is captured while it runs. It is *delivered* to the sinks when the job ends or, by lines, as it comes;
// with keep_order a job that ends before its turn is *held*, and only the job whose turn it is delivers lines.
//
// I-OUT-1: with keep_order, every record below next_ has been delivered or has no output, and held_ has no key below
//          next_.
// I-OUT-2: between two calls, what lies in memory is at most job_memory for each stream of a job that runs,
//          held_memory for all that is held, and what the sinks have not taken; the runner starts no job while that is
//          anything.
#include "output.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace taskpool::cli {

namespace {

constexpr std::string_view clear_line = "\r\033[K";

} // namespace

std::size_t character_at(std::string_view text, std::size_t at) noexcept {
    const auto byte = [&](std::size_t i) {
        return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
    };
    const auto follows = [&](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
    const unsigned first = byte(0);
    if (first < 0x80)
        return 1;
    if (first >= 0xC2 && first <= 0xDF)
        return follows(1) ? 2 : 0;
    if (first >= 0xE0 && first <= 0xEF) {
        const unsigned code = (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6;
        return follows(1) && follows(2) && code >= 0x800 && (code < 0xD800 || code > 0xDFFF) ? 3 : 0;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        const unsigned code = (first & 0x07) << 18 | (byte(1) & 0x3F) << 12;
        return follows(1) && follows(2) && follows(3) && code >= 0x10000 && code <= 0x10FFFF ? 4 : 0;
    }
    return 0;
}

std::string printable(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = character_at(text, at);
        const auto byte = static_cast<unsigned char>(text[at]);
        const bool steers = byte < 0x20 || byte == 0x7F || (length == 0 && byte < 0xA0) ||
                            (byte == 0xC2 && length == 2 && static_cast<unsigned char>(text[at + 1]) < 0xA0);
        const auto bytes = text.substr(at, std::max<std::size_t>(length, 1));
        at += bytes.size();
        if (!steers)
            result += bytes;
        else if (byte == '\n')
            result += "\\n";
        else if (byte == '\t')
            result += "\\t";
        else if (byte == '\r')
            result += "\\r";
        else
            for (const char c : bytes)
                result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
    return result;
}

bool output::live(const job& j) const noexcept {
    return settings_.mode == output_mode::line_buffered && (!settings_.keep_order || j.number == next_);
}

void output::start(std::size_t slot, std::uint64_t number, std::string_view key) {
    if (slot >= jobs_.size())
        jobs_.resize(slot + 1);
    job& j = jobs_[slot];
    j.number = number;
    if (settings_.tag)
        j.prefix = printable(key) + '\t';
    if (j.data.empty()) {
        j.data.emplace_back(spill_);
        j.data.emplace_back(spill_);
    }
    try {
        if (results_ >= 0)
            open_results(j);
    } catch (const output_error& e) {
        throw output_error(fmt::format("record {}: {}", number, e.what()));
    }
    j.active = true;
}

void output::add(std::size_t slot, stream which, std::string_view bytes) {
    job& j = jobs_[slot];
    const auto index = static_cast<std::size_t>(which);
    captured& data = j.data[index];
    try {
        if (live(j) && bytes.find('\n') != std::string_view::npos) {
            const auto lines = bytes.rfind('\n') + 1;
            data.append(bytes.substr(0, lines), settings_.job_memory + lines);
            push(index, std::exchange(data, captured(spill_)), j.prefix, j.number, false);
            data.append(bytes.substr(lines), settings_.job_memory);
        } else {
            data.append(bytes, settings_.job_memory);
        }
        if (results_ >= 0)
            write_results(j, index, bytes);
    } catch (const output_error& e) {
        throw output_error(fmt::format("record {}: {}", j.number, e.what()));
    }
}

void output::end(std::size_t slot) {
    job& j = jobs_[slot];
    j.active = false;
    finished what{j.number, j.prefix, {}};
    if (!j.data[0].empty() || !j.data[1].empty())
        for (captured& data : j.data)
            what.data.push_back(std::exchange(data, captured(spill_)));
    std::string error;
    const auto attempt = [&](auto&& action) {
        try {
            action();
        } catch (const output_error& e) {
            error = e.what();
        }
    };
    if (!settings_.keep_order) {
        deliver(what, j.number);
    } else if (j.number == next_) {
        deliver(what, j.number);
        ++next_;
        advance();
    } else {
        for (captured& data : what.data) {
            if (held_memory_ + data.memory() > settings_.held_memory)
                attempt([&] { data.spill_all(); });
            held_memory_ += data.memory();
        }
        held_.emplace(j.number, std::move(what));
        if (no_more_)
            advance();
    }
    attempt([&] { close_results(j); });
    if (!error.empty())
        throw output_error(fmt::format("record {}: {}", j.number, error));
}

void output::abandon(std::size_t slot) noexcept {
    job& j = jobs_[slot];
    j.active = false;
    try {
        close_results(j);
    } catch (const output_error&) { // empty files
    }
}

void output::push(std::size_t which, captured data, const std::string& prefix, std::uint64_t number, bool end_line) {
    end_line = end_line && (settings_.tag || settings_.mode == output_mode::line_buffered);
    sinks_[which].push({std::move(data), prefix, end_line, number});
}

void output::deliver(finished& what, std::uint64_t number) {
    for (std::size_t which = 0; which < what.data.size(); ++which)
        push(which, std::move(what.data[which]), what.prefix, number, true);
}

void output::advance() {
    for (;;) {
        if (no_more_) { // numbers that nobody has will not come
            std::uint64_t next = held_.empty() ? next_ : std::max(next_, held_.begin()->first);
            for (const job& j : jobs_)
                if (j.active)
                    next = std::min(next, j.number);
            next_ = std::max(next_, next);
        }
        const auto first = held_.begin();
        if (first == held_.end() || first->first != next_)
            break;
        for (const captured& data : first->second.data)
            held_memory_ -= data.memory();
        deliver(first->second, next_);
        next_ = first->second.last + 1;
        held_.erase(first);
    }
    if (settings_.mode != output_mode::line_buffered)
        return;
    for (job& j : jobs_)
        if (live(j) && j.active)
            for (std::size_t which = 0; which < j.data.size(); ++which)
                push(which, j.data[which].take_lines(), j.prefix, j.number, false);
}

void output::skip(std::uint64_t number) {
    if (!settings_.keep_order || number < next_)
        return;
    if (number == next_) {
        ++next_;
        advance();
        return;
    }
    const auto behind = held_.lower_bound(number);
    if (behind != held_.begin())
        if (auto& before = std::prev(behind)->second; before.data.empty() && before.last + 1 == number) {
            before.last = number;
            return;
        }
    held_.emplace(number, finished{number, {}, {}});
}

void output::release_all() {
    no_more_ = true;
    if (settings_.keep_order)
        advance();
}

void output::note(std::string_view text) {
    captured data(spill_);
    data.append(text, text.size());
    sinks_[1].push({std::move(data), "", true, 0});
}

void output::status(std::string_view line) {
    if (!sinks_[1].empty())
        return;
    if (line.empty() && !status_shown_)
        return;
    sinks_[1].write_now(fmt::format("{}{}", clear_line, line));
    status_shown_ = !line.empty();
}

void output::flush() {
    if (status_shown_ && ((!sinks_[0].empty() && sinks_[0].terminal()) || !sinks_[1].empty())) {
        sinks_[1].write_now(clear_line);
        status_shown_ = false;
    }
    std::string error;
    for (sink& s : sinks_) {
        try {
            s.flush();
        } catch (const output_error& e) {
            if (error.empty())
                error = e.what();
        }
    }
    if (!error.empty())
        throw output_error(error);
}

} // namespace taskpool::cli
