#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Weakens each memory order of the core that is not relaxed, one at a time, and shows which of the model tests fails.

An order whose weakening no test notices is a survivor: either the tests do not reach it, or something else orders the
same, or the order is not needed. docs/model-checking.md says which is which. Works on a copy, in build/mutations.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutations"
WEAKER = {
    "acquire": ["relaxed"],
    "release": ["relaxed"],
    "acq_rel": ["relaxed", "acquire", "release"],
    "seq_cst": ["relaxed"],
}
ORDER = re.compile(r"std::memory_order_(acquire|release|acq_rel|seq_cst)\b")
TEST_LIMIT = 1800  # seconds: a test that hangs has failed


def sites(folder):
    """Where a file of the folder names such an order in code: path, offset, order, line number."""
    for path in sorted(folder.glob("*.[ch]pp")):
        text = path.read_text()
        for match in ORDER.finditer(text):
            line_begin = text.rfind("\n", 0, match.start()) + 1
            if "//" not in text[line_begin : match.start()]:
                yield path, match.start(), match[1], text.count("\n", 0, match.start()) + 1


def make_copy(tree):
    # Times are kept, so that what was built stays built.
    for part in ["include", "src", "cmake", "tests"]:
        shutil.rmtree(tree / part, ignore_errors=True)
        shutil.copytree(ROOT / part, tree / part)
    shutil.copy2(ROOT / "CMakeLists.txt", tree)


def configure(tree, build):
    options = {"CMAKE_BUILD_TYPE": "Debug", "TASKPOOL_BUILD_MODEL": "ON", "TASKPOOL_INSTALL": "OFF"}
    options |= {f"TASKPOOL_BUILD_{part}": "OFF" for part in ["CLI", "EXAMPLES", "BENCH"]}
    command = ["cmake", "-G", "Ninja", "-S", tree, "-B", build, *(f"-D{k}={v}" for k, v in options.items())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def test(build):
    """The first test that fails and how, or None."""
    done = subprocess.run(
        ["cmake", "--build", build, "--target", "model_tests"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        sys.exit(done.stdout)
    # The explorer's tests of itself use the core's orders for nothing but its locks.
    command = [build / "tests/model/model_tests", "--gtest_fail_fast", "--gtest_filter=-Explorer.*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TEST_LIMIT)
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode == 0:
        return None
    began = re.findall(r"^\[ RUN +\] (\S+)", done.stdout, re.M)
    why = re.search(r'Which is: "(.*?)\\n', done.stdout) or re.search(r"^model: (signal \d+)", done.stderr, re.M)
    return f"{began[-1] if began else '?'}: {why[1] if why else 'exit status %d' % done.returncode}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", help="names of files in src; all of them by default")
    arguments = parser.parse_args()

    tree, build = WORK / "tree", WORK / "build"
    tree.mkdir(parents=True, exist_ok=True)
    make_copy(tree)
    configure(tree, build)
    if not arguments.files and (found := test(build)):
        sys.exit(f"without a mutation a test fails: {found}")

    survivors, count = [], 0
    for path, offset, order, line in sites(tree / "src"):
        if arguments.files and path.name not in arguments.files:
            continue
        original = path.read_text()
        for weaker in WEAKER[order]:
            name = f"memory_order_{order}"
            begin = offset + len("std::")
            path.write_text(original[:begin] + f"memory_order_{weaker}" + original[begin + len(name) :])
            what = f"src/{path.name}:{line}: {order} -> {weaker}"
            found = test(build)
            print(f"{what}: {found or 'SURVIVES'}", flush=True)
            count += 1
            if found is None:
                survivors.append(what)
        path.write_text(original)
    print(f"{count} mutations, {len(survivors)} survive")
    for what in survivors:
        print(f"  {what}")


if __name__ == "__main__":
    main()
