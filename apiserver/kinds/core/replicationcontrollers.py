"""ReplicationControllers, the ancestors of ReplicaSets, and PodTemplates."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.apps.workloads import WIDE, Workload, validate_endless_template
from apiserver.kinds.cells import (
    age_cell,
    containers_text,
    kind,
    labels_text,
    name_cell,
    spec_of,
    status_of,
)
from apiserver.kinds.checks import non_negative
from apiserver.kinds.core.pods.warnings import template_warnings
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Tree
from navarch.api.errors import Cause, invalid, required


def template_of(obj: Tree) -> Tree:
    return spec_of(obj).get("template") or {}


class ReplicationControllerStrategy(Workload):
    kind = kind("v1", "ReplicationController")
    counts = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    selectable_fields = ("status.replicas",)
    default_propagation = "Orphan"  # as v1 began, before there was a garbage collector
    columns = (
        NAME_COLUMN, Column("Desired", "integer"), Column("Current", "integer"), Column("Ready", "integer"), AGE_COLUMN,
        *WIDE,
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        super().default(obj)
        labels = (template_of(obj).get("metadata") or {}).get("labels")
        if labels:
            if not obj["spec"].get("selector"):
                obj["spec"]["selector"] = dict(labels)
            if not obj["metadata"].get("labels"):
                obj["metadata"]["labels"] = dict(labels)

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        selector, template = spec.get("selector") or {}, spec.get("template")
        out = non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
        if not selector:
            out.append(required("spec.selector"))
        out += non_negative(spec.get("replicas"), "spec.replicas")
        if template is None:
            return [*out, required("spec.template")]
        labels = (template.get("metadata") or {}).get("labels") or {}
        if selector and any(labels.get(k) != v for k, v in selector.items()):
            text = "`selector` does not match template `labels`"
            out.append(invalid("spec.template.metadata.labels", labels, text))
        return out + validate_endless_template(template, "spec.template", "ReplicationController")

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return self.validate(obj)  # unlike a ReplicaSet's, the selector may change

    def fields(self, obj: Tree) -> dict[str, str]:
        return {"status.replicas": str(status_of(obj).get("replicas") or 0)}

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        was = template_of(old) if old is not None else None
        return template_warnings(spec_of(obj).get("template"), was, "spec.template")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, status = spec_of(obj), status_of(obj)
        containers, images = containers_text(template_of(obj).get("spec") or {})
        return [
            name_cell(obj), spec.get("replicas") or 0, status.get("replicas") or 0, status.get("readyReplicas") or 0,
            age_cell(obj, now), containers, images, labels_text(spec.get("selector")),
        ]  # fmt: skip
