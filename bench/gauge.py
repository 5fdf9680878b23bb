#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gauge.py PROGRAM [--accept]: what a job costs in instructions and allocations, which no load of the machine changes.

Instructions are those of submitting and running a 16-byte job, counted by callgrind: the difference between two numbers
of jobs, so that starting and ending do not count. Allocations are counted for a job that finds no other one waiting
(steady) and for many that wait (backlog). All are compared with gauge.json: more instructions by over 3 %, or more
allocations, fail. --accept records the present ones.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

RECORDED = pathlib.Path(__file__).resolve().parent / "gauge.json"
WAYS = ("known", "new", "handle")
FEW, MANY = 10_000, 30_000
MOST_MORE = 0.03
ALLOCATION_STEP = 0.005  # less than this is rounding


def output_of(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        sys.exit(f"gauge: failed: {' '.join(map(str, command))}\n{done.stderr}")
    return done


def instructions(program, way, jobs):
    with tempfile.NamedTemporaryFile(prefix="taskpool-gauge.") as out:
        done = output_of("valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", program, way, str(jobs))
    return int(re.search(r"Collected : (\d+)", done.stderr).group(1)), int(done.stdout)


def least(one, other):
    return {way: {what: min(value, other[way][what]) for what, value in costs.items()} for way, costs in one.items()}


def measure(program):
    costs = {}
    for way in WAYS:
        (few, allocated_few), (many, allocated_many) = (instructions(program, way, jobs) for jobs in (FEW, MANY))
        costs[way] = {
            "instructions": round((many - few) / (MANY - FEW)),
            "allocations_steady": float(output_of(program, way, "steady").stdout),
            "allocations_backlog": round((allocated_many - allocated_few) / (MANY - FEW), 3),
        }
    return costs


def compare(now, before, same_tools):
    """The lines of what is worse."""
    worse = []
    for way in WAYS:
        for what, value in now[way].items():
            recorded = before[way][what]
            if what == "instructions":
                if same_tools and value > recorded * (1 + MOST_MORE):
                    worse.append(f"{way}: {value} instructions a job, {value / recorded - 1:.1%} more than the "
                                 f"{recorded} recorded")
            elif value > recorded + ALLOCATION_STEP:
                worse.append(f"{way}: {value:g} {what.replace('_', ' ')} a job, more than the {recorded:g} recorded")
    return worse


def main(arguments):
    if len(arguments) not in (1, 2) or arguments[1:] not in ([], ["--accept"]):
        print("usage: gauge.py PROGRAM [--accept]", file=sys.stderr)
        return 2
    program = arguments[0]
    tools = output_of(program, "made", "by").stdout.strip()
    now = measure(program)
    for way, costs in now.items():
        print(f"{way:6}  {costs['instructions']:6} instructions, {costs['allocations_steady']:g} allocations a job "
              f"({costs['allocations_backlog']:g} in a backlog)")
    if "--accept" in arguments:
        RECORDED.write_text(json.dumps({"made_by": tools, "costs": now}, indent=2) + "\n")
        print(f"recorded in bench/{RECORDED.name}")
        return 0
    recorded = json.loads(RECORDED.read_text())
    same_tools = recorded["made_by"] == tools
    if not same_tools:
        print(f"gauge: made by {tools}; the recorded instructions, by {recorded['made_by']}, are not compared")
    worse = compare(now, recorded["costs"], same_tools)
    if worse:  # a sweep of the lanes or a spin may have come between: once more
        worse = compare(least(now, measure(program)), recorded["costs"], same_tools)
    for line in worse:
        print(f"gauge: {line}", file=sys.stderr)
    if worse:
        print("gauge: if that is the price of the change, record it: ./dev gauge --accept", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
