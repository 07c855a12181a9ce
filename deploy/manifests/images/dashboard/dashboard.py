#!/usr/bin/python3
"""A page of plots out of a server that answers Prometheus' questions. $BOARD says which, and is read at each request:

    {"title": TEXT, "panels": [{"title": TEXT, "query": PROMQL, "name": LABEL, "unit": TEXT}]}

    GET /          the page
    GET /panels    [{"title", "series": {value of the label: newest value}}]
    GET /healthz   the board can be read and the metrics' server is well
"""

import html
import json
import os
import signal
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROMETHEUS = os.environ.get("PROMETHEUS", "http://metrics:8428")
BOARD = os.environ.get("BOARD", "/etc/dashboard/board.json")
WIDTH, HEIGHT, SPAN = 560, 140, 600  # pixels, pixels, seconds
COLOURS = ("#1a5fb4", "#c01c28", "#26a269", "#e5a50a", "#813d9c", "#63452c")


def board():
    with open(BOARD) as file:
        return json.load(file)


def series(panel):
    """{value of the panel's label: [(seconds since 1970, value)]}"""
    now = time.time()
    words = urllib.parse.urlencode({"query": panel["query"], "start": now - SPAN, "end": now, "step": 5})
    with urllib.request.urlopen(f"{PROMETHEUS}/api/v1/query_range?{words}", timeout=5) as answer:
        found = json.load(answer)["data"]["result"]
    return {s["metric"].get(panel["name"], "all"): [(t, float(v)) for t, v in s["values"]] for s in found}


def newest(panel):
    return {name: line[-1][1] for name, line in series(panel).items()}


def plot(lines):
    """An SVG of lines over the last SPAN seconds, from zero up."""
    top = max((value for line in lines.values() for _, value in line), default=0) or 1
    start, drawn = time.time() - SPAN, []
    for number, line in enumerate(lines.values()):
        points = " ".join(f"{(t - start) / SPAN * WIDTH:.1f},{HEIGHT - value / top * HEIGHT:.1f}" for t, value in line)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[number % 6]}"/>')
    return f'<svg width="{WIDTH}" height="{HEIGHT}" style="background:#f6f5f4">{"".join(drawn)}</svg> {top:.3g}'


def page():
    shown = board()
    out = ["<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=10>"]
    title = html.escape(shown["title"])
    out.append(f"<title>{title}</title><body style='font:15px sans-serif;margin:2em'><h1>{title}</h1>")
    for panel in shown["panels"]:
        lines = series(panel)
        names = (f'<span style="color:{COLOURS[n % 6]}">{html.escape(name)}</span>' for n, name in enumerate(lines))
        out.append(f"<h3>{html.escape(panel['title'])}</h3>{plot(lines)} {html.escape(panel['unit'])}<br>{' '.join(names)}")
    return "\n".join(out)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        kind, status = "text/html; charset=utf-8", 200
        try:
            if self.path == "/":
                text = page()
            elif self.path == "/panels":
                kind = "application/json"
                text = json.dumps([{"title": panel["title"], "series": newest(panel)} for panel in board()["panels"]])
            elif self.path == "/healthz":
                board()
                urllib.request.urlopen(f"{PROMETHEUS}/health", timeout=2).close()
                text = "ok"
            else:
                text, status = "not found", 404
        except (OSError, ValueError, KeyError) as error:
            text, status = html.escape(str(error)), 502
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words):
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ThreadingHTTPServer(("", 3000), Handler).serve_forever()
