// SPDX-License-Identifier: Apache-2.0
// make_events EVENTS USERS: notification events as JSON lines, the same ones each time. Few users have many events and
// many have few (weights 1/2, 1/3, 1/4, ...). "n" counts each user's events from 1.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace {

struct kind {
    const char* name;
    const char* text; // in JSON's spelling, without the quotes around it
};
constexpr std::array<kind, 5> kinds = {{
    {"comment", "It's here: \\\"see page 3\\\", and $HOME is not a variable"},
    {"like", "Zo\xC3\xAB likes your photo"},
    {"follow", "a new follower"},
    {"mention", "you were mentioned; reply?"},
    {"payment", "12.50 \xE2\x82\xAC received"},
}};

} // namespace

int main(int argc, char** argv) {
    const int events = argc == 3 ? std::atoi(argv[1]) : 0;
    const int users = argc == 3 ? std::atoi(argv[2]) : 0;
    if (events < 1 || users < 1 || users > 9999) {
        std::fputs("usage: make_events EVENTS USERS\n", stderr);
        return 1;
    }

    // Integers only, so that every machine makes the same events.
    std::vector<std::uint64_t> up_to; // sums of the weights
    std::uint64_t sum = 0;
    for (int rank = 1; rank <= users; ++rank)
        up_to.push_back(sum += 1'000'000 / static_cast<std::uint64_t>(rank + 1));

    std::mt19937_64 random(2024);
    std::vector<int> sent(up_to.size());
    for (int i = 0; i < events; ++i) {
        const auto ticket = random() % sum;
        std::size_t rank = 0;
        while (up_to[rank] <= ticket)
            ++rank;
        const kind& k = kinds[random() % kinds.size()];
        // Spread the busy users over the names.
        const auto user = (rank * 37 + 11) % 9973;
        std::printf("{\"user\":\"u-%04zu\",\"n\":%d,\"kind\":\"%s\",\"text\":\"%s\"}\n", user, ++sent[rank], k.name,
                    k.text);
    }
    return std::fflush(stdout) == 0 ? 0 : 1;
}
