"""Calibration: starting and stopping pods on a real cluster, and measuring how long each stage took, to the millisecond."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from lab.experiments.state import condition
from lab.twin.learning import PULLED
from lab.twin.snapshot import Tree
from navarch.api import kinds
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.informer import Informer
from navarch.client.watch import DELETED
from nodeagent.runtime.spread import spread

LABEL = "lab.navarch.dev/calibration"
PERIOD = 1  # seconds between two questions of the probe
PATIENCE = 120.0  # seconds for one stage of one pod
POD = kinds.kind_of(core_v1.Pod)


class TooSlow(Exception):
    """A pod did not get so far in time; the text says where it stands."""


def pod(name: str, image: str, command: list[str], ready: Sequence[str] = ()) -> Tree:
    """A pod of one container; ``ready``: the command of its readiness probe."""
    container: dict[str, Any] = {"name": "c", "image": image, "imagePullPolicy": "IfNotPresent"}
    if command:
        container["command"] = command
    if ready:
        container["readinessProbe"] = {"exec": {"command": list(ready)}, "periodSeconds": PERIOD}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {LABEL: "true"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 10, "automountServiceAccountToken": False},
    }  # fmt: skip


async def measure(
    client: Client, namespace: str, image: str, command: list[str], count: int, ready: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, list[float]]:  # fmt: skip
    """Starts and deletes ``count`` pods one after another. Seconds by stage: ``start`` (bound to running), ``stop`` (deleted to
    gone), and with ``ready``, the command of a probe, ``ready`` (running to Ready). Nothing stays. Raises TooSlow,
    StatusError, TransportError."""
    samples: dict[str, list[float]] = {"start": [], "ready": [], "stop": []} if ready else {"start": [], "stop": []}
    world, verbs = client.world, client.tree(POD)
    seen_at: dict[tuple[str, str], float] = {}  # (pod, what happened) -> when
    news = asyncio.Event()
    informer = Informer(verbs, namespace, label_selector=LABEL)

    def changed(type: str, old: Tree | None, new: Tree) -> None:
        name, now = new["metadata"]["name"], world.monotonic()
        if type == DELETED:
            seen_at.setdefault((name, "removed"), now)
        if new["spec"].get("nodeName"):
            seen_at.setdefault((name, "bound"), now)
        states = new.get("status", {}).get("containerStatuses") or ()
        if states and all((s.get("state") or {}).get("running") for s in states):
            seen_at.setdefault((name, "running"), now)
        if condition(new, "Ready") == "True":
            seen_at.setdefault((name, "ready"), now)
        news.set()

    informer.add_handler(changed)

    async def until(name: str, what: str) -> float:
        end = world.monotonic() + PATIENCE
        while (name, what) not in seen_at:
            if world.monotonic() > end:
                tree = informer.get(namespace, name) or {}
                states = tree.get("status", {}).get("containerStatuses") or ()
                waits = [(s.get("state") or {}).get("waiting", {}).get("reason") for s in states]
                raise TooSlow(
                    f"pod {name} is not {what} after {PATIENCE:.0f} s: {', '.join(filter(None, waits)) or 'Pending'}"
                )
            news.clear()
            try:
                async with asyncio.timeout(1.0):
                    await news.wait()
            except TimeoutError:
                pass
        return seen_at[name, what]

    async with world.task_group() as group:
        group.start(informer.run(), "calibration")
        await informer.wait_synced()
        try:
            for number in range(count):
                name = f"calibration-{number + 1}"
                say(f"{number + 1}/{count}")
                await verbs.create(pod(name, image, command, ready), namespace)
                bound, running = await until(name, "bound"), await until(name, "running")
                since = await until(name, "ready")
                began = world.monotonic()
                await verbs.delete(name, namespace)
                samples["start"].append(running - bound)
                if ready:
                    # The probe's own rhythm comes on top of what is measured: half a period back lies between two questions.
                    samples["ready"].append(max(0.0, since - running - PERIOD / 2))
                samples["stop"].append(await until(name, "removed") - began)
        finally:
            await verbs.delete_collection(namespace, label_selector=LABEL, grace_period_seconds=0)
            group.cancel()
    return samples


def pulls(events: list[Tree]) -> list[float]:
    """Seconds of the pulls that Events tell of."""
    out = []
    for event in events:
        if match := PULLED.search(event.get("message") or ""):
            value = spread(match[2])
            out.append(value if isinstance(value, float) else 0.0)
    return out
