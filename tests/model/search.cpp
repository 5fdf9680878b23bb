// SPDX-License-Identifier: Apache-2.0
#include "search.hpp"

#include <sstream>

namespace taskpool::model {

unsigned systematic_search::decide(const decision& d) {
    if (at_ == path_.size())
        path_.push_back({d, 0});
    diverged_ |= path_[at_].what != d;
    return diverged_ ? 0 : path_[at_++].chosen;
}

bool systematic_search::advance() {
    std::array<int, 2> spent{};
    for (const step& s : path_)
        if (s.chosen >= s.what.free)
            ++spent[static_cast<std::size_t>(s.what.price)];
    for (; !path_.empty(); path_.pop_back()) {
        step& s = path_.back();
        int& paid = spent[static_cast<std::size_t>(s.what.price)];
        if (s.chosen >= s.what.free)
            --paid;
        ++s.chosen;
        if (s.chosen < s.what.options &&
            (s.chosen < s.what.free || paid < most_[static_cast<std::size_t>(s.what.price)]))
            return true;
    }
    return false;
}

std::uint64_t random_numbers::next() noexcept {
    state_ += 0x9E3779B97F4A7C15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
}

schedule::schedule(const std::string& text) {
    std::istringstream in(text);
    std::size_t number = 0;
    char colon = 0;
    for (unsigned chosen = 0; in >> number >> colon >> chosen;) {
        chosen_.resize(number);
        chosen_.push_back(chosen);
    }
}

std::string schedule::text() const {
    std::string text;
    for (std::size_t i = 0; i < chosen_.size(); ++i)
        if (chosen_[i] != 0)
            text += (text.empty() ? "" : " ") + std::to_string(i) + ":" + std::to_string(chosen_[i]);
    return text;
}

} // namespace taskpool::model
