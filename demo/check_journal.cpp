// SPDX-License-Identifier: Apache-2.0
// check_journal EVENTS JOURNAL: compares what send wrote with what was to be sent, and prints
//
//   EVENTS USERS BUSIEST LOST REPEATED VIOLATIONS
//
// BUSIEST: events of the user that has most. LOST: events that are not in the journal. REPEATED: lines of the journal
// that are there twice, or belong to no event. VIOLATIONS: sends that began before the one that precedes it among the
// same user's events had ended; so 0 says that order was kept and that no two sends of a user overlapped.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <utility>

namespace {

struct interval {
    long long start;
    long long end;
};

struct user {
    int events = 0;                // numbered from 1
    std::map<int, interval> sends; // by number
};

} // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fputs("usage: check_journal EVENTS JOURNAL\n", stderr);
        return 1;
    }
    std::ifstream events(argv[1]);
    std::ifstream journal(argv[2]);
    if (!events || !journal) {
        std::fputs("check_journal: cannot read the events or the journal\n", stderr);
        return 1;
    }

    std::map<std::string, user> users;
    int total = 0;
    for (std::string line; std::getline(events, line); ++total) {
        char name[32];
        int n = 0;
        if (std::sscanf(line.c_str(), "{\"user\":\"%31[^\"]\",\"n\":%d", name, &n) != 2 || n != ++users[name].events) {
            std::fprintf(stderr, "check_journal: event %d is not as it should be\n", total + 1);
            return 1;
        }
    }

    int repeated = 0;
    std::string name;
    int n = 0;
    for (interval sent{}; journal >> name >> n >> sent.start >> sent.end;) {
        const auto to = users.find(name);
        if (to == users.end() || n < 1 || n > to->second.events || !to->second.sends.emplace(n, sent).second)
            ++repeated;
    }
    if (!journal.eof()) {
        std::fputs("check_journal: the journal has a line that is not as it should be\n", stderr);
        return 1;
    }

    int busiest = 0, lost = 0, violations = 0;
    for (const auto& [_, u] : users) {
        busiest = std::max(busiest, u.events);
        lost += u.events - static_cast<int>(u.sends.size());
        const interval* before = nullptr;
        for (const auto& [number, sent] : u.sends) {
            if (before != nullptr && sent.start < before->end)
                ++violations;
            before = &sent;
        }
    }
    std::printf("%d %zu %d %d %d %d\n", total, users.size(), busiest, lost, repeated, violations);
    return 0;
}
