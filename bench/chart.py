#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""chart.py FILE.json FILE.svg: draws what a run of bench.py measured."""

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

import report  # noqa: E402

OURS, THEIRS, NOT_EXACT = "#1f6feb", "#9aa4ae", "#d8dde2"


def draw(everything, path):
    results = report.Results(everything)
    workloads = [w.name for w in results.workloads if w.metrics[0][0] == "mjobs_s"]
    if not workloads:
        return
    peers = [p for p in results.peers if report.PEERS[p].keeps_order]
    # Text stays text, and the same results give the same file.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "taskpool", "font.size": 9,
                         "font.family": "sans-serif"})
    columns = min(4, len(workloads))
    rows = -(-len(workloads) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.6 * columns + 1, (0.22 * len(peers) + 0.6) * rows),
                                sharey=True, squeeze=False)
    for axis in axes.flat[len(workloads):]:
        axis.set_visible(False)
    for axis, workload in zip(axes.flat, workloads):
        ran = [results.state(p, workload) == "ran" and not results.fewer_keys(p, workload) for p in peers]
        values = [results.median(p, workload, "mjobs_s") if r else 0 for p, r in zip(peers, ran)]
        colours = [OURS if report.PEERS[p].ours else THEIRS if report.PEERS[p].exact else NOT_EXACT for p in peers]
        axis.barh(range(len(peers)), values, color=colours)
        axis.set_title(workload, loc="left", fontweight="bold", fontsize=9)
        for at, (value, r) in enumerate(zip(values, ran)):
            axis.text(value, at, f" {report.number(value)}" if r else " –", va="center", fontsize=7)
        axis.set_yticks(range(len(peers)), peers)
        axis.set_xlim(0, max(values) * 1.25 or 1)
        axis.set_xticks([])
        axis.tick_params(length=0)
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
    axes[0][0].invert_yaxis()
    figure.suptitle("Million jobs a second, two workers, medians; light: keys share a queue (not exact)", x=0.01,
                    ha="left", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print("usage: chart.py FILE.json FILE.svg", file=sys.stderr)
        sys.exit(2)
    with open(sys.argv[1], encoding="utf-8") as file:
        draw(json.load(file), sys.argv[2])
