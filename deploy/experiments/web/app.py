"""A web server for experiments on real containers: says its version.

It listens on $PORT once $STARTS_IN seconds are over. On SIGTERM it goes on for $GRACE seconds, in which proxies learn of its
end; with 0 it ends at once, and a rolling update loses requests.
"""

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = os.environ.get("VERSION", "v1")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{VERSION} {os.uname().nodename}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def end(number, frame):
    threading.Timer(float(os.environ.get("GRACE", "1")), os._exit, (0,)).start()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    time.sleep(float(os.environ.get("STARTS_IN", "0")))
    print(f"version {VERSION}", file=sys.stderr)
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "80"))), Handler).serve_forever()
