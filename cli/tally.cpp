// SPDX-License-Identifier: Apache-2.0
#include "tally.hpp"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "output.hpp"

namespace taskpool::cli {

std::uint64_t tally::failures() const noexcept {
    return count(outcome::failed) + count(outcome::signalled) + count(outcome::timed_out);
}

std::uint64_t tally::finished() const noexcept { return count(outcome::ok) + failures(); }

std::uint64_t tally::done() const noexcept {
    return finished() + count(outcome::cancelled) + count(outcome::skipped) + count(outcome::not_run);
}

tally::verdict tally::add(outcome what, std::string_view key) {
    ++counts_[static_cast<std::size_t>(what)];
    const bool failure = what == outcome::failed || what == outcome::signalled || what == outcome::timed_out;
    std::uint64_t of_key = 0;
    if (failure) {
        auto known = failed_.find(std::string(key));
        if (known == failed_.end() && (failed_.size() < most_keys || policy_.kind == fail_policy::skip_key))
            known = failed_.emplace(key, failed_key{0, failed_.size()}).first;
        if (known != failed_.end())
            of_key = ++known->second.failures;
        else
            more_keys_ = true;
    }

    bool reached = false;
    if (policy_.kind == fail_policy::skip_key)
        return failure && of_key >= policy_.count ? verdict::skip_key : verdict::go_on;
    if (policy_.percent) // a success counts here: it may be the tenth
        reached = failures() > 0 && finished() >= 10 &&
                  static_cast<double>(failures()) * 100.0 >= *policy_.percent * static_cast<double>(finished());
    else
        reached = failure && failures() >= policy_.count;
    if (!reached || policy_.kind == fail_policy::go_on)
        return verdict::go_on;
    return policy_.kind == fail_policy::halt_soon ? verdict::halt_soon : verdict::halt_now;
}

int tally::exit_code() const noexcept {
    if (count(outcome::signalled) > 0)
        return 125;
    return done() == count(outcome::ok) ? 0 : 123;
}

std::string tally::summary(double seconds) const {
    std::string text = fmt::format("{} record{}: {} ok", done(), done() == 1 ? "" : "s", count(outcome::ok));
    const auto part = [&](std::uint64_t number, const char* name) {
        if (number > 0)
            text += fmt::format(", {} {}", number, name);
    };
    part(count(outcome::failed), "failed");
    part(count(outcome::signalled), "killed by a signal");
    part(count(outcome::timed_out), "timed out");
    part(count(outcome::cancelled), "ended early");
    part(count(outcome::skipped), "skipped");
    part(count(outcome::not_run), "not run");
    part(left_out_, "left out for want of a key");
    text += fmt::format("; {:.1f} s", seconds);
    if (failed_.empty())
        return text;

    constexpr std::size_t most_listed = 20;
    using entry = std::pair<std::string_view, failed_key>;
    std::vector<entry> keys(failed_.begin(), failed_.end());
    const auto listed = std::min(keys.size(), most_listed);
    std::partial_sort(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(listed), keys.end(),
                      [](const entry& a, const entry& b) { return a.second.order < b.second.order; });
    text += "\ntaskpool: failed keys: ";
    for (std::size_t i = 0; i < listed; ++i) {
        const auto& [key, of_key] = keys[i];
        text += fmt::format("{}{}", i > 0 ? ", " : "", key.empty() ? "(the empty key)" : printable(key.substr(0, 100)));
        if (of_key.failures > 1)
            text += fmt::format(" ({} times)", of_key.failures);
    }
    if (keys.size() > listed)
        text += fmt::format(" and {}{} more", more_keys_ ? "more than " : "", keys.size() - listed);
    return text;
}

} // namespace taskpool::cli
