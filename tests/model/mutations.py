#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Weakens each memory order of the core that is not relaxed, and leaves out each second look, one at a time, and shows
which of the model tests fails.

A mutation that no test notices is a survivor: either the tests do not reach it, or something else does the same, or it
is not needed. docs/model-checking.md says which is which. Works on a copy, in build/mutations.
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
# Second looks, at what may have changed since the first one or before somebody was told to say so: the file, the text
# that stands there once, what stands there without the look, and what it is.
SECOND_LOOKS = [
    ("worker.cpp", "(ends || (core.any_ready() &&", "(ends || (false &&", "a worker that parks looks at the queues"),
    ("worker.cpp", "searching_ = core.workers_at.begin_search();", "", "a worker that found work then searches on"),
    ("worker.cpp", "core.wake_if_ready(); // lanes", "{} // lanes", "who ends a search looks for further lanes"),
    ("worker.cpp", "if (core.let_go(l))\n                return false;", "core.let_go(l);\n            return false;",
     "a lane that is let go may have got a job"),
    ("elastic.cpp", "if (!any_ready())\n        return;", "if (true)\n        return;",
     "who comes to be blocked looks for lanes that wait"),
    ("elastic.cpp", "bool woken = any_ready() || ", "bool woken = ", "the keeper looks for ready lanes before it sleeps"),
    ("elastic.cpp", "!waiting_room.is_empty() || retry", "retry", "the keeper looks for submitters before it sleeps"),
    ("elastic.cpp", "!= sequence)\n                unblock(*w);", "!= sequence) {\n            }",
     "a job may have ended while it was marked as blocked"),
    ("suspension.cpp", "static_cast<std::uint32_t>(l.taken.load(std::memory_order_relaxed)))\n        return false;",
     "static_cast<std::uint32_t>(l.taken.load(std::memory_order_relaxed)) && false)\n        return false;",
     "a lane that goes idle may have got a job"),
    ("suspension.cpp", "} else if (!e->resumes) {", "} else if (true) {",
     "what a coroutine waits for may have come before it was suspended"),
    ("submit.cpp", "if (!claim_room(l, in_pool)) {", "if (!claim_room(l, in_pool) || true) {",
     "there may be room by the time a submitter sleeps"),
    ("drain.cpp", "if (look(second) && first == second)", "if (second == 0)", "idle twice, not once"),
    ("drain.cpp", "if (look(second) && first == second)", "if (look(second))", "nothing was accepted in between"),
    ("drain.cpp", "const auto epoch = quiet_epoch_;\n        lock.unlock();\n        if (is_quiet())\n            return true;\n"
     "        lock.lock();\n", "lock.unlock();\n        if (is_quiet())\n            return true;\n        lock.lock();\n"
     "        const auto epoch = quiet_epoch_;\n", "a change may come between the look and the wait"),
]
ORDER = re.compile(r"std::memory_order_(acquire|release|acq_rel|seq_cst)\b")
TEST_LIMIT = 1800  # seconds: a test that hangs has failed


def mutations(folder):
    """All of them, as (path, text of the whole file with it, what it is)."""
    for path in sorted(folder.glob("*.[ch]pp")):
        text = path.read_text()
        for match in ORDER.finditer(text):
            line_begin = text.rfind("\n", 0, match.start()) + 1
            if "//" in text[line_begin : match.start()]:
                continue
            for weaker in WEAKER[match[1]]:
                mutated = f"{text[:match.start()]}std::memory_order_{weaker}{text[match.end():]}"
                line = text.count("\n", 0, match.start()) + 1
                yield path, mutated, f"src/{path.name}:{line}: {match[1]} -> {weaker}"
        for _, look, without, what in (look for look in SECOND_LOOKS if look[0] == path.name):
            if text.count(look) != 1:
                sys.exit(f"src/{path.name}: to leave out that {what}, this should stand there once: {look}")
            line = text.count("\n", 0, text.index(look)) + 1
            yield path, text.replace(look, without), f"src/{path.name}:{line}: without: {what}"


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
    name = re.search(r"^\[  FAILED  \] (\S+)", done.stdout, re.M)
    why = re.search(r'Which is: "(.*?)\\n', done.stdout) or re.search(r"^model: (signal \d+)", done.stderr, re.M)
    return f"{name[1] if name else '?'}: {why[1] if why else 'exit status %d' % done.returncode}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("files", nargs="*", help="names of files in src; all of them by default")
    arguments = parser.parse_args()
    if arguments.list:
        for _, _, what in mutations(ROOT / "src"):
            print(what)
        return

    tree, build = WORK / "tree", WORK / "build"
    tree.mkdir(parents=True, exist_ok=True)
    make_copy(tree)
    configure(tree, build)
    if not arguments.files and (found := test(build)):
        sys.exit(f"without a mutation a test fails: {found}")

    survivors, count = [], 0
    for path, mutated, what in list(mutations(tree / "src")):
        if arguments.files and path.name not in arguments.files:
            continue
        original = path.read_text()
        path.write_text(mutated)
        found = test(build)
        path.write_text(original)
        print(f"{what}: {found or 'SURVIVES'}", flush=True)
        count += 1
        if found is None:
            survivors.append(what)
    print(f"{count} mutations, {len(survivors)} survive")
    for what in survivors:
        print(f"  {what}")


if __name__ == "__main__":
    main()
