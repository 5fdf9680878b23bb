// SPDX-License-Identifier: Apache-2.0
// The options of notify.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace notify {

inline constexpr const char* usage = R"(usage: notify [OPTIONS] HOST:PORT [FILE]

Sends each line USER<TAB>TEXT of FILE, or of standard input, as POST /users/USER/notifications with TEXT as its body:
those of a user one by one and in order, different users at the same time.

  --rate N         of each user at most N in a second (10)
  --burst N        and after a rest N at once (5)
  --attempts N     how often to try what may succeed yet: no answer, 5xx, 429 (6)
  --backoff S      seconds before the second attempt; twice as many before each further one, up to 30 (0.2)
  --timeout S      seconds to wait for the server (5)
  --connections N  requests at the same time (32)
  --grace S        when stopped by SIGINT, SIGTERM or SIGHUP: seconds for what has been read; a second signal ends
                   them (10)
  --dead FILE      gets what cannot be delivered, as USER<TAB>TEXT<TAB>REASON (dead.tsv)
  --unsent FILE    gets what was left when it was stopped, as it was read (unsent.tsv)

Both files are appended to. Exit status: 0 all was sent, 1 there are dead letters, 2 it could not do its work,
128+N stopped by signal N.
)";

struct settings {
    double rate = 10, burst = 5, attempts = 6, backoff = 0.2, timeout = 5, connections = 32, grace = 10;
    std::string dead = "dead.tsv", unsent = "unsent.tsv", server, input = "-";
};

/// Throws std::invalid_argument.
inline settings parse(const std::vector<std::string>& arguments) {
    settings s;
    const struct {
        std::string_view name;
        double& value;
        double least, most, step;
    } numbers[] = {{"--rate", s.rate, 0.001, 1e6, 0},        {"--burst", s.burst, 1, 1e6, 1},
                   {"--attempts", s.attempts, 1, 1e6, 1},    {"--backoff", s.backoff, 0, 30, 0},
                   {"--timeout", s.timeout, 0.001, 3600, 0}, {"--connections", s.connections, 1, 1000, 1},
                   {"--grace", s.grace, 0, 86'400, 0}};
    std::vector<std::string> names;
    for (auto a = arguments.begin(); a != arguments.end(); ++a) {
        if (!a->starts_with('-') || *a == "-") {
            names.push_back(*a);
            continue;
        }
        const std::string& name = *a;
        const auto number = std::ranges::find(numbers, name, [](const auto& n) { return n.name; });
        if (number == std::end(numbers) && name != "--dead" && name != "--unsent")
            throw std::invalid_argument("no option " + name + "; see notify --help");
        if (++a == arguments.end())
            throw std::invalid_argument(name + " needs a value");
        if (number == std::end(numbers)) {
            (name == "--dead" ? s.dead : s.unsent) = *a;
            continue;
        }
        const char* const end = a->data() + a->size();
        const auto [stopped, error] = std::from_chars(a->data(), end, number->value);
        const double value = number->value;
        if (error != std::errc() || stopped != end || !(value >= number->least && value <= number->most) ||
            (number->step != 0 && value != std::floor(value)))
            throw std::invalid_argument(name + " cannot be " + *a);
    }
    if (names.empty() || names.size() > 2)
        throw std::invalid_argument("usage: notify [OPTIONS] HOST:PORT [FILE]; see notify --help");
    s.server = names[0];
    if (names.size() == 2)
        s.input = names[1];
    return s;
}

} // namespace notify
