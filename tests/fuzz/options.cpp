// SPDX-License-Identifier: Apache-2.0
// The arguments of the program. Input: the arguments, one a line; "run" stands in front of them.
//
// Holds: arguments are an error of one line, a text, or options that are in their ranges; they mean the same again; the
// command is their untouched end; and "--" before it changes nothing.
#include "options.hpp"

#include <algorithm>

#include "fuzz.hpp"

namespace {

using namespace taskpool::cli;
using taskpool::fuzz::must;

void must_be_the_same(const parsed& a, const parsed& b, std::string_view why) {
    const auto& x = a.options;
    const auto& y = b.options;
    must(a.kind == b.kind && a.message == b.message, why, a.message + b.message);
    must(x.key == y.key && x.command == y.command && x.input.path == y.input.path && x.input.format == y.input.format &&
             x.input.header == y.input.header && x.input.separator == y.input.separator &&
             x.input.max_record == y.input.max_record && x.fields.separator == y.fields.separator &&
             x.fields.csv == y.fields.csv && x.without_key == y.without_key && x.shell == y.shell &&
             x.feed_stdin == y.feed_stdin && x.slots == y.slots && x.buffer == y.buffer && x.output == y.output &&
             x.tag == y.tag && x.keep_order == y.keep_order && x.results == y.results &&
             x.on_fail.kind == y.on_fail.kind && x.on_fail.count == y.on_fail.count &&
             x.on_fail.percent == y.on_fail.percent && x.timeout == y.timeout && x.kill_after == y.kill_after &&
             x.progress == y.progress && x.dry_run == y.dry_run,
         why);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto text = taskpool::fuzz::text_of(data, size);
    if (text.find('\0') != std::string_view::npos)
        return 0; // no argument can
    std::vector<std::string> arguments{"run"};
    for (auto& argument : taskpool::fuzz::split(text))
        arguments.push_back(std::move(argument));

    const parsed what = parse(arguments);
    switch (what.kind) {
    case parsed::text:
        must(!what.message.empty(), "a text is not empty");
        return 0;
    case parsed::error:
        must(what.message.starts_with("taskpool: "), "an error says whose it is", what.message);
        must(std::count_if(what.message.begin(), what.message.end(),
                           [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; }) == 1 &&
                 what.message.back() == '\n',
             "an error is one line", what.message);
        return 0;
    case parsed::run:
        break;
    }
    const auto& o = what.options;
    must(!o.key.empty(), "there is a key");
    must(o.slots >= 1 && o.slots <= 65'536, "there are slots");
    must(o.buffer >= 1 && o.buffer <= 1'000'000'000, "there is room");
    must(o.input.max_record >= 1 && o.input.max_record <= std::size_t{2} << 30, "records have a length");
    must(o.timeout.count() >= 0 && o.kill_after.count() >= 0, "times are not negative");
    must(o.on_fail.count >= 1, "a policy counts from one");
    must(!o.on_fail.percent || (*o.on_fail.percent > 0 && *o.on_fail.percent <= 100), "a share is one");
    must(o.output != output_mode::raw || (!o.tag && !o.keep_order && o.results.empty()), "raw output is left alone");
    must(!o.input.header || o.fields.csv, "a header is one of CSV");

    must(!o.command.empty() && !o.command.front().empty(), "there is a command");
    must(o.command.size() < arguments.size() && std::equal(o.command.rbegin(), o.command.rend(), arguments.rbegin()),
         "the command is the untouched end of the arguments");
    const auto begin = arguments.end() - static_cast<std::ptrdiff_t>(o.command.size());
    if (*(begin - 1) != "--")
        arguments.insert(begin, "--");
    must_be_the_same(what, parse(arguments), "arguments mean the same again, and with -- before the command");
    return 0;
}
