#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmark's programs, peers in turn, and prints tables; `./dev bench` builds them and calls it.

docs/performance.md says what is measured, and how to read it.
"""

import argparse
import ctypes
import datetime
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import catalogue  # noqa: E402
import report  # noqa: E402

ROUNDS = 5
QUICK_ROUNDS = 3
# A run that took longer than this is not repeated: its noise is small beside that.
LONG_RUN_S = 20


class Arguments(argparse.ArgumentParser):
    def error(self, message):
        print(f"bench: {message}", file=sys.stderr)
        sys.exit(2)


def parse(argv):
    parser = Arguments(prog="./dev bench", description="Compares taskpool with its peers.", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help=f"fewer jobs, {QUICK_ROUNDS} rounds; not to be quoted")
    parser.add_argument("--peer", action="append", metavar="P", help="only this one; may be repeated")
    parser.add_argument("--workload", action="append", metavar="W", help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"how often each is run (default: {ROUNDS})")
    parser.add_argument("--json", metavar="FILE", help="write all results there")
    parser.add_argument("--chart", metavar="FILE.svg", help="draw one there (needs matplotlib)")
    parser.add_argument("--timeout", type=float, metavar="S", help="for one program (default: 180; 30 with --quick)")
    parser.add_argument("--programs", metavar="DIR", default=HERE.parent / "build/bench/bench/peers",
                        help=argparse.SUPPRESS)
    how = parser.parse_args(argv)
    how.peers = choose(parser, "peer", catalogue.PEERS, how.peer)
    how.workloads = choose(parser, "workload", catalogue.WORKLOADS, how.workload)
    if how.rounds is None:
        how.rounds = QUICK_ROUNDS if how.quick else ROUNDS
    if how.rounds < 1:
        parser.error("--rounds wants a number above 0")
    if how.timeout is None:
        how.timeout = 30 if how.quick else 180
    for file in (how.json, how.chart):
        if file and not pathlib.Path(file).resolve().parent.is_dir():
            parser.error(f"no such folder: {pathlib.Path(file).parent}")
    if how.chart:
        if not how.chart.endswith(".svg"):
            parser.error("--chart wants a name that ends in .svg")
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            parser.error("--chart needs matplotlib for this Python")
    return how


def choose(parser, what, all_of_them, names):
    if not names:
        return all_of_them
    known = {one.name: one for one in all_of_them}
    for name in names:
        if name not in known:
            parser.error(f"no such {what}: {name} (there are: {' '.join(known)})")
    return [one for one in all_of_them if one.name in names]


# --- The machine ------------------------------------------------------------------------------------------------------


def first(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else "unknown"


def read(path):
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=HERE).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def machine(programs):
    """What the figures depend on; nothing that names the machine or its folders."""
    cache = read(pathlib.Path(programs).parents[1] / "CMakeCache.txt")
    compiler = output_of(first(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", cache), "--version").split("\n")[0]
    return {
        "cpu": first(r"^model name\s*: (.*)$", read("/proc/cpuinfo")),
        "family_model_stepping": [first(rf"^{field}\s*: (.*)$", read("/proc/cpuinfo"))
                                  for field in ("cpu family", "model", "stepping")],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "virtual": "hypervisor" in read("/proc/cpuinfo"),
        "kernel": first(r"^([\d.]*\d)", platform.release()),
        "compiler": re.sub(r"^\S*/", "", compiler),
        "flags": first(r"^CMAKE_CXX_FLAGS_RELEASE:\w+=(.*)$", cache),
    }


# --- Running ----------------------------------------------------------------------------------------------------------

running = None  # the program that runs now


def die_with_parent():
    """In the child: however this script ends, the program does not stay."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def end_running():
    if running is not None and running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def interrupted(number, _):
    end_running()
    print("", file=sys.stderr)
    sys.exit(128 + number)


def run(program, arguments, timeout):
    """One run: the line of JSON that the program printed, or {"failed": why}."""
    global running
    try:
        running = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   preexec_fn=die_with_parent, start_new_session=True)
        out, complaints = running.communicate(timeout=timeout)
    except OSError as error:
        return {"failed": f"cannot be run: {error.strerror}"}
    except subprocess.TimeoutExpired:
        end_running()
        running.communicate()
        return {"failed": f"took longer than {timeout:g} s"}
    if running.returncode not in (0, 1):
        last = complaints.strip().split("\n")[-1]
        how = f"signal {-running.returncode}" if running.returncode < 0 else f"exit {running.returncode}"
        return {"failed": f"{how}: {last}" if last else how}
    try:
        return json.loads(out)
    except ValueError:
        return {"failed": "printed no result"}


def run_all(how, progress):
    """The runs, and what a cache line took before each workload of each round."""
    runs = []
    lines = []
    done = set()  # what needs no further round
    for turn in range(how.rounds):
        for workload in how.workloads:
            if not lines or "failed" not in lines[-1]:
                line = run(pathlib.Path(how.programs) / "cache_line", [], how.timeout)
                lines.append({"workload": workload.name, "round": turn, **line})
            start = turn % len(how.peers)
            for peer in how.peers[start:] + how.peers[:start]:
                program = pathlib.Path(how.programs) / peer.program
                if (peer.name, workload.name) in done or not program.exists():
                    continue
                if workload.only_ours and peer.name != "taskpool":
                    continue
                progress(f"round {turn + 1} of {how.rounds}: {workload.name}, {peer.name}")
                arguments = [*peer.arguments, "--workload", workload.name, *(["--quick"] if how.quick else [])]
                result = run(program, arguments, how.timeout)
                result.update(peer=peer.name, workload=workload.name, round=turn, load=round(os.getloadavg()[0], 2))
                runs.append(result)
                if ("failed" in result or "not_run" in result or result.get("wall_s", 0) > LONG_RUN_S
                        or how.quick and workload.steady):
                    done.add((peer.name, workload.name))
    return runs, lines


def show_progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main(argv):
    how = parse(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    found = [peer for peer in how.peers if (pathlib.Path(how.programs) / peer.program).exists()]
    for peer in how.peers:
        if peer not in found:
            print(f"bench: {peer.name} is not compared: it was not built, for its library was not found",
                  file=sys.stderr)
    if not found:
        print("bench: no program was built", file=sys.stderr)
        return 1
    results = {
        "taskpool_bench": 1,
        "date": datetime.date.today().isoformat(),
        "commit": output_of("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "quick": how.quick,
        "rounds": how.rounds,
        "machine": machine(how.programs),
        "load_before": os.getloadavg(),
    }
    how.peers = found
    runs, results["cache_line"] = run_all(how, show_progress)
    show_progress("")
    results["load_after"] = os.getloadavg()
    results["versions"] = {run["peer"]: run["version"] for run in runs if "version" in run}
    results["runs"] = runs
    if how.json:
        pathlib.Path(how.json).write_text(json.dumps(results, indent=1) + "\n")
    if how.chart:
        import chart
        chart.draw(results, how.chart)
    return 0 if report.show(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
