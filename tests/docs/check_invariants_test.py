#!/usr/bin/env python3
"""The checker of invariants finds what it is there to find."""

import contextlib
import io
import pathlib
import tempfile
import unittest

import check_invariants

HEADER = "// A lane.\n//\n//   I-LANE-1  It is somewhere,\n//             always.\n//   I-LANE-2  It is there once.\n"
CODE = "void f() {\n    assert(here); // I-LANE-1\n    assert(here &&\n           once); // I-LANE-2: not twice\n}\n"
TEST = "// I-LANE-1, I-LANE-2\nTEST(Lane, is_somewhere) {\n}\n"
PAGE = "| id | file | says |\n|---|---|---|\n| I-LANE-1, 2 | [lane.hpp](../src/lane.hpp) | where |\n"


class CheckInvariants(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        self.write("src/lane.hpp", HEADER)
        self.write("src/lane.cpp", CODE)
        self.write("tests/core/lane_test.cpp", TEST)
        self.write("docs/design.md", PAGE)

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def check(self):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            status = check_invariants.main([str(self.root)])
        return status, output.getvalue()

    def passes(self):
        status, output = self.check()
        self.assertEqual(status, 0, output)

    def fails(self, because):
        status, output = self.check()
        self.assertEqual(status, 1, output)
        self.assertIn(because, output)
        self.assertIn("\n1 faults", "\n" + output)

    def test_all_is_well(self):
        self.passes()

    def test_a_range_in_the_table(self):
        self.write("docs/design.md", PAGE.replace("1, 2", "1 ... 2"))
        self.passes()

    def test_asserted_nowhere(self):
        self.write("src/lane.cpp", CODE.replace("// I-LANE-1", "// here"))
        self.fails("src/lane.hpp: I-LANE-1 is asserted nowhere")

    def test_named_beside_what_is_no_assertion(self):
        self.write("src/lane.cpp", CODE.replace("assert(here);", "static_assert(here);"))
        self.fails("I-LANE-1 is asserted nowhere")

    def test_checked_by_something_else(self):
        self.write("src/lane.cpp", CODE.replace("// I-LANE-1", "// here"))
        self.write("src/lane.hpp", HEADER.replace("always.", "always. [checked by: the explorer]"))
        self.passes()

    def test_checked_by_something_else_of_another_one(self):
        self.write("src/lane.cpp", CODE.replace("// I-LANE-2", "// once"))
        self.write("src/lane.hpp", HEADER.replace("always.", "always. [checked by: the explorer]"))
        status, output = self.check()
        self.assertIn("I-LANE-2 is asserted nowhere", output)

    def test_checked_by_nobody(self):
        self.write("src/lane.cpp", CODE.replace("// I-LANE-1", "// here"))
        self.write("src/lane.hpp", HEADER.replace("always.", "always. [checked by: ]"))
        self.fails("I-LANE-1 is asserted nowhere")

    def test_asserted_and_excused(self):
        self.write("src/lane.hpp", HEADER.replace("always.", "always. [checked by: the explorer]"))
        self.fails("I-LANE-1 is asserted, and excused from that")

    def test_in_no_test(self):
        self.write("tests/core/lane_test.cpp", TEST.replace("I-LANE-1, ", ""))
        self.fails("src/lane.hpp: I-LANE-1 is in no test")

    def test_used_and_not_declared(self):
        self.write("include/lane.hpp", "// see I-LANE-3\n")
        self.fails("include/lane.hpp:1: I-LANE-3 is declared nowhere")

    def test_declared_twice(self):
        self.write("src/table.hpp", "//   I-LANE-1  It is elsewhere.\n")
        self.fails("I-LANE-1 is declared in src/lane.hpp, too")

    def test_not_in_the_table(self):
        self.write("docs/design.md", PAGE.replace("1, 2", "1"))
        self.fails("I-LANE-2 stands 0 times in the table")

    def test_in_the_table_and_not_declared(self):
        self.write("docs/design.md", PAGE.replace("1, 2", "1 ... 3"))
        self.fails("docs/design.md:3: I-LANE-3 is declared nowhere")

    def test_in_the_table_with_another_file(self):
        self.write("docs/design.md", PAGE.replace("../src/lane.hpp", "../src/table.hpp"))
        status, output = self.check()
        self.assertEqual(status, 1)
        self.assertIn("docs/design.md:3: I-LANE-1 is declared in src/lane.hpp, not in src/table.hpp", output)

    def test_the_client_s_need_no_assertion_and_no_test(self):
        self.write("cli/intake.hpp", "// I-IN-1: of each key one.\n")
        self.write("docs/design.md", PAGE + "| I-IN-1 | [intake.hpp](../cli/intake.hpp) | one |\n")
        self.passes()

    def test_the_tests_own_need_no_table(self):
        self.write("tests/model/memory.hpp", "//   I-MEMORY-1  A load yields a store.\n")
        self.passes()

    def order(self, lines):
        self.write("src/order.cpp", lines)

    def test_an_order_with_its_reason(self):
        self.order("x.load(std::memory_order_relaxed); // a figure by itself\n")
        self.passes()
        self.order("// relaxed: a figure by itself.\nf(x.load(std::memory_order_relaxed),\n  0);\n")
        self.passes()
        self.order("f(x.load(std::memory_order_relaxed),\n  0); // a figure by itself\n")
        self.passes()
        self.order("bool f() {\n    return x.load(std::memory_order_relaxed);\n} // see g\n")
        self.passes()

    def test_an_order_without_one(self):
        self.order("x.load(std::memory_order_relaxed);\n")
        self.fails("src/order.cpp:1: this memory order has no reason near")

    def test_an_order_with_a_comment_about_something_else_above(self):
        self.order("// The number of jobs.\nx.load(std::memory_order_relaxed);\n")
        self.fails("src/order.cpp:2: this memory order")

    def test_an_order_far_below_a_reason(self):
        self.order("// relaxed: a figure.\n" + "f();\n" * 10 + "x.load(std::memory_order_relaxed);\n")
        self.fails("src/order.cpp:12: this memory order")

    def test_an_order_in_a_comment(self):
        self.order("// not std::memory_order_relaxed\n")
        self.passes()


if __name__ == "__main__":
    unittest.main()
