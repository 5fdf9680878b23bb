// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <system_error>
#include <vector>

#include "descriptors.hpp"
#include "options.hpp"
#include "run.hpp"

int main(int count, char** arguments) {
    using taskpool::cli::parsed;
    using taskpool::cli::write_all;
    const parsed what =
        taskpool::cli::parse(std::vector<std::string>(arguments + (count > 0 ? 1 : 0), arguments + count));
    if (what.kind == parsed::run)
        return taskpool::cli::run(what.options);
    const bool asked_for = what.kind == parsed::text;
    std::string text = what.message;
    if (!text.empty() && text.back() != '\n')
        text += '\n';
    const int error = write_all(asked_for ? 1 : 2, text);
    if (asked_for && error != 0)
        write_all(2, "taskpool: cannot write to standard output: " + std::generic_category().message(error) + '\n');
    return asked_for && error == 0 ? 0 : 1;
}
