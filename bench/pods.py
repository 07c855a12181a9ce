"""Pods on real nodes: what one costs each process, who writes what for it, and when it is Ready.

    python -m bench.pods [OLD] [--pods N] [--rounds N] [--nodes N]

As root, with busybox on the machine. Starts a lab of this checkout (and one of OLD, a commit or a folder with a checkout,
beside it), and in every round has a Deployment of N replicas come up and go, in the one lab, then in the other. Prints for
each lab the medians: milliseconds of CPU a pod from the scaling to the last that is Ready (``start``) and from there to the
last that is gone (``end``), of every kind of process; ``containers`` is what the nodes' control groups used beside agents
and proxies: conmon, crun, and the containers themselves. Then writes a pod by what is written, from the API server's own
counters, and seconds until the first and the last pod is Ready. With OLD also new / old, the median of the rounds' ratios:
read that for CPU; the seconds are the machine's as much as ours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.compare import checkout
from bench.servers import ROOT, cpu_seconds
from navarch.api.pods import is_ready
from navarch.api.types import apps_v1, core_v1, meta_v1
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.informer import Informer
from navarch.client.transport import connect
from navarch.linux.cgroups import Hierarchies
from navarch.world import RealWorld

IMAGE = "localhost/bench-pods:1"
NAME, NAMESPACE = "many", "default"
PATIENCE = 180.0  # seconds
SETTLE = 2.0  # seconds after the last pod is Ready or gone: Events and last statuses are still on their way
WRITES = re.compile(
    r'apiserver_request_total\{verb="(\w+)",.*resource="(\w*)",subresource="(\w*)",code="2\d\d"\} (\d+)'
)
READS = ("GET", "LIST", "WATCH", "CONNECT")
Measured = dict[str, float]


class Lab:
    """A lab of the checkout in ``root``, in a folder of its own."""

    def __init__(self, root: Path, nodes: int) -> None:
        self.root, self.nodes = root, nodes
        self.home = Path(tempfile.mkdtemp(prefix="bench-"))

    def __enter__(self) -> Lab:
        context = self.home / "image"
        context.mkdir()
        command = 'CMD ["/bin/busybox", "sleep", "9999"]'
        (context / "Dockerfile").write_text(f"FROM scratch\nCOPY busybox /bin/busybox\n{command}\n")
        shutil.copy(shutil.which("busybox") or "/bin/busybox", context / "busybox")
        self.navarch("image", "build", "-t", IMAGE, str(context))
        self.navarch("up", "-q", "--nodes", str(self.nodes))
        return self

    def __exit__(self, *error: object) -> None:
        self.navarch("down", "-q", "--purge")
        shutil.rmtree(self.home, ignore_errors=True)

    def navarch(self, *words: str) -> str:
        environment = os.environ | {"NAVARCH_HOME": str(self.home), "PYTHONPATH": str(self.root), "NAVARCH_EGRESS": "off"}
        command = [sys.executable, "-m", "cli", *words]
        return subprocess.run(command, cwd=self.root, env=environment, check=True, capture_output=True, text=True).stdout

    def cpu(self) -> dict[str, float]:
        """CPU seconds until now, by kind of process."""
        status = json.loads(self.navarch("status", "-o", "json"))
        used: dict[str, float] = {}
        for process in status["processes"]:
            kind = process["name"].partition("/")[0]
            used[kind] = used.get(kind, 0.0) + cpu_seconds(process["pid"])
        groups = {group for node in status["nodes"] if (group := _node_group(node["pid"]))}
        used["containers"] = sum(map(_group_seconds, groups)) - used["agent"] - used["proxy"]
        return used


def _node_group(pid: int) -> str:
    """The control group of the whole node in which this process, its first, is."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(",") or not controllers:
            return path.removesuffix("/sys")
    return ""


def _group_seconds(group: str) -> float:
    hierarchies = Hierarchies()
    if hierarchies.unified:
        text = (hierarchies.v2 / group.lstrip("/") / "cpu.stat").read_text()
        return int(text.split()[1]) / 1e6
    return int((hierarchies.v1["cpuacct"] / group.lstrip("/") / "cpuacct.usage").read_text()) / 1e9


class Round(NamedTuple):
    """Milliseconds of CPU a pod at the start and at the end, writes a pod, seconds."""

    start: Measured
    end: Measured
    writes: Measured
    seconds: Measured


class Side:
    """One of the labs, and a client of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab, world = lab, RealWorld()
        config = kubeconfig.load(lab.home / "labs" / "default" / "kubeconfig")
        self.client = Client(connect(config), world)
        self.deployments = self.client[apps_v1.Deployment]
        self.pods = Informer(self.client[core_v1.Pod], namespace=NAMESPACE)
        self.pods.add_handler(self._seen)
        self.changed = asyncio.Event()
        self.ready: dict[str, float] = {}

    def _seen(self, kind: str, old: core_v1.Pod | None, new: core_v1.Pod) -> None:
        if is_ready(new):
            self.ready.setdefault(new.metadata.uid or "", time.monotonic())
        self.changed.set()

    async def begin(self) -> None:
        await self.pods.wait_synced()
        labels = {"app": NAME}
        container = core_v1.Container(name="c", image=IMAGE)
        template = core_v1.PodTemplateSpec(
            metadata=meta_v1.ObjectMeta(labels=labels),
            spec=core_v1.PodSpec(containers=[container], termination_grace_period_seconds=1),
        )
        selector = meta_v1.LabelSelector(match_labels=labels)
        spec = apps_v1.DeploymentSpec(replicas=0, selector=selector, template=template)
        await self.deployments.create(apps_v1.Deployment(metadata=meta_v1.ObjectMeta(name=NAME), spec=spec), NAMESPACE)

    async def writes(self) -> dict[str, int]:
        """Writes until now, by what was written."""
        answer = await self.client.request("GET", "/metrics", accept="text/plain")
        found: dict[str, int] = {}
        for verb, resource, sub, count in WRITES.findall(answer.body.decode()):
            if verb not in READS and resource != "leases":
                key = f"{verb.lower()} {resource}{'/' if sub else ''}{sub}"
                found[key] = found.get(key, 0) + int(count)
        return found

    async def scale(self, replicas: int) -> None:
        await self.deployments.patch(NAME, NAMESPACE, {"spec": {"replicas": replicas}}, "merge")

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    async def round(self, count: int) -> Round:
        """The Deployment comes up and goes."""
        self.ready.clear()
        cpu, writes, began = self.lab.cpu(), await self.writes(), time.monotonic()
        await self.scale(count)
        await self.until(lambda: len(self.ready) >= count)
        times = sorted(self.ready.values())
        seconds = {"first Ready": times[0] - began, "all Ready": times[-1] - began}
        await asyncio.sleep(SETTLE)
        middle, written, began = self.lab.cpu(), await self.writes(), time.monotonic()
        await self.scale(0)
        await self.until(lambda: not len(self.pods))
        seconds["all gone"] = time.monotonic() - began
        await asyncio.sleep(SETTLE)
        end, removed = self.lab.cpu(), await self.writes()
        by_writes = {f"start: {k}": (v - writes.get(k, 0)) / count for k, v in written.items()}
        by_writes |= {f"end: {k}": (v - written.get(k, 0)) / count for k, v in removed.items()}
        return Round(_each(cpu, middle, count), _each(middle, end, count), by_writes, seconds)


def _each(before: Measured, after: Measured, count: int) -> Measured:
    each = {name: 1000 * (after[name] - before[name]) / count for name in after}
    return each | {"all": sum(each.values())}


async def run(labs: list[Lab], rounds: int, count: int) -> None:
    sides = [Side(lab) for lab in labs]
    tasks = [asyncio.create_task(side.pods.run()) for side in sides]
    for side in sides:
        await side.begin()
        await side.round(count)  # what is only done once
    found: list[list[Round]] = [[] for _ in sides]
    for n in range(rounds):
        for which in range(len(sides)) if n % 2 else reversed(range(len(sides))):
            found[which].append(await sides[which].round(count))
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    for side in sides:
        await side.client.close()
    for field, unit in (("start", "ms of CPU a pod"), ("end", "ms of CPU a pod"), ("writes", "a pod"), ("seconds", "s")):
        _show(f"{field}, {unit}", [[getattr(r, field) for r in one] for one in found])


def _show(title: str, found: list[list[Measured]]) -> None:
    """A table of the medians; with two labs, of the old and the new one and of their ratio."""
    two = len(found) > 1
    print(f"\n| {title} |" + (" old | new | new / old |\n|---|---|---|---|" if two else " median | lowest |\n|---|---|---|"))
    for name in dict.fromkeys(name for one in found for r in one for name in r):
        values = [[r.get(name, 0.0) for r in one] for one in found]
        medians = [statistics.median(v) for v in values]
        if max(medians) < 0.02:
            continue
        if two:
            ratios = [b / a for a, b in zip(*values, strict=True) if a > 0]
            print(f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} | {statistics.median(ratios) if ratios else 0:.2f} |")
        else:
            print(f"| {name} | {medians[0]:.2f} | {min(values[0]):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.pods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", nargs="?")
    parser.add_argument("--pods", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=3)
    options = parser.parse_args()
    with ExitStack() as stack:
        roots = [*([checkout(options.old, stack)] if options.old else []), ROOT]
        labs = [stack.enter_context(Lab(root, options.nodes)) for root in roots]
        asyncio.run(run(labs, options.rounds, options.pods))


if __name__ == "__main__":
    main()
