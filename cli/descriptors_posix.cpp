// SPDX-License-Identifier: Apache-2.0
#include "descriptors.hpp"

#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace taskpool::cli {

void occupy_standard_descriptors() {
    // In rising order, as open() takes the lowest free number.
    for (int fd = 0; fd <= 2; ++fd)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) [[maybe_unused]]
            const int opened = open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

bool is_terminal(int fd) noexcept { return isatty(fd) != 0; }

std::size_t columns(int fd) noexcept {
    winsize size{};
    return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

int write_all(int fd, std::string_view text) noexcept {
    while (!text.empty()) {
        const auto written = write(fd, text.data(), text.size());
        if (written >= 0) {
            text.remove_prefix(static_cast<std::size_t>(written));
        } else if (errno == EAGAIN) { // somebody who shares it wants it that way
            pollfd wait{fd, POLLOUT, 0};
            poll(&wait, 1, -1);
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

} // namespace taskpool::cli
