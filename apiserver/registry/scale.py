"""The scale subresource: autoscaling/v1 Scale as a view of spec.replicas and status.replicas.

An apply to it works on this view, managedFields included: whoever owns the object's replicas owns the Scale's.
"""

from __future__ import annotations

from typing import Any

from apiserver.registry.strategy import ScalePaths
from navarch.api import selectors
from navarch.api.errors import BadRequest, InternalError, invalid, resource_invalid
from navarch.api.kinds import Kind
from navarch.api.patch import fieldsets
from navarch.api.patch.fieldsets import FieldSet
from navarch.api.patch.managed import Entries, Entry, Manager
from navarch.api.schema import schema_of
from navarch.api.types import autoscaling_v1

Tree = dict[str, Any]

SCALE = Kind("autoscaling", "v1", "Scale", "scales")
SCALE_SCHEMA = schema_of(autoscaling_v1.Scale)
REPLICAS: FieldSet = {"f:spec": {"f:replicas": {}}}


def at(obj: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of fields, None if there is none."""
    for field in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(field)
    return obj


def scale_of(obj: Tree, paths: ScalePaths = ScalePaths()) -> Tree:  # noqa: B008
    """The Scale of an object. Raises InternalError if what stands at the paths of a custom resource is of another type."""
    metadata, spec_replicas, status_replicas = obj["metadata"], at(obj, paths.spec), at(obj, paths.status)
    for path, value in ((paths.spec, spec_replicas), (paths.status, status_replicas)):
        if value is not None and type(value) is not int:  # of a custom resource, whose schema may leave it open
            raise InternalError(f"Internal error occurred: .{'.'.join(path)} of {metadata['name']} is no integer")
    fields = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    out: Tree = {
        "kind": SCALE.kind,
        "apiVersion": SCALE.api_version,
        "metadata": {k: metadata[k] for k in fields if k in metadata},
        "spec": {"replicas": spec_replicas} if spec_replicas else {},
        "status": {"replicas": status_replicas or 0},
    }
    if paths.selector:
        if text := at(obj, paths.selector):
            if not isinstance(text, str):
                raise InternalError(
                    f"Internal error occurred: .{'.'.join(paths.selector)} of {metadata['name']} is no string"
                )
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
    holder: Any = obj
    for field in paths.spec[:-1]:
        holder = holder.setdefault(field, {}) if isinstance(holder, dict) else None
    if not isinstance(holder, dict):  # a schema may leave open what is there
        raise InternalError(
            f"Internal error occurred: .{'.'.join(paths.spec)} of {name} is below something that is no object"
        )
    holder[paths.spec[-1]] = replicas
    return obj


def _replicas(paths: ScalePaths) -> FieldSet:
    """The object's replicas as a set of fields."""
    out: FieldSet = {}
    for field in reversed(paths.spec):
        out = {f"f:{field}": out}
    return out


def _in(manager: Manager, api_version: str) -> Manager:
    """The manager as it is known in another version: only that of an Update is written down."""
    return manager._replace(api_version=api_version if manager.operation == "Update" else "")


def owners_of_scale(entries: Entries, paths: ScalePaths) -> Entries:
    """The owners of the replicas, as owners of a Scale's."""
    replicas = _replicas(paths)
    return {
        _in(manager, SCALE.api_version): Entry(REPLICAS, entry.time, SCALE.api_version)
        for manager, entry in entries.items()
        if fieldsets.intersection(entry.fields, replicas)
    }


def owners_of_object(entries: Entries, of_scale: Entries, api_version: str, paths: ScalePaths) -> Entries:
    """The object's owners after an apply to its Scale: who lost the replicas there loses them here."""
    replicas, of_others, out = _replicas(paths), dict(of_scale), Entries()
    for manager, entry in entries.items():
        owns = fieldsets.intersection(entry.fields, replicas)
        if owns and of_others.pop(_in(manager, SCALE.api_version), None) is None:
            fields = fieldsets.difference(entry.fields, replicas)
            if fields:
                out[manager] = Entry(fields, entry.time, entry.api_version)
        else:
            out[manager] = entry
    for manager, entry in of_others.items():
        if fieldsets.intersection(entry.fields, REPLICAS):
            out[_in(manager, api_version)] = Entry(replicas, entry.time, api_version)
    return out
