// SPDX-License-Identifier: Apache-2.0
// The three standard descriptors.
#pragma once

#include <cstddef>
#include <string_view>

namespace taskpool::cli {

/// Makes sure that 0, 1 and 2 are open, so that no other file gets their numbers. One that was closed stays unusable:
/// to read from it or to write to it fails.
void occupy_standard_descriptors();

bool is_terminal(int fd) noexcept;
std::size_t columns(int fd) noexcept; ///< Of the terminal; 80 when it does not say.

/// Writes all of `text`, waiting as needed. Returns 0 or the error.
int write_all(int fd, std::string_view text) noexcept;

} // namespace taskpool::cli
