"""``describe pod``."""

from __future__ import annotations

from typing import Any

from cli.describing import events, volumes
from cli.describing.pod_template import containers, tolerations
from cli.describing.writer import Writer, annotation_lines, moment, pairs
from cli.session import Session
from navarch.api.durations import human_duration
from navarch.api.pods import TERMINAL_PHASES
from navarch.api.times import parse_time

Tree = dict[str, Any]


async def describe(session: Session, pod: Tree, show_events: bool) -> str:
    now = session.world.now()
    pod_events = await events.about(session, "Pod", pod) if show_events else []
    writer = Writer()
    _head(writer, pod, now)
    spec, status = pod["spec"], pod.get("status") or {}
    for title, field, kind in (
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
        ("Ephemeral Containers", "ephemeralContainers", "ephemeralContainerStatuses"),
    ):
        if spec.get(field):
            containers(writer, title, spec[field], {s["name"]: s for s in status.get(kind) or ()}, pod, "")
    if spec.get("readinessGates"):
        writer.line(0, "Readiness Gates:")
        writer.line(1, "Type", "Status")
        states = {c["type"]: c["status"] for c in status.get("conditions") or ()}
        for gate in spec["readinessGates"]:
            writer.line(1, f"{gate['conditionType']} ", f"{states.get(gate['conditionType'], '<none>')} ")
    if status.get("conditions"):
        writer.line(0, "Conditions:")
        writer.line(1, "Type", "Status")
        for condition in status["conditions"]:
            writer.line(1, f"{condition['type']} ", f"{condition['status']} ")
    volumes.describe(writer, spec.get("volumes") or [], "")
    writer.line(0, "QoS Class:", status.get("qosClass") or "<none>")
    pairs(writer, 0, "Node-Selectors", spec.get("nodeSelector"))
    tolerations(writer, "", spec.get("tolerations") or [])
    for each in spec.get("topologySpreadConstraints") or ():
        skew = f"when max skew {each.get('maxSkew')} is exceeded"
        writer.line(
            0, "Topology Spread Constraints:", f"{each.get('topologyKey')}:{each.get('whenUnsatisfiable')} {skew}"
        )
    if show_events:
        events.describe(writer, pod_events, now)
    return writer.text()


def _head(writer: Writer, pod: Tree, now: float) -> None:
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    writer.line(0, "Name:", meta["name"])
    writer.line(0, "Namespace:", meta["namespace"])
    if spec.get("priority") is not None:
        writer.line(0, "Priority:", str(spec["priority"]))
    if spec.get("priorityClassName"):
        writer.line(0, "Priority Class Name:", spec["priorityClassName"])
    if spec.get("runtimeClassName"):
        writer.line(0, "Runtime Class Name:", spec["runtimeClassName"])
    if spec.get("serviceAccountName"):
        writer.line(0, "Service Account:", spec["serviceAccountName"])
    node = spec.get("nodeName")
    writer.line(0, "Node:", f"{node}/{status.get('hostIP') or ''}" if node else "<none>")
    if status.get("startTime"):
        writer.line(0, "Start Time:", moment(status["startTime"]))
    pairs(writer, 0, "Labels", meta.get("labels"))
    annotation_lines(writer, 0, meta.get("annotations"))
    if meta.get("deletionTimestamp") and status.get("phase") not in TERMINAL_PHASES:
        lasts = human_duration(now - parse_time(meta["deletionTimestamp"]))
        writer.line(0, "Status:", f"Terminating (lasts {lasts})")
        writer.line(0, "Termination Grace Period:", f"{meta.get('deletionGracePeriodSeconds', 0)}s")
    else:
        writer.line(0, "Status:", status.get("phase") or "")
    for title, field in (("Reason", "reason"), ("Message", "message")):
        if status.get(field):
            writer.line(0, f"{title}:", status[field])
    if (spec.get("securityContext") or {}).get("seccompProfile"):
        profile = spec["securityContext"]["seccompProfile"]
        writer.line(0, "SeccompProfile:", profile.get("type") or "")
        if profile.get("localhostProfile"):
            writer.line(0, "LocalhostProfile:", profile["localhostProfile"])
    writer.line(0, "IP:", status.get("podIP") or "")
    if status.get("podIPs"):
        writer.line(0, "IPs:")
        for address in status["podIPs"]:
            writer.line(1, "IP:", address.get("ip") or "")
    else:
        writer.line(0, "IPs:", "<none>")
    owner(writer, meta)
    if status.get("nominatedNodeName"):
        writer.line(0, "NominatedNodeName:", status["nominatedNodeName"])


def owner(writer: Writer, meta: Tree) -> None:
    for reference in meta.get("ownerReferences") or ():
        if reference.get("controller"):
            writer.line(0, "Controlled By:", f"{reference['kind']}/{reference['name']}")
