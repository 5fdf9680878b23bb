# SPDX-License-Identifier: Apache-2.0
"""The peers, the workloads and the targets that bench.py and report.py know."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Peer:
    name: str
    program: str  # in the folder of programs
    arguments: tuple = ()
    exact: bool = True  # keeps the order of each key, and keys never share a queue
    ours: bool = False
    keeps_order: bool = True


PEERS = [
    Peer("taskpool", "taskpool", ours=True),
    Peer("taskpool-wide", "taskpool_wide", ours=True),
    Peer("taskpool-handles", "taskpool_handles", ours=True),
    Peer("go-original", "go", ("--peer", "go-original")),
    Peer("asio", "asio"),
    Peer("onetbb", "onetbb"),
    Peer("caf", "caf"),
    Peer("folly", "folly"),
    Peer("libdispatch", "libdispatch"),
    Peer("thread-per-key", "thread_per_key"),
    Peer("one-lock", "one_lock"),
    Peer("lock-per-key", "lock_per_key", exact=False, keeps_order=False),
    Peer("hash-onto-2", "hash_onto_2", exact=False),
    Peer("go-hash", "go", ("--peer", "go-hash"), exact=False),
]


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    metrics: tuple  # (name in the programs' output, heading)
    only_ours: bool = False
    steady: bool = False  # what it measures hardly varies: one round of a quick run is enough


JOBS = (("mjobs_s", "M jobs/s"),)
LATENCY = (("p50_us", "p50 us"), ("p99_us", "p99 us"))

WORKLOADS = [
    Workload("hot1", JOBS),
    Workload("spread", JOBS),
    Workload("many", JOBS),
    Workload("contended1", JOBS),
    Workload("contended", JOBS),
    Workload("chain", JOBS),
    Workload("churn", JOBS),
    Workload("work", JOBS + (("useful_percent", "useful %"),)),
    Workload("idle", LATENCY),
    Workload("head-of-line", LATENCY),
    Workload("blocking", (("seconds", "s"),)),
    Workload("memory", (("pending_bytes", "pending"), ("left_bytes", "left")), steady=True),
    Workload("distinct", (("left_bytes", "left"), ("peak_mib", "peak MiB")), only_ours=True, steady=True),
    Workload("together", (("cost", "cost"),), only_ours=True),
    Workload("asleep", (("cpu_percent", "CPU %"), ("wakeups_s", "wake-ups/s")), only_ours=True, steady=True),
]

HASH = "hash-onto-2"

# workload: at least so many times the jobs a second of the best exact peer, and of HASH.
THROUGHPUT_TARGETS = {
    "hot1": (2.0, 1.5),
    "spread": (2.0, 1.0),
    "many": (3.0, 1.0),
    "contended1": (1.8, 1.5),
    "contended": (2.5, 1.0),
    "chain": (2.0, 1.0),
    "churn": (4.0, 1.0),
    "work": (1.1, 1.05),
}

# (workload, metric, at most so many times that of whom): "exact" is the best exact peer, "any" the best that keeps the
# order of each key.
RELATIVE_TARGETS = [
    ("idle", "p50_us", 1.0, "any"),
    ("idle", "p99_us", 1.0, "any"),
    ("head-of-line", "p99_us", 1.0, "exact"),
    ("blocking", "seconds", 1.3, "go-original"),
]

# (workload, metric, at least or at most, bound)
ABSOLUTE_TARGETS = [
    ("memory", "pending_bytes", "at most", 200),
    ("memory", "left_bytes", "at most", 2),
    ("distinct", "left_bytes", "at most", 2),
    ("together", "cost", "at most", 3),
    ("asleep", "cpu_percent", "at most", 0.1),
    ("asleep", "wakeups_s", "at most", 1),
    ("work", "useful_percent", "at least", 80),
]
