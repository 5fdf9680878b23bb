// SPDX-License-Identifier: Apache-2.0
// send JOURNAL EVENT: stands for an HTTP call that delivers a notification. Waits 3 to 7 ms, then appends the line
// "USER N START END" to the journal, in nanoseconds of the system's monotonic clock, by a single write.
//
// It starts once for each event, so it uses the C library only.
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

namespace {

constexpr long nanoseconds_in_second = 1'000'000'000;

long long now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<long long>(time.tv_sec) * nanoseconds_in_second + time.tv_nsec;
}

/// How long this event takes: FNV-1a of its text, so the same in every run.
long duration_of(const char* event) {
    std::uint32_t hash = 2166136261U;
    for (; *event != '\0'; ++event)
        hash = (hash ^ static_cast<unsigned char>(*event)) * 16777619U;
    return 3'000'000 + static_cast<long>(hash % 4'000'001U);
}

} // namespace

int main(int argc, char** argv) {
    const long long start = now();
    char user[32] = "";
    unsigned n = 0;
    if (argc != 3 || std::sscanf(argv[2], "{\"user\":\"%31[^\"]\",\"n\":%u", user, &n) != 2) {
        std::fputs("usage: send JOURNAL EVENT\n", stderr);
        return 1;
    }
    const timespec wait{0, duration_of(argv[2])};
    nanosleep(&wait, nullptr);

    const int journal = open(argv[1], O_WRONLY | O_APPEND | O_CREAT, 0644);
    char line[128];
    const int length = std::snprintf(line, sizeof line, "%s %u %lld %lld\n", user, n, start, now());
    if (journal < 0 || write(journal, line, static_cast<std::size_t>(length)) != length) {
        std::perror(argv[1]);
        return 1;
    }
    return 0;
}
