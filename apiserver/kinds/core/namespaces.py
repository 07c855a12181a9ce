"""Namespaces: born Active with a finalizer in spec, gone once that is removed through namespaces/finalize."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell, status_of
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, StatusError, invalid, resource_forbidden

NAME_LABEL = "kubernetes.io/metadata.name"
IMMORTAL = ("default", "kube-system", "kube-public")
FINALIZER = "kubernetes"


class NamespaceStrategy(Strategy):
    kind = kind("v1", "Namespace")
    verbs = ("create", "delete", "get", "list", "patch", "update", "watch")
    has_status = True
    generation = False
    selectable_fields = ("status.phase",)
    columns = (NAME_COLUMN, Column("Status"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        metadata = obj["metadata"]
        if metadata.get("name"):
            labels = metadata.setdefault("labels", {})
            labels.setdefault(NAME_LABEL, metadata["name"])
        obj.setdefault("status", {}).setdefault("phase", "Active")

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {"phase": "Active"}
        finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        # Finalizers in spec only go through the finalize subresource.
        obj["spec"] = dict(old.get("spec") or {})
        obj["status"] = dict(old.get("status") or {})

    def validate(self, obj: Tree) -> list[Cause]:
        out: list[Cause] = []
        metadata = obj["metadata"]
        label = (metadata.get("labels") or {}).get(NAME_LABEL)
        if metadata.get("name") and label != metadata["name"]:
            out.append(invalid(f"metadata.labels[{NAME_LABEL}]", label or "", f"must equal {metadata['name']}"))
        for i, finalizer in enumerate((obj.get("spec") or {}).get("finalizers") or ()):
            out += [invalid(f"spec.finalizers[{i}]", finalizer, m) for m in names.qualified_name(finalizer)]
        return out

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        phase = status_of(obj).get("phase")
        if obj["metadata"].get("deletionTimestamp"):
            if phase != "Terminating":
                return [invalid("status.Phase", phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")]
        elif phase != "Active":
            return [invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty")]
        return []

    def name_causes(self, name: str, prefix: bool) -> list[str]:
        return names.dns_label(name.rstrip("-") if prefix else name)

    def fields(self, obj: Tree) -> dict[str, str]:
        return {"status.phase": status_of(obj).get("phase", "")}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), status_of(obj).get("phase", ""), age_cell(obj, now)]

    def begin_delete(self, obj: Tree) -> None:
        obj.setdefault("status", {})["phase"] = "Terminating"

    def is_held(self, obj: Tree) -> bool:
        """Until the namespace controller has emptied it and taken its finalizer away."""
        return bool((obj.get("spec") or {}).get("finalizers"))

    def check_delete(self, context: Context, obj: Tree) -> None:
        name = name_cell(obj)
        if name in IMMORTAL:
            error: StatusError = resource_forbidden("namespaces", "", name, "this namespace may not be deleted")
            raise error
