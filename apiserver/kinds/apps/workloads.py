"""The parts that Deployments, ReplicaSets and other workloads share: selector, template, counts, columns."""

from __future__ import annotations

from typing import Any, ClassVar

from apiserver.kinds.cells import containers_text, fill, selector_text, spec_of, status_of
from apiserver.kinds.checks import (
    immutable,
    non_negative,
    selector_empty,
    validate_label_selector,
)
from apiserver.kinds.core.pods.defaults import default_pod_spec
from apiserver.kinds.core.pods.validation import validate_template
from apiserver.kinds.core.pods.warnings import template_warnings
from apiserver.registry.strategy import Column, Strategy, Tree
from apiserver.request import Context
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required
from navarch.api.selectors import selector_matches

WIDE = (Column("Containers", priority=1), Column("Images", priority=1), Column("Selector", priority=1))


def wide_cells(spec: Tree) -> list[Any]:
    containers, images = containers_text((spec.get("template") or {}).get("spec") or {})
    return [containers, images, selector_text(spec.get("selector"))]


def validate_selected_template(
    spec: Tree, path: str = "spec", *, empty: str = "deployment", owner: str = "ReplicaSet"
) -> list[Cause]:
    """The selector is there, is valid and selects the template's pods; the template is valid and restarts for ever.

    ``empty`` and ``owner``: how the texts name the kind."""
    selector, template = spec.get("selector"), spec.get("template")
    out: list[Cause] = []
    if selector is None:
        out.append(required(f"{path}.selector"))
    else:
        wrong = validate_label_selector(selector, f"{path}.selector")
        out += wrong
        if selector_empty(selector):
            out.append(invalid(f"{path}.selector", selector, f"empty selector is invalid for {empty}"))
        labels = ((template or {}).get("metadata") or {}).get("labels") or {}
        usable = not wrong and template is not None and not selector_empty(selector)
        if usable and not selector_matches(selector, labels):
            text = "`selector` does not match template `labels`"
            out.append(invalid(f"{path}.template.metadata.labels", labels, text))
    if template is None:
        out.append(required(f"{path}.template"))
        return out
    return out + validate_endless_template(template, f"{path}.template", owner)


def validate_endless_template(template: Tree, path: str, owner: str) -> list[Cause]:
    """A valid template of pods that run for ever."""
    out = validate_template(template, path)
    pod = template.get("spec") or {}
    if pod.get("restartPolicy") != "Always":
        out.append(not_supported(f"{path}.spec.restartPolicy", pod.get("restartPolicy"), ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        text = f"activeDeadlineSeconds in {owner} is not Supported"
        out.append(forbidden(f"{path}.spec.activeDeadlineSeconds", text))
    return out


class Workload(Strategy):
    """The behaviour that the kinds with replicas of a template share."""

    has_status = True
    scale_path = True
    counts: ClassVar[tuple[str, ...]] = ()

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        fill(spec, replicas=1)
        if spec.get("template") is not None:
            default_pod_spec(spec["template"].setdefault("spec", {}))

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = self.zero_status()

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        obj["status"] = dict(old.get("status") or {})

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return self.validate(obj) + immutable(
            spec_of(obj).get("selector"), spec_of(old).get("selector"), "spec.selector"
        )

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        was = spec_of(old).get("template") or {} if old is not None else None
        return template_warnings(spec_of(obj).get("template"), was, "spec.template")

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        status = status_of(obj)
        out: list[Cause] = []
        for field in (*self.counts, "observedGeneration"):
            out += non_negative(status.get(field), f"status.{field}")
        total = status.get("replicas") or 0
        for field in self.counts[1:]:
            if field != "unavailableReplicas" and (status.get(field) or 0) > total:
                out.append(invalid(f"status.{field}", status.get(field) or 0, "cannot be greater than status.replicas"))
        ready, available = status.get("readyReplicas") or 0, status.get("availableReplicas") or 0
        if available > ready:
            out.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))
        return out
