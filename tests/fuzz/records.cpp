// SPDX-License-Identifier: Apache-2.0
// The reader of records. Input: four bytes and a newline, then the text.
//   format     l lines, 0 NUL, j JSON lines, c CSV, h CSV with a header
//   separator  of CSV
//   pieces     a seed: how the text is cut into what one read() yields
//   longest    a digit: records may have that many bytes, times ten; another: 16M. An upper-case letter also puts a
//              long record in front, so that the text lies where the reader's buffer ends and grows.
//
// Holds: however the input is cut into pieces, the records are the same; they have the numbers 1, 2, ..., and are no
// longer than allowed; they are what a reading of the whole text, one byte after the other, finds; a fault and the end
// stay what they are; the fields of a CSV record, quoted and read again, are the same fields.
#include "record.hpp"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <random>

#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.hpp"

namespace {

using namespace taskpool::cli;
using taskpool::fuzz::must;

using strings = std::vector<std::string>;

constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";

bool in_pieces = false;
bool in_long_pieces = false;
std::minstd_rand chances;

struct outcome {
    strings header;
    std::vector<record> records;
    std::string error;
};

outcome read_all(reader_options options, int fd) {
    outcome result;
    options.path = "/proc/self/fd/" + std::to_string(fd);
    try {
        record_reader reader(options);
        result.header = reader.header();
        try {
            while (auto next = reader.next())
                result.records.push_back(*std::move(next));
            must(!reader.next(), "after the end nothing comes");
        } catch (const input_error& e) {
            result.error = e.what();
            try {
                must(!reader.next() && false, "there is no way past a fault");
            } catch (const input_error& again) {
                must(result.error == again.what(), "a fault stays the same", result.error + " / " + again.what());
            }
        }
    } catch (const input_error& e) {
        result.error = e.what();
    }
    return result;
}

void write_whole(int fd, std::string_view text) {
    while (!text.empty()) {
        const auto written = ::write(fd, text.data(), text.size());
        must(written > 0, "the input is written");
        text.remove_prefix(static_cast<std::size_t>(written));
    }
}

outcome read_whole(const reader_options& options, std::string_view text) {
    const int fd = ::memfd_create("fuzz", MFD_CLOEXEC);
    must(fd >= 0, "there is a file");
    write_whole(fd, text);
    auto result = read_all(options, fd);
    ::close(fd);
    return result;
}

outcome read_in_pieces(const reader_options& options, std::string_view text, unsigned seed) {
    chances.seed(seed);
    in_pieces = true;
    in_long_pieces = text.size() > 100'000; // a few bytes at a time would take too long
    auto result = read_whole(options, text);
    in_pieces = false;
    return result;
}

void must_be_the_same(const std::vector<record>& a, const std::vector<record>& b) {
    must(a.size() == b.size(), "there are as many records");
    for (std::size_t i = 0; i < a.size(); ++i)
        must(a[i].number == b[i].number && a[i].text == b[i].text && a[i].fields == b[i].fields,
             "the records are the same", a[i].text);
}

std::string_view without_mark(std::string_view text) {
    if (text.starts_with(byte_order_mark))
        text.remove_prefix(byte_order_mark.size());
    return text;
}

// What ends at a terminator or the end, as simply as it can be said.
strings cut(std::string_view text, char terminator) {
    strings result;
    while (!text.empty())
        result.emplace_back(taskpool::fuzz::take(text, std::string_view(&terminator, 1)));
    return result;
}

strings json_lines(std::string_view text) {
    strings result;
    for (auto& line : cut(without_mark(text), '\n')) {
        if (line.ends_with('\r'))
            line.pop_back();
        if (line.find_first_not_of(" \t\r\n\v\f") != std::string::npos)
            result.push_back(line);
    }
    return result;
}

// CSV by its rules, one byte after the other. False: there is a fault, behind the rows that were found.
bool csv_rows(std::string_view text, char separator, std::vector<strings>& rows) {
    text = without_mark(text);
    std::size_t at = 0;
    const auto line_end = [&]() -> std::size_t { // how many bytes end the line here
        if (text.substr(at, 2) == "\r\n")
            return 2;
        return text.substr(at, 1) == "\n" ? 1 : text.substr(at) == "\r" ? 1 : 0;
    };
    while (at < text.size()) {
        if (const auto end = line_end(); end > 0) {
            at += end;
            continue;
        }
        strings row;
        for (bool more = true; more;) {
            std::string& field = row.emplace_back();
            if (at < text.size() && text[at] == '"') {
                for (++at;; ++at) {
                    if (at == text.size())
                        return false;
                    if (text[at] == '"' && text.substr(at, 2) != "\"\"")
                        break;
                    if (text[at] == '"')
                        ++at;
                    field += text[at];
                }
                ++at;
                if (at < text.size() && line_end() == 0 && text[at] != separator)
                    return false;
            }
            while (at < text.size() && line_end() == 0 && text[at] != separator)
                field += text[at++];
            more = at < text.size() && text[at] == separator;
            if (more)
                ++at;
            else
                at += line_end();
        }
        rows.push_back(std::move(row));
    }
    return true;
}

void check_csv(const reader_options& options, std::string_view text, const outcome& seen) {
    std::vector<strings> rows;
    const bool sound = csv_rows(text, options.separator, rows);
    std::vector<strings> found;
    if (!seen.header.empty())
        found.push_back(seen.header);
    for (const auto& r : seen.records)
        found.push_back(r.fields);
    if (options.header) {
        if (rows.empty()) {
            must(found.empty() && !seen.error.empty(), "a header is wanted");
            return;
        }
        // A row of another width is a fault, too.
        const auto odd = std::find_if(rows.begin(), rows.end(),
                                      [&](const strings& row) { return row.size() != rows.front().size(); });
        must(seen.error.empty() == (sound && odd == rows.end()), "a fault is seen, and none where there is none",
             seen.error);
        rows.erase(odd, rows.end());
    } else {
        must(seen.error.empty() == sound, "a fault is seen, and none where there is none", seen.error);
    }
    must(found == rows, "the rows are those of a simple reading");

    std::string again;
    for (const auto& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            again += i > 0 ? std::string(1, options.separator) : "";
            again += '"' + taskpool::fuzz::with_all(row[i], "\"", "\"\"") + '"';
        }
        again += "\r\n";
    }
    reader_options plain = options;
    plain.header = false;
    const auto second = read_whole(plain, again);
    must(second.error.empty() && second.records.size() == rows.size(), "quoted rows can be read", second.error);
    for (std::size_t i = 0; i < rows.size(); ++i)
        must(second.records[i].fields == rows[i], "fields are the same when they are quoted and read again");
}

void check(const reader_options& options, std::string_view text, const outcome& seen) {
    strings found;
    for (const auto& r : seen.records)
        found.push_back(r.text);
    switch (options.format) {
    case input_format::lines:
    case input_format::nul:
        must(found == cut(text, options.format == input_format::nul ? '\0' : '\n'), "the records are the text");
        break;
    case input_format::json_lines:
        must(found == json_lines(text), "the records are the lines that are not white");
        break;
    case input_format::csv:
        check_csv(options, text, seen);
        return;
    }
    must(seen.error.empty(), "there is no fault in such a text", seen.error);
}

} // namespace

// The linker puts these in the place of the reader's own calls (--wrap): so what one call yields is ours to say,
// without a second process or thread.
extern "C" ssize_t __real_read(int fd, void* to, std::size_t size);
extern "C" ssize_t __wrap_read(int fd, void* to, std::size_t size) {
    if (!in_pieces)
        return __real_read(fd, to, size);
    const auto chance = chances();
    if (chance % 16 == 0) {
        errno = chance % 32 == 0 ? EINTR : EAGAIN;
        return -1;
    }
    const std::size_t most = in_long_pieces && chance % 4 == 0 ? 20'000 : 1 + chance % 7;
    return __real_read(fd, to, std::min(size, most));
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto rest = taskpool::fuzz::text_of(data, size);
    const auto how = rest.substr(0, 4);
    if (how.size() < 4 || rest.size() > 8192)
        return 0;
    rest.remove_prefix(std::min<std::size_t>(5, rest.size()));

    reader_options options;
    options.format = how[0] == '0'                    ? input_format::nul
                     : how[0] == 'j'                  ? input_format::json_lines
                     : how[0] == 'c' || how[0] == 'h' ? input_format::csv
                                                      : input_format::lines;
    options.header = how[0] == 'h';
    constexpr std::string_view no_separators("\"\n\r\0", 4);
    if (no_separators.find(how[1]) == std::string_view::npos)
        options.separator = how[1];
    std::string text;
    if (how[3] >= 'A' && how[3] <= 'Z' && !options.header && !rest.starts_with(byte_order_mark))
        text.assign((std::size_t{128} << 10) - 10 * static_cast<std::size_t>(how[3] - 'A'), 'x');
    const auto in_front = text.size();
    if (in_front > 0)
        text += options.format == input_format::nul ? '\0' : '\n';
    text += rest;

    const auto whole = read_whole(options, text);
    if (in_front == 0) {
        check(options, rest, whole);
    } else {
        must(!whole.records.empty() && whole.records.front().text.size() == in_front, "the first record is whole");
        auto behind = whole;
        behind.records.erase(behind.records.begin());
        check(options, rest, behind);
    }
    const auto pieces = read_in_pieces(options, text, static_cast<unsigned char>(how[2]) - 48U);
    must(whole.error == pieces.error && whole.header == pieces.header, "a fault is the same in pieces",
         whole.error + " / " + pieces.error);
    must_be_the_same(whole.records, pieces.records);
    for (std::size_t i = 0; i < whole.records.size(); ++i)
        must(whole.records[i].number == i + 1, "records are numbered from 1");

    if (how[3] < '0' || how[3] > '9')
        return 0;
    options.max_record = static_cast<std::size_t>(how[3] - '0') * 10 + 1;
    const auto limited = read_whole(options, text);
    const auto limited_pieces = read_in_pieces(options, text, static_cast<unsigned char>(how[2]) - 48U);
    must(limited.error.empty() == limited_pieces.error.empty(), "a record is as long in pieces",
         limited.error + " / " + limited_pieces.error);
    must_be_the_same(limited.records, limited_pieces.records);
    const auto count = limited.records.size();
    must(count <= whole.records.size(), "a limit adds no records");
    must_be_the_same(limited.records,
                     {whole.records.begin(), whole.records.begin() + static_cast<std::ptrdiff_t>(count)});
    for (const auto& r : limited.records)
        must(r.text.size() <= options.max_record, "no record is longer than allowed", r.text);
    if (limited.error.empty())
        must(whole.error.empty() && count == whole.records.size(), "no record is lost");
    else if (count < whole.records.size() && limited.header == whole.header &&
             options.format != input_format::json_lines) // where a line that is skipped may be too long
        must(whole.records[count].text.size() > options.max_record, "a record as long as allowed passes",
             whole.records[count].text);
    return 0;
}
