"""Servers for benchmarks to measure: made in a temporary folder, gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Server(NamedTuple):
    """Where a control plane is reached, and its processes by name."""

    kubeconfig: Path
    pids: dict[str, int]
    store: str = ""  # as the API server's --store


@contextmanager
def plane(store: str = "etcd", settings: Sequence[str] = (), seconds: float | None = None) -> Iterator[Server]:
    """A whole control plane without nodes, as ``navarch up --nodes 0`` makes it; ``settings`` are for its ``--set``.
    Starting or stopping it may take so many ``seconds``."""
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    environment = os.environ | {"NAVARCH_HOME": str(home), "PYTHONPATH": str(ROOT), "NAVARCH_EGRESS": "off"}

    def navarch(*words: str) -> None:
        command = [sys.executable, "-m", "cli", *words]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=seconds)

    lab = home / "labs" / "bench"
    more = [word for setting in settings for word in ("--set", setting)]
    try:
        navarch("up", "--quiet", "--lab", "bench", "--nodes", "0", "--store", store, *more)
        known = json.loads((lab / "run" / "processes.json").read_text())
        yield Server(lab / "kubeconfig", {p["spec"]["name"]: p["process"]["pid"] for p in known})
    finally:
        navarch("down", "--lab", "bench", "--purge")
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def apiserver(store: str = "etcd", root: Path = ROOT) -> Iterator[Server]:
    """An API server of its own, with nothing beside it but the store; of the checkout in ``root``."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    processes: dict[str, subprocess.Popen[bytes]] = {}
    address = {"memory": "memory", "sqlite": f"sqlite:{folder / 'db'}", "etcd": f"etcd:unix:{folder}/localhost:1"}[
        store
    ]
    try:
        if store == "etcd":
            processes["etcd"] = _etcd(folder)
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "apiserver", "--store", address, "--cert-dir", str(folder / "pki")]
            processes["apiserver"] = subprocess.Popen(
                [*command, "--secure-port", "0"], cwd=root, stdout=log, stderr=log
            )
        end = time.monotonic() + 60
        while b"kubeconfig:" not in (folder / "log").read_bytes():
            if processes["apiserver"].poll() is not None or time.monotonic() > end:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.05)
        pids = {name: process.pid for name, process in processes.items()}
        yield Server(folder / "pki" / "admin.kubeconfig", pids, address)
    finally:
        for process in reversed(processes.values()):
            process.terminate()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _etcd(folder: Path) -> subprocess.Popen[bytes]:
    client, peer = "unix://localhost:1", "unix://localhost:2"
    return subprocess.Popen(
        [
            "etcd", "--name=e", "--data-dir=data", f"--initial-cluster=e={peer}", "--log-level=error", "--logger=zap",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            "--heartbeat-interval=10", "--election-timeout=100", "--quota-backend-bytes=4294967296",
        ],
        cwd=folder, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def memory_megabytes(pid: int) -> tuple[int, int]:
    """PSS and RSS of a process."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Pss", "Rss"):
            found[name] = int(rest.split()[0]) // 1024
    return found["Pss"], found["Rss"]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process: of the threads that it has now by the nanosecond, else of all by the clock tick."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        return sum(int((tasks / task / "schedstat").read_text().split()[0]) for task in os.listdir(tasks)) / 1e9
    except FileNotFoundError:  # a kernel without schedstat, or a thread that has just ended
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
