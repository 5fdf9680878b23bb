// SPDX-License-Identifier: Apache-2.0
// Three threads: this one reads records and submits a job for each to the pool; the pool's worker runs that job when
// its key's turn comes, and all the job does is to hold its key and hand the record on; the engine runs the commands.
// So the order of a key's records and that they never overlap are the library's guarantees G1 and G2, no thread waits
// for a child, and a record costs memory only from being read to its end.
#include "run.hpp"

#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <taskpool/task_pool.hpp>

#include "command.hpp"
#include "descriptors.hpp"
#include "intake.hpp"
#include "key.hpp"
#include "output.hpp"
#include "process.hpp"
#include "progress.hpp"
#include "record.hpp"
#include "runner.hpp"
#include "signals.hpp"

namespace taskpool::cli {

namespace {

void complain(std::string_view text) { write_all(2, fmt::format("taskpool: {}\n", text)); }

// What turns records into jobs.
struct translation {
    const run_options& options;
    record_reader reader;
    key_selector key_of;
    command_template command;

    explicit translation(const run_options& given)
        : options(given), reader(given.input), key_of(given.key, given.fields, reader.header()),
          command(given.command, given.shell, given.feed_stdin, given.fields, reader.header()) {}

    struct job {
        cli::record record;
        std::string key;
        bool own_key = false;
        bool left_out = false;
    };

    // The next job, checked so far that its command line can be made; nothing at the end. Throws input_error.
    std::optional<job> next() {
        auto record = reader.next();
        if (!record)
            return std::nullopt;
        job result{std::move(*record), "", false, false};
        auto key = key_of(result.record);
        if (!key && options.without_key == missing_key::skip) {
            result.left_out = true;
            return result;
        }
        if (!key && options.without_key == missing_key::error)
            throw input_error(fmt::format("record {} has no key ({})", result.record.number, options.key));
        if (key && key->find('\0') != std::string::npos)
            throw input_error(fmt::format("record {}: its key holds a NUL byte", result.record.number));
        result.own_key = !key;
        if (key)
            result.key = *std::move(key);
        command({result.record, result.key, 1});
        return result;
    }
};

// The pool's key. One of a record that has none holds a NUL byte, as no other does.
std::string pool_key(const translation::job& job) {
    return job.own_key ? std::string(1, '\0') + fmt::format("{}", job.record.number) : job.key;
}

// Reads until the end, or until nothing more is wanted. Returns what is wrong with the input, if anything is.
std::optional<std::string> read_all(translation& input, intake& in, task_pool& pool) {
    try {
        while (auto next = input.next()) {
            if (next->left_out) {
                in.leave_out(next->record.number);
                continue;
            }
            const std::string key = pool_key(*next);
            if (!in.admit(key))
                break;
            auto job = std::make_unique<work>(work{std::move(next->record), next->own_key});
            const auto answer = pool.submit(key, [&in, job = std::move(job)](const job_context& context) mutable {
                in.offer(std::move(job), context);
            });
            if (!answer) { // the pool was stopped, which only a failure of it does
                in.withdraw(key);
                return std::string(answer.message());
            }
        }
    } catch (const input_error& e) {
        return e.what();
    } catch (const std::bad_alloc&) {
        return "out of memory";
    }
    return std::nullopt;
}

int dry_run(translation& input) {
    std::string text;
    const auto flush = [&text] {
        const int error = write_all(1, text);
        text.clear();
        if (error != 0)
            throw output_error(
                fmt::format("cannot write to standard output: {}", std::generic_category().message(error)));
    };
    try {
        while (const auto next = input.next()) {
            if (next->left_out)
                continue;
            text += printable(next->key);
            text += '\t';
            bool first = true;
            for (const std::string& argument : input.command({next->record, next->key, 1})) {
                text.append(first ? "" : " ").append(quote_for_shell(argument));
                first = false;
            }
            text += '\n';
            if (text.size() > std::size_t{60} << 10)
                flush();
        }
    } catch (const input_error&) {
        flush();
        throw;
    }
    flush();
    return 0;
}

progress::kind progress_for(const run_options& options) {
    switch (options.progress) {
    case progress_mode::plain:
        return progress::kind::plain;
    case progress_mode::json:
        return progress::kind::json;
    case progress_mode::none:
        return progress::kind::none;
    case progress_mode::automatic:
        break;
    }
    // With raw output the jobs write over the line behind our back.
    return is_terminal(2) && options.output != output_mode::raw ? progress::kind::line : progress::kind::none;
}

runner_settings settings_for(const run_options& options) {
    runner_settings settings;
    settings.slots = options.slots;
    settings.buffer = options.buffer;
    settings.mode = options.output;
    settings.keep_order = options.keep_order;
    settings.feed_stdin = options.feed_stdin;
    settings.feed_terminator = options.input.format == input_format::nul ? "" : "\n";
    settings.on_fail = options.on_fail;
    settings.timeout = options.timeout;
    settings.kill_after = options.kill_after;
    settings.shown = progress_for(options);
    return settings;
}

taskpool::options pool_options(const run_options& options, intake& in) {
    // The intake bounds what is on its way; the pool's own bounds are out of its reach.
    const std::size_t capacity = options.buffer + options.slots + 1000;
    taskpool::options result;
    result.threads = 1;
    result.lane_capacity = capacity;
    result.pool_capacity = capacity;
    result.on_failure = [&in](const failure&) { in.lose("out of memory"); };
    return result;
}

int execute(translation& input, const run_options& options, const blocked_signals& signals) {
    output_settings where;
    where.mode = options.output;
    where.tag = options.tag;
    where.keep_order = options.keep_order;
    where.results = options.results;
    output out(std::move(where));
    const auto processes = make_process_runner(signals);
    intake in(options.buffer + options.slots, [&processes] { processes->wake(); });
    task_pool pool(pool_options(options, in)); // ends before the intake that its jobs use
    runner engine(settings_for(options), input.command, *processes, out, in, [&input] { input.reader.interrupt(); });

    int code = 1;
    std::thread engine_thread([&] {
        try {
            code = engine.run();
        } catch (const std::exception& e) {
            complain(e.what());
            in.close();
            input.reader.interrupt();
        }
    });
    in.finish(read_all(input, in, pool));
    engine_thread.join();
    intake::report left; // after a failure of the engine: what it did not take holds keys
    in.take(left);
    return code;
}

} // namespace

int run(const run_options& options) {
    occupy_standard_descriptors();
    try {
        if (options.output == output_mode::raw && !options.results.empty())
            throw std::invalid_argument("--results needs the output, which -u leaves alone");
        if (options.dry_run) {
            translation input(options);
            return dry_run(input);
        }
        const blocked_signals signals;
        translation input(options);
        return execute(input, options, signals);
    } catch (const std::exception& e) {
        complain(e.what());
        return 1;
    }
}

} // namespace taskpool::cli
