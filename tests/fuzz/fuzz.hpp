// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share. A target is one file that says what must hold for any input; libFuzzer looks for one for
// which it does not, and replay.cpp runs the inputs of corpus/TARGET through it in every build, so that none rots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace taskpool::fuzz {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

/// Ends the program, which is how a target fails, unless it holds.
inline void must(bool holds, std::string_view what, std::string_view seen = "") {
    if (holds)
        return;
    std::fprintf(stderr, "does not hold: %.*s\n", static_cast<int>(what.size()), what.data());
    if (!seen.empty())
        std::fprintf(stderr, "seen: [%.*s]\n", static_cast<int>(seen.size()), seen.data());
    std::abort();
}

/// Takes off what comes before the separator, and the separator.
inline std::string_view take(std::string_view& text, std::string_view separator = "\n") {
    const auto at = text.find(separator);
    const auto result = text.substr(0, at);
    text.remove_prefix(at == std::string_view::npos ? text.size() : at + separator.size());
    return result;
}

/// The parts between separators; none of an empty text.
inline std::vector<std::string> split(std::string_view text, std::string_view separator = "\n") {
    std::vector<std::string> result;
    while (!text.empty())
        result.emplace_back(take(text, separator));
    return result;
}

inline std::string with_all(std::string text, std::string_view what, std::string_view instead) {
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + instead.size()))
        text.replace(at, what.size(), instead);
    return text;
}

} // namespace taskpool::fuzz
