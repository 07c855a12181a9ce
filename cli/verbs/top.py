"""``navarch top``: what nodes and pods use, as the metrics API (metrics.k8s.io) says."""

from __future__ import annotations

import sys
from typing import Annotated

from cli.errors import CommandError
from cli.options import App, Argument, Option
from cli.output.tables import Columns
from cli.session import Session, Tree
from cli.verb import AllNamespaces, FieldSelector, Selector, Where, verb
from navarch.api import quantity
from navarch.api.errors import NotFound, ServiceUnavailable
from navarch.api.kinds import BY_GVK

app = App()
group = App(help="What nodes and pods use of CPU and memory.")
app.add_group(group, "top")

Name = Annotated[str, Argument("[NAME]")]
SortBy = Annotated[str, Option("--sort-by", metavar="cpu|memory", help="Largest first.")]
NoHeaders = Annotated[bool, Option("--no-headers", help="Without the line of column names.")]
Sum = Annotated[bool, Option("--sum", help="A last line with the sums.")]


async def _metrics(session: Session, path: str, selector: str, fields: str = "") -> list[Tree]:
    query = [(key, value) for key, value in (("labelSelector", selector), ("fieldSelector", fields)) if value]
    try:
        answer: Tree = await session.client.get_json(f"/apis/metrics.k8s.io/v1beta1/{path}", query)
    except ServiceUnavailable:
        raise CommandError("Metrics API not available", hint="is the metrics server running?") from None
    except NotFound:
        groups = await session.client.get_json("/apis")
        if any(g["name"] == "metrics.k8s.io" for g in groups.get("groups") or ()):
            raise
        raise CommandError("Metrics API not available") from None
    listed: list[Tree] = answer.get("items", [answer])
    return listed


def _sorted(rows: list[tuple[str, int, int]], sort_by: str) -> None:
    """By name, or by what is asked for, largest first. Raises CommandError."""
    if sort_by not in ("", "cpu", "memory"):
        raise CommandError("--sort-by accepts only cpu or memory")
    rows.sort(key=lambda row: (-row[1], row[0]) if sort_by == "cpu" else (-row[2], row[0]) if sort_by else row[0])


def _print(lines: list[list[str]]) -> None:
    """kubectl fills the last column with blanks here, too."""
    print("\n".join(Columns().lines([[*line, ""] for line in lines])))


def _usage(usage: Tree) -> tuple[int, int]:
    """(millicores, bytes)."""
    return quantity.milli(usage.get("cpu", 0)), quantity.value(usage.get("memory", 0))


def _mebi(amount: int) -> str:
    return f"{amount // (1 << 20)}Mi"


async def _nodes(session: Session, name: str, selector: str, sort_by: str, headers: bool) -> None:
    node_metrics = await _metrics(session, f"nodes/{name}" if name else "nodes", selector)
    room = {
        n["metadata"]["name"]: (n.get("status") or {}).get("allocatable") or {}
        for n in (await session.client.tree(BY_GVK["", "v1", "Node"]).list(None)).items
    }
    rows = [(m["metadata"]["name"], *_usage(m["usage"])) for m in node_metrics]
    _sorted(rows, sort_by)
    lines = [["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]] if headers else []
    for node, cpu, memory in rows:
        have = room.pop(node, {})
        cores, total = quantity.milli(have.get("cpu", 0)), quantity.value(have.get("memory", 0))
        share = [
            f"{100 * cpu // cores}%" if cores else "<unknown>",
            f"{100 * memory // total}%" if total else "<unknown>",
        ]
        lines.append([node, f"{cpu}m", share[0], _mebi(memory), share[1]])
    if not name and not selector:
        lines += [[node, *["<unknown>"] * 4] for node in sorted(room)]
    _print(lines)


async def _pods(
    session: Session,
    name: str,
    selector: str,
    fields: str,
    sort_by: str,
    containers: bool,
    everywhere: bool,
    headers: bool,
    total: bool,
) -> None:
    if name and (selector or everywhere):
        raise CommandError("only one of NAME or --selector can be provided" if selector else "a resource cannot be "
                           "retrieved by name across all namespaces")  # fmt: skip
    path = "pods" if everywhere else f"namespaces/{session.namespace}/pods" + (f"/{name}" if name else "")
    pod_metrics = await _metrics(session, path, selector, fields)
    if not pod_metrics:
        where = "" if everywhere else f" in {session.namespace} namespace."
        print(f"No resources found{where}", file=sys.stderr)
        return
    lines = []
    rows: list[tuple[list[str], int, int]] = []
    for pod in pod_metrics:
        meta = pod["metadata"]
        place = [meta.get("namespace", "")] if everywhere else []
        usages = [(c["name"], *_usage(c["usage"])) for c in pod.get("containers") or ()]
        if containers:
            rows += [([*place, meta["name"], each], cpu, memory) for each, cpu, memory in usages]
        else:
            rows.append(([*place, meta["name"]], sum(u[1] for u in usages), sum(u[2] for u in usages)))
    keyed = [("\0".join(head), cpu, memory) for head, cpu, memory in rows]
    _sorted(keyed, sort_by)
    if headers:
        head = [*(["NAMESPACE"] if everywhere else []), *(["POD", "NAME"] if containers else ["NAME"])]
        lines.append([*head, "CPU(cores)", "MEMORY(bytes)"])
    lines += [[*key.split("\0"), f"{cpu}m", _mebi(memory)] for key, cpu, memory in keyed]
    if total:
        blank = [""] * (len(lines[-1]) - 2)
        lines.append([*blank, "________", "________"])
        lines.append([*blank, f"{sum(r[1] for r in keyed)}m", _mebi(sum(r[2] for r in keyed))])
    _print(lines)


# Each under both of its names, as kubectl has it.
for _word in ("node", "nodes"):

    @verb(group, _word)
    def nodes(
        where: Where,
        name: Name = "",
        selector: Selector = "",
        sort_by: SortBy = "",
        no_headers: NoHeaders = False,
    ) -> None:
        """Shows the resources that nodes use."""
        where.run(lambda session: _nodes(session, name, selector, sort_by, not no_headers))


for _word in ("pod", "pods"):

    @verb(group, _word)
    def pods(
        where: Where,
        name: Name = "",
        selector: Selector = "",
        field_selector: FieldSelector = "",
        sort_by: SortBy = "",
        containers: Annotated[bool, Option("--containers", help="Each container by itself.")] = False,
        all_namespaces: AllNamespaces = False,
        no_headers: NoHeaders = False,
        sum_: Sum = False,
    ) -> None:
        """Shows the resources that pods use."""
        where.run(
            lambda session: _pods(
                session, name, selector, field_selector, sort_by, containers, all_namespaces, not no_headers, sum_
            )
        )
