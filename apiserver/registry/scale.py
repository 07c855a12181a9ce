"""The scale subresource: autoscaling/v1 Scale as a view of spec.replicas and status.replicas."""

from __future__ import annotations

from typing import Any

from navarch.api import selectors
from navarch.api.errors import BadRequest, invalid, resource_invalid
from navarch.api.kinds import Kind

Tree = dict[str, Any]

SCALE = Kind("autoscaling", "v1", "Scale", "scales")


def scale_of(obj: Tree) -> Tree:
    """The Scale of an object."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    out: Tree = {
        "kind": SCALE.kind,
        "apiVersion": SCALE.api_version,
        "metadata": {k: metadata[k] for k in kept if k in metadata},
        "spec": {"replicas": spec.get("replicas", 0)} if spec.get("replicas") else {},
        "status": {"replicas": status.get("replicas", 0)},
    }
    if spec.get("selector") is not None:
        out["status"]["selector"] = str(selectors.from_tree(spec["selector"]))
    return out


def set_scale(obj: Tree, scale: Tree) -> Tree:
    """The object with the replicas of a Scale. Raises BadRequest, Invalid."""
    version, kind = scale.get("apiVersion") or SCALE.api_version, scale.get("kind") or SCALE.kind
    if (version, kind) != (SCALE.api_version, SCALE.kind):
        raise BadRequest(f"wrong object passed to Scale update: {version}, Kind={kind}")
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    name = obj["metadata"]["name"]
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise BadRequest('Scale in version "v1" cannot be handled as a Scale: spec.replicas must be an integer')
    if replicas < 0:
        why = "must be greater than or equal to 0"
        raise resource_invalid("Scale", SCALE.group, name, [invalid("spec.replicas", replicas, why)])
    obj.setdefault("spec", {})["replicas"] = replicas
    return obj
