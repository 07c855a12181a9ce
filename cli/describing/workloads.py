"""``describe deployment`` and ``describe replicaset``."""

from __future__ import annotations

from typing import Any

from cli.describing import events
from cli.describing.pod_template import describe_template
from cli.describing.pods import owner
from cli.describing.writer import Writer, annotation_lines, moment, pairs
from cli.session import Session
from navarch.api import selectors
from navarch.api.kinds import BY_GVK

Tree = dict[str, Any]
POD = BY_GVK["", "v1", "Pod"]


async def deployment(session: Session, tree: Tree, show_events: bool) -> str:
    from cli.revisions import replica_sets, revision_of

    own_events = await events.about(session, "Deployment", tree) if show_events else []
    owned = await replica_sets(session, tree)
    meta, spec, status = tree["metadata"], tree["spec"], tree.get("status") or {}
    writer = Writer()
    writer.line(0, "Name:", meta["name"])
    writer.line(0, "Namespace:", meta["namespace"])
    writer.line(0, "CreationTimestamp:", moment(meta.get("creationTimestamp")))
    pairs(writer, 0, "Labels", meta.get("labels"))
    annotation_lines(writer, 0, meta.get("annotations"))
    writer.line(0, "Selector:", str(selectors.from_tree(spec.get("selector"))))
    counts = [("desired", spec.get("replicas", 1)), ("updated", status.get("updatedReplicas"))]
    counts += [("total", status.get("replicas")), ("available", status.get("availableReplicas"))]
    counts += [("unavailable", status.get("unavailableReplicas"))]
    writer.line(0, "Replicas:", " | ".join(f"{count or 0} {name}" for name, count in counts))
    strategy = spec.get("strategy") or {}
    writer.line(0, "StrategyType:", strategy.get("type") or "")
    writer.line(0, "MinReadySeconds:", str(spec.get("minReadySeconds") or 0))
    if strategy.get("rollingUpdate"):
        rolling = strategy["rollingUpdate"]
        text = f"{rolling.get('maxUnavailable')} max unavailable, {rolling.get('maxSurge')} max surge"
        writer.line(0, "RollingUpdateStrategy:", text)
    describe_template(writer, spec.get("template") or {})
    if status.get("conditions"):
        writer.line(0, "Conditions:")
        writer.line(1, "Type", "Status", "Reason")
        writer.line(1, "----", "------", "------")
        for condition in status["conditions"]:
            writer.line(1, f"{condition['type']} ", condition["status"], condition.get("reason") or "")
    current = revision_of(tree)
    old = [item for number, item in owned.items() if number != current]
    new = [item for number, item in owned.items() if number == current]
    writer.line(0, "OldReplicaSets:", _summary(old))
    writer.line(0, "NewReplicaSet:", _summary(new))
    if show_events:
        events.describe(writer, own_events, session.world.now())
    return writer.text()


def _summary(replica_sets: list[Tree]) -> str:
    texts = [
        f"{item['metadata']['name']} ({(item.get('status') or {}).get('replicas', 0)}/{item['spec'].get('replicas', 0)}"
        " replicas created)"
        for item in replica_sets
    ]
    return ", ".join(texts) or "<none>"


async def replica_set(session: Session, tree: Tree, show_events: bool) -> str:
    own_events = await events.about(session, "ReplicaSet", tree) if show_events else []
    meta, spec, status = tree["metadata"], tree["spec"], tree.get("status") or {}
    selector = str(selectors.from_tree(spec.get("selector")))
    pods = (await session.client.tree(POD).list(meta["namespace"], label_selector=selector)).items
    writer = Writer()
    writer.line(0, "Name:", meta["name"])
    writer.line(0, "Namespace:", meta["namespace"])
    writer.line(0, "Selector:", selector)
    pairs(writer, 0, "Labels", meta.get("labels"))
    annotation_lines(writer, 0, meta.get("annotations"))
    owner(writer, meta)
    writer.line(0, "Replicas:", f"{status.get('replicas', 0)} current / {spec.get('replicas', 0)} desired")
    phases = {"Running": 0, "Pending": 0, "Succeeded": 0, "Failed": 0}
    for pod in pods:
        owned = any(o.get("uid") == meta["uid"] for o in pod["metadata"].get("ownerReferences") or ())
        phase = (pod.get("status") or {}).get("phase")
        if owned and phase in phases:
            phases[phase] += 1
    text = (
        f"{phases['Running']} Running / {phases['Pending']} Waiting / "
        f"{phases['Succeeded']} Succeeded / {phases['Failed']} Failed"
    )
    writer.line(0, "Pods Status:", text)
    describe_template(writer, spec.get("template") or {})
    if status.get("conditions"):
        writer.line(0, "Conditions:")
        writer.line(1, "Type", "Status", "Reason")
        writer.line(1, "----", "------", "------")
        for condition in status["conditions"]:
            writer.line(1, f"{condition['type']} ", condition["status"], condition.get("reason") or "")
    if show_events:
        events.describe(writer, own_events, session.world.now())
    return writer.text()
