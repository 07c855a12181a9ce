"""IngressClasses: which controller serves an Ingress, with which parameters."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell, spec_of
from apiserver.kinds.checks import domain_path, immutable, optional_name
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names
from navarch.api.errors import Cause, forbidden, not_supported, required, too_long

SCOPES = ("Cluster", "Namespace")
MAX_CONTROLLER = 250


class IngressClassStrategy(Strategy):
    kind = kind("networking.k8s.io/v1", "IngressClass")
    columns = (NAME_COLUMN, Column("Controller"), Column("Parameters"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        parameters = spec_of(obj).get("parameters")
        if parameters is not None and parameters.get("scope") is None:
            parameters["scope"] = "Cluster"

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        controller, parameters = spec.get("controller") or "", spec.get("parameters")
        out = domain_path(controller, "spec.controller")
        if len(controller) > MAX_CONTROLLER:
            out.append(too_long("spec.controller", MAX_CONTROLLER))
        return out if parameters is None else out + _parameters(parameters, "spec.parameters")

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        same = immutable(spec_of(obj).get("controller"), spec_of(old).get("controller"), "spec.controller")
        return self.validate(obj) + same

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, shown = spec_of(obj), "<none>"
        if parameters := spec.get("parameters"):
            group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
            shown = f"{parameters.get('kind') or ''}{group}/{parameters.get('name') or ''}"
        return [name_cell(obj), spec.get("controller") or "", shown, age_cell(obj, now)]


def _parameters(parameters: Tree, path: str) -> list[Cause]:
    out = [required(f"{path}.{f}") for f in ("kind", "name") if not parameters.get(f)]
    out += optional_name(parameters.get("apiGroup"), f"{path}.apiGroup", names.dns_subdomain)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope not in SCOPES:
        return [*out, not_supported(f"{path}.scope", scope or "", SCOPES)]
    if scope == "Namespace":
        if not namespace:
            out.append(required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'"))
        return out + optional_name(namespace, f"{path}.namespace", names.dns_label)
    if namespace is not None:
        out.append(forbidden(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'"))
    return out
