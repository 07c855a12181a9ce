"""Nodes by name, and nodes like those of a live cluster: read once, when the file is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lab.experiments.expressions import meant
from lab.experiments.model import Nodes
from lab.experiments.schema import Problem
from navarch.api import kinds, quantity
from navarch.api.types import core_v1
from navarch.api.wellknown import HOSTNAME
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.transport import connect
from navarch.world import RealWorld
from nodeagent.hollow.objects import NodeSpec

FIELDS = ("name", "cpu", "memory", "pods", "labels", "resources", "taints")
OWN = (HOSTNAME,)
"""Labels that each simulated node has of itself."""
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def of_cluster(path: Path) -> list[dict[str, Any]]:
    """The nodes of a cluster as entries of ``listed``: allocatable resources, labels, lasting taints. Raises ValueError."""

    async def nodes() -> list[dict[str, Any]]:
        client = Client(connect(kubeconfig.load(path)), world)
        try:
            return [entry(tree) for tree in (await client.tree(kinds.kind_of(core_v1.Node)).list()).items]
        finally:
            await client.close()

    world = RealWorld()
    try:
        return world.run(nodes)
    except Exception as error:  # whatever keeps us from it
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error


def entry(tree: dict[str, Any]) -> dict[str, Any]:
    """A Node as an entry of ``listed``."""
    meta, spec, status = tree["metadata"], tree.get("spec") or {}, tree.get("status") or {}
    amounts = {k: str(v) for k, v in (status.get("allocatable") or status.get("capacity") or {}).items()}
    taints = [
        {k: t[k] for k in ("key", "value", "effect") if t.get(k)}
        for t in spec.get("taints") or ()
        if not t["key"].startswith("node.kubernetes.io/")
    ]
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k not in OWN}
    return {
        "name": meta["name"], "cpu": amounts.pop("cpu", "0"), "memory": amounts.pop("memory", "0"),
        "pods": int(amounts.pop("pods", "110")), "labels": labels,
        "resources": amounts, "taints": taints,
    }  # fmt: skip


def check(group: Nodes, path: str, problems: list[Problem]) -> None:
    """Adds the problems of ``listed``, and of what all nodes of a group have."""
    amounts = {"cpu": group.cpu, "memory": group.memory} | {f"resources.{k}": v for k, v in group.resources.items()}
    for name, value in amounts.items():
        if not _is_quantity(value):
            problems.append(Problem(f"{path}.{name}", f"{value!r} is no quantity such as 4 or 16Gi"))
    for name, count in (("pods", group.pods), ("zones", group.zones)):
        if count < 0:
            problems.append(Problem(f"{path}.{name}", "must not be negative"))
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*)", group.prefix):
        problems.append(Problem(f"{path}.prefix", f"{group.prefix!r} begins no node's name: small letters, digits, hyphens"))
    for n, taint in enumerate(group.taints):
        if taint.effect not in EFFECTS:
            problems.append(Problem(f"{path}.taints[{n}].effect", f"{taint.effect!r} is none of {', '.join(EFFECTS)}"))
    if group.cluster:
        problems.append(Problem(f"{path}.cluster", "is read with the file; say the nodes as listed here"))
    for n, one in enumerate(group.listed):
        where = f"{path}.listed[{n}]"
        for key in one:
            if key not in FIELDS:
                problems.append(Problem(f"{where}.{key}", f"there is no such field{meant(str(key), FIELDS)}"))
        if not one.get("name"):
            problems.append(Problem(f"{where}.name", "is required"))
        if any(other.get("name") == one.get("name") for other in group.listed[:n]):
            problems.append(Problem(f"{where}.name", f"{one.get('name')!r} is another node's name"))
        for key in ("cpu", "memory"):
            if not _is_quantity(one.get(key, "1")):
                problems.append(Problem(f"{where}.{key}", f"{one[key]!r} is no quantity such as 4 or 16Gi"))


def _is_quantity(value: Any) -> bool:
    try:
        return quantity.parse(str(value)) >= 0
    except quantity.QuantityError:
        return False


def spec(one: dict[str, Any], address: str) -> NodeSpec:
    """The simulated node of an entry."""
    taints = tuple(
        core_v1.Taint(key=t["key"], value=t.get("value") or None, effect=t.get("effect", "NoSchedule"))
        for t in one.get("taints") or ()
    )
    return NodeSpec(
        str(one["name"]), str(one.get("cpu", "4")), str(one.get("memory", "16Gi")), int(one.get("pods", 110)), address,
        labels={k: str(v) for k, v in (one.get("labels") or {}).items()}, taints=taints,
        resources={k: str(v) for k, v in (one.get("resources") or {}).items()},
    )  # fmt: skip
