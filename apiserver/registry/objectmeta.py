"""The rules of metadata, the same for every kind."""

from __future__ import annotations

from typing import Any

from apiserver.registry.strategy import Strategy
from navarch.api import names
from navarch.api.errors import BadRequest, Cause, forbidden, invalid, required, too_long
from navarch.api.kinds import Kind
from navarch.api.patch import same
from navarch.api.times import format_time
from navarch.world import World, name_suffix

Tree = dict[str, Any]

ANNOTATIONS_LIMIT = 256 * 1024
GENERATED_BASE = 58  # characters of generateName that are kept before the five random ones
ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
_BUILT_IN_FINALIZERS = (ORPHAN, FOREGROUND, "kubernetes")

# What a client cannot change; an absent value means that it does not want to.
_IMMUTABLE = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink")

_DEATH = ("deletionTimestamp", "deletionGracePeriodSeconds")
_EMPTIED = ("labels", "annotations", "finalizers", "ownerReferences")


def check_kind(obj: Tree, kind: Kind) -> None:
    """The body must be of the kind that the path names; fills it in where it is absent. Raises BadRequest."""
    version, name = obj.get("apiVersion"), obj.get("kind")
    if version is None or version == "":
        obj["apiVersion"] = kind.api_version
    elif version != kind.api_version:
        raise BadRequest(
            f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        )
    if name is None or name == "":
        obj["kind"] = kind.kind
    elif name != kind.kind:
        raise BadRequest(
            f'{name} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"the kind in the data ({name}) does not match the expected kind ({kind.kind})"
        )


def metadata_of(obj: Tree) -> Tree:
    """The object's metadata, made if absent. Raises BadRequest if it is no object."""
    metadata = obj.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object")
    return metadata


def drop_empty(obj: Tree) -> None:
    """Takes empty maps and lists out of the metadata, as upstream's own encoding of it does for every kind."""
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        for key in _EMPTIED:
            if key in metadata and not metadata[key]:
                del metadata[key]


def match_namespace(obj: Tree, namespace: str) -> None:
    """The body's namespace is the request's. Raises BadRequest."""
    metadata = obj["metadata"]
    body_namespace = metadata.get("namespace", "")
    if not namespace:
        metadata.pop("namespace", None)
    elif not body_namespace:
        metadata["namespace"] = namespace
    elif body_namespace != namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")


def must_name(obj: Tree, name: str, namespace: str) -> None:
    """The body of a PUT names its object, the one that the URL names. Raises BadRequest."""
    if not metadata_of(obj).get("name"):
        raise BadRequest(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
    match_name(obj, name, namespace)


def match_name(obj: Tree, name: str, namespace: str) -> None:
    """The body of a PUT or patched object names what the URL names. Raises BadRequest."""
    metadata = obj["metadata"]
    own = metadata.get("name", "")
    if not own:
        metadata["name"] = name
    elif own != name:
        raise BadRequest(f"the name of the object ({own}) does not match the name on the URL ({name})")
    own = metadata.get("namespace", "")
    if not namespace:
        metadata.pop("namespace", None)
    elif not own:
        metadata["namespace"] = namespace
    elif own != namespace:
        raise BadRequest(f"the namespace of the object ({own}) does not match the namespace on the URL ({namespace})")


def prepare_create(world: World, obj: Tree, strategy: Strategy) -> None:
    """Gives a new object its uid and birth time; forgets what only the server may set."""
    metadata = obj["metadata"]
    for field in (*_IMMUTABLE, "resourceVersion"):
        metadata.pop(field, None)
    metadata["uid"] = world.uid()
    metadata["creationTimestamp"] = format_time(world.now())
    if strategy.generation:
        metadata["generation"] = 1


def generate_name(world: World, obj: Tree) -> None:
    """A name from generateName."""
    metadata = obj["metadata"]
    metadata["name"] = metadata["generateName"][:GENERATED_BASE] + name_suffix(world)


def keep_system_fields(obj: Tree, old: Tree) -> None:
    """Puts back what a change cannot touch. Death is another matter: who says that an object dies which does not is
    refused (:func:`update_causes`), as upstream's BeforeUpdate and its validation of metadata do it."""
    metadata, before = obj["metadata"], old["metadata"]
    for field in _IMMUTABLE:
        if field in before:
            metadata[field] = before[field]
        elif field not in _DEATH or metadata.get(field) is None:
            metadata.pop(field, None)
    metadata["resourceVersion"] = before["resourceVersion"]
    if "generateName" in before:
        metadata.setdefault("generateName", before["generateName"])


def body_differs(obj: Tree, old: Tree) -> bool:
    """Whether anything but metadata and status changed: what moves metadata.generation."""
    skip = ("metadata", "status")
    return not same({k: v for k, v in obj.items() if k not in skip}, {k: v for k, v in old.items() if k not in skip})


def causes(obj: Tree, strategy: Strategy) -> list[Cause]:
    """Everything that is wrong with the metadata of a new object."""
    metadata = obj["metadata"]
    out: list[Cause] = []
    prefix, name = metadata.get("generateName"), metadata.get("name")
    if prefix:
        out += [invalid("metadata.generateName", prefix, m) for m in strategy.name_causes(prefix, True)]
    if not name:
        out.append(required("metadata.name", "name or generateName is required"))
    else:
        out += [invalid("metadata.name", name, m) for m in strategy.name_causes(name, False)]
    namespace = metadata.get("namespace")
    if strategy.kind.namespaced:
        if not namespace:
            out.append(required("metadata.namespace"))
        else:
            out += [invalid("metadata.namespace", namespace, m) for m in names.dns_label(namespace)]
    return out + _common(metadata)


def update_causes(obj: Tree, old: Tree) -> list[Cause]:
    """Everything that is wrong with a change of the metadata."""
    metadata, before = obj["metadata"], old["metadata"]
    out: list[Cause] = []
    if before.get("deletionTimestamp"):
        finalizers_before = before.get("finalizers") or ()
        added = [f for f in metadata.get("finalizers") or () if f not in finalizers_before]
        if added:
            shown = ", ".join(f'"{f}"' for f in added)
            text = f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{shown}}}"
            out.append(forbidden("metadata.finalizers", text))
    for field in _DEATH:
        if metadata.get(field) != before.get(field):
            out.append(invalid(f"metadata.{field}", metadata.get(field), "field is immutable"))
    checked = ("labels", "annotations", "finalizers", "ownerReferences")
    if not all(same(metadata.get(f), before.get(f)) for f in checked):
        out += _common(metadata)
    return out


def _common(metadata: Tree) -> list[Cause]:
    out: list[Cause] = []
    for key, value in (metadata.get("labels") or {}).items():
        out += [invalid("metadata.labels", key, m) for m in names.qualified_name(key)]
        out += [invalid("metadata.labels", value, m) for m in names.label_value(value)]
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        out += [invalid("metadata.annotations", key, m) for m in names.qualified_name(key.lower())]
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_LIMIT:
        out.append(too_long("metadata.annotations", ANNOTATIONS_LIMIT))
    out += _owner_causes(metadata.get("ownerReferences") or ())
    finalizers = metadata.get("finalizers") or ()
    for i, finalizer in enumerate(finalizers):
        out += [invalid(f"metadata.finalizers[{i}]", finalizer, m) for m in names.qualified_name(finalizer)]
        if "/" not in finalizer and finalizer not in _BUILT_IN_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            out.append(invalid(f"metadata.finalizers[{i}]", finalizer, text))
    if ORPHAN in finalizers and FOREGROUND in finalizers:
        text = f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set"
        out.append(invalid("metadata.finalizers", list(finalizers), text))
    return out


def _owner_causes(owners: Any) -> list[Cause]:
    out: list[Cause] = []
    controllers: list[str] = []
    for i, owner in enumerate(owners):
        at = f"metadata.ownerReferences[{i}]"
        if not owner.get("apiVersion"):
            out.append(invalid(f"{at}.apiVersion", owner.get("apiVersion", ""), "version must not be empty"))
        for field in ("kind", "name", "uid"):
            if not owner.get(field):
                out.append(invalid(f"{at}.{field}", owner.get(field, ""), f"{field} must not be empty"))
        if owner.get("apiVersion") == "v1" and owner.get("kind") == "Event":
            out.append(invalid(at, owner, "/v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            controllers.append(owner.get("name", ""))
    if len(controllers) > 1:
        text = (
            f'Only one reference can have Controller set to true. Found "true" in references for '
            f"{controllers[0]} and {controllers[1]}"
        )
        out.append(invalid("metadata.ownerReferences", list(owners), text))
    return out
