#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""notifications_test.py NOTIFY [TEST...]: the example examples/notifications against its server that fails on purpose.

What the server sees is decided by a seed, so for each user it is known to the last attempt. No test depends on how fast
something is: the rates hold by the times at which the server saw the requests, however late those are.
"""

import collections
import fcntl
import os
import pathlib
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "notifications"))
import failing_server  # noqa: E402

NOTIFY = None
PATIENCE = 100  # seconds, for what takes a few


class NotifyTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.seen = collections.defaultdict(list)  # by user: (time, text, answer) of each attempt
        self.attempts = 0
        self.enough = None  # called with the number of attempts so far
        self.server = failing_server.Server(self.saw)
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.at = f"127.0.0.1:{self.server.server_address[1]}"

    def saw(self, now, user, text, answer):
        self.seen[user].append((now, text, answer))
        self.attempts += 1
        if self.enough:
            self.enough(self.attempts)

    def start(self, *options, stdin=subprocess.DEVNULL, at=None):
        command = [NOTIFY, "--timeout", str(PATIENCE), *map(str, options), at or self.at]
        process = subprocess.Popen(command, cwd=self.folder, stdin=stdin, stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def run_on(self, lines, *options, at=None):
        """The exit status and stderr of a run whose input is these lines."""
        with tempfile.TemporaryFile() as file:
            file.write("".join(line + "\n" for line in lines).encode())
            file.seek(0)
            process = self.start(*options, stdin=file, at=at)
            _, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, errors.decode()

    def lines_of(self, name):
        return (self.folder / name).read_text().splitlines()

    def taken(self):
        """What the server has taken, as lines."""
        return [f"{user}\t{text}" for user, seen in self.seen.items() for _, text, answer in seen if answer == 200]

    def dead(self):
        """The dead letters without their reasons. One that has no user begins with a tab."""
        return [line.rsplit("\t", 1)[0].removeprefix("\t") for line in self.lines_of("dead.tsv")]

    def assert_same(self, lines, other):
        self.assertEqual(collections.Counter(lines), collections.Counter(other))

    def assert_in_order(self, lines, part):
        """For each user, these are in the order of the input, each once."""
        place = {line: i for i, line in enumerate(lines)}
        last = {}
        for line in part:
            user = line.split("\t")[0]
            self.assertLess(last.get(user, -1), place[line])
            last[user] = place[line]

    def assert_rate(self, rate, burst):
        """Of a user one request is seen after the other has been answered. So those seen from the one at `first` to the
        one at `last` started in that time, but for the first of them, however long the network took."""
        for user, seen in self.seen.items():
            begun = {}
            for now, text, _ in seen:
                begun.setdefault(text, now)
            times = list(begun.values())
            for i, first in enumerate(times):
                for j, last in enumerate(times[i:]):
                    self.assertLessEqual(j, burst + rate * (last - first + 0.01), f"{user} from number {i}")


def shuffled(users, each, kind=lambda random: "hello"):
    """Lines of so many users, so many for each, mixed."""
    chance = random.Random(4)
    owners = [user for user in range(users) for _ in range(each)]
    chance.shuffle(owners)
    return [f"user {user}/é\t{n} {kind(chance)}" for n, user in enumerate(owners)]


class Sending(NotifyTest):
    def test_order_rate_and_nothing_lost(self):
        kinds = ["hello"] * 46 + ["no such address", "never"]
        lines = shuffled(50, 50, lambda chance: chance.choice(kinds)) + ["user 1", "\tno user"]
        status, errors = self.run_on(lines, "--rate", 12, "--burst", 10, "--attempts", 6, "--backoff", 0.002)
        self.assertEqual(status, 1, errors)

        # Each user's attempts, to the last one and in this order.
        expected = collections.defaultdict(list)
        dead = {"\tuser 1": "line 2501 is not USER<TAB>TEXT", "\t\tno user": "line 2502 is not USER<TAB>TEXT"}
        for line in lines[:-2]:
            user, text = line.split("\t")
            answers = failing_server.plan(self.server.seed, user, text)
            if answers == [503]:
                answers = [503] * 6
            if answers[-1] != 200:
                dead[line] = f"status {answers[-1]}"
            expected[user] += [(text, answer) for answer in answers]
        self.assertEqual({user: [(text, answer) for _, text, answer in seen] for user, seen in self.seen.items()},
                         expected)

        self.assert_same(self.lines_of("dead.tsv"), [f"{line}\t{reason}" for line, reason in dead.items()])
        self.assert_same(lines, self.taken() + self.dead())
        self.assertEqual(self.lines_of("unsent.tsv"), [])
        sent = len(lines) - len(dead)
        retried = self.attempts - (len(lines) - 2)
        self.assertGreater(retried, 300)
        self.assertIn(f"read {len(lines)} lines: sent {sent}, retried {retried}, dead {len(dead)}, unsent 0\n", errors)
        self.assert_rate(12, 10)

    def test_all_sent(self):
        status, errors = self.run_on(["ann\thello", "", "bob\ta\tb \xe9 "] + [f"ann\t{n}" for n in range(3)],
                                     "--backoff", 0)
        self.assertEqual(status, 0, errors)
        self.assertIn("read 6 lines: sent 5,", errors)
        self.assertEqual([text for _, text, answer in self.seen["ann"] if answer == 200], ["hello", "0", "1", "2"])
        self.assertEqual(self.seen["bob"][-1][1:], ("a\tb \xe9 ", 200))

    def test_one_connection(self):
        lines = shuffled(20, 5)
        status, errors = self.run_on(lines, "--connections", 1, "--rate", 1000, "--backoff", 0.001)
        self.assertEqual(status, 0, errors)
        self.assert_same(lines, self.taken())


class Stopping(NotifyTest):
    """At a rate by which the input would take longer than anybody waits."""

    SLOW = ("--rate", 1, "--burst", 3)

    def stop(self, lines, options, after_attempts, signals, after_all_is_read=False):
        """Sends the signals, and checks that each line was taken, or is a dead letter, or unsent, or not even read."""
        ours, its = self.pipe_with(lines)
        begun = threading.Event()

        def look(attempts):
            if attempts >= after_attempts and not (after_all_is_read and self.bytes_in(its)):
                begun.set()

        self.enough = look
        process = self.start(*self.SLOW, *options, stdin=its)
        self.assertTrue(begun.wait(PATIENCE))
        process.send_signal(signals[0])
        if len(signals) > 1:
            self.assertIn(b"stopping within", process.stderr.readline())
            process.send_signal(signals[1])
        _, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 128 + signals[0], errors)

        read = int(re.search(rb"^read (\d+) lines:", errors, re.M)[1])
        unsent = self.lines_of("unsent.tsv")
        self.assertEqual(self.left_in(its), lines[read:])
        self.assert_same(lines[:read], self.taken() + self.dead() + unsent)
        self.assert_in_order(lines, unsent)
        self.assert_in_order(lines, self.taken() + unsent)
        self.assertGreater(len(unsent), 0)
        self.assertIn(f"dead {len(self.dead())}, unsent {len(unsent)}\n", errors.decode())
        return read

    def pipe_with(self, lines):
        """Both ends of a pipe, which stay open: nobody finds its end."""
        its, ours = os.pipe()
        self.addCleanup(os.close, its)
        self.addCleanup(os.close, ours)
        fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(ours, False)
        data = "".join(line + "\n" for line in lines).encode()
        self.assertEqual(os.write(ours, data), len(data))
        return ours, its

    def bytes_in(self, pipe):
        return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]

    def left_in(self, pipe):
        data = b""
        os.set_blocking(pipe, False)
        while True:
            try:
                data += os.read(pipe, 1 << 20)
            except BlockingIOError:
                return data.decode().splitlines()

    def test_while_it_waits_for_input(self):
        lines = shuffled(20, 50, lambda chance: chance.choice(["hello"] * 9 + ["no such address"]))
        read = self.stop(lines, ("--grace", 0.3, "--backoff", 0.001), 60, [signal.SIGTERM],
                         after_all_is_read=True)
        self.assertEqual(read, len(lines))

    def test_while_there_is_no_room(self):
        lines = [f"busy\t{n} hello" for n in range(10_000)]
        read = self.stop(lines, ("--grace", 0), 3, [signal.SIGHUP])
        self.assertLess(read, len(lines))

    def test_while_some_are_to_be_tried_again(self):
        lines = shuffled(20, 10, lambda chance: chance.choice(["hello", "never"]))
        self.stop(lines, ("--grace", 0.3, "--backoff", 30, "--attempts", 100), 20, [signal.SIGINT])
        self.assertEqual(self.dead(), [])

    def test_second_signal(self):
        lines = shuffled(20, 50)
        self.stop(lines, ("--grace", 10_000, "--backoff", 0.001), 60, [signal.SIGINT, signal.SIGTERM])

    def test_one_that_is_ignored(self):
        lines = shuffled(3, 3)
        ours, its = self.pipe_with(lines[:1])
        begun, done = threading.Event(), threading.Event()
        self.enough = lambda attempts: begun.set() if len(self.taken()) < len(lines) else done.set()
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        try:
            process = self.start("--backoff", 0.001, stdin=its)
        finally:
            signal.signal(signal.SIGHUP, before)
        self.assertTrue(begun.wait(PATIENCE))
        process.send_signal(signal.SIGHUP)
        os.write(ours, ("\n".join(lines[1:]) + "\n").encode())
        self.assertTrue(done.wait(PATIENCE))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM, errors)
        self.assert_same(lines, self.taken())


class Trouble(NotifyTest):
    LINES = ["ann\t1 no such", "bob\t2 hello", "ann\t3 hello", "none", "ann\t4 no such", "bob\t5 hello"]

    def refuses(self, because, *arguments):
        process = subprocess.run([NOTIFY, *map(str, arguments)], cwd=self.folder, stdin=subprocess.DEVNULL,
                                 capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((process.returncode, process.stdout), (2, ""), process.stderr)
        self.assertIn(because, process.stderr)

    def test_wrong_usage(self):
        self.refuses("usage: notify")
        self.refuses("usage: notify", self.at, "one", "two")
        self.refuses("no option --rat;", "--rat", 1, self.at)
        self.refuses("no option -1;", self.at, "--rate", 1, "-1")
        self.refuses("--rate needs a value", self.at, "--rate")
        for value in ("", "x", "1x", "0", "-1", "nan", "inf", "1e7", " 1"):
            self.refuses(f"--rate cannot be {value}\n", "--rate", value, self.at)
        for value in ("0", "1.5", "-1", "1e9"):
            self.refuses(f"--burst cannot be {value}\n", "--burst", value, self.at)
        self.refuses("localhost is no HOST:PORT", "localhost")
        self.refuses("nofile: No such file", self.at, "nofile")
        self.refuses("nofolder/dead: No such file", "--dead", "nofolder/dead", self.at)
        self.refuses("nofolder/unsent: No such file", "--unsent", "nofolder/unsent", self.at)
        (self.folder / "input").touch()
        self.refuses("cannot be a file that is written", "--unsent", "input", self.at, "input")
        self.refuses("Is a directory", self.at, ".")

    def test_help(self):
        shown = subprocess.run([NOTIFY, "--help"], stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
        self.assertEqual(shown.returncode, 0)
        self.assertIn("usage: notify", shown.stdout)

    def test_nobody_there(self):
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            self.refuses("Connection refused", f"127.0.0.1:{nobody.getsockname()[1]}")

    def test_server_goes_away(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=lambda: server.accept()[0].close() or server.close()).start()
            status, errors = self.run_on(["ann\thello"], "--attempts", 2, "--backoff", 0.001,
                                         at=f"127.0.0.1:{server.getsockname()[1]}")
        self.assertEqual(status, 1, errors)
        [letter] = self.lines_of("dead.tsv")
        self.assertRegex(letter, "^ann\thello\t(cannot connect to .*|no answer.*)$")

    def test_server_does_not_answer(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            status, errors = self.run_on(["ann\thello", "bob\thello"], "--attempts", 1, "--timeout", 0.5,
                                         at=f"127.0.0.1:{server.getsockname()[1]}")
        self.assertEqual(status, 1, errors)
        self.assert_same(self.lines_of("dead.tsv"), [f"{user}\thello\tno answer: Connection timed out"
                                                     for user in ("ann", "bob")])

    def test_no_room_for_dead_letters(self):
        status, errors = self.run_on(self.LINES, "--dead", "/dev/full", "--backoff", 0.001)
        self.assertEqual(status, 2, errors)
        self.assertEqual(errors.count("/dev/full: No space left on device"), 1)
        read = int(re.search(r"^read (\d+) lines:", errors, re.M)[1])
        self.assert_same(self.LINES[:read], self.taken() + self.lines_of("unsent.tsv"))
        self.assertIn(self.LINES[0], self.lines_of("unsent.tsv"))

    def test_no_room_for_anything(self):
        status, errors = self.run_on(self.LINES, "--dead", "/dev/full", "--unsent", "/dev/full", "--backoff", 0.001)
        self.assertEqual(status, 2, errors)
        read = int(re.search(r"^read (\d+) lines:", errors, re.M)[1])
        self.assert_same(self.LINES[:read], self.taken() + [line for line in errors.splitlines() if line in self.LINES])

    def test_endless_line(self):
        status, errors = self.run_on(["ann\t1 no such", "bob\t2 hello", "x" * 1_000_000, "bob\t3 hello"])
        self.assertEqual(status, 2, errors)
        self.assertIn("notify: line 3 is too long\n", errors)
        self.assertEqual(self.dead() + self.taken(), ["ann\t1 no such", "bob\t2 hello"])


if __name__ == "__main__":
    NOTIFY = os.path.abspath(sys.argv.pop(1))
    unittest.main()
