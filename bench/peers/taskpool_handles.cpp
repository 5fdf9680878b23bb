// SPDX-License-Identifier: Apache-2.0
#include "taskpool.hpp"

BENCH_MAIN(bench::taskpool_handles_peer)
