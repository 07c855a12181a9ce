#!/usr/bin/python3
"""A small replicated store in the manner of Cassandra: members find each other by seeds, and any of them takes any request.

    ring serve      a member: its name is the host's, its data is below $DATA, its seeds are $SEEDS (names in the DNS)
    ring status     the members as this one sees them: UN (up), DN (down); it fails unless this member serves
    ring put KEY VALUE, ring get KEY
    ring drain      this member takes no more requests (for preStop)

    GET  /rows/KEY   the newest value among a majority of the members
    PUT  /rows/KEY   written on a majority, or 503
    GET  /members    {member: "UN" or "DN"}; 503 while this member does not serve (for probes)

Each member has all rows, each with the time of its write, and the newest wins. A member that starts asks the others for
what it missed before it serves. It lies in a file that is only ever added to, and read again at the next start.
"""

import json
import os
import random
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, PORT = socket.gethostname(), 9042
SERVICE = os.environ.get("SERVICE", "ring")
SEEDS = os.environ.get("SEEDS", "").split()
SIZE = int(os.environ.get("REPLICAS", "3"))
FILE = os.path.join(os.environ.get("DATA", "/data"), "rows")
SILENCE = 4  # seconds after which a member is down


def ask(member, method, path, body=None, timeout=10):
    """Asks another member, by its name in the DNS or a host; None if it does not answer."""
    host = member if "." in member or member == "localhost" else f"{member}.{SERVICE}"
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(f"http://{host}:{PORT}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


class Member:
    """Rows, and when each other member was heard of last."""

    def __init__(self):
        self.lock, self.rows, self.heard = threading.Lock(), {}, {}
        self.serving = self.drained = False
        os.makedirs(os.path.dirname(FILE), exist_ok=True)
        if os.path.exists(FILE):
            with open(FILE) as file:
                for line in file:
                    if line.endswith("\n"):  # half a line: the process was killed in the middle, and told nobody yes
                        key, when, value = json.loads(line)
                        self.rows[key] = max(self.rows.get(key, [0, ""]), [when, value])
        self.file = open(FILE, "a")  # noqa: SIM115 (for as long as the process lives)
        print(f"{NAME}: {len(self.rows)} rows on disk", flush=True)

    def members(self):
        now = time.monotonic()
        states = {name: "UN" if now - when < SILENCE else "DN" for name, when in self.heard.copy().items()}
        return dict(sorted({**states, NAME: "UN" if self.serving else "DN"}.items()))

    def others(self):
        return [name for name in self.heard.copy() if name != NAME]

    def write(self, rows):
        """Writes those rows that are newer; they are on disk afterwards."""
        with self.lock:
            newer = {key: row for key, row in rows.items() if row > self.rows.get(key, [0, ""])}
            for key, row in newer.items():
                self.file.write(json.dumps([key, *row]) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())
            self.rows.update(newer)
        return len(newer)

    def everywhere(self, method, path, body=None):
        """Asks all others at once; the answers of those that gave one."""
        answers = []
        threads = [threading.Thread(target=lambda n=name: answers.append(ask(n, method, path, body))) for name in self.others()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answer for answer in answers if answer is not None]

    def put(self, key, value):
        rows = {key: [time.time(), value]}
        self.write(rows)
        return 1 + len(self.everywhere("POST", "/replicate", rows)) > SIZE // 2

    def get(self, key):
        """(whether a majority answered, the newest row)"""
        answers = [self.rows.get(key, [0, None]), *self.everywhere("GET", f"/local/{key}")]
        return len(answers) > SIZE // 2, max(answers, key=lambda row: row[0])

    def gossip(self):
        """Tells seeds and some other member that we live, and learns whom they know. The first time it also asks for rows."""
        while True:
            for seed in {*SEEDS, *random.sample(self.others(), min(1, len(self.others())))}:
                if seed.partition(".")[0] != NAME and (known := ask(seed, "POST", "/gossip", [NAME], 2)) is not None:
                    for name in known:
                        self.heard.setdefault(name, 0.0)
                    self.heard[seed.partition(".")[0]] = time.monotonic()
            if not (self.serving or self.drained) and (self.others() or SEEDS[0].partition(".")[0] == NAME):
                missed = sum(self.write(rows) for rows in self.everywhere("GET", "/rows"))
                self.serving = True
                print(f"{NAME}: joined; {missed} rows were missed", flush=True)
            time.sleep(0.5)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        _, what, *key = self.path.split("/", 2)
        if what == "local":
            self.answer(200, member.rows.get(key[0], [0, None]))
        elif what == "members":
            self.answer(200 if member.serving else 503, member.members())
        elif what == "rows" and not key:
            self.answer(200, member.rows)
        elif what == "rows" and member.serving:
            enough, (_, value) = member.get(key[0])
            self.answer(503 if not enough else 404 if value is None else 200, value)
        else:
            self.answer(503, "not serving")

    def do_PUT(self):
        done = member.serving and member.put(self.path.removeprefix("/rows/"), self.body().decode())
        self.answer(200 if done else 503, "written" if done else "no majority")

    def do_POST(self):
        body = json.loads(self.body() or "null")
        if self.path == "/gossip":
            member.heard[body[0]] = time.monotonic()
            self.answer(200, [*member.heard, NAME])
        elif self.path == "/replicate":
            self.answer(200, member.write(body))
        else:
            member.drained, member.serving = True, False
            self.answer(200, "drained")

    def log_message(self, *words):
        pass


def status():
    try:
        with urllib.request.urlopen(f"http://localhost:{PORT}/members", timeout=2) as answer:
            print("\n".join(f"{state}  {name}" for name, state in json.load(answer).items()))
            return 0
    except OSError as error:
        print(f"{NAME}: {error}")
        return 1


def client(method, key, value=None):
    try:
        data = None if value is None else value.encode()
        request = urllib.request.Request(f"http://localhost:{PORT}/rows/{key}", data, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            print(json.load(answer))
            return 0
    except OSError as error:
        print(f"{NAME}: {error}")
        return 1


if __name__ == "__main__":
    if sys.argv[1] == "status":
        sys.exit(status())
    if sys.argv[1] in ("get", "put"):
        sys.exit(client(sys.argv[1].upper(), *sys.argv[2:]))
    if sys.argv[1] == "drain":
        sys.exit(ask("localhost", "POST", "/drain") is None)
    member = Member()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # every row that somebody was told of is on disk
    threading.Thread(target=member.gossip, daemon=True).start()
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
