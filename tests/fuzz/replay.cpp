// SPDX-License-Identifier: Apache-2.0
// Runs each file of a folder through a fuzz target: what libFuzzer's own main would do with -runs=0, with any compiler.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "fuzz.hpp"

int main(int count, char** arguments) {
    int runs = 0;
    for (int i = 1; i < count; ++i) {
        for (const auto& entry : std::filesystem::directory_iterator(arguments[i])) {
            std::fprintf(stderr, "%s\n", entry.path().c_str()); // before it is run, for it may not come back
            std::ifstream file(entry.path(), std::ios::binary);
            const std::string input{std::istreambuf_iterator<char>(file), {}};
            LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
            ++runs;
        }
    }
    if (runs == 0)
        std::fprintf(stderr, "usage: %s FOLDER...\nno input was found\n", count > 0 ? arguments[0] : "replay");
    return runs == 0 ? 1 : 0;
}
