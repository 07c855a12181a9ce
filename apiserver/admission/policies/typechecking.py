"""Type checking of a policy by the schemas of the kinds that it is about: told in its status, never enforced.

Upstream a controller does this; here it stays beside the schemas and the compiler.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from apiserver.admission.cachefollower import follow
from apiserver.cel.engine import CelError, compile_cel
from apiserver.cel.fields import chain_types, fields_of, undefined_field
from apiserver.crd.custom import CustomStrategy
from apiserver.crd.views import type_of
from apiserver.kinds.admissionregistration.expressions import Declared
from apiserver.kinds.admissionregistration.validatingadmissionpolicies import compile_variables, declared
from apiserver.kinds.admissionregistration.webhooks import GROUP
from apiserver.registry.resource import Resource
from apiserver.registry.resources import Resources
from apiserver.request import WriteOptions, own_context
from apiserver.storage.store import StoreUnavailable
from navarch.api.errors import NotFound, StatusError
from navarch.api.schema import (
    BOOL,
    BYTES,
    INT32,
    INT64,
    INTEGER,
    LIST,
    MAP,
    MICRO_TIME,
    NUMBER,
    OBJECT,
    STRING,
    TIME,
    Node,
)
from navarch.world import Backoff

log = logging.getLogger(__name__)
Tree = dict[str, Any]
RESOURCE = "validatingadmissionpolicies"
MAX_KINDS = 10
OPTIONS = WriteOptions(field_manager="kube-apiserver")


def node_fields(node: Node, whole: bool) -> dict[str, Node] | None:
    """The fields of a built-in type; None for what may have any."""
    return node.fields if node.kind == OBJECT and not node.open else None


def kinds_of(resources: Resources, spec: Tree) -> list[Resource]:
    """The kinds that the rules name, without wildcards."""
    out: list[Resource] = []
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        for group in rule.get("apiGroups") or ():
            for version in rule.get("apiVersions") or ():
                for name in rule.get("resources") or ():
                    resource = resources.served.get((group, version, name))
                    if resource is not None and resource not in out:
                        out.append(resource)
    return sorted(out, key=lambda r: (r.kind.group, r.kind.version, r.kind.kind))[:MAX_KINDS]


def custom_fields(schema: Tree, whole: bool) -> Tree | None:
    """The fields of a custom type. Its rules see little of metadata, but policies see all."""
    fields = fields_of(schema, whole)
    return fields | {"metadata": {"x-kubernetes-preserve-unknown-fields": True}} if fields is not None and whole else fields


def node_type(node: Node) -> str:
    """The type that CEL knows a built-in value by."""
    if node.kind == LIST:
        return f"list({node_type(node.element)})"
    if node.kind == MAP:
        return f"map({node_type(node.element)})"
    return _TYPES.get(node.kind, "dyn")


_TYPES = {
    STRING: "string", BOOL: "bool", INT32: "int", INT64: "int", INTEGER: "int", NUMBER: "double", BYTES: "bytes",
    TIME: "timestamp", MICRO_TIME: "timestamp",
}  # fmt: skip


def warnings(resources: Resources, spec: Tree) -> list[Tree]:
    """The expressionWarnings of a policy."""
    kinds, (_, types) = kinds_of(resources, spec), compile_variables(spec)
    out: list[Tree] = []
    for i, validation in enumerate(spec.get("validations") or ()):
        for field in ("expression", "messageExpression"):
            source = validation.get(field)
            if not source:
                continue
            variables = declared(spec, types)
            doubts = [(r.kind, doubt(r, source, variables)) for r in kinds]
            texts = [f"{kind.api_version}, Kind={kind.kind}: {text}" for kind, text in doubts if text]
            if texts:
                out.append({"fieldRef": f"spec.validations[{i}].{field}", "warning": "\n".join(texts)})
    return out


def doubt(resource: Resource, source: str, variables: Declared) -> str:
    """The objection that the compiler would have to an expression if it knew the types of the fields of this kind."""
    strategy, names = resource.strategy, ("object", "oldObject")
    if isinstance(strategy, CustomStrategy):
        schema: Any = strategy.open_schema
        objection = undefined_field(source, schema, True, names, custom_fields) if schema else ""
        types = chain_types(source, schema, True, names, custom_fields, type_of)
    else:
        schema = strategy.schema
        objection = undefined_field(source, schema, True, names, node_fields)
        types = chain_types(source, schema, True, names, node_fields, node_type)
    if objection or not types:
        return objection
    # A field that is a variable here cannot be asked for with has(), which is always allowed for the fields that are there.
    plain = _PRESENCE.sub(lambda match: "true" + re.sub(r"[^\n]", " ", match[0][4:]), source)
    try:
        compile_cel(plain, variables + tuple(types.items()))
    except CelError as error:
        text = str(error)
        for shown, line in zip(plain.split("\n"), source.split("\n"), strict=True):
            text = text.replace(f" | {shown}\n", f" | {line}\n")
        return text
    return ""


_PRESENCE = re.compile(r"\bhas\s*\(\s*(?:object|oldObject)(?:\s*\.\s*[A-Za-z_]\w*)+\s*\)")


class TypeChecker:
    """Keeps the status of policies."""

    def __init__(self, resources: Resources) -> None:
        self.resources, self.world, self.cache = resources, resources.backend.world, resources.backend.cache

    async def run(self) -> None:
        await follow(self.cache, f"/registry/{RESOURCE}/", self._changed)

    async def _changed(self) -> None:
        policies = self.resources[GROUP, RESOURCE]
        for entry in self.cache.list(policies.prefix).entries:
            tree = entry.tree()
            generation = tree["metadata"].get("generation") or 0
            if (tree.get("status") or {}).get("observedGeneration") != generation:
                await self._tell(entry.name, generation, warnings(self.resources, tree.get("spec") or {}))

    async def _tell(self, name: str, generation: int, warnings_: list[Tree]) -> None:
        def change(old: Tree) -> Tree:
            if (old["metadata"].get("generation") or 0) == generation:
                checked = {"typeChecking": {"expressionWarnings": warnings_} if warnings_ else {}}
                old["status"] = (old.get("status") or {}) | {"observedGeneration": generation} | checked
            return old

        policies, backoff = self.resources[GROUP, RESOURCE], Backoff(self.world)
        while True:
            try:
                await policies.change(own_context(self.world), "", name, change, OPTIONS, subresource="status", admit=False)
                return
            except NotFound:
                return
            except (StatusError, StoreUnavailable) as error:
                log.warning("cannot tell what is doubtful in policy %s: %s", name, error)
            await self.world.sleep(backoff.next())
