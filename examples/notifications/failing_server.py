#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""failing_server.py [PORT]: a server for notify that fails on purpose, on 127.0.0.1.

It fails before it takes a notification, never after: what it takes is answered. Of one and the same seed it treats
the attempts of one and the same notification alike.
"""

import http.server
import random
import socketserver
import sys
import threading
import time
import urllib.parse

MOST_FAILURES = 4  # in a row, of a notification that is taken in the end


def plan(seed, user, text):
    """What each attempt is answered, the last one all further ones: a status, "close" or "garbage"."""
    if "no such" in text:
        return [400]
    if "never" in text:
        return [503]
    chance = random.Random(f"{seed}/{user}/{text}")
    failures = []
    while len(failures) < MOST_FAILURES and chance.random() < 0.2:
        failures.append(chance.choice([500, 503, 429, "close", "garbage"]))
    return failures + [200]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        now = time.monotonic()
        length = int(self.headers["Content-Length"])
        text = self.rfile.read(length).decode()
        user = urllib.parse.unquote(self.path.split("/")[2])
        with self.server.lock:
            before = self.server.attempts.get((user, text), 0)
            self.server.attempts[user, text] = before + 1
            answers = plan(self.server.seed, user, text)
            answer = answers[min(before, len(answers) - 1)]
            self.server.seen(now, user, text, answer)
        if random.random() < 0.02:
            time.sleep(0.05)
        if answer == "garbage":
            self.wfile.write(b"SSH-2.0-not_http\r\n\r\n")
        elif answer != "close":
            self.send_response(answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *arguments):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, seen, port=0, seed=1):
        """Calls seen(time, user, text, answer) for each attempt, one at a time."""
        self.seen = seen
        self.seed = seed
        self.lock = threading.Lock()
        self.attempts = {}
        super().__init__(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    with Server(lambda now, user, text, answer: print(f"{now:.3f} {user}: {text} -> {answer}", flush=True), port) as server:
        server.serve_forever()
