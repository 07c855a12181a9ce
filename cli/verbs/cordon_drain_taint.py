"""``navarch cordon``, ``uncordon``, ``drain`` and ``taint``: taking nodes out of service and back."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from cli.errors import CommandError, Failures, warn
from cli.objectchanges import DRY_RUN, Change
from cli.objectwait import FOREVER, parse_duration, wait_for_deletion
from cli.options import App, Argument, Option
from cli.session import Resource, Session, Tree
from cli.targets import LiveObject, Query, find
from cli.verb import DryRun, FieldManager, Output, Selector, Where, verb
from navarch.api import wellknown
from navarch.api.errors import NotFound, TooManyRequests
from navarch.api.pods import TERMINAL_PHASES

app = App()

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
RETRY = 5.0  # seconds between two tries of an eviction that a disruption budget forbids
MIRROR = wellknown.MIRROR_POD

Nodes = Annotated[list[str] | None, Argument("NODE...")]


async def _nodes(session: Session, verb_: str, named: list[str] | None, selector: str) -> list[LiveObject]:
    if not named and not selector:
        raise CommandError(f"USAGE: {verb_} NODE [flags]\nSee 'navarch {verb_} -h' for help and examples")
    query = Query(named or ["nodes"], selector=selector, default_type="nodes" if named else "")
    nodes = await find(session, query)
    query.failures.raise_any()
    return nodes


@verb(app)
def cordon(where: Where, nodes: Nodes = None, selector: Selector = "", dry_run: DryRun = "") -> None:
    """Let no new pods come to nodes."""
    where.run(lambda session: _cordon(session, "cordon", nodes, selector, dry_run))


@verb(app)
def uncordon(where: Where, nodes: Nodes = None, selector: Selector = "", dry_run: DryRun = "") -> None:
    """Let new pods come to nodes again."""
    where.run(lambda session: _cordon(session, "uncordon", nodes, selector, dry_run))


async def _cordon(session: Session, verb_: str, named: list[str] | None, selector: str, dry_run: str) -> None:
    change = Change("", dry_run)
    for node in await _nodes(session, verb_, named, selector):
        await _mark(session, node, verb_ == "cordon", change)


async def _mark(session: Session, node: LiveObject, unschedulable: bool, change: Change) -> None:
    word = "cordoned" if unschedulable else "uncordoned"
    if bool((node.tree.get("spec") or {}).get("unschedulable")) == unschedulable:
        change.say(node.resource, node.tree, f"already {word}")
        return
    body = {"spec": {"unschedulable": True if unschedulable else None}}
    change.say(node.resource, await change.patch(session, node, body), word)


@dataclass
class Draining:
    force: bool
    ignore_daemon_sets: bool
    delete_empty_dir: bool
    disable_eviction: bool
    grace: int | None
    timeout: float
    pod_selector: str
    change: Change


@verb(app)
def drain(
    where: Where,
    nodes: Nodes = None,
    selector: Selector = "",
    force: Annotated[bool, Option("--force", help="Also pods that nothing would make anew.")] = False,
    ignore_daemonsets: Annotated[
        bool, Option("--ignore-daemonsets", help="Leave the pods of DaemonSets where they are.")
    ] = False,
    delete_emptydir_data: Annotated[
        bool, Option("--delete-emptydir-data", help="Also pods whose data in emptyDir volumes is lost.")
    ] = False,
    disable_eviction: Annotated[
        bool, Option("--disable-eviction", help="Delete the pods, disruption budgets or not.")
    ] = False,
    grace_period: Annotated[
        int, Option("--grace-period", metavar="SECONDS", help="Time to end in; below 0: each pod's own.")
    ] = -1,
    timeout: Annotated[str, Option("--timeout", metavar="TIME", help="How long to wait; 0s: for ever.")] = "0s",
    pod_selector: Annotated[str, Option("--pod-selector", metavar="LABELS", help="Only these pods.")] = "",
    dry_run: DryRun = "",
) -> None:
    """Cordon nodes and evict their pods: navarch drain node-2 --ignore-daemonsets."""

    async def main(session: Session) -> int:
        options = Draining(
            force,
            ignore_daemonsets,
            delete_emptydir_data,
            disable_eviction,
            grace_period if grace_period >= 0 else None,
            parse_duration(timeout) or FOREVER,
            pod_selector,
            Change("", dry_run),
        )
        live_nodes = await _nodes(session, "drain", nodes, selector)
        for node in live_nodes:
            await _mark(session, node, True, options.change)
        pending: list[tuple[str, str]] = []
        for node in live_nodes:
            try:
                await _drain(session, node, options)
            except CommandError as error:
                print(f'error: unable to drain node "{node.name}" due to error: {error}, continuing command...',
                      file=sys.stderr)  # fmt: skip
                pending.append((node.name, str(error)))
            else:
                options.change.say(node.resource, node.tree, "drained")
        if pending:
            names = "".join(f" {name}\n" for name, _ in pending)
            why = "\n".join(text for _, text in pending)
            print(f"There are pending nodes to be drained:\n{names}{why}", file=sys.stderr)
        return 1 if pending else 0

    where.run(main)


async def _drain(session: Session, node: LiveObject, options: Draining) -> None:
    """Evicts the node's pods and waits until they are gone. Raises CommandError if some must not go."""
    pods = await session.resource("pods")
    listed = await session.of(pods).list(
        None, label_selector=options.pod_selector or None, field_selector=f"spec.nodeName={node.name}"
    )
    daemon_sets = {
        (d["metadata"].get("namespace"), d["metadata"]["name"])
        for d in (await session.of(await session.resource("daemonsets.apps")).list(None)).items
    }
    refused: dict[str, list[str]] = {}
    ignored: dict[str, list[str]] = {}
    leaving: list[Tree] = []
    for pod in listed.items:
        verdict, fatal = _verdict(pod, daemon_sets, options)
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        if verdict and verdict != MIRRORS:
            (refused if fatal else ignored).setdefault(verdict, []).append(name)
        if not fatal and verdict not in (IGNORED, MIRRORS):
            leaving.append(pod)
    if refused:
        texts = [f"cannot delete {why}: {', '.join(names)}" for why, names in refused.items()]
        raise CommandError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
    if ignored:
        warn("; ".join(f"{why}: {', '.join(names)}" for why, names in ignored.items()))
    failures = Failures()
    async with session.world.task_group() as group:
        for pod in leaving:
            group.start(_leave(session, pods, pod, options, failures))
    if failures.errors:
        texts = [str(e) for e in failures.errors]
        raise CommandError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")


# The odd doubling is kubectl's own.
UNMANAGED = "cannot delete Pods that declare no controller (use --force to override)"
DAEMONS = "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"
LOCAL = "cannot delete Pods with local storage (use --delete-emptydir-data to override)"
IGNORED = "ignoring DaemonSet-managed Pods"
MIRRORS = "mirror pods stay"


def _verdict(pod: Tree, daemon_sets: set[tuple[str | None, str]], options: Draining) -> tuple[str | None, bool]:
    """Why a pod must not go, or is left, or is worth a word; and whether that stops the drain. (None, False): it goes."""
    meta, spec = pod["metadata"], pod.get("spec") or {}
    if MIRROR in (meta.get("annotations") or {}):
        return MIRRORS, False
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    ended = (pod.get("status") or {}).get("phase") in TERMINAL_PHASES
    if owner and owner["kind"] == "DaemonSet" and not ended and (meta.get("namespace"), owner["name"]) in daemon_sets:
        return (IGNORED, False) if options.ignore_daemon_sets else (DAEMONS, True)
    if owner is None and not ended:
        if not options.force:
            return UNMANAGED, True
        return "deleting Pods that declare no controller", False
    if not ended and any("emptyDir" in v for v in spec.get("volumes") or ()):
        return (None, False) if options.delete_empty_dir else (LOCAL, True)
    return None, False


async def _leave(session: Session, resource: Resource, pod: Tree, options: Draining, failures: Failures) -> None:
    """Evicts one pod, as often as it takes, and waits until it is gone."""
    meta = pod["metadata"]
    name, namespace = meta["name"], meta["namespace"]
    dry = options.change.dry_run
    action, done = ("deleting", "deleted") if options.disable_eviction else ("evicting", "evicted")
    print(f"{action} pod {namespace}/{name}{DRY_RUN[dry]}", flush=True, file=sys.stderr)
    if dry == "client":
        return
    body: Tree = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    if options.grace is not None:
        body["deleteOptions"] = {"gracePeriodSeconds": options.grace}
    path = resource.kind.path(namespace, name, "eviction")
    query = [("dryRun", "All")] if dry else []
    try:
        async with asyncio.timeout(None if options.timeout == FOREVER else options.timeout):
            while True:
                try:
                    if options.disable_eviction:
                        await session.of(resource).delete(
                            name, namespace, grace_period_seconds=options.grace, dry_run=bool(dry)
                        )
                    else:
                        await _post(session, path, query, body)
                    break
                except NotFound:
                    break
                except TooManyRequests as error:
                    print(f'error when evicting pods/"{name}" -n "{namespace}" (will retry after 5s): {error.message}',
                          file=sys.stderr, flush=True)  # fmt: skip
                    await session.world.sleep(RETRY)
    except TimeoutError:
        failures.errors.append(
            CommandError(
                f'error when {action} pods/"{name}" -n "{namespace}": global timeout reached: {options.timeout:g}s'
            )
        )
        return
    if dry:
        return
    with failures.collect():
        await wait_for_deletion(session, resource, name, namespace, meta.get("uid", ""), options.timeout)
        print(f"pod/{name} {done}", flush=True)


async def _post(session: Session, path: str, query: list[tuple[str, str]], body: Tree) -> None:
    import json

    from navarch.client.transport import JSON

    await session.client.request("POST", path, query=query, body=json.dumps(body).encode(), content_type=JSON)


@verb(app)
def taint(
    where: Where,
    words: Annotated[list[str] | None, Argument("nodes NODE... KEY[=VALUE]:EFFECT|KEY[:EFFECT]-")] = None,
    selector: Selector = "",
    all_: Annotated[bool, Option("--all", help="All nodes.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Change taints that there are.")] = False,
    output: Output = "",
    dry_run: DryRun = "",
    field_manager: FieldManager = "kubectl-taint",
) -> None:
    """Set taints on nodes, or remove them: navarch taint nodes n1 a=b:NoSchedule; taint nodes n1 a-."""

    async def main(session: Session) -> None:
        change = Change(output, dry_run, field_manager)
        arguments = words or []
        first = next((i for i, w in enumerate(arguments) if ":" in w or w.endswith("-")), len(arguments))
        named, specs = arguments[:first], arguments[first:]
        if not named:
            raise CommandError("one or more resources must be specified as <resource> <name>")
        added, removed = _parse(specs)
        if not added and not removed:
            raise CommandError("at least one taint update is required")
        if named[0].lower() not in ("node", "nodes", "no"):
            raise CommandError(f"invalid resource type {named[0]}, only node types are supported")
        if len(named) == 1 and not selector and not all_:
            raise CommandError("at least one resource name must be specified since 'all' parameter is not set")
        query = Query(named, selector=selector, every=all_)
        for node in await find(session, query):
            with query.failures.collect():
                await _taint(session, node, added, removed, overwrite, change)
        query.failures.raise_any()

    where.run(main)


def _parse(specs: list[str]) -> tuple[list[Tree], list[Tree]]:
    """(taints to set, taints to remove). Raises CommandError."""
    added: list[Tree] = []
    removed: list[Tree] = []
    for spec in specs:
        taking = spec.endswith("-")
        text, _, effect = spec.removesuffix("-").partition(":")
        key, equals, value = text.partition("=")
        if effect and effect not in EFFECTS:
            see = "See 'navarch taint -h' for help and examples"
            raise CommandError(f"invalid taint effect: {effect}, unsupported taint effect\n{see}")
        if not key or (not taking and not effect):
            raise CommandError(f"invalid taint spec: {spec}")
        if taking:
            removed.append({"key": key} | ({"effect": effect} if effect else {}))
        else:
            added.append({"key": key} | ({"value": value} if equals else {}) | {"effect": effect})
    return added, removed


async def _taint(
    session: Session, node: LiveObject, added: list[Tree], removed: list[Tree], overwrite: bool, change: Change
) -> None:
    have: list[Tree] = list((node.tree.get("spec") or {}).get("taints") or ())

    def same(one: Tree, other: Tree) -> bool:
        return bool(one["key"] == other["key"] and other.get("effect") in (None, one.get("effect")))

    clashes = [t["key"] for t in added if any(same(h, t) for h in have)]
    if clashes and not overwrite:
        raise CommandError(
            f"node {node.name} already has {', '.join(clashes)} taint(s) with same effect(s) and --overwrite is false"
        )
    for each in removed:
        if not any(same(h, each) for h in have):
            effect = f":{each['effect']}" if "effect" in each else ""
            raise CommandError(f'taint "{each["key"]}{effect}" not found')
    others = [h for h in have if not any(same(h, r) for r in [*removed, *added])]
    body: Any = {"spec": {"taints": [*added, *others] or None}}
    body["metadata"] = {"resourceVersion": node.tree["metadata"].get("resourceVersion")}
    outcome = "modified" if (added and removed) or clashes else "tainted" if added else "untainted"
    change.say(node.resource, await change.patch(session, node, body), outcome, dry=change.dry_run == "server")
