#!/usr/bin/env python3
"""Checks that what the sources say of themselves is kept: invariants and memory orders.

An invariant is declared at the top of a file in src or cli, by its id at the beginning of a line and two spaces, or a
colon: `//   I-LANE-1  An idle lane ...`.

  declared   Every id that is used anywhere is declared, once. The table in docs/design.md lists those of src and cli,
             each with its file: `| I-LANE-1 ... 7 | [lane.hpp](../src/lane.hpp) | ... |`.
  asserted   Each of src stands in the comment of an assertion in src: `assert(condition); // I-LANE-1`. Where no place
             can see whether it holds, its declaration says who does: `[checked by: the explorer]`.
  tested     Each of src stands in a comment of a *.cpp in tests, at the test that would fail without it.
  reasons    Each memory order in src and include has its reason: a comment in its statement, or one within the few
             lines above that names an order, or says where the reason is (`see ...`, `as above`).

Prints a line for each fault and exits 1 if there is one.
"""

import argparse
import collections
import pathlib
import re
import sys

ID = re.compile(r"\bI-[A-Z]+-\d+\b")
DECLARATION = re.compile(r"^\s*//\s+(I-[A-Z]+-\d+)(?:  +|: )\S")
COMMENT = re.compile(r"//(.*)$")
CHECKED_BY = re.compile(r"\[checked by: [^\]]+\]")
ASSERT = re.compile(r"(?<![A-Za-z_])assert\(")
ROW = re.compile(r"^\| (I-[A-Z]+)-(\d+)(?:( \.\.\. |, )(\d+))? \| \[[^\]]+\]\(\.\./([^)]+)\) \|")
REASON = re.compile(
    r"\b(relaxed|acquires?|releases?|acq_rel|seq_cst)\b|\bpairs with\b|\bsee\b|\bas (above|before|in)\b", re.IGNORECASE
)
LINES_ABOVE = 6


def read(root, folder, *endings):
    """The lines of the folder's files, by their paths from the root."""
    found = {}
    for path in sorted((root / folder).rglob("*")):
        if path.suffix in endings:
            found[str(path.relative_to(root))] = path.read_text().split("\n")
    return found


def comment_of(line):
    found = COMMENT.search(line)
    return found[1] if found else ""


def code_of(line):
    return COMMENT.sub("", line)


def statement_at(lines, i):
    """The lines from the one at i to the end of its statement, or to where a block begins or ends."""
    end = i
    while end + 1 < len(lines) and not re.search(r"[;{}]\s*$", code_of(lines[end])):
        end += 1
    if end + 1 < len(lines) and code_of(lines[end + 1]).strip() == "}":
        end += 1  # of a function in a line, the formatter puts a long comment there
    return lines[i : end + 1]


def declarations(files):
    """Of each file: id, line number, and whether it says who checks it."""
    for path, lines in files.items():
        for i, line in enumerate(lines):
            found = DECLARATION.match(line)
            if not found:
                continue
            text = line
            for more in lines[i + 1 :]:
                if not re.match(r"^\s*//\s+\S", more) or DECLARATION.match(more):
                    break
                text += " " + more.strip(" /")
            yield found[1], path, i + 1, CHECKED_BY.search(text) is not None


def asserted(sources):
    ids = set()
    for lines in sources.values():
        for i, line in enumerate(lines):
            if ASSERT.search(code_of(line)):
                for part in statement_at(lines, i):
                    ids.update(ID.findall(comment_of(part)))
    return ids


def tested(tests):
    return {found for lines in tests.values() for line in lines for found in ID.findall(comment_of(line))}


def table(page):
    """The ids that the page lists, with line number and file."""
    for number, line in enumerate(page, start=1):
        row = ROW.match(line)
        if row:
            first = int(row[2])
            for n in range(first, int(row[4] or first) + 1):
                yield f"{row[1]}-{n}", number, row[5]


def orders_without_reason(files):
    for path, lines in files.items():
        for i, line in enumerate(lines):
            if "memory_order_" not in code_of(line):
                continue
            above = lines[max(0, i - LINES_ABOVE) : i]
            if not any(comment_of(part) for part in statement_at(lines, i)) and not any(
                REASON.search(comment_of(part)) for part in above
            ):
                yield f"{path}:{i + 1}: this memory order has no reason near"


def faults_of(root):
    sources = read(root, "src", ".hpp", ".cpp")
    headers = read(root, "include", ".hpp")
    client = read(root, "cli", ".hpp", ".cpp")
    tests = read(root, "tests", ".hpp", ".cpp")
    pages = read(root, "docs", ".md")

    declared = {}
    excused = set()
    helpers = {path: lines for path, lines in tests.items() if path.endswith(".hpp")}
    for name, path, number, is_excused in declarations({**sources, **client, **helpers}):
        if name in declared:
            yield f"{path}:{number}: {name} is declared in {declared[name]}, too"
        declared.setdefault(name, path)
        if is_excused:
            excused.add(name)

    listed = collections.Counter()
    used = [(name, "docs/design.md", number) for name, number, _ in table(pages.get("docs/design.md", []))]
    for path, lines in {**sources, **headers, **client, **tests, **pages}.items():
        for number, line in enumerate(lines, start=1):
            used += [(name, path, number) for name in ID.findall(line)]
    for name, path, number in sorted(set(used)):
        if name not in declared:
            yield f"{path}:{number}: {name} is declared nowhere"
    for name, number, path in table(pages.get("docs/design.md", [])):
        listed[name] += 1
        if declared.get(name, path) != path:
            yield f"docs/design.md:{number}: {name} is declared in {declared[name]}, not in {path}"

    in_assertions = asserted(sources)
    in_tests = tested({path: lines for path, lines in tests.items() if path.endswith(".cpp")})
    for name, path in declared.items():
        if path in tests:
            continue
        if listed[name] != 1:
            yield f"{path}: {name} stands {listed[name]} times in the table of docs/design.md"
        if path in client:
            continue
        if name not in in_assertions and name not in excused:
            yield f"{path}: {name} is asserted nowhere"
        if name in in_assertions and name in excused:
            yield f"{path}: {name} is asserted, and excused from that"
        if name not in in_tests:
            yield f"{path}: {name} is in no test"

    yield from orders_without_reason({**sources, **headers})


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, help="the repository's root")
    options = parser.parse_args(arguments)

    faults = list(faults_of(options.source))
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
