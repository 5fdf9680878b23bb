// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>

#include <fmt/format.h>

#include "output.hpp"

namespace taskpool::cli {

namespace {

constexpr double rate_window = 10;
constexpr std::size_t longest_key = 40;

// The first `most` bytes, but no part of a UTF-8 character.
std::string_view cut(std::string_view text, std::size_t most) {
    if (text.size() <= most)
        return text;
    while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80)
        --most;
    return text.substr(0, most);
}

std::string time_left(double seconds) {
    const auto whole = static_cast<std::uint64_t>(std::lround(std::min(seconds, 1e9)));
    if (whole >= 3600)
        return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
    return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::string json_text(std::string_view text) {
    std::string result = "\"";
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = character_at(text, at);
        const auto byte = static_cast<unsigned char>(text[at]);
        if (length == 0)
            result += "\\ufffd";
        else if (byte == '"' || byte == '\\')
            (result += '\\') += text[at];
        else if (byte < 0x20)
            result += fmt::format("\\u{:04x}", byte);
        else
            result += text.substr(at, length);
        at += std::max<std::size_t>(length, 1);
    }
    return result + '"';
}

std::string common_text(const picture& now) {
    std::string text = now.total ? fmt::format("{}/{} done", now.done, *now.total) : fmt::format("{} done", now.done);
    text += fmt::format(", {} ok", now.ok);
    if (now.failed > 0)
        text += fmt::format(", {} failed", now.failed);
    if (now.skipped > 0)
        text += fmt::format(", {} skipped", now.skipped);
    text += fmt::format(", {}/{} running, {} keys, {:.0f}/s", now.running, now.slots, now.keys, now.rate);
    if (now.seconds_left)
        text += fmt::format(", {} left", time_left(*now.seconds_left));
    if (now.hottest_waiting > 0)
        text += fmt::format(", hottest {} ({} waiting)", cut(printable(now.hottest.substr(0, 200)), longest_key),
                            now.hottest_waiting);
    return text;
}

} // namespace

std::string progress_line(const picture& now, std::size_t width) { return std::string(cut(common_text(now), width)); }

std::string progress_plain(const picture& now) { return fmt::format("{:.0f} s: {}", now.seconds, common_text(now)); }

std::string progress_json(const picture& now, bool final) {
    std::string text = fmt::format(
        R"({{"seconds":{:.3f},"done":{},"ok":{},"failed":{},"skipped":{},"running":{},"slots":{},"waiting":{},"keys":{},"rate":{:.1f})",
        now.seconds, now.done, now.ok, now.failed, now.skipped, now.running, now.slots, now.waiting, now.keys,
        now.rate);
    text += now.total ? fmt::format(R"(,"total":{})", *now.total) : R"(,"total":null)";
    text += now.seconds_left ? fmt::format(R"(,"seconds_left":{:.1f})", *now.seconds_left) : R"(,"seconds_left":null)";
    if (now.hottest_waiting > 0)
        text += fmt::format(R"(,"hottest":{{"key":{},"waiting":{}}})", json_text(now.hottest), now.hottest_waiting);
    else
        text += R"(,"hottest":null)";
    return text + fmt::format(R"(,"final":{}}})", final);
}

void progress::complete(picture& now, clock::time_point time) {
    now.seconds = std::chrono::duration<double>(time - start_).count();
    while (samples_.size() > 1 && samples_[1].seconds <= now.seconds - rate_window)
        samples_.pop_front();
    const sample& first = samples_.front();
    if (now.seconds > first.seconds)
        now.rate = static_cast<double>(now.done - first.done) / (now.seconds - first.seconds);
    if (now.seconds - samples_.back().seconds >= 0.5)
        samples_.push_back({now.seconds, now.done});
    if (now.total && now.rate > 0)
        now.seconds_left = static_cast<double>(*now.total - std::min(*now.total, now.done)) / now.rate;
    next_ = time + interval();
}

} // namespace taskpool::cli
