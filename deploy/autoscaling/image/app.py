"""A web server that burns CPU for each request and counts it at /metrics; with `load URL RATE` a client that asks so often.

WORK is the CPU time of a request in seconds (default 0.01). A server that has more than it can do refuses at once, so that its
probes and its metrics are answered whatever the load is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORK = float(os.environ.get("WORK", "0.01"))
METRICS = """# HELP http_requests_total Requests that were answered.
# TYPE http_requests_total counter
http_requests_total{{code="200"}} {requests}
http_requests_total{{code="503"}} {refused}
# HELP http_requests_waiting Requests that are being worked on.
# TYPE http_requests_waiting gauge
http_requests_waiting {waiting}
"""
MAX_WAITING = 8
lock = threading.Lock()
requests = refused = waiting = 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        global requests, refused, waiting
        if self.path == "/metrics":
            self.answer(200, METRICS.format(requests=requests, refused=refused, waiting=waiting))
            return
        if self.path == "/":
            with lock:
                full = waiting >= MAX_WAITING
                refused, waiting = refused + full, waiting + (not full)
            if full:
                self.answer(503, "busy\n")
                return
            end = time.thread_time() + WORK
            while time.thread_time() < end:
                pass
            with lock:
                requests, waiting = requests + 1, waiting - 1
        self.answer(200, "ok\n")

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words: object) -> None:
        pass


def load(url: str, rate: float) -> None:
    """Asks for ever, each time over a connection of its own, so that new pods get their share."""
    due = time.monotonic()
    while True:
        due = max(due + 1 / rate, time.monotonic() - 1)
        time.sleep(max(0.0, due - time.monotonic()))
        threading.Thread(target=ask, args=(url,), daemon=True).start()


def ask(url: str) -> None:
    try:
        urllib.request.urlopen(url, timeout=5).read()
    except OSError as error:
        print(error)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if sys.argv[1:2] == ["load"]:
        load(sys.argv[2], float(sys.argv[3]))
    else:
        ThreadingHTTPServer(("", 8080), Handler).serve_forever()
