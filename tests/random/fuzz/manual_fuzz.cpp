// SPDX-License-Identifier: Apache-2.0
// The comparison of a pool without threads with the model, for libFuzzer: any bytes are a sequence of operations.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "../manual_run.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto all = taskpool::random::from_bytes({data, size});
    const auto difference = taskpool::random::run_manual(all);
    if (!difference.empty()) {
        for (const auto& one : all)
            std::fprintf(stderr, "{%d, %d, %d, %d}\n", one.what, one.key, one.how, one.with);
        std::fprintf(stderr, "%s\n", difference.c_str());
        std::abort();
    }
    return 0;
}
