"""The kinds of the VerticalPodAutoscaler, and the pods of a target."""

from __future__ import annotations

from typing import Any

from controllers.servedkinds import served
from navarch.api import selectors
from navarch.api.errors import NotFound
from navarch.api.kinds import BY_GVK, Kind, group_version
from navarch.api.selectors import LabelSelector
from navarch.client.client import Client

Tree = dict[str, Any]
GROUP = "autoscaling.k8s.io"
AUTOSCALERS = Kind(GROUP, "v1", "VerticalPodAutoscaler", "verticalpodautoscalers")
CHECKPOINTS = Kind(GROUP, "v1", "VerticalPodAutoscalerCheckpoint", "verticalpodautoscalercheckpoints")
WORKLOADS = {
    ("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("apps", "ReplicaSet"), ("batch", "Job"),
    ("", "ReplicationController"),
}  # fmt: skip


class BadTarget(Exception):
    """The target cannot be used; the text says why."""


async def selector_of(client: Client, vpa: Tree) -> LabelSelector:
    """Selects the pods of the autoscaler's target. Raises BadTarget, StatusError, TransportError."""
    reference = vpa["spec"].get("targetRef") or {}
    name, namespace = str(reference.get("name") or ""), vpa["metadata"]["namespace"]
    group, version = group_version(str(reference.get("apiVersion") or "v1"))
    kind = BY_GVK.get((group, version, str(reference.get("kind") or ""))) or await _custom(client, group, reference)
    try:
        if (group, kind.kind) in WORKLOADS:
            target = await client.get_json(kind.path(namespace, name))
            owner = next((o for o in target["metadata"].get("ownerReferences") or () if o.get("controller")), None)
            if owner is not None:
                what = f"{owner['kind']} {owner['name']}"
                raise BadTarget(f"The targetRef {kind.kind} {name} is controlled by {what}: name that one instead")
            spec = target["spec"].get("selector")
            return selectors.from_labels(spec) if group == "" else selectors.from_tree(spec)
        scale = await client.get_json(kind.path(namespace, name, "scale"))
    except NotFound as error:
        raise BadTarget(f"Cannot read targetRef. Reason: {error}") from None
    text = (scale.get("status") or {}).get("selector")
    if not text:
        raise BadTarget(f"The scale of {kind.kind} {name} has no selector")
    try:
        return selectors.parse_label_selector(text)
    except selectors.SelectorError as error:
        raise BadTarget(f"The selector of {kind.kind} {name}: {error}") from None


async def _custom(client: Client, group: str, reference: Tree) -> Kind:
    for resource in await served(client):
        if (resource.kind.group, resource.kind.kind) == (group, reference.get("kind")):
            return resource.kind
    raise BadTarget(f'no matches for kind "{reference.get("kind")}" in group "{group}"')
