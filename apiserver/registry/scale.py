"""The scale subresource: autoscaling/v1 Scale as a view of spec.replicas and status.replicas."""

from __future__ import annotations

from typing import Any

from apiserver.registry.strategy import ScalePaths
from navarch.api import selectors
from navarch.api.errors import BadRequest, invalid, resource_invalid
from navarch.api.kinds import Kind

Tree = dict[str, Any]

SCALE = Kind("autoscaling", "v1", "Scale", "scales")


def at(obj: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of fields, None if there is none."""
    for field in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(field)
    return obj


def scale_of(obj: Tree, paths: ScalePaths = ScalePaths()) -> Tree:  # noqa: B008
    """The Scale of an object."""
    metadata, wanted, found = obj["metadata"], at(obj, paths.spec), at(obj, paths.status)
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    out: Tree = {
        "kind": SCALE.kind,
        "apiVersion": SCALE.api_version,
        "metadata": {k: metadata[k] for k in kept if k in metadata},
        "spec": {"replicas": wanted} if wanted else {},
        "status": {"replicas": found or 0},
    }
    if paths.selector:
        if text := at(obj, paths.selector):
            out["status"]["selector"] = text
    elif paths.selector is not None and (selector := at(obj, ("spec", "selector"))) is not None:
        plain = obj.get("kind") == "ReplicationController"  # the one kind whose selector is a map of labels
        labels = selectors.from_labels(selector) if plain else selectors.from_tree(selector)
        out["status"]["selector"] = str(labels)
    return out


def set_scale(obj: Tree, scale: Tree, paths: ScalePaths = ScalePaths()) -> Tree:  # noqa: B008
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
    holder = obj
    for field in paths.spec[:-1]:
        holder = holder.setdefault(field, {})
    holder[paths.spec[-1]] = replicas
    return obj
