"""How long a lab takes to come up, and what it costs when nothing happens.

    python -m bench.up [--runs N] [--nodes N] [--store etcd|sqlite] [--idle SECONDS] [--no-guestbook]

As root, with real nodes; with --nodes 0 also without. Every run makes a new lab (``fresh``), takes it down and starts it
again (``again``), and deletes it. Times are in seconds from the start of the command ``navarch up``, as a user sees them,
with the start of Python itself: until /readyz answers, until all nodes are Ready, until the command ends, and until the
guestbook answers through a NodePort, if its images have been built (``deploy/quickstart`` does): in a fresh lab with
``navarch apply`` after ``up``, in the other by itself. ``pss`` and ``cpu`` are those of all processes of the fresh lab
before the guestbook is there.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from lab.paths import LabPaths

LAB = "bench-up"
ROOT = Path(__file__).parent.parent
IMAGES = ("localhost/guestbook-redis:v1", "localhost/guestbook-frontend:v1")
PORT = 30080
PATIENCE = 60.0  # seconds


def navarch(*words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NAVARCH_EGRESS": "off"}
    return subprocess.Popen([sys.executable, "-m", "cli", *words], env=environment, text=True, stdout=subprocess.PIPE)


def say(*words: str) -> str:
    """Runs a command to its end and returns what it printed."""
    process = navarch(*words)
    output, _ = process.communicate(timeout=PATIENCE)
    if process.returncode:
        raise SystemExit(f"navarch {' '.join(words)} failed")
    return output


class Observer(threading.Thread):
    """Asks the API server again and again; notes when it was first ready, and when all nodes first were."""

    def __init__(self, nodes: int, began: float) -> None:
        super().__init__(daemon=True)
        self.nodes, self.began = nodes, began
        self.ready = self.nodes_ready = 0.0
        self.connection: http.client.HTTPSConnection | None = None

    def run(self) -> None:
        while not self.nodes_ready and time.monotonic() - self.began < PATIENCE:
            try:
                self.look()
            except (OSError, ValueError, http.client.HTTPException):
                self.connection = None
            time.sleep(0.01)

    def look(self) -> None:
        if not self.ready and self.get("/readyz")[0] == 200:
            self.ready = time.monotonic() - self.began
        if self.ready:
            items = json.loads(self.get("/api/v1/nodes")[1])["items"]
            conditions = [c for item in items for c in item.get("status", {}).get("conditions", ())]
            if sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions) >= self.nodes:
                self.nodes_ready = time.monotonic() - self.began

    def get(self, path: str) -> tuple[int, bytes]:
        if self.connection is None:
            paths = LabPaths(LAB)
            context = ssl.create_default_context(cafile=str(paths.pki / "ca.crt"))
            context.load_cert_chain(paths.pki / "admin.crt", paths.pki / "admin.key")
            port = json.loads(paths.config.read_text())["port"]
            self.connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def up(arguments: argparse.Namespace, guestbook: bool, fresh: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Starts the lab; returns the times, and what the idle lab costs (only of a fresh one)."""
    began = time.monotonic()
    observer = Observer(arguments.nodes, began)
    words = ["--nodes", str(arguments.nodes), *(["--store", arguments.store] if arguments.store else [])]
    process = navarch("up", "-q", "--lab", LAB, *(words if fresh else ()))
    observer.start()
    if process.wait(PATIENCE):
        raise SystemExit("navarch up failed")
    times = {"command": time.monotonic() - began}
    observer.join(PATIENCE)
    times = {"API ready": observer.ready, "nodes Ready": observer.nodes_ready, **times}
    idle = {}
    if fresh and arguments.idle:
        pause = time.monotonic()
        idle = cost(arguments.idle)
        began += time.monotonic() - pause
    if guestbook:
        if fresh:
            say("apply", "--lab", LAB, "-f", str(ROOT / "deploy/guestbook/manifests"))
        times["guestbook"] = serving(began)
    return times, idle


def serving(began: float) -> float:
    """Seconds until the guestbook has answered over every node."""
    nodes = json.loads(say("status", "--lab", LAB, "-o", "json"))["nodes"]
    waiting = [f"http://{node['address']}:{PORT}/entries" for node in nodes]
    while waiting and time.monotonic() - began < PATIENCE:
        try:
            urllib.request.urlopen(waiting[0], timeout=2).close()
            waiting.pop(0)
        except OSError:
            time.sleep(0.02)
    return time.monotonic() - began


def cost(seconds: float) -> dict[str, float]:
    """PSS in MB and CPU in percent of a core, of all processes of the lab."""
    status = json.loads(say("status", "--lab", LAB, "-o", "json"))
    pids = [p["pid"] for p in status["processes"]] + [n["pid"] for n in status["nodes"] if n["pid"]]
    time.sleep(5)  # let the start settle
    before, began = sum(map(ticks, pids)), time.monotonic()
    time.sleep(seconds)
    used = (sum(map(ticks, pids)) - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began)
    by_name = {p["name"].partition("/")[0]: 0.0 for p in status["processes"]}
    for process in status["processes"]:
        by_name[process["name"].partition("/")[0]] += pss(process["pid"])
    print("  PSS: " + ", ".join(f"{name} {size:.0f} MB" for name, size in by_name.items()))
    return {"pss MB": sum(map(pss, pids)), "cpu %": used * 100}


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Times of navarch up, and the cost of an idle lab.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--store", default="", help="etcd or sqlite; default: navarch's")
    parser.add_argument(
        "--idle", type=float, default=10, help="seconds over which an idle lab is watched; 0: not at all"
    )
    parser.add_argument("--no-guestbook", action="store_true")
    arguments = parser.parse_args()
    present = say("image", "list", "-o", "name").split()
    guestbook = bool(arguments.nodes) and not arguments.no_guestbook and all(image in present for image in IMAGES)
    if not guestbook and not arguments.no_guestbook:
        print("no guestbook: its images are missing, or there are no nodes")
    found: dict[str, list[float]] = {}
    say("down", "-q", "--purge", "--lab", LAB)
    for number in range(arguments.runs):
        print(f"run {number + 1} of {arguments.runs}", flush=True)
        try:
            for kind in ("fresh", "again"):
                times, idle = up(arguments, guestbook, kind == "fresh")
                for name, value in times.items():
                    found.setdefault(f"{kind}: {name}", []).append(value)
                for name, value in idle.items():
                    found.setdefault(f"idle: {name}", []).append(value)
                say("down", "-q", "--lab", LAB)
        finally:
            say("down", "-q", "--purge", "--lab", LAB)
    print(f"\n{'':24}{'min':>8}{'median':>8}{'max':>8}")
    for name, values in found.items():
        print(f"{name:24}{min(values):8.2f}{statistics.median(values):8.2f}{max(values):8.2f}")


if __name__ == "__main__":
    main()
