// SPDX-License-Identifier: Apache-2.0
#include "key.hpp"

#include <gtest/gtest.h>

namespace taskpool::cli {
namespace {

using strings = std::vector<std::string>;
using namespace std::string_literals;

record line(std::string text) { return {.number = 7, .text = std::move(text), .fields = {}}; }
record row(strings fields) { return {.number = 7, .text = "raw", .fields = std::move(fields)}; }

const field_rule white;
const field_rule csv{.csv = true};
field_rule by(char c) { return {.separator = c}; }

/// The key as text; "-" for none.
std::string key(std::string_view expression, const record& r, const field_rule& rule = white,
                const strings& header = {}) {
    return key_selector(expression, rule, header)(r).value_or("-");
}

std::string json(std::string text, std::string_view path) {
    return json_value(line(std::move(text)), path).value_or("-");
}

template <class Error, class F>
std::string error_of(F&& f) {
    try {
        f();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

std::string refusal(std::string_view expression, const field_rule& rule = white, const strings& header = {}) {
    return error_of<std::invalid_argument>([&] { key_selector(expression, rule, header); });
}

std::string fault(std::string text, std::string_view path = ".a") {
    return error_of<input_error>([&] { json(std::move(text), path); });
}

// --- Fields

TEST(Field, runs_of_white_space_separate_once_and_do_not_count_at_the_ends) {
    const auto r = line("  one \t two\rthree\n");
    EXPECT_EQ(field(r, 1, white), "one");
    EXPECT_EQ(field(r, 2, white), "two");
    EXPECT_EQ(field(r, 3, white), "three");
    EXPECT_EQ(field(r, 4, white), std::nullopt);
    EXPECT_EQ(field(r, 0, white), std::nullopt);
    EXPECT_EQ(field(line(""), 1, white), std::nullopt);
    EXPECT_EQ(field(line(" \t"), 1, white), std::nullopt);
}

TEST(Field, a_carriage_return_at_the_end_is_not_part_of_the_last_field) {
    EXPECT_EQ(field(line("a b\r"), 2, white), "b");
}

TEST(Field, each_separator_separates) {
    const auto r = line(",b,, d");
    EXPECT_EQ(field(r, 1, by(',')), "");
    EXPECT_EQ(field(r, 2, by(',')), "b");
    EXPECT_EQ(field(r, 3, by(',')), "");
    EXPECT_EQ(field(r, 4, by(',')), " d");
    EXPECT_EQ(field(r, 5, by(',')), std::nullopt);
    EXPECT_EQ(field(line(""), 1, by(',')), "");
    EXPECT_EQ(field(line(""), 2, by(',')), std::nullopt);
    EXPECT_EQ(field(line("a\0b"s), 2, by('\0')), "b");
    EXPECT_EQ(field(line("a,"), 2, by(',')), "");
}

TEST(Field, of_csv_is_what_the_reader_found) {
    EXPECT_EQ(field(row({"a b", ""}), 1, csv), "a b");
    EXPECT_EQ(field(row({"a b", ""}), 2, csv), "");
    EXPECT_EQ(field(row({"a b", ""}), 3, csv), std::nullopt);
    EXPECT_EQ(field(row({"a;b"}), 1, {.separator = ';', .csv = true}), "a;b");
}

TEST(Column, is_found_by_its_exact_name_if_there_is_one) {
    EXPECT_EQ(column({"a", "b"}, "b"), 2U);
    EXPECT_EQ(column({"a", "b"}, "B"), std::nullopt);
    EXPECT_EQ(column({}, ""), std::nullopt);
    EXPECT_EQ(error_of<std::invalid_argument>([] {
                  column({"id", "x", "id"}, "id");
              }),
              "several columns are named 'id': give its number");
}

// --- Paths in JSON

TEST(Json_value, follows_members_and_elements) {
    const std::string text = R"({"user":{"id":42,"a b":"x"},"tags":["p",["q","r"]],"e":""})";
    EXPECT_EQ(json(text, ".user.id"), "42");
    EXPECT_EQ(json(text, R"(.user."a b")"), "x");
    EXPECT_EQ(json(text, R"(.user["a b"])"), "x");
    EXPECT_EQ(json(text, ".tags[0]"), "p");
    EXPECT_EQ(json(text, ".tags[1][1]"), "r");
    EXPECT_EQ(json(text, ".tags.[1].[0]"), "q");
    EXPECT_EQ(json(text, ".e"), "");
    EXPECT_EQ(json("[10,20]", ".[1]"), "20");
    EXPECT_EQ(json("  [10,20]\r\n", ".[1]"), "20");
}

TEST(Json_value, is_nothing_where_the_path_leads_nowhere_or_to_no_scalar) {
    const std::string text = R"({"user":{"id":42},"tags":["p"],"n":null})";
    for (const auto* const path :
         {".users", ".user", ".tags", ".tags[1]", ".n", ".user[0]", ".tags.p", ".user.id.x", ".[0]"})
        EXPECT_EQ(json(text, path), "-") << path;
    EXPECT_EQ(json("17", ".a"), "-");
    EXPECT_EQ(json("\"a\"", ".a"), "-");
    EXPECT_EQ(json("null", ".a"), "-");
    EXPECT_EQ(json("{}", ".a"), "-");
    EXPECT_EQ(json("[]", ".[0]"), "-");
}

TEST(Json_value, numbers_and_truth_values_are_as_written) {
    for (const auto* const number :
         {"0", "-0", "1.50", "1e3", "-12.5E-07", "12345678901234567890123456789012345678901234567890",
          "9007199254740993", "1e999", "true", "false"})
        EXPECT_EQ(json("{\"a\": "s + number + " }", ".a"), number);
}

TEST(Json_value, strings_have_their_escapes_resolved) {
    EXPECT_EQ(json(R"({"a":"x\"\\\/\n\tA\u00e9\ud83d\ude00"})", ".a"), "x\"\\/\n\tA\xc3\xa9\xf0\x9f\x98\x80");
    EXPECT_EQ(json(R"({"a":"\u0000"})", ".a"), "\0"s);
    EXPECT_EQ(json(R"({"a":"12"})", ".a"), "12");
}

TEST(Json_value, names_have_their_escapes_resolved_and_must_match_wholly) {
    EXPECT_EQ(json(R"({"\u0061":1})", ".a"), "1");
    EXPECT_EQ(json(R"({"ab":1})", ".a"), "-");
    EXPECT_EQ(json(R"({"a\"b\\":1})", R"(."a\"b\\")"), "1");
    EXPECT_EQ(json(R"({"":1})", R"(."")"), "1");
    EXPECT_EQ(json("{\"\xc3\xa9\":1}", ".\xc3\xa9"), "1");
}

TEST(Json_value, of_members_with_one_name_the_last_counts) {
    EXPECT_EQ(json(R"({"a":1,"a":2})", ".a"), "2");
    EXPECT_EQ(json(R"({"a":{"b":1},"a":{"c":2}})", ".a.b"), "-");
    EXPECT_EQ(json(R"({"a":1,"a":null})", ".a"), "-");
}

TEST(Json_value, what_is_not_json_is_an_error_naming_the_record_wherever_the_fault_is) {
    for (const auto* const text : {"",
                                   "  ",
                                   "{",
                                   "[",
                                   "}",
                                   "{\"a\":1",
                                   "{\"a\":1]",
                                   "[1}",
                                   "{\"a\" 1}",
                                   "{a:1}",
                                   "{\"a\":1,}",
                                   "[1,]",
                                   "[1 2]",
                                   "[,1]",
                                   "{\"a\":1 \"b\":2}",
                                   "{\"a\":1}}",
                                   "{\"a\":1} x",
                                   "{\"a\":1}{\"a\":2}",
                                   "{\"a\":1} {\"a\":2}",
                                   "1 2",
                                   "\"a\" \"b\"",
                                   "\"a\"b",
                                   "12x",
                                   "tru",
                                   "truex",
                                   "nul",
                                   "nullx",
                                   "falsey",
                                   "True",
                                   "01",
                                   "-",
                                   "+1",
                                   "1.",
                                   ".5",
                                   "1e",
                                   "1e+",
                                   "0x1",
                                   "NaN",
                                   "'a'",
                                   "{\"a\":1,\"b\":tru}",
                                   "{\"a\":1,\"b\":01}",
                                   "{\"a\":1,\"b\":[1,}",
                                   "{\"a\":1,\"b\":\"\\x\"}",
                                   "{\"a\":1,\"\\x\":1}",
                                   "{\"a\":\"\\ud800\"}",
                                   "\"open",
                                   "{\"a\":\"open}",
                                   "{\"a\":1,\"b\":\"tab\there\"}",
                                   "{\"a\":1,\"b\":\"\xff\"}",
                                   "{\"a\":1,\"b\":\"\xc3\"}",
                                   "\xff",
                                   "[[]",
                                   "{\"b\":{}",
                                   "[{]}",
                                   "nulltrue",
                                   "1,2",
                                   "{\"a\":1},",
                                   "83.149.9.216 - - x"}) {
        const auto message = fault(text);
        EXPECT_TRUE(message.starts_with("record 7: not JSON: ")) << text << " -> " << message;
    }
    EXPECT_TRUE(fault("{\"a\":1}\0"s).starts_with("record 7: not JSON: "));
}

TEST(Json_value, says_what_is_wrong) {
    EXPECT_EQ(fault(""), "record 7: not JSON: it is empty");
    EXPECT_EQ(fault("{\"a\":\"b}"), "record 7: not JSON: a string is not closed");
    EXPECT_EQ(fault("{\"a\":\"\xff\"}"), "record 7: not JSON: it is not UTF-8");
    EXPECT_EQ(fault("1 2"), "record 7: not JSON: something follows the value");
    EXPECT_NE(fault("{\"a\":1,\"b\":tru}").find("bad syntax"), std::string::npos);
}

TEST(Json_value, survives_any_depth) {
    const auto nested = [](std::size_t depth) {
        return "{\"a\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + ",\"b\":5}";
    };
    EXPECT_EQ(json(nested(1'000), ".b"), "5");
    EXPECT_TRUE(fault(nested(1'001)).starts_with("record 7: not JSON: it is nested too deeply"));
    EXPECT_NE(fault(nested(1'000'000)), "");
    EXPECT_NE(fault(std::string(1'000'000, '[')), "");
    EXPECT_NE(fault(std::string(1'000'000, '{')), "");
}

TEST(Json_value, a_long_document_after_a_short_one_and_the_other_way_round) {
    for (const std::size_t size : {10U, 1'000'000U, 3U, 100'000U})
        EXPECT_EQ(json("{\"s\":\"" + std::string(size, 'x') + "\",\"a\":" + std::to_string(size) + "}", ".a"),
                  std::to_string(size));
}

TEST(Json_path, malformed_ones_are_refused_with_the_reason) {
    for (const auto* const text :
         {"",      "a",      ".",      "..",   ".a.",  ".a..b",  ".a b",    ".a[",
          ".a[x]", ".a[-1]", ".a[1",   ".a[]", ".\"a", ".[\"a]", ".[\"a\"", ".a[99999999999999999999]",
          ".a/b",  ".a,.b",  ".a[0]b", "[0]",  ".a|b"}) {
        const auto message = error_of<std::invalid_argument>([&] { json_path{text}; });
        EXPECT_TRUE(message.starts_with("'" + std::string(text) + "' is not a path in JSON: "))
            << text << " -> " << message;
    }
}

TEST(Json_path, has_its_steps) {
    const json_path path(R"(.a-b_$@.[3]["x]\"y"][0])");
    ASSERT_EQ(path.steps().size(), 4U);
    EXPECT_EQ(path.steps()[0].name, "a-b_$@");
    EXPECT_EQ(path.steps()[1].index, 3U);
    EXPECT_EQ(path.steps()[2].name, "x]\"y");
    EXPECT_FALSE(path.steps()[2].index);
    EXPECT_EQ(path.steps()[3].index, 0U);
}

// --- Keys

TEST(Key_selector, takes_the_whole_record) {
    EXPECT_EQ(key("{}", line(" a b ")), " a b ");
    EXPECT_EQ(key("{}", line("")), "");
    EXPECT_EQ(key("{}", row({"x"}), csv), "raw");
}

TEST(Key_selector, takes_fields_and_joins_them_by_a_tab) {
    EXPECT_EQ(key("2", line("a b c")), "b");
    EXPECT_EQ(key("1,3", line("a b c")), "a\tc");
    EXPECT_EQ(key("3,1,1", line("a b c")), "c\ta\ta");
    EXPECT_EQ(key("1,2", line(","), by(',')), "\t");
    EXPECT_EQ(key("2", row({"x", "y z"}), csv), "y z");
}

TEST(Key_selector, there_is_no_key_when_a_field_is_missing_but_an_empty_field_is_one) {
    EXPECT_EQ(key("4", line("a b c")), "-");
    EXPECT_EQ(key("1,4", line("a b c")), "-");
    EXPECT_EQ(key("1", line("")), "-");
    EXPECT_EQ(key("2", line("a,,c"), by(',')), "");
    EXPECT_EQ(key("1", line(""), by(',')), "");
}

TEST(Key_selector, takes_columns_by_name) {
    const strings header{"id", "full name", "a,b", ".path", "/x/", "2"};
    const auto r = row({"1", "2", "3", "4", "5", "6"});
    EXPECT_EQ(key("id", r, csv, header), "1");
    EXPECT_EQ(key("full name", r, csv, header), "2");
    EXPECT_EQ(key("id,full name", r, csv, header), "1\t2");
    EXPECT_EQ(key("full name,1", r, csv, header), "2\t1");
    EXPECT_EQ(key("a,b", r, csv, header), "3");
    EXPECT_EQ(key(".path", r, csv, header), "4");
    EXPECT_EQ(key("/x/", r, csv, header), "5");
    EXPECT_EQ(key("2", r, csv, header), "2"); // a number is a position
    EXPECT_EQ(refusal("name", csv, header), "-k name: the header has no column 'name'");
    EXPECT_EQ(refusal("id,", csv, header), "-k id,: the header has no column ''");
    EXPECT_EQ(refusal("id", csv, {"id", "id"}), "several columns are named 'id': give its number");
    EXPECT_EQ(refusal(".x", csv, header), "-k .x: the header has no such column (a path needs JSON)");
}

TEST(Key_selector, takes_a_path_in_json) {
    EXPECT_EQ(key(".user.id", line(R"({"user":{"id":"u1"}})")), "u1");
    EXPECT_EQ(key(".user.id", line("{}")), "-");
    EXPECT_EQ(key(".a", line(R"({"a":""})")), "");
    EXPECT_EQ(error_of<input_error>([] { key(".a", line("x")); }), "record 7: not JSON: bad syntax, near byte 1");
}

TEST(Key_selector, takes_the_group_of_a_regular_expression_or_the_match_without_one) {
    EXPECT_EQ(key("/id=([0-9]+)/", line("x id=42 id=43")), "42");
    EXPECT_EQ(key("/id=[0-9]+/", line("x id=42 id=43")), "id=42");
    EXPECT_EQ(key("/id=([0-9]*)/", line("id=;")), "");
    EXPECT_EQ(key("/id=([0-9]+)/", line("id=;")), "-");
    EXPECT_EQ(key("/x|id=([0-9]+)/", line("x")), "-"); // the group had no part in it
    EXPECT_EQ(key("/(?:a|b)(c)/", line("bc")), "c");
    EXPECT_EQ(key("/^(.*)\\//", line("a/b/c")), "a/b");
    EXPECT_EQ(key("/a/b/", line("xa/bx")), "a/b");
    EXPECT_EQ(key("/(?i)ID=(.)/", line("id=x")), "x");
    EXPECT_EQ(key("/a(.)b/", line("a\0b"s)), "\0"s);
    EXPECT_EQ(key("/^$/", line("")), "");
}

TEST(Key_selector, an_expression_matches_characters_or_bytes_where_there_are_none) {
    EXPECT_EQ(key("/name=(..)/", line("name=\xc3\xa9\xc3\xa8x")), "\xc3\xa9\xc3\xa8");
    EXPECT_EQ(key("/name=([^ ]+)/", line("name=caf\xe9-x y")), "caf\xe9-x");
    EXPECT_EQ(key("/name=(.*)/", line("name=\xff\xfe")), "\xff\xfe");
}

TEST(Key_selector, no_expression_overflows_the_stack_or_takes_forever) {
    const std::string text(1'000'000, 'a');
    EXPECT_EQ(key("/((?:a|b)*)/", line(text)), text);
    EXPECT_EQ(key("/(?:a*)*c/", line(text)), "-");
    EXPECT_EQ(key("/(?:a|aa)+$/", line(text + "b")), "-");
}

TEST(Key_selector, refuses_what_is_none_of_its_forms) {
    EXPECT_EQ(refusal(""), "-k: the key's expression is empty");
    EXPECT_EQ(refusal("0"), "-k 0: fields are counted from 1");
    EXPECT_EQ(refusal("1,0"), "-k 1,0: fields are counted from 1");
    for (const auto* const text :
         {"-1", "1,", ",1", "1,,2", "1-3", "1 2", "name", "{1}", "{", "2x", "99999999999999999999", "1;2"})
        EXPECT_TRUE(refusal(text).starts_with("-k " + std::string(text) + ": neither a field")) << text;
    EXPECT_EQ(refusal("name"),
              "-k name: neither a field (2), fields (1,3), a path in JSON (.user.id), /a regular expression/ "
              "nor {}");
}

TEST(Key_selector, refuses_bad_expressions) {
    EXPECT_EQ(refusal("/a"), "-k /a: a regular expression ends with a slash, too: /id=([0-9]+)/");
    EXPECT_EQ(refusal("/"), "-k /: a regular expression ends with a slash, too: /id=([0-9]+)/");
    EXPECT_EQ(refusal("//"), "-k //: the regular expression is empty");
    EXPECT_EQ(refusal("/(a)(b)/"),
              "-k /(a)(b)/: 2 groups, and one at most can be the key: write (?:...) for the others");
    EXPECT_TRUE(refusal("/(a/").starts_with("-k /(a/: "));
    EXPECT_TRUE(refusal("/a**/").starts_with("-k /a**/: "));
    EXPECT_TRUE(refusal("/(a)\\1/").starts_with("-k /(a)\\1/: "));
    EXPECT_TRUE(refusal("/a{5000}/").starts_with("-k /a{5000}/: "));
}

TEST(Key_selector, refuses_bad_paths_and_paths_in_csv) {
    EXPECT_TRUE(refusal(".").starts_with("-k: '.' is not a path in JSON: "));
    EXPECT_TRUE(refusal(".a,.b").starts_with("-k: '.a,.b' is not a path in JSON: "));
    EXPECT_EQ(refusal(".a", csv), "-k .a is a path in JSON, and the input is CSV");
}

TEST(Key_selector, tells_what_it_reads) {
    EXPECT_TRUE(key_selector(".a", white).needs_json());
    EXPECT_FALSE(key_selector(".a", white).needs_fields());
    EXPECT_TRUE(key_selector("1", white).needs_fields());
    EXPECT_FALSE(key_selector("1", white).needs_json());
    for (const auto* const text : {"{}", "/a/"}) {
        EXPECT_FALSE(key_selector(text, white).needs_json());
        EXPECT_FALSE(key_selector(text, white).needs_fields());
    }
}

TEST(Key_selector, can_be_moved) {
    key_selector a("1", white);
    key_selector b(std::move(a));
    EXPECT_EQ(b(line("x y")), "x");
    b = key_selector("2", white);
    EXPECT_EQ(b(line("x y")), "y");
}

} // namespace
} // namespace taskpool::cli
