// SPDX-License-Identifier: Apache-2.0
// `taskpool run`: the parts put together.
#pragma once

#include "options.hpp"

namespace taskpool::cli {

/// Does what the options say and returns the exit code. Complains on stderr. Call it once, before any other thread
/// runs.
int run(const run_options& options);

} // namespace taskpool::cli
