"""APIService: who serves a group and version."""

from __future__ import annotations

import base64
from typing import Any

from apiserver.kinds.cells import age_cell, condition, fill, kind, name_cell, spec_of
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, invalid, not_supported, required
from navarch.api.times import format_time
from navarch.world import World

GROUP, RESOURCE = "apiregistration.k8s.io", "apiservices"
AVAILABLE = "Available"
MAX_GROUP_PRIORITY, MAX_VERSION_PRIORITY = 20000, 1000


def local_condition(now: str) -> Tree:
    """The condition of an APIService that this server answers itself."""
    return {
        "type": AVAILABLE, "status": "True", "reason": "Local", "message": "Local APIServices are always available",
        "lastTransitionTime": now,
    }  # fmt: skip


class APIServiceStrategy(Strategy):
    kind = kind(f"{GROUP}/v1", "APIService")
    unconditional_update = False
    has_status = True
    generation = False
    columns = (NAME_COLUMN, Column("Service"), Column("Available"), AGE_COLUMN)

    def __init__(self, world: World) -> None:
        self.world = world

    def default(self, obj: Tree) -> None:
        service = spec_of(obj).get("service")
        if service is not None:
            fill(service, port=443)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {}
        if spec_of(obj).get("service") is None:
            obj["status"] = {"conditions": [local_condition(format_time(self.world.now()))]}

    def validate(self, obj: Tree) -> list[Cause]:
        spec, name = spec_of(obj), obj["metadata"].get("name", "")
        group, version = spec.get("group") or "", spec.get("version") or ""
        out: list[Cause] = []
        if name != f"{version}.{group}":
            name_by_spec = f"{version}.{group}"
            out.append(invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{name_by_spec}"'))
        if not group and version != "v1":
            out.append(required("spec.group", "only v1 may have an empty group and it better be legacy kube"))
        if group:
            out += [invalid("spec.group", group, text) for text in names.dns_subdomain(group)]
        out += [invalid("spec.version", version, text) for text in names.dns1035(version)]
        for field, most in (("groupPriorityMinimum", MAX_GROUP_PRIORITY), ("versionPriority", MAX_VERSION_PRIORITY)):
            value = spec.get(field) or 0
            if not 0 < value <= most:
                out.append(invalid(f"spec.{field}", value, f"must be positive and less than {most}"))
        service, bundle, insecure = spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify")
        if service is None:
            if bundle:
                shown = f"{len(base64.b64decode(bundle))} bytes"
                out.append(invalid("spec.caBundle", shown, "local APIServices may not have a caBundle"))
            if insecure:
                text = "local APIServices may not have insecureSkipTLSVerify"
                out.append(invalid("spec.insecureSkipTLSVerify", True, text))
            return out
        out += [required(f"spec.service.{field}") for field in ("namespace", "name") if not service.get(field)]
        port = service.get("port") or 0
        if not 0 < port < 65536:
            text = "port is not valid: must be between 1 and 65535, inclusive"
            out.append(invalid("spec.service.port", port, text))
        if insecure and bundle:
            out.append(invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))
        return out

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        out: list[Cause] = []
        for i, one in enumerate((obj.get("status") or {}).get("conditions") or ()):
            if one.get("status") not in ("True", "False", "Unknown"):
                choices = ["True", "False", "Unknown"]
                out.append(not_supported(f"status.conditions[{i}].status", one.get("status") or "", choices))
        return out

    def name_causes(self, name: str, prefix: bool) -> list[str]:
        """``v1.`` is a name, too; :meth:`validate` says the rest."""
        return names.path_segment(name)

    def cells(self, obj: Tree, now: float) -> list[Any]:
        service = spec_of(obj).get("service")
        where = "Local" if service is None else f"{service.get('namespace', '')}/{service.get('name', '')}"
        availability = condition(obj, AVAILABLE)
        available = "Unknown" if availability is None else str(availability.get("status", ""))
        if availability is not None and available != "True":
            available += f" ({availability.get('reason', '')})"
        return [name_cell(obj), where, available, age_cell(obj, now)]
