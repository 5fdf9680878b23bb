#!/usr/bin/env python3
"""The checker of snippets finds what it is there to find."""

import contextlib
import io
import pathlib
import tempfile
import unittest

import check_snippets


class CheckSnippets(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        (self.root / "examples").mkdir()
        (self.root / "examples" / "one.cpp").write_text("int main() {\n    if (true) {\n        f();\n    }\n}\n")
        (self.root / "bin").mkdir()
        self.exe = self.root / "bin" / "taskpool"
        self.exe.write_text("#!/bin/sh\necho \"ran $1\"\n")
        self.exe.chmod(0o755)

    def check(self, page):
        (self.root / "README.md").write_text(page)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            status = check_snippets.main(["--exe", str(self.exe), str(self.root)])
        return status, output.getvalue()

    def passes(self, page):
        status, output = self.check(page)
        self.assertEqual(status, 0, output)

    def fails(self, page, because):
        status, output = self.check(page)
        self.assertEqual(status, 1, output)
        self.assertIn(because, output)

    def test_cpp_from_an_example(self):
        self.passes("```cpp\nif (true) {\n    f();\n}\n```\n")

    def test_cpp_from_an_example_of_several_files(self):
        (self.root / "examples" / "two").mkdir()
        (self.root / "examples" / "two" / "main.cpp").write_text("g();\n")
        self.passes("```cpp\ng();\n```\n")

    def test_cpp_indented_in_a_list(self):
        self.passes("- so:\n\n  ```cpp\n  if (true) {\n      f();\n  }\n  ```\n")

    def test_cpp_from_nowhere(self):
        self.fails("```cpp\ng();\n```\n", "README.md:1: this C++")

    def test_cpp_with_other_inner_indentation(self):
        self.fails("```cpp\nif (true) {\n  f();\n}\n```\n", "this C++")

    def test_exempt(self):
        self.passes("<!-- not run: a sketch -->\n```cpp\ng();\n```\n\n<!-- not run: slow -->\n```sh\nfalse\n```\n")

    def test_exempt_without_a_reason(self):
        self.fails("<!-- not run: -->\n```sh\ntrue\n```\n", "mark it")

    def test_sh_without_a_mark(self):
        self.fails("<!-- run -->\nwords between\n```sh\ntrue\n```\n", "mark it")

    def test_sh_that_works(self):
        self.passes("<!-- run -->\n```sh\ntaskpool x > out\n```\n\n<!-- run -->\n```sh\ngrep -q 'ran x' out\n```\n")

    def test_sh_that_fails(self):
        self.fails("<!-- run -->\n```sh\nfalse\ntrue\n```\n", "exit status 1")

    def test_sh_that_prints_what_is_expected(self):
        self.passes("<!-- run: expect -->\n```sh\ntaskpool y\n```\n\nIt prints:\n\n```text\nran y\n```\n")

    def test_sh_that_prints_something_else(self):
        self.fails("<!-- run: expect -->\n```sh\ntaskpool y\n```\n```text\nran z\n```\n", "it printed\nran y")

    def test_sh_with_nothing_expected(self):
        self.fails("<!-- run: expect -->\n```sh\ntaskpool y\n```\n", "no ```text block")


if __name__ == "__main__":
    unittest.main()
