"""The strategy of CustomResourceDefinition itself: defaults, rules, and what its deletion begins."""

from __future__ import annotations

from typing import Any

from apiserver.crd import names as naming
from apiserver.crd.checks import check_spec, check_status
from apiserver.registry.strategy import NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api.errors import Cause, invalid, required
from navarch.api.kinds import BY_RESOURCE
from navarch.api.patch import same
from navarch.api.pruning import prepare
from navarch.api.schema import schema_of
from navarch.api.times import format_time
from navarch.api.types import apiextensions_v1
from navarch.world import World

GROUP, RESOURCE = "apiextensions.k8s.io", "customresourcedefinitions"
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
IMMUTABLE = "field is immutable"
_SCHEMA = schema_of(apiextensions_v1.JSONSchemaProps)
_PENDING = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"


class CustomResourceDefinitionStrategy(Strategy):
    kind = BY_RESOURCE[GROUP, "v1", RESOURCE]
    unconditional_update = False
    has_status = True
    columns = (NAME_COLUMN, Column("Created At", "date"))

    def __init__(self, world: World) -> None:
        self.world = world

    def default(self, obj: Tree) -> None:
        spec = obj.get("spec")
        if not isinstance(spec, dict):
            return
        names = spec.get("names")
        if isinstance(names, dict) and names.get("kind"):
            if not names.get("singular"):
                names["singular"] = names["kind"].lower()
            if not names.get("listKind"):
                names["listKind"] = names["kind"] + "List"
        if not spec.get("conversion"):
            spec["conversion"] = {"strategy": "None"}
        elif service := ((spec["conversion"].get("webhook") or {}).get("clientConfig") or {}).get("service"):
            service.setdefault("port", 443)
        for version in spec.get("versions") or ():
            schema = (version.get("schema") or {}).get("openAPIV3Schema")
            if schema:
                tidy(schema)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["metadata"]["generation"] = 1
        obj["status"] = {
            "acceptedNames": {"plural": "", "kind": ""},
            "conditions": [],
            "storedVersions": _storage(obj)[:1],
        }

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        status = obj.setdefault("status", {})
        stored = list(status.get("storedVersions") or ())
        new = [v for v in _storage(obj)[:1] if v not in stored]
        if new:
            status["storedVersions"] = stored + new

    def validate(self, obj: Tree) -> list[Cause]:
        metadata, spec = obj["metadata"], obj.get("spec") or {}
        out: list[Cause] = []
        name_by_spec = f"{(spec.get('names') or {}).get('plural', '')}.{spec.get('group', '')}"
        if metadata.get("name") != name_by_spec:
            out.append(invalid("metadata.name", metadata.get("name", ""), "must be spec.names.plural+\".\"+spec.group"))
        return out + _approval_causes(obj) + check_spec(spec) + check_status(obj)

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        spec, before = obj.get("spec") or {}, old.get("spec") or {}
        out: list[Cause] = []
        if not same(spec, before) or obj["metadata"].get("annotations") != old["metadata"].get("annotations"):
            out += check_spec(spec, before) + check_status(obj)
            if not _approval_causes(old):
                out += _approval_causes(obj)
        names, had = spec.get("names") or {}, before.get("names") or {}
        fixed = [("spec.group", spec.get("group"), before.get("group"))]
        fixed.append(("spec.names.plural", names.get("plural"), had.get("plural")))
        if naming.is_true(old, naming.ESTABLISHED):
            fixed.append(("spec.scope", spec.get("scope"), before.get("scope")))
            fixed.append(("spec.names.kind", names.get("kind"), had.get("kind")))
        return out + [invalid(path, new, IMMUTABLE) for path, new, was in fixed if new != was]

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        return check_status(obj)

    def begin_delete(self, obj: Tree) -> None:
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)
        status = obj.setdefault("status", {})
        now = format_time(self.world.now())
        naming.set_condition(status, naming.TERMINATING, "True", "InstanceDeletionPending", _PENDING, now)

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [obj["metadata"].get("name", ""), obj["metadata"].get("creationTimestamp", "")]


def _storage(obj: Tree) -> list[str]:
    versions = (obj.get("spec") or {}).get("versions") or ()
    return [v.get("name", "") for v in versions if v.get("storage")]


def _approval_causes(obj: Tree) -> list[Cause]:
    """Groups of Kubernetes need a word from its API reviewers."""
    if not naming.is_protected((obj.get("spec") or {}).get("group") or ""):
        return []
    path = f"metadata.annotations[{naming.APPROVAL}]"
    see = "see https://github.com/kubernetes/enhancements/pull/1111"
    value = (obj["metadata"].get("annotations") or {}).get(naming.APPROVAL, "")
    if not value:
        return [required(path, f'protected groups must have approval annotation "{naming.APPROVAL}", {see}')]
    if value.startswith("unapproved") or ("://" in value and value.partition("://")[2].strip("/")):
        return []
    text = f"protected groups must have approval annotation \"{naming.APPROVAL}\" with either a URL or a reason starting with"
    return [invalid(path, value, f'{text} "unapproved", {see}')]


def tidy(schema: Any) -> None:
    """Brings the parts of a schema in order that the typed schema does not reach: what may be a schema or something else."""
    if not isinstance(schema, dict):
        return
    for name in ("items", "additionalProperties"):
        below = schema.get(name)
        if isinstance(below, dict):
            prepare(below, _SCHEMA)
            tidy(below)
    for name in ("allOf", "anyOf", "oneOf"):
        for one in schema.get(name) or ():
            tidy(one)
    tidy(schema.get("not"))
    for one in (schema.get("properties") or {}).values():
        tidy(one)
