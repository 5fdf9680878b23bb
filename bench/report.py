#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""report.py FILE.json: prints the tables of a run of bench.py."""

import json
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import catalogue  # noqa: E402

PEERS = {peer.name: peer for peer in catalogue.PEERS}


class Results:
    def __init__(self, results):
        self.all = results
        self.runs = {}
        for run in results["runs"]:
            self.runs.setdefault((run["peer"], run["workload"]), []).append(run)
        self.peers = [name for name in PEERS if any(peer == name for peer, _ in self.runs)]
        self.workloads = [w for w in catalogue.WORKLOADS if any(name == w.name for _, name in self.runs)]

    def state(self, peer, workload):
        """"ran", "broken", "not run", "failed", or "" where nothing was tried."""
        runs = self.runs.get((peer, workload), [])
        if any("failed" in run for run in runs):
            return "failed"
        if any("not_run" in run for run in runs):
            return "not run"
        if any(not run["exact"] or not run["in_order"] for run in runs):
            return "broken"
        return "ran" if runs else ""

    def by_round(self, peer, workload, metric):
        return {run["round"]: run["metrics"][metric] for run in self.runs.get((peer, workload), [])
                if metric in run.get("metrics", {})}

    def median(self, peer, workload, metric):
        values = self.by_round(peer, workload, metric).values()
        return statistics.median(values) if values else None

    def fewer_keys(self, peer, workload):
        def keys(name):
            return max((run.get("keys", 0) for run in self.runs.get((name, workload), [])), default=0)
        return keys(peer) < max((keys(name) for name in self.peers), default=0)

    def best(self, workload, metric, among, smallest):
        """The one of `among` with the best median of those that ran soundly, or None."""
        medians = {name: self.median(name, workload, metric) for name in among
                   if self.state(name, workload) == "ran" and not self.fewer_keys(name, workload)}
        medians = {name: value for name, value in medians.items() if value is not None}
        return (min if smallest else max)(medians, key=medians.get, default=None)

    def ratio(self, workload, metric, peer):
        """The median over the rounds of taskpool's figure to the peer's of the same round."""
        ours, theirs = self.by_round("taskpool", workload, metric), self.by_round(peer, workload, metric)
        ratios = [ours[turn] / theirs[turn] for turn in ours if theirs.get(turn)]
        if not ratios and ours and theirs:  # long runs have one round
            ratios = [self.median("taskpool", workload, metric) / self.median(peer, workload, metric)]
        return statistics.median(ratios) if ratios else None


def number(value):
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    if value == 0:
        return "0"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def cell(results, peer, workload, metric):
    state = results.state(peer, workload)
    value = results.median(peer, workload, metric)
    if state in ("failed", "not run", "") or value is None:
        return state if state != "ran" else ""
    return number(value) + (" broken" if state == "broken" else "") + (
        " *" if results.fewer_keys(peer, workload) else "")


def table(headings, rows):
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    def line(cells):
        return "| " + " | ".join(text.ljust(width) for text, width in zip(cells, widths)) + " |"
    print(line(headings))
    print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows:
        print(line(row))
    print()


def described(peer):
    if PEERS[peer].ours or PEERS[peer].exact:
        return peer
    return f"{peer} ({'not exact' if PEERS[peer].keeps_order else 'no order'})"


def show_medians(results):
    throughput = [w for w in results.workloads if w.metrics[0] == catalogue.JOBS[0]]
    others = [w for w in results.workloads if w not in throughput and not w.only_ours]
    if throughput:
        print("Million jobs a second, medians:\n")
        table(["peer", *(w.name for w in throughput)],
              [[described(p), *(cell(results, p, w.name, "mjobs_s") for w in throughput)] for p in results.peers])
    if others:
        print("Latency from submit to start, in microseconds; the blocking jobs, in seconds; bytes a key, medians:\n")
        columns = [(w, *metric) for w in others for metric in w.metrics]
        table(["peer", *(f"{w.name} {heading}" for w, _, heading in columns)],
              [[described(p), *(cell(results, p, w.name, m) for w, m, _ in columns)] for p in results.peers])
    if any(results.fewer_keys(peer, w.name) for w in throughput + others for peer in results.peers):
        print("* with fewer keys, which is all that it can have\n")


def verdict(reached):
    return "reached" if reached else "missed"


def throughput_rows(results):
    exact = [p for p in results.peers if PEERS[p].exact and not PEERS[p].ours]
    for workload, (times_exact, times_hash) in catalogue.THROUGHPUT_TARGETS.items():
        ours = results.median("taskpool", workload, "mjobs_s")
        if ours is None:
            continue
        for peer, times in ((results.best(workload, "mjobs_s", exact, smallest=False), times_exact),
                            (catalogue.HASH, times_hash)):
            ratio = results.ratio(workload, "mjobs_s", peer) if peer else None
            if ratio is not None:
                theirs = results.median(peer, workload, "mjobs_s")
                yield [f"{workload}, M jobs/s", number(ours), f"{peer} {number(theirs)}", f"{ratio:.2f}",
                       f"at least {times:.2f} x", verdict(ratio >= times)]


def relative_rows(results):
    others = [p for p in results.peers if not PEERS[p].ours]
    for workload, metric, times, whom in catalogue.RELATIVE_TARGETS:
        ours = results.median("taskpool", workload, metric)
        among = [p for p in others if PEERS[p].exact or whom == "any" and PEERS[p].keeps_order]
        peer = whom if whom in PEERS else results.best(workload, metric, among, smallest=True)
        ratio = results.ratio(workload, metric, peer) if ours is not None and peer else None
        if ratio is not None:
            yield [f"{workload}, {metric.replace('_us', ' us')}", number(ours),
                   f"{peer} {number(results.median(peer, workload, metric))}", f"{ratio:.2f}",
                   f"at most {times:.2f} x", verdict(ratio <= times)]


def absolute_rows(results):
    for workload, metric, how, bound in catalogue.ABSOLUTE_TARGETS:
        ours = results.median("taskpool", workload, metric)
        if ours is not None:
            reached = ours <= bound if how == "at most" else ours >= bound
            yield [f"{workload}, {metric.replace('_', ' ')}", number(ours), "", "", f"{how} {bound:g}",
                   verdict(reached)]


def show_cache_line(lines):
    """What a cache line took, before each workload of each round; older results do not have it."""
    def figure(name):
        values = sorted(line[name] for line in lines if name in line)
        return f"{number(statistics.median(values))} ns ({number(values[0])} to {number(values[-1])})" if values else ""
    for line in lines:
        if "failed" in line:
            print(f"not told, what a cache line takes: {line['failed']}\n")
    if taken := figure("exchange_ns"):
        print(f"An exchange of a cache line that another core has written takes {taken}, of one's own "
              f"{figure('exchange_own_ns')},\nand a read among others {figure('read_ns')}: "
              "medians, and the least and the most, of what was measured before each workload\n")


def show(everything):
    """Prints all; says whether no peer failed and each that claims to keep the order did."""
    results = Results(everything)
    machine = everything["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores{' (virtual)' if machine['virtual'] else ''}, "
          f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, {machine['compiler']}, {machine['flags']}")
    print(f"{everything['rounds']} rounds; load average {everything['load_before'][0]:.2f} before and "
          f"{everything['load_after'][0]:.2f} after\n")
    show_cache_line(everything.get("cache_line", []))
    if everything["quick"]:
        print("A quick run: few jobs, few rounds. It shows that all works; its figures are not to be quoted.\n")
    show_medians(results)
    rows = [*throughput_rows(results), *relative_rows(results), *absolute_rows(results)]
    if rows:
        print("taskpool and its targets (the ratio is the median of those within each round):\n")
        table(["workload", "taskpool", "compared with", "ratio", "target", ""], rows)
    sound = True
    for (peer, workload), runs in results.runs.items():
        state = results.state(peer, workload)
        if state == "failed":
            why = next(run["failed"] for run in runs if "failed" in run)
            print(f"failed: {peer}, {workload}: {why}")
            sound = False
        elif state == "broken":
            disorder = max(run["out_of_order"] for run in runs)
            lost = max(run["jobs"] - run["ran"] for run in runs)
            print(f"broken: {peer}, {workload}: {disorder} out of order, {lost} missing")
            sound = sound and not PEERS[peer].keeps_order and lost == 0
    return sound


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: report.py FILE.json", file=sys.stderr)
        sys.exit(2)
    with open(sys.argv[1], encoding="utf-8") as file:
        show(json.load(file))
