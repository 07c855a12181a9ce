"""pods/ephemeralcontainers: containers added to a pod that runs, for debugging. They only ever come, and never change."""

from __future__ import annotations

from apiserver.kinds.cells import Tree
from apiserver.kinds.core.pods.containers import Scope, validate_ephemeral_containers
from apiserver.kinds.core.pods.update import difference
from apiserver.kinds.core.pods.volumes import validate_volumes
from navarch.api.errors import Cause, forbidden

FIELD = "ephemeralContainers"
PATH = "spec.ephemeralContainers"


def only_ephemeral(obj: Tree, old: Tree) -> Tree:
    """Reduces a write through the subresource: the old pod with the new ephemeral containers."""
    spec = {k: v for k, v in old["spec"].items() if k != FIELD}
    if containers := (obj.get("spec") or {}).get(FIELD):
        spec[FIELD] = containers
    return {**old, "spec": spec}


def validate_ephemeral_update(obj: Tree, old: Tree) -> list[Cause]:
    spec = obj["spec"]
    volumes, _ = validate_volumes(spec.get("volumes"), "spec.volumes")
    scope = Scope(spec, volumes)
    others = [c.get("name") or "" for field in ("containers", "initContainers") for c in spec.get(field) or ()]
    containers = spec.get(FIELD) or []
    out = validate_ephemeral_containers(containers, PATH, scope, others)
    by_name = {c.get("name"): c for c in containers}
    for was in old["spec"].get(FIELD) or ():
        name = was["name"]
        now = by_name.get(name)
        if now is None:
            out.append(forbidden(PATH, f'existing ephemeral containers "{name}" may not be removed\n'))
        elif now != was:
            text = f'existing ephemeral containers "{name}" may not be changed\n{difference(was, now)}'
            out.append(forbidden(PATH, text))
    return out
