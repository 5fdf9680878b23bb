#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench_test.py FAULTY CACHE_LINE: the benchmark finds a peer that loses, repeats or exchanges jobs, and its driver
bears with peers that fail. They are the programs of faulty_peer.cpp and cache_line.cpp."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import gauge  # noqa: E402
import report  # noqa: E402

FAULTY = None
CACHE_LINE = None
DRIVER = [sys.executable, "-B", str(HERE.parent / "bench.py")]


def run_faulty(fault, *arguments):
    command = [FAULTY, "--workload", "hot1", "--jobs", "2000", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "BENCH_FAULT": fault})
    return done.returncode, json.loads(done.stdout)


class Verification(unittest.TestCase):
    def test_a_sound_peer_is_exact_and_in_order(self):
        for workload in ("hot1", "contended1", "chain", "idle", "work"):
            status, result = run_faulty("", "--quick", "--workload", workload, "--keys", "10")
            self.assertEqual((status, result["exact"], result["in_order"]), (0, True, True), result)
            self.assertGreater(result["ran"], 1000)

    def test_a_job_that_is_dropped(self):
        status, result = run_faulty("drop", "--patience-ms", "5000")
        self.assertEqual((status, result["exact"], result["ran"]), (1, False, 2000 - 9))

    def test_jobs_that_are_exchanged(self):
        status, result = run_faulty("swap")
        self.assertEqual((status, result["exact"], result["in_order"]), (1, True, False))
        self.assertEqual(result["out_of_order"], 2 * 9)

    def test_a_job_that_runs_twice(self):
        status, result = run_faulty("twice")
        self.assertEqual((status, result["in_order"]), (1, False))


class Driver(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def peer(self, program, fault, command="exec"):
        path = self.folder / program
        path.write_text(f'#!/bin/sh\nBENCH_FAULT={fault} {command} "{FAULTY}" "$@"\n')
        path.chmod(0o755)

    def command(self, *arguments):
        return [*DRIVER, "--programs", str(self.folder), "--quick", "--workload", "hot1", *arguments]

    def test_wrong_arguments_are_told_in_a_line(self):
        for wrong in (["--peer", "nobody"], ["--workload", "nothing"], ["--rounds", "0"], ["--rounds", "x"],
                      ["--json", "/nowhere/file"], ["--chart", "file.png"], ["--nothing"], ["stray"], ["--qui"]):
            done = subprocess.run([*DRIVER, *wrong], capture_output=True, text=True, timeout=60)
            self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), (wrong, done.stderr))

    def test_a_peer_that_is_broken_or_fails_does_not_end_the_run(self):
        self.peer("taskpool", "none")
        self.peer("asio", "swap")
        self.peer("caf", "crash")
        self.peer("onetbb", "none", command="sleep 100;")
        self.peer("lock_per_key", "swap")
        results = self.folder / "results.json"
        done = subprocess.run(self.command("--rounds", "2", "--timeout", "20", "--json", str(results)),
                              capture_output=True, text=True, timeout=100)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stdout, r"broken: asio, hot1: 18 out of order, 0 missing")
        self.assertRegex(done.stdout, r"failed: caf, hot1: signal 6")
        self.assertRegex(done.stdout, r"failed: onetbb, hot1: took longer than 20 s")
        self.assertRegex(done.stdout, r"\| lock-per-key \(no order\) +\| [\d.,]+ broken")
        self.assertRegex(done.stdout, r"\| taskpool +\| [\d.,]+ +\|")
        runs = json.loads(results.read_text())["runs"]
        self.assertEqual(sum(run["peer"] == "taskpool" for run in runs), 2)
        self.assertEqual(sum(run["peer"] == "caf" for run in runs), 1, "what failed is not run again")

    def test_what_a_cache_line_takes_is_kept_for_each_workload(self):
        self.peer("taskpool", "none")
        path = self.folder / "cache_line"
        shutil.copy(CACHE_LINE, path)
        results = self.folder / "results.json"
        done = subprocess.run(self.command("--rounds", "2", "--workload", "chain", "--json", str(results)),
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = json.loads(results.read_text())["cache_line"]
        self.assertEqual([(line["workload"], line["round"]) for line in lines],
                         [("hot1", 0), ("chain", 0), ("hot1", 1), ("chain", 1)])
        figures = {"exchange_own_ns"} | ({"exchange_ns", "read_ns"} if len(os.sched_getaffinity(0)) > 1 else set())
        for line in lines:
            self.assertTrue(figures <= line.keys() and all(line[figure] > 0 for figure in figures), line)
        if len(figures) > 1:
            self.assertRegex(done.stdout, r"another core has written takes [\d.,]+ ns \([\d.,]+ to [\d.,]+\), of")
        path.write_text("#!/bin/sh\nexit 3\n")  # is no reason not to run the peers, nor to be run again
        done = subprocess.run(self.command("--rounds", "2", "--json", str(results)), capture_output=True, text=True,
                              timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("not told, what a cache line takes: exit 3", done.stdout)
        self.assertEqual(len(json.loads(results.read_text())["cache_line"]), 1)

    def test_order_broken_where_none_is_promised_is_no_failure(self):
        self.peer("lock_per_key", "swap")
        done = subprocess.run(self.command(), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_nothing_stays_behind_a_driver_that_is_ended(self):
        path = self.folder / "taskpool"
        path.write_text(f'#!/bin/sh\necho $$ >"{self.folder}/pid"\nexec sleep 60\n')
        path.chmod(0o755)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            driver = subprocess.Popen(self.command("--peer", "taskpool"), stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
            pid_file = self.folder / "pid"
            self.eventually(lambda: pid_file.exists() and pid_file.read_text().strip())
            pid = int(pid_file.read_text())
            pid_file.unlink()
            driver.send_signal(number)
            self.assertEqual(driver.wait(20), -9 if number == signal.SIGKILL else 128 + number)
            self.eventually(lambda: not alive(pid))

    def eventually(self, what):
        for _ in range(2000):
            if what():
                return
            time.sleep(0.01)
        self.fail("it did not come to be")


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Figures(unittest.TestCase):
    def test_ratios_are_those_within_a_round(self):
        def run(peer, turn, value):
            return {"peer": peer, "workload": "hot1", "round": turn, "exact": True, "in_order": True, "keys": 1,
                    "metrics": {"mjobs_s": value}}
        results = report.Results({"runs": [run("taskpool", 0, 4), run("asio", 0, 2), run("taskpool", 1, 2),
                                           run("asio", 1, 1), run("taskpool", 2, 9), run("asio", 2, 3)]})
        self.assertEqual(results.ratio("hot1", "mjobs_s", "asio"), 2)
        self.assertEqual(results.best("hot1", "mjobs_s", ["asio"], smallest=False), "asio")

    def test_the_gauge_fails_at_more_than_three_percent_or_at_an_allocation(self):
        def costs(instructions, allocations):
            return {way: {"instructions": instructions, "allocations_steady": allocations, "allocations_backlog": 0}
                    for way in gauge.WAYS}
        before = costs(1000, 0)
        self.assertEqual(gauge.compare(costs(1030, 0), before, True), [])
        self.assertEqual(len(gauge.compare(costs(1031, 0), before, True)), 3)
        self.assertEqual(gauge.compare(costs(2000, 0), before, False), [])
        self.assertEqual(len(gauge.compare(costs(1000, 0.02), before, False)), 3)


if __name__ == "__main__":
    FAULTY, CACHE_LINE = sys.argv[1:3]
    del sys.argv[1:3]
    unittest.main()
