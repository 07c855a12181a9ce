"""Nodes by name, and nodes like those of a live cluster: read once, when the file is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.experiments.expressions import meant
from lab.experiments.model import Nodes
from lab.experiments.schema import Problem, one_of
from navarch.api import kinds, names, quantity
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


def check_kind(
    labels: Mapping[str, Any], resources: Iterable[str], taints: Iterable[tuple[str, str, str]], path: str,
    problems: list[Problem],
) -> None:
    """Adds what Kubernetes refuses of the labels, resources and taints (key, value, effect) of nodes."""
    for key, value in labels.items():
        problems += [Problem(f"{path}.labels.{key}", m) for m in names.qualified_name(str(key))]
        problems += [Problem(f"{path}.labels.{key}", f"{value!r}: {m}") for m in names.label_value(_written(value))]
    for name in resources:
        problems += [Problem(f"{path}.resources.{name}", m) for m in names.qualified_name(str(name))]
    for n, (key, value, effect) in enumerate(taints):
        problems += [Problem(f"{path}.taints[{n}].key", m) for m in names.qualified_name(key)]
        problems += [Problem(f"{path}.taints[{n}].value", m) for m in names.label_value(value)]
        one_of(f"{path}.taints[{n}].effect", effect, EFFECTS, problems)


def _written(value: Any) -> str:
    """YAML's true as a text has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


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
    check_kind(group.labels, group.resources, [(t.key, t.value, t.effect) for t in group.taints], path, problems)
    if wrong := names.dns_subdomain(f"{group.prefix}{group.count}"):
        problems.append(Problem(f"{path}.prefix", wrong[0]))
    if group.cluster:
        problems.append(Problem(f"{path}.cluster", "is read with the file; say the nodes as listed here"))
    for n, one in enumerate(group.listed):
        where = f"{path}.listed[{n}]"
        for key in one:
            if key not in FIELDS:
                problems.append(Problem(f"{where}.{key}", f"there is no such field{meant(str(key), FIELDS)}"))
        if not one.get("name"):
            problems.append(Problem(f"{where}.name", "is required"))
        elif wrong := names.dns_subdomain(str(one["name"])):
            problems.append(Problem(f"{where}.name", wrong[0]))
        kinds_of = {"labels": dict, "resources": dict, "taints": list}
        odd = [k for k, kind in kinds_of.items() if not isinstance(one.get(k, kind()), kind)]
        problems += [Problem(f"{where}.{k}", f"is no {'list' if k == 'taints' else 'mapping'}") for k in odd]
        if not isinstance(one.get("pods", 1), int) or one.get("pods", 1) < 0:
            problems.append(Problem(f"{where}.pods", f"{one['pods']!r} is not a whole number"))
        if odd or not all(isinstance(t, dict) and t.get("key") for t in one.get("taints") or ()):
            problems += [] if odd else [Problem(f"{where}.taints", "each needs a key")]
            continue
        taints = [
            (str(t["key"]), str(t.get("value") or ""), str(t.get("effect", "NoSchedule"))) for t in one.get("taints") or ()
        ]
        check_kind(one.get("labels") or {}, one.get("resources") or {}, taints, where, problems)
        for key, value in (one.get("resources") or {}).items():
            if not _is_quantity(value):
                problems.append(Problem(f"{where}.resources.{key}", f"{value!r} is no quantity such as 4 or 16Gi"))
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
