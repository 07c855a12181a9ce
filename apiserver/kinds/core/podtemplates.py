"""PodTemplates: a stored pod template, for controllers that people bring."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import (
    containers_text,
    fill,
    kind,
    labels_text,
    meta_of,
    name_cell,
)
from apiserver.kinds.core.pods.defaults import default_pod_spec
from apiserver.kinds.core.pods.validation import validate_template
from apiserver.kinds.core.pods.warnings import template_warnings
from apiserver.registry.strategy import NAME_COLUMN, Column, Strategy, Tree
from navarch.api.errors import Cause


class PodTemplateStrategy(Strategy):
    kind = kind("v1", "PodTemplate")
    columns = (NAME_COLUMN, Column("Containers"), Column("Images"), Column("Pod Labels"))

    def default(self, obj: Tree) -> None:
        fill(obj, template={})
        default_pod_spec(obj["template"].setdefault("spec", {}))

    def validate(self, obj: Tree) -> list[Cause]:
        return validate_template(obj.get("template") or {}, "template")

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        return template_warnings(obj.get("template"), (old or {}).get("template"), "template")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        template = obj.get("template") or {}
        containers, images = containers_text(template.get("spec") or {})
        return [name_cell(obj), containers, images, labels_text(meta_of(template).get("labels"))]
