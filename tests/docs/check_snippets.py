#!/usr/bin/env python3
"""Checks that every snippet in README.md and docs/*.md is compiled or run.

  ```cpp   must stand, word for word but for its indentation, in a *.cpp of examples, each of which is built and run.
  ```sh    after <!-- run --> is run by sh -e, in a folder that the snippets of one page share and that begins with
           what is in tests/docs/files, with the built taskpool first in PATH; it must succeed. After
           <!-- run: expect --> it must also print exactly the ```text block that follows.

A block after <!-- not run: REASON --> is exempt. Other languages are not looked at. Prints a line for each fault and
exits 1 if there is one.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap

FENCE = re.compile(r"^(\s*)(```+|~~~+)\s*(\w*)\s*$")
MARKER = re.compile(r"^\s*<!--\s*(.*?)\s*-->\s*$")
SECONDS_PER_SNIPPET = 60


class Block:
    def __init__(self, line, language, marker, text):
        self.line = line
        self.language = language
        self.marker = marker  # text of the comment right before it, or ""
        self.text = text

    def exempt(self):
        return re.match(r"not run:\s*\S", self.marker) is not None


def blocks(page_text):
    found = []
    marker = ""
    lines = iter(enumerate(page_text.splitlines(), start=1))
    for number, line in lines:
        fence = FENCE.match(line)
        if fence:
            body = []
            for _, inner in lines:
                if inner.strip() == fence[2]:
                    break
                body.append(inner)
            found.append(Block(number, fence[3], marker, textwrap.dedent("\n".join(body) + "\n")))
            marker = ""
        elif MARKER.match(line):
            marker = MARKER.match(line)[1]
        elif line.strip():
            marker = ""
    return found


def plain(lines):
    """The lines without common indentation and trailing blanks."""
    return [line.rstrip() for line in textwrap.dedent("\n".join(lines)).split("\n")]


def stands_in(snippet, source):
    wanted = plain(snippet.strip("\n").split("\n"))
    lines = source.split("\n")
    starts = (i for i, line in enumerate(lines) if line.strip() == wanted[0].strip())
    return any(plain(lines[i : i + len(wanted)]) == wanted for i in starts)


def run(block, folder, exe):
    """What was printed, and what went wrong or None."""
    environment = dict(os.environ, PATH=f"{exe.parent}{os.pathsep}{os.environ['PATH']}")
    try:
        done = subprocess.run(["sh", "-e", "-c", block.text], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=SECONDS_PER_SNIPPET)
    except subprocess.TimeoutExpired:
        return "", f"ran longer than {SECONDS_PER_SNIPPET} s"
    fault = None if done.returncode == 0 else f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout, fault


def faults_of(page, examples, folder, exe):
    found = blocks(page.read_text())
    for i, block in enumerate(found):
        where = f"{page}:{block.line}:"
        if block.exempt():
            continue
        if block.language == "cpp":
            if not any(stands_in(block.text, source) for source in examples):
                yield f"{where} this C++ is in no *.cpp of examples"
        elif block.language == "sh":
            if block.marker not in ("run", "run: expect"):
                yield f"{where} mark it <!-- run -->, <!-- run: expect --> or <!-- not run: REASON -->"
            elif exe:
                printed, fault = run(block, folder, exe)
                expected = found[i + 1] if i + 1 < len(found) else None
                if fault:
                    yield f"{where} {fault}"
                elif block.marker == "run: expect" and (expected is None or expected.language != "text"):
                    yield f"{where} no ```text block follows it"
                elif block.marker == "run: expect" and printed != expected.text:
                    yield f"{where} it printed\n{printed}"


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, help="the repository's root")
    parser.add_argument("--exe", type=pathlib.Path, help="the built taskpool; without it no sh block is run")
    options = parser.parse_args(arguments)

    root = options.source
    pages = [page for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))] if page.exists()]
    examples = [source.read_text() for source in sorted((root / "examples").rglob("*.cpp"))]
    exe = options.exe.resolve() if options.exe else None
    files = root / "tests" / "docs" / "files"

    bad = 0
    for page in pages:
        with tempfile.TemporaryDirectory() as folder:
            if files.is_dir():
                shutil.copytree(files, folder, dirs_exist_ok=True)
            for fault in faults_of(page, examples, folder, exe):
                print(fault)
                bad += 1
    print(f"{len(pages)} pages, {bad} faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
