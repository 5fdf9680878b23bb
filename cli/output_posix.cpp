// SPDX-License-Identifier: Apache-2.0
// The files of --results: DIR/<record number>/stdout and DIR/<record number>/stderr. A number is a safe name whatever
// the key's bytes are. What an earlier run left there under the same number is replaced, and never written through: so
// a link that others placed in DIR leads no output elsewhere, and a FIFO holds nobody up.
#include "output.hpp"

#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace taskpool::cli {

namespace {

constexpr const char* file_names[] = {"stdout", "stderr"};

[[noreturn]] void fail(std::string_view what, std::string_view path, int error) {
    throw output_error(fmt::format("cannot {} {}: {}", what, path, std::generic_category().message(error)));
}

} // namespace

output::output(output_settings settings)
    : settings_(std::move(settings)), spill_(settings_.spill_directory),
      sinks_{sink(settings_.out, "standard output"), sink(settings_.err, "standard error")} {
    if (settings_.results.empty())
        return;
    if (mkdir(settings_.results.c_str(), 0777) != 0 && errno != EEXIST)
        fail("create", settings_.results, errno);
    results_ = open(settings_.results.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (results_ < 0)
        fail("open", settings_.results, errno);
}

output::~output() {
    for (const job& j : jobs_)
        for (const int file : j.files)
            if (file >= 0)
                close(file);
    if (results_ >= 0)
        close(results_);
}

void output::open_results(job& j) {
    const auto name = fmt::format("{}", j.number);
    const auto path = settings_.results + "/" + name;
    const bool made = mkdirat(results_, name.c_str(), 0777) == 0;
    if (!made && errno != EEXIST)
        fail("create", path, errno);
    const int directory = openat(results_, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        fail("open", path, errno);
    for (std::size_t which = 0; which < j.files.size(); ++which) {
        if (!made)
            unlinkat(directory, file_names[which], 0); // what else may be there makes the next call fail
        j.files[which] = openat(directory, file_names[which], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (j.files[which] < 0) {
            const int error = errno;
            if (which > 0)
                close(std::exchange(j.files[0], -1));
            close(directory);
            fail("create", path + "/" + file_names[which], error);
        }
    }
    close(directory);
}

void output::write_results(job& j, std::size_t which, std::string_view bytes) {
    while (!bytes.empty()) {
        const auto written = write(j.files[which], bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            fail("write", fmt::format("{}/{}/{}", settings_.results, j.number, file_names[which]),
                 written == 0 ? ENOSPC : errno);
        bytes.remove_prefix(static_cast<std::size_t>(written));
    }
}

void output::close_results(job& j) {
    int error = 0; // some file systems find out only now
    std::size_t where = 0;
    for (std::size_t which = 0; which < j.files.size(); ++which)
        if (j.files[which] >= 0 && close(std::exchange(j.files[which], -1)) != 0 && errno != EINTR) {
            error = errno;
            where = which;
        }
    if (error != 0)
        fail("write", fmt::format("{}/{}/{}", settings_.results, j.number, file_names[where]), error);
}

} // namespace taskpool::cli
