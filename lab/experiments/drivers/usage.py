"""Use of cores and memory by simulated pods, as it follows from their load: told to metrics by annotations of the pods."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lab.experiments.drivers.driver import Driver
from lab.experiments.drivers.queueing import Queueing
from lab.experiments.inputs import seconds_of
from lab.experiments.serving import Servings, Use
from lab.experiments.state import State, is_live
from navarch.api import kinds, quantity
from navarch.api.errors import NotFound
from navarch.api.types import core_v1
from navarch.api.usage import METRIC

_POD = kinds.kind_of(core_v1.Pod)
EVERY = 15.0  # seconds, as metrics are scraped
NOTE = "hollow.navarch.dev/"


async def tell(driver: Driver, state: State, servings: Servings, loads: Callable[[], Sequence[Queueing]]) -> None:
    """For ever: every 15 s, the use of each live pod that follows its load."""
    last: dict[str, dict[str, str]] = {}
    while True:
        await driver.sleep(EVERY)
        for pod in filter(is_live, state.all("pods")):
            meta, annotations = pod["metadata"], _annotations(pod, servings, loads())
            if annotations and last.get(meta["uid"], {}) != annotations:
                last[meta["uid"]] = annotations
                body = {"metadata": {"annotations": annotations}}
                with contextlib.suppress(NotFound):  # it went meanwhile
                    await driver.client.tree(_POD).patch(meta["name"], meta["namespace"], body, "strategic")
        for load in loads():
            load.queues.served.clear()


def _annotations(pod: Mapping[str, Any], servings: Servings, loads: Sequence[Queueing]) -> dict[str, str]:
    """By annotation, what each container of a pod uses: they share what the pod does."""
    uid, uses = pod["metadata"]["uid"], dict(servings.use(pod))
    rates = [(load, load.queues.served.get(uid, 0) / EVERY) for load in loads]
    rate, count = sum(r for _, r in rates), len(pod["spec"]["containers"])
    cost = sum(r * seconds_of(load.load.cpu) for load, r in rates if load.load.cpu)
    if any(load.load.cpu and uid in load.late for load in loads):
        uses.setdefault("cpu", Use(0.0, 0.0))
    out = {}
    for name, use in uses.items():
        amount = (use.at(rate) + (cost if name == "cpu" else 0.0)) / count
        out[NOTE + name] = f"{round(1000 * amount)}m" if name == "cpu" else str(round(amount))
    for load, rate in rates:
        if load.load.metric and uid in load.late:
            out[METRIC + load.load.metric] = quantity.from_milli(round(1000 * rate))
    return out
