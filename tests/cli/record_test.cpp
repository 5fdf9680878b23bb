// SPDX-License-Identifier: Apache-2.0
#include "record.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace taskpool::cli {
namespace {

using strings = std::vector<std::string>;
using namespace std::string_literals;

class scratch {
  public:
    scratch() {
        std::string name = (std::filesystem::temp_directory_path() / "taskpool-record-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr)
            throw std::runtime_error("no temporary directory");
        path_ = name;
    }
    scratch(const scratch&) = delete;
    scratch& operator=(const scratch&) = delete;
    ~scratch() { std::filesystem::remove_all(path_); }

    std::string file(std::string_view content) const {
        std::string name = path("input");
        std::ofstream(name, std::ios::binary) << content;
        return name;
    }
    std::string path(const char* name) const { return (path_ / name).string(); }

  private:
    std::filesystem::path path_;
};

/// A pipe whose reading end has a name, and whose writer yields a few bytes at a time.
class trickle {
  public:
    trickle(std::string content, std::size_t at_a_time) : content_(std::move(content)) {
        if (::pipe(ends_) != 0)
            throw std::runtime_error("no pipe");
        writer_ = std::thread([this, at_a_time] {
            for (std::size_t at = 0; at < content_.size();) {
                const auto part = std::string_view(content_).substr(at, at_a_time);
                const auto written = ::write(ends_[1], part.data(), part.size());
                if (written < 0)
                    break;
                at += static_cast<std::size_t>(written); // a signal may have cut it short
            }
            ::close(ends_[1]);
        });
    }
    trickle(const trickle&) = delete;
    trickle& operator=(const trickle&) = delete;
    ~trickle() {
        writer_.join();
        ::close(ends_[0]);
    }

    std::string path() const { return "/dev/fd/" + std::to_string(ends_[0]); }

  private:
    std::string content_;
    int ends_[2] = {-1, -1};
    std::thread writer_;
};

std::vector<record> read_all(record_reader& reader) {
    std::vector<record> result;
    while (auto next = reader.next())
        result.push_back(*std::move(next));
    return result;
}

strings texts(const std::vector<record>& records) {
    strings result;
    for (const auto& r : records)
        result.push_back(r.text);
    return result;
}

strings texts_of(std::string_view content, reader_options options) {
    const scratch dir;
    options.path = dir.file(content);
    record_reader reader(options);
    return texts(read_all(reader));
}

std::vector<strings> rows_of(std::string_view content, reader_options options = {}) {
    const scratch dir;
    options.path = dir.file(content);
    options.format = input_format::csv;
    record_reader reader(options);
    std::vector<strings> result;
    for (const auto& r : read_all(reader))
        result.push_back(r.fields);
    return result;
}

/// What the input_error says, or nothing.
template <class F>
std::string error_of(F&& f) {
    try {
        f();
    } catch (const input_error& error) {
        return error.what();
    }
    return "";
}

std::string error_in(std::string_view content, reader_options options) {
    return error_of([&] { texts_of(content, options); });
}

std::string repeat(std::string_view what, std::size_t times) {
    std::string result;
    for (std::size_t i = 0; i < times; ++i)
        result += what;
    return result;
}

const reader_options lines{.format = input_format::lines};
const reader_options nul{.format = input_format::nul};
const reader_options csv{.format = input_format::csv};
const reader_options csv_with_header{.format = input_format::csv, .header = true};
const reader_options json{.format = input_format::json_lines};

TEST(Record_reader, yields_lines_byte_for_byte_and_numbers_them) {
    const scratch dir;
    record_reader reader({.path = dir.file("one\n\n  \"two\" \\ \xff\r\nthree\0x"s)});
    const auto records = read_all(reader);
    EXPECT_EQ(texts(records), (strings{"one", "", "  \"two\" \\ \xff\r", "three\0x"s}));
    for (std::size_t i = 0; i < records.size(); ++i) {
        EXPECT_EQ(records[i].number, i + 1);
        EXPECT_TRUE(records[i].fields.empty());
    }
    EXPECT_FALSE(reader.next());
}

TEST(Record_reader, the_last_terminator_may_be_missing_but_adds_no_record) {
    EXPECT_EQ(texts_of("", lines), strings{});
    EXPECT_EQ(texts_of("\n", lines), strings{""});
    EXPECT_EQ(texts_of("a", lines), strings{"a"});
    EXPECT_EQ(texts_of("a\n", lines), strings{"a"});
    EXPECT_EQ(texts_of("a\n\n", lines), (strings{"a", ""}));
}

TEST(Record_reader, keeps_a_byte_order_mark_of_plain_lines) {
    EXPECT_EQ(texts_of("\xef\xbb\xbf"
                       "a\n",
                       lines),
              strings{"\xef\xbb\xbf"
                      "a"});
}

TEST(Record_reader, yields_nul_separated_records_with_newlines_inside) {
    EXPECT_EQ(texts_of("a\nb\0\0c"s, nul), (strings{"a\nb", "", "c"}));
}

TEST(Record_reader, lines_of_all_lengths_survive_the_ends_of_the_buffer) {
    std::string content;
    strings expected;
    for (std::size_t length = 0; length < 1'500; ++length) {
        expected.push_back(std::string(length, static_cast<char>('a' + length % 26)));
        content += expected.back() + '\n';
    }
    for (const std::size_t length : {131'071U, 131'072U, 131'073U, 700'000U, 3U, 262'144U}) {
        expected.push_back(std::string(length, 'x'));
        content += expected.back() + '\n';
    }
    EXPECT_EQ(texts_of(content, lines), expected);
    const trickle input(content, 4'093);
    record_reader reader({.path = input.path()});
    EXPECT_EQ(texts(read_all(reader)), expected);
}

TEST(Record_reader, json_lines_skip_white_lines_and_take_crlf_as_an_end) {
    EXPECT_EQ(texts_of("\xef\xbb\xbf{\"a\":1}\r\n\n  \t\r\n 2 \n3", json), (strings{"{\"a\":1}", " 2 ", "3"}));
    EXPECT_EQ(texts_of(" \n\n", json), strings{});
    const scratch dir;
    record_reader reader({.path = dir.file("\n\n1\n\n2\n"), .format = input_format::json_lines});
    EXPECT_EQ(reader.next()->number, 1U);
    EXPECT_EQ(reader.next()->number, 2U);
}

TEST(Record_reader, splits_csv_as_the_standard_says) {
    EXPECT_EQ(rows_of("a,b\r\n1,2\n"), (std::vector<strings>{{"a", "b"}, {"1", "2"}}));
    EXPECT_EQ(rows_of("a,,\n,\n"), (std::vector<strings>{{"a", "", ""}, {"", ""}}));
    EXPECT_EQ(rows_of("\"a,b\",\"c\"\"d\"\"\",\"e\nf\r\ng\",\"\"\r\n1,2,3,4"),
              (std::vector<strings>{{"a,b", "c\"d\"", "e\nf\r\ng", ""}, {"1", "2", "3", "4"}}));
    EXPECT_EQ(rows_of("\"\"\n"), (std::vector<strings>{{""}}));
    EXPECT_EQ(rows_of("a,\"b\""), (std::vector<strings>{{"a", "b"}}));
    EXPECT_EQ(rows_of("a,\"b\"\r"), (std::vector<strings>{{"a", "b"}}));
    EXPECT_EQ(rows_of("\"a\","), (std::vector<strings>{{"a", ""}}));
    EXPECT_EQ(rows_of("\"a\",\n1"), (std::vector<strings>{{"a", ""}, {"1"}}));
}

TEST(Record_reader, csv_leaves_bare_quotes_blanks_and_carriage_returns_alone) {
    EXPECT_EQ(rows_of("5\" disk, \"x\" ,a\rb\n"), (std::vector<strings>{{"5\" disk", " \"x\" ", "a\rb"}}));
    EXPECT_EQ(rows_of("a\rb,c\n"), (std::vector<strings>{{"a\rb", "c"}}));
}

TEST(Record_reader, csv_skips_empty_lines_and_a_byte_order_mark) {
    EXPECT_EQ(rows_of("\xef\xbb\xbf"
                      "a,b\n\n\r\n1,2\n\n"),
              (std::vector<strings>{{"a", "b"}, {"1", "2"}}));
    EXPECT_EQ(rows_of("\xef\xbb\xbf\"a\",b\n"), (std::vector<strings>{{"a", "b"}}));
    EXPECT_EQ(rows_of("\xef\xbb"), (std::vector<strings>{{"\xef\xbb"}}));
    EXPECT_EQ(rows_of("\xef\xbb\xbf"), std::vector<strings>{});
}

TEST(Record_reader, csv_takes_another_separator) {
    EXPECT_EQ(rows_of("a;b,c;\"d;e\"\n", {.separator = ';'}), (std::vector<strings>{{"a", "b,c", "d;e"}}));
    EXPECT_EQ(rows_of("a\tb\n", {.separator = '\t'}), (std::vector<strings>{{"a", "b"}}));
}

TEST(Record_reader, the_text_of_a_csv_record_is_as_it_was_read) {
    EXPECT_EQ(texts_of("a,\"b\"\"\n\",c\r\nx,y\r\n", csv), (strings{"a,\"b\"\"\n\",c", "x,y"}));
}

TEST(Record_reader, the_csv_header_names_the_columns_and_is_no_record) {
    const scratch dir;
    record_reader reader(
        {.path = dir.file("id,\"full \"\"name\"\"\"\n1,x\n"), .format = input_format::csv, .header = true});
    EXPECT_EQ(reader.header(), (strings{"id", "full \"name\""}));
    const auto first = reader.next();
    ASSERT_TRUE(first);
    EXPECT_EQ(first->number, 1U);
    EXPECT_EQ(first->fields, (strings{"1", "x"}));
    EXPECT_FALSE(reader.next());
}

TEST(Record_reader, without_a_header_there_are_no_names_and_all_widths_will_do) {
    const scratch dir;
    record_reader reader({.path = dir.file("a\nb,c\n"), .format = input_format::csv});
    EXPECT_EQ(texts(read_all(reader)), (strings{"a", "b,c"}));
    EXPECT_TRUE(reader.header().empty());
}

TEST(Record_reader, an_input_without_the_header_asked_for_is_an_error) {
    const scratch dir;
    const auto path = dir.file("\n\n");
    EXPECT_EQ(error_of([&] { record_reader({.path = path, .format = input_format::csv, .header = true}); }),
              path + " is empty: there is no CSV header");
}

TEST(Record_reader, a_row_of_another_width_than_the_header_is_an_error_naming_the_record) {
    EXPECT_EQ(error_in("a,b\n1,2\n1,2,3\n", csv_with_header), "record 2: 3 fields, but the header has 2");
    EXPECT_EQ(error_in("a,b\n\"1\"\n", csv_with_header), "record 1: 1 fields, but the header has 2");
}

TEST(Record_reader, an_open_quote_is_an_error_naming_record_and_line) {
    EXPECT_EQ(error_in("a,b\n\"1\n\n\",2\nx,\"3\n4,5\n", csv),
              "record 3: the quote that opens field 2 on line 5 is never closed");
    EXPECT_EQ(error_in("\"a\n1", csv_with_header),
              "the header: the quote that opens field 1 on line 1 is never closed");
    EXPECT_EQ(error_in("\"a\"\"", csv), "record 1: the quote that opens field 1 on line 1 is never closed");
}

TEST(Record_reader, text_after_a_closing_quote_is_an_error_naming_the_record) {
    EXPECT_EQ(error_in("a\nb,\"c\"d\n", csv), "record 2: text after the closing quote of field 2");
    EXPECT_EQ(error_in("\"c\"\rd\n", csv), "record 1: text after the closing quote of field 1");
}

TEST(Record_reader, a_fault_is_reported_again_and_what_came_before_it_is_not_lost) {
    const scratch dir;
    record_reader reader({.path = dir.file("a\n\"b\n"), .format = input_format::csv});
    EXPECT_EQ(reader.next()->text, "a");
    const auto first = error_of([&] { reader.next(); });
    EXPECT_NE(first, "");
    EXPECT_EQ(error_of([&] { reader.next(); }), first);
}

TEST(Record_reader, csv_reads_back_what_was_quoted_however_it_is_cut_into_pieces) {
    std::mt19937 random(7);
    constexpr std::string_view alphabet = "ab,\"\r\n;\t\xc3\xa9 ";
    std::vector<strings> expected;
    std::string content;
    while (content.size() < 600'000) {
        strings row(1 + random() % 5);
        for (auto& field : row) {
            const auto length = random() % 100 == 0 ? random() % 5'000 : random() % 8;
            for (std::size_t i = 0; i < length; ++i)
                field += alphabet[random() % alphabet.size()];
        }
        for (std::size_t i = 0; i < row.size(); ++i) {
            content += i == 0 ? "\"" : ",\"";
            for (const char c : row[i])
                content += c == '"' ? "\"\"" : std::string(1, c);
            content += '"';
        }
        content += random() % 2 == 0 ? "\r\n" : "\n";
        expected.push_back(std::move(row));
    }
    EXPECT_EQ(rows_of(content), expected);
    for (const std::size_t at_a_time : {1'021U, 60'001U}) {
        const trickle input(content, at_a_time);
        record_reader reader({.path = input.path(), .format = input_format::csv});
        for (const auto& row : expected) {
            const auto next = reader.next();
            ASSERT_TRUE(next);
            ASSERT_EQ(next->fields, row);
        }
        EXPECT_FALSE(reader.next());
    }
}

TEST(Record_reader, csv_is_the_same_byte_by_byte) {
    const std::string content = "\xef\xbb\xbf"
                                "a,\"b\"\"c\",\"d\r\n\"\r\n\"\"\r\n\r\nx\r,\"y\"";
    const trickle input(content, 1);
    record_reader reader({.path = input.path(), .format = input_format::csv});
    std::vector<strings> rows;
    for (const auto& r : read_all(reader))
        rows.push_back(r.fields);
    EXPECT_EQ(rows, (std::vector<strings>{{"a", "b\"c", "d\r\n"}, {""}, {"x\r", "y"}}));
}

TEST(Record_reader, a_record_as_long_as_allowed_passes_and_one_byte_more_is_an_error_naming_it) {
    const std::string fits(1'000, 'x');
    for (auto options : {lines, nul, csv, json}) {
        options.max_record = 1'000;
        const char end = options.format == input_format::nul ? '\0' : '\n';
        for (const std::size_t terminators : {0U, 1U}) {
            auto content = std::string("a") + end;
            content += fits;
            content.append(terminators, end);
            EXPECT_EQ(texts_of(content, options), (strings{"a", fits}));
            content.insert(2, 1, 'x');
            EXPECT_EQ(error_in(content, options), "record 2: longer than 1000 bytes");
        }
    }
    for (auto options : {csv, json}) {
        options.max_record = 1'000;
        EXPECT_EQ(texts_of(fits + "\r\n", options), strings{fits});
        EXPECT_EQ(error_in(fits + "x\r\n", options), "record 1: longer than 1000 bytes");
    }
    auto with_header = csv_with_header;
    with_header.max_record = 1'000;
    EXPECT_EQ(error_in(fits + "x\n", with_header), "the header: longer than 1000 bytes");
}

TEST(Record_reader, the_limit_holds_for_quoted_csv) {
    auto options = csv;
    options.max_record = 1'000;
    const auto fits = "\"" + std::string(998, 'x') + "\"";
    for (const char* const terminator : {"", "\n", "\r\n", "\r"})
        EXPECT_EQ(texts_of(fits + terminator, options), strings{fits}) << terminator;
    EXPECT_EQ(error_in(fits + "x\n", options), "record 1: text after the closing quote of field 1");
    EXPECT_EQ(error_in(fits + ",\n", options), "record 1: longer than 1000 bytes");
    EXPECT_EQ(error_in("\"" + std::string(5'000, 'x'), options),
              "record 1: longer than 1000 bytes (is a quote not closed?)");
}

TEST(Record_reader, an_endless_line_is_refused_in_bounded_memory) {
    reader_options options{.path = "/dev/zero", .max_record = std::size_t{1} << 20};
    EXPECT_EQ(error_of([&] { record_reader(options).next(); }), "record 1: longer than 1048576 bytes");
}

TEST(Record_reader, files_that_cannot_be_read_are_named_with_the_reason) {
    const scratch dir;
    const auto missing = dir.path("missing");
    EXPECT_EQ(error_of([&] { record_reader({.path = missing}); }),
              "cannot open " + missing + ": No such file or directory");
    EXPECT_EQ(error_of([&] { record_reader({.path = "/"}); }), "cannot read /: Is a directory");
    EXPECT_EQ(error_of([&] { record_reader({.path = ""}); }), "cannot open : No such file or directory");
    if (::geteuid() != 0) { // who root is may read anything
        const auto secret = dir.file("x");
        ::chmod(secret.c_str(), 0);
        EXPECT_EQ(error_of([&] { record_reader({.path = secret}); }), "cannot open " + secret + ": Permission denied");
    }
}

TEST(Record_reader, a_read_that_fails_is_named_with_the_reason) {
    // Reading a process's memory at address 0 fails, although it can be opened.
    if (::access("/proc/self/mem", R_OK) != 0)
        GTEST_SKIP() << "there is no file here that fails when it is read";
    record_reader reader({.path = "/proc/self/mem"});
    EXPECT_EQ(error_of([&] { reader.next(); }), "cannot read /proc/self/mem: Input/output error");
}

/// Puts a descriptor in the place of standard input; -1 closes it.
class other_stdin {
  public:
    explicit other_stdin(int fd) : saved_(::dup(STDIN_FILENO)) {
        if (fd < 0)
            ::close(STDIN_FILENO);
        else
            ::dup2(fd, STDIN_FILENO);
    }
    other_stdin(const other_stdin&) = delete;
    other_stdin& operator=(const other_stdin&) = delete;
    ~other_stdin() {
        ::dup2(saved_, STDIN_FILENO);
        ::close(saved_);
    }

  private:
    int saved_;
};

TEST(Record_reader, a_dash_is_standard_input) {
    const scratch dir;
    const int fd = ::open(dir.file("a\nb\n").c_str(), O_RDONLY);
    {
        const other_stdin replaced(fd);
        record_reader reader({.path = "-"});
        EXPECT_EQ(texts(read_all(reader)), (strings{"a", "b"}));
    }
    ::close(fd);
}

TEST(Record_reader, a_closed_standard_input_is_an_error) {
    const other_stdin closed(-1);
    EXPECT_EQ(error_of([&] { record_reader({.path = "-"}).next(); }),
              "cannot read standard input: Bad file descriptor");
}

TEST(Record_reader, a_standard_input_that_does_not_block_is_waited_for) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    const other_stdin replaced(ends[0]);
    std::atomic<bool> reading = false;
    std::thread writer([&] {
        while (!reading)
            std::this_thread::yield();
        EXPECT_EQ(::write(ends[1], "late\n", 5), 5);
        ::close(ends[1]);
    });
    record_reader reader({.path = "-"});
    reading = true;
    EXPECT_EQ(texts(read_all(reader)), strings{"late"});
    writer.join();
    ::close(ends[0]);
}

TEST(Record_reader, an_interruption_ends_a_read_that_blocks) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ASSERT_EQ(::write(ends[1], "whole\nhalf", 10), 10);
    {
        record_reader reader({.path = "/dev/fd/" + std::to_string(ends[0])});
        EXPECT_EQ(reader.next()->text, "whole");
        std::thread other([&] { reader.interrupt(); });
        EXPECT_FALSE(reader.next());
        other.join();
        EXPECT_FALSE(reader.next());
    }
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST(Record_reader, an_interruption_holds_for_what_is_read_already) {
    const scratch dir;
    record_reader reader({.path = dir.file("a\nb\n")});
    EXPECT_EQ(reader.next()->text, "a");
    reader.interrupt();
    reader.interrupt();
    EXPECT_FALSE(reader.next());
}

TEST(Record_reader, an_interruption_ends_the_wait_for_the_first_writer_of_a_fifo) {
    const scratch dir;
    const auto fifo = dir.path("fifo");
    ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
    record_reader reader({.path = fifo});
    std::thread other([&] { reader.interrupt(); });
    EXPECT_FALSE(reader.next());
    other.join();
}

TEST(Record_reader, a_fifo_is_read_from_its_first_writer_to_its_last) {
    const scratch dir;
    const auto fifo = dir.path("fifo");
    ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
    record_reader reader({.path = fifo});
    std::thread writer([&] { std::ofstream(fifo) << "a\nb"; });
    EXPECT_EQ(texts(read_all(reader)), (strings{"a", "b"}));
    writer.join();
}

TEST(Record_reader, many_lines_stress) {
    const scratch dir;
    constexpr std::size_t count = 3'000'000;
    const auto path = dir.file(repeat("83.149.9.216 - - GET /index.html\n", count));
    record_reader reader({.path = path});
    std::size_t read = 0;
    while (const auto next = reader.next()) {
        ++read;
        ASSERT_EQ(next->number, read);
    }
    EXPECT_EQ(read, count);
}

} // namespace
} // namespace taskpool::cli
