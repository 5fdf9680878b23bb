#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gauge.py PROGRAM [--accept]: what a job costs in instructions and allocations, which no load of the machine changes.

Instructions are those of submitting and running a 16-byte job, counted by callgrind: the difference between two numbers
of jobs, so that starting and ending do not count. A run counts more where a spin or a sweep comes between, or where
the keeper wakes late, since until then the worker reads the clock itself: so of several runs the least counts.
Allocations are counted for a job that finds no other one waiting (steady) and for many that wait (backlog). All are
compared with gauge.json: more instructions by over 3 %, or more allocations, fail. --accept records the present ones.
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
MOST_RUNS, RUNS_TO_ACCEPT = 5, 3


def output_of(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        sys.exit(f"gauge: failed: {' '.join(map(str, command))}\n{done.stderr}")
    return done


def instructions(program, way, jobs):
    with tempfile.NamedTemporaryFile(prefix="taskpool-gauge.") as out:
        done = output_of("valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", program, way, str(jobs))
    return int(re.search(r"Collected : (\d+)", done.stderr).group(1)), int(done.stdout)


class Gauge:
    """The least of all runs so far."""

    def __init__(self, program):
        self.program = program
        self.least = {}  # by way and number of jobs: instructions and allocations of all of them
        self.steady = {}  # by way: allocations of a job

    def run(self):
        for way in WAYS:
            for jobs in (FEW, MANY):
                counted = instructions(self.program, way, jobs)
                self.least[way, jobs] = tuple(map(min, counted, self.least.get((way, jobs), counted)))
            steady = float(output_of(self.program, way, "steady").stdout)
            self.steady[way] = min(steady, self.steady.get(way, steady))

    def costs(self):
        of_a_job = {way: [(many - few) / (MANY - FEW) for few, many in zip(self.least[way, FEW], self.least[way, MANY])]
                    for way in WAYS}
        return {way: {"instructions": round(of_a_job[way][0]), "allocations_steady": self.steady[way],
                      "allocations_backlog": round(of_a_job[way][1], 3)} for way in WAYS}


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


def show(costs):
    for way, of_a_job in costs.items():
        print(f"{way:6}  {of_a_job['instructions']:6} instructions, {of_a_job['allocations_steady']:g} allocations a job "
              f"({of_a_job['allocations_backlog']:g} in a backlog)")


def main(arguments):
    if len(arguments) not in (1, 2) or arguments[1:] not in ([], ["--accept"]):
        print("usage: gauge.py PROGRAM [--accept]", file=sys.stderr)
        return 2
    program = arguments[0]
    tools = output_of(program, "made", "by").stdout.strip()
    gauge = Gauge(program)
    if "--accept" in arguments:
        for _ in range(RUNS_TO_ACCEPT):
            gauge.run()
        show(gauge.costs())
        RECORDED.write_text(json.dumps({"made_by": tools, "costs": gauge.costs()}, indent=2) + "\n")
        print(f"recorded in bench/{RECORDED.name}")
        return 0
    recorded = json.loads(RECORDED.read_text())
    same_tools = recorded["made_by"] == tools
    for _ in range(MOST_RUNS):
        gauge.run()
        worse = compare(gauge.costs(), recorded["costs"], same_tools)
        if not worse:
            break
    show(gauge.costs())
    if not same_tools:
        print(f"gauge: made by {tools}; the recorded instructions, by {recorded['made_by']}, are not compared")
    for line in worse:
        print(f"gauge: {line}", file=sys.stderr)
    if worse:
        print("gauge: if that is the price of the change, record it: ./dev gauge --accept", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
