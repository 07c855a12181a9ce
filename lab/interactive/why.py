"""The scheduler's answer to "why is this pod there, or nowhere?", to be looked at in a notebook or an assertion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from lab.experiments.drivers.virtual import Virtual
from lab.experiments.drivers.wallclock import WallClock
from lab.interactive.session import Session
from lab.pages import page
from navarch.api.errors import NotFound
from scheduler.io.httpserver import pages


class Why:
    """``tree`` is all that the scheduler tells (scheduler/explain)."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self.tree = tree

    @property
    def node(self) -> str:
        """The node that was chosen; "" if none."""
        return str(self.tree["node"])

    @property
    def refused(self) -> dict[str, int]:
        """By reason, how many nodes were refused for it."""
        return {str(r["reason"]): int(r["nodes"]) for r in self.tree["refused"]}

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Of the best nodes, best first: each plugin's points times its weight, and their ``total``."""
        return {
            best["node"]: {name: s["score"] * s["weight"] for name, s in best["scores"].items()} | {"total": best["total"]}
            for best in self.tree["best"]
        }

    def frame(self) -> Any:
        """``scores`` as a pandas DataFrame: a row a node."""
        import pandas

        return pandas.DataFrame.from_dict(self.scores, orient="index")

    def __str__(self) -> str:
        tree = self.tree
        name = f"{tree['namespace']}/{tree['pod']}"
        if self.node:
            ahead = f", {tree['margin']:g} points before {tree['runnerUp']}" if tree.get("margin") else ""
            equal = f"; {tree['ties']} were equally good, and chance decided" if tree.get("ties", 0) > 1 else ""
            return f"{name} is on {self.node}: {tree['feasible']} of {tree['nodes']} nodes could take it{equal or ahead}"
        why = tree.get("message") or "; ".join(f"{count} {reason}" for reason, count in self.refused.items())
        return f"{name} fits nowhere: {why}"

    __repr__ = __str__


def kubeconfig_of(session: Session) -> Path:
    """Of the lab that it is played on."""
    assert isinstance(session.driver, WallClock)
    return Path(session.driver.access["kubeconfig"])


async def explained(session: Session, namespace: str, pod: str) -> dict[str, Any]:
    """The answer of the cluster's scheduler about a pod. Raises NotFound; OSError if the scheduler of a lab does not answer."""
    driver, query = session.driver, urlencode({"namespace": namespace, "pod": pod})
    if isinstance(driver, Virtual):
        _, _, body = pages(driver.cluster.scheduler)["/explain"](query)
    else:
        socket = kubeconfig_of(session).parent / "run" / "scheduler.sock"
        _, body = await driver.world.blocking(lambda: page(socket, f"/explain?{query}"))
    answer: dict[str, Any] = json.loads(body)
    if "error" in answer:
        raise NotFound(str(answer["error"]))
    return answer
