// SPDX-License-Identifier: Apache-2.0
#include "output.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace taskpool::cli {
namespace {

class scratch_file {
  public:
    scratch_file() : file_(std::tmpfile()) {}
    ~scratch_file() { std::fclose(file_); }
    scratch_file(const scratch_file&) = delete;
    scratch_file& operator=(const scratch_file&) = delete;

    int fd() const { return fileno(file_); }
    std::string text() const {
        std::string result;
        char buffer[4096];
        off_t at = 0;
        for (ssize_t count; (count = pread(fd(), buffer, sizeof buffer, at)) > 0; at += count)
            result.append(buffer, static_cast<std::size_t>(count));
        return result;
    }

  private:
    std::FILE* file_;
};

class scratch_directory {
  public:
    scratch_directory() {
        std::string name = (std::filesystem::temp_directory_path() / "taskpool-test-XXXXXX").string();
        path_ = mkdtemp(name.data());
    }
    ~scratch_directory() { std::filesystem::remove_all(path_); }
    scratch_directory(const scratch_directory&) = delete;
    scratch_directory& operator=(const scratch_directory&) = delete;
    std::string path() const { return path_; }

  private:
    std::string path_;
};

std::string contents(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

class Output : public testing::Test {
  protected:
    output_settings settings() const {
        output_settings result;
        result.out = out_.fd();
        result.err = err_.fd();
        return result;
    }
    std::string out() const { return out_.text(); }
    std::string err() const { return err_.text(); }

    scratch_file out_, err_;
};

TEST_F(Output, GroupsByJob) {
    output o(settings());
    o.start(0, 1, "a");
    o.start(1, 2, "b");
    o.add(0, stream::out, "one\n");
    o.add(1, stream::out, "two\n");
    o.add(0, stream::err, "oops\n");
    o.add(0, stream::out, "one again");
    o.end(1);
    o.end(0);
    o.flush();
    EXPECT_EQ(out(), "two\none\none again");
    EXPECT_EQ(err(), "oops\n");
    EXPECT_FALSE(o.congested());
}

TEST_F(Output, TagsEachLineWithThePrintableKey) {
    auto how = settings();
    how.tag = true;
    output o(how);
    o.start(0, 1, "a\nb\x1b");
    o.add(0, stream::out, "one\ntw");
    o.add(0, stream::out, "o\nlast");
    o.add(0, stream::err, "\n");
    o.end(0);
    o.start(0, 2, "c");
    o.add(0, stream::out, "three");
    o.end(0);
    o.flush();
    EXPECT_EQ(out(), "a\\nb\\x1b\tone\na\\nb\\x1b\ttwo\na\\nb\\x1b\tlast\nc\tthree\n");
    EXPECT_EQ(err(), "a\\nb\\x1b\t\n");
}

TEST_F(Output, ByLines) {
    auto how = settings();
    how.mode = output_mode::line_buffered;
    output o(how);
    o.start(0, 1, "a");
    o.start(1, 2, "b");
    o.add(0, stream::out, "on");
    o.add(1, stream::out, "two\ntw");
    o.flush();
    EXPECT_EQ(out(), "two\n");
    o.add(0, stream::out, "e\n");
    o.flush();
    EXPECT_EQ(out(), "two\none\n");
    o.end(1);
    o.end(0);
    o.flush();
    EXPECT_EQ(out(), "two\none\ntw\n") << "an unfinished line gets its newline: another job's line follows";
}

TEST_F(Output, ALongLineIsSpilledAndStaysWhole) {
    auto how = settings();
    how.mode = output_mode::line_buffered;
    how.job_memory = 10;
    output o(how);
    o.start(0, 1, "a");
    const std::string part = "0123456789abcdef";
    o.add(0, stream::out, part);
    o.add(0, stream::out, part);
    o.flush();
    EXPECT_EQ(out(), "");
    o.add(0, stream::out, part + "\nx");
    o.flush();
    EXPECT_EQ(out(), part + part + part + "\n");
    o.end(0);
    o.flush();
    EXPECT_EQ(out(), part + part + part + "\nx\n");
}

TEST_F(Output, KeepsTheOrderOfTheRecords) {
    auto how = settings();
    how.keep_order = true;
    output o(how);
    o.start(0, 1, "a");
    o.start(1, 2, "b");
    o.start(2, 3, "c");
    for (std::size_t slot = 0; slot < 3; ++slot)
        o.add(slot, stream::out, std::to_string(slot + 1));
    o.end(2);
    o.end(1);
    o.flush();
    EXPECT_EQ(out(), "");
    o.end(0);
    o.skip(4);
    o.start(0, 5, "d");
    o.add(0, stream::out, "5");
    o.end(0);
    o.flush();
    EXPECT_EQ(out(), "1235");
    EXPECT_EQ(o.next(), 6U);
}

TEST_F(Output, KeepOrderSkipsWhatWillNotCome) {
    auto how = settings();
    how.keep_order = true;
    output o(how);
    for (std::uint64_t number : {2U, 3U, 5U})
        o.skip(number);
    o.start(0, 4, "a");
    o.start(1, 6, "b");
    o.start(2, 8, "c");
    for (std::size_t slot = 0; slot < 3; ++slot)
        o.add(slot, stream::out, std::to_string(slot));
    o.end(0);
    o.end(2);
    o.flush();
    EXPECT_EQ(out(), "");
    o.release_all(); // 1 and 7 will not come; 6 still runs
    o.flush();
    EXPECT_EQ(out(), "0");
    o.end(1);
    o.flush();
    EXPECT_EQ(out(), "012");
}

TEST_F(Output, KeepOrderByLinesStreamsTheFirstOnly) {
    auto how = settings();
    how.keep_order = true;
    how.mode = output_mode::line_buffered;
    output o(how);
    o.start(0, 1, "a");
    o.start(1, 2, "b");
    o.add(1, stream::out, "b1\nb2\nb");
    o.add(0, stream::out, "a1\na");
    o.flush();
    EXPECT_EQ(out(), "a1\n");
    o.end(0);
    o.flush();
    EXPECT_EQ(out(), "a1\na\nb1\nb2\n");
    o.add(1, stream::out, "3\n");
    o.flush();
    EXPECT_EQ(out(), "a1\na\nb1\nb2\nb3\n");
}

TEST_F(Output, SpillsWhatIsTooMuchForMemory) {
    auto how = settings();
    how.keep_order = true;
    how.tag = true;
    how.job_memory = 1000;
    how.held_memory = 3000;
    output o(how);
    std::string expected;
    for (std::uint64_t number = 1; number <= 20; ++number) {
        o.start(number - 1, number, "k");
        for (int line = 0; line < 100; ++line) {
            const auto text = std::to_string(number) + " " + std::to_string(line) + "\n";
            o.add(number - 1, stream::out, text);
            expected += "k\t" + text;
        }
    }
    for (std::size_t slot = 20; slot-- > 0;)
        o.end(slot);
    o.flush();
    EXPECT_EQ(out(), expected);
}

TEST_F(Output, SpillFileGivesItsSpaceBack) {
    scratch_directory directory;
    spill_file spill(directory.path());
    captured first(spill), second(spill);
    first.append(std::string(100, 'a'), 10);
    second.append(std::string(100, 'b'), 10);
    first.append("tail", 10);
    EXPECT_EQ(spill.live(), 200U);
    std::string text;
    first.take(text, 50);
    EXPECT_EQ(spill.live(), 150U);
    first.take(text, 1000);
    EXPECT_EQ(text, std::string(100, 'a') + "tail");
    EXPECT_TRUE(first.empty());
    second = captured(spill);
    EXPECT_EQ(spill.live(), 0U);
    EXPECT_TRUE(std::filesystem::is_empty(directory.path())) << "the file has no name";
}

TEST_F(Output, ASpillThatFailsNamesTheRecord) {
    auto how = settings();
    how.job_memory = 10;
    how.spill_directory = "/nowhere";
    output o(how);
    o.start(0, 17, "a");
    try {
        o.add(0, stream::out, "more than ten bytes");
        FAIL();
    } catch (const output_error& e) {
        EXPECT_NE(std::string(e.what()).find("record 17: cannot create a temporary file in /nowhere"),
                  std::string::npos)
            << e.what();
    }
    o.end(0);
    o.flush();
    EXPECT_EQ(out(), "more than ten bytes");
}

TEST_F(Output, ResultsGoToFilesToo) {
    scratch_directory directory;
    auto how = settings();
    how.results = directory.path() + "/new";
    output o(how);
    o.start(0, 3, "../../key");
    o.add(0, stream::out, "out");
    o.add(0, stream::err, "err");
    o.add(0, stream::out, "more");
    o.end(0);
    o.flush();
    EXPECT_EQ(contents(how.results + "/3/stdout"), "outmore");
    EXPECT_EQ(contents(how.results + "/3/stderr"), "err");
    EXPECT_EQ(out(), "outmore");
}

TEST_F(Output, ResultsThatCannotBeWrittenNameTheRecord) {
    scratch_directory directory;
    auto how = settings();
    how.results = directory.path();
    std::ofstream(directory.path() + "/5") << "a file where a directory is needed";
    output o(how);
    o.start(0, 4, "a");
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    const rlimit short_files{1, before.rlim_max}; // a stand-in for a disk that is full
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &short_files);
    std::string error;
    try {
        o.add(0, stream::out, "xx");
    } catch (const output_error& e) {
        error = e.what();
    }
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_EQ(error, "record 4: cannot write " + directory.path() + "/4/stdout: File too large");
    EXPECT_THROW(o.start(1, 5, "a"), output_error);
    how.results = "/nowhere/at/all";
    EXPECT_THROW(output{how}, output_error);
}

TEST_F(Output, ResultsAreNotWrittenThroughWhatIsThereAlready) {
    scratch_directory directory;
    const std::string& at = directory.path();
    auto how = settings();
    how.results = at + "/results";
    std::ofstream(at + "/other") << "not ours";
    std::filesystem::create_directories(how.results + "/1");
    std::filesystem::create_symlink(at + "/other", how.results + "/1/stdout");
    std::filesystem::create_hard_link(at + "/other", how.results + "/1/stderr");
    std::filesystem::create_directories(how.results + "/2");
    ASSERT_EQ(mkfifo((how.results + "/2/stdout").c_str(), 0600), 0);
    std::filesystem::create_symlink(at + "/made", how.results + "/2/stderr");
    std::filesystem::create_directories(at + "/elsewhere");
    std::filesystem::create_directory_symlink(at + "/elsewhere", how.results + "/3");
    std::filesystem::create_directories(how.results + "/4/stdout");

    output o(how);
    for (const std::uint64_t number : {1, 2}) {
        o.start(0, number, "a");
        o.add(0, stream::out, "out");
        o.add(0, stream::err, "err");
        o.end(0);
        const auto folder = how.results + "/" + std::to_string(number);
        EXPECT_TRUE(std::filesystem::is_regular_file(std::filesystem::symlink_status(folder + "/stdout")));
        EXPECT_EQ(contents(folder + "/stdout"), "out");
        EXPECT_EQ(contents(folder + "/stderr"), "err");
    }
    EXPECT_EQ(contents(at + "/other"), "not ours");
    EXPECT_FALSE(std::filesystem::exists(at + "/made"));
    EXPECT_THROW(o.start(0, 3, "a"), output_error);
    EXPECT_TRUE(std::filesystem::is_empty(at + "/elsewhere"));
    EXPECT_THROW(o.start(0, 4, "a"), output_error);
}

TEST(Printable, EscapesWhatCouldSteerATerminal) {
    EXPECT_EQ(printable("a\n\t\r\x1b[2J\x7f"), "a\\n\\t\\r\\x1b[2J\\x7f");
    EXPECT_EQ(printable("\xc2\x9b"
                        "2J\xc2\x80\xc2\x9f"),
              "\\xc2\\x9b2J\\xc2\\x80\\xc2\\x9f"); // U+009B is CSI
    EXPECT_EQ(printable("\x9b"
                        "2J\x80\xc2"),
              "\\x9b2J\\x80\xc2"); // as one byte, too
    const std::string text = "Zo\xc3\xab \xc2\xa0\xe2\x82\xac \xf0\x9f\x98\x80 Latin \xe9\xff";
    EXPECT_EQ(printable(text), text);
}

TEST_F(Output, AFullDiskNamesTheRecordAndBreaksTheSinkForGood) {
    auto how = settings();
    how.out = open("/dev/full", O_WRONLY | O_CLOEXEC);
    output o(how);
    o.start(0, 7, "a");
    o.add(0, stream::out, "x");
    o.add(0, stream::err, "still here\n");
    o.end(0);
    try {
        o.flush();
        FAIL();
    } catch (const output_error& e) {
        EXPECT_EQ(std::string(e.what()),
                  "record 7: cannot write its output to standard output: No space left on device");
    }
    EXPECT_EQ(err(), "still here\n");
    EXPECT_FALSE(o.congested());
    o.start(0, 8, "a");
    o.add(0, stream::out, "x");
    o.end(0);
    o.flush();
    EXPECT_FALSE(o.congested());
    close(how.out);
}

TEST_F(Output, APipeThatIsFullIsNotWaitedFor) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    auto how = settings();
    how.out = ends[1];
    output o(how);
    const std::string text(200'000, 'x');
    o.start(0, 1, "a");
    o.add(0, stream::out, text);
    o.end(0);
    o.flush();
    EXPECT_TRUE(o.congested());
    std::string got;
    while (got.size() < text.size()) {
        char buffer[5000];
        const auto count = read(ends[0], buffer, sizeof buffer);
        ASSERT_GT(count, 0);
        got.append(buffer, static_cast<std::size_t>(count));
        o.flush();
    }
    EXPECT_EQ(got, text);
    EXPECT_FALSE(o.congested());
    close(ends[0]);
    close(ends[1]);
}

TEST_F(Output, OwnMessagesThatCannotBeWrittenDoNoHarm) {
    auto how = settings();
    how.err = open("/dev/full", O_WRONLY | O_CLOEXEC);
    output o(how);
    o.note("taskpool: hello\n");
    EXPECT_NO_THROW(o.flush());
    EXPECT_FALSE(o.congested());
    close(how.err);
}

} // namespace
} // namespace taskpool::cli
